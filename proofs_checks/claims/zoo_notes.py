"""Claims of the notes about routers in the literature (the zoo)."""

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, TopK, assign_slots, objectives, ranked

from ..kept import KEYS
from ..ledger import Claim, Effort, Finding, Numbers, Verdict
from ..notation import NORMALISED, N, T, e, generic, p, t
from ..search import QUICK
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive

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
        chosen = np.asarray(ranked(TopK(picks), keys, Partition.equal(true + empty, 1)))
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
    numbers=Numbers("keys", besides="no ties: equal keys go to the first experts"),
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

    def place(chosen: jax.Array) -> jax.Array:
        selected = chosen[:, None] == jnp.arange(experts, dtype=chosen.dtype)
        return assign_slots(selected).max(axis=1)  # -1 for all other experts

    fill = jax.jit(jax.vmap(place), compiler_options=QUICK)
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
        sets = np.sort(np.asarray(ranked(TopK(k), keys, Partition.equal(experts, 1))), axis=1).tolist()
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
    numbers=KEYS,
    remark="An upper count: logits of the rounds must be free of one another. The zoo's text says proportional.",
)


CLAIMS = (WIDTHS, NULL_EXPERTS, SMOOTH_STEP, BUDGET_GATE, RANDOM_ORDER, ROUNDS)
