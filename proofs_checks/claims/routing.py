"""Claims about what one token's routing may depend on: the other tokens, their order, the controller's state, ties."""

import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory import (
    Capacity,
    GroupedTopK,
    KeepAbove,
    KeepFirst,
    KeepRandomly,
    Partition,
    Router,
    TopK,
    assign_slots,
    expert_choice,
    from_dense,
    global_top,
    ranked,
    routers,
    to_dense,
)

from ..kept import KEYS
from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..search import QUICK
from ..witnesses import exhaustive, witness

PARTITION = Partition((0, 1, 0))
"""Unequal and interleaved."""
LEVELS = (0.0, 1.0, 2.0)
ONE_PLACE = Capacity(0.0, minimum=1, even=False)
PER_TOKEN: dict[str, Router] = {
    "top-k": routers.gshard(3, 2),
    "top-k, first kept": routers.st_moe(3, 2, KeepFirst()),
    "top-k, kept above a threshold": routers.st_moe(3, 2, KeepAbove(0.3)),
    "top-k, kept randomly": routers.st_moe(3, 2, KeepRandomly(0.6)),
    "top-k of biased scores": routers.loss_free(3, 2),
    "grouped top-k": routers.moge(PARTITION, 1),
    "grouped top-k, corrected by a given average": routers.himoe(PARTITION, 1, tau=0.7),
}
DEPENDENT = {
    "one place an expert": routers.gshard(3, 2, capacity=ONE_PLACE),
    "an average updated by the batch itself": routers.himoe(PARTITION, 1, tau=0.7, beta=0.5),
}


def rows() -> np.ndarray:
    """Every row of three keys from three levels: every order of three numbers, ties included."""
    return np.array(list(itertools.product(LEVELS, repeat=3)))


def _combine(router: Router, training: bool) -> Callable[[jax.Array], jax.Array]:
    """Combine weights of the first token, for each of many batches, from a state other than zero."""

    def first(batch: jax.Array) -> jax.Array:
        state = jnp.array([0.3, -0.2, 0.05])
        return router.step(jax.random.key(0), state, batch, training=training)[0].combine[0]

    return jax.vmap(first)


