"""Checks of what himoe_theory claims."""

from .gradients import audit as audit
from .gradients import both_gradients as both_gradients
from .gradients import error as error

__all__ = [
    "audit",
    "both_gradients",
    "error",
]
