r"""Claims about the onset of specialisation (D6) and about the collapse of groups (D11).

Expectations are means over tokens t of any number, so that what is proved holds for every distribution that is given
by a sample of any size.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import dynamics

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import Assumption, N, T, Values, index, t
from ..search import QUICK, measured
from ..sums import Data, Rule, total
from ..symbolic import equation, identity
from ..witnesses import witness

D = sp.Symbol("D", integer=True, positive=True)
LINEAR = {T: 5, N: 3, D: 2}
EPS, ETA_W, ETA_V, VALUE = sp.Symbol("epsilon"), *sp.symbols("eta_w eta_v", positive=True), sp.Symbol("lambda_A")
x, r = sp.IndexedBase("x", real=True), sp.IndexedBase("r", real=True)
w, delta, phi = (sp.IndexedBase(name, real=True) for name in ("w", "delta", "phi"))
i = index("i", N)
a, b = index("a", D), index("b", D)


def _field(weights: sp.IndexedBase, expert: sp.Idx, token: sp.Idx = t) -> sp.Expr:
    return total(weights[expert, a] * x[token, a], a)


def _loss_derivative(order: int) -> sp.Expr:
    r"""Derivative at $\varepsilon = 0$ of half the mean squared error, routers and deviations times $\varepsilon$.

    $\frac12 E(r - \varepsilon \sum_i e^{\varepsilon z_i} \delta_i x / \sum_i e^{\varepsilon z_i})^2$ with
    $z_i = w_i x$ and $r = y - \bar v x$. Derivatives of the two sums at 0 are sums of powers of z, which are put in
    after the quotient has been differentiated in plain symbols.
    """
    up, down = sp.symbols("up:4"), sp.symbols("down:4")
    series = [sum(s[m] * EPS**m / sp.factorial(m) for m in range(4)) for s in (up, down)]
    plain = sp.diff((r[t] - EPS * series[0] / series[1]) ** 2 / 2, EPS, order).subs(EPS, 0)
    field = _field(w, i)
    moments = {s: total(field**m, i) for m, s in enumerate(down)}
    moments |= {s: total(field**m * _field(delta, i), i) for m, s in enumerate(up)}
    return total(sp.expand(plain.subs(down[0], N)).xreplace(moments), t) / T


def _sample(rng: np.random.Generator) -> Values:
    shapes = {"x": (5, 2), "r": (5,), "w": (3, 2), "delta": (3, 2)}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def _centred(name: str) -> Assumption:
    base = {"w": w, "delta": delta}[name]
    return Assumption(
        f"{name} sums to zero over experts",
        (Rule(i, base[i, a], sp.S.Zero),),
        lambda d: d | {name: d[name] - d[name].mean(axis=0)},
    )


CENTRED = (_centred("w"), _centred("delta"))


def mixture_loss(routers: Array, experts: Array, inputs: Array, targets: Array) -> Array:
    """Half the mean squared error of linear experts under a linear softmax router, all experts used."""
    probs = jax.nn.softmax(inputs @ routers.T)
    return jnp.square(targets - (probs * (inputs @ experts.T)).sum(axis=1)).mean() / 2


def _derivatives(d: Data, order: int) -> float:
    """The derivative of that loss at the symmetric state along (w, delta), by autodiff."""
    inputs, along_w, along_v = (jnp.asarray(d[name]) for name in ("x", "w", "delta"))
    shared = jnp.array([0.3, -0.7])
    targets = jnp.asarray(d["r"]) + inputs @ shared

    def value(scale: Array) -> Array:
        return mixture_loss(scale * along_w, shared + scale * along_v, inputs, targets)

    for _ in range(order):
        value = jax.jacfwd(value)
    return float(jax.jit(value, compiler_options=QUICK)(jnp.zeros(())))


MOMENT = total(r[t] * x[t, a] * x[t, b], t) / T
"""A."""


def _saddle(effort: Effort) -> Iterator[Finding]:
    second = _loss_derivative(2)
    bilinear = total(w[i, a] * MOMENT * delta[i, b], a, b, i)
    curvature = total(total(delta[i, a] * x[t, a], a) ** 2, i, t) / (N * T)

    def code(d: Data) -> float:
        moment = np.asarray(dynamics.residual_moment(jnp.asarray(d["x"]), jnp.asarray(d["r"])))
        value = -2 / 3 * np.einsum("ia,ab,ib->", d["w"], moment, d["delta"])
        if abs(_derivatives(d, 2) - value) > 1e-12:
            raise AssertionError(f"autodiff gives {_derivatives(d, 2)}, the moment {value}")
        return float(value)

    yield identity(
        second,
        -2 * bilinear / N,
        assumptions=CENTRED[1:],
        variants={"expert curvature stays": curvature - 2 * bilinear / N},
        code=code,
        sample=_sample,
        sizes=LINEAR,
    )


SADDLE = Claim(
    id="specialisation/saddle",
    statement=r"L = L_0 - \frac1N \sum_i w_i^\top A\, \delta_i + O(3), \quad A = E[r\, x x^\top]",
    words="Near equal experts and a zero router the loss is bilinear in router rows and expert deviations: the "
    "curvature of the experts drops out.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_saddle,
    assumptions=("deviations sum to zero over experts", "linear experts, all used, half the squared error"),
    functions=(dynamics.residual_moment,),
    remark="The router rows need not sum to zero: a common row changes no probability.",
)


def _rate(effort: Effort) -> Iterator[Finding]:
    # By `SADDLE` the flow is w' = eta_w A delta/N and delta' = eta_v A w/N; rows are c_i times an eigenvector.
    eigen = Assumption(
        "phi is an eigenvector of A with the eigenvalue lambda_A",
        (Rule(b, A[a, b] * phi[b], VALUE * phi[a]),),
        lambda d: d | dict(zip(("A", "lambda_A", "phi"), _eigenpair(d["A"]), strict=True)),
    )
    for rate, other in ((ETA_W, ETA_V), (ETA_V, ETA_W)):
        pushed = rate / N * total(A[a, b] * sp.sqrt(other) * c[i] * phi[b], b)
        yield identity(
            pushed,
            sp.sqrt(ETA_W * ETA_V) * VALUE / N * sp.sqrt(rate) * c[i] * phi[a],
            assumptions=(eigen,),
            variants={"no root": ETA_W * ETA_V * VALUE / N * sp.sqrt(rate) * c[i] * phi[a]},
            sample=_square,
            sizes=LINEAR,
        )


def _curvature(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(1)
    pairs = []
    for experts in (2, 4):
        inputs, shared = rng.normal(size=(12, 3)), rng.normal(size=3)
        residual = np.abs(inputs[:, 0])
        residual -= inputs @ np.linalg.lstsq(inputs, residual, rcond=None)[0]
        start = (jnp.zeros((experts, 3)), jnp.tile(shared, (experts, 1)))
        loss = _flat_loss(experts, jnp.asarray(inputs), jnp.asarray(residual + inputs @ shared))
        hessian = jax.jit(jax.hessian(loss), compiler_options=QUICK)(jnp.concatenate(start).ravel())
        moment = dynamics.residual_moment(jnp.asarray(inputs), jnp.asarray(residual))
        predicted = float(dynamics.smallest_curvature(moment, experts))
        pairs.append((f"N = {experts}", predicted, float(np.linalg.eigvalsh(np.asarray(hessian))[0])))
    doubled = [2 * predicted for _, predicted, _ in pairs]
    yield measured(
        "smallest eigenvalue of the whole Hessian by autodiff, 12 tokens of 3 dimensions, y = |x_1|",
        pairs,
        within=1e-9,
        wrong={"without 1/N": [2 * pairs[0][1], 4 * pairs[1][1]], "doubled": doubled},
    )


A, c = sp.IndexedBase("A", real=True), sp.IndexedBase("c", real=True)


def _square(rng: np.random.Generator) -> Values:
    matrix = rng.normal(size=(2, 2))
    rates = {"eta_w": np.asarray(0.3), "eta_v": np.asarray(0.8), "lambda_A": np.asarray(0.37)}
    return rates | {"A": matrix, "c": rng.normal(size=3), "phi": rng.normal(size=2)}


def _eigenpair(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A symmetric matrix, one of its eigenvalues, and the eigenvector."""
    symmetric = matrix + matrix.T
    values, vectors = np.linalg.eigh(symmetric)
    return symmetric, np.asarray(values[-1]), vectors[:, -1]


