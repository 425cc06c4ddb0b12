"""Claims about the imbalance of devices when tokens choose experts at random."""

import functools
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import sympy as sp
from scipy import integrate, stats

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..search import measured
from ..symbolic import equation
from ..witnesses import exhaustive, reported


def _balanced(draws: int, devices: int) -> Fraction:
    share = draws // devices
    return Fraction(math.factorial(draws), math.factorial(share) ** devices * devices**draws)


def _balanced_probability(effort: Effort) -> Iterator[Finding]:
    sizes = [(2, 2), (4, 2), (6, 2), (8, 2), (3, 3), (6, 3), (4, 4)]

    def share(case: tuple[int, int]) -> Fraction:
        draws, devices = case
        counts = [np.bincount(draw, minlength=devices) for draw in itertools.product(range(devices), repeat=draws)]
        return Fraction(sum(int(np.ptp(count) == 0) for count in counts), devices**draws)

    found = {case: share(case) for case in sizes}
    yield exhaustive(
        "every sequence of up to 8 draws from 2, 6 from 3 and 4 from 4 devices",
        sizes,
        lambda case: found[case] == _balanced(*case),
        false={"sequences counted once": lambda case: found[case] == Fraction(1, case[1] ** case[0])},
    )
    yield reported("Probability of equal loads, 128 draws from 8 devices", _balanced(128, 8), "0.000000266")


BALANCED_PROBABILITY = Claim(
    id="moge/balanced-by-chance",
    statement=r"P(\mathrm{IS} = 0) = \frac{n!}{((n/M)!)^M M^n} = 2.66 \times 10^{-7}, \quad n = 128, M = 8",
    words="If experts are drawn independently, 16 tokens of 8 experts load 8 devices equally with this probability: "
    "P(IS > 0) is nearly 1, as stated.",
    source="[moge] imbalance score",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_balanced_probability,
    assumptions=("experts of a token are drawn independently and uniformly",),
    remark="The closed form is the multinomial coefficient, counted here for small sizes only; its value for 128 draws "
    "is exact.",
)


