"""Claims about capacities and drops, expert choice and what it leaks, and the sampling floor of load violations."""

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from scipy import integrate, stats

from himoe_theory import (
    Capacity,
    assign_slots,
    expert_choice,
    from_dense,
    metrics,
    to_dense,
)

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..search import QUICK, measured
from ..symbolic import equation
from ..witnesses import exhaustive, reported, witness


def _dropped(tokens: int, experts: int, places: Fraction | int) -> Fraction:
    """Expected share of tokens beyond the places of their expert, for uniform independent top-1 choices."""
    over = Fraction(places)
    ways = (experts - 1) ** tokens  # of exactly n tokens at an expert, times experts**tokens
    total = 0
    for n in range(tokens + 1):
        total += max(n * over.denominator - over.numerator, 0) * ways
        ways = ways * (tokens - n) // ((n + 1) * (experts - 1))
    return Fraction(total * experts, over.denominator * experts**tokens * tokens)


def _drop_law(effort: Effort) -> Iterator[Finding]:
    cases = [(3, 2, 1), (4, 2, 1), (4, 2, 2), (4, 3, 1), (5, 3, 2)]

    def counted(case: tuple[int, int, int]) -> float:
        tokens, experts, places = case
        choices = np.array(list(itertools.product(range(experts), repeat=tokens)), dtype=np.int32)[:, :, None]

        def lost(chosen: jax.Array) -> jax.Array:
            active = jnp.ones(chosen.shape, bool)
            slots = assign_slots(to_dense(active, chosen, experts), chosen)
            return metrics.drop_rate(active, from_dense(slots, chosen) < places)

        return float(np.mean(jax.jit(jax.vmap(lost), compiler_options=QUICK)(choices)))

    found = {case: counted(case) for case in cases}
    yield exhaustive(
        "every batch of 3 to 5 tokens and 2 or 3 experts, 1 or 2 places",
        cases,
        lambda case: abs(found[case] - _dropped(*case)) < 1e-12,
        false={"one place more": lambda case: abs(found[case] - _dropped(case[0], case[1], case[2] + 1)) < 1e-12},
    )
    yield reported("Dropped, 64 tokens, 64 experts, 1.25 places", _dropped(64, 64, Fraction(5, 4)), "0.2989")
    yield reported("Dropped, 8192 tokens, 64 experts, 160 places", _dropped(8192, 64, 160), "0.0000829")


DROP_LAW = Claim(
    id="capacity/drop-law",
    statement=r"D = \frac1T \sum_e \mathrm E\,(n_e - C)_+, \quad n_e \sim \mathrm{Bin}(T, 1/N): \quad "
    r".2989 \ (\mu = 1), \ 8.29 \times 10^{-5} \ (\mu = 128)",
    words="A uniform router of 64 experts with capacity factor 1.25 drops 29.89% of its tokens if an expert expects "
    "one token, and .0083% if it expects 128.",
    source="[himoe-theory] capacity and drops",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_drop_law,
    assumptions=("tokens choose independently and uniformly, one expert each",),
    functions=(assign_slots, metrics.drop_rate),
    remark="The first number counts 1.25 places, which no buffer has: with one place it is 36.5%, with the four places "
    "that the released code gives at least, .39%.",
)


def _places(routes: int, factor: Fraction, tokens: int, experts: int, *, even: bool = True) -> int:
    whole = math.floor(routes * factor * tokens / experts)
    return max(whole + whole % 2 if even else whole, 4)


def _capacity_as_printed(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "3 experts a token, factor 0.7, 40 tokens, 4 experts: 3 * 0.7 * 40 / 4 is 21, 22 when even; places, left of "
        "the released code in floating point, right of the formula",
        20,
        "=",
        _places(3, Fraction(7, 10), 40, 4),
        holds_at={"factor 3/4: 22.5": (22, _places(3, Fraction(3, 4), 40, 4))},
        code=[(Capacity(0.7).slots(3, 40, 4), 20), (Capacity(0.75).slots(3, 40, 4), 22)],
    )


