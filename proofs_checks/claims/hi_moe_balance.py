r"""Claims of Hi-MoE about the balance of groups: Theorem 4.1 in its forms, and its value at the published settings."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array, Bool

from himoe_theory import Partition, bounds

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..notation import GROUP_OF, NORMALISED, ONE_GROUP, Assumption, B, T, Values, c, e, g, generic, j, m, p, t, t1
from ..search import search
from ..sums import Data, Rule, total
from ..symbolic import certificate
from ..witnesses import exhaustive, witness

PARTITION = Partition(tuple(GROUP_OF.tolist()))
"""Groups of three, one and one expert, the first interleaved."""
PER_GROUP = (2, 1, 1)

K, S = sp.symbols("K S", positive=True)
d = sp.IndexedBase("d", nonnegative=True)

AT_MOST_K = Assumption(
    "at most K experts are selected in a group; d counts those that are missing",
    (Rule(e, B[g, e] * c[t, e], K - d[t, g]),),
    lambda v: v | {"K": (v["c"] @ v["B"].T).max(), "d": (v["c"] @ v["B"].T).max() - v["c"] @ v["B"].T},
)
AT_MOST_S = Assumption(
    "no group has more than S experts; d counts those that are missing",
    (Rule(e, B[g, e], S - d[t, g]),),
    lambda v: v | {"S": v["B"].sum(axis=1).max(), "d": (v["B"].sum(axis=1).max() - v["B"].sum(axis=1)) + 0 * v["m"]},
)


def _sample(rng: np.random.Generator) -> Values:
    return generic(rng) | {"d": rng.uniform(size=(3, 3)), "K": np.float64(2.5), "S": np.float64(3.5)}


def selected_weights(v: Data) -> Array:
    """Softmax then mask: the probabilities of the selected experts, not renormalised."""
    return jnp.asarray(v["c"] * v["p"])


def rows(gap: Callable[[Array], Array], weights: Array) -> Array:
    """A function of one token's weights, token by token."""
    return jax.jit(jax.vmap(lambda row: gap(row[None])))(weights)


def _over_mean_square(bound: Callable[[Array, Partition], Array]) -> Callable[[Array], Array]:
    """By how much a bound exceeds the mean squared share."""
    return lambda weights: bound(weights, PARTITION) - bounds.mean_squared_share(weights, PARTITION)


def concentration(code: Callable[[Data], object], *, normalised: bool) -> Finding:
    r"""$K \|w\|^2 \ge \sum_g (\sum_{e \in g} w_e)^2$ for a token's selected weights w, group by group.

    **Arguments:** `normalised`: both sides divided by $(\sum_e w_e)^2$.
    """
    weights = total(c[t, e] * p[t, e] ** 2, e)
    split = total(total(B[g, e] * c[t, e] * p[t, e], e) ** 2, g)
    unequal = total(B[g, e] * B[g, j] * c[t, e] * c[t, j] * (p[t, e] - p[t, j]) ** 2, g, e, j) / 2
    unfilled = total(d[t, g] * B[g, e] * c[t, e] * p[t, e] ** 2, g, e)
    whole = total(c[t, e] * p[t, e], e) ** 2 if normalised else sp.S.One
    left, right = (K * weights - split) / whole, (unequal + unfilled) / whole
    return certificate(left, right, assumptions=(ONE_GROUP, AT_MOST_K), sample=_sample, code=code)


def jensen(mass: sp.Expr, sample: Callable[[np.random.Generator], Values], code: Callable[[Data], object]) -> Finding:
    r"""$\overline{\|l\|^2} - \|\bar l\|^2 \ge 0$, l any group loads: half the mean squared distance of two tokens."""
    gap = total(mass**2, t, g) / T - total((total(mass, t) / T) ** 2, g)
    pairs = total((mass - mass.xreplace({t: t1})) ** 2, t, t1, g) / (2 * T**2)
    return certificate(gap, pairs, sample=sample, code=code)


def _shares_jensen() -> Finding:
    def sample(rng: np.random.Generator) -> Values:
        v = generic(rng)
        return v | {"m": np.asarray(bounds.group_shares(jnp.asarray(v["p"]), PARTITION))}

    def gap(weights: Array) -> Array:
        return bounds.mean_squared_share(weights, PARTITION) - bounds.squared_mean_share(weights, PARTITION)

    return jensen(m[t, g], sample, lambda v: jax.jit(gap)(jnp.asarray(v["p"])))


SELECTED = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], dtype=bool)
"""Of two tokens: two experts of the first group, one of each other. Fixed, so that the weights may be any."""


