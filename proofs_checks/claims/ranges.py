"""Claims about the ranges of metrics: how large they can be, and where."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import KroneckerDelta

from himoe_theory import Partition, metrics

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import (
    GROUP_MASS,
    GROUP_OF,
    NORMALISED,
    ONE_GROUP,
    Assumption,
    B,
    N,
    T,
    Values,
    e,
    g,
    generic,
    j,
    m,
    p,
    t,
    t1,
)
from ..search import search
from ..sums import Rule, total
from ..symbolic import certificate, identity

PARTITION = Partition(tuple(GROUP_OF.tolist()))
SUBSETS = (np.array(list(itertools.combinations(range(5), 2)))[:, :, None] == np.arange(5)).any(axis=1)

h = sp.IndexedBase("h", nonnegative=True)
"""A load, the share of the tokens that an expert received."""
room = sp.IndexedBase("room", nonnegative=True)
"""What a load lacks to 1."""
AT_MOST_1 = Assumption(
    "loads are at most 1, and room is what they lack",
    (Rule(e, h[e] * room[e], total(h[e], e) - total(h[e] ** 2, e)),),
    lambda d: d | {"room": 1 - d["h"]},
)


def _max_cv(effort: Effort) -> Iterator[Finding]:
    yield certificate(
        total(h[e], e) - total(h[e] ** 2, e),
        total(h[e] * room[e], e),
        assumptions=(AT_MOST_1,),
        sample=lambda rng: {"h": rng.uniform(0, 1, 5), "room": rng.uniform(0, 1, 5)},
    )
    most = metrics.max_cv(5, 2)

    def sides(point: Array) -> tuple[Array, Array]:
        return metrics.coefficient_of_variation(jax.nn.softmax(point) @ SUBSETS.astype(float)), jnp.asarray(most)

    yield search(sides, 10, effort, false_factor=0.95, what="mixtures of the 10 sets of 2 of 5 experts, logits")


MAX_CV = Claim(
    id="metrics/max-cv",
    statement=r"\mathrm{CV}(h) \le \sqrt{N/R - 1}, \quad 0 \le h_e \le 1, \ \sum_e h_e = R",
    words="If every token selects R of N experts, the CV of the loads is at most this, reached when all tokens agree.",
    source="[himoe-theory] largest CV",
    recorded=Verdict.PROVED,
    check=_max_cv,
    assumptions=("every token selects R distinct experts",),
    functions=(metrics.max_cv, metrics.coefficient_of_variation),
    remark="R less the squared norm is the sum of h(1 - h); and CV squared is N times the squared norm over R squared, "
    "less 1.",
)


def _experts(effort: Effort) -> Iterator[Finding]:
    # Gibbs against uniform: -ln p <= 1/(N p) - 1 + ln N, from ln y <= y - 1 at y = 1/(N p).
    yield identity(
        total(p[t, e] * (1 / (N * p[t, e]) - 1 + sp.log(N)), e),
        sp.log(N),
        assumptions=(NORMALISED,),
        variants={"without the logarithm": sp.S.One},
    )

    def sides(point: Array) -> tuple[Array, Array]:
        return metrics.effective_experts(jax.nn.softmax(point)[None]), jnp.asarray(5.0)

    yield search(sides, 5, effort, false_factor=0.95, what="5 experts, logits")


EXPERTS = Claim(
    id="metrics/effective-experts",
    statement=r"1 \le e^{H(\pi)} \le N",
    words="The effective number of experts lies between 1 and N.",
    source="[himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_experts,
    assumptions=("probabilities of a token sum to 1",),
    functions=(metrics.effective_experts,),
    remark="Since ln y is at most y - 1, each -ln p is at most 1/(Np) - 1 + ln N; the mean of the right side is ln N. "
    "Entropy is not negative because no probability exceeds 1.",
)

lp, lm = (sp.IndexedBase(name, real=True) for name in ("lp", "lm"))
"""Logarithms of probabilities and of group masses."""


def _groups(effort: Effort) -> Iterator[Finding]:
    def sample(rng: np.random.Generator) -> Values:
        return generic(rng) | {"lp": rng.normal(size=(3, 5)), "lm": rng.normal(size=(3, 3))}

    yield identity(
        total(m[t, g] * lm[t, g], g) - total(p[t, e] * lp[t, e], e),
        total(B[g, e] * p[t, e] * (lm[t, g] - lp[t, e]), e, g),
        assumptions=(ONE_GROUP, GROUP_MASS),
        variants={"masses alone": total(m[t, g] * lm[t, g], g)},
        sample=sample,
    )

    def sides(point: Array) -> tuple[Array, Array]:
        probs = jax.nn.softmax(point)[None]
        return metrics.effective_groups(probs, PARTITION), metrics.effective_experts(probs)

    yield search(sides, 5, effort, false_factor=0.95, what="5 experts in groups of 3, 1, 1; logits")


GROUPS = Claim(
    id="metrics/effective-groups",
    statement=r"H(\pi) - H(m) = \sum_g \sum_{e \in g} \pi_e \ln \frac{m_g}{\pi_e} \ge 0",
    words="Effective groups never exceed effective experts; equality when each group in use has one live expert.",
    source="[himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_groups,
    assumptions=("every expert is in exactly one group",),
    functions=(metrics.effective_groups, metrics.effective_experts),
    remark="Every term on the right is at least 0, as a probability is at most its group's mass.",
)


def _gain() -> sp.Expr:
    return total(p[t, e] ** 2, e, t) / T - total(total(p[t, e], t) ** 2, e) / T**2


def _pairs(first: tuple[sp.Expr, sp.Expr], other: sp.Expr, *indices: sp.Idx) -> sp.Expr:
    """Sum over pairs of different indices, in a form that is visibly non-negative."""
    return total((1 - KroneckerDelta(*first)) ** 2 * other, *indices)


def _probs(point: Array, tokens: int) -> Array:
    return jax.nn.softmax(point.reshape(tokens, -1))


def _gini(effort: Effort) -> Iterator[Finding]:
    impure = _pairs((e, j), p[t, e] * p[t, j], e, j, t)
    # Over pairs of tokens, as T - 1 times a sum would not be visibly non-negative.
    others = _pairs((t, t1), (1 - KroneckerDelta(e, j)) ** 2 * p[t, e] * p[t, j], e, j, t, t1)
    distinct = _pairs((t, t1), p[t, e] * p[t1, e], t, t1, e)
    yield certificate(
        1 - 1 / T - _gain(),
        others / T**2 + distinct / T**2,
        assumptions=(NORMALISED,),
    )
    yield certificate(
        N * (1 - _gain()) - 1,
        N * impure / T + total((total(p[t, e], t) / T - 1 / N) ** 2, e) * N,
        assumptions=(NORMALISED,),
    )

    def sides(point: Array) -> tuple[Array, Array]:
        return metrics.gini_gain(_probs(point, 3)), jnp.asarray(1 - 1 / 3)

    yield search(sides, 12, effort, false_factor=0.95, what="3 tokens, 4 experts, logits")


GINI = Claim(
    id="metrics/gini-gain",
    statement=r"\overline{\|\pi_t\|^2} - \|\bar\pi\|^2 \le 1 - 1/\min(N, T)",
    words="The Gini gain is at most 1 - 1/T and 1 - 1/N.",
    source="[himoe-theory] Gini gain",
    recorded=Verdict.PROVED,
    check=_gini,
    assumptions=("probabilities of a token sum to 1",),
    functions=(metrics.gini_gain,),
)


def _information(effort: Effort) -> Iterator[Finding]:
    norm = total(p[t, e] ** 2, e, t) / T
    square = total(total(p[t, e], t) ** 2, e) / T**2
    yield certificate(norm - square, total((p[t, e] - total(p[t1, e], t1) / T) ** 2, e, t) / T)
    yield certificate(T * square - norm, _pairs((t, t1), p[t, e] * p[t1, e], t, t1, e) / T)
    yield certificate(
        N * square - norm,
        _pairs((e, j), p[t, e] * p[t, j], e, j, t) / T + N * total((total(p[t, e], t) / T - 1 / N) ** 2, e),
        assumptions=(NORMALISED,),
    )

    def sides(point: Array) -> tuple[Array, Array]:
        return metrics.collision_information(_probs(point, 3)), jnp.log(3.0)

    yield search(sides, 12, effort, false_factor=0.95, what="3 tokens, 4 experts, logits")


INFORMATION = Claim(
    id="metrics/collision-information",
    statement=r"0 \le I_2 \le \ln \min(N, T)",
    words="The collision information is not negative and at most the logarithm of the experts and of the tokens.",
    source="[himoe] Thm 4.3",
    recorded=Verdict.PROVED,
    check=_information,
    assumptions=("probabilities of a token sum to 1",),
    functions=(metrics.collision_information,),
    remark="A batch of few tokens cannot show more than ln T nats whatever the router does.",
)

CLAIMS = (MAX_CV, EXPERTS, GROUPS, GINI, INFORMATION)
