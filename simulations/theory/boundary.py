r"""Where routing collapses: the common mode over $(\lambda_{intra}, \alpha N)$ and the critical group ratio (D1), and
trained layers over the tokens' common mean and the load (D12).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import Partition, dynamics
from himoe_theory import objectives as obj

from ..arms import LOAD, arms
from ..data import Clusters
from ..run import simulate
from ..training import Training
from .steps import descend


def common_mode(points: int = 9, experts: int = 8, steps: int = 400, seed: int = 0) -> xr.Dataset:
    r"""Whether tokens that are all alike come to use few experts, over $\lambda_{intra}$ and the load, full and frozen.

    Free logits start at standard deviation $10^{-3}$ and take steps long enough for the fastest rate of the grid.

    **Returns:** over (load, intra, alpha_n): `growth` of the logits' deviation, as the change of its logarithm; over
    (load, intra): `edge`, where it changes its sign, and `predicted_edge`. **Source:** [himoe-theory] D1.
    """
    intra, alpha_n = np.linspace(0.1, 1.0, points), np.linspace(0.05, 2.25, 2 * points)
    start = 1e-3 * np.random.default_rng(seed).standard_normal(experts)
    start -= start.mean()
    step = jnp.asarray(5.0 * experts**2 / steps)

    def run(load: str, a: Array, b: Array) -> Array:
        load_grad = {"full": obj.p_squared_grad, "frozen": obj.load_frozen_grad}[load]

        def field(logits: Array, a: Array, b: Array) -> Array:
            row = logits[None]
            return -(a * obj.intra_group_global_grad(row) + b / experts * load_grad(row))[0]

        end = descend(field, jnp.asarray(start), step, 1, steps, a, b)[1]
        return jnp.log(jnp.linalg.norm(end - end.mean()) / jnp.linalg.norm(jnp.asarray(start)))

    growth = []
    for load in ("full", "frozen"):
        over = jax.vmap(jax.vmap(lambda a, b, load=load: run(load, a, b), in_axes=(None, 0)), in_axes=(0, None))
        growth.append(np.asarray(over(jnp.asarray(intra), jnp.asarray(alpha_n))))
    edges = [[_zero(alpha_n, row) for row in table] for table in growth]
    critical = (dynamics.critical_load_full, dynamics.critical_load_frozen)
    return xr.Dataset(
        {
            "growth": (("load", "intra", "alpha_n"), np.array(growth)),
            "edge": (("load", "intra"), np.array(edges)),
            "predicted_edge": (("load", "intra"), [[experts * f(float(a), experts) for a in intra] for f in critical]),
        },
        {"load": ["full", "frozen"], "intra": intra, "alpha_n": alpha_n},
    )


def group_ratio(sizes: tuple[int, ...] = (2, 4, 8), groups: int = 4, points: int = 12, seed: int = 0) -> xr.Dataset:
    r"""Contrasts between groups over $\lambda_{intra} / (S \lambda_{inter})$, for several group sizes S.

    Two tokens with opposite small logits, equal within groups. **Returns:** `growth`, the rate of change times
    N²/(2 S λ_inter), over (size, ratio); over size: `edge`, the critical ratio, and `predicted_edge`, S.
    **Source:** [himoe-theory] D1.
    """
    ratios = np.linspace(0.5, 1.5, points)
    rng = np.random.default_rng(seed)
    growth = []
    for size in sizes:
        partition, across = Partition.equal(size * groups, groups), rng.standard_normal(groups)
        mode = np.repeat(across - across.mean(), size)
        start = jnp.asarray(1e-4 * np.stack([mode, -mode]))

        def field(logits: Array, ratio: Array, partition: Partition = partition, size: int = size) -> Array:
            intra = ratio * size * obj.intra_group_global_grad(logits)
            return -2 * (intra + obj.inter_group_dense_grad(logits, partition))

        def change(ratio: Array, start: Array = start, field=field, size: int = size) -> Array:
            time = 0.2 * size * groups**2
            end = descend(field, start, jnp.asarray(time / 20), 1, 20, ratio)[1]
            return jnp.log(jnp.vdot(end, start) / jnp.vdot(start, start)) * (size * groups) ** 2 / (2 * size * time)

        growth.append(np.asarray(jax.vmap(change)(jnp.asarray(ratios))))
    return xr.Dataset(
        {
            "growth": (("size", "ratio"), np.array(growth)),
            "edge": ("size", [size * _zero(ratios, row) for size, row in zip(sizes, growth, strict=True)]),
            "predicted_edge": ("size", [dynamics.critical_group_ratio(size) for size in sizes]),
        },
        {"size": list(sizes), "ratio": ratios},
    )


def _zero(places: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"]) -> float:
    """Where values that change their sign once do so, by straight lines; NaN if they do not."""
    at = np.flatnonzero(values[:-1] * values[1:] < 0)
    if len(at) != 1:
        return float("nan")
    i = int(at[0])
    return float(places[i] + (places[i + 1] - places[i]) * values[i] / (values[i] - values[i + 1]))


def trained(
    means: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0),
    alphas: tuple[float, ...] = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1),
    steps: int = 400,
    seeds: tuple[int, ...] = (0, 1),
) -> xr.Dataset:
    """Hi-MoE layers trained on clusters, over the length of the tokens' common mean and the load's coefficient.

    Arms that differ in numbers alone, and data that differ in their truth alone: one compiled program.

    **Returns:** hard `cv` at the end over (mean, alpha, seed), of at most `largest`. **Source:** [himoe-theory] D12.
    """
    published = arms()["hi-moe"]
    rows = [dataclasses.replace(published.with_terms(**{LOAD: alpha}), name=f"{alpha:g}") for alpha in alphas]
    training = Training(steps=steps, records=1, test_tokens=1024)
    tables = [simulate(rows, Clusters(mean=mean), training=training, seeds=seeds)["cv"] for mean in means]
    cv = np.stack([table.isel(step=-1).transpose("arm", "seed").values for table in tables])
    router = published.router
    return xr.Dataset(
        {"cv": (("mean", "alpha", "seed"), cv)},
        {"mean": list(means), "alpha": list(alphas), "seed": list(seeds)},
        {"largest": float(np.sqrt(router.partition.num_experts / router.routes - 1))},
    )
