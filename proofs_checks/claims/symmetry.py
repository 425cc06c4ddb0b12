"""Claims about what leaves decisions unchanged: the order of tokens, the names of experts and groups."""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from himoe_theory import (
    Capacity,
    GroupedTopK,
    Partition,
    Router,
    Routing,
    TopK,
    expert_choice,
    from_routes,
    global_top,
    ranked,
    routers,
)
from himoe_theory.objectives import OBJECTIVES, View

from ..kept import KEYS
from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..search import QUICK
from ..witnesses import exhaustive, sampled, witness

ONE_PLACE = Capacity(0.0, minimum=1, even=False)


def _grid(levels: int, entries: int) -> np.ndarray:
    return np.array(list(itertools.product(range(levels), repeat=entries)), dtype=float)


Rules = dict[str, Callable[[Array], Array]]


def _equivariant(rules: Rules, batches: np.ndarray, orders: list[tuple[int, ...]], axis: int) -> dict[str, bool]:
    """Whether permuting an axis of every batch permutes the decisions, by rule."""
    every = np.stack([batches, *(np.take(batches, order, axis=axis) for order in orders)])
    # One program for all rules: compiling is most of the cost.
    run = jax.jit(lambda x: {name: jax.vmap(jax.vmap(rule))(x) for name, rule in rules.items()}, compiler_options=QUICK)
    decided = jax.device_get(run(jnp.asarray(every)))
    return {
        name: all((np.take(first, order, axis=axis) == new).all() for order, new in zip(orders, after, strict=True))
        for name, (first, *after) in decided.items()
    }


def _dispatched(router: Router) -> Callable[[Array], Array]:
    state = np.array([0.3, -0.2, 0.05])
    return lambda batch: router.step(None, jnp.asarray(state), batch, training=False)[0].kept


PARTITION = Partition((0, 1, 0))
BY_TOKEN = {
    "top-k": routers.gshard(3, 2),
    "top-k of biased scores": routers.loss_free(3, 2),
    "grouped top-k, corrected": routers.himoe(PARTITION, 1, tau=0.7),
}
POOLS: dict[str, Callable[[Array], Array]] = {
    "expert choice": lambda batch: expert_choice(batch, 1),
    "largest cells": lambda batch: global_top(batch, 2),
}


