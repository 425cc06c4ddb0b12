"""Which load stops the common mode of logits that are spread, under hard counts (D1, D10)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key, PRNGKeyArray

from himoe_theory import GroupedTopK, Partition, _checks, dynamics, ranked
from himoe_theory import objectives as obj

CASES = ((8, 8, 1), (8, 2, 1), (8, 8, 4), (64, 64, 8))
"""Experts, experts of a group, and how many of each group a token selects; groups of all experts are free selection."""


def hard_counts(
    cases: tuple[tuple[int, int, int], ...] = CASES,
    points: int = 9,
    tokens: int = 4096,
    draws: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    r"""The load coefficient that stops a common offset under hard counts, against D10 for any number of experts.

    Logits are normal, of standard deviation σ, plus an offset b that sums to zero in every group, of root mean square
    the smaller of 0.1 σ and 0.1. Push of `intra_group_global` and pull of `load` are gradients of the objectives
    along b, for b and -b. One draw is one set of logits for all σ.

    **Arguments:** `cases`: as `CASES`. `draws`: sets of `tokens` logits. **Returns:** over (case, spread), in units of
    the coefficient $\lambda_{intra}/N$ that stops it for a full load and equal logits: `predicted`, `measured` and
    `standard_error` over draws. **Source:** [himoe-theory] D1, D10.
    """
    _checks.count("draws", draws, minimum=2)
    spreads = np.geomspace(0.1, 6.0, points)
    rows = {"predicted": [], "measured": [], "standard_error": []}
    for experts, size, routes in cases:
        keys = jax.random.split(jax.random.key(seed), draws)
        push, pull = _forces(keys, jnp.asarray(spreads), Partition.equal(experts, experts // size), routes, tokens)
        found = experts * np.asarray(push.mean(axis=0) / pull.mean(axis=0))
        # Of a quotient of means, to first order.
        residual = np.asarray(experts * push / pull.mean(axis=0) - found * pull / pull.mean(axis=0))
        rows["measured"].append(found)
        rows["standard_error"].append(residual.std(axis=0, ddof=1) / math.sqrt(draws))
        critical = [dynamics.critical_load_hard(float(s), 1.0, experts, routes, size) for s in spreads]
        rows["predicted"].append(experts * np.array(critical))
    table = {name: (("case", "spread"), np.array(values)) for name, values in rows.items()}
    names = [f"N = {n}, {'K' if s == n else f'S = {s}, K'} = {k}" for n, s, k in cases]
    return xr.Dataset(table, {"case": names, "spread": spreads})


def _forces(
    keys: Key[Array, " draws"], spreads: Float[Array, " spreads"], partition: Partition, routes: int, tokens: int
) -> tuple[Float[Array, "draws spreads"], Float[Array, "draws spreads"]]:
    """Push and pull along the offset, over (draw, spread)."""
    rule, groups = GroupedTopK(routes), partition.num_groups

    def along(logits: Array, offset: Array) -> tuple[Array, Array]:
        moved = logits + offset
        chosen = ranked(rule, moved, partition)
        selected = jnp.zeros(moved.shape, bool).at[jnp.arange(tokens)[:, None], chosen].set(True)
        push = -(obj.intra_group_global_grad(moved) @ offset).sum()
        return push, (obj.load_grad(moved, selected) @ offset).sum()

    @jax.jit
    def forces(key: PRNGKeyArray) -> tuple[Array, Array]:
        of_logits, of_offset = jax.random.split(key)
        logits = jax.random.normal(of_logits, (tokens, partition.num_experts), spreads.dtype)
        offset = jax.random.normal(of_offset, (groups, partition.num_experts // groups), spreads.dtype)
        offset = (offset - offset.mean(axis=1, keepdims=True)).reshape(-1)
        offset /= jnp.sqrt(jnp.square(offset).mean())

        def at(spread: Array) -> tuple[Array, Array]:
            length = jnp.minimum(0.1 * spread, 0.1)
            both = [along(spread * logits, sign * length * offset) for sign in (1, -1)]
            return jax.tree.map(lambda a, b: a + b, *both)

        return jax.lax.map(at, spreads)

    return jax.lax.map(forces, keys)
