r"""Where routing collapses: the common mode over $(\lambda_{intra}, \alpha N)$ and the critical group ratio (D1), and
trained layers over the tokens' common mean and the load (D12).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import Partition, dynamics
from himoe_theory import objectives as obj

from ..arms import INTRA, LOAD, Arm, arms
from ..data import Clusters
from ..run import simulate
from ..training import Training
from .steps import descend


def common_mode(points: int = 9, experts: int = 8, steps: int = 400, seed: int = 0) -> xr.Dataset:
    r"""Whether tokens that are all alike come to use few experts, over $\lambda_{intra}$ and the load, full and frozen.

    Free logits start at standard deviation $10^{-3}$ and take steps long enough for the fastest rate of the grid.

    **Returns:** over (load_kind, intra, alpha_n): `growth` of the logits' deviation, as the change of its logarithm;
    over (load_kind, intra): `edge`, where it changes its sign, and `predicted_edge`. **Source:** [himoe-theory] D1.
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
            "growth": (("load_kind", "intra", "alpha_n"), np.array(growth)),
            "edge": (("load_kind", "intra"), np.array(edges)),
            "predicted_edge": (
                ("load_kind", "intra"),
                [[experts * f(float(a), experts) for a in intra] for f in critical],
            ),
        },
        {"load_kind": ["full", "frozen"], "intra": intra, "alpha_n": alpha_n},
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
    means: tuple[float, ...] = (0.0, 1.0, 1.5, 2.0, 4.0),
    alphas: tuple[float, ...] = (0.0, 0.001, 0.002, 0.003, 0.005, 0.01, 0.03),
    steps: int = 400,
    seeds: tuple[int, ...] = (0, 1, 2, 3),
) -> xr.Dataset:
    """Hi-MoE layers trained on clusters, over the length of the tokens' common mean and the load's coefficient.

    Arms that differ in numbers alone, and data that differ in their truth alone: one compiled program.

    **Returns:** hard `cv` at the end over (mean, alpha, seed), of at most `largest`; over (mean, seed) `edge`, the
    load at which it falls to half of that (0 if it starts below, NaN if it stays above), and over mean
    `predicted_edge`, `hard_edge`. **Source:** [himoe-theory] D12.
    """
    published = arms()["hi-moe"]
    rows = [dataclasses.replace(published.with_terms(**{LOAD: alpha}), name=f"{alpha:g}") for alpha in alphas]
    training, data = Training(steps=steps, records=1, test_tokens=1024), [Clusters(mean=mean) for mean in means]
    tables = [simulate(rows, one, training=training, seeds=seeds)["cv"] for one in data]
    cv = np.stack([table.isel(step=-1).transpose("arm", "seed").values for table in tables])
    router = published.router
    largest = float(np.sqrt(router.partition.num_experts / router.routes - 1))
    places = np.array(alphas)
    return xr.Dataset(
        {
            "cv": (("mean", "alpha", "seed"), cv),
            "edge": (("mean", "seed"), [[fall(places, one, largest / 2) for one in own.T] for own in cv]),
            "predicted_edge": ("mean", [hard_edge(one, published) for one in data]),
        },
        {"mean": list(means), "alpha": list(alphas), "seed": list(seeds)},
        {"largest": largest},
    )


def hard_edge(data: Clusters, arm: Arm) -> float:
    r"""The load per token below which the tokens' common mean leads, at the spread of logits that lets it most easily.

    $\frac1K \max_\sigma \alpha_{hard}(\sigma) \cdot (1 - \kappa_c/\kappa_0)$, with `critical_load_hard` of
    $\lambda_{intra}$, a per-token load that counts all K routes, $\kappa_0 = \mu^2 + \rho^2/C$ the squared length
    of the tokens' mean and $\kappa_c = \rho^2/C$ the variance along contrasts of the centres: a gate's row along the
    mean grows at $\kappa_0 (\lambda r - \alpha N g j)$ beside the $\kappa_c \lambda r$ of one along contrasts, and the
    noise adds the same to both. Neither the task nor Adam is in it, nor how long logits have that spread: it says
    where collapse is possible.

    **Arguments:** `data`: orthogonal centres, equal priors. `arm`: selects in equal groups. **Returns:** 0 for a mean
    of 0: that of the centres is no longer than their contrasts. **Source:** [himoe-theory] D1, D10, D12.
    """
    partition, routes = arm.router.partition, arm.router.routes
    each = (partition.num_experts // partition.num_groups, routes // partition.num_groups)
    contrast = data.radius**2 / data.clusters
    lead = data.mean**2 / (data.mean**2 + contrast)
    return arm.terms[INTRA] * lead * _largest_load(partition.num_experts, each[1], each[0]) / routes


@functools.cache
def _largest_load(experts: int, routes: int, size: int) -> float:
    """`critical_load_hard` of a unit term at the spread where it is largest, which is wide."""
    spreads = np.geomspace(0.5, 8.0, 25)
    return max(dynamics.critical_load_hard(float(s), 1.0, experts, routes, size) for s in spreads)


def fall(places: Float[np.ndarray, " points"], values: Float[np.ndarray, " points"], level: float) -> float:
    """Where values first fall to a level, by straight lines; 0 if they start there, NaN if they do not."""
    below = np.flatnonzero(values <= level)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0:
        return 0.0
    return float(places[i] - (places[i] - places[i - 1]) * (level - values[i]) / (values[i - 1] - values[i]))
