"""Claims that count: groups touched by chance, reachable sets, co-activation, small batches."""

import functools
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import KroneckerDelta

from himoe_theory import GroupedTopK, Partition, metrics, ranked

from ..kept import KEYS
from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import Assumption, T, Values, e, t, t1
from ..search import QUICK
from ..sums import Rule, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, reported

PARTITIONS = (Partition((0, 1, 0, 2, 0)), Partition((0, 0, 1, 1, 2, 2)), Partition((0, 1, 1, 1)))
"""Unequal and interleaved, equal, and one with a group of one."""
SETS = [(part, k) for part in PARTITIONS for k in range(1, part.num_experts + 1)]


def _subsets(num_experts: int, k: int) -> np.ndarray:
    """Flags of every set of k experts."""
    chosen = np.array(list(itertools.combinations(range(num_experts), k)))
    return (chosen[:, :, None] == np.arange(num_experts)).any(axis=1)


@functools.partial(jax.jit, static_argnums=1, compiler_options=QUICK)
def _touched(subsets: jax.Array, partition: Partition) -> jax.Array:
    return metrics.groups_touched(subsets, partition)


def _expected_groups(sizes: tuple[int, ...], k: int) -> Fraction:
    n = sum(sizes)
    return sum((1 - Fraction(math.comb(n - size, k), math.comb(n, k)) for size in sizes), Fraction(0))


