"""Sweeps: grids, lists and random draws of settings, times seeds, in a store that survives whatever stops them."""

from ..fields import Setting as Setting
from ..fields import build as build
from ..fields import known as known
from .cluster import dask as dask
from .design import Design as Design
from .design import drawn as drawn
from .design import grid as grid
from .design import listed as listed
from .design import read_design as read_design
from .read import read_sweep as read_sweep
from .run import resume as resume
from .run import sweep as sweep
from .store import Store as Store
from .workers import local as local

__all__ = [
    "Design",
    "Setting",
    "Store",
    "build",
    "dask",
    "drawn",
    "grid",
    "known",
    "listed",
    "local",
    "read_design",
    "read_sweep",
    "resume",
    "sweep",
]
