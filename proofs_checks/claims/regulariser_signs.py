r"""Claims about the sign of what the regularisers of Hi-MoE do to groups: Eqs. 6 and 7 together, and the order that the
weights of the Shannon pair must have (D11)."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import IndexedBase

from himoe_theory import Partition
from himoe_theory.objectives import group_neg_entropy, inter_group_selected, intra_group_global, token_entropy

from ..ledger import Claim, Effort, Finding, Verdict, about
from ..notation import GROUP_MASS, GROUP_OF, ONE_GROUP, Assumption, B, Values, c, e, g, generic, m, p, t
from ..sums import Rule, total
from ..symbolic import certificate, equation, identity
from ..witnesses import witness
from .hi_moe_information import probabilities

PARTITION = Partition(tuple(GROUP_OF.tolist()))
INTRA, INTER, GAP = sp.symbols("lambda_intra lambda_inter gap", nonnegative=True)
NUMBERS = {"lambda_intra": np.asarray(0.3), "lambda_inter": np.asarray(0.5), "gap": np.asarray(0.2)}


def _by_token(of: Callable[..., Array], *arrays: np.ndarray) -> Array:
    """A function of one token's rows, which need not sum to 1, for every token."""
    return jax.jit(jax.vmap(of))(*map(jnp.asarray, arrays))


# Eqs. 6 and 7 together


def _selected(effort: Effort) -> Iterator[Finding]:
    """lambda_intra is lambda_inter + gap."""
    inner, outer = float(NUMBERS["lambda_inter"] + NUMBERS["gap"]), float(NUMBERS["lambda_inter"])

    def pair(probs: Array, chosen: Array) -> Array:
        logits, selected = jnp.log(probs)[None], (chosen > 0)[None]
        value = outer * inter_group_selected(logits, selected) + inner * intra_group_global(logits)
        return -value * jnp.square(probs.sum())

    kept = total(c[t, e] * p[t, e] ** 2, e)
    dropped = total((1 - c[t, e]) ** 2 * p[t, e] ** 2, e)  # squared, so that its form shows it is not negative
    yield certificate(
        (INTER + GAP) * total(p[t, e] ** 2, e) - INTER * kept,
        GAP * kept + (INTER + GAP) * dropped,
        sample=lambda rng: generic(rng) | NUMBERS,
        variants={"only the selected experts": GAP * kept, "one coefficient for all": GAP * (kept + dropped)},
        code=lambda d: _by_token(pair, d["p"], d["c"]),
    )


SELECTED = Claim(
    id="group-collapse/selected-weights",
    statement=r"\lambda_{inter}\|\tilde\pi\|^2 - \lambda_{intra}\|\pi\|^2 = "
    r"-(\lambda_{intra} - \lambda_{inter})\|\tilde\pi\|^2 - \lambda_{intra} \sum_{e \notin \mathrm{sel}} \pi_e^2 \le 0",
    words="With the inter-group term of Eq. 6 the two regularisers reward concentration on every expert in every "
    "state, selected or not, if lambda_intra exceeds lambda_inter as published.",
    source="[himoe] eqs. (6, 7), published settings",
    recorded=Verdict.PROVED,
    check=_selected,
    assumptions=("lambda_intra >= lambda_inter", "both terms see the same softmax"),
    functions=(inter_group_selected, intra_group_global),
    remark="So there is no sharpness at which the pair starts to balance, unlike with dense group mass. The selection "
    "may be any; with everything selected only the difference of the coefficients is left.",
)


# The Shannon pair


def _pair(probs: Array) -> Array:
    logits = jnp.log(probs)[None]
    return 0.3 * token_entropy(logits) + 0.5 * group_neg_entropy(logits, PARTITION)


def _chain_rule(effort: Effort) -> Iterator[Finding]:
    of_masses = -total(m[t, g] * sp.log(m[t, g]), g)
    inside = -total(m[t, g] * total(B[g, e] * p[t, e] / m[t, g] * sp.log(p[t, e] / m[t, g]), e), g)
    pair = INTRA * -total(p[t, e] * sp.log(p[t, e]), e) - INTER * of_masses
    yield identity(
        pair,
        (INTRA - INTER) * of_masses + INTRA * inside,
        assumptions=(ONE_GROUP, GROUP_MASS),
        variants={"inside without the masses' weights": (INTRA - INTER) * of_masses + INTRA * inside * 2},
        sample=lambda rng: probabilities(rng) | NUMBERS,
        code=lambda d: _by_token(_pair, d["p"]),
    )


CHAIN_RULE = Claim(
    id="group-collapse/shannon-pair",
    statement=r"\lambda_1 H(\pi) - \lambda_2 H(m) = (\lambda_1 - \lambda_2) H(m) + \lambda_1 \sum_g m_g H(q_g)",
    words="The entropy of a token is that of its group masses and the mean of those inside groups; so the group part "
    "of the Shannon pair has the coefficient lambda_1 - lambda_2.",
    source="[himoe-code] mode `shannon`",
    recorded=Verdict.PROVED,
    check=_chain_rule,
    assumptions=("every expert is in exactly one group", "m is the group mass of the probabilities"),
    functions=(token_entropy, group_neg_entropy),
)

