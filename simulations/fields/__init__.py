"""Fields of a configuration by dotted name, the same for one run, a sweep and a language model."""

from .build import Setting as Setting
from .build import Value as Value
from .build import build as build
from .build import check as check
from .build import known as known

__all__ = [
    "Setting",
    "Value",
    "build",
    "check",
    "known",
]
