r"""Finite batches and hard counts: the batch-size identity (D2), the window of collapse (D10), the floor of MaxVio
under a loss-free bias (D5, D9).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from himoe_theory import SelectionBias, _checks, dynamics, metrics, routers
from himoe_theory import objectives as obj

from .. import random


def batch_load(
    sizes: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    experts: int = 8,
    population: int = 512,
    draws: int = 1_000_000,
    seed: int = 0,
) -> xr.Dataset:
    r"""The full load of random batches of T tokens, against $(1 - 1/T)\|p\|^2 + E\|\pi\|^2/T$.

    Tokens are drawn with replacement from a finite population, so that p and $E\|\pi\|^2$ are exact.

    **Arguments:** `draws`: tokens drawn for every size; at least 64 batches. **Returns:** N times `predicted`,
    `measured` (mean over batches) and its `standard_error` over batch sizes; `limit` $N\|p\|^2$.
    **Source:** [himoe-theory] D2.
    """
    _checks.count("draws", draws)
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.standard_normal((population, experts)) + 0.5 * rng.standard_normal(experts)
    probs = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    purity, whole = np.square(probs).sum(axis=1).mean(), np.square(probs.mean(axis=0)).sum()
    tokens = np.array(sizes)
    means, errors = [], []
    for size in sizes:
        batches = max(64, draws // size)
        values = [
            experts * np.square(probs[rng.integers(population, size=(some, size))].mean(axis=1)).sum(axis=1)
            for some in _pieces(batches, max(1, 2**17 // size))
        ]
        found = np.concatenate(values)
        means.append(found.mean())
        errors.append(found.std(ddof=1) / math.sqrt(batches))
    return xr.Dataset(
        {
            "predicted": ("tokens", experts * ((1 - 1 / tokens) * whole + purity / tokens)),
            "measured": ("tokens", np.array(means)),
            "standard_error": ("tokens", np.array(errors)),
            "limit": ((), experts * whole),
        },
        {"tokens": tokens},
    )


def _pieces(total: int, largest: int) -> list[int]:
    """Numbers that sum to `total`, none above `largest`: what is held in memory at a time."""
    return [min(largest, total - first) for first in range(0, total, largest)]


def window(points: int = 25, tokens: int = 100_001, ratios: tuple[float, ...] = (0.05, 0.1, 0.3)) -> xr.Dataset:
    r"""Two experts under hard counts: push of R_intra on a common offset over the pull of the load, against D10.

    Tokens' logit differences are the quantiles of a normal distribution of standard deviation σ, moved by the
    smaller of 0.05 σ and 0.1; both forces are gradients of the objectives along the offset. `ratios`: of α to λ, whose
    windows of collapse are read from the crossings.

    **Returns:** `predicted` and `measured` ratio over `spread`; `edge` and `predicted_edge` over (ratio, side), NaN
    where there is none. **Source:** [himoe-theory] D10.
    """
    # Imported here: routers need none of SciPy.
    from scipy.special import ndtri

    spreads = np.geomspace(0.03, 30.0, points)
    normal = ndtri((np.arange(tokens) + 0.5) / tokens)

    @jax.jit
    def ratio(spread: Array) -> Array:
        difference = spread * jnp.asarray(normal) + jnp.minimum(0.05 * spread, 0.1)
        logits = jnp.stack([difference / 2, -difference / 2], axis=1)
        # Not by comparing logits with their maximum: a compiler may round the two differently.
        selected = jnp.stack([difference > 0, difference <= 0], axis=1)
        along = jnp.array([1.0, -1.0])
        push = -(obj.intra_group_global_grad(logits) @ along).sum()
        return push / (obj.load_grad(logits, selected) @ along).sum()

    measured = np.array([float(ratio(jnp.asarray(s))) for s in spreads])
    peak = float(spreads[measured.argmax()])
    edges = [[_crossing(ratio, one, end, peak) for end in spreads[[0, -1]]] for one in ratios]
    predicted = [dynamics.collapse_window(one, 1.0) or (np.nan, np.nan) for one in ratios]
    return xr.Dataset(
        {
            "predicted": ("spread", np.asarray(dynamics.collapse_ratio(jnp.asarray(spreads)))),
            "measured": ("spread", measured),
            "edge": (("ratio", "side"), np.array(edges)),
            "predicted_edge": (("ratio", "side"), np.array(predicted)),
        },
        {"spread": spreads, "ratio": np.array(ratios), "side": ["lower", "upper"]},
    )


def _crossing(ratio: Callable[[Array], Array], level: float, outside: float, inside: float) -> float:
    """The spread between two at which the measured ratio passes a level; NaN if it does not."""
    low, high = math.log(outside), math.log(inside)
    if not float(ratio(jnp.asarray(outside))) < level < float(ratio(jnp.asarray(inside))):
        return float("nan")
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if float(ratio(jnp.asarray(math.exp(middle)))) > level else (middle, high)
    return math.exp((low + high) / 2)


def violation(
    experts: int = 8,
    routes: int = 2,
    tokens: int = 256,
    rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01, 0.02, 0.04),
    steps: int = 800,
    seed: int = 0,
) -> xr.Dataset:
    r"""MaxVio of a loss-free router on tokens of uniform scores, against the floor of sampling and of the sign rule.

    Scores are independent and alike, so that no expert needs a bias: what is left is sampling, and what the sign update
    of size u makes of it. The first fifth of the steps is left out.

    **Returns:** over `rate`: `predicted`, `measured` and `standard_error` (over tenths of the steps); `sampling`, the
    floor as u tends to 0. **Source:** [himoe-theory] D5, D9.
    """
    _checks.count("steps", steps, minimum=50)
    key, router = jax.random.key(seed), routers.loss_free(experts, routes)

    def step(states: Array, now: Array) -> tuple[Array, Array]:
        uniform = random.uniform(jax.random.fold_in(key, now), tokens * experts).astype(states.dtype)
        uniform = uniform.reshape(tokens, experts) + 2.0**-25
        logits = jnp.log(uniform) - jnp.log1p(-uniform)

        def route(state: Array, rate: Array) -> tuple[Array, Array]:
            routing, state = dataclasses.replace(router, controller=SelectionBias(rate)).step(None, state, logits)
            return state, metrics.max_violation(metrics.hard_load(routing.selected))

        return jax.vmap(route)(states, jnp.asarray(rates))

    states = jnp.zeros((len(rates), experts))
    _, found = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(steps)))(states)
    tenths = np.stack([part.mean(axis=0) for part in np.array_split(np.asarray(found)[steps // 5 :], 10)])
    return xr.Dataset(
        {
            "predicted": ("rate", np.array([dynamics.bias_walk_floor(u, experts, routes, tokens) for u in rates])),
            "measured": ("rate", tenths.mean(axis=0)),
            "standard_error": ("rate", tenths.std(axis=0, ddof=1) / math.sqrt(10)),
            "sampling": ((), dynamics.max_violation_floor(experts, routes, tokens)),
        },
        {"rate": np.array(rates)},
        {"experts": experts, "routes": routes, "tokens": tokens},
    )
