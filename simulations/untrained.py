"""How often the names of runs err: on gates that nobody trained, and on gates that know the labels.

    python -m simulations.untrained

computes the evidence again. In every cell, a router on data of one common mean, each seed has three gates that stay as
they are: its *own* draw, the frozen partner; a *foreign* one, another draw; and one that points at the *centres* of the
clusters. Experts start alike and see the same batches. A name errs if a foreign gate is specialised beside the own one,
if an own one has collapsed by training, or if one that points at the centres is not specialised.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from himoe_theory import Partition

from . import store
from .arms import Arm, arms, planted
from .data import Clusters
from .layer import Layer
from .null import EVIDENCE, summary
from .provenance import attributes, describe
from .regimes import gain, has_diverged, name_balance, name_regimes
from .run import collect, simulate
from .training import Group, Setting, Training, group, shared_program

KINDS = ("own", "foreign", "centres")
SHARPNESS = 5.0
"""Length of the gate's vectors that point at centres: its logits differ by 10 between clusters."""
TRAINING = Training(steps=1500, records=5)
TRAINED, TRAINED_SEEDS = ("moge", "hi-moe"), range(12)
ONE_TARGET = ("dense", "gshard", "switch", "loss-free", "moge", "hi-moe", "free-top-k")
_AT_ONCE = 20
_FIRST_SEED = 10_000  # a first form of the rule was tried on those from 0 on
_FOREIGN = 4  # a stream of random numbers that nothing else draws from


@dataclasses.dataclass(frozen=True)
class Cell:
    """A router on clusters of one common mean, with seeds of its own."""

    name: str
    arm: Arm
    data: Clusters
    seeds: range


def cells(seeds: int = 100) -> list[Cell]:
    """Five routers at μ 0 and 4; no two cells share a seed."""
    eight = arms()
    chosen = {
        "moge N 8 M 4 K 1": eight["moge"],
        "hi-moe N 8 M 4 K 1": eight["hi-moe"],
        "top-4 of 8": eight["gshard"],
        "moge N 16 M 4 K 1": arms(Partition.equal(16, 4))["moge"],
        "moge N 4 M 2 K 1": arms(Partition.equal(4, 2))["moge"],
    }
    every = [(name, arm, mean) for name, arm in chosen.items() for mean in (0.0, 4.0)]
    return [
        Cell(
            f"{name}, μ {mean:g}",
            arm,
            Clusters(mean=mean),
            range(_FIRST_SEED + seeds * i, _FIRST_SEED + seeds * (i + 1)),
        )
        for i, (name, arm, mean) in enumerate(every)
    ]


def gates(cell: Cell, seeds: Sequence[int], layer: Layer) -> Float[np.ndarray, "seeds kinds experts dim"]:
    """The three gates of every seed."""
    experts, data = cell.arm.router.partition.num_experts, cell.data
    found = []
    for seed in seeds:
        own, foreign = (
            layer.init(np.random.default_rng((seed, stream)), experts, data.dim, data.outputs)["gate"]
            for stream in (1, _FOREIGN)
        )
        centres = data.truth(np.random.default_rng((seed, 0)))["centres"]
        pointing = np.zeros_like(own)
        np.add.at(pointing, np.arange(data.clusters) % experts, SHARPNESS / data.radius * np.asarray(centres))
        found.append([own, foreign, pointing])
    return np.asarray(found, np.float32)


def judged(cell: Cell, seeds: Sequence[int], training: Training = TRAINING) -> dict[str, np.ndarray]:
    """Gain, regime, balance and CVs of the three gates, `[kinds, seeds]`; and `foreign_balance`, `[seeds]`: the name
    that the foreign gate's load would have if the own gate were its start."""
    layer, frozen = Layer(), dataclasses.replace(cell.arm, terms={}, gate="frozen")
    members = Group((frozen,) * len(KINDS), frozen.gate, ())
    found = _collected(cell, layer, training, seeds, members, jnp.asarray(gates(cell, seeds, layer)))
    reads = _collected(cell, layer, training, seeds, group([planted(frozen.router.partition)])[0], None)
    first, final = ({n: np.moveaxis(v, 1, 0)[:, :, r] for n, v in found.items() if v.ndim > 2} for r in (0, -1))
    diverged = has_diverged(final["test_loss"], first["test_loss"])
    error, own = final["test_error"].astype(np.float64), KINDS.index("own")
    gained = gain(error, first["test_error"].astype(np.float64), error[own], reads["test_error"][:, 0, -1])
    before, after = (
        {n: v[kind] for n, v in of.items()} for of, kind in ((first, own), (final, KINDS.index("foreign")))
    )
    tokens = training.test_tokens
    return {
        "gain": gained,
        "regime": name_regimes(gained, np.fmax(final["information"], final["soft_information"]), diverged),
        "balance": found["balance"].T,
        "cv": final["cv"],
        "cv_start": first["cv"],
        "foreign_balance": name_balance(before, after, diverged[1], frozen.router, tokens),
    }


def _collected(cell, layer, training, seeds, members, gate) -> dict[str, np.ndarray]:
    program = shared_program([Setting(arm, cell.data, layer, training) for arm in members.arms])
    settings = members.settings(training, len(seeds))
    return collect(members.arms[0].router, program.run(cell.data, layer, seeds, settings, gate), lambda _: None)


def compute(told: Callable[[str], None], seeds: int = 100, training: Training = TRAINING) -> xr.Dataset:
    """All cells and the trained arms. `told`: called with what is done."""
    rows = []
    for cell in cells(seeds):
        parts = [judged(cell, cell.seeds[i : i + _AT_ONCE], training) for i in range(0, seeds, _AT_ONCE)]
        rows.append({name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]})
        told(cell.name)
    axes = {name: ("cell", *(("kind",) if values.ndim > 1 else ()), "draw") for name, values in rows[0].items()}
    variables = {name: (axes[name], np.stack([row[name] for row in rows])) for name in axes}
    for name, which, data in (
        ("trained", TRAINED, Clusters(mean=0.0)),
        ("one_target", ONE_TARGET, Clusters(mean=0.0, shared=1.0)),
    ):
        known = arms()
        result = simulate([known[arm] for arm in which], data, Layer(), training, TRAINED_SEEDS)
        variables[name] = ((f"{name}_arm", "trained_seed"), result["gain"].values)
        variables[f"{name}_regime"] = ((f"{name}_arm", "trained_seed"), result["regime"].values)
        told(name)
    coordinates = {
        "cell": [cell.name for cell in cells(seeds)],
        "kind": list(KINDS),
        "trained_arm": list(TRAINED),
        "one_target_arm": list(ONE_TARGET),
    }
    return xr.Dataset(variables, coordinates)


def main() -> None:
    """Computes the evidence and prints it cell by cell."""
    began = time.perf_counter()
    found = compute(lambda name: print(name, f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True))
    configuration = {"cells": [describe(cell.arm) for cell in cells()], "training": describe(TRAINING)}
    found.attrs = attributes(configuration, time.perf_counter() - began)
    store.save(found, EVIDENCE)
    for cell in found.cell.values:
        print(cell, summary(found.sel(cell=[cell])))
    print("all", summary(found))


if __name__ == "__main__":
    main()
