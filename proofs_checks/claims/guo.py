"""Claims of Guo et al. about their two objectives: gradients, forms in paper and code, and how they meet Hi-MoE."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase, KroneckerDelta

from himoe_theory import metrics
from himoe_theory.objectives import (
    orthogonality_paper,
    orthogonality_paper_grad,
    variance_across_experts,
    variance_across_tokens,
)

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, N, T, e, index, j, p, t, t1
from ..search import search
from ..sums import total
from ..symbolic import certificate, equation, for_sizes, identity
from ..witnesses import witness
from .hi_moe_information import ANY, SAME, pairs_of_tokens, probabilities

Outputs = Sequence[Sequence[Expr]]
"""Output vectors of a token's selected experts."""


def dot(x: Sequence[Expr], y: Sequence[Expr]) -> Expr:
    """Inner product."""
    return sp.Add(*(a * b for a, b in zip(x, y, strict=True)))


def l_o(x: Outputs, epsilon: Expr) -> Expr:
    """The orthogonality objective of one token, as printed."""
    pairs = [(a, b) for a in range(len(x)) for b in range(len(x)) if a != b]
    return sp.Add(*(dot(x[a], x[b]) ** 2 * dot(x[b], x[b]) / (dot(x[b], x[b]) + epsilon) ** 2 for a, b in pairs))


def _printed(x: Outputs, epsilon: Expr, i: int) -> Expr:
    """Component i of Eq. 8 for the first expert."""
    return sp.Add(*(dot(x[0], other) / (dot(other, other) + epsilon) * other[i] for other in x[1:]))


def _full(x: Outputs, epsilon: Expr, i: int) -> Expr:
    """The same component of the gradient, as himoe_theory writes it."""

    def share(y: Sequence[Expr]) -> Expr:
        return dot(y, y) / (dot(y, y) + epsilon) ** 2

    own = dot(x[0], x[0])
    across = (2 * dot(x[0], other) * (share(other) + share(x[0])) * other[i] for other in x[1:])
    target = sum(dot(x[0], other) ** 2 for other in x[1:])
    return sp.Add(*across) - 2 * target * (own - epsilon) / (own + epsilon) ** 3 * x[0][i]


def vectors(count: int, size: int) -> list[list[Expr]]:
    """Output vectors with symbols as entries."""
    return [list(sp.symbols(f"x{a}_:{size}", real=True)) for a in range(count)]


def rational(x: Outputs) -> Array:
    """One token's outputs as himoe_theory takes them."""
    return jnp.asarray([[[float(value) for value in row] for row in x]])


SKEW = [[sp.S.One, sp.S.Zero], [sp.S.One, sp.S.One]]
GENERAL = [[sp.Rational(1), sp.Rational(-2)], [sp.Rational(1, 2), sp.Rational(3)], [sp.Rational(2), sp.Rational(1)]]


def _eq8(effort: Effort) -> Iterator[Finding]:
    across = [[sp.S.One, sp.S.Zero], [sp.S.Zero, sp.S.One]]
    gradient = jax.jit(jax.grad(lambda x: orthogonality_paper(x, epsilon=0.0)))(rational(SKEW))
    yield witness(
        "one token, outputs (1, 0) and (1, 1), ε = 0; second component of the gradient for the first expert",
        _full(SKEW, sp.S.Zero, 1),
        "=",
        _printed(SKEW, sp.S.Zero, 1),
        holds_at={"orthogonal outputs": (_full(across, sp.S.Zero, 1), _printed(across, sp.S.Zero, 1))},
        code=[(gradient[0, 0, 1], _full(SKEW, sp.S.Zero, 1)), (gradient[0, 0, 0], _full(SKEW, sp.S.Zero, 0))],
    )


def _eq8_full(effort: Effort) -> Iterator[Finding]:
    epsilon = sp.Symbol("epsilon", positive=True)

    def cases() -> Iterator[tuple[Expr, Expr]]:
        for count, size in ((2, 1), (2, 2), (3, 1)):
            x = vectors(count, size)
            yield sp.diff(l_o(x, epsilon), x[0][0]), _full(x, epsilon, 0)

    x = vectors(3, 1)
    false = {"as printed": _printed(x, epsilon, 0), "twice as printed": 2 * _printed(x, epsilon, 0)}
    scope = "2 selected experts in 1 and 2 dimensions, 3 in 1; any outputs, any ε"
    yield for_sizes(scope, cases(), variants=lambda right: false if right.has(x[2][0]) else {})
    at = sp.Rational(1, 2)
    computed = jax.jit(lambda y: orthogonality_paper_grad(y, epsilon=0.5))(rational(GENERAL))[0, 0, 1]
    value = sp.Symbol("x0_1", real=True)
    moved = [[GENERAL[0][0], value], *GENERAL[1:]]
    exact = sp.diff(l_o(moved, at), value).subs(value, GENERAL[0][1])
    yield witness(
        "3 experts in 2 dimensions, outputs (1, -2), (1/2, 3), (2, 1), ε = 1/2",
        exact,
        "=",
        _full(GENERAL, at, 1),
        holds_at={"orthogonal outputs": (0, 0)},
        code=[(computed, exact)],
    )


