"""Claims of Hi-MoE about its objectives: identities, and the lemma behind its bounds."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array
from sympy import IndexedBase, KroneckerDelta

from himoe_theory import Partition, metrics
from himoe_theory.objectives import inter_group, intra_group

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import GROUP_OF, NORMALISED, ONE_GROUP, Assumption, B, M, c, e, g, generic, index, j, m, p, t
from ..search import search
from ..solvers import Problem, decide, reals
from ..sums import Data, Rule, total
from ..symbolic import certificate, identity

PARTITION = Partition(tuple(GROUP_OF.tolist()))
"""The unequal, interleaved partition of the generic values."""


def _eq4(effort: Effort) -> Iterator[Finding]:
    purity = total(B[g, e] * p[t, e] ** 2 / m[t, g] ** 2, e)
    yield identity(
        total(m[t, g] ** 2 * purity, g),
        total(p[t, e] ** 2, e),
        assumptions=(ONE_GROUP,),
        variants={"masses not squared": total(m[t, g] * purity, g)},
        code=lambda d: [-intra_group.intra_group_global(jnp.log(row)[None]) * row.sum() ** 2 for row in d["p"]],
    )


EQ4 = Claim(
    id="himoe/eq4-mass-purity",
    statement=r"\|\pi\|^2 = \sum_g m_g^2 \, \|q_g\|^2",
    words="The squared norm of the probabilities is the sum over groups of squared mass times purity.",
    source="[himoe] eq. (4)",
    recorded=Verdict.PROVED,
    check=_eq4,
    assumptions=("every expert is in exactly one group",),
    functions=(intra_group.intra_group_global,),
)


w = sp.IndexedBase("w", real=True)
S = sp.Symbol("S", integer=True, positive=True)
i, k = index("i", S), index("k", S)


def _lemma_b2(effort: Effort) -> Iterator[Finding]:
    yield certificate(
        S * total(w[i] ** 2, i) - total(w[i], i) ** 2,
        total((w[i] - w[k]) ** 2, i, k) / 2,
        sample=lambda rng: {"w": rng.normal(size=3)},
        sizes={S: 3},
    )
    problems = []
    for sizes in ((1, 2), (2, 3), (1, 1, 3)):
        x = reals("w", sum(sizes))
        ends = np.cumsum((0, *sizes))
        masses = [z3.Sum(x[a:b]) for a, b in itertools.pairwise(ends)]
        left, norm = z3.Sum([mass**2 for mass in masses]), z3.Sum([v**2 for v in x])
        false = {"one less than the largest group": ([], left <= (max(sizes) - 1) * norm)}
        problems.append(Problem(f"groups of {sizes}", [], left <= max(sizes) * norm, false))
    yield decide(problems, effort)

    def sides(logits: Array) -> tuple[Array, Array]:
        everything = jnp.ones((1, logits.size), dtype=bool)
        norm = inter_group.inter_group_selected(logits[None], everything)
        return inter_group.inter_group_dense(logits[None], PARTITION), max(PARTITION.sizes) * norm

    yield search(sides, 5, effort, false_factor=0.95, what="5 experts in groups of 3, 1, 1; logits")


LEMMA_B2 = Claim(
    id="himoe/lemma-b2",
    statement=r"\|m\|^2 \le S_{\max} \|w\|^2, \quad m_g = \sum_{e \in g} w_e",
    words="The squared norm of group sums is at most the largest group's size times the squared norm.",
    source="[himoe] Lemma B.2",
    recorded=Verdict.PROVED,
    check=_lemma_b2,
    functions=(inter_group.inter_group_dense, inter_group.inter_group_selected),
    remark="Weights need not be non-negative. Group by group: S times the sum of squares minus the square of the sum.",
)


def _prop_b1(effort: Effort) -> Iterator[Finding]:
    loads, whole = IndexedBase("L", real=True), sp.Symbol("Lambda", real=True, nonzero=True)
    sum_of_loads = Assumption(
        "the loads sum to Lambda, which is not 0",
        (Rule(g, loads[g], whole),),
        lambda v: v | {"Lambda": v["L"].sum()},
    )
    variance = total((loads[g] - whole / M) ** 2, g) / M
    yield identity(
        variance / (whole / M) ** 2,
        M * total(loads[g] ** 2, g) / whole**2 - 1,
        assumptions=(sum_of_loads,),
        variants={
            "without the M": total(loads[g] ** 2, g) / whole**2 - 1,
            "absolute values": M * total(sp.Abs(loads[g]), g) ** 2 / whole**2 - 1,
        },
        sample=lambda rng: {"L": np.array([1.3, -0.4, 0.7]) + 0.1 * rng.normal(size=3), "Lambda": np.asarray(-0.8)},
        code=lambda v: jax.jit(metrics.coefficient_of_variation)(jnp.asarray(v["L"])) ** 2,
    )


PROP_B1 = Claim(
    id="himoe/prop-b1",
    statement=r"\mathrm{CV}(L)^2 = M \|\hat L\|^2 - 1, \quad \hat L = L / \textstyle\sum_g L_g",
    words="The squared coefficient of variation is M times the squared norm of the shares, minus 1.",
    source="[himoe] Prop. B.1",
    recorded=Verdict.PROVED,
    check=_prop_b1,
    assumptions=("the loads do not sum to 0", "CV uses the population's standard deviation"),
    functions=(metrics.coefficient_of_variation,),
    remark="Loads may have any sign. Outside of a compiled program himoe_theory refuses negative ones, which no "
    "routing has.",
)


COUPLED = total(p[t, e] * p[t, j] * (1 - KroneckerDelta(e, j)), e, j)


def _eq11(effort: Effort) -> Iterator[Finding]:
    yield identity(
        COUPLED,
        1 - total(p[t, e] ** 2, e),
        assumptions=(NORMALISED,),
        variants={"ordered pairs counted once": (1 - total(p[t, e] ** 2, e)) / 2},
        code=lambda v: [1 + intra_group.intra_group_global(jnp.log(row)[None]) for row in v["p"]],
    )


EQ11 = Claim(
    id="himoe/eq11-collision",
    statement=r"\sum_{i \ne j} \pi_i \pi_j = 1 - \|\pi\|^2 = P(E_1 \ne E_2)",
    words="Two experts drawn independently for one token differ with probability 1 minus the squared norm.",
    source="[himoe] eq. (11)",
    recorded=Verdict.PROVED,
    check=_eq11,
    assumptions=("the probabilities of a token sum to 1",),
    functions=(intra_group.intra_group_global,),
)


def _eq10(effort: Effort) -> Iterator[Finding]:
    intra, inter = sp.symbols("lambda_intra lambda_inter", positive=True)
    selected = total(c[t, e] * p[t, e] ** 2, e)
    eq8 = -intra * total(p[t, e] ** 2, e) + inter * selected
    names = {"lambda_intra": np.float64(0.1), "lambda_inter": np.float64(0.05)}

    def code(v: Data) -> list[Array]:
        terms = []
        for row, chosen in zip(jnp.log(v["p"])[:, None], jnp.asarray(v["c"], bool)[:, None], strict=True):
            penalty = 0.05 * inter_group.inter_group_selected(row, chosen)
            terms.append(0.1 * intra_group.intra_group_global(row) + penalty + 0.1)
        return terms

    yield identity(
        intra * COUPLED + inter * selected,
        eq8 + intra,
        assumptions=(NORMALISED,),
        variants={"without the constant": eq8},
        sample=lambda rng: generic(rng) | names,
        code=code,
    )


EQ10 = Claim(
    id="himoe/eq10-lagrangian",
    statement=r"\lambda_{\mathrm{intra}} \sum_{i \ne j} \pi_i \pi_j + \lambda_{\mathrm{inter}} \|\tilde\pi\|^2 = "
    r"-\lambda_{\mathrm{intra}} \|\pi\|^2 + \lambda_{\mathrm{inter}} \|\tilde\pi\|^2 + \lambda_{\mathrm{intra}}",
    words="The Lagrangian with the coupling of Eq. 11 as its constraint is the objective of Eq. 8 up to the constant "
    "λ_intra; task and load terms are the same on both sides.",
    source="[himoe] eqs. (8, 10)",
    recorded=Verdict.PROVED,
    check=_eq10,
    assumptions=("the probabilities of a token sum to 1", "the budgets of the constraints are constants"),
    functions=(intra_group.intra_group_global, inter_group.inter_group_selected),
    remark="An identity of functions. Strong duality, that some λ solves the constrained problem, does not follow: the "
    "problem is not convex.",
)


CLAIMS = (EQ4, PROP_B1, LEMMA_B2, EQ11, EQ10)