def _flags(rule: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    return jax.vmap(lambda batch: rule(batch)[0].astype(batch.dtype))


def _first_tokens() -> dict[str, np.ndarray]:
    """What the first token gets, by rule: [its row, the row of the other token, experts]."""
    every = rows()
    batches = np.stack(np.broadcast_arrays(every[:, None], every[None]), axis=2).reshape(-1, 2, 3)
    of_batch = {name: _combine(router, False) for name, router in PER_TOKEN.items()}
    of_batch |= {name: _combine(router, True) for name, router in DEPENDENT.items()}
    of_batch["expert choice"] = _flags(lambda batch: expert_choice(batch, 1))
    of_batch["largest cells of the batch"] = _flags(lambda batch: global_top(batch, 2))
    together = jax.jit(lambda x: {name: f(x) for name, f in of_batch.items()}, compiler_options=QUICK)(batches)
    return {name: np.asarray(found).reshape(len(every), len(every), 3) for name, found in together.items()}


def _independence(effort: Effort) -> Iterator[Finding]:
    same = {name: np.abs(got - got[:, :1]).max(axis=-1) < 1e-12 for name, got in _first_tokens().items()}
    size = len(rows())

    def holds_for(name: str) -> Callable[[tuple[str, int, int]], bool]:
        return lambda case: bool(same[name][case[1:]])

    yield exhaustive(
        "2 tokens, 3 experts, logits from 3 levels (every order, ties included)",
        itertools.product(PER_TOKEN, range(size), range(size)),
        lambda case: bool(same[case[0]][case[1:]]),
        false={name: holds_for(name) for name in same if name not in PER_TOKEN},
    )


INDEPENDENCE = Claim(
    id="routing/batch-independence",
    statement=r"w_t = w(s_t, \text{state}) \quad \text{for selection by token, without capacity}",
    words="What a token gets from top-k, grouped top-k, the policies of ST-MoE, and selection with a given bias or "
    "average does not depend on the other tokens.",
    source="[himoe-theory] batch independence",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_independence,
    functions=(Router.step, expert_choice, global_top),
    numbers=Numbers("logits", besides="in the same program; for another shape weights may differ by roundings"),
    remark="Selection only compares keys of one row, so the orders tried are all there are for three experts. Controls "
    "are the four ways to lose it: a capacity, expert choice, the largest cells of the batch, and an average that is "
    "updated by the batch it corrects. The random policy draws a number a route from the key, whatever the logits.",
)


def _capacity_couples(effort: Effort) -> Iterator[Finding]:
    router = routers.gshard(2, 1, capacity=ONE_PLACE)
    weight = jax.jit(lambda batch: router.step(None, jnp.zeros(2), batch)[0].combine[1, 0])
    own = [1.0, 0.0]
    yield witness(
        "2 experts, k = 1, one place an expert; the second token has logits (1, 0), the first (1, 0) or (0, 1): weight "
        "of the second token at expert 0, left beside the first choice, right beside the second",
        0,
        "=",
        1,
        holds_at={"a first token with (0, 1) or with (0, 2)": (1, 1)},
        code=[(weight(jnp.array([[1.0, 0.0], own])), 0), (weight(jnp.array([[0.0, 1.0], own])), 1)],
    )


CAPACITY_COUPLES = Claim(
    id="routing/capacity-couples-tokens",
    statement=r"w_t = w(s_t, \text{state}) \quad \text{with a capacity}",
    words="With a capacity filled by position, a token's output is a function of the token alone.",
    source="[himoe-code] capacity",
    recorded=Verdict.REFUTED,
    check=_capacity_couples,
    functions=(Router.step, Capacity.slots),
    remark="An earlier token with the same first choice takes the only place.",
)


def _pool_couples(rule: Callable[..., jax.Array], places: int, rule_name: str) -> Callable[[Effort], Iterator[Finding]]:
    def check(effort: Effort) -> Iterator[Finding]:
        taken = jax.jit(lambda second: rule(jnp.stack([jnp.ones(1), second]), places)[0, 0])
        yield witness(
            f"2 tokens, 1 expert, 1 place, {rule_name}; the first token's score is 1, the second's 2 or 0: whether the "
            "first is taken, left beside 2, right beside 0",
            0,
            "=",
            1,
            holds_at={"a second token with 0 or with 1/2": (1, 1)},
            code=[(taken(jnp.full(1, 2.0)), 0), (taken(jnp.zeros(1)), 1)],
        )

    return check


EXPERT_CHOICE_NOT_CAUSAL = Claim(
    id="routing/expert-choice-causal",
    statement=r"c_t = c(s_1, \dots, s_t) \quad \text{for expert choice}",
    words="Under expert choice a later token does not change the experts of an earlier one.",
    source="[expert-choice] routing by experts; [loss-free] on leakage",
    recorded=Verdict.REFUTED,
    check=_pool_couples(expert_choice, 1, "expert choice"),
    functions=(expert_choice,),
)
GLOBAL_NOT_CAUSAL = Claim(
    id="routing/global-top-causal",
    statement=r"c_t = c(s_1, \dots, s_t) \quad \text{for the } Tk \text{ largest cells}",
    words="When the largest cells of the whole matrix are taken, a later token does not change an earlier one.",
    source="[usmoe] unified selection",
    recorded=Verdict.REFUTED,
    check=_pool_couples(global_top, 1, "the largest cell"),
    functions=(global_top,),
)


TOKENS = 3


def _places(chosen: jax.Array, active: jax.Array, experts: int) -> jax.Array:
    """Place of each route in its expert's queue."""
    return from_dense(assign_slots(to_dense(active, chosen, experts), chosen), chosen)


@functools.cache
def _slots(experts: int, routes: int, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every batch of three tokens' ordered choices, and the places they get, [batches, tokens, routes].

    Grouped: route r chooses one of its own two experts. Inputs are few and fixed, hence the cache.
    """
    one = (
        list(itertools.product(*((2 * r, 2 * r + 1) for r in range(routes))))
        if grouped
        else list(itertools.permutations(range(experts), routes))
    )
    choices = np.array(list(itertools.product(one, repeat=TOKENS)), dtype=np.int32)
    active = jnp.ones(choices.shape[1:], bool)
    places = jax.jit(jax.vmap(lambda x: _places(x, active, experts)))(jnp.asarray(choices))
    return choices, np.asarray(places)


def _causal(choices: np.ndarray, places: np.ndarray, routes: slice) -> Iterator[tuple[str, bool]]:
    """For each prefix of tokens: whether the last one's places, on some routes, are the same whatever follows."""
    for token in range(TOKENS - 1):
        seen: dict[bytes, bytes] = {}
        for batch, place in zip(choices, places, strict=True):
            own = place[token, routes].tobytes()
            first = seen.setdefault(batch[: token + 1].tobytes(), own)
            yield f"{batch.tolist()}, token {token}", own == first


def _later_first_choice(effort: Effort) -> Iterator[Finding]:
    both = jnp.ones((2, 2), bool)
    place = jax.jit(lambda second: _places(jnp.stack([jnp.arange(2), second]), both, 3)[0, 1])
    yield witness(
        "top-2 of 3 experts; the first token chose (0, 1), the second (1, 2) or (2, 0): place of the first token at "
        "expert 1, left before the second (1, 2), right before (2, 0)",
        1,
        "=",
        0,
        holds_at={"a second token with (2, 0) or with (0, 2)": (0, 0)},
        code=[(place(jnp.array([1, 2])), 1), (place(jnp.array([2, 0])), 0)],
    )


def _causal_cases(effort: Effort) -> Iterator[Finding]:
    first = list(_causal(*_slots(3, 2, False), slice(0, 1)))
    single = list(_causal(*_slots(4, 1, False), slice(0, 1)))
    grouped = list(_causal(*_slots(4, 2, True), slice(0, 2)))
    second = list(_causal(*_slots(3, 2, False), slice(1, 2)))
    for scope, cases in (("first routes, top-2 of 3", first), ("top-1 of 4", single), ("one of 2 a group", grouped)):
        found = exhaustive(
            f"3 tokens, {scope}",
            cases,
            lambda case: case[1],
            false={"second routes of top-2": lambda _: all(holds for _, holds in second)},
        )
        yield found


CAPACITY_CAUSAL = Claim(
    id="routing/capacity-causal",
    statement=r"\mathrm{slot}(t, r) \text{ depends on tokens } t' \le t \text{ only}",
    words="Places given by position do not depend on later tokens.",
    source="[himoe-code] route-major places",
    recorded=Verdict.CORRECTED,
    check=_later_first_choice,
    functions=(assign_slots,),
    correction=Correction(
        r"\mathrm{slot}(t, r) \text{ depends on later tokens only through routes } r' < r \text{ that reach the same "
        r"expert}",
        "For a fixed number of places it is causal for first routes, for top-1, and for one expert a group; second "
        "routes wait until every first route, of later tokens too, has its place.",
        _causal_cases,
    ),
    remark="The number of places itself is computed from the number of tokens: a longer batch has more of them. "
    "One expert a group is causal because no two routes of different rank can reach the same expert.",
)


def _sorted(keys: np.ndarray, k: int) -> list[int]:
    return sorted(range(len(keys)), key=lambda e: (-keys[e], e))[:k]


def _ties(effort: Effort) -> Iterator[Finding]:
    keys = np.array(list(itertools.product((0.0, 1.0, 2.0, 3.0), repeat=4)))
    keys[::2] = np.where(keys[::2] == 0, -0.0, keys[::2])  # both signs of zero
    keys[1::2, 1] *= np.where(keys[1::2, 1] == 0, -1.0, 1.0)
    partition = Partition((0, 1, 0, 0))

    @jax.jit
    def select(x: jax.Array) -> tuple[jax.Array, ...]:
        return (
            ranked(TopK(2), x, partition),
            ranked(GroupedTopK((2, 1)), x, partition),
            jax.vmap(lambda row: expert_choice(row[:, None], 2)[:, 0])(x),
            jax.vmap(lambda row: global_top(row.reshape(2, 2), 2).reshape(-1))(x),
        )

    flat, grouped, by_expert, cells = jax.device_get(select(jnp.asarray(keys)))
    members = [e for e in range(4) if partition.group_of[e] == 0]

    def holds(case: int, lowest: bool = True) -> bool:
        row = keys[case] if lowest else keys[case][::-1]
        place = (lambda e: e) if lowest else (lambda e: 3 - e)
        best = [place(e) for e in _sorted(row, 2)]
        order = [place(e) for e in _sorted(row, 4)]
        inside = [e for e in order if e in members][:2]
        return (
            flat[case].tolist() == best
            and grouped[case].tolist() == [*inside, 1]
            and set(np.flatnonzero(by_expert[case])) == set(best) == set(np.flatnonzero(cells[case]))
        )

    yield exhaustive(
        "4 keys from 4 levels (every order, ties and signed zeros included); top-2, 2 of 3 in a group, expert choice "
        "with 2 of 4 tokens, 2 of 4 cells",
        range(len(keys)),
        holds,
        false={"ties to the higher number": lambda case: holds(case, lowest=False)},
    )


TIES = Claim(
    id="routing/ties",
    statement=r"\text{equal keys rank by number, the lower first}",
    words="Every selection rule is a function of the keys alone: of equal keys the lower number wins, and -0 equals 0.",
    source="[himoe-theory] ties",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_ties,
    functions=(TopK.choose, GroupedTopK.choose, expert_choice, global_top),
    numbers=KEYS,
)


def _grouped_balance(effort: Effort) -> Iterator[Finding]:
    every = rows()
    batch = jnp.asarray(every)
    partition = Partition((0, 1, 0))

    def count(router: Router) -> np.ndarray:
        step = jax.jit(lambda x: partition.sum(router.step(None, jnp.zeros(3), x)[0].selected.astype(x.dtype)))
        return np.asarray(step(batch))

    counts = {"grouped": count(routers.moge(partition, 1)), "flat": count(routers.gshard(3, 2))}
    yield exhaustive(
        "3 experts in groups of 2 and 1, one a group; every order of the logits",
        range(len(every)),
        lambda case: counts["grouped"][case].tolist() == [1, 1],
        false={"flat top-2": lambda case: counts["flat"][case].tolist() == [1, 1]},
    )


GROUPED_BALANCE = Claim(
    id="moge/no-imbalance",
    statement=r"\mathrm{IS} = (\max_i T_i - \min_i T_i)/|X| = 0",
    words="With one group a device and equal numbers selected in each, devices always have equal loads.",
    source="[moge] imbalance score",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_grouped_balance,
    functions=(GroupedTopK.choose,),
    numbers=KEYS,
    remark="Every token contributes exactly K to every group, whatever its logits, so any batch does: the counts of "
    "groups say nothing about what the router learned.",
)

CLAIMS = (
    INDEPENDENCE,
    CAPACITY_COUPLES,
    EXPERT_CHOICE_NOT_CAUSAL,
    GLOBAL_NOT_CAUSAL,
    CAPACITY_CAUSAL,
    TIES,
    GROUPED_BALANCE,
)
