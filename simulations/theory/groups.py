"""Groups that a router of grouped experts still uses, under Hi-MoE's two regularisers (D11)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from himoe_theory import Partition, Router, _checks, dynamics, metrics, routers
from himoe_theory.objectives import OBJECTIVES, View

from .. import random

ARMS = {"published": (0.1, 0.05, True), "swapped": (0.05, 0.1, True), "published, free top-K": (0.1, 0.05, False)}
"""Name → intra and inter coefficients, and whether groups select."""
TERMS = ("intra_group_global", "inter_group_dense", "load_per_token")
_DIM, _TEST_TOKENS = 16, 2048


def effective_groups(
    experts: int = 8,
    groups: int = 4,
    tokens: int = 256,
    steps: int = 4000,
    records: int = 20,
    load: float = 0.01,
    rate: float = 1.0,
    seeds: tuple[int, ...] = (0, 1),
) -> xr.Dataset:
    r"""A linear router trained by plain gradient steps on the load and the two regularisers alone.

    Fresh Gaussian tokens in $R^{16}$ whose mean has norm 1; hard load with $\sum h$ = the experts a token selects, one
    expert a group, or as many free ones.

    **Returns:** over (arm, seed, step), of tokens not trained on: `groups` (effective groups per token), `purity`
    (mean $\|q_g\|^2$, weighted by $m_g^2$), `group_cv` and `cv` of the selected; over arm: `flip`, the purity above
    which theory has groups collapse, and `limit`, the groups it leaves in the end: 1 if that is below any purity of
    groups of this size, all if above, NaN between. **Source:** [himoe-theory] D11.
    """
    _checks.count("records", records, maximum=steps, of="steps")
    partition = Partition.equal(experts, groups)
    routed = {True: routers.moge(partition, 1), False: routers.gshard(experts, groups, partition=partition)}
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    found = []
    for intra, inter, grouped in ARMS.values():
        train = jax.vmap(
            functools.partial(_train, routed[grouped], tokens, records, steps // records), in_axes=(0, None)
        )
        found.append(jax.jit(train)(keys, rate * jnp.array([intra, inter, load])))
    table = {name: (("arm", "seed", "step"), np.stack([np.asarray(one[name]) for one in found])) for name in found[0]}
    flips = [dynamics.flip_purity(intra, inter) for intra, inter, _ in ARMS.values()]
    return xr.Dataset(
        table | {"flip": ("arm", flips), "limit": ("arm", [_limit(flip, experts, groups) for flip in flips])},
        {"arm": list(ARMS), "seed": list(seeds), "step": steps // records * np.arange(1, records + 1)},
        {"groups": groups, "experts": experts},
    )


def _limit(flip: float, experts: int, groups: int) -> float:
    """Groups that are left where every purity in [1/S, 1] is on one side of the flip."""
    if flip <= groups / experts:
        return 1.0
    return float(groups) if flip >= 1 else float("nan")


def _train(
    router: Router, tokens: int, records: int, stride: int, key: PRNGKeyArray, coefficients: Float[Array, "3"]
) -> dict[str, Float[Array, " records"]]:
    """Measurements of one router after every stride."""
    experts = router.partition.num_experts
    begin, data, test = jax.random.split(key, 3)
    weight = (0.1 / _DIM**0.5 * random.normal(begin, experts, _DIM)).astype(coefficients.dtype)

    def draw(key: PRNGKeyArray, count: int) -> Array:
        return random.normal(key, _DIM, count).T.astype(weight.dtype) + 1 / _DIM**0.5

    def one(weight: Array, now: Array) -> tuple[Array, None]:
        x = draw(jax.random.fold_in(data, now), tokens)
        routing, _ = router.step(None, router.init(weight.dtype), x @ weight.T)
        push = sum(c * OBJECTIVES[name].gradient(View(routing)) for c, name in zip(coefficients, TERMS, strict=True))
        return weight - push.T @ x, None

    held_out = draw(test, _TEST_TOKENS)

    def record(weight: Array, first: Array) -> tuple[Array, dict[str, Array]]:
        weight, _ = jax.lax.scan(one, weight, first + jnp.arange(stride))
        routing, _ = router.step(None, router.init(weight.dtype), held_out @ weight.T)
        load, square = metrics.hard_load(routing.selected), jnp.square(routing.group_mass).sum()
        return weight, {
            "groups": metrics.effective_groups(routing.probs, router.partition),
            "purity": jnp.square(routing.probs).sum() / square,
            "group_cv": metrics.group_cv(load, router.partition),
            "cv": metrics.coefficient_of_variation(load),
        }

    return jax.lax.scan(record, weight, stride * jnp.arange(records))[1]
