"""Fields of a configuration by dotted name, the same for one run, a sweep and a language model."""

from .assign import given as given
from .assign import read as read
from .build import Setting as Setting
from .build import arm_of as arm_of
from .build import below as below
from .build import build as build
from .build import training_of as training_of
from .known import brought_by as brought_by
from .known import check as check
from .known import every as every
from .known import free_below as free_below
from .known import known as known
from .types import Value as Value

__all__ = [
    "Setting",
    "Value",
    "arm_of",
    "below",
    "brought_by",
    "build",
    "check",
    "every",
    "free_below",
    "given",
    "known",
    "read",
    "training_of",
]
