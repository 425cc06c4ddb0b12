"""The runs of a screening: what is screened at five coefficients, published arms and an untrained gate beside it.

Written down before anything ran: clusters at μ 0 and 4 (far from and at the common mean that drives collapse), seeds 0
to 3, the same for all. An objective is added to the task alone, with free top-k; a router gets the load loss beside the
task, as published ones have it; an arm gets it on top of its own objectives. Rivals have their published coefficients.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from himoe_theory.plumbing.bring import Place

from ..fields import build
from ..run import simulate
from ..workers import run_all

Kind = Literal["objective", "router", "arm"]

MEANS = (0.0, 4.0)
COEFFICIENTS: Mapping[Kind, tuple[float, ...]] = {
    "objective": (0.0, 0.003, 0.03, 0.3, 3.0),
    "router": (0.0, 0.001, 0.01, 0.1, 1.0),
    "arm": (0.0, 0.001, 0.01, 0.1, 1.0),
}
"""An objective's own coefficient, else that of the load loss."""
RIVALS = ("gshard", "moge", "hi-moe", "switch")
UNTRAINED, LOAD = "untrained gate", "load_per_token"
SEEDS = 4
FIELDS: Mapping[str, Any] = {"training.steps": 600, "training.records": 4}
"""Of all rows, unless others are given."""
MEASURED = ("test_error", "cv", "cv_floor", "information", "gain", "regime", "balance")


@dataclasses.dataclass(frozen=True)
class Row:
    """One arm of the screening: the `fields` that make it, and which coefficient it has, if it is what is screened."""

    label: str
    fields: Mapping[str, Any]
    coefficient: float | None = None


def rows(text: str, kind: Kind, others: Mapping[str, Any]) -> list[Row]:
    """Those of what is screened, then the rivals, then the untrained gate. `text`: as the command line names it.
    `others`: fields of all of them."""
    name, others = text.rpartition(":")[2], {**FIELDS, **others}
    own = {"objective": {"arm": "guo-none"}, "router": {"arm": "guo-none", "router.kind": text}, "arm": {"arm": text}}
    term = f"terms.{text}" if kind == "objective" else f"terms.{LOAD}"
    screened = [Row(f"{name} {c:g}", others | own[kind] | {term: c}, c) for c in COEFFICIENTS[kind]]
    rivals = [Row(name, others | {"arm": name}) for name in RIVALS]
    return [*screened, *rivals, Row(UNTRAINED, others | {"arm": "frozen"})]


@dataclasses.dataclass(frozen=True)
class Job:
    """All rows on the clusters of one mean. `place`: where the user's file is, with its content."""

    rows: tuple[Row, ...]
    mean: float
    seeds: int
    place: Place


def run(job: Job, report: Callable[[float], None]) -> xr.Dataset:
    """The measurements of a job at the end, over (arm, seed)."""
    settings = [build({**row.fields, "data.mean": job.mean}, job.place) for row in job.rows]
    arms = [dataclasses.replace(one.arm, name=row.label) for one, row in zip(settings, job.rows, strict=True)]

    def progress(done: int, total: int) -> None:
        report(done / total)

    first = settings[0]
    return _at_the_end(simulate(arms, first.data, first.layer, first.training, job.seeds, progress=progress))


def _at_the_end(found: xr.Dataset) -> xr.Dataset:
    """`MEASURED`, and the CV at the start beside that at the end."""
    kept = found[list(MEASURED)]
    kept = kept.isel(step=-1, drop=True) if "step" in kept.dims else kept
    return kept.assign(cv_at_start=found["cv"].isel(step=0, drop=True)).load()


def run_rows(
    of: Sequence[Row],
    place: Place,
    *,
    seeds: int = SEEDS,
    workers: int = 2,
    report: Callable[[float], None] = lambda share: None,
) -> xr.Dataset:
    """Every row at every mean: `MEASURED` over (mean, arm, seed)."""
    jobs = [Job(tuple(of), mean, seeds, place) for mean in MEANS]
    found: dict[int, xr.Dataset] = dict(_run(jobs, workers, report))
    return xr.concat([found[i] for i in range(len(jobs))], dim=xr.Variable("mean", np.asarray(MEANS)))


def _run(jobs: Sequence[Job], workers: int, report: Callable[[float], None]) -> Iterator[tuple[int, xr.Dataset]]:
    """In processes of their own, or one after another in this one."""
    if workers == 1:
        for number, job in enumerate(jobs):
            yield number, run(job, lambda share, before=number: report((before + share) / len(jobs)))
    else:
        yield from run_all(run, jobs, workers, lambda shares: report(sum(shares) / len(jobs)), one_core_each=True)
