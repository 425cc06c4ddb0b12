r"""Claims about gradient flow: what the z-loss does to logits, and the sum of router rows that softmax losses keep.

Flow on free logits of one token, $\dot s = -\partial L/\partial s$; with T tokens every rate carries 1/T. For a linear
router s = W x the rows move by $\dot w_e = -\sum_t \partial L/\partial s_{te}\, x_t$.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase

from himoe_theory import Sigmoid, objectives
from himoe_theory.objectives import intra_group, z

from ..ledger import Check, Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, N, e, generic, k, p, s, t, through_softmax
from ..search import search
from ..sums import Data, total
from ..symbolic import certificate, identity
from ..witnesses import witness
from ._gradients import i, routing

a = IndexedBase("a", real=True)
"""Any slopes in the probabilities."""


def _normaliser(token: sp.Idx = t) -> Expr:
    return total(sp.exp(s[token, i]), i)


def _velocity(expert: sp.Idx) -> Expr:
    """Of one token's logits under its z-loss."""
    return -sp.diff(sp.log(_normaliser()) ** 2, s[t, expert])


def _rate(effort: Effort) -> Iterator[Finding]:
    lse = sp.log(_normaliser())
    weight = sp.exp(s[t, i]) / _normaliser()
    slope = sp.diff(lse, s[t, e])

    def code(d: Data) -> Array:
        """Change of logsumexp along minus the gradient, token by token."""
        logits = jnp.asarray(d["s"])
        tokens = logits.shape[0]
        flow = -tokens * z.z_loss_grad(logits)
        return jax.jvp(lambda x: jax.nn.logsumexp(x, axis=1), (logits,), (flow,))[1]

    yield identity(
        total(slope * _velocity(e), e),
        -2 * lse * total(weight**2, i),
        variants={"without the squared norm": -2 * lse},
        code=code,
    )
    yield certificate(
        N * total(p[t, e] ** 2, e) - 1,
        N * total((p[t, e] - 1 / N) ** 2, e),
        assumptions=(NORMALISED,),
        code=lambda d: [-5 * intra_group.intra_group_global(jnp.log(row)[None]) - 1 for row in jnp.asarray(d["p"])],
    )

    def sides(point: Array) -> tuple[Array, Array]:
        return jnp.asarray(2 / point.size), -2 * intra_group.intra_group_global(point[None])

    yield search(sides, 4, effort, false_factor=0.95, what="4 experts; logits")


Z_RATE = Claim(
    id="z/rate",
    statement=r"\dot\ell = -2 \ell \|\pi\|^2,\; \ell = \mathrm{logsumexp}(s),\; \tfrac2N \le 2\|\pi\|^2 \le 2",
    words="The z-loss alone drives logsumexp to 0 at a rate between 2/N and 2, slowest at uniform routing.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_rate,
    assumptions=("gradient flow on the free logits of one token",),
    functions=(z.z_loss_grad,),
    remark="That the squared norm of probabilities is at most 1 is Eq. 11 of [himoe].",
)


def _gaps_shrink(effort: Effort) -> Iterator[Finding]:
    """Two experts with probabilities 3/4 and 1/4 and normaliser 1/2."""

    def change(normaliser: sp.Expr) -> sp.Expr:
        """Of the gap, under the z-loss."""
        return -2 * sp.log(normaliser) * (sp.Rational(3, 4) - sp.Rational(1, 4))

    logits = jnp.log(jnp.asarray([[3 / 8, 1 / 8]]))
    gradient = z.z_loss_grad(logits)[0]
    yield witness(
        "logits (ln 3/8, ln 1/8), logsumexp -ln 2: the rate of the gap",
        change(sp.Rational(1, 2)),
        "<=",
        0,
        holds_at={"logits (ln 3/2, ln 1/2), logsumexp ln 2": (change(sp.Integer(2)), 0)},
        code=[(gradient[1] - gradient[0], change(sp.Rational(1, 2)))],
    )


def _gaps(effort: Effort) -> Iterator[Finding]:
    lse = sp.log(_normaliser())
    yield identity(
        _velocity(e) - _velocity(k),
        -2 * lse * (sp.exp(s[t, e]) - sp.exp(s[t, k])) / _normaliser(),
        variants={"logits in place of probabilities": -2 * lse * (s[t, e] - s[t, k])},
        code=_gap_rates,
    )


def _gap_rates(d: Data) -> np.ndarray:
    """By (e, k, t)."""
    velocity = -len(d["s"]) * np.asarray(z.z_loss_grad(jnp.asarray(d["s"]))).T
    return velocity[:, None, :] - velocity[None, :, :]


Z_GAPS = Claim(
    id="z/gaps",
    statement=r"\tfrac{d}{dt} |s_i - s_j| \le 0",
    words="The z-loss shrinks the gaps between logits, and so evens out the probabilities.",
    source="[st-moe] eq. (5)",
    recorded=Verdict.CORRECTED,
    check=_gaps_shrink,
    assumptions=("gradient flow on the free logits of one token",),
    functions=(z.z_loss_grad,),
    correction=Correction(
        statement=r"\tfrac{d}{dt}(s_i - s_j) = -2 \ell (\pi_i - \pi_j)",
        words="Gaps shrink where logsumexp is positive and grow where it is negative.",
        check=_gaps,
    ),
    remark="The larger logit has the larger probability, so that the gap's rate has the sign of -l. The paper claims "
    "stability, not this; it is how the loss is often read.",
)