EQ8 = Claim(
    id="guo/eq8-gradient",
    statement=r"\frac{\partial L_o}{\partial \tilde x_j} = \sum_{k \ne j} "
    r"\frac{\tilde x_k \tilde x_k^\top}{\|\tilde x_k\|^2 + \varepsilon} \tilde x_j",
    words="The gradient of the orthogonality objective with respect to an expert's output.",
    source="[guo] eq. (8)",
    recorded=Verdict.CORRECTED,
    check=_eq8,
    functions=(orthogonality_paper, orthogonality_paper_grad),
    correction=Correction(
        r"\sum_{k \ne j} 2 c_{jk} (w_k + w_j) \tilde x_k - 2 \sum_{k \ne j} c_{jk}^2 \frac{n_j - \varepsilon}"
        r"{(n_j + \varepsilon)^3} \tilde x_j, \quad w_k = \frac{n_k}{(n_k + \varepsilon)^2}",
        "With c the inner products and n the squared norms. L_o is a sum over pairs, so that the case of two experts "
        "carries over to any number.",
        _eq8_full,
    ),
    remark="Eq. 8 lacks the factor 2 n_k/(n_k + ε) and every term in which the expert is the target of the projection; "
    "at the witness it is not even parallel to the gradient, (1/2, 1/2) against (1, 3).",
)


# The variance objective

w = IndexedBase("w", real=True)
u = index("u", T)
L_V = -total((w[t, e] - total(w[u, e], u) / T) ** 2, t, e) / N


def _l_v(weights: Array) -> Array:
    return -weights.shape[0] * metrics.routing_variance(weights)


def _eq9(effort: Effort) -> Iterator[Finding]:
    half, quarter = sp.Rational(1, 2), sp.Rational(1, 4)
    slope = jax.jit(jax.grad(_l_v))(jnp.eye(2))
    yield witness(
        "2 tokens, 2 experts, weights (1, 0) and (0, 1); derivative in the first weight",
        -half,
        "=",
        -quarter,
        holds_at={"all weights 1/2": (0, 0)},
        code=[(slope[0, 0], -half)],
    )


def _eq9_corrected(effort: Effort) -> Iterator[Finding]:
    deviation = w[t1, j] - total(w[u, j], u) / T
    yield identity(
        sp.diff(L_V, w[t1, j]),
        -2 * deviation / N,
        variants={"as printed": -2 * (T - 1) * deviation / (N * T)},
        sample=lambda rng: {"w": rng.uniform(size=(3, 5))},
        code=lambda d: jax.jit(jax.grad(_l_v))(jnp.asarray(d["w"])).T,
        more_code=((L_V, lambda d: jax.jit(_l_v)(jnp.asarray(d["w"]))),),
    )


EQ9 = Claim(
    id="guo/eq9-eq10-constant",
    statement=r"\frac{\partial L_v}{\partial s_{ij}} = -\frac{2(T-1)}{nT} (s_{ij} - \bar s_j)",
    words="The gradient of the variance objective with respect to a routing weight.",
    source="[guo] eqs. (9, 10)",
    recorded=Verdict.CORRECTED,
    check=_eq9,
    functions=(metrics.routing_variance, variance_across_tokens),
    correction=Correction(
        r"\frac{\partial L_v}{\partial s_{ij}} = -\frac{2}{n} (s_{ij} - \bar s_j)",
        "Without the factor (T-1)/T: what the mean contributes is multiplied by the sum of the deviations, which is 0.",
        _eq9_corrected,
    ),
)


def _l_v_code(effort: Effort) -> Iterator[Finding]:
    yield identity(
        -total((p[t, e] - 1 / N) ** 2, t, e) / (T * (N - 1)),
        -(SAME - 1 / N) / (N - 1),
        assumptions=(NORMALISED,),
        variants={"N in the place of N - 1": -(SAME - 1 / N) / N},
        code=lambda d: variance_across_experts(jnp.log(d["p"])),
    )


L_V_CODE = Claim(
    id="guo/l-v-code-is-r-intra",
    statement=r"\gamma L_v^{\mathrm{code}} = \frac{\gamma}{n-1} \Big(\frac1n - \mathbb{E}\|\pi\|^2\Big) = "
    r"\lambda_{\mathrm{intra}} R_{\mathrm{intra}} + \mathrm{const}, \quad "
    r"\lambda_{\mathrm{intra}} = \frac{\gamma}{n-1}",
    words="The variance objective of the released code is Hi-MoE's intra-group term, up to a constant.",
    source="[himoe-theory] D3, [guo-code]",
    recorded=Verdict.PROVED,
    check=_l_v_code,
    assumptions=("the probabilities of a token sum to 1",),
    functions=(variance_across_experts,),
    remark="Two papers that do not cite each other's term train with the same gradient.",
)


