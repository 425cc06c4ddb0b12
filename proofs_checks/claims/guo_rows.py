"""Claims about the released code of Guo et al.: what its rows of outputs hold, counted exactly, and its MaxVio."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import z3

from himoe_theory import metrics
from himoe_theory.objectives import orthogonality_released

from ..ledger import Claim, Correction, Effort, Finding, Verdict, about
from ..search import QUICK
from ..solvers import Problem, decide, reals
from ..witnesses import exhaustive, reported, witness

TOKENS, EXPERTS, ROUTES = 4096, 64, 6
"""The size at which the notes of this package give shares of rows."""

BITS = 256
"""Kept of the numbers of routings."""

Routing = tuple[tuple[int, ...], ...]
"""The experts of every token, in ascending order."""
Case = tuple[int, Routing]
"""Number of experts, and a routing."""
SIZES = ((3, 4, 2), (4, 3, 2), (3, 4, 3), (3, 5, 3), (2, 6, 3), (4, 4, 3))
"""Tokens, experts, experts a token selects."""
SCOPE = "every routing of " + "; ".join("{} tokens to {} experts, {} each".format(*size) for size in SIZES)


def _cases() -> Iterator[Case]:
    for tokens, experts, routes in SIZES:
        chosen = list(itertools.combinations(range(experts), routes))
        yield from ((experts, routing) for routing in itertools.product(chosen, repeat=tokens))


@functools.cache
def _rows(routing: Routing) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Outputs (expert, token) concatenated expert by expert, cut into as many rows as there are tokens."""
    every = sorted((expert, token) for token, experts in enumerate(routing) for expert in experts)
    routes = len(routing[0])
    return tuple(tuple(every[start : start + routes]) for start in range(0, len(every), routes))


def _of_one(routing: Routing, place: int) -> int:
    """Rows of one expert (place 0) or of one token (place 1)."""
    return sum(len({entry[place] for entry in row}) == 1 for row in _rows(routing))


def _check_rows() -> None:
    """Two outputs a row, a unit vector for each expert, or for each token: the released loss is the share of rows in
    which they agree."""
    routings = [routing for experts, routing in _cases() if (experts, len(routing[0])) == (4, 2)]
    experts = np.array(routings, dtype=np.int32)
    tokens = np.broadcast_to(np.arange(3)[:, None], experts.shape)

    def shares(chosen: jax.Array, labels: jax.Array) -> jax.Array:
        return orthogonality_released(jax.nn.one_hot(labels, 4, dtype=jnp.float64), chosen)

    compute = jax.jit(jax.vmap(shares), compiler_options=QUICK)
    for place, labels in enumerate((experts, tokens)):
        counted = [_of_one(routing, place) / 3 for routing in routings]
        if not np.allclose(compute(jnp.asarray(experts), jnp.asarray(labels)), counted, rtol=0, atol=1e-12):
            raise AssertionError("himoe_theory cuts the outputs into other rows")


def _one_expert(effort: Effort) -> Iterator[Finding]:
    _check_rows()

    def at_least(lost: int) -> functools.partial:
        return functools.partial(_enough, lost)

    found = exhaustive(
        SCOPE,
        _cases(),
        at_least(1),
        false={"one mixed row fewer": at_least(2), "no mixed row": lambda c: _of_one(c[1], 0) == len(c[1])},
    )
    yield about("rows of one expert, any routing", found)
    least = 1 - Fraction(EXPERTS - 1, TOKENS)
    yield reported("Least share of rows of one expert, 4096 tokens, 6 of 64 experts", 100 * least, "98.5", unit=" %")
    low, high = _expected_share()
    yield reported("Expected share under random routing, at least", 100 * low, "98.7", unit=" %")
    yield reported("Expected share under random routing, at most", 100 * high, "98.7", unit=" %")


def _enough(lost: int, case: Case) -> bool:
    experts, routing = case
    return _of_one(routing, 0) >= len(routing) - (experts - lost)


def _aligned(before: int) -> Fraction:
    """Probability that the outputs of the first experts, `before` of them, fill whole rows.

    Each token adds a hypergeometric number of outputs; only their sum modulo the row's length counts. Whole numbers,
    cut to their first bits: the probability is off by 2^-200 at most.
    """
    count = [0] * ROUTES
    for taken in range(ROUTES + 1):
        count[taken % ROUTES] += math.comb(before, taken) * math.comb(EXPERTS - before, ROUTES - taken)
    for _ in range(TOKENS.bit_length() - 1):  # TOKENS is a power of two
        count = [sum(count[a] * count[(s - a) % ROUTES] for a in range(ROUTES)) for s in range(ROUTES)]
        spare = max(0, sum(count).bit_length() - BITS)
        count = [each >> spare for each in count]
    return Fraction(count[0], sum(count))


def _expected_share() -> tuple[Fraction, Fraction]:
    """Lower and upper end of the expected share, to 1e-12.

    A block that ends inside a row makes it mixed, and two can only end inside the same row if an expert has fewer
    tokens than a row has places.
    """
    half = EXPERTS // 2  # by symmetry the first n experts are like the last n
    aligned = 2 * sum((_aligned(before) for before in range(1, half)), Fraction(0)) + _aligned(half)
    mixed = EXPERTS - 1 - aligned
    few = (EXPERTS - 2) * sum(_load_is(count) for count in range(ROUTES - 1))
    rounding = Fraction(1, 10**12)
    return 1 - mixed / TOKENS - rounding, 1 - (mixed - few) / TOKENS + rounding


def _load_is(count: int) -> Fraction:
    """Probability that an expert has this many tokens."""
    share = Fraction(ROUTES, EXPERTS)
    return math.comb(TOKENS, count) * share**count * (1 - share) ** (TOKENS - count)


