r"""Claims about the gradients of the orthogonality objectives, in the outputs x of a token's selected experts."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import Expr, IndexedBase, KroneckerDelta

from himoe_theory.objectives import outputs

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import T, index
from ..sums import Data, total
from ..symbolic import equation, for_sizes, identity

K, D = sp.symbols("K D", integer=True, positive=True)
SIZES = {T: 2, K: 3, D: 2}
x = IndexedBase("x", real=True)
eps = sp.Symbol("epsilon", positive=True)
t, v = index("t", T), index("v", T)
j, a, b = index("j", K), index("a", K), index("b", K)
d, f = index("d", D), index("f", D)
_EPSILON = 0.3


def _inner(token: sp.Idx, one: sp.Idx, other: sp.Idx) -> Expr:
    return total(x[token, one, f] * x[token, other, f], f)


def _paper(effort: Effort) -> Iterator[Finding]:
    def damped(route: sp.Idx, token: sp.Idx = t) -> Expr:
        return _inner(token, route, route) + eps

    def other(one: sp.Idx, two: sp.Idx) -> Expr:
        return 1 - KroneckerDelta(one, two)

    def weight(route: sp.Idx) -> Expr:
        return _inner(t, route, route) / damped(route) ** 2

    value = total(other(a, b) * _inner(v, a, b) ** 2 * _inner(v, b, b) / damped(b, v) ** 2, v, a, b)
    slope = 1 / damped(j) ** 2 - 2 * _inner(t, j, j) / damped(j) ** 3
    towards = total(other(j, a) * 2 * _inner(t, j, a) * (weight(a) + weight(j)) * x[t, a, d], a)
    target = total(other(j, a) * _inner(t, j, a) ** 2, a) * slope * x[t, j, d]
    printed = total(other(j, a) * _inner(t, j, a) / damped(a) * x[t, a, d], a)

    def computed(data: Data) -> np.ndarray:
        found = outputs.orthogonality_paper_grad(jnp.asarray(data["x"]), epsilon=_EPSILON)
        return np.moveaxis(np.asarray(found), 2, 0).transpose(0, 2, 1)

    yield identity(
        sp.diff(value, x[t, j, d]),
        towards + 2 * target,
        variants={"printed: own projection alone": printed, "as target of a projection left out": towards},
        code=computed,
        more_code=[(value, lambda data: outputs.orthogonality_paper(jnp.asarray(data["x"]), epsilon=_EPSILON))],
        sample=lambda rng: {"x": rng.normal(size=(2, 3, 2)), "epsilon": np.asarray(_EPSILON)},
        sizes=SIZES,
    )
    n = sp.Symbol("n", nonnegative=True)
    yield equation(
        1 / (n + eps) ** 2 - 2 * n / (n + eps) ** 3,
        -(n - eps) / (n + eps) ** 3,
        why="The weight n/(n + epsilon)^2 of a target has the derivative that the closed form names.",
    )


PAPER = Claim(
    id="gradient/orthogonality_paper",
    statement=r"\partial L_o/\partial x_j = \sum_{k \ne j} 2 c_{jk} (w_k + w_j) x_k "
    r"- 2 \sum_{k \ne j} c_{jk}^2 \tfrac{n_j - \epsilon}{(n_j + \epsilon)^3} x_j",
    words="Each output is a source and a target of projections, and has a term for both.",
    source="[guo] eq. (4)",
    recorded=Verdict.PROVED,
    check=_paper,
    assumptions=("the selection is a constant",),
    functions=(outputs.orthogonality_paper, outputs.orthogonality_paper_grad),
    remark="[guo] eq. (8), which is one of the false variants, has neither the factor 2n/(n + epsilon) nor the terms "
    "where x_j is the target.",
)


def _span_in_gram(gram: sp.Matrix) -> tuple[Expr, sp.Matrix]:
    """The sum of squared projections, and by the closed form the coefficient of x_k in its gradient by x_j."""
    routes = gram.shape[0]
    value, closed = sp.S.Zero, sp.zeros(routes, routes)
    for one in range(routes):
        others = [r for r in range(routes) if r != one]
        inner = gram.extract(others, [one])
        found = gram.extract(others, others).inv() * inner
        value += (inner.T * found)[0]
        onto = {r: found[k] for k, r in enumerate(others)}
        for k in others:
            closed[one, k] += 2 * onto[k]  # the projection of x_one itself
            closed[k, one] += 2 * onto[k]  # what x_k gets from the residual of x_one ...
            for r in others:
                closed[k, r] -= 2 * onto[k] * onto[r]  # ... which is x_one less its projection
    return value, closed


def _gram(routes: int) -> sp.Matrix:
    return sp.Matrix(routes, routes, lambda r, c: sp.Symbol(f"G{min(r, c)}{max(r, c)}", real=True))


def _span(effort: Effort) -> Iterator[Finding]:
    cases = []
    for routes in (2, 3):
        gram = _gram(routes)
        value, closed = _span_in_gram(gram)
        # By symmetry the first output stands for each.
        cases += [((1 + (k == 0)) * sp.diff(value, gram[0, k]), closed[0, k]) for k in range(routes)]
        _compare_span(gram, value, closed)
    yield for_sizes("2 and 3 independent outputs, any dimension", cases)


def _compare_span(gram: sp.Matrix, value: Expr, closed: sp.Matrix) -> None:
    """The expressions in inner products against the functions of outputs."""
    routes = gram.shape[0]
    rows = np.random.default_rng(0).normal(size=(routes, 4))
    at = {gram[r, c]: rows[r] @ rows[c] for r in range(routes) for c in range(routes)}
    mine = float(value.subs(at)), np.asarray(closed.subs(at), float) @ rows
    x = jnp.asarray(rows[None])
    np.testing.assert_allclose(routes * outputs.orthogonality_span(x), mine[0], rtol=1e-9)
    np.testing.assert_allclose(routes * outputs.orthogonality_span_grad(x)[0], mine[1], rtol=1e-9)


SPAN = Claim(
    id="gradient/orthogonality_span",
    statement=r"\partial L_o/\partial x_j = \tfrac{2}{TK} \big( \Pi_{-j} x_j + \textstyle\sum_{k \ne j} a_{kj} r_k "
    r"\big),\; r_k = x_k - \Pi_{-k} x_k = x_k - \textstyle\sum_{j \ne k} a_{kj} x_j",
    words="The projection of an output, and the residuals of the others in which it has a part.",
    source="[guo-code] L_o",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_span,
    assumptions=("the outputs of a token are independent",),
    functions=(outputs.orthogonality_span, outputs.orthogonality_span_grad),
    remark="Both sides are written in the inner products of the outputs, so that the dimension does not matter.",
)


def _released(effort: Effort) -> Iterator[Finding]:
    experts = np.array([[2, 0], [1, 2]])
    names = sp.Matrix(4, 2, lambda r, c: sp.Symbol(f"x{r}{c}", real=True))
    order = sorted(range(4), key=lambda row: (experts.reshape(-1)[row], row))
    value, closed = sp.S.Zero, sp.zeros(4, 2)
    gram = _gram(2)
    in_gram, coefficients = _span_in_gram(gram)
    for pair in (order[:2], order[2:]):
        rows = names.extract(pair, [0, 1])
        at = {gram[r, c]: (rows[r, :] * rows[c, :].T)[0] for r in range(2) for c in range(2)}
        value += in_gram.subs(at) / 4
        part = coefficients.subs(at) * rows / 4
        for place, row in enumerate(pair):
            closed[row, :] += part[place, :]
    yield for_sizes(
        "2 tokens, 2 experts each, dimension 2 (first component), rows regrouped across tokens",
        [(sp.diff(value, names[r, 0]), closed[r, 0]) for r in range(4)],
    )
    numbers = np.random.default_rng(1).normal(size=(4, 2))
    at = dict(zip(names, numbers.ravel(), strict=True))
    x, chosen = jnp.asarray(numbers.reshape(2, 2, 2)), jnp.asarray(experts)
    np.testing.assert_allclose(outputs.orthogonality_released(x, chosen), float(value.subs(at)), rtol=1e-9)
    mine = np.asarray(closed.subs(at), float).reshape(2, 2, 2)
    np.testing.assert_allclose(outputs.orthogonality_released_grad(x, chosen), mine, rtol=1e-9)


RELEASED = Claim(
    id="gradient/orthogonality_released",
    statement=r"\partial L_o(Px)/\partial x = P^\top (\partial L_o)(Px)",
    words="The gradient of the regrouped rows, carried back to the rows' places: it couples different tokens.",
    source="[guo-code] L_o as released",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_released,
    assumptions=("the selection is a constant",),
    functions=(outputs.orthogonality_released, outputs.orthogonality_released_grad),
)

CLAIMS = (PAPER, SPAN, RELEASED)