def _capacity_exact(effort: Effort) -> Iterator[Finding]:
    factors = [Fraction(n, 4) for n in (0, 2, 3, 4, 5, 6, 8)]
    cases = itertools.product((1, 2, 3, 4), factors, range(1, 33), range(1, 13))
    yield exhaustive(
        "1 to 4 routes, factors 0 to 2 in quarters, 1 to 32 tokens, 1 to 12 experts",
        cases,
        lambda case: Capacity(float(case[1])).slots(case[0], *case[2:]) == _places(*case),
        false={
            "not made even": lambda case: (
                Capacity(float(case[1])).slots(case[0], *case[2:]) == _places(*case, even=False)
            ),
        },
    )


CAPACITY_FORMULA = Claim(
    id="capacity/formula",
    statement=r"C = \max\big(4, \mathrm{even}\lfloor R \cdot \mathrm{factor} \cdot T / N \rfloor\big)",
    words="The number of places of the released code is this formula.",
    source="[himoe-code] capacity",
    recorded=Verdict.CORRECTED,
    check=_capacity_as_printed,
    functions=(Capacity.slots,),
    correction=Correction(
        r"\text{true for factors that binary floating point holds exactly, such as } 1.25",
        "It holds for factors in quarters; with others rounding can take one off before the floor, and two places off "
        "after it is made even.",
        _capacity_exact,
    ),
    remark="The usual factors 1, 1.25 and 2 are exact.",
)


def _unselected(effort: Effort) -> Iterator[Finding]:
    cases = [(3, 2, 1), (4, 2, 1), (4, 2, 2), (3, 3, 1)]

    def counted(case: tuple[int, int, int]) -> float:
        tokens, experts, places = case
        orders = list(itertools.permutations(range(tokens)))
        scores = np.array(list(itertools.product(orders, repeat=experts)), dtype=float).transpose(0, 2, 1)
        choose = jax.jit(jax.vmap(lambda x: expert_choice(x, places)), compiler_options=QUICK)
        return float(1 - np.asarray(choose(jnp.asarray(scores))).any(axis=2).mean())

    found = {case: counted(case) for case in cases}
    yield exhaustive(
        "every order of the scores of 3 or 4 tokens at 2 or 3 experts, 1 or 2 places",
        cases,
        lambda case: abs(found[case] - (1 - case[2] / case[0]) ** case[1]) < 1e-12,
        false={"the limit": lambda case: abs(found[case] - math.exp(-case[1] * case[2] / case[0])) < 1e-12},
    )
    share, many = sp.Symbol("c", positive=True), sp.Symbol("N", positive=True)
    yield equation(sp.limit((1 - share / many) ** many, many, sp.oo), sp.exp(-share), variants={"1 - c": 1 - share})
    yield reported("Unselected, c = 2, 64 experts", Fraction(62, 64) ** 64, "0.1311")
    yield reported("Its limit", sp.exp(-2), "0.1353")


UNSELECTED = Claim(
    id="expert-choice/unselected",
    statement=r"P(\text{no expert}) = (1 - c/N)^N = .1311 \ (c = 2, N = 64) \to e^{-c}",
    words="If the experts rank tokens independently of one another, this share of the tokens gets no expert.",
    source="[expert-choice] routing by experts",
    recorded=Verdict.PROVED,
    check=_unselected,
    assumptions=("every expert takes cT/N tokens", "the experts' orders of the tokens are independent and uniform"),
    functions=(expert_choice,),
    numbers=Numbers("keys", besides="no ties: equal keys go to the first tokens"),
    remark="Softmax scores are not independent between experts: those of a token sum to 1.",
)


def _leak_arithmetic(effort: Effort) -> Iterator[Finding]:
    yield reported("9 layers of 2 log2 7 bits", 18 * sp.log(7, 2), "50.53")
    entropy = 2 * sp.log(8, 2) + 14 * sp.log(sp.Rational(8, 7), 2)
    yield reported("Entropy of 16 choices of probability 1/8", entropy, "8.70")
    yield reported("Nine times as much", 9 * entropy, "78.3")
    n, k = sp.symbols("N K", positive=True)
    ratio = k / n
    yield equation(
        sp.expand_log(n * (-ratio * sp.log(ratio) - (1 - ratio) * sp.log((n - k) / n)), force=True),
        sp.expand_log(k * sp.log((n - k) / k) + n * sp.log(n / (n - k)), force=True),
        variants={"without the second term": sp.expand_log(k * sp.log((n - k) / k), force=True)},
        why="What the bound leaves out of the entropy is positive, so the bound is below it.",
    )


