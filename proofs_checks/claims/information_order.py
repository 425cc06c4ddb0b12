r"""Claims about how Hi-MoE's collision information compares with the mutual information of Shannon."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import Expr, IndexedBase

from himoe_theory import metrics

from ..ledger import Claim, Correction, Effort, Finding, Verdict, about
from ..notation import Assumption, N, T, Values, e, generic, p, t
from ..sums import Rule, total
from ..symbolic import equation, identity
from ..witnesses import witness
from .hi_moe_information import ANY, balanced

Table = Sequence[Sequence[Fraction]]
"""Probabilities of the experts, a row for each token."""


def _collision(rows: Table) -> Expr:
    tokens = len(rows)
    same = sum(x * x for row in rows for x in row) / tokens
    mean = [sum(column) / tokens for column in zip(*rows, strict=True)]
    return sp.log(sp.nsimplify(same / sum(x * x for x in mean)))


def _shannon(rows: Table) -> Expr:
    """Entropy of the mean less the mean entropy."""

    def entropy(row: Sequence[Fraction]) -> Expr:
        return -sp.Add(*(sp.nsimplify(x) * sp.log(sp.nsimplify(x)) for x in row if x))

    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return sp.expand_log(entropy(mean) - sp.Add(*map(entropy, rows)) / len(rows), force=True)


HALF, QUARTER = Fraction(1, 2), Fraction(1, 4)
APART: Table = ((3 * QUARTER, QUARTER), (QUARTER, 3 * QUARTER))
ONE_SURE: Table = ((Fraction(1), Fraction(0)), (HALF, HALF))


def _against(where: str, rows: Table, relation: str, holds: Table, name: str) -> Finding:
    @jax.jit
    def both(probs: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A row for each token, all tokens equally likely: the table of token and expert.
        return metrics.collision_information(probs), metrics.mutual_information(probs)

    found = both(jnp.asarray([[float(x) for x in row] for row in rows]))
    left, right = _collision(rows), _shannon(rows)
    known = {name: (_collision(holds), _shannon(holds))}
    code = [(found[0], left), (found[1], right)]
    return witness(where, left, relation, right, holds_at=known, code=code)


def _above(effort: Effort) -> Iterator[Finding]:
    where = "2 tokens with probabilities (1, 0) and (1/2, 1/2): I₂ = ln(6/5) against I = (3/2) ln 2 - (3/4) ln 3"
    yield _against(where, ONE_SURE, ">=", APART, "tokens (3/4, 1/4) and (1/4, 3/4)")


a, mean_square = IndexedBase("a", positive=True), sp.Symbol("A", positive=True)
BALANCED = Assumption(
    "a token's probabilities sum to 1, and every expert is used equally",
    (Rule(e, p[t, e], sp.S.One), Rule(t, p[t, e], T / N)),
    lambda d: d | {"p": balanced(d["p"])},
)


def _squares(d: Values) -> Values:
    norms = np.square(d["p"]).sum(axis=1)
    return d | {"a": norms, "A": norms.mean()}


MEAN_SQUARE = Assumption(
    "A is the mean squared norm of the probabilities",
    (Rule(e, p[t, e] ** 2, a[t]), Rule(t, a[t], T * mean_square)),
    _squares,
)


def _when_balanced(effort: Effort) -> Iterator[Finding]:
    mean = total(p[t, e], t) / T
    inside = total(p[t, e] * sp.log(p[t, e]), t, e) / T
    shannon = inside - total(mean * sp.log(mean), e)
    collision = sp.log(mean_square) - sp.log(ANY)

    gap = jax.jit(lambda probs: metrics.collision_information(probs) - metrics.mutual_information(probs))

    ratio = p[t, e] / mean_square
    found = identity(
        collision - shannon,
        total(p[t, e] * (ratio - 1 - sp.log(ratio)), t, e) / T,
        assumptions=(BALANCED, MEAN_SQUARE),
        sample=lambda rng: generic(rng) | {"a": rng.uniform(0.1, 1.0, 3), "A": np.asarray(0.4)},
        code=lambda d: gap(jnp.asarray(d["p"])),
    )
    yield about("the difference as a mean of psi(y), y = pi/A", found)
    y = sp.Symbol("y", positive=True)
    found = equation(
        sp.diff(y - 1 - sp.log(y), y),
        (y - 1) / y,
        why="psi(y) = y - 1 - ln y falls below 1 and rises above, and psi(1) = 0: nowhere negative.",
    )
    yield about("psi is not negative", found)


ABOVE = Claim(
    id="metrics/collision-above-shannon",
    statement=r"I_2 = \ln \frac{\mathbb{E}\|\pi\|^2}{\|\mathbb{E}\pi\|^2} \ge I(X; E)",
    words="Collision information is at least the mutual information of token and expert.",
    source="[himoe-theory], about [himoe] Thm 4.3",
    recorded=Verdict.CORRECTED,
    check=_above,
    functions=(metrics.collision_information, metrics.mutual_information),
    correction=Correction(
        r"\mathbb{E}\pi = 1/N \;\Rightarrow\; I_2 - I(X; E) = \mathbb{E} \sum_e \pi_e\, "
        r"\psi(\pi_e/\mathbb{E}\|\pi\|^2) \ge 0, \quad \psi(y) = y - 1 - \ln y",
        "It is where every expert is used equally, which is the case that Theorem 4.3 simplifies.",
        _when_balanced,
    ),
    remark="Equality only where each probability is 0 or one and the same number. So with balanced usage I₂ overstates "
    "what routing knows of the token, and with unbalanced usage it may be on either side.",
)


def _below(effort: Effort) -> Iterator[Finding]:
    where = "2 tokens with probabilities (3/4, 1/4) and (1/4, 3/4): I₂ = ln(5/4) against I = (3/4) ln 3 - ln 2"
    yield _against(where, APART, "<=", ONE_SURE, "tokens (1, 0) and (1/2, 1/2)")


BELOW = Claim(
    id="metrics/collision-below-shannon",
    statement=r"I_2 \le I(X; E)",
    words="Collision information is at most the mutual information of token and expert.",
    source="[himoe-theory], about [himoe] Thm 4.3",
    recorded=Verdict.REFUTED,
    check=_below,
    functions=(metrics.collision_information, metrics.mutual_information),
    remark="With the claim on the other direction: the two are not ordered, so that what is proved of one says nothing "
    "about the other.",
)

CLAIMS = (ABOVE, BELOW)