def _groups_touched(effort: Effort) -> Iterator[Finding]:
    n, size, k = sp.symbols("N S K", positive=True, integer=True)

    def missed(draws: sp.Expr) -> sp.Expr:
        return sp.binomial(n - size, draws) / sp.binomial(n, draws)

    yield equation(
        sp.gammasimp(missed(k + 1).rewrite(sp.gamma) / missed(k).rewrite(sp.gamma)),
        (n - size - k) / (n - k),
        variants={"draws with replacement": (n - size) / n},
        why="By induction on K: a group of S experts is missed by K draws without replacement with this probability, "
        "1 for none, and the next draw misses it with the probability on the right. Expectations add over groups.",
    )
    few = [case for case in SETS if case[1] in (1, 2, case[0].num_experts - 1)]
    found = {case: float(_touched(jnp.asarray(_subsets(case[0].num_experts, case[1])), case[0])) for case in few}
    yield exhaustive(
        "every set of 1, 2 and N - 1 experts in groups of 3, 1, 1; of 2, 2, 2; of 1, 3",
        few,
        lambda case: abs(found[case] - _expected_groups(case[0].sizes, case[1])) < 1e-12,
        false={
            "equal groups assumed": lambda case: (
                abs(found[case] - _expected_groups((case[0].num_experts // case[0].num_groups,) * 3, 1)) < 1e-12
            ),
        },
        said=lambda case: f"{case[0].sizes}, K = {case[1]}",
    )


GROUPS_TOUCHED = Claim(
    id="himoe/groups-touched",
    statement=r"\mathrm E\,\#\text{groups} = \sum_g \Big(1 - \binom{N - S_g}{K} / \binom{N}{K}\Big)",
    words="Tokens that choose K of N experts uniformly touch this many groups on average.",
    source="[himoe] groups touched by flat routing",
    recorded=Verdict.PROVED,
    check=_groups_touched,
    assumptions=("every set of K experts is equally likely",),
    functions=(metrics.groups_touched,),
)


def _touched_3_14(effort: Effort) -> Iterator[Finding]:
    yield reported("Expected groups touched, 4 of 8 experts in groups of 2", _expected_groups((2,) * 4, 4), "3.14")
    yield reported("Expected groups touched, 8 of 64 experts in groups of 16", _expected_groups((16,) * 4, 8), "3.659")


TOUCHED_3_14 = Claim(
    id="himoe/groups-touched-3.14",
    statement=r"4\big(1 - \tbinom{6}{4}/\tbinom{8}{4}\big) = 22/7 = 3.14",
    words="Flat top-4 of 8 experts touches 3.14 of 4 groups on average: what chance alone gives.",
    source="[himoe] groups touched by flat routing",
    recorded=Verdict.PROVED,
    check=_touched_3_14,
    remark="So the number is no evidence about what the router learned. 3.659 for 8 of 64 experts in 4 groups.",
)


def _touched_3_142(effort: Effort) -> Iterator[Finding]:
    yield reported("Expected groups touched, 4 of 8 experts in groups of 2", _expected_groups((2,) * 4, 4), "3.142")


def _touched_3_143(effort: Effort) -> Iterator[Finding]:
    yield reported("Expected groups touched, 4 of 8 experts in groups of 2", _expected_groups((2,) * 4, 4), "3.143")


TOUCHED_3_142 = Claim(
    id="himoe/groups-touched-3.142",
    statement=r"22/7 = 3.142",
    words="The reported 3.142 groups are exactly the expectation under uniform choice.",
    source="[himoe-theory] D10",
    recorded=Verdict.CORRECTED,
    check=_touched_3_142,
    correction=Correction("22/7 = 3.143", "To three decimals the expectation is 3.143.", _touched_3_143),
    remark="The notes of this package (D10) said 3.142 is 22/7. It is a measured mean .0009 below: one standard error "
    "(.542 a token) of 400,000 tokens. Nearly the expectation, but not its digits.",
)


def _combinations(effort: Effort) -> Iterator[Finding]:
    cases = [
        (PARTITIONS[0], (1, 1, 1)),
        (PARTITIONS[0], (2, 1, 1)),
        (PARTITIONS[1], (1, 1, 1)),
        (PARTITIONS[2], (1, 2)),
    ]

    def reached(case: tuple[Partition, tuple[int, ...]]) -> int:
        partition, counts = case
        keys = np.array(list(itertools.permutations(range(partition.num_experts))), dtype=float)
        choose = jax.jit(lambda x: ranked(GroupedTopK(counts), x, partition), compiler_options=QUICK)
        return len({frozenset(row) for row in np.asarray(choose(jnp.asarray(keys))).tolist()})

    found = {case: reached(case) for case in cases}
    yield exhaustive(
        "every order of 4, 5 and 6 keys; groups of 3, 1, 1; of 2, 2, 2; of 1, 3",
        cases,
        lambda case: found[case] == math.prod(map(math.comb, case[0].sizes, case[1])),
        false={"all sets of that size": lambda case: found[case] == math.comb(case[0].num_experts, sum(case[1]))},
        said=lambda case: f"{case[0].sizes}, K = {case[1]}",
    )


COMBINATIONS = Claim(
    id="moge/combinations",
    statement=r"\#\{\text{sets}\} = \prod_g \binom{S_g}{K_g} \text{ of } \binom{N}{\sum_g K_g}",
    words="Grouped selection reaches every product of choices within the groups, and no other set.",
    source="[moge] grouped selection",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_combinations,
    functions=(GroupedTopK.choose,),
    numbers=KEYS,
    remark=f"N 8, M 4, K 1: 16 of 70. N 64, M 4, K 2: {math.comb(16, 2) ** 4 / math.comb(64, 8):.1%} of all sets.",
)


def _co_activation(effort: Effort) -> Iterator[Finding]:
    n, k = sp.symbols("N K", positive=True, integer=True)
    pairs = sp.binomial(n - 2, k - 2) / sp.binomial(n, k)
    yield equation(
        sp.gammasimp(pairs.rewrite(sp.gamma)),
        k * (k - 1) / (n * (n - 1)),
        variants={"independent experts": k**2 / n**2},
        why="The share of the sets of K that hold both of two given experts.",
    )
    cases = [(4, 2), (4, 3), (5, 2), (5, 4)]

    def joint(case: tuple[int, int]) -> np.ndarray:
        matrix = jax.jit(metrics.co_activation, compiler_options=QUICK)(jnp.asarray(_subsets(*case)))
        return np.asarray(matrix)[~np.eye(case[0], dtype=bool)]

    found = {case: joint(case) for case in cases}
    yield exhaustive(
        "every set of 2, 3 of 4 and of 2, 4 of 5 experts",
        cases,
        lambda case: bool(np.allclose(found[case], case[1] * (case[1] - 1) / (case[0] * (case[0] - 1)), atol=1e-12)),
        false={"independent experts": lambda case: bool(np.allclose(found[case], (case[1] / case[0]) ** 2))},
    )


CO_ACTIVATION = Claim(
    id="metrics/co-activation-null",
    statement=r"\mathrm E\, n_{ij} = T \frac{K(K-1)}{N(N-1)}",
    words="Under uniform choice two experts are selected together this often, less than independence would give.",
    source="[himoe-theory] co-activation",
    recorded=Verdict.PROVED,
    check=_co_activation,
    assumptions=("every set of K experts is equally likely",),
    functions=(metrics.co_activation,),
)

q = sp.IndexedBase("q", positive=True)
Q_NORMALISED = Assumption("q sums to 1", (Rule(e, q[e], sp.S.One),), lambda d: d | {"q": d["q"] / d["q"].sum()})


def _batch_bias(effort: Effort) -> Iterator[Finding]:
    same = KroneckerDelta(t, t1)

    def enumerated(data: Values) -> float:
        choices = np.array(list(itertools.product(range(5), repeat=3)))
        chance = data["q"][choices].prod(axis=1)
        load = jax.jit(jax.vmap(metrics.hard_load), compiler_options=QUICK)(choices[:, :, None] == np.arange(5))
        return float((chance * np.square(load).sum(axis=1)).sum())

    squares = total(q[e] ** 2, e)
    yield identity(
        total(same * q[e] + (1 - same) * q[e] ** 2, e, t, t1) / T**2,
        squares + (1 - squares) / T,
        assumptions=(Q_NORMALISED,),
        variants={"without the bias": squares},
        code=enumerated,
        sample=lambda rng: {"q": rng.uniform(0.1, 1, 5)},
    )


BATCH_BIAS = Claim(
    id="load/finite-batch",
    statement=r"\mathrm E \|h\|^2 = \|q\|^2 + \frac{1 - \|q\|^2}{T}",
    words="Counts of a batch of T independent top-1 tokens have a larger squared norm than the distribution they are "
    "drawn from: a penalty that no balance can remove.",
    source="[himoe-theory] D2",
    recorded=Verdict.PROVED,
    check=_batch_bias,
    assumptions=("tokens choose independently, one expert each, with probabilities q",),
    functions=(metrics.hard_load,),
    remark="Two tokens agree on expert e with probability q_e squared, a token with itself with q_e. The value comes "
    "from all 125 batches of 3 tokens and 5 experts. At balance the penalty on N times the norm is (N - 1)/T.",
)

CLAIMS = (
    GROUPS_TOUCHED,
    TOUCHED_3_14,
    TOUCHED_3_142,
    COMBINATIONS,
    CO_ACTIVATION,
    BATCH_BIAS,
)