def _flat_loss(experts: int, inputs: Array, targets: Array):
    def loss(flat: Array) -> Array:
        routers, rows = jnp.split(flat.reshape(2 * experts, -1), 2)
        return mixture_loss(routers, rows, inputs, targets)

    return loss


RATE = Claim(
    id="specialisation/rate",
    statement=r"w_i, \delta_i \propto e^{t\,|\lambda(A)|\sqrt{\eta_w \eta_v}/N}",
    words="Router rows and expert deviations grow together along eigenvectors of A, at a rate that falls as 1/N.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_rate,
    assumptions=("deviations sum to zero over experts", "to leading order, gradient flow"),
    functions=(dynamics.specialisation_rates,),
    remark="For a negative eigenvalue the deviations have the opposite sign; rows and deviations are in the ratio "
    r"$\sqrt{\eta_w} : \sqrt{\eta_v}$.",
)

CURVATURE = Claim(
    id="specialisation/curvature",
    statement=r"\min \mathrm{spec}\,\nabla^2 L = -\max|\lambda(A)|/N",
    words="The steepest way down from the symmetric state has this curvature.",
    source="[himoe-theory] D6",
    recorded=Verdict.SUPPORTED,
    check=_curvature,
    functions=(dynamics.smallest_curvature,),
    remark="The Hessian is taken in all directions: those in which the experts move together have curvature of at "
    "least 0.",
)


