"""Claims of Hi-MoE about its objectives and bounds."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import Partition, metrics
from himoe_theory.objectives import inter_group, intra_group

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import GROUP_OF, ONE_GROUP, B, M, N, T, e, g, h, index, m, p, t
from ..search import search
from ..solvers import Problem, decide, reals
from ..sums import total
from ..symbolic import certificate, identity
from ..witnesses import reported, witness

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
        masses = [z3.Sum(x[a:b]) for a, b in zip(ends, ends[1:], strict=False)]
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


CLAIMS = (EQ4, LEMMA_B2)
