"""Fields of a configuration by dotted name, the same for one run, a sweep and a language model."""

from .assign import given as given
from .assign import read as read
from .build import Setting as Setting
from .build import arm_of as arm_of
from .build import below as below
from .build import build as build
from .known import check as check
from .known import every as every
from .known import known as known
from .types import Value as Value

__all__ = [
    "Setting",
    "Value",
    "arm_of",
    "below",
    "build",
    "check",
    "every",
    "given",
    "known",
    "read",
]
