"""Checks of what himoe_theory claims."""

try:
    from himoe_theory.plumbing.shadow import check as _check

    _check("himoe_theory")
except ModuleNotFoundError:  # another folder of that name comes first
    raise SystemExit("a folder hides the package himoe_theory where this was started: start from another.") from None

from .gradients import audit as audit
from .gradients import both_gradients as both_gradients
from .gradients import error as error

__all__ = [
    "audit",
    "both_gradients",
    "error",
]
