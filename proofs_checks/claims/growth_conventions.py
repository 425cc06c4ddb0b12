r"""Claims about what the growth rates near uniform routing take for granted (D1): that it is a fixed point, the common
mode of the tokens, and the threshold between groups."""

from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import IndexedBase

from himoe_theory import Partition, dynamics, routers
from himoe_theory.objectives import inter_group_dense_grad

from ..ledger import Claim, Correction, Effort, Finding, Verdict, about
from ..notation import GROUP_OF, B, M, N, T, e, g, h, index, j, p, t, through_softmax
from ..sums import Data, total
from ..symbolic import certificate, equation, identity
from ..witnesses import witness
from ._gradients import i, u, v

PARTITION = Partition(tuple(GROUP_OF.tolist()))


# Unequal groups


def _two_and_one(effort: Effort) -> Iterator[Finding]:
    def slope(sizes: tuple[int, ...]) -> Fraction:
        """Of an expert of the last group, at uniform routing."""
        experts = sum(sizes)
        masses = [Fraction(size, experts) for size in sizes]
        return Fraction(2, experts) * (masses[-1] - sum(x * x for x in masses))

    gradient = jax.jit(lambda s: inter_group_dense_grad(s, Partition((0, 0, 1))))(jnp.zeros((1, 3)))
    yield witness(
        "3 experts in groups of 2 and 1, all probabilities 1/3: slope of the sum of squared masses in the logit of the "
        "expert that is alone",
        slope((2, 1)),
        "=",
        0,
        holds_at={"groups of 2 and 2": (slope((2, 2)), 0)},
        code=[(gradient[0, 2], slope((2, 1))), (gradient[0, 0], Fraction(2, 27))],
    )


def _at_uniform(effort: Effort) -> Iterator[Finding]:
    def mass(group: sp.Idx, token: sp.Idx) -> sp.Expr:
        return total(B[group, i] * p[token, i], i)

    field = through_softmax(lambda token, k: 2 * total(B[g, k] * mass(g, token), g), t, e)
    size = total(B[h, j], j)
    yield identity(
        field.replace(lambda x: isinstance(x, sp.Indexed) and x.base == p, lambda x: 1 / N),
        2 / N**2 * (total(B[h, e] * size, h) - total(size**2, h) / N),
        variants={"against the mean size": 2 / N**2 * (total(B[h, e] * size, h) - N / M)},
        sample=lambda rng: {"B": PARTITION.indicator().T.astype(float)},
        code=lambda d: inter_group_dense_grad(jnp.zeros((1, 5)), PARTITION)[0],
    )


UNEQUAL = Claim(
    id="growth/unequal-groups",
    statement=r"\pi = 1/N \;\Rightarrow\; \partial_s \textstyle\sum_g m_g^2 = 0",
    words="Uniform routing is a fixed point of the dense inter-group term.",
    source="[himoe-theory] D1",
    recorded=Verdict.CORRECTED,
    check=_two_and_one,
    functions=(inter_group_dense_grad,),
    correction=Correction(
        r"\pi = 1/N \;\Rightarrow\; \partial_{s_e} \sum_h m_h^2 = \frac{2}{N^2} "
        r"\Big(S_{g(e)} - \frac1N \sum_h S_h^2\Big)",
        "Exactly where all groups have one size; otherwise groups larger than the mean size of an expert's group are "
        "pushed down and smaller ones up.",
        _at_uniform,
    ),
    remark="So the growth rates of D1 are for equal groups, as the notes say; for unequal ones the field is linearised "
    "where it rests.",
)


# The common mode of the tokens

D = sp.Symbol("D", integer=True, positive=True)
x = IndexedBase("x", real=True)
r = index("r", D)
WITHIN = np.array([1.0, -1.0, 0.0])
"""An expert mode of three experts in one group."""


def _centre(entry: sp.Idx) -> sp.Expr:
    return total(x[u, entry], u) / T


def _inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"x": rng.normal(size=(3, 4)) + 0.7}


def _spread_along_mean(d: Data) -> float:
    """Measured on a linear router whose rows move along the mean: its rate is 2/N² times the eigenvalue."""
    inputs, mean = d["x"], d["x"].mean(axis=0)
    gradient = dynamics.LogitGradient(routers.dense(Partition((0, 0, 0))), {"intra_group_global": 1.0})
    field = dynamics.LinearRouter(gradient, jnp.asarray(inputs))
    rate, _ = dynamics.growth_rate(field, jnp.zeros((3, 4)), jnp.asarray(np.outer(WITHIN, mean)))
    square = mean @ mean
    return (rate / float(dynamics.contrast_within(1.0, 3)) - square) * square


