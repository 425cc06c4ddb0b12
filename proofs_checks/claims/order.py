"""Selection by order: which maps of the logits, and which biases, leave it as it is."""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import (
    GroupedTopK,
    Partition,
    SelectionBias,
    Sigmoid,
    Softmax,
    TopK,
    ranked,
    routers,
)

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict, about
from ..search import QUICK
from ..witnesses import exhaustive, witness

kept = sp.IndexedBase("kept", positive=True)
"""Kept mass of a token, the sum of its probabilities over the selected experts."""

FOUR = Partition((0, 1, 0, 0))


def _monotone_in_floats(effort: Effort) -> Iterator[Finding]:
    def chosen(logits: tuple[float, ...]) -> int:
        values = Sigmoid().value(jnp.asarray([logits], jnp.float32))
        return int(ranked(TopK(1), values, Partition((0, 0)))[0, 0])

    yield witness(
        "2 experts, k = 1, float32, f = sigmoid, logits (18, 30): expert of the largest f(s), left, and of the largest "
        "s, right; both sigmoids are 1 to rounding, 1 - 2e-8 and 1 - 1e-13",
        0,
        "=",
        1,
        holds_at={"logits (0, 1): sigmoids .5 and .73": (chosen((0.0, 1.0)), 1)},
        code=[(chosen((18.0, 30.0)), 0)],
    )


def _monotone(effort: Effort) -> Iterator[Finding]:
    keys = np.array(list(itertools.product(range(4), repeat=4)), dtype=float)
    bias = np.array([0.0, 0.3, 0.0, -0.2])

    @functools.partial(jax.jit, compiler_options=QUICK)
    def select(given: Array) -> dict[str, Array]:
        maps = {
            "as it is": given,
            "softmax": Softmax().value(given),
            "log softmax": Softmax().log(given),
            "sigmoid": Sigmoid().value(given),
            "temperature": (given - 3) / 0.7,
            "probabilities within the group": given / FOUR.spread(1 + FOUR.sum(given)),
            "negated": -given,
            "sigmoid plus a bias by expert": Sigmoid().value(given) + bias,
        }
        rules = (TopK(2), GroupedTopK((2, 1)))
        return {name: jnp.concatenate([ranked(r, k, FOUR) for r in rules], axis=1) for name, k in maps.items()}

    chosen = jax.device_get(select(jnp.asarray(keys)))
    grouped = {"probabilities within the group": slice(2, None)}

    def same(name: str, row: int) -> bool:
        part = grouped.get(name, slice(None))
        return bool((chosen[name][row, part] == chosen["as it is"][row, part]).all())

    increasing = [name for name in chosen if name not in ("negated", "sigmoid plus a bias by expert")]
    found = exhaustive(
        "every order of 4 keys, ties included; top-2, and 2 of 3 and 1 of 1",
        itertools.product(increasing, range(len(keys))),
        lambda case: same(*case),
        false={name: lambda case, name=name: same(name, case[1]) for name in chosen if name not in increasing},
    )
    yield about("maps whose values tell apart what the logits tell apart", found)
    for kind in (jnp.float32, jnp.bfloat16):
        yield from _saturated(kind)


LEVELS = (-120.0, -100.0, -99.0, 0.0, 0.5, 17.0, 18.0, 19.0, 30.0, 90.0)
"""Of logits: from where a sigmoid underflows to where it is 1, with those at which values tie and logits do not."""
BIASES = np.array([[0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [0.0, 0.3, -0.2], [0.0, 0.0, -1.0]])
"""By expert: equal ones, twice; unequal ones, twice."""


def _saturated(kind: type) -> Iterator[Finding]:
    """Routers with sigmoid and softmax scores, top-2 of 3, over every row of three levels."""
    logits = np.array(list(itertools.product(LEVELS, repeat=3)))
    biased, plain = routers.loss_free(3, 2), routers.gshard(3, 2)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def route(x: Array, biases: Array) -> tuple[Array, Array, Array, Array]:
        by_bias = jax.vmap(lambda b: biased.step(None, b, x, training=False)[0].routes)(biases)
        value = Sigmoid().value(x)
        keys = value + biases[:, None, :].astype(x.dtype)
        by_number = jax.vmap(lambda k: ranked(TopK(2), k, Partition((0, 0, 0))))(keys)
        return by_bias, plain.step(None, (), x)[0].routes, keys.astype(jnp.float64), by_number

    x = jnp.asarray(logits, kind)
    biased_by, softmax, keys, by_number = jax.device_get(route(x, jnp.asarray(BIASES, jnp.float32)))
    exact = np.asarray(x.astype(jnp.float64))
    in_order = np.argsort(-exact, axis=1, kind="stable")[:, :2]
    by_key = np.stack([np.lexsort((-exact, -key), axis=1)[:, :2] for key in keys])
    of_kind = f"top-2 of 3 experts in {jnp.dtype(kind).name}, every row of 10 levels from -120 to 90"
    rows = range(len(logits))
    yield about(
        f"equal biases in {jnp.dtype(kind).name}",
        exhaustive(
            f"{of_kind}; softmax without and sigmoid with a bias of 0 or 1/4",
            rows,
            lambda r: all((found[r] == in_order[r]).all() for found in (softmax, *biased_by[:2])),
            false={"by the values, ties by number": lambda r: bool((by_number[0, r] == in_order[r]).all())},
        ),
    )
    yield about(
        f"unequal biases in {jnp.dtype(kind).name}",
        exhaustive(
            f"{of_kind}; sigmoid with biases (0, .3, -.2) and (0, 0, -1)",
            itertools.product((2, 3), rows),
            lambda case: bool((biased_by[case] == by_key[case]).all()),
            false={
                "equal keys by number": lambda case: bool((by_number[case] == by_key[case]).all()),
                "bias left out": lambda case: bool((biased_by[case] == in_order[case[1]]).all()),
            },
        ),
    )


MONOTONE = Claim(
    id="selection/monotone",
    statement=r"\mathrm{choose}(f(s)) = \mathrm{choose}(s) \text{ for increasing } f \text{ and all } s",
    words="Selection sees only the order of the keys: logits, probabilities, sigmoids, other temperatures and, in "
    "grouped selection, shares within the group select the same experts, whatever their values.",
    source="[himoe-theory] selection by order",
    recorded=Verdict.CORRECTED,
    check=_monotone_in_floats,
    correction=Correction(
        r"\mathrm{choose}(f(s)) = \mathrm{choose}(s) \text{ where } s_i < s_j \Rightarrow \mathrm{fl}(f(s_i)) < "
        r"\mathrm{fl}(f(s_j)); \quad \text{routers: } \mathrm{choose}(s) \text{ if } b_i = b_j, \text{ else by } "
        r"(\mathrm{fl}(\sigma(s) + b), s)",
        "An increasing map selects the same experts where its rounded values tell apart what the logits tell apart. "
        "Routers with softmax or sigmoid scores and equal biases keep the order of logits, whatever their size; with "
        "unequal biases they rank by the rounded score plus bias, equal ones by logits.",
        _monotone,
    ),
    functions=(TopK.choose, GroupedTopK.choose, Softmax.value, Sigmoid.value, SelectionBias.prepare),
    numbers=Numbers(
        "logits",
        besides="equal biases; unequal ones up to the rounding of score plus bias; values of f alone where they do not "
        "tie, which sigmoids do from 17 on in float32, 37 in 64 bits, and where they underflow",
    ),
    remark="A bias by expert changes the order. In this ledger the statement stood as true for all values, and was "
    "checked at logits from 0 to 3.",
)


CLAIMS = (MONOTONE,)
