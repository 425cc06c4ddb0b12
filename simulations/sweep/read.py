"""A store as one labelled data set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ..fields import Value, training_of
from ..partners import JUDGED_BY, Places, judge
from ..record import DESCRIPTIONS
from ..regimes import NAMES
from ..training import Training
from .compute import PARTNERS, POINT, SEED
from .design import Design
from .store import Store

# Axes of a measurement behind (settings..., seed); others have (step).
_AXES = {
    "hard_load": ("record", "expert"),
    "soft_load": ("record", "expert"),
    "adjusted_information": (),
    "matching_accuracy": (),
    "cv_floor": (),
    "balance": (),
    "gain": (),
    "frozen_error": (),
    "planted_error": (),
    "regime": (),
}
NOT_COMPUTED = -1
"""The names of a run that is not stored yet; its measurements are NaN."""


def read_sweep(folder: Path | str) -> xr.Dataset:
    """All measurements of a store, over the design's axes, `seed`, `record` and `expert`.

    A grid has a dimension for every axis; a list has one, `setting`, with the fields as coordinates along it. `step` is
    the optimiser step of a record. Runs that are not stored yet, experts that a setting does not have, and records that
    it does not take are NaN. **Raises:** `ValueError` if there is no store, or a file of it is damaged.
    """
    store = Store.open(Path(folder))
    design = store.design
    trainings = [training_of(point) for point in design.points]
    flat = _arrays(store, design, trainings)
    shape = tuple(design.shape.values())
    variables = {
        name: ((*design.shape, "seed", *_AXES.get(name, ("record",))), values.reshape(*shape, *values.shape[1:]))
        for name, values in flat.items()
    }
    steps = np.full((len(trainings), max(training.records for training in trainings) + 1), np.nan)
    for point, training in enumerate(trainings):
        taken = training.records + 1
        steps[point, :taken] = np.arange(taken) * training.stride
    result = xr.Dataset(variables, _coordinates(design) | _steps(design, steps))
    for name, description in DESCRIPTIONS.items():
        if name in result:
            result[name].attrs["description"] = description
    for name, kind in NAMES.items():
        if name in result:
            result[name].attrs["codes"] = kind.codes()
    stored = sum(recorded is not None for recorded in store.hashes.values())
    result.attrs = {"store": str(folder), "chunks": len(store.hashes), "chunks_stored": stored}
    return result


def _arrays(store: Store, design: Design, trainings: list[Training]) -> dict[str, np.ndarray]:
    """Measurements `[settings, seeds, ...]`, NaN where there is none, and the regimes that follow from them. Chunks say
    themselves which runs they hold; those of partners come after the settings'."""
    sizes = {"record": max(training.records for training in trainings) + 1, "expert": store.experts}
    order = np.argsort(design.seeds)
    chunks = [store.read(index) for index in sorted(set(range(len(store.hashes))) - set(store.missing()))]
    count = max([len(trainings), *(int(arrays[POINT].max()) + 1 for arrays in chunks)])
    partners, last = np.full((len(trainings), 3), -1), np.zeros(count, np.int64)
    found: dict[str, np.ndarray] = {}
    for arrays in chunks:
        points, beside = arrays.pop(POINT), arrays.pop(PARTNERS)
        at = points, order[np.searchsorted(design.seeds, arrays.pop(SEED), sorter=order)]
        ours = points < len(trainings)
        partners[points[ours]] = beside[ours]
        last[points] = arrays["test_loss"].shape[1] - 1
        for name, values in arrays.items():
            if name not in found:
                whole = (count, len(design.seeds), *(sizes[axis] for axis in _AXES.get(name, ("record",))))
                found[name] = np.full(whole, NOT_COMPUTED if name in NAMES else np.nan, values.dtype)
            inside = tuple(slice(size) for size in values.shape[1:])
            found[name][(*at, *inside)] = values
    return _judged(found, last, [Places((a, b), c) for a, b, c in partners.tolist()]) if found else {}


def _judged(found: dict[str, np.ndarray], last: np.ndarray, places: Sequence[Places]) -> dict[str, np.ndarray]:
    """The settings' measurements with their regimes. **Arguments:** `last`: each run's last record."""
    first = {name: found[name][:, :, 0] for name in JUDGED_BY}
    final = {name: found[name][np.arange(len(last)), :, last] for name in JUDGED_BY}
    ours = slice(len(places))
    verdict = judge(first, final, places)
    verdict["regime"][found["balance"][ours] == NOT_COMPUTED] = NOT_COMPUTED
    return {name: values[ours] for name, values in found.items()} | verdict


def _coordinates(design: Design) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    found = {"seed": (("seed",), np.asarray(design.seeds))}
    for name, values in design.axes.items():
        found[name] = ((name if design.crossed else "setting",), np.asarray([_scalar(v) for v in values]))
    return found


def _scalar(value: Value) -> bool | int | float | str:
    """A list, which no coordinate can hold, as it is written."""
    return str(list(value)) if isinstance(value, tuple) else value


def _steps(design: Design, steps: np.ndarray) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Along records alone if all settings agree."""
    if (steps == steps[0]).all():
        return {"step": (("record",), steps[0].astype(np.int64))}
    return {"step": ((*design.shape, "record"), steps.reshape(*design.shape.values(), -1))}
