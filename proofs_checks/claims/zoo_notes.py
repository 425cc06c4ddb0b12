"""Claims of the notes about routers in the literature (the zoo), and two measured numbers of D4 and D10."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import GroupedTopK, Partition, TopK, assign_slots, geometry, objectives, to_dense
from himoe_theory.objectives import inter_group, intra_group

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, N, T, e, generic, p, t
from ..search import QUICK, measured
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, sampled, witness

# Losses and gates


def _widths(effort: Effort) -> Iterator[Finding]:
    h, own = sp.IndexedBase("h", nonnegative=True), sp.IndexedBase("d", positive=True)
    width = sp.Symbol("w", positive=True)
    share = total(p[t, e], t) / T
    excess = N * total(h[e] * (own[e] - width) * share, e)
    switch = N * total(h[e] * share, e)

    def sample(rng: np.random.Generator) -> dict[str, np.ndarray]:
        counts = rng.integers(0, 4, 5) / 3
        return NORMALISED.impose(generic(rng)) | {"h": counts, "d": rng.uniform(1, 2, 5), "w": np.asarray(1.4)}

    def code(data: Data) -> Array:
        return objectives.load_for_share(jnp.log(jnp.asarray(data["p"])), jnp.asarray(data["h"] * data["d"]))

    yield identity(
        N * total(h[e] * own[e] * share, e),
        width * switch + excess,
        variants={"widths squared": width**2 * switch + excess, "the common width alone": width * switch},
        code=code,
        sample=sample,
    )


WIDTHS = Claim(
    id="zoo/width-penalty",
    statement=r"N \sum_i M_i P_i = w L_{Switch} + N \sum_i h_i (d_i - w) P_i, \quad M_i = h_i d_i",
    words="The penalty of unequal experts is the load of Switch times a common width, plus a term that is 0 when all "
    "widths are that one: it reduces to Switch up to this factor.",
    source="[himoe-theory] zoo, HMoE (arXiv:2408.10681)",
    recorded=Verdict.PROVED,
    check=_widths,
    functions=(objectives.load_for_share,),
    remark="h counts the picks of an expert over tokens, so that the load is K at uniform routing. With widths over "
    "their mean the factor is 1.",
)


def _null_experts(effort: Effort) -> Iterator[Finding]:
    real, null, k = sp.symbols("E n k", positive=True)
    whole = real + null
    chosen = sp.gamma(whole) / (sp.gamma(k) * sp.gamma(whole - k + 1))
    every = sp.gamma(whole + 1) / (sp.gamma(k + 1) * sp.gamma(whole - k + 1))
    yield equation(
        sp.gammasimp(real * chosen / every),
        k * real / whole,
        variants={"null experts not counted": k * real / (whole + 1)},
        why="An expert is in C(E+n-1, k-1) of the C(E+n, k) sets; the mean number of true ones adds E such shares.",
    )
    cases = [(3, 1, 2), (2, 2, 2), (3, 2, 3), (4, 1, 3)]

    def mean(case: tuple[int, int, int]) -> Fraction:
        true, empty, picks = case
        keys = jnp.asarray(list(itertools.permutations(range(true + empty))), dtype=float)
        chosen = np.asarray(TopK(picks).choose(keys, Partition.equal(true + empty, 1)))
        return Fraction(int((chosen < true).sum()), len(chosen))

    yield exhaustive(
        "every order of the keys of 3 to 5 true and null experts, 2 or 3 picked",
        cases,
        lambda case: mean(case) == Fraction(case[2] * case[0], case[0] + case[1]),
        false={"all picks true": lambda case: mean(case) == case[2]},
    )


NULL_EXPERTS = Claim(
    id="zoo/null-experts",
    statement=r"E[\#\text{true picks}] = k\, \frac{E}{E + n}",
    words="With n null experts beside E true ones, a token picks this many true experts on average.",
    source="[himoe-theory] zoo, AdaMoE (arXiv:2406.13233)",
    recorded=Verdict.PROVED,
    check=_null_experts,
    assumptions=("every set of k of the E + n experts is equally likely",),
    functions=(TopK.choose,),
    remark="By linearity it needs only that true experts together receive E/(E+n) of the picks, which is what even "
    "loads of all E + n experts mean.",
)


def _smooth_step(effort: Effort) -> Iterator[Finding]:
    x, gamma = sp.Symbol("x", real=True), sp.Symbol("gamma", positive=True)
    middle = -2 * x**3 / gamma**3 + 3 * x / (2 * gamma) + sp.Rational(1, 2)
    slope = sp.diff(middle, x)
    for side, value in ((1, sp.S.One), (-1, sp.S.Zero)):
        yield equation(middle.subs(x, side * gamma / 2), value, variants={"the middle": sp.Rational(1, 2)})
    yield equation(
        slope,
        6 * (gamma / 2 - x) * (gamma / 2 + x) / gamma**3,
        variants={"no plateau": sp.S.One},
        why="Inside the ramp the slope is positive and is 0 at both ends, where it meets the slope 0 of the plateaus: "
        "value and slope are continuous, and on a plateau the gradient is exactly 0.",
    )
    bend = sp.diff(middle, x, 2).subs(x, gamma / 2)
    yield equation(bend, -6 / gamma**2, variants={"continuous": sp.S.Zero}, why="The second derivative jumps from 0.")


SMOOTH_STEP = Claim(
    id="zoo/smooth-step",
    statement=r"S(x) = -\tfrac{2}{\gamma^3} x^3 + \tfrac{3}{2\gamma} x + \tfrac12 \text{ on } |x| \le \tfrac\gamma2: "
    r"\quad S \in C^1,\ S' = 0 \text{ for } |x| \ge \tfrac\gamma2",
    words="Gates made of smooth-step bits have a continuous first derivative and no gradient at all on the plateaus.",
    source="[himoe-theory] zoo, DSelect-k (arXiv:2106.03760)",
    recorded=Verdict.PROVED,
    check=_smooth_step,
    remark="A selector, a product of such bits, whose bits are all on plateaus picks one expert and cannot change. The "
    "gate is not twice differentiable: the second derivative jumps by 6/gamma squared.",
)


def _budget_gate(effort: Effort) -> Iterator[Finding]:
    size, part = sp.symbols("S alpha", positive=True)
    yield equation(
        sp.diff(size - sp.tanh(size), size),
        sp.tanh(size) ** 2,
        variants={"constant": sp.S.One},
        why="S - tanh S is 0 at 0 and grows, so tanh S is at most S: a weight alpha tanh(S)/S is at most alpha, which "
        "is at most S. All weights tend to 0 with S, in whatever proportion.",
    )
    yield equation(sp.limit(sp.tanh(size) / size, size, 0), sp.S.One, why="Near 0 weights are alpha itself.")
    yield equation(part / size * size, part, variants={"normalised weights": part / size})


BUDGET_GATE = Claim(
    id="zoo/budget-gate",
    statement=r"w_i = \frac{\alpha_i}{S} \tanh S \le \alpha_i, \quad S = \sum_{j \in \mathrm{top}} \alpha_j: \quad "
    r"w \to 0 \text{ as } S \to 0",
    words="Weights that share out tanh S are continuous where all scores vanish; normalised ones have no limit there.",
    source="[himoe-theory] zoo, on [dsc]",
    recorded=Verdict.PROVED,
    check=_budget_gate,
    assumptions=("alpha positive",),
    remark="Along (1, 0) and (0, 1) normalised weights stay (1, 0) and (0, 1). Softplus of a clamped logit is bounded "
    "away from 0, so a clamp keeps S above K times that bound. The weights still jump where the selection changes.",
)


# Counting


def _dropped(experts: int, tokens: int, orders: Sequence[tuple[int, ...]]) -> list[Fraction]:
    """Chance to find no place, by position: uniform first choices, one place an expert, filled in these orders."""
    choices = np.array(list(itertools.product(range(experts), repeat=tokens)), dtype=np.int32)
    lost = np.zeros(tokens, dtype=int)
    active = jnp.ones((tokens, 1), dtype=bool)
    fill = jax.jit(jax.vmap(lambda x: assign_slots(x[:, None], active, experts)[:, 0]), compiler_options=QUICK)
    for order in orders:
        places = np.asarray(fill(jnp.asarray(choices[:, list(order)])))
        lost[list(order)] += (places >= 1).sum(axis=0)
    return [Fraction(int(count), len(choices) * len(orders)) for count in lost]


def _random_order(effort: Effort) -> Iterator[Finding]:
    cases = [(2, 3), (2, 4), (3, 4)]
    by_position = {case: _dropped(*case, [tuple(range(case[1]))]) for case in cases}
    at_random = {case: _dropped(*case, list(itertools.permutations(range(case[1])))) for case in cases}

    def law(case: tuple[int, int]) -> list[Fraction]:
        return [1 - Fraction(case[0] - 1, case[0]) ** place for place in range(case[1])]

    yield exhaustive(
        "2 and 3 experts, 3 and 4 tokens, one place an expert; every batch, every order",
        cases,
        lambda case: by_position[case] == law(case) and at_random[case] == [sum(law(case)) / case[1]] * case[1],
        false={
            "flat by position": lambda case: len(set(by_position[case])) == 1,
            "random order drops fewer": lambda case: sum(at_random[case]) < sum(by_position[case]),
        },
    )


RANDOM_ORDER = Claim(
    id="zoo/random-token-capacity",
    statement=r"P(\text{dropped at position } t) = 1 - (1 - \tfrac1N)^{t-1} \text{ by position}, \quad "
    r"\text{its mean at every } t \text{ in random order}",
    words="Capacity filled by position drops late tokens more; filled in random order it drops all alike, as many.",
    source="[himoe-theory] zoo, DeepSpeed MoE (arXiv:2109.10465)",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_random_order,
    assumptions=("one place an expert; tokens choose independently and uniformly",),
    functions=(assign_slots,),
)


def _rounds(effort: Effort) -> Iterator[Finding]:
    cases = [(3, 1, 2), (3, 2, 2), (4, 2, 2), (3, 1, 3)]

    def reached(case: tuple[int, int, int], shared: bool = False) -> int:
        experts, k, rounds = case
        keys = jnp.asarray(list(itertools.permutations(range(experts))), dtype=float)
        sets = np.sort(np.asarray(TopK(k).choose(keys, Partition.equal(experts, 1))), axis=1).tolist()
        paths = ([one] * rounds for one in sets) if shared else itertools.product(sets, repeat=rounds)
        return len({str(path if shared else list(path)) for path in paths})

    yield exhaustive(
        "every order of the keys of 3 or 4 experts, 1 or 2 picked, in 2 or 3 rounds",
        cases,
        lambda case: reached(case) == math.comb(case[0], case[1]) ** case[2],
        false={
            "one router, states that stay": lambda case: reached(case, True) == math.comb(case[0], case[1]) ** case[2],
            "one round of rk experts": lambda case: reached(case) == math.comb(case[0], case[1] * case[2]),
        },
    )


ROUNDS = Claim(
    id="zoo/rounds",
    statement=r"\#\{\text{expert sets of } r \text{ rounds}\} = \binom{E}{k}^r",
    words="With a router of its own in every round, r rounds of k experts reach this many sequences of sets.",
    source="[himoe-theory] zoo, Chain-of-Experts (arXiv:2506.18945)",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_rounds,
    functions=(TopK.choose,),
    remark="An upper count: logits of the rounds must be free of one another. The zoo's text says proportional.",
)


def _lost(mean: int, experts: int) -> Fraction:
    """Share of tokens beyond 5/4 of the mean at their expert: `mean` tokens an expert, uniform first choices."""
    tokens, beyond = mean * experts, 0
    ways = (experts - 1) ** tokens
    for n in range(tokens + 1):
        beyond += max(4 * n - 5 * mean, 0) * ways
        ways = ways * (tokens - n) // ((n + 1) * (experts - 1))
    return Fraction(beyond, 4 * mean * experts**tokens)


def _needs(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "2 experts, 8 tokens, so a mean of 4, above 2 ln 2 = 1.39; 5 places: dropped share (28 + 2 * 8 + 3)/256/4",
        _lost(4, 2),
        "<=",
        Fraction(1, 100),
        holds_at={"a mean of 32": (_lost(32, 2), Fraction(1, 100))},
    )


def _enough(effort: Effort) -> Iterator[Finding]:
    cases = [(mean, experts) for experts in (8, 32, 128) for mean in (4, 8, 12, 16, 20, 28, 32, 36, 40)]
    few = {case: _lost(*case) <= Fraction(1, 100) for case in cases}
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


# Measured numbers of D4 and D10


@functools.partial(jax.jit, static_argnums=1)
def _cosines(logits: Array, groups: int) -> Array:
    partition = Partition.equal(logits.shape[1], groups)
    inside = intra_group.intra_group_conditional_grad(logits, partition)
    return geometry.euclidean_cosine(inter_group.inter_group_dense_grad(logits, partition), inside)


def _nine_tenths(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(effort.seed)
    logits = jnp.asarray(10 ** rng.uniform(-1, 1, (8000, 1)) * rng.normal(size=(8000, 8)))
    four, two = (float(jnp.quantile(jnp.abs(_cosines(logits, groups)), 0.9)) for groups in (4, 2))
    pairs = [("90% quantile of the absolute cosine", 0.25, four)]
    yield measured("8,000 tokens, 8 experts in 4 groups", pairs, within=0.06, wrong={"in 2 groups": [two]})


NINE_TENTHS = Claim(
    id="compatibility/euclidean-cosine-quantile",
    statement=r"P(|\cos(\nabla_s F(m), \nabla_s G(q))| \le .25) \approx .9",
    words="In logit space 90 per cent of the cosines between the two terms are within a quarter.",
    source="[himoe-theory] D4",
    recorded=Verdict.SUPPORTED,
    check=_nine_tenths,
    assumptions=(
        "F the sum of squared masses, G minus the mean purity; 8 experts in 4 groups",
        "independent normal logits, a token's standard deviation log-uniform from .1 to 10",
    ),
    functions=(geometry.euclidean_cosine,),
    remark="The notes name neither sizes nor a law. It is not general: with 2 groups of 4 experts about 70 per cent "
    "are within a quarter, with 4 groups of 16 about 82.",
)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _shift_shares(batches: Array, groups: int, routes: int) -> Array:
    """Of each batch: the load gradient in offsets of experts, its part along group shifts over its part inside."""
    partition = Partition.equal(batches.shape[-1], groups)

    def one(logits: Array) -> Array:
        chosen = GroupedTopK(routes).choose(logits, partition)
        selected = to_dense(jnp.ones(chosen.shape, dtype=bool), chosen, logits.shape[1])
        offsets = objectives.load_grad(logits, selected).sum(axis=0).reshape(groups, -1)
        along = jnp.broadcast_to(offsets.mean(axis=1, keepdims=True), offsets.shape)
        return jnp.sqrt(jnp.square(along).sum() / jnp.square(offsets - along).sum())

    return jax.vmap(one)(batches)


def _shift(effort: Effort) -> Iterator[Finding]:
    even = [sp.Rational(3, 8), sp.Rational(1, 8)] * 2
    uneven = [sp.Rational(1, 2), sp.Rational(1, 8), sp.Rational(1, 4), sp.Rational(1, 8)]
    logits = jnp.log(jnp.asarray([[[float(share) for share in shares]] for shares in (uneven, even)]))
    exact = sp.sqrt(sp.Rational(1, 37))
    yield witness(
        "one token, probabilities (4, 1, 2, 1)/8 in groups of two, experts 0 and 2 selected: gradient proportional to "
        "(4, -3, 2, -3), so (1, 1, -1, -1)/2 along shifts and (7, -7, 5, -5)/2 inside: share",
        exact,
        "<=",
        sp.Rational(13, 100),
        holds_at={"(3, 1, 3, 1)/8, with nothing along shifts": (0, sp.Rational(13, 100))},
        code=list(zip(_shift_shares(logits, 2, 1), (exact, sp.S.Zero), strict=True)),
    )
    rng = np.random.default_rng(effort.seed)
    found = []
    for experts, tokens, routes, spread in ((8, 48, 1, 1.0), (16, 64, 2, 2.0)):
        batches = rng.normal(size=(60, tokens, 16)) @ rng.normal(size=(60, 16, experts)) * spread / 4
        found += [(experts, float(x)) for x in _shift_shares(jnp.asarray(batches), 4, routes)]
    yield sampled(
        "60 batches each of a linear router and normal tokens: 8 experts, 48 tokens, K = 1, logits of standard "
        "deviation 1; 16, 64, 2, 2; 4 groups",
        found,
        lambda case: 0.08 <= case[1] <= 0.13,
        false={},
        said=lambda case: f"{case[0]} experts, share {case[1]:.4f}",
    )


SHIFT = Claim(
    id="load/group-shift-share",
    statement=r".08 \le \frac{\|\text{part along group shifts}\|}{\|\text{part inside groups}\|} \le .13",
    words="The load's gradient along shifts of whole groups is 8 to 13 per cent of its part inside groups.",
    source="[himoe-theory] D10",
    recorded=Verdict.REFUTED,
    check=_shift,
    assumptions=("logits drawn with the sizes and spreads of the reference cases, which are not read here",),
    functions=(objectives.load_grad, GroupedTopK.choose),
    remark="Of offsets common to all tokens the medians are .08 and .10, the middle 90 per cent .03 to .15 and .04 to "
    ".23. Token by token the part along shifts is not small: medians .45 and .41.",
)

CLAIMS = (WIDTHS, NULL_EXPERTS, SMOOTH_STEP, BUDGET_GATE, RANDOM_ORDER, ROUNDS, NEEDS, NINE_TENTHS, SHIFT)
