"""One call from arms to a labelled data set: train every arm on every seed, measure, name regime and balance."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
import xarray as xr

from himoe_theory import Router, _checks, metrics

from .arms import Arm, choose, without_task_gradient
from .arms import arms as available
from .data import KINDS, Batch, Data
from .layer import Layer
from .partners import JUDGED_BY, judge, with_partners
from .provenance import provenance
from .record import DESCRIPTIONS
from .regimes import NAMES, Name, cv_floor, has_diverged, name_balance
from .training import Group, Measured, Setting, Training, group, shared_program

LAYER, TRAINING = Layer(), Training()
NO_TASK_GRADIENT = "no_task_gradient"
"""Attribute of a result: JSON list of the arms whose gate gets no gradient from the task."""

Progress = Callable[[int, int], None]
"""Called with optimiser steps done and steps in all, over all runs."""

# Axes of a measurement behind (arm, seed, step).
_AXES = {"hard_load": ("expert",), "soft_load": ("expert",), "assignment": ("label", "expert")}


def simulate(
    arms: Arm | str | Sequence[Arm | str],
    data: Data | str,
    layer: Layer = LAYER,
    training: Training = TRAINING,
    seeds: int | Sequence[int] = 8,
    *,
    partners: bool = True,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Trains every arm with every seed and returns the trajectories.

    **Arguments:** `arms`: one or several, of equal numbers of experts, with distinct names; a name is the arm of 8
    experts in 4 groups. `data`: a data set, or its name in `KINDS`. `seeds`: how many (0, 1, ...) or which whole
    numbers >= 0; a seed fixes truth, initial parameters, batches and test set, equally for all arms. `partners`: also
    train the arms' partners, one more run a seed for every router and one for all; without them no regime is judged.
    **Returns:** a data set over (arm, seed, step) with `regime`, `balance` and what they are read from; a diverged run
    is a row with its code. Attributes hold configuration and provenance, and the arms whose gate the task does not
    reach.
    **Raises:** `ValueError` for no arms or seeds, repeated names, or unequal numbers of experts.
    """
    arms, data, seeds = _named(arms, data, seeds)
    _check(arms, layer, training, seeds)
    began = time.perf_counter()
    every = arms_and_partners(arms, data, layer, training) if partners else arms
    total = len(every) * len(seeds) * training.steps
    done = 0
    parts: list[xr.Dataset] = []
    for members in group(every):
        share = len(members.arms) * len(seeds) * training.steps
        parts.append(_run_group(members, data, layer, training, seeds, done, total, progress))
        done += share
    result = judged(xr.concat(parts, dim="arm", join="outer", fill_value=np.nan), arms, data, layer, training)
    for name, description in DESCRIPTIONS.items():
        if name in result:
            result[name].attrs["description"] = description
    result.attrs = provenance(arms, data, layer, training, seeds, time.perf_counter() - began)
    unreached = [arm.name for arm in arms if without_task_gradient(arm)]
    return result.assign_attrs({NO_TASK_GRADIENT: json.dumps(unreached)} if unreached else {})


def arms_and_partners(arms: Sequence[Arm], data: Data, layer: Layer, training: Training) -> list[Arm]:
    """The arms and those of their partners that are not among them."""
    return [one.arm for one in with_partners([Setting(arm, data, layer, training) for arm in arms])[0]]


def judged(found: xr.Dataset, arms: Sequence[Arm], data: Data, layer: Layer, training: Training) -> xr.Dataset:
    """The arms' runs with their regimes; partners among the runs that are no arms are left out."""
    every, places = with_partners([Setting(arm, data, layer, training) for arm in arms])
    there = found.reindex(arm=[one.arm.name for one in every], fill_value=np.nan)
    first, final = ({name: there[name].isel(step=step).values for name in JUDGED_BY} for step in (0, -1))
    verdict = judge(first, final, places)
    result = found.sel(arm=[arm.name for arm in arms]).assign({n: (("arm", "seed"), v) for n, v in verdict.items()})
    for name, kind in NAMES.items():
        result[name].attrs["codes"] = kind.codes()
    return result


def _named(
    given: Arm | str | Sequence[Arm | str], data: Data | str, seeds: int | Sequence[int]
) -> tuple[list[Arm], Data, Sequence[int]]:
    """What names and numbers stand for. **Raises:** `ValueError` for what is neither."""
    several = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for arm in several:
        if not isinstance(arm, (Arm, str)):
            raise ValueError(f"`arms` must be arms or their names; got {arm!r}.")
    found = [choose([arm], available())[0] if isinstance(arm, str) else arm for arm in several]
    if isinstance(data, str):
        if data not in KINDS:
            raise ValueError(f"`data` must be a data set or one of {', '.join(KINDS)}; got {data!r}.")
        data = KINDS[data]()
    if isinstance(data, type) or not isinstance(data, Data):
        raise ValueError(f"`data` must be a data set, such as Clusters(); got {data!r}.")
    if isinstance(seeds, (int, np.integer)):
        _checks.count("seeds", seeds, maximum=2**31 - 1)
        seeds = range(seeds)
    elif not isinstance(seeds, (Sequence, np.ndarray)):
        raise ValueError(f"`seeds` must be a number or a list of them; got {seeds!r}.")
    return found, data, seeds