def masked(point: Array) -> tuple[Array, Bool[Array, "tokens experts"], Array]:
    """Logits, selection, and the softmax masked to it."""
    logits, selected = point.reshape(SELECTED.shape), jnp.asarray(SELECTED)
    return logits, selected, jnp.where(selected, jax.nn.softmax(logits), 0)


SEARCHED = "2 tokens, 5 experts in groups of 3, 1, 1, of which 2, 1, 1 are selected; logits"


def search_masked(
    left: Callable[[Array], Array], right: Callable[[Array], Array], effort: Effort, *, false_factor: float = 0.9
) -> Finding:
    """A search with `left` of the masked weights and `right` of the point."""

    def sides(point: Array) -> tuple[Array, Array]:
        weights = masked(point)[2]
        return left(weights), right(point)

    return search(sides, SELECTED.size, effort, false_factor=false_factor, what=SEARCHED)


# Theorem 4.1


def _as_printed(effort: Effort) -> Iterator[Finding]:
    eight = Partition.equal(8, 4)
    uniform = jnp.zeros((1, 8)).at[0, ::2].set(1 / 8)
    one_hot = {"one expert with weight 1": (Fraction(1), Fraction(2))}
    where = "8 experts in 4 groups of two, one selected in each; all 8 probabilities 1/8, so weights 1/8"
    left, right = Fraction(1, 4), 2 * 4 * Fraction(1, 64)
    balance = jax.jit(bounds.group_balance, static_argnums=1)(uniform, eight)
    sides = [(balance.mean_square / 4, left), (balance.published / 4, right)]
    yield witness(f"{where}; squared norm of the group shares", left, "<=", right, holds_at=one_hot, code=sides)
    implied = [(balance.exact, 1), (balance.published, Fraction(1, 2))]
    yield witness(f"{where}; CV² + 1 of perfect balance", 1, "<=", 4 * right, holds_at=one_hot, code=implied)


def _k_max_proof(effort: Effort) -> Iterator[Finding]:
    gap = _over_mean_square(bounds.corrected_bound)
    yield concentration(lambda v: rows(gap, selected_weights(v)), normalised=True)
    yield _shares_jensen()


def _k_max(effort: Effort) -> Iterator[Finding]:
    yield from _k_max_proof(effort)
    yield search_masked(
        lambda weights: bounds.squared_mean_share(weights, PARTITION),
        lambda point: bounds.corrected_bound(masked(point)[2], PARTITION),
        effort,
    )


CORRECTED = (
    r"\|\bar r\|^2 \le \mathbb{E}\|r\|^2 \le K_{\max}\, \mathbb{E}\,\frac{\|\tilde\pi\|^2}{(\sum_e \tilde\pi_e)^2}"
)

AS_PRINTED = Claim(
    id="himoe/thm4.1-as-printed",
    statement=r"\|\bar r\|^2 \le \mathbb{E}\|r\|^2 \le S_{\max}\, \mathbb{E}\|\tilde\pi\|^2, \quad \tilde\pi = "
    r"\mathrm{softmax}(s) \odot 1_{\mathrm{sel}}",
    words="The squared group shares are at most the largest group's size times the squared norm of the selected "
    "weights, with the weights of Eq. 5 (softmax, then mask). Hence CV² + 1 ≤ M S_max E‖π̃‖².",
    source="[himoe] Thm 4.1 with eq. (5)",
    recorded=Verdict.CORRECTED,
    check=_as_printed,
    assumptions=("r are the shares of the groups in a token's selected weights",),
    functions=(bounds.mean_squared_share, bounds.published_bound),
    correction=Correction(
        CORRECTED,
        "Divide by the square of the weights' sum; then the experts selected in a group, K_max, may replace its size.",
        _k_max_proof,
    ),
    remark="Masking without renormalising takes weight away from the right side and leaves the shares as they are; at "
    "uniform logits the left side is S/K times the right one. The appendix says that the theorem holds verbatim there.",
)


def _normalised(effort: Effort) -> Iterator[Finding]:
    def gap(v: Data) -> Array:
        return rows(_over_mean_square(bounds.published_bound), jnp.asarray(v["p"]))

    shares = total(total(B[g, e] * p[t, e], e) ** 2, g) / total(p[t, e], e) ** 2
    unequal = total(B[g, e] * B[g, j] * (p[t, e] - p[t, j]) ** 2, g, e, j) / 2
    unfilled = total(d[t, g] * B[g, e] * p[t, e] ** 2, g, e)
    difference = S * total(p[t, e] ** 2, e) - shares
    assumptions = (NORMALISED, ONE_GROUP, AT_MOST_S)
    yield certificate(difference, unequal + unfilled, assumptions=assumptions, sample=_sample, code=gap)
    yield _shares_jensen()

    def right(point: Array) -> Array:
        weights = masked(point)[2]
        return bounds.published_bound(weights / weights.sum(axis=1, keepdims=True), PARTITION)

    def left(weights: Array) -> Array:
        return bounds.squared_mean_share(weights, PARTITION)

    # Two of the largest group's three experts are selected: 2/3 of the bound can be reached.
    yield search_masked(left, right, effort, false_factor=0.6)