LEAK_ARITHMETIC = Claim(
    id="loss-free/leakage-arithmetic",
    statement=r"K \log_2 \frac{1-R}{R} < N H_2(R): \quad 9 \times 2 \log_2 7 = 50.53, \ 9 \times 8.70 = 78.3 "
    r"\text{ bits} \quad (N = 16, K = 2)",
    words="The published bound of 50 bits a token is 50.53; the entropy of which experts take a token is 78.3.",
    source="[loss-free] leakage of expert choice",
    recorded=Verdict.PROVED,
    check=_leak_arithmetic,
    remark="N H(R) is the entropy of N independent choices of probability R: the capacity of a channel, the most that "
    "selection could carry, and not what it carries.",
)


def _leak(effort: Effort) -> Iterator[Finding]:
    seventh = sp.Rational(1, 7)
    known = sp.Rational(7, 64) - seventh * sp.beta(seventh, 2) * (sp.digamma(2) - sp.digamma(2 + seventh))

    def entropy(u: float) -> float:
        chance = u**7
        return -sum(p * math.log2(p) for p in (chance, 1 - chance) if p > 0)

    yield witness(
        "8 tokens with independent uniform scores, an expert that takes the best one (R = 1/8): bits that the other "
        "tokens add about whether it takes a token of known score u, the mean of H(u^7), left; log2(7)/8, right",
        sp.N(known / sp.log(2), 30),
        ">=",
        sp.N(sp.log(7, 2) / 8, 30),
        holds_at={"R = 1/2, 2 tokens: 1/(2 ln 2) and 0": (sp.N(1 / (2 * sp.log(2)), 30), 0)},
        code=[(integrate.quad(entropy, 0, 1)[0], known / sp.log(2))],
    )


LEAK = Claim(
    id="loss-free/leakage-as-leak",
    statement=r"I(\text{selection}; \text{other tokens} \,|\, s_t) \ge K \log_2 \frac{1-R}{R} \text{ bits a layer}",
    words="Expert choice tells a token at least this much about the other tokens.",
    source="[loss-free] leakage of expert choice",
    recorded=Verdict.REFUTED,
    check=_leak,
    functions=(expert_choice,),
    remark="A token knows its own score, and with many tokens the score needed is nearly fixed: for random scores and "
    "R = 1/8 an expert tells .269, .106, .019 bits at 8, 64, 2048 tokens, against .351 claimed. The bound is about "
    "what a code could send at most. The left side is computed by numerical quadrature too.",
)


def _largest_normal(count: int) -> float:
    """Mean of the largest of independent standard normal numbers."""
    return integrate.quad(lambda v: 1 - stats.norm.cdf(v) ** count - stats.norm.cdf(-v) ** count, 0, 12)[0]


def _floor_arithmetic(effort: Effort) -> Iterator[Finding]:
    for tokens, mean, printed in (
        ("a training batch", 221184, "0.0061"),
        ("71M tokens", Fraction(71 * 10**6 * 6, 64), "0.0011"),
    ):
        value = sp.sqrt(2 * sp.log(64) / sp.Rational(mean))
        yield reported(f"sqrt(2 ln N / mu) for {tokens}", value, printed)


FLOOR_ARITHMETIC = Claim(
    id="loss-free/sampling-floor-arithmetic",
    statement=r"\sqrt{2 \ln N / \mu}, \ \mu = KT/N: \quad .0061, \ .0011",
    words="Sampling alone would give a MaxVio below .0061 in the published training batch and .0011 in validation, so "
    "the reported .04 is not sampling noise.",
    source="[loss-free] MaxVio; [himoe-theory] D9",
    recorded=Verdict.PROVED,
    check=_floor_arithmetic,
    functions=(metrics.max_violation,),
)