ENTROPY = IndexedBase("h", nonnegative=True)
MASSES = Assumption(
    "group masses sum to 1",
    (Rule(g, m[t, g], sp.S.One),),
    lambda d: d | {"m": d["m"] / d["m"].sum(axis=1, keepdims=True)},
)


def _inside(rng: np.random.Generator) -> Values:
    """Group masses, choices inside groups and their entropies h; lambda_2 is lambda_1 + gap."""
    d = generic(rng)
    raised = d["p"] / (d["p"] @ np.equal.outer(GROUP_OF, GROUP_OF))
    entropy = -(raised * np.log(raised)) @ PARTITION.indicator().astype(float)
    return d | NUMBERS | {"q": raised, "h": np.maximum(entropy, 0.0)}


def _order(effort: Effort) -> Iterator[Finding]:
    normaliser = sp.log(total(sp.exp(-INTRA * ENTROPY[t, g] / GAP), g))
    log_ratio = sp.log(m[t, g]) + INTRA * ENTROPY[t, g] / GAP + normaliser
    yield about(
        "the pair is lambda_2 - lambda_1 times a divergence, less a constant",
        identity(
            GAP * total(m[t, g] * sp.log(m[t, g]), g) + INTRA * total(m[t, g] * ENTROPY[t, g], g),
            GAP * total(m[t, g] * log_ratio, g) - GAP * normaliser,
            assumptions=(MASSES,),
            variants={"least at equal masses": GAP * total(m[t, g] * sp.log(m[t, g]), g)},
            sample=_inside,
            code=lambda d: _by_token(_pair, d["m"][:, GROUP_OF] * d["q"]),
        ),
    )
    y = sp.Symbol("y", positive=True)
    phi = y * sp.log(y) - y + 1
    found = equation(
        sp.diff(phi, y),
        sp.log(y),
        why="The divergence is the mean under m* of phi(m/m*), phi(y) = y ln y - y + 1, whose derivative ln y is "
        "negative below 1 and positive above, and phi(1) = 0: it is positive unless m = m*.",
    )
    yield about("a divergence is positive", found)


ORDER = Claim(
    id="group-collapse/shannon-order",
    statement=r"-\lambda_2 H(m) + \lambda_1 \Big(H(m) + \sum_g m_g h_g\Big) = (\lambda_2 - \lambda_1) "
    r"\big(\mathrm{KL}(m \,\|\, m^*) - \ln Z\big), \quad m^*_g = \tfrac1Z e^{-\lambda_1 h_g/(\lambda_2 - \lambda_1)}",
    words="At fixed choices inside groups, of entropies h, the Shannon pair has its only minimum at masses inside the "
    "simplex if lambda_2 > lambda_1; if lambda_2 < lambda_1 the same masses are its only maximum, and it is least with "
    "all mass on one group. So balancing needs lambda_2 > lambda_1.",
    source="[himoe-code] comment on mode `shannon`",
    recorded=Verdict.PROVED,
    check=_order,
    assumptions=("choices inside groups are held fixed", "lambda_1 and lambda_2 differ"),
    functions=(token_entropy, group_neg_entropy),
    remark="The masses m* are equal only where the entropies inside are: otherwise the pair prefers sharp groups. With "
    "lambda_1 = lambda_2 it is linear in the masses and takes the sharpest group alone.",
)


def _published(effort: Effort) -> Iterator[Finding]:
    inner, outer = sp.Rational(1, 10), sp.Rational(1, 20)
    two, four = sp.log(2), sp.log(4)
    spread, sharp = jnp.zeros((1, 4)), jnp.array([[0.0, 0.0, -80.0, -80.0]])
    partition = Partition((0, 0, 1, 1))

    def value(logits: Array) -> Array:
        return 0.1 * token_entropy(logits) + 0.05 * group_neg_entropy(logits, partition)

    both = jax.jit(jax.vmap(value))(jnp.stack([spread, sharp]))
    yield witness(
        "4 experts in 2 groups of two, (lambda_1, lambda_2) = (1/10, 1/20): the pair at probabilities (1/4, 1/4 | 1/4, "
        "1/4) against (1/2, 1/2 | 0, 0)",
        inner * four - outer * two,
        "<=",
        inner * two,
        holds_at={"with (1/20, 1/10)": (outer * four - inner * two, outer * two)},
        code=[(both[0], inner * four - outer * two), (both[1], inner * two)],
    )


PUBLISHED = Claim(
    id="group-collapse/shannon-published",
    statement=r"(\lambda_1, \lambda_2) = (0.1, 0.05): \quad \lambda_1 H(\pi) - \lambda_2 H(m) \text{ is lower at equal "
    r"masses than with all mass on one group}",
    words="With the coefficients of the published settings the Shannon pair balances groups.",
    source="[himoe] published settings with [himoe-code] mode `shannon`",
    recorded=Verdict.REFUTED,
    check=_published,
    functions=(token_entropy, group_neg_entropy),
    remark="The published order is lambda_1 > lambda_2, the opposite of what the code's comment asks for. The "
    "published settings are those of the squared terms; that they were used in the Shannon mode is not said.",
)

CLAIMS = (SELECTED, CHAIN_RULE, ORDER, PUBLISHED)
