"""The contract of an objective or a router of anybody's: what it claims, tried; what it does, measured.

`check` gives all of it; `cosines` and `growth` give single measurements.
"""

from .angles import Angles as Angles
from .angles import Cosine as Cosine
from .angles import cosines as cosines
from .check import check as check
from .finding import Contract as Contract
from .finding import Finding as Finding
from .finding import Outcome as Outcome
from .finding import Table as Table
from .rates import Rate as Rate
from .rates import growth as growth

__all__ = [
    "Angles",
    "Contract",
    "Cosine",
    "Finding",
    "Outcome",
    "Rate",
    "Table",
    "check",
    "cosines",
    "growth",
]
