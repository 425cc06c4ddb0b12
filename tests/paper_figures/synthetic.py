"""Stored results with chosen numbers, of the shape that simulations store, without training anything."""

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr

from himoe_theory import Partition
from simulations import NAMES, Arm, Balance, Clusters, Data, Layer, Regime, Training, arms, provenance
from simulations.gates import Frozen

PARTITION = Partition((0, 1, 0, 1))  # interleaved: drawn side by side, experts come in the order 0, 2, 1, 3
ARMS = arms(PARTITION)
TRAINING = Training(steps=40, records=4)


def simulated(
    chosen: Sequence[Arm],
    seeds: Sequence[int] = (0, 1, 2),
    data: Data | None = None,
    training: Training = TRAINING,
    draw: int = 0,
) -> xr.Dataset:
    """A result with random measurements; every run is specialised and uneven, and frozen gates err by 2 more.

    **Arguments:** `draw`: seed of the random numbers.
    """
    data = Clusters(clusters=3, dim=8) if data is None else data
    rng = np.random.default_rng(draw)
    n, steps, labels = chosen[0].router.partition.num_experts, training.records + 1, data.num_labels
    runs = (len(chosen), len(seeds))
    measured = {
        name: (("arm", "seed", "step"), rng.uniform(0.1, 0.4, (*runs, steps)))
        for name in ("test_error", "cv", "information", "soft_information", "test_loss")
    }
    frozen = np.array([isinstance(arm.gate, Frozen) for arm in chosen])
    measured["test_error"][1][frozen] += 2
    load = rng.uniform(0.2, 0.8, (*runs, steps, n))
    load *= 2 / load.sum(axis=-1, keepdims=True)
    result = xr.Dataset(
        measured
        | {
            "hard_load": (("arm", "seed", "step", "expert"), load),
            "assignment": (("arm", "seed", "step", "label", "expert"), rng.uniform(0, 1, (*runs, steps, labels, n))),
            "regime": (("arm", "seed"), np.full(runs, Regime.SPECIALISED, np.int8)),
            "balance": (("arm", "seed"), np.full(runs, Balance.UNEVEN, np.int8)),
            "gain": (("arm", "seed"), rng.uniform(0.6, 0.9, runs)),
            "frozen_error": (("arm", "seed"), rng.uniform(0.5, 0.6, runs)),
            "planted_error": (("arm", "seed"), rng.uniform(0.0, 0.1, runs)),
            "cv_floor": (("arm", "seed"), np.full(runs, 0.02)),
        },
        {
            "arm": [arm.name for arm in chosen],
            "seed": np.asarray(seeds, np.int32),
            "step": np.arange(steps, dtype=np.int32) * training.stride,
            "expert": np.arange(n, dtype=np.int32),
            "label": np.arange(labels, dtype=np.int32),
        },
    )
    result.attrs = provenance.provenance(chosen, data, Layer(), training, seeds, seconds=12.5)
    return result


def audited(errors: np.ndarray, concentrations: Sequence[float], objectives: Sequence[str]) -> xr.Dataset:
    """A result of the comparison of gradients with chosen errors."""
    return xr.Dataset(
        {"max_error": (("objective", "concentration"), errors)},
        {"objective": list(objectives), "concentration": list(concentrations)},
        {
            "dtype": "float64",
            "configuration": json.dumps({"samples": 7, "seed": 3, "concentrations": list(concentrations)}),
            "versions": json.dumps({"jax": "0"}),
            "format": "himoe-theory result 2",
            "commit": "unknown",
            "device": "cpu",
            "sources": "s",
            "seconds": 2.0,
        },
    )


def set_names(result: xr.Dataset, arm: str, *names: Regime | Balance) -> xr.Dataset:
    """The same result with other regimes, or balances, for an arm, one a seed."""
    (kind,) = {name for name, kind in NAMES.items() if isinstance(names[0], kind)}
    changed = result.copy(deep=True)
    changed[kind].loc[{"arm": arm}] = np.array(names, np.int8)
    return changed


def set_final(result: xr.Dataset, arm: str, name: str, values: Sequence[float]) -> xr.Dataset:
    """The same result with other final values of a measurement for an arm, one a seed."""
    changed = result.copy(deep=True)
    changed[name].loc[{"arm": arm, "step": int(changed.step[-1])}] = np.array(values, float)
    return changed