def _common_mode(effort: Effort) -> Iterator[Finding]:
    square = total(_centre(r) ** 2, r)
    found = identity(
        total(x[t, r] * x[v, r], r, t, v) / T**2,
        square,
        variants={"mean of the squared norms": total(x[t, r] ** 2, r, t) / T},
        sample=_inputs,
        sizes={T: 3, D: 4},
    )
    yield about("quotient of the Gram matrix at the constant mode", found)
    product = total(x[t, r] * _centre(r), r)
    apart = total((x[t, r] - _centre(r)) * total(x[v, r], v) / T, r)
    found = certificate(
        total(product**2, t) / T - square**2,
        total(apart**2, t) / T,
        variants={"spread in all directions": total((x[t, r] - _centre(r)) ** 2, t, r) / T},
        sample=_inputs,
        sizes={T: 3, D: 4},
        code=_spread_along_mean,
    )
    yield about("quotient at rows along the mean, times the squared norm of the mean", found)


COMMON_MODE = Claim(
    id="growth/common-mode",
    statement=r"\kappa_{\max} \ge \|\bar x\|^2 + \frac{\bar x^\top C \bar x}{\|\bar x\|^2} \ge \|\bar x\|^2",
    words="The largest eigenvalue of the token Gram matrix is at least the squared norm of the mean token, plus the "
    "tokens' variance along it. The mode that is constant over tokens is exact, with just the squared norm, if and "
    "only if no token deviates along the mean.",
    source="[himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_common_mode,
    assumptions=("a linear router; C is the covariance of the tokens, whose mean is not 0",),
    functions=(dynamics.growth_rate, dynamics.LinearRouter, dynamics.contrast_within),
    remark="Both are quotients of Rayleigh. The Gram matrix takes the constant mode to x_t times the mean token, so it "
    "is an eigenvector just if that is the same for all tokens. For isotropic tokens of variance s^2 in each "
    "direction the eigenvalue is the squared norm plus s^2: what the notes of this package give is a lower bound, good "
    "where the mean is large against the spread along it.",
)


# Between groups


def _between(effort: Effort) -> Iterator[Finding]:
    intra, inter, alpha = sp.symbols("lambda_intra lambda_inter alpha", real=True)
    experts, size = sp.symbols("N S", positive=True)
    numbers = {intra: 0.7, inter: 0.4, alpha: 0.3, experts: 6, size: 2}
    for pull, rate_of in ((2, dynamics.common_between_full), (1, dynamics.common_between_frozen)):
        rate = 2 * (intra - size * inter) / experts**2 - pull * alpha / experts
        if abs(float(rate_of(0.7, 0.4, 0.3, 6, 2)) - float(rate.subs(numbers))) > 1e-15:
            raise AssertionError(f"himoe_theory's rate for c = {pull} is not {rate}")
        excess = intra - size * inter - pull * alpha * experts / 2
        found = equation(
            rate,
            2 / experts**2 * excess,
            variants={"threshold of modes within groups": 2 / experts**2 * (excess + size * inter)},
            why="Rate and distance to the threshold differ by a positive factor, so they have the same sign.",
        )
        yield about(f"c = {pull}", found)


BETWEEN = Claim(
    id="growth/critical-load-between",
    statement=r"\frac{2(\lambda_{intra} - S\lambda_{inter})}{N^2} - \frac{c\alpha}{N} > 0 \iff "
    r"\lambda_{intra} - S\lambda_{inter} > \frac{c\,\alpha N}{2}",
    words="What all tokens share between groups grows exactly if lambda_intra exceeds S lambda_inter by more than half "
    "of c alpha N, c = 2 for the full load and 1 for the frozen one.",
    source="[himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_between,
    assumptions=("equal groups of S experts", "exactly uniform routing, to first order"),
    functions=(dynamics.common_between_full, dynamics.common_between_frozen),
    remark="At the published (0.1, 0.05) the left side is 0 for S = 2 and negative for S = 16: any load suffices.",
)

CLAIMS = (UNEQUAL, COMMON_MODE, BETWEEN)
