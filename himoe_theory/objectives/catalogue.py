"""Every objective of this package by name, collected from the `RECORDS` of the modules beside this one."""

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path

from .record import Objective

_FAMILIES = sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]))
_OTHERS = {"_softmax", "catalogue", "record", "scopes"}

OBJECTIVES: dict[str, Objective] = {
    record.name: record
    for family in _FAMILIES
    if family not in _OTHERS
    for record in importlib.import_module(f"{__package__}.{family}").RECORDS
}


def chosen(term: str | Objective, own: Mapping[str, Objective] | None = None) -> Objective:
    """The record that a term names, among `own` or else `OBJECTIVES`; a record is itself.

    **Raises:** `ValueError` for an unknown name, with all that are known.
    """
    if isinstance(term, Objective):
        return term
    known = OBJECTIVES | dict(own or {})
    if term not in known:
        raise ValueError(f"`terms` must name known objectives; got {term!r}, known are {', '.join(sorted(known))}.")
    return known[term]
