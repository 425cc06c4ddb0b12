"""What each inter-group term of Hi-MoE bounds, and whether it reduces group concentration (§3.1)."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from himoe_theory import Partition, bounds, metrics
from himoe_theory.objectives import inter_group

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, ONE_GROUP, B, Values, c, e, g, generic, p, t
from ..search import search
from ..sums import total
from ..witnesses import witness
from .hi_moe_balance import (
    PARTITION,
    PER_GROUP,
    SELECTED,
    concentration,
    jensen,
    masked,
    rows,
    search_masked,
    selected_weights,
)

MASS = total(B[g, e] * p[t, e], e)
SELECTED_MASS = total(B[g, e] * c[t, e] * p[t, e], e)


def _balance(weights: Array) -> Array:
    """CV² + 1 of the group totals of the mean weights."""
    return metrics.group_cv(metrics.soft_load(weights), PARTITION) ** 2 + 1


def _scale(weights: Array) -> Array:
    return jnp.square(weights.sum(axis=-1).mean()) / PARTITION.num_groups


def _mass_sample(rng: np.random.Generator) -> Values:
    return ONE_GROUP.impose(NORMALISED.impose(generic(rng)))


@jax.jit
def _mass_gap(weights: Array) -> Array:
    return (bounds.load_bound_mass(weights, PARTITION) - _balance(weights)) * _scale(weights)


def _dense_proof(effort: Effort) -> Iterator[Finding]:
    yield jensen(MASS, _mass_sample, lambda v: _mass_gap(jnp.asarray(v["p"])))


def _dense_mode(effort: Effort) -> Iterator[Finding]:
    yield from _dense_proof(effort)

    def sides(point: Array) -> tuple[Array, Array]:
        logits = point.reshape(SELECTED.shape)
        dense = inter_group.inter_group_dense(logits, PARTITION)
        return _balance(jax.nn.softmax(logits)), PARTITION.num_groups * dense

    yield search(
        sides,
        SELECTED.size,
        effort,
        false_factor=0.9,
        what="2 tokens, 5 experts in groups of 3, 1, 1; logits",
    )


def _sparse_mode(effort: Effort) -> Iterator[Finding]:
    yield jensen(SELECTED_MASS, _mass_sample, lambda v: _mass_gap(selected_weights(v)))

    def right(point: Array) -> Array:
        logits, selected, weights = masked(point)
        return inter_group.inter_group_sparse(logits, selected, PARTITION) / _scale(weights)

    yield search_masked(_balance, right, effort)


def _selected_mode(effort: Effort) -> Iterator[Finding]:
    yield from _selected_proof()

    def right(point: Array) -> Array:
        logits, selected, weights = masked(point)
        return max(PER_GROUP) * inter_group.inter_group_selected(logits, selected) / _scale(weights)

    yield search_masked(_balance, right, effort)


def _selected_proof() -> Iterator[Finding]:
    """Jensen for the group sums, and token by token their squared norm against that of the weights."""

    def gap(weights: Array) -> Array:
        between = bounds.load_bound_selected(weights, PARTITION) - bounds.load_bound_mass(weights, PARTITION)
        return between * _scale(weights)

    yield jensen(SELECTED_MASS, _mass_sample, lambda v: _mass_gap(selected_weights(v)))
    yield concentration(lambda v: rows(gap, selected_weights(v)), normalised=False)


BOUND = r"\mathrm{CV}^2_{\mathrm{group}} + 1 \le \frac{M %s}{(\mathbb{E} \sum_e \tilde\pi_e)^2}"


def _mode(name: str, term: str, words: str, check: Callable, function: Callable, bound: Callable, remark: str) -> Claim:
    return Claim(
        id=f"himoe/thm4.1-{name}-mode",
        statement=BOUND % term,
        words=words,
        source="[himoe-theory], after [himoe] Thm 4.1 and [himoe-code]",
        recorded=Verdict.PROVED,
        check=check,
        assumptions=("the load of a group is the mean over tokens of its weights, not renormalised",),
        functions=(function, bound, metrics.group_cv),
        remark=remark,
    )


MODES = (
    _mode(
        "selected",
        r"K_{\max}\, \mathbb{E}\|\tilde\pi\|^2",
        "What the inter-group term of Eq. 6 bounds: the balance of mean selected weights, up to their mean sum.",
        _selected_mode,
        inter_group.inter_group_selected,
        bounds.load_bound_selected,
        "The term can fall because the selected weights lose mass, and then bounds nothing: the sum is part of it.",
    ),
    _mode(
        "sparse",
        r"\mathbb{E}\|\tilde m\|^2",
        "What the released code's sparse group mass bounds: the same balance with constant 1.",
        _sparse_mode,
        inter_group.inter_group_sparse,
        bounds.load_bound_mass,
        "Sharper than the selected form by up to K_max, equal to it for one expert a group.",
    ),
    _mode(
        "dense",
        r"\mathbb{E}\|m\|^2",
        "What the released code's default bounds: the balance of mean group mass, with constant 1 and no division, as "
        "the full softmax sums to 1.",
        _dense_mode,
        inter_group.inter_group_dense,
        bounds.load_bound_mass,
        "It says nothing about counts: grouped selection makes the counts of groups equal by construction.",
    ),
)


# §3.1


def _concentration_falls(effort: Effort) -> Iterator[Finding]:
    """From (1/2, 0 | 1/2, 0) to (2/5, 3/10 | 1/5, 1/10), the first of each pair selected."""
    partition = Partition((0, 0, 1, 1))
    before = jnp.array([[1 / 2, 0, 1 / 2, 0]])
    after, selected = jnp.array([[2 / 5, 3 / 10, 1 / 5, 1 / 10]]), jnp.array([[True, False, True, False]])
    where = (
        "4 experts in 2 groups of two, one selected in each; from probabilities (1/2, 0 | 1/2, 0) to (2/5, 3/10 | 1/5, "
        "1/10) the squared norm of the selected weights falls from 1/2 to 1/5; that of the group shares"
    )
    weights = jnp.where(selected, after, 0)
    falls = inter_group.inter_group_selected(jnp.log(after), selected)
    shares = jax.jit(bounds.mean_squared_share, static_argnums=1)
    code = [(shares(weights, partition), Fraction(5, 9)), (shares(before, partition), Fraction(1, 2))]
    code.append((falls, Fraction(1, 5)))
    holds = {"renormalised weights (1, 0) to (3/4, 1/4)": (Fraction(5, 8), Fraction(1))}
    yield witness(where, Fraction(5, 9), "<=", Fraction(1, 2), holds_at=holds, code=code)
    dense = [(inter_group.inter_group_dense(jnp.log(after), partition), Fraction(29, 50))]
    yield witness(
        f"{where[: where.index(' the squared')]} the squared norm of the full group masses",
        Fraction(29, 50),
        "<=",
        Fraction(1, 2),
        holds_at={"masses (1, 0) to (3/4, 1/4)": (Fraction(5, 8), Fraction(1))},
        code=dense,
    )


SECTION_3_1 = Claim(
    id="himoe/s3.1-group-concentration",
    statement=r"\|\tilde\pi'\|^2 < \|\tilde\pi\|^2 \;\Rightarrow\; \|r'\|^2 \le \|r\|^2",
    words="The inter-group term of Eq. 6 reduces the contribution of group-level concentration: where it falls, the "
    "group split does not become less even.",
    source="[himoe] section 3.1 with eq. (6)",
    recorded=Verdict.CORRECTED,
    check=_concentration_falls,
    functions=(inter_group.inter_group_selected, bounds.mean_squared_share),
    correction=Correction(
        BOUND % r"\mathbb{E}\|m\|^2" + r",\quad \textstyle\sum_e \pi_e = 1",
        "Dense group mass does bound group balance, with constant 1: CV² + 1 is at most M times the term.",
        _dense_proof,
    ),
    remark="Eq. 6 also falls when probability moves to experts that are not selected, whatever that does to groups.",
)


CLAIMS = (*MODES, SECTION_3_1)