def _order_matters(effort: Effort) -> Iterator[Finding]:
    rule = jax.jit(_dispatched(routers.gshard(3, 1, capacity=ONE_PLACE)))
    batch = np.array([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    yield witness(
        "3 experts, k = 1, one place an expert; tokens with logits (1, 0, 0) and (2, 0, 0): whether the first of them "
        "gets expert 0, left when it is first in the batch, right when it is second",
        1,
        "=",
        0,
        holds_at={"for expert 1, which neither chooses": (0, 0)},
        code=[(rule(jnp.asarray(batch))[0, 0], 1), (rule(jnp.asarray(batch[::-1].copy()))[1, 0], 0)],
    )


def _token_order(effort: Effort) -> Iterator[Finding]:
    any_keys = _grid(3, 6).reshape(-1, 2, 3)
    distinct = np.array(list(itertools.permutations(range(6))), dtype=float).reshape(-1, 2, 3)
    limited = {"one place an expert": _dispatched(routers.gshard(3, 2, capacity=ONE_PLACE))}
    by_token = {name: _dispatched(router) for name, router in BY_TOKEN.items()}
    tied = _equivariant({**by_token, **POOLS, **limited}, any_keys, [(1, 0)], 1)
    untied = _equivariant(POOLS, distinct, [(1, 0)], 1)
    yield exhaustive(
        "2 tokens, 3 experts: by token every 3-level batch, from the whole batch every order of six distinct scores",
        [*((name, tied[name]) for name in by_token), *untied.items()],
        lambda case: case[1],
        false={name: lambda _, name=name: tied[name] for name in (*POOLS, *limited)},
    )


TOKEN_ORDER = Claim(
    id="routing/token-permutation",
    statement=r"\mathrm{route}(\sigma s) = \sigma\, \mathrm{route}(s), \quad \sigma \text{ a permutation of tokens}",
    words="Permuting the tokens of a batch permutes its decisions.",
    source="[himoe-code] capacity; [expert-choice]",
    recorded=Verdict.CORRECTED,
    check=_order_matters,
    functions=(Router.step, expert_choice, global_top),
    numbers=Numbers("keys", besides="no ties between tokens where a rule looks at several"),
    correction=Correction(
        r"\text{true without a capacity; for selection from the batch, where scores are distinct}",
        "It holds for selection by token without a capacity, and for expert choice and the largest cells when no "
        "scores tie; with ties these two prefer the earlier token.",
        _token_order,
    ),
)


def _relabel_tied(effort: Effort) -> Iterator[Finding]:
    chosen = jax.jit(lambda keys: ranked(TopK(1), keys, Partition((0, 0)))[0, 0])
    yield witness(
        "2 experts, k = 1, keys (0, 0): expert chosen, left, and after swapping the names of the experts, renamed "
        "back, right",
        0,
        "=",
        1,
        holds_at={"keys (1, 0)": (0, 0)},
        code=[(chosen(jnp.zeros((1, 2))), 0), (1 - chosen(jnp.zeros((1, 2))), 1)],
    )


def _relabel(effort: Effort) -> Iterator[Finding]:
    orders = list(itertools.permutations(range(4)))
    untied = np.array(orders, dtype=float)[:, None, :]
    group_of = np.array([0, 1, 0, 0])

    def by_group(batch: Array) -> Array:
        """2 of 3 in a group and 1 of 1, in the order of the keys given: the groups move with the experts."""
        partition = Partition(tuple(group_of.tolist()))
        chosen = ranked(GroupedTopK((2, 1)), batch, partition)
        return (chosen[:, :, None] == jnp.arange(4, dtype=chosen.dtype)).any(axis=1)

    def flat(batch: Array) -> Array:
        chosen = ranked(TopK(2), batch, Partition((0, 0, 0, 0)))
        return (chosen[:, :, None] == jnp.arange(4, dtype=chosen.dtype)).any(axis=1)

    inside = [order for order in orders if (group_of[list(order)] == group_of).all()]
    rules: Rules = {"top-2": flat, "grouped": by_group}
    kept = _equivariant(rules, untied, inside, 2) | _equivariant({"top-2": flat}, untied, orders, 2)
    tied = _equivariant({"top-2": flat}, _grid(2, 4)[:, None, :], orders, 2)
    leaving = _equivariant({"grouped": by_group}, untied, orders, 2)
    yield exhaustive(
        "4 experts, every order of distinct keys, every renaming (within groups of 3 and 1 for grouped selection)",
        kept.items(),
        lambda case: case[1],
        false={
            "with ties": lambda _: tied["top-2"],
            "grouped, experts leaving their group": lambda _: leaving["grouped"],
        },
    )


EXPERT_NAMES = Claim(
    id="routing/expert-relabelling",
    statement=r"\mathrm{choose}(\sigma s) = \sigma\, \mathrm{choose}(s), \quad \sigma \text{ a permutation of experts}",
    words="Renaming the experts renames the selection.",
    source="[himoe-theory] equivariance",
    recorded=Verdict.CORRECTED,
    check=_relabel_tied,
    functions=(TopK.choose, GroupedTopK.choose),
    numbers=Numbers("keys", besides="no ties, and none that rounding makes"),
    correction=Correction(
        r"\text{true where no keys at the boundary tie; within groups for grouped selection}",
        "It holds for distinct keys; a tie is broken by number, which a renaming changes. A router that starts at "
        "exactly equal logits therefore selects the first experts.",
        _relabel,
    ),
)


def _group_names(effort: Effort) -> Iterator[Finding]:
    first, names = (0, 1, 0, 2), list(itertools.permutations(range(3)))
    partitions = [Partition(tuple(name[g] for g in first)) for name in names] + [Partition((0, 1, 2, 0))]
    select = jax.jit(lambda x: jnp.stack([jnp.sort(ranked(GroupedTopK(1), x, part), axis=1) for part in partitions]))
    chosen = np.asarray(select(jnp.asarray(_grid(3, 4))))
    yield exhaustive(
        "4 experts in groups of 2, 1, 1, every 3-level row (ties included), every renaming of the groups",
        itertools.product(range(len(names)), range(chosen.shape[1])),
        lambda case: bool((chosen[case] == chosen[0, case[1]]).all()),
        false={"another partition": lambda case: bool((chosen[-1, case[1]] == chosen[0, case[1]]).all())},
    )


GROUP_NAMES = Claim(
    id="routing/group-relabelling",
    statement=r"\mathrm{choose}(s; \sigma \circ g) = \mathrm{choose}(s; g) \text{ as sets}",
    words="Renumbering the groups leaves the selected set unchanged, ties included; only the order of routes moves.",
    source="[himoe-theory] equivariance",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_group_names,
    functions=(GroupedTopK.choose,),
    numbers=KEYS,
    remark="Nor does it change who finds a place: only routes of one group compete for an expert, and they keep their "
    "order.",
)


_OF_LOGITS = {name: each for name, each in OBJECTIVES.items() if each.of != "outputs"}


def _routing(logits: Array, partition: Partition, experts: Array) -> Routing:
    return from_routes(logits, experts, partition, selection_logits=1.3 * logits)


def _objective_names(effort: Effort) -> Iterator[Finding]:
    groups, other = Partition((0, 1, 0, 2, 0)), Partition((0, 0, 1, 2, 1))
    order, names = np.array([3, 0, 4, 1, 2]), (2, 0, 1)
    moved = Partition(tuple(names[groups.group_of[e]] for e in order))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def values(logits: Array) -> dict[str, Array]:
        """By objective, of each batch: as it is, renamed, and with another partition if it reads one."""
        experts = jax.lax.top_k(logits, 3)[1]
        both = jnp.stack([logits, logits[..., order]])
        chosen = jnp.stack([experts, jnp.asarray(np.argsort(order), experts.dtype)[experts]])

        def of(value: Callable[[View], Array], part: Partition) -> Callable[[Array, Array], Array]:
            return jax.vmap(lambda x, e: value(View(_routing(x, part, e))))

        found = {}
        for name, each in _OF_LOGITS.items():
            if each.uses_groups:
                parts = ((groups, 0), (moved, 1), (other, 0))
                found[name] = jnp.stack([of(each.value, part)(both[i], chosen[i]) for part, i in parts])
            else:
                found[name] = jax.vmap(of(each.value, groups))(both, chosen)
        return found

    draws = 20
    logits = 2 * np.random.default_rng(effort.seed).standard_normal((draws, 4, 5))
    found = jax.device_get(values(jnp.asarray(logits)))

    def same(case: tuple[str, int], which: int) -> bool:
        first, second = (float(found[case[0]][i, case[1]]) for i in (0, which))
        return abs(first - second) <= 1e-11 * max(1.0, abs(first))

    yield sampled(
        f"{len(_OF_LOGITS)} objectives, {draws} batches of 4 tokens, 5 experts in groups of 3, 1, 1",
        itertools.product(_OF_LOGITS, range(draws)),
        lambda case: same(case, 1),
        false={"another partition": lambda case: not _OF_LOGITS[case[0]].uses_groups or same(case, 2)},
        said=lambda case: f"{case[0]}, batch {case[1]}",
    )


OBJECTIVE_NAMES = Claim(
    id="objectives/relabelling",
    statement=r"L(\sigma s; \sigma g) = L(s; g)",
    words="Every objective of logits in the catalogue is unchanged when experts and their groups, or groups, are "
    "renamed.",
    source="[himoe-theory] equivariance",
    recorded=Verdict.SUPPORTED,
    check=_objective_names,
    functions=tuple(objective.functions[0] for objective in _OF_LOGITS.values()),
)

CLAIMS = (TOKEN_ORDER, EXPERT_NAMES, GROUP_NAMES, OBJECTIVE_NAMES)