def _conserved(effort: Effort) -> Iterator[Finding]:
    def bilinear(left: sp.IndexedBase, right: sp.IndexedBase) -> sp.Expr:
        return total(left[i, a] * MOMENT * right[i, b], a, b)

    # d/dt (|w_i|^2/eta_w - |delta_i|^2/eta_v) = 2 w_i A delta_i/N - 2 delta_i A w_i/N.
    yield identity(
        2 * bilinear(w, delta) / N,
        2 * bilinear(delta, w) / N,
        variants={"of itself": 2 * bilinear(w, w) / N},
        sample=_sample,
        sizes=LINEAR,
    )


CONSERVED = Claim(
    id="specialisation/conserved",
    statement=r"\|w_i\|^2/\eta_w - \|\delta_i\|^2/\eta_v = \mathrm{const}",
    words="While specialisation starts, router rows and deviations gain squared norm in the ratio of their rates.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_conserved,
    assumptions=("the leading order of `specialisation/saddle`, gradient flow",),
)


def _linear_target(effort: Effort) -> Iterator[Finding]:
    gap = sp.IndexedBase("gap", real=True)
    fitted = Assumption(
        "the shared expert is the least-squares fit",
        (Rule(t, r[t] * x[t, a], sp.S.Zero),),
        lambda d: d | {"r": d["r"] - d["x"] @ np.linalg.lstsq(d["x"], d["r"], rcond=None)[0]},
    )
    # For a target v* x the residual is gap x with gap = v* - v, so that the left side is 0, and with it every residual.
    yield identity(
        total(r[t] * (r[t] - total(gap[a] * x[t, a], a)), t) / T,
        total(r[t] ** 2, t) / T,
        assumptions=(fitted,),
        sample=lambda rng: _sample(rng) | {"gap": rng.normal(size=2)},
        sizes=LINEAR,
    )
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(20, 3))
    targets = inputs @ np.array([1.0, -2.0, 0.5])
    residual = targets - inputs @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    found = dynamics.residual_moment(jnp.asarray(inputs), jnp.asarray(residual))
    if float(jnp.abs(found).max()) > 1e-13:
        raise AssertionError(f"A = {found} for a linear target")


LINEAR_TARGET = Claim(
    id="specialisation/linear-target",
    statement=r"y = v^* \cdot x \implies E[r^2] = 0 \implies A = 0",
    words="A linear target never makes linear experts specialise: nothing is left after the shared fit.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_linear_target,
    assumptions=("the shared expert is the least-squares fit",),
    functions=(dynamics.residual_moment,),
)


def _cubic(effort: Effort) -> Iterator[Finding]:
    third = _loss_derivative(3)
    cubic = -3 * total(r[t] * total(_field(w, i) ** 2 * _field(delta, i), i), t) / (N * T)
    yield identity(
        third,
        cubic,
        assumptions=CENTRED,
        code=lambda d: _derivatives(d, 3),
        sample=_sample,
        sizes=LINEAR,
    )
    # One dimension, one token: with two experts the rows are opposite, and so are the deviations.
    one, two = sp.symbols("w_1 delta_1", real=True)
    yield equation(one**2 * two + (-one) ** 2 * (-two), sp.S.Zero, why="N = 2: the cubic sum over experts")
    rows = (2, -1, -1)
    yield witness(
        "N = 3, one token x = 1, r = 1, w = delta = (2, -1, -1)",
        sp.Rational(-3, 3) * sum(v**3 for v in rows),
        "<=",
        sp.Rational(-6),
        holds_at={"twice as large": (sp.Integer(-12), sp.Rational(-6))},
    )


CUBIC = Claim(
    id="specialisation/next-order",
    statement=r"\partial^3 L = -\frac3N \sum_i E[r\,(w_i \cdot x)^2 (\delta_i \cdot x)], \ "
    r"\ne 0 \text{ for } N \ge 3, \ 0 \text{ for } N = 2",
    words="The next order of the loss is cubic for three or more experts, and quartic for two, by exchanging them.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_cubic,
    assumptions=("rows and deviations sum to zero over experts",),
    remark="At w = delta = (2, -1, -1), one token with x = r = 1, the third derivative is -6.",
)
CLAIMS = (SADDLE, RATE, CURVATURE, CONSERVED, LINEAR_TARGET, CUBIC)