def _check(arms: Sequence[Arm], layer: Layer, training: Training, seeds: Sequence[int]) -> None:
    for name, value, kind in (("layer", layer, Layer), ("training", training, Training)):
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a {kind.__name__}; got {value!r}.")
    _checks.count("number of arms", len(arms))
    _checks.count("number of seeds", len(seeds))
    for seed in seeds:
        _checks.count("seeds", seed, minimum=0, maximum=2**31 - 1)
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise ValueError(f"`arms` must have distinct names; got {', '.join(names)}.")
    experts = {arm.router.partition.num_experts for arm in arms}
    if len(experts) != 1:
        raise ValueError(f"`arms` must have equal numbers of experts; got {sorted(experts)}.")


def _run_group(
    members: Group,
    data: Data,
    layer: Layer,
    training: Training,
    seeds: Sequence[int],
    done: int,
    total: int,
    progress: Progress | None,
) -> xr.Dataset:
    program = shared_program([Setting(arm, data, layer, training) for arm in members.arms])
    runs = len(members.arms) * len(seeds)

    def report(record: int) -> None:
        if progress is not None:
            progress(done + runs * record * training.stride, total)

    settings = members.settings(training, len(seeds))
    measured = collect(members.arms[0].router, program.run(data, layer, seeds, settings), report)
    return _label(members, data, training, seeds, measured)


_churn = jax.jit(jax.vmap(jax.vmap(metrics.churn)))


def collect(
    router: Router, evaluations: Iterable[tuple[Measured, Batch]], report: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """The records of runs as arrays `[seeds, arms, records, ...]`, with what is computed between records.

    Of the end alone, `[seeds, arms]`: scores of the final assignment, and the balance. **Arguments:** `router`: any of
    the runs', which are of one structure. `evaluations`: measurements and test batches, one pair a record. `report`:
    called with the number of every record that has been taken.
    """
    table: dict[str, list[np.ndarray]] = {}
    best = labels = previous = np.zeros(0)
    for record, (measured, test) in enumerate(evaluations):
        selected, best = measured.pop("selected"), measured.pop("best_expert")
        shape = selected.shape[:2]
        measured["churn"] = np.full(shape, np.nan, np.float32) if record == 0 else _churn(previous, selected)
        previous, labels = selected, np.asarray(test.labels)
        for name, value in measured.items():
            table.setdefault(name, []).append(np.asarray(value))
        report(record)
    found = {name: np.stack(values, axis=2) for name, values in table.items()}
    first, final = ({name: v[:, :, record] for name, v in found.items()} for record in (0, -1))
    diverged, tokens = has_diverged(final["test_loss"], first["test_loss"]), labels.shape[1]
    balance = name_balance(first, final, diverged, router, tokens)
    n = router.partition.num_experts
    of_runs = [(labels[row], chosen) for row, arms in enumerate(best) for chosen in arms]
    scores = {
        "adjusted_information": [metrics.adjusted_information(*run) for run in of_runs],
        "matching_accuracy": [metrics.matching_accuracy(*run, n) for run in of_runs],
    }
    shaped = {name: np.asarray(values, np.float32).reshape(balance.shape) for name, values in scores.items()}
    return found | shaped | {"cv_floor": cv_floor(final, router, tokens), "balance": balance}


def _label(
    members: Group, data: Data, training: Training, seeds: Sequence[int], measured: dict[str, np.ndarray]
) -> xr.Dataset:
    """With names, arms before seeds."""
    coords = {
        "arm": [arm.name for arm in members.arms],
        "seed": np.asarray(seeds, np.int32),
        "step": np.arange(training.records + 1, dtype=np.int32) * training.stride,
        "expert": np.arange(members.arms[0].router.partition.num_experts, dtype=np.int32),
        "label": np.arange(data.num_labels, dtype=np.int32),
    }
    variables = {}
    for name, values in measured.items():
        behind = () if values.ndim == 2 else ("step", *_AXES.get(name, ()))
        variables[name] = (("arm", "seed", *behind), np.moveaxis(values, 1, 0))
    return xr.Dataset(variables, coords)


def name_of(result: xr.Dataset, arm: str, name: str = "regime") -> tuple[Name, int]:
    """The most frequent regime or balance of an arm over seeds (the later in the list on a tie), and how many seeds
    show it."""
    kind = NAMES[name]
    counts = np.bincount(result[name].sel(arm=arm).values.astype(int), minlength=len(kind))
    best = int(np.flatnonzero(counts == counts.max())[-1])
    return kind(best), int(counts[best])


@dataclasses.dataclass(frozen=True)
class Interval:
    """Mean over seeds with a two-sided 95 % Student interval; half-width NaN for a single seed."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        width = "n/a" if np.isnan(self.half_width) else f"{self.half_width:.3f}"
        return f"{self.mean:.3f} ± {width}"


def interval(values: np.ndarray, level: float = 0.95) -> Interval:
    """Mean and half-width of the Student interval of independent values; NaN if any of them is."""
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return Interval(float(values.mean()), float("nan"))
    error = values.std(ddof=1) / values.size**0.5
    return Interval(float(values.mean()), float(error * stats.t.ppf((1 + level) / 2, values.size - 1)))
