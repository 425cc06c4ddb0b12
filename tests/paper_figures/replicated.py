"""Stored results of the papers' own experiments with chosen numbers, without training anything."""

import dataclasses

import numpy as np
import xarray as xr

from paper_figures.plan import Replication, Report
from simulations.chen import Chen
from simulations.kawata import Kawata

CHEN = Chen(settings=("1", "3"), seeds=(0, 1, 2), samples=50, steps=7)
KAWATA = Kawata(seeds=(0, 1, 2), explore=6, route=2, exploit=4, batch=8, tokens=16)


def chen(study: Chen = CHEN, draw: int = 0) -> xr.Dataset:
    """Accuracies in (.8, .9), entropies in (0, 1.3)."""
    rng = np.random.default_rng(draw)
    axes = ("model", "activation", "setting", "seed")
    coords = dict(zip(axes, (study.models, study.activations, study.settings, study.seeds), strict=True))
    shape = tuple(len(values) for values in coords.values())
    variables = {
        "accuracy": (axes, rng.uniform(0.8, 0.9, shape)),
        "entropy": (axes, rng.uniform(0, 1.3, shape)),
    }
    return xr.Dataset(variables, {name: list(values) for name, values in coords.items()})


def kawata(study: Kawata = KAWATA, draw: int = 0) -> xr.Dataset:
    """Numbers in (0, 1)."""
    rng = np.random.default_rng(draw)
    seeds, steps, labels = len(study.seeds), study.steps, study.data.num_labels
    overlaps = {
        name: (("seed", "step", "network"), rng.uniform(size=(seeds, steps, 2)))
        for name in ("shared_overlap", "local_overlap")
    }
    rest = {
        "test_error": (("seed", "network"), rng.uniform(size=(seeds, 2))),
        "target_variance": (("seed",), rng.uniform(size=seeds)),
        "information": (("seed",), rng.uniform(size=seeds)),
        "cluster_moment": (("seed", "label"), rng.uniform(size=(seeds, labels))),
        "pooled_moment": (("seed",), rng.uniform(size=seeds)),
        "exact_moment": (("seed", "label"), np.broadcast_to(study.data.moments(), (seeds, labels))),
    }
    coords = {
        "seed": np.asarray(study.seeds, np.int32),
        "step": np.arange(steps),
        "network": ["mixture", "pooled"],
        "label": np.arange(labels),
    }
    return xr.Dataset(overlaps | rest, coords)


@dataclasses.dataclass(frozen=True)
class FakeReplication(Replication):
    """Random numbers in place of training."""

    def run(self, report: Report) -> xr.Dataset:
        """At once."""
        found = chen(self.study) if isinstance(self.study, Chen) else kawata(self.study)
        report(1.0)
        return found.assign_attrs(seconds=3.0, dtype="float32", device="cpu")


def stored(study: Chen | Kawata) -> xr.Dataset:
    """As it would be loaded."""
    whole = FakeReplication("fake", study)
    return whole.join([part.run(lambda share: None) for part in whole.parts()])