ONE_EXPERT = Claim(
    id="guo/released-rows-one-expert",
    statement=r"\#\{\text{rows of one expert}\} \ge T - (n - 1); \quad T = 4096, n = 64, k = 6: \; \ge 98.5\,\%, "
    r"\; 98.7\,\% \text{ expected}",
    words="In the released orthogonality loss nearly all rows hold outputs of one expert, whatever the routing: at "
    "4096 tokens and 6 of 64 experts at least 98.5 %, in expectation under random routing 98.7 %.",
    source="[guo-code]; [himoe-theory]",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_one_expert,
    functions=(orthogonality_released,),
    remark="Only a row inside which an expert's block ends is mixed, and there are n - 1 such ends, so the first part "
    "holds for every size. The expectation is that of tokens that choose uniformly and independently.",
)


def _one_token(effort: Effort) -> Iterator[Finding]:
    _check_rows()

    def spans(case: Case) -> bool:
        experts, routing = case
        return _of_one(routing, 1) <= (experts - 1) // (len(routing[0]) - 1)

    found = exhaustive(
        SCOPE,
        _cases(),
        spans,
        false={"none at all": lambda case: _of_one(case[1], 1) == 0},
        said=str,
    )
    yield about("at most (n - 1)/(k - 1) rows", found)
    found = exhaustive(
        SCOPE,
        _cases(),
        lambda case: _lonely(case[1]) or len(case[1][0]) < 3 or _of_one(case[1], 1) == 0,
        false={
            "experts with a single token as well": lambda case: len(case[1][0]) < 3 or _of_one(case[1], 1) == 0,
            "two experts a token as well": lambda case: _lonely(case[1]) or _of_one(case[1], 1) == 0,
        },
    )
    yield about("none where every expert in use has two tokens, k >= 3", found)
    bound = (EXPERTS - 2) * _load_is(1)
    shown = Fraction(math.ceil(bound * 10**60), 10**60)
    yield reported("Probability that some row holds one token, at most", 100 * shown, "0.000000000000", unit=" %")


def _lonely(routing: Routing) -> bool:
    """Whether some expert has exactly one token."""
    return 1 in np.bincount([expert for experts in routing for expert in experts])


ONE_TOKEN = Claim(
    id="guo/released-rows-one-token",
    statement=r"\#\{\text{rows of one token}\} \le \frac{n - 1}{k - 1}; \quad = 0 \text{ for } k \ge 3 \text{ where "
    r"every expert in use has two tokens}",
    words="Hardly any row of the released orthogonality loss is what it is meant to be, the outputs of one token: none "
    "at 4096 tokens and 6 of 64 experts, except with a probability below 10^-12 under random routing.",
    source="[guo-code]; [himoe-theory]",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_one_token,
    functions=(orthogonality_released,),
    remark="A row of one token runs through k experts, so each of the k - 2 in the middle has this token alone; for "
    "any size. For k = 2 a row can hold the last token of one expert and the first of the next, which may be the same.",
)


# MaxVio


def _violations(load: Sequence[int]) -> tuple[Fraction, Fraction]:
    mean = Fraction(sum(load), len(load))
    return max(load) / mean - 1, max(abs(x / mean - 1) for x in load)


def _maxvio(effort: Effort) -> Iterator[Finding]:
    idle, even = _violations((0, 3, 3)), _violations((1, 2, 3))
    loads = jnp.array([0.0, 3.0, 3.0])
    plain, absolute = (jax.jit(of)(loads) for of in (metrics.max_violation, metrics.max_absolute_violation))
    yield witness(
        "loads (0, 3, 3): largest deviation from the mean over the mean, without and with its absolute value",
        idle[0],
        "=",
        idle[1],
        holds_at={"loads (1, 2, 3)": even},
        code=[(plain, idle[0]), (absolute, idle[1])],
    )


def _maxvio_range(effort: Effort) -> Iterator[Finding]:
    problems = []
    for count in (3, 4, 5):
        load = reals("L", count)
        mean = z3.Sum(load) / count
        given = [x >= 0 for x in load] + [mean == 1]  # the scale is free
        plain, absolute = z3.Real("plain"), z3.Real("absolute")
        given += [z3.And([plain >= x - 1 for x in load]), z3.Or([plain == x - 1 for x in load])]
        given += [z3.And([z3.And(absolute >= x - 1, absolute >= 1 - x) for x in load])]
        given += [z3.Or([z3.Or(absolute == x - 1, absolute == 1 - x) for x in load])]
        claim = z3.And(plain <= absolute, z3.Or(absolute == plain, absolute <= 1))
        false = {
            "loads of any sign": (given[count:], claim),
            "equal": (given, absolute == plain),
        }
        problems.append(Problem(f"{count} experts", given, claim, false))
    yield decide(problems, effort)


MAXVIO = Claim(
    id="guo/maxvio-absolute",
    statement=r"\max_e |L_e - \bar L| / \bar L = \mathrm{MaxVio} = (\max_e L_e - \bar L)/\bar L",
    words="The MaxVio of the released code, with an absolute deviation, is that of the paper.",
    source="[guo] MaxVio_global with [guo-code]",
    recorded=Verdict.CORRECTED,
    check=_maxvio,
    functions=(metrics.max_violation, metrics.max_absolute_violation),
    correction=Correction(
        r"\mathrm{MaxVio} \le \max_e |L_e - \bar L|/\bar L \le \max(\mathrm{MaxVio}, 1)",
        "The released one is at least as large, and where it is larger it is at most 1: then it is what the least used "
        "expert lacks.",
        _maxvio_range,
    ),
    remark="An idle expert makes it 1 however small the excess of the busiest one: below 1 the two are not comparable.",
)

CLAIMS = (ONE_EXPERT, ONE_TOKEN, MAXVIO)
