"""Claims of Guo et al. about expert outputs: the forms of L_o, and the effects that were measured."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr

from himoe_theory import metrics
from himoe_theory.objectives import (
    orthogonality_paper,
    orthogonality_paper_grad,
    orthogonality_released,
    orthogonality_span,
)

from ..ledger import Claim, Effort, Finding, Verdict, unverifiable
from ..search import measured
from ..symbolic import for_sizes
from ..witnesses import witness
from .guo import Outputs, l_o, rational, vectors

# The three forms of L_o


def _span(x: Outputs) -> Expr:
    """The sum over experts of the squared projection on the span of the others, for independent outputs."""
    total = sp.S.Zero
    for k, own in enumerate(x):
        others = sp.Matrix([list(other) for n, other in enumerate(x) if n != k])
        inner = others * sp.Matrix(list(own))
        total += (inner.T * (others * others.T).inv() * inner)[0]
    return total


def _two_experts(effort: Effort) -> Iterator[Finding]:
    cases = ((l_o(x, sp.S.Zero) / 2, _span(x) / 2) for x in (vectors(2, 2), vectors(2, 3)))
    yield for_sizes("2 selected experts in 2 and 3 dimensions, any outputs that are not 0", cases)
    x = [[sp.S.One, sp.Integer(-2)], [sp.Rational(1, 2), sp.Integer(3)]]
    code = [
        (jax.jit(lambda y: orthogonality_paper(y, epsilon=0.0))(rational(x)) / 2, l_o(x, sp.S.Zero) / 2),
        (jax.jit(orthogonality_span)(rational(x)), _span(x) / 2),
    ]
    where = "outputs (1, -2), (1/2, 3)"
    yield witness(where, l_o(x, sp.S.Zero), "=", _span(x), holds_at={"orthogonal outputs": (0, 0)}, code=code)


TWO_EXPERTS = Claim(
    id="guo/l-o-two-experts",
    statement=r"L_o^{\mathrm{span}} = \tfrac{1}{2T} L_o \quad (k = 2,\ \varepsilon = 0)",
    words="For two selected experts the released form (Gram-Schmidt) and the printed one agree, up to the average.",
    source="[himoe-theory], about [guo] eq. (4) and [guo-code]",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_two_experts,
    functions=(orthogonality_paper, orthogonality_span),
)


def _three_experts(effort: Effort) -> Iterator[Finding]:
    one, zero = sp.S.One, sp.S.Zero
    twice = [[one, zero, zero], [one, one, zero], [one, zero, one]]
    missed = [[zero, one, zero], [one, zero, zero], [one, one, one]]
    apart = [[one, zero, zero], [zero, one, zero], [zero, zero, one]]
    paper, span = jax.jit(lambda y: orthogonality_paper(y, epsilon=0.0)), jax.jit(orthogonality_span)
    for x, where in (
        (twice, "outputs (1, 0, 0), (1, 1, 0), (1, 0, 1), whose overlap the printed form counts more than once"),
        (missed, "outputs (0, 1, 0), (1, 0, 0), (1, 1, 1), part of whose overlap the printed form misses"),
    ):
        left, right = l_o(x, zero) / 3, _span(x) / 3
        yield witness(
            f"{where}; printed form over the number of experts, and released form",
            left,
            "=",
            right,
            holds_at={"orthogonal outputs": (l_o(apart, zero), _span(apart))},
            code=[(paper(rational(x)) / 3, left), (span(rational(x)), right)],
        )


THREE_EXPERTS = Claim(
    id="guo/l-o-three-experts",
    statement=r"L_o^{\mathrm{span}} = \tfrac{1}{kT} L_o \quad (k = 3,\ \varepsilon = 0)",
    words="The printed and the released form of the orthogonality objective agree for three selected experts.",
    source="[guo] eq. (4), [guo-code]",
    recorded=Verdict.REFUTED,
    check=_three_experts,
    functions=(orthogonality_paper, orthogonality_span),
    remark="They differ in both directions: one-by-one projections count overlap more than once, or miss what only two "
    "outputs together span.",
)


def _mixes_tokens(effort: Effort) -> Iterator[Finding]:
    one, zero = sp.S.One, sp.S.Zero
    token = [[one, zero], [zero, one]]
    outputs, experts = jnp.tile(rational(token), (2, 1, 1)), jnp.array([[0, 1], [0, 1]])
    yield witness(
        "2 tokens, both with expert 1's output (1, 0) and expert 2's (0, 1), orthogonal for each token; the released "
        "loss compares (1, 0) with (1, 0) and (0, 1) with (0, 1)",
        sp.S.One,
        "=",
        _span(token) / 2,
        holds_at={"one token": (_span(token) / 2, 0)},
        code=[
            (jax.jit(orthogonality_released)(outputs, experts), 1),
            (jax.jit(orthogonality_released)(outputs[:1], experts[:1]), 0),
            (jax.jit(orthogonality_span)(outputs), 0),
        ],
    )


MIXES_TOKENS = Claim(
    id="guo/l-o-released-mixes-tokens",
    statement=r"L_o^{\mathrm{released}} = L_o^{\mathrm{span}}",
    words="The released code compares the outputs of one token's experts.",
    source="[guo-code]",
    recorded=Verdict.REFUTED,
    check=_mixes_tokens,
    functions=(orthogonality_released, orthogonality_span),
    remark="Outputs are concatenated expert by expert and cut into rows of k, so a row holds different tokens, mostly "
    "of one expert: the loss makes one expert's outputs differ between tokens.",
)


# Measured effects


def _descends(of: Callable[[Array], Array], gradient: Callable[[Array], Array], batches: np.ndarray) -> float:
    """Share of batches on which descending the gradient lowers `of`, to first order."""

    def slope(x: Array) -> Array:
        return (jax.grad(of)(x) * gradient(x)).sum()

    return float((np.asarray(jax.jit(jax.vmap(slope))(jnp.asarray(batches))) > 0).mean())


def _overlap_falls(effort: Effort) -> Iterator[Finding]:
    batches = np.random.default_rng(effort.seed).normal(size=(200, 16, 3, 4))
    share = _descends(metrics.expert_overlap, orthogonality_paper_grad, batches)
    yield measured(
        "200 random batches of 16 tokens with 3 outputs in 4 dimensions",
        [("share of batches in which a small step down L_o lowers the overlap", 1.0, share)],
        within=0.01,
        wrong={"never": [0.0], "half of them": [0.5]},
    )


OVERLAP_FALLS = Claim(
    id="guo/effect-overlap",
    statement=r"\langle \nabla L_o, \nabla\, \mathrm{overlap} \rangle > 0",
    words="Descending the orthogonality objective lowers the overlap of the experts' outputs.",
    source="[guo] experiments",
    recorded=Verdict.SUPPORTED,
    check=_overlap_falls,
    functions=(orthogonality_paper_grad, metrics.expert_overlap),
    remark="On outputs as free variables: the direction only. Overlap is the mean squared cosine, a definition of this "
    "package, as the paper prints none.",
)


def _not_here(reason: str) -> Callable[[Effort], tuple[Finding, ...]]:
    return lambda effort: unverifiable(reason)


AMOUNTS = Claim(
    id="guo/effect-amounts",
    statement=r"\text{overlap} -45\,\%, \quad \text{routing variance} +150\,\%, \quad "
    r"\mathrm{RMSE}(\mathrm{MaxVio}) < 0.03",
    words="How much the two objectives change overlap, routing variance and balance.",
    source="[guo] abstract and experiments",
    recorded=Verdict.UNVERIFIABLE,
    check=_not_here(
        "The amounts belong to fine-tuned models that are not published with their routing; no formula gives them, and "
        "the overlap they refer to is not defined."
    ),
    remark="The directions are for simulation and language model: none, aux, aux + L_o, aux + L_v, all.",
)
MUTUAL = Claim(
    id="guo/effect-mutual",
    statement=r"L_v \text{ lowers overlap}, \quad L_o \text{ raises routing variance}",
    words="Each objective helps what the other is for.",
    source="[guo] experiments",
    recorded=Verdict.UNVERIFIABLE,
    check=_not_here(
        "Neither objective has a gradient on the other's parameters in its own layer, so any such effect comes through "
        "the task or the layers in between, and needs training to be seen."
    ),
)


CLAIMS = (TWO_EXPERTS, THREE_EXPERTS, MIXES_TOKENS, OVERLAP_FALLS, AMOUNTS, MUTUAL)