def _l_v_paper(effort: Effort) -> Iterator[Finding]:
    everything = np.ones((3, 5), dtype=bool)
    yield identity(
        -total((p[t, e] - total(p[u, e], u) / T) ** 2, t, e) / N,
        -(T / N) * (SAME - ANY),
        variants={"without the balance penalty": -(T / N) * SAME},
        sample=probabilities,
        code=lambda d: variance_across_tokens(jnp.log(d["p"]), jnp.asarray(everything)),
        more_code=((SAME - ANY, lambda d: jax.jit(metrics.gini_gain)(jnp.asarray(d["p"]))),),
    )


L_V_PAPER = Claim(
    id="guo/l-v-paper-is-gini-gain",
    statement=r"L_v = -\frac{T}{n} \big(\mathbb{E}\|s\|^2 - \|\mathbb{E} s\|^2\big)",
    words="The variance objective as printed is -T/n times the Gini gain: Hi-MoE's intra-group term and a penalty on "
    "unequal usage.",
    source="[himoe-theory] D3, [guo] eq. (5)",
    recorded=Verdict.PROVED,
    check=_l_v_paper,
    functions=(variance_across_tokens, metrics.gini_gain),
)


def _log_ratio(effort: Effort) -> Iterator[Finding]:
    same, other = sp.symbols("same any", positive=True)
    yield equation(
        sp.log(1 + (same - other) / other),
        sp.log(same) - sp.log(other),
        variants={"gain over the other number": sp.log(1 + (same - other) / same)},
        why="I₂ = ln(same/any), the Gini gain is same - any, with same = E‖π‖² and any = ‖E π‖².",
    )
    yield identity(
        -sp.log(ANY) + sp.log(SAME),
        sp.log(1 + (SAME - ANY) / ANY),
        sample=probabilities,
        code=lambda d: jax.jit(metrics.collision_information)(jnp.asarray(d["p"])),
    )
    gain = jax.jit(metrics.gini_gain)
    yield certificate(SAME - ANY, pairs_of_tokens(), sample=probabilities, code=lambda d: gain(jnp.asarray(d["p"])))


LOG_RATIO = Claim(
    id="guo/i2-and-gini-gain",
    statement=r"I_2 = \ln\Big(1 + \frac{\mathbb{E}\|\pi\|^2 - \|\mathbb{E}\pi\|^2}{\|\mathbb{E}\pi\|^2}\Big)",
    words="Hi-MoE's collision information is the logarithm of the ratio of the two numbers whose difference Guo et al. "
    "train; both are 0 exactly when routing ignores the token.",
    source="[himoe-theory] D3",
    recorded=Verdict.PROVED,
    check=_log_ratio,
    functions=(metrics.collision_information, metrics.gini_gain),
    remark="The difference is half the mean squared distance of two tokens' probabilities, so 0 only if all agree.",
)


def _ranges(effort: Effort) -> Iterator[Finding]:
    others = (1 - KroneckerDelta(e, j)) ** 2  # squared, so that its form shows it is not negative
    apart = (1 - KroneckerDelta(t, t1)) ** 2
    spread = total(others * p[t, e] * p[t, j], t, e, j) / T
    uneven = total((total(p[t, e], t) / T - 1 / N) ** 2, e)
    meet = total(apart * p[t, e] * p[t1, e], t, t1, e) / T**2
    gain = SAME - ANY
    few = total(apart * total(others * p[t, e] * p[t, j], e, j), t, t1) / T**2
    yield certificate(1 - 1 / N - gain, spread + uneven, assumptions=(NORMALISED,))
    yield certificate(1 - 1 / T - gain, few + meet, assumptions=(NORMALISED,))
    code = {"code": lambda d: 4 * (1 / 5 + variance_across_experts(jnp.log(d["p"])))}
    yield certificate(1 - 1 / N - (SAME - 1 / N), spread, assumptions=(NORMALISED,), **code)

    def sides(point: Array) -> tuple[Array, Array]:
        logits = point.reshape(2, 3)
        return -variance_across_tokens(logits, jnp.ones((2, 3), dtype=bool)), jnp.asarray(1 / 3)

    yield search(sides, 6, effort, false_factor=0.9, what="2 tokens, 3 experts, logits")


RANGES = Claim(
    id="guo/l-v-ranges",
    statement=r"-\frac1n \le L_v^{\mathrm{code}} \le 0, \quad -\frac{T}{n} \Big(1 - \frac{1}{\min(T, n)}\Big) "
    r"\le L_v \le 0",
    words="What the two variance objectives can be. The one as printed grows with the number of tokens.",
    source="[himoe-theory] D3",
    recorded=Verdict.PROVED,
    check=_ranges,
    assumptions=("the weights of a token sum to 1",),
    functions=(variance_across_experts, variance_across_tokens),
    remark="The bound is reached for T up to n and for multiples of n, by one-hot weights spread evenly. The upper "
    "ends are sums of squares.",
)


CLAIMS = (EQ8, EQ9, L_V_CODE, L_V_PAPER, LOG_RATIO, RANGES)
