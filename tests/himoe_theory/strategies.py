"""Partitions, routers, logits and batches that the tests draw from.

Every batch has six experts and, unless a test is about sizes, four tokens and three routes a token, and nearly
everything goes through a few compiled functions (here and in `evaluate.py`): compiling is most of what JAX tests cost.
Routers are built here, once; a type-checked constructor inside a strategy would draw on `random`, which Hypothesis
reports.
"""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from himoe_theory import KeepAbove, Partition, Router, Routing, routers

EXPERTS, TOKENS, ROUTES, DIM = 6, 4, 3, 5

PARTITIONS = {
    "one-group": Partition((0, 0, 0, 0, 0, 0)),
    "unequal": Partition((0, 0, 0, 1, 1, 2)),
    "interleaved": Partition((0, 1, 2, 1, 0, 1)),
    "two-interleaved": Partition((0, 1, 0, 0, 1, 0)),
    "singletons": Partition((0, 1, 2, 3, 4, 5)),
    "equal": Partition.equal(EXPERTS, 3),
}

# Three routes each. Temperatures other than 1 and K that differ by group, so that a lost factor shows.
ROUTERS: dict[str, Router] = {
    "grouped": routers.moge(PARTITIONS["interleaved"], 1),
    "grouped, unequal K": routers.himoe(PARTITIONS["two-interleaved"], (2, 1), tau=0.7, beta=0.6, temperature=0.8),
    "grouped, bias-corrected": routers.himoe(PARTITIONS["unequal"], 1, tau=0.5, beta=0.9, temperature=1.3),
    "flat, thinned": routers.st_moe(EXPERTS, ROUTES, KeepAbove(0.3), partition=PARTITIONS["interleaved"]),
    "flat, biased": routers.loss_free(EXPERTS, ROUTES, rate=0.1, partition=PARTITIONS["unequal"]),
}
# Not zero, not constant: a correction that is lost or applied twice shows.
STATE = np.array([0.5, -0.3, 0.2, 0.9, -0.6, 0.1])

# An uneven batch for fixed examples: no two masses, loads or logits are equal.
LOGITS = np.array(
    [
        [1.3, -0.4, 0.2, 2.1, -1.5, 0.6],
        [0.1, 1.9, -0.7, 0.4, 1.2, -2.2],
        [-0.9, 0.3, 2.6, 1.1, 0.5, -0.2],
        [2.4, 0.8, -1.1, 0.7, -0.6, 1.4],
    ]
)
# The same again for outputs: no two inner products are equal.
OUTPUTS = np.sin(np.arange(TOKENS * ROUTES * DIM, dtype=float) ** 1.5).reshape(TOKENS, ROUTES, DIM)

# Irrational and distinct, so that moderate logits never tie: ties are for `hostile_logits`.
_OFFSETS = 1e-3 * np.sqrt(np.arange(2.0, 2.0 + EXPERTS))
# Large and tied entries, and differences beyond what exp can hold in float32 (104) and float64 (745).
_HOSTILE = (-1e4, -745.0, -104.0, -1.0, 0.0, 1.0, 104.0, 745.0, 1e4)

# For tests over the whole catalogue: fewer examples, in proportion to the profile.
few = settings(max_examples=max(5, settings.default.max_examples // 3))


def logits(*, tokens: int = TOKENS, largest: float = 6.0) -> st.SearchStrategy[np.ndarray]:
    """Moderate logits without ties: every probability is far from underflow."""
    shape = (tokens, EXPERTS)
    return hnp.arrays(np.float64, shape, elements=st.floats(-largest, largest, width=32)).map(lambda x: x + _OFFSETS)


def hostile_logits(*, tokens: int = TOKENS) -> st.SearchStrategy[np.ndarray]:
    """Up to ±1e4, with ties and underflow."""
    return hnp.arrays(np.float64, (tokens, EXPERTS), elements=st.sampled_from(_HOSTILE))


def partitions() -> st.SearchStrategy[Partition]:
    """One group, unequal, interleaved, singletons, equal."""
    return st.sampled_from(list(PARTITIONS.values()))


def permutations(size: int) -> st.SearchStrategy[np.ndarray]:
    """Orders of experts, tokens or routes."""
    return st.permutations(range(size)).map(np.array)


def outputs() -> st.SearchStrategy[np.ndarray]:
    """Expert outputs `[tokens, routes, DIM]` in general position: independent directions plus bounded noise."""
    shape = (TOKENS, ROUTES, DIM)
    directions = np.eye(ROUTES, DIM) * np.array([1.0, 1.5, 2.0])[:, None]
    return hnp.arrays(np.float64, shape, elements=st.floats(-0.25, 0.25, width=32)).map(lambda x: x + directions)


def cases(*logits: st.SearchStrategy[np.ndarray]) -> st.SearchStrategy[tuple[str, np.ndarray]]:
    """Arguments of `route`: one of `ROUTERS`, and logits from one of the strategies, moderate if none is given."""
    return st.tuples(st.sampled_from(list(ROUTERS)), st.one_of(*logits or (_MODERATE,)))


@cache
def _step(name: str):
    router = ROUTERS[name]
    return jax.jit(lambda state, logits: router.step(None, state, logits)[0])


def route(name: str, values: np.ndarray, *, dtype: str = "float64") -> Routing:
    """The routing of a batch by one of `ROUTERS`, from the state `STATE`."""
    return _step(name)(jnp.asarray(STATE, dtype), jnp.asarray(values, dtype))


def rows(routing: Routing, index: np.ndarray) -> Routing:
    """The routing of some of the tokens, in the order of `index`."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[index]), routing)


def reordered(routing: Routing, order: np.ndarray) -> Routing:
    """Experts renamed: new expert i is old expert `order[i]`, in logits, selection and partition together."""
    new_name = np.argsort(order).astype(np.int32)
    dense = ("logits", "log_probs", "selection_logits", "selected", "kept", "slots", "combine")
    moved = {name: jnp.asarray(np.asarray(getattr(routing, name))[:, order]) for name in dense}
    return dataclasses.replace(
        routing,
        **moved,
        routes=jnp.asarray(new_name[np.asarray(routing.experts)]),
        partition=Partition(tuple(routing.partition.group_of[e] for e in order)),
    )


def relabelled(routing: Routing, new_name: tuple[int, ...]) -> Routing:
    """The same routing with other names of the groups: old group g is new group `new_name[g]`."""
    group_of = tuple(new_name[g] for g in routing.partition.group_of)
    return dataclasses.replace(routing, partition=Partition(group_of))


_MODERATE = logits()
