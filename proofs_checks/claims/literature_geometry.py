"""Claims about directions: X-MoE's routing gradient, geometric coupling of routers and experts, orthogonal rows."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, Softmax, TopK, cosine_logits, metrics, ranked, to_dense
from himoe_theory.objectives import load_for_share_grad

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..notation import NORMALISED, SIZES, Assumption, N, T, e, generic, index, j, k, p, t, through_softmax
from ..search import measured, search
from ..sums import Rule, total
from ..symbolic import for_sizes, identity
from ..witnesses import exhaustive, witness

D = sp.Symbol("D", integer=True, positive=True)
d = index("d", D)
r = sp.IndexedBase("r", real=True)
"""r[e, d]: embeddings or router rows, one an expert."""
DIM = {**SIZES, D: 4}


def _rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return generic(rng) | {"r": rng.normal(size=(5, 4)), "h": rng.uniform(0.1, 1, size=5)}


UNIT = Assumption(
    "rows have length 1",
    (Rule(d, r[e, d] ** 2, sp.S.One),),
    lambda v: v | {"r": v["r"] / np.linalg.norm(v["r"], axis=1, keepdims=True)},
)


# X-MoE: how the routing gradient acts on the hidden state


def _jacobians(dim: int, experts: int, of: int) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    h = sp.symbols(f"h:{dim}", real=True)
    rows = [sp.symbols(f"e{i}_:{dim}", real=True) for i in range(experts)]
    raised = [sp.exp(sum(a * b for a, b in zip(row, h, strict=True))) for row in rows]
    rational = {value: sp.Symbol(f"r{i}", positive=True) for i, value in enumerate(raised)}  # once differentiated
    share = [value / sum(raised) for value in raised]
    output = [h[0] ** 2 + 3 * h[-1] * (i + 1) for i in range(dim)]  # any smooth expert
    inner = [share[of] * sum((int(i == of) - share[i]) * rows[i][c] for i in range(experts)) for c in range(dim)]
    for a in range(dim):
        for c in range(dim):
            through_expert = int(a == c) + share[of] * sp.diff(output[a], h[c])
            sides = sp.diff(h[a] + share[of] * output[a], h[c]), through_expert + inner[c] * output[a]
            yield tuple(side.xreplace(rational) for side in sides)


def _jacobian(effort: Effort) -> Iterator[Finding]:
    h0 = sp.Symbol("h0", real=True)
    yield for_sizes(
        "2 dimensions and 2 experts, 1 dimension and 3 experts, the first selected; an expert quadratic in h",
        [*_jacobians(2, 2, 0), *_jacobians(1, 3, 0)],
        variants=lambda right: {"the routing half left out once more": right - h0},
    )
    rng = np.random.default_rng(0)
    h, rows, weight = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=(4, 3))), rng.normal(size=(3, 3))

    def layer(x: Array) -> Array:
        return x + Softmax().value((rows @ x)[None])[0, 1] * jnp.tanh(jnp.asarray(weight) @ x)

    raised = np.exp(np.asarray(rows @ h))
    share, output = raised / raised.sum(), np.tanh(weight @ np.asarray(h))
    first = np.eye(3) + share[1] * (1 - output**2)[:, None] * weight
    second = share[1] * np.outer(output, np.asarray(rows)[1] - share @ np.asarray(rows))
    found = np.asarray(jax.jit(jax.jacfwd(layer))(h)).ravel()
    both = (first + second).ravel().tolist()
    pairs = [(f"entry {i}", a, float(b)) for i, (a, b) in enumerate(zip(both, found, strict=True))]
    wrong = {"expert half only": first.ravel().tolist()}
    yield measured("4 experts in 3 dimensions, autodiff", pairs, within=1e-9, wrong=wrong)


JACOBIAN = Claim(
    id="xmoe/jacobian",
    statement=r"J = I + S_k J_{f_k} + f_k \Big(\sum_j S_k (\delta_{kj} - S_j) e_j\Big)^\top, \quad h' = h + S_k f_k(h)",
    words="The Jacobian of a top-1 layer splits into the expert's half and the routing half.",
    source="[xmoe], analysis of representation collapse",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_jacobian,
    functions=(Softmax.value,),
)


def _gates(experts: int) -> sp.Matrix:
    """Rows S_k (delta_kj - S_j) for tokens with integer exponentials of logits, every choice of k; exact."""
    rows = []
    for token in range(experts):
        raised = [sp.Integer(1 + (3 * token + i * i) % 7) for i in range(experts)]
        share = [value / sum(raised) for value in raised]
        rows += [[share[a] * (int(a == b) - share[b]) for b in range(experts)] for a in range(experts)]
    return sp.Matrix(rows)


def _span(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "6 experts, 6 tokens with logits ln(1 + (3t + i^2) mod 7), every choice: dimensions of the routing half",
        _gates(6).rank(),
        "=",
        6,
        holds_at={"sigmoid gates, where each choice moves along its own e_k": (sp.eye(6).rank(), 6)},
    )


def _span_law(effort: Effort) -> Iterator[Finding]:
    yield identity(
        total(p[t, k] * (sp.KroneckerDelta(k, e) - p[t, e]), e),
        sp.S.Zero,
        assumptions=(NORMALISED,),
        sample=_rows,
    )
    yield exhaustive(
        "the bound N - 1 is reached, N = 2 to 6",
        range(2, 7),
        lambda n: _gates(n).rank() == n - 1,
        false={"rank N": lambda n: _gates(n).rank() == n},
    )


SPAN = Claim(
    id="xmoe/routing-span",
    statement=r"\dim \mathrm{span}\{J_2^\top g\} = N",
    words="The routing half of the gradient moves hidden states within the span of the N expert embeddings.",
    source="[xmoe], analysis of representation collapse",
    recorded=Verdict.CORRECTED,
    check=_span,
    correction=Correction(
        statement=r"\sum_j S_k(\delta_{kj} - S_j) = 0, \quad \dim \mathrm{span}\{J_2^\top g\} \le N - 1",
        words="The coefficients sum to 0: only differences of embeddings are reached, at most N - 1 dimensions.",
        check=_span_law,
    ),
    remark="The expert half has the identity in it and full rank in general: the statement is about the routing half.",
)


def _confident(effort: Effort) -> Iterator[Finding]:
    yield identity(
        r[k, d] - total(p[t, e] * r[e, d], e),
        total(p[t, e] * (1 - sp.KroneckerDelta(k, e)) * (r[k, d] - r[e, d]), e),
        assumptions=(NORMALISED,),
        variants={"weights without the others' share": total(p[t, e] * (r[k, d] - 2 * r[e, d]), e)},
        sample=_rows,
        sizes=DIM,
    )

    def sides(x: Array) -> tuple[Array, Array]:
        h, rows = x[:2], x[2:].reshape(3, 2)
        pull = jax.grad(lambda v: Softmax().value((rows @ v)[None])[0, 0])(h)
        share = Softmax().value((rows @ h)[None])[0, 0]
        widest = jnp.square(rows[0] - rows[1:]).sum(axis=1).max()
        return jnp.square(pull).sum(), jnp.square(share * (1 - share)) * widest

    yield search(sides, 8, effort, false_factor=0.9, what="3 experts in 2 dimensions; state and embeddings", bound=5.0)


CONFIDENT = Claim(
    id="xmoe/confident-routing-stops",
    statement=r"\|\nabla_h S_k\| \le S_k (1 - S_k) \max_j \|e_k - e_j\|",
    words="The routing half vanishes when routing is confident; it is strongest at S = 1/2.",
    source="[himoe-theory] on [xmoe]",
    recorded=Verdict.PROVED,
    check=_confident,
    functions=(Softmax.value,),
    numbers=Numbers(
        "logits",
        roundings=16,
        besides="relative to the embeddings: where S rounds to 1 the bound is 0, and the gradient a rounding of them",
    ),
    remark="The identity writes e_k minus the mean embedding as the others' share of differences, whose weights sum to "
    "1 - S_k; the triangle inequality gives the bound. The direction is towards e_k only if the selected expert helps.",
)


# Geometric coupling


def _minors(dim: int) -> Iterator[tuple[sp.Expr, sp.Expr]]:
    """Gradients of a loss of degree up to 2 in router logit and hidden unit, any coefficients, against the token."""
    x, w, v = (sp.symbols(f"{name}:{dim}", real=True) for name in "xwv")
    logit, hidden = (sum(a * b for a, b in zip(rows, x, strict=True)) for rows in (w, v))
    loss = sum(sp.Symbol(f"c{a}{b}", real=True) * logit**a * hidden**b for a in range(3) for b in range(3 - a))
    for first in range(dim):
        for second in range(first + 1, dim):
            for rows in (w, v):
                yield sp.diff(loss, rows[first]) * x[second], sp.diff(loss, rows[second]) * x[first]


def _rank_one(effort: Effort) -> Iterator[Finding]:
    cases = [case for dim in (2, 3) for case in _minors(dim)]
    yield for_sizes("2 and 3 input dimensions; losses of degree up to 2 in logit and hidden unit", cases)


RANK_ONE = Claim(
    id="ahrac/gradients-along-the-token",
    statement=r"\partial L/\partial w_k,\ \partial L/\partial v_k \in \mathrm{span}\{x\}",
    words="For one token, the gradients of a router row and of an expert's input weights are multiples of the token.",
    source="[ahrac], geometric coupling",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_rank_one,
    remark="By the chain rule it holds in every dimension and for every differentiable loss.",
)


def _zero_sum(effort: Effort) -> Iterator[Finding]:
    h = sp.IndexedBase("h", real=True)
    yield identity(
        total(through_softmax(lambda _, inner: N / T * h[inner], t, e), e),
        sp.S.Zero,
        assumptions=(NORMALISED,),
        variants={"a gate per expert": total(p[t, e] * h[e], e)},
        code=lambda v: jnp.abs(load_for_share_grad(jnp.log(v["p"]), jnp.asarray(v["h"])).sum(axis=1)).max(),
        sample=_rows,
    )


ZERO_SUM = Claim(
    id="ahrac/row-sum-conserved",
    statement=r"\sum_j \frac{\partial L}{\partial s_j} = 0 \implies \sum_j w_j \text{ is conserved}",
    words="Under a loss that sees logits through a softmax only, gradient flow never changes the sum of router rows.",
    source="[himoe-theory] on [ahrac]",
    recorded=Verdict.PROVED,
    check=_zero_sum,
    assumptions=("gradient flow; no z-loss, sigmoid gate, weight decay or per-entry step sizes",),
    functions=(load_for_share_grad,),
)


def _signed(effort: Effort) -> Iterator[Finding]:
    products = total(r[e, d] * r[j, d], d) * (1 - sp.KroneckerDelta(e, j))
    yield identity(
        total(products, e, j) / (N * (N - 1)),
        (total(total(r[e, d], e) ** 2, d) - N) / (N * (N - 1)),
        assumptions=(UNIT,),
        code=lambda v: metrics.mean_off_diagonal(metrics.parameter_cosine(jnp.asarray(v["r"]))),
        sample=_rows,
        sizes=DIM,
    )


SIGNED = Claim(
    id="ahrac/signed-similarity-pinned",
    statement=r"\frac{1}{N(N-1)} \sum_{i \ne j} w_i \cdot w_j = \frac{\|\sum_j w_j\|^2 - N}{N(N-1)}",
    words="The mean signed cosine of unit router rows depends on their sum alone, which softmax losses conserve.",
    source="[himoe-theory] on [ahrac]",
    recorded=Verdict.PROVED,
    check=_signed,
    assumptions=("rows have length 1",),
    functions=(metrics.parameter_cosine, metrics.mean_off_diagonal),
    remark="So rows made nearly three times more similar by a balancing loss must be meant in absolute value, or come "
    "from an optimiser, decay or z-loss that moves the sum.",
)


@jax.jit
def _violation(tokens: Array, rows: Array) -> Array:
    """MaxVio when each token goes to the centre of largest cosine."""
    experts = ranked(TopK(1), cosine_logits(tokens, rows), Partition.equal(len(rows), 1))
    selected = to_dense(jnp.ones(experts.shape, dtype=bool), experts, len(rows))
    return metrics.max_violation(metrics.hard_load(selected))


def _k_means(effort: Effort) -> Iterator[Finding]:
    tokens = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    yield witness(
        "three tokens at (1, 0), one at (0, 1), centres on them: MaxVio = (3/4 - 1/2)/(1/2)",
        sp.Rational(1, 2),
        "=",
        0,
        holds_at={"two tokens at each": (0, 0)},
        code=[(_violation(jnp.asarray(tokens), jnp.eye(2)), sp.Rational(1, 2))],
    )


K_MEANS = Claim(
    id="ahrac/k-means-balances",
    statement=r"\mathrm{MaxVio} = 0 \text{ at the fixed points of the online k-means router}",
    words="The k-means router balances load by itself.",
    source="[ahrac], the k-means router",
    recorded=Verdict.REFUTED,
    check=_k_means,
    functions=(cosine_logits, metrics.max_violation),
    remark="Loads follow the masses of the clusters; the paper's low imbalance is a property of its data.",
)


CLAIMS = (JACOBIAN, SPAN, CONFIDENT, RANK_ONE, ZERO_SUM, SIGNED, K_MEANS)