NORMALISED_FORM = Claim(
    id="himoe/thm4.1-normalised",
    statement=r"\|\bar r\|^2 \le \mathbb{E}\|r\|^2 \le S_{\max}\, \mathbb{E}\|\tilde\pi\|^2, \quad "
    r"\sum_e \tilde\pi_e = 1",
    words="Theorem 4.1 holds for weights that are renormalised over the selection.",
    source="[himoe] Thm 4.1",
    recorded=Verdict.PROVED,
    check=_normalised,
    assumptions=("the weights of every token sum to 1",),
    functions=(bounds.mean_squared_share, bounds.published_bound),
    numbers=Numbers(
        "logits",
        roundings=16,
        besides="a selection whose probabilities do not all underflow, as they do where it is not that of the largest "
        "logits and lies 87 below them (700 in 64 bits)",
    ),
    remark="True and loose: only the experts selected in a group add to its share. The search shows how loose: with "
    "two of three selected the ratio stays at 2/3.",
)
K_MAX = Claim(
    id="himoe/thm4.1-k-max",
    statement=CORRECTED,
    words="Theorem 4.1 with the right constant, for weights of any sum.",
    source="[himoe-theory], correcting [himoe] Thm 4.1",
    recorded=Verdict.PROVED,
    check=_k_max,
    functions=(bounds.mean_squared_share, bounds.corrected_bound),
    remark="With one expert a group, E‖r‖² and the bound are equal.",
)


# What the published bound says at the published settings


SETTINGS = {
    "Swin (64 experts, 4 groups, 1 selected in each)": (64, 1, Fraction(16), Fraction(64)),
    "nanoGPT (8 experts, 4 groups, 1 selected in each)": (8, 1, Fraction(2), Fraction(8)),
    "OLMoE (64 experts, 4 groups, 2 selected in each)": (64, 2, Fraction(8), Fraction(64)),
}


def _vacuous(effort: Effort) -> Iterator[Finding]:
    weights, whole = total(c[t, e] * p[t, e] ** 2, e), total(c[t, e] * p[t, e], e)
    yield certificate(
        total(c[t, e], e) * weights - whole**2,
        total(c[t, e] * c[t, j] * (p[t, e] - p[t, j]) ** 2, e, j) / 2,
    )

    def least(name: str) -> Fraction:
        experts, selected, low, high = SETTINGS[name]
        if bounds.published_range(Partition.equal(experts, 4), (selected,) * 4) != (low, high):
            raise AssertionError(f"himoe_theory gives another range for {name}")
        return Fraction(4 * (experts // 4), 4 * selected)

    def k_max_vacuous(name: str) -> bool:
        experts, selected, *_ = SETTINGS[name]
        return bounds.corrected_range(Partition.equal(experts, 4), (selected,) * 4)[0] > 4

    yield exhaustive(
        "the three published settings, against the trivial maximum M = 4",
        SETTINGS,
        lambda name: least(name) == SETTINGS[name][2] and (least(name) > 4) == ("nanoGPT" not in name),
        false={
            "vacuous everywhere": lambda name: least(name) > 4,
            "vacuous nowhere": lambda name: least(name) <= 4,
            "K_max in the place of S_max is vacuous too": k_max_vacuous,
        },
    )


VACUOUS = Claim(
    id="himoe/thm4.1-vacuous",
    statement=r"M S_{\max}\, \mathbb{E}\|\tilde\pi\|^2 \ge \frac{M S_{\max}}{R} > M "
    r"\ge \mathrm{CV}^2_{\mathrm{group}} + 1",
    words="With R normalised weights a token the published bound is at least M S_max / R: 16 for Swin, 8 for OLMoE, "
    "where CV² + 1 never exceeds M = 4, so there it says nothing; at least 2 for nanoGPT, where it can say something.",
    source="[himoe-theory], about [himoe] Thm 4.1",
    recorded=Verdict.PROVED,
    check=_vacuous,
    assumptions=("groups of equal size", "the weights of every token sum to 1"),
    functions=(bounds.published_range, bounds.corrected_range),
    remark="For nanoGPT's setting the bound on CV lies between 1 and the square root of 7. The K_max form lies in "
    "[1, 4] for one expert a group, so it always says something unless routing is one-hot, and in [1, 8] for two.",
)


CLAIMS = (AS_PRINTED, NORMALISED_FORM, K_MAX, VACUOUS)
