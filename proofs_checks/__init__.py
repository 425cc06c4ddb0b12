"""Checks of what himoe_theory claims."""

from .gradients import audit as audit
from .gradients import error as error
from .gradients import output_gradients as output_gradients
from .gradients import routing_gradients as routing_gradients

__all__ = [
    "audit",
    "error",
    "output_gradients",
    "routing_gradients",
]
