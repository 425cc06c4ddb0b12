"""Deliberate faults in the checks at the boundary.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/test_bad_input.py"]

_CHECKS = "himoe_theory/_checks.py"

FAULTS = [
    (
        _CHECKS,
        "bad = ~np.isfinite(np.asarray(x, dtype=np.float64))",
        "bad = np.isnan(np.asarray(x, dtype=np.float64))",
        "infinite logits accepted",
    ),
    (
        _CHECKS,
        "np.argwhere(bad)[0])\n            raise",
        "np.argwhere(~bad)[0])\n            raise",
        "the wrong place named",
    ),
    (_CHECKS, "if size == 0:", "if size < 0:", "no tokens accepted"),
    (
        _CHECKS,
        "np.isfinite(entries) & (entries >= minimum)",
        "(entries >= minimum)",
        "an infinite coefficient accepted",
    ),
    (
        _CHECKS,
        "good = np.isfinite(entries) & (entries > 0)",
        "good = np.isfinite(entries) & (entries >= 0)",
        "a temperature of 0 accepted",
    ),
    (_CHECKS, "if isinstance(value, bool) or not isinstance", "if not isinstance", "True counted as 1"),
    (
        _CHECKS,
        "if maximum is not None and value > maximum:",
        "if maximum is not None and value > maximum + 1:",
        "K one too large",
    ),
    (_CHECKS, "if x.shape != reference.shape:", "if x.ndim != reference.ndim:", "a mask of another size accepted"),
    (
        "himoe_theory/partition.py",
        "whole = all(isinstance(g, (int, np.integer)) and not isinstance(g, bool) for g in entries)",
        "whole = all(isinstance(g, (int, np.integer)) for g in entries)",
        "bool partition entries accepted",
    ),
]