@functools.cache
def _independent_imbalance(draws: int) -> Fraction:
    """Mean of (max - min) of the counts of 8 devices: sequences of draws, counted by their generating functions."""
    scale = math.factorial(draws)
    single = np.array([scale // math.factorial(count) for count in range(draws + 1)], dtype=object)

    def within(low: int, high: int) -> int:
        """Sequences with every count in low..high, times scale^7."""
        power = np.where((np.arange(draws + 1) >= low) & (np.arange(draws + 1) <= high), single, 0)
        for _ in range(2):  # of two devices, then of four
            power = np.convolve(power, power)[: draws + 1]
        return int(np.dot(power, power[::-1]))

    every = within(0, draws)
    least, most = draws // 8, -(-draws // 8)  # the smallest count is at most the mean, the largest at least
    largest = most * every + sum(every - within(0, high) for high in range(most, draws))
    smallest = sum(within(low, draws) for low in range(1, least + 1))
    return Fraction(largest - smallest, every)


def _imbalance(rng: np.random.Generator, tokens: int, draws: int) -> np.ndarray:
    """Imbalance scores of tokens that choose 8 of 64 experts on 8 devices, without replacement."""
    counts = rng.multivariate_hypergeometric([8] * 8, 8, size=(draws, tokens)).sum(axis=1)
    return np.ptp(counts, axis=1) / tokens


def _imbalance_independent(effort: Effort) -> Iterator[Finding]:
    yield reported("Mean imbalance, independent draws", _independent_imbalance(128) / 16, "0.707")


def _imbalance_709(effort: Effort) -> Iterator[Finding]:
    yield reported("Mean imbalance, independent draws", _independent_imbalance(128) / 16, "0.709")


IMBALANCE_INDEPENDENT = Claim(
    id="moge/imbalance-independent",
    statement=r"\mathrm E[\mathrm{IS}] = .707, \quad N = 64, K = M = 8, |X| = 16",
    words="If a token's experts are drawn independently, so that one may come twice, the mean imbalance of 16 tokens "
    "is .707.",
    source="[himoe-theory] D10",
    recorded=Verdict.CORRECTED,
    check=_imbalance_independent,
    correction=Correction(r"\mathrm E[\mathrm{IS}] = .709", "The mean is .709.", _imbalance_709),
    assumptions=("experts of a token are drawn independently and uniformly",),
    remark="The notes of this package (D10) said .707, a simulation. Here sequences of draws are counted in integers.",
)


def _imbalance_top_k(effort: Effort) -> Iterator[Finding]:
    scores = _imbalance(np.random.default_rng(effort.seed), 16, 10_000)
    error = scores.std() / math.sqrt(scores.size)
    yield measured(
        f"10,000 batches of 16 tokens; 1.2% is {0.012 * 0.669 / error:.1f} standard errors, a false alarm below 1e-4",
        [("mean imbalance, choice without replacement", 0.669, float(scores.mean()))],
        within=0.012,
        wrong={"independent draws": (0.709,)},
    )


IMBALANCE_TOP_K = Claim(
    id="moge/imbalance-top-k",
    statement=r"\mathrm E[\mathrm{IS}] = .669, \quad N = 64, K = M = 8, |X| = 16",
    words="A free top-8 of 64 never draws an expert twice; with equally likely sets its mean imbalance over 8 devices "
    "is .669 and not .709.",
    source="[himoe-theory] D10",
    recorded=Verdict.SUPPORTED,
    check=_imbalance_top_k,
    assumptions=("every set of K experts is equally likely",),
)


def _variance(effort: Effort) -> Iterator[Finding]:
    n, m, k = sp.symbols("N M K", positive=True)
    size, single = n / m, k / n
    pair = k * (k - 1) / (n * (n - 1))
    yield equation(
        size * single + size * (size - 1) * pair - (size * single) ** 2,
        k * (1 / m) * (1 - 1 / m) * (n - k) / (n - 1),
        variants={"draws with replacement": k * (1 / m) * (1 - 1 / m)},
        why="The second moment of a group's count is a sum over its experts and over its ordered pairs, each expert "
        "chosen with probability K/N, each pair with K(K-1)/(N(N-1)).",
    )
    cases = [(6, 3, 2), (6, 2, 3), (6, 3, 5), (8, 4, 4), (8, 2, 3)]

    def counted(case: tuple[int, int, int]) -> float:
        experts, groups, k = case
        members = experts // groups
        return float(np.var([sum(e < members for e in chosen) for chosen in itertools.combinations(range(experts), k)]))

    def formula(case: tuple[int, int, int], finite: bool = True) -> float:
        experts, groups, k = case
        share = 1 / groups
        return k * share * (1 - share) * ((experts - k) / (experts - 1) if finite else 1.0)

    yield exhaustive(
        "every set of 2 to 5 of 6 and 8 experts in 2 to 4 groups",
        cases,
        lambda case: abs(counted(case) - formula(case)) < 1e-12,
        false={"draws with replacement": lambda case: abs(counted(case) - formula(case, finite=False)) < 1e-12},
    )


VARIANCE = Claim(
    id="moge/count-variance",
    statement=r"\mathrm{Var}\, n_g = K \frac1M \Big(1 - \frac1M\Big) \frac{N-K}{N-1}",
    words="The number of a token's experts in one of M equal groups has this variance if every set is equally likely.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_variance,
    assumptions=("every set of K experts is equally likely", "groups of equal size"),
)


def _expected_range(count: int) -> float:
    """Mean of largest minus smallest of independent standard normal numbers."""
    norm = stats.norm
    return integrate.quad(lambda v: 1 - norm.cdf(v) ** count - norm.sf(v) ** count, -12, 12)[0]


def _large_batch(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(effort.seed)
    one = 8 / 8 * (1 - 1 / 8) * (64 - 8) / 63
    sizes = {16: 10_000, 64: 2_000, 256: 500}
    found = {tokens: float(_imbalance(rng, tokens, draws).mean()) for tokens, draws in sizes.items()}
    law = {tokens: _expected_range(8) * math.sqrt(one * 8 / 7 / tokens) for tokens in sizes}
    yield measured(
        "10,000 to 500 batches of 16 to 256 tokens, standard errors .3 to 1.1%",
        [(f"mean imbalance of {tokens} tokens", law[tokens], found[tokens]) for tokens in sizes],
        within=0.05,
        wrong={
            "draws with replacement": [value * math.sqrt(63 / 56) for value in law.values()],
            "counts of devices independent": [value * math.sqrt(7 / 8) for value in law.values()],
        },
    )


LARGE_BATCH = Claim(
    id="moge/imbalance-large-batch",
    statement=r"\mathrm E[\mathrm{IS}] \to R_M \sqrt{\frac{M}{M-1} \frac{\mathrm{Var}\, n_g}{|X|}}",
    words="For many tokens the mean imbalance is the expected range of M standard normals times this deviation.",
    source="[himoe-theory] D10",
    recorded=Verdict.SUPPORTED,
    check=_large_batch,
    assumptions=("every set of K experts is equally likely",),
    remark="M/(M-1) because counts of devices that sum to a constant repel one another: their differences vary more "
    "than those of independent counts of the same variance.",
)

CLAIMS = (BALANCED_PROBABILITY, IMBALANCE_INDEPENDENT, IMBALANCE_TOP_K, VARIANCE, LARGE_BATCH)
