"""The card of a screening: numbers as plain values, for the page, for JSON, and for whoever calls it from Python."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from himoe_theory import Router
from himoe_theory.contract import Contract, check
from himoe_theory.contract.names import called
from himoe_theory.objectives import Objective
from himoe_theory.plumbing.bring import HERE, Place, names_file

from ..brought import described
from ..fields import build
from ..regimes import NAMES
from ..run import interval
from .runs import MEANS, SEEDS, Kind, Row, rows, run_rows

QUANTITIES = {
    "test_error": "mean squared error on fresh tokens",
    "gain": "G: 0 for a gate left as it was drawn, 1 for one that reads the label",
    "information": "of selection on the label, over the largest possible",
    "cv": "coefficient of variation of the loads, at the end",
    "cv_at_start": "the same before training",
    "cv_floor": "what sampling the test tokens alone gives an even router",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One arm on the clusters of one mean: mean and 95 % half-width over seeds of `QUANTITIES`; how many seeds have
    each regime and balance."""

    arm: str
    coefficient: float | None
    mean: float
    quantities: dict[str, tuple[float, float]]
    names: dict[str, dict[str, int]]


@dataclasses.dataclass(frozen=True)
class Card:
    """What a screening found. `source`: file and hash of what was brought. `seconds`: how long it took."""

    name: str
    kind: Kind
    source: dict[str, Any]
    contract: Contract
    lines: tuple[Line, ...]
    steps: int
    seeds: int
    seconds: float

    def of(self, mean: float, *, screened: bool) -> list[Line]:
        """The lines at a mean: those of what is screened, by coefficient, or those beside it."""
        return [line for line in self.lines if line.mean == mean and (line.coefficient is not None) == screened]


def kind_of(thing: Any) -> Kind:
    """Of what a name gave: an arm if it has a router and objectives, a router, an objective."""
    if isinstance(thing, Objective):
        return "objective"
    return "router" if isinstance(thing, Router) else "arm"


def screen(
    text: str,
    *,
    place: Place = HERE,
    fields: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
    workers: int = 2,
    report: Callable[[str, float], None] = lambda what, share: None,
) -> Card:
    """Contract, then runs. **Arguments:** `text`: `FILE.py:NAME`, or a name of ours. `fields`: of all runs, as sweeps
    name them. `workers`: processes.

    **Raises:** `ValueError` for what is no objective, router or arm.
    """
    began = time.perf_counter()
    place = place.with_sources([text]) if names_file(text) else place
    report("contract", 0.0)
    thing = called(text, place)
    kind, tried = kind_of(thing), check(thing)
    of = rows(text, kind, fields or {})
    training = build({**of[0].fields, "data.mean": MEANS[0]}, place).training
    measured = run_rows(of, place, seeds=seeds, workers=workers, report=lambda share: report("runs", share))
    lines = tuple(_line(row, mean, measured) for mean in MEANS for row in of)
    seconds = time.perf_counter() - began
    return Card(text.rpartition(":")[2], kind, described(thing), tried, lines, training.steps, seeds, seconds)


def _line(row: Row, mean: float, measured: xr.Dataset) -> Line:
    one = measured.sel(arm=row.label, mean=mean)
    quantities = {}
    for name in QUANTITIES:
        spread = interval(np.broadcast_to(one[name].values, measured.sizes["seed"]))
        quantities[name] = (spread.mean, spread.half_width)
    names = {}
    for name, kind in NAMES.items():
        codes, counts = np.unique(one[name].values.astype(int), return_counts=True)
        names[name] = {kind(code).label: int(count) for code, count in zip(codes, counts, strict=True)}
    return Line(row.label, row.coefficient, mean, quantities, names)
