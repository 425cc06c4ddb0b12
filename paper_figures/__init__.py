"""Stored results to figures to one HTML page; what is missing is computed first, nothing is while drawing."""

try:
    from himoe_theory.plumbing.shadow import check as _check

    _check("himoe_theory", "simulations", "proofs_checks")
except ModuleNotFoundError:  # another folder of that name comes first
    raise SystemExit("a folder hides the package himoe_theory where this was started: start from another.") from None