def _floor(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(effort.seed)
    tokens, draws, pairs = 4096, 4000, np.array(list(itertools.combinations(range(8), 2)))
    incidence = (pairs[:, :, None] == np.arange(8)).any(axis=1)
    found = {}
    for name, counts in (
        ("8 experts, top-2", rng.multinomial(tokens, np.full(28, 1 / 28), size=draws) @ incidence),
        ("2 experts, top-1", rng.multinomial(tokens, [0.5, 0.5], size=draws)),
    ):
        violation = jax.jit(jax.vmap(metrics.max_violation), compiler_options=QUICK)
        found[name] = float(np.mean(violation(jnp.asarray(counts, float))))
    law, rough, plain = [], [], []
    for experts, k in ((8, 2), (2, 1)):
        spread = math.sqrt((1 - k / experts) * experts / (k * tokens))
        plain.append(_largest_normal(experts) * spread)
        law.append(plain[-1] * math.sqrt(experts / (experts - 1)))
        rough.append(math.sqrt(2 * math.log(experts) * experts / (k * tokens)))
    yield measured(
        f"{draws} batches of {tokens} uniform tokens; 5% is at least 4 standard errors",
        [(name, value, found[name]) for name, value in zip(found, law, strict=True)],
        within=0.05,
        wrong={"square root of 2 ln N": rough, "without N/(N-1)": plain},
    )


FLOOR = Claim(
    id="balance/sampling-floor",
    statement=r"\mathrm E\,\mathrm{MaxVio} \to \mathrm E \max_{i \le N} Z_i \sqrt{\frac{N}{N-1} \frac{1 - K/N}{KT/N}}",
    words="The mean MaxVio of perfectly balanced sampling is the expected largest of N normals times this deviation.",
    source="[himoe-theory] D9",
    recorded=Verdict.SUPPORTED,
    check=_floor,
    assumptions=("every set of K experts is equally likely", "many tokens"),
    functions=(metrics.max_violation,),
    remark="The notes of this package (D9) left out N/(N-1): loads sum to a constant and repel one another, which is "
    "7% at N = 8 and 41% at N = 2. The square root of 2 ln N instead of the expected largest exceeds it further.",
)


def _share(mean: int, experts: int) -> Fraction:
    """Expected share of tokens beyond 5/4 of the mean number of tokens at their expert."""
    return _dropped(mean * experts, experts, Fraction(5 * mean, 4))


def _needs(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "2 experts, 8 tokens, so a mean of 4, above 2 ln 2 = 1.39; 5 places: dropped share (28 + 2 * 8 + 3)/256/4",
        _share(4, 2),
        "<=",
        Fraction(1, 100),
        holds_at={"a mean of 32": (_share(32, 2), Fraction(1, 100))},
    )


def _enough(effort: Effort) -> Iterator[Finding]:
    cases = [(mean, experts) for experts in (8, 32, 128) for mean in (4, 8, 12, 16, 20, 28, 32, 36, 40)]
    few = {case: _share(*case) <= Fraction(1, 100) for case in cases}
    yield exhaustive(
        "8, 32 and 128 experts, means of 4 to 40 tokens an expert in steps of 4, without 24",
        cases,
        lambda case: few[case] == (case[0] >= 28),
        false={"from 2 ln N on": lambda case: few[case] == (case[0] >= 2 * math.log(case[1]))},
    )


NEEDS = Claim(
    id="capacity/quarter-more-suffices",
    statement=r"\mu \ge 2 \ln N \implies D(1.25\, \mu) \le 1\,\%",
    words="With a capacity factor of 1.25 drops are below one per cent once an expert expects 2 ln N tokens.",
    source="[himoe-theory] capacity and drops",
    recorded=Verdict.CORRECTED,
    check=_needs,
    assumptions=("tokens choose independently and uniformly, one expert each",),
    correction=Correction(
        statement=r"D(1.25\,\mu) > 1\,\% \ (\mu \le 20), \quad D(1.25\,\mu) \le 1\,\% \ (\mu \ge 28), \quad "
        r"N \in \{8, 32, 128\}",
        words="It takes between 20 and 28 tokens an expert for any of these N: the dropped share hardly depends on N.",
        check=_enough,
    ),
    remark="The notes say that 1.25 needs a mean of about 2 ln N. As a necessary condition that is true for these N "
    "and far from enough: it is where the fullest of N experts is expected at twice the mean, the root of 2 ln N over "
    "the mean being 1. For the fullest to stay within 1.25 times the mean it takes 32 ln N. One per cent is what "
    "[switch] stays below. The share at a mean of 24 is on either side of it, by N.",
)

CLAIMS = (DROP_LAW, NEEDS, CAPACITY_FORMULA, UNSELECTED, LEAK_ARITHMETIC, LEAK, FLOOR_ARITHMETIC, FLOOR)