def _row_sum(effort: Effort) -> Iterator[Finding]:
    yield identity(
        total(through_softmax(lambda token, expert: a[token, expert], t, e), e),
        sp.S.Zero,
        assumptions=(NORMALISED,),
        variants={"normaliser of the softmax forgotten": total(a[t, e] * p[t, e], e)},
        sample=lambda rng: generic(rng) | {"a": rng.uniform(1, 2, (3, 5))},
    )
    _check_catalogue()


_OF_LOGITS = {name: each for name, each in objectives.OBJECTIVES.items() if each.of != "outputs"}


def _check_catalogue() -> None:
    """Of every objective that is a function of the softmax, the closed form's rows sum to zero; of z they do not."""
    d = NORMALISED.impose(generic(np.random.default_rng(5)))
    record = routing(d | {"first": np.eye(5)[[3, 1, 4]]})
    for name, objective in _OF_LOGITS.items():
        gradient = np.asarray(objective.gradient(objectives.View(record)))
        off = np.abs(gradient.sum(axis=1)).max() / np.abs(gradient).max()
        if (off < 1e-9) != objective.gauge_invariant:
            raise AssertionError(f"rows of the gradient of {name} sum to {off} of its largest entry")


ROW_SUM = Claim(
    id="conserved/sum-of-router-rows",
    statement=r"L = F(\mathrm{softmax}(Wx)) \;\Rightarrow\; \tfrac{d}{dt} \sum_e w_e = 0",
    words="Under gradient flow of any loss of the softmax alone, the sum of the router's rows stays as it was.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_row_sum,
    assumptions=("gradient flow: no momentum, no scaling by coordinates, no weight decay",),
    functions=tuple(objective.functions[1] for objective in _OF_LOGITS.values()),
    remark="Each token's gradient sums to zero over experts, whatever the slopes, and so does its sum with the tokens. "
    "The gradients of the catalogue are compared, all but z; the masked softmax over a selection has the same form.",
)


def _with_z(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "two experts with logits (0, 0), one token x = 1, z-loss: the rate of w_0 + w_1",
        -2 * sp.log(2),
        "=",
        0,
        holds_at={"logits (-ln 2, -ln 2), where logsumexp is 0": (sp.S.Zero, sp.S.Zero)},
        code=[(-z.z_loss_grad(jnp.zeros((1, 2))).sum(), -2 * sp.log(2))],
    )


def _with_sigmoid(effort: Effort) -> Iterator[Finding]:
    def loss(logits: Array) -> Array:
        return Sigmoid().value(logits)[0, 0]

    yield witness(
        "two experts with logits (0, 0), one token x = 1, the sigmoid score of the first for loss: the rate",
        -sp.Rational(1, 4),
        "=",
        0,
        holds_at={"the softmax's first probability for loss": (-sp.Rational(1, 4) + sp.Rational(1, 4), sp.S.Zero)},
        code=[(-jax.grad(loss)(jnp.zeros((1, 2))).sum(), -sp.Rational(1, 4))],
    )


def _with_adam(effort: Effort) -> Iterator[Finding]:
    def first_step(gradient: tuple[int, ...]) -> int:
        """The first step of Adam, without its epsilon, is the sign of each entry: rate -1 or +1."""
        return -sum((entry > 0) - (entry < 0) for entry in gradient)

    adam = optax.adam(1.0, eps=0.0)
    gradient = jnp.asarray([2.0, -1.0, -1.0])
    with jax.numpy_dtype_promotion("standard"):  # optax raises numbers to its integer step count
        update, _ = adam.update(gradient, adam.init(gradient))
    yield witness(
        "a gradient (2, -1, -1), of sum 0, first step of Adam: the change of w_0 + w_1 + w_2 over the rate",
        first_step((2, -1, -1)),
        "=",
        0,
        holds_at={"a gradient (1, -1, 0)": (first_step((1, -1, 0)), 0)},
        code=[(update.sum(), first_step((2, -1, -1)))],
    )


def _broken(name: str, words: str, check: Check, functions: tuple[Callable[..., object], ...]) -> Claim:
    return Claim(
        id=f"conserved/not-under-{name}",
        statement=r"\tfrac{d}{dt} \sum_e w_e = 0",
        words=words,
        source="[himoe-theory] D10",
        recorded=Verdict.REFUTED,
        check=check,
        functions=functions,
    )


BROKEN = (
    _broken("z", "The sum of the router's rows is kept under the z-loss too.", _with_z, (z.z_loss_grad,)),
    _broken("sigmoid", "The sum is kept for sigmoid scores too.", _with_sigmoid, (Sigmoid.value,)),
    _broken("adam", "The sum is kept under Adam too.", _with_adam, ()),
)

CLAIMS = (Z_RATE, Z_GAPS, ROW_SUM, *BROKEN)
