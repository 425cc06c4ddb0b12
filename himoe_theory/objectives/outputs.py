r"""The orthogonality objective L_o of Guo et al. on the outputs of a token's selected experts: three forms.

`outputs[t, j]` is the output of the j-th selected expert on token t. To be minimised. The selection is a constant, so
none of these has a gradient in the logits; the closed forms are in the outputs. The paper's form sums one-by-one
projections; the code projects on the span of the other experts; the code as released regroups rows by mistake. For two
selected experts the first two agree up to `epsilon` and the average; from three on they differ.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks
from .._numerics import accumulate, safe_divide
from ..partition import Partition
from ._softmax import Mask, blanked, per_token, tokens_of
from .record import of_arrays

_AXES = ("tokens", "routes", "dim")


def _checked(outputs: Float[Array, "tokens routes dim"], mask: Mask) -> Float[Array, "tokens routes dim"]:
    """Of masked tokens 0, which adds to nothing."""
    return accumulate(_checks.matrix("outputs", blanked("outputs", outputs, mask), _AXES))


def _inner_products(
    outputs: Float[Array, "tokens routes dim"],
) -> tuple[Float[Array, "tokens routes routes"], Float[Array, "tokens 1 routes"]]:
    """Inner products of different experts' outputs (0 on the diagonal), and the squared norms."""
    gram = jnp.einsum("tjd,tkd->tjk", outputs, outputs)
    squares = jnp.square(outputs).sum(axis=-1)[:, None, :]
    return jnp.where(jnp.eye(outputs.shape[1], dtype=bool), 0, gram), squares


def orthogonality_paper(
    outputs: Float[Array, "tokens routes dim"], *, epsilon: float = 1e-8, mask: Mask = None
) -> Float[Array, ""]:
    r"""$\sum_t \sum_j \sum_{k \ne j} \big\| \frac{\langle x_j, x_k\rangle}{\|x_k\|^2 + \epsilon} x_k \big\|^2$.

    Range $[0, \infty)$; 0 for one selected expert or orthogonal outputs; summed over tokens, as printed. An expert with
    output 0 contributes 0, also when `epsilon` is 0. **Source:** [guo] eq. (4), paper form.
    """
    outputs = _checked(outputs, mask)
    _checks.coefficient("epsilon", epsilon)
    inner, squares = _inner_products(outputs)
    return (jnp.square(safe_divide(inner, squares + epsilon, otherwise=0.0)) * squares).sum()


def orthogonality_paper_grad(
    outputs: Float[Array, "tokens routes dim"], *, epsilon: float = 1e-8, mask: Mask = None
) -> Float[Array, "tokens routes dim"]:
    r"""$\partial L_o/\partial x_j = \sum_{k \ne j} 2 c_{jk} (w_k + w_j) x_k
    - 2 \sum_{k \ne j} c_{jk}^2 \frac{n_j - \epsilon}{(n_j + \epsilon)^3} x_j$,
    with $c_{jk} = \langle x_j, x_k\rangle$, $n_k = \|x_k\|^2$ and $w_k = n_k/(n_k + \epsilon)^2$.

    [guo] eq. (8) has neither the factor $2 n_k/(n_k+\epsilon)$ nor the terms where $x_j$ is the target of a projection.
    """
    outputs = _checked(outputs, mask)
    _checks.coefficient("epsilon", epsilon)
    inner, squares = _inner_products(outputs)
    damped = squares + epsilon
    # Quotients first: the cube of a small squared norm underflows.
    ratio = safe_divide(inner, damped, otherwise=0.0)
    towards = 2 * ratio * safe_divide(squares, damped, otherwise=0.0)
    target = safe_divide(squares - epsilon, damped, otherwise=0.0) * jnp.square(ratio).sum(axis=1, keepdims=True)
    pulled = jnp.einsum("tjk,tkd->tjd", towards + jnp.swapaxes(towards, 1, 2), outputs)
    return pulled - 2 * jnp.swapaxes(target, 1, 2) * outputs


def orthogonality_span(outputs: Float[Array, "tokens routes dim"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$\frac{1}{TK} \sum_t \sum_j \|\Pi_{-j} x_j\|^2$, $\Pi_{-j}$ the projection on the span of the other outputs.

    Range $[0, \infty)$; 0 for one selected expert. The basis comes from Gram-Schmidt; a vector whose residual is below
    $\sqrt{\mathrm{eps}}$ of its norm (a dead expert, a dependent output) adds none. **Source:** [guo-code], as meant.
    """
    outputs = _checked(outputs, mask)
    routes = outputs.shape[1]
    total = jnp.zeros((), outputs.dtype)
    for j in range(routes):
        basis = _gram_schmidt([outputs[:, k] for k in range(routes) if k != j])
        total = total + sum(jnp.square((b * outputs[:, j]).sum(axis=-1)).sum() for b in basis)
    return total / (tokens_of(outputs, mask) * routes)


def _gram_schmidt(vectors: list[Array]) -> list[Array]:
    """Orthonormal vectors of the span, token by token; 0 in place of a dependent vector."""
    basis: list[Array] = []
    for vector in vectors:
        rest = vector
        for b in basis:
            rest = rest - (b * rest).sum(axis=-1, keepdims=True) * b
        square = jnp.square(rest).sum(axis=-1, keepdims=True)
        new = square > jnp.finfo(vector.dtype).eps * jnp.square(vector).sum(axis=-1, keepdims=True)
        basis.append(jnp.where(new, rest / jnp.sqrt(jnp.where(new, square, 1)), 0))
    return basis


def orthogonality_span_grad(
    outputs: Float[Array, "tokens routes dim"], *, mask: Mask = None
) -> Float[Array, "tokens routes dim"]:
    r"""With $x_j = \sum_{k \ne j} a_{jk} x_k + r_j$ the least-squares split:
    $\frac{2}{TK} \big( \Pi_{-j} x_j + \sum_{k \ne j} a_{kj} r_k \big)$.

    From $\|\Pi_{-j} x_j\|^2 = \|x_j\|^2 - \min_a \|x_j - \sum a_k x_k\|^2$ and the envelope theorem: the coefficients
    need not be differentiated. Holds where the number of independent outputs does not change.
    """
    outputs = _checked(outputs, mask)
    routes = outputs.shape[1]
    # The split is of directions, as in Gram-Schmidt: a small output is as much a part of the span as a large one.
    norms = jnp.sqrt(jnp.square(outputs).sum(axis=-1, keepdims=True))
    directions = safe_divide(outputs, norms, otherwise=0.0)
    gradient = jnp.zeros_like(outputs)
    for j in range(routes):
        others = jnp.asarray([k for k in range(routes) if k != j], dtype=jnp.int32)
        if others.size == 0:
            continue
        span = directions[:, others]
        # Singular values below sqrt(eps) of the largest are, to a factor of order 1, those that Gram-Schmidt leaves
        # out.
        inverse = jnp.linalg.pinv(jnp.swapaxes(span, 1, 2), rtol=float(jnp.finfo(outputs.dtype).eps) ** 0.5)
        coefficients = jnp.einsum("tkd,td->tk", inverse, outputs[:, j])
        projection = jnp.einsum("tk,tkd->td", coefficients, span)
        residual = outputs[:, j] - projection
        gradient = gradient.at[:, j].add(projection)
        a = safe_divide(coefficients[:, :, None], norms[:, others], otherwise=0.0)
        gradient = gradient.at[:, others].add(a * residual[:, None, :])
    return 2 / routes * per_token(gradient, mask)


def _rows_by_expert(experts: Int[Array, "tokens routes"], mask: Mask) -> Int[Array, " rows"]:
    """Positions of the (token, route) pairs, sorted by expert and inside an expert by token; masked tokens last."""
    if mask is not None:
        experts = jnp.where(jnp.asarray(mask)[:, None], experts, jnp.iinfo(experts.dtype).max)
    return jnp.argsort(experts.reshape(-1), stable=True)


def _first(mask: Mask) -> Mask:
    """Real rows are as many as real tokens, and stand first."""
    return None if mask is None else jnp.arange(mask.size) < mask.sum()


def orthogonality_released(
    outputs: Float[Array, "tokens routes dim"], experts: Int[Array, "tokens routes"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""`orthogonality_span` of the outputs concatenated expert by expert and then cut into rows of K: the released
    defect.

    A row then holds outputs of *different tokens*, mostly of one expert: it makes tokens unlike, not experts. Kept so
    that its effect can be measured. **Arguments:** `experts`: the expert of each route, distinct numbers from 0 on; how
    many experts there are is not known here and does not matter: only the order of the numbers does.
    **Source:** [guo-code].
    """
    outputs = _checked(outputs, mask)
    order = _rows_by_expert(_of_same_routes(experts, outputs), mask)
    regrouped = outputs.reshape(-1, outputs.shape[-1])[order].reshape(outputs.shape)
    return orthogonality_span(regrouped, mask=_first(mask))


def orthogonality_released_grad(
    outputs: Float[Array, "tokens routes dim"], experts: Int[Array, "tokens routes"], *, mask: Mask = None
) -> Float[Array, "tokens routes dim"]:
    """Gradient of `orthogonality_span` on the regrouped rows, carried back to the rows' places."""
    outputs = _checked(outputs, mask)
    order = _rows_by_expert(_of_same_routes(experts, outputs), mask)
    flat = outputs.reshape(-1, outputs.shape[-1])
    regrouped = orthogonality_span_grad(flat[order].reshape(outputs.shape), mask=_first(mask))
    return jnp.zeros_like(flat).at[order].set(regrouped.reshape(flat.shape)).reshape(outputs.shape)


def _of_same_routes(
    experts: Int[Array, "tokens routes"], outputs: Float[Array, "tokens routes dim"]
) -> Int[Array, "tokens routes"]:
    experts = _checks.array("experts", experts)
    if experts.shape != outputs.shape[:2]:
        raise ValueError(
            f"`experts` must have the tokens and routes of `outputs`, {outputs.shape[:2]}; got {experts.shape}."
        )
    if not jnp.issubdtype(experts.dtype, jnp.integer):
        raise ValueError(f"`experts` must be whole numbers; got dtype {experts.dtype}.")
    if _checks.known(experts):
        picks = np.asarray(experts)
        if picks.min() < 0:
            raise ValueError(f"`experts` must be numbers of experts, from 0 on; got {picks.min()}.")
        _checks.distinct("experts", picks)
    return experts


def _not_negative(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, math.inf


RECORDS = (
    of_arrays(
        "orthogonality_paper",
        orthogonality_paper,
        orthogonality_paper_grad,
        "outputs",
        source="guo",
        label="$L_o$ paper",
        of="outputs",
        needs=frozenset({"outputs"}),
        bounds=_not_negative,
        token_mean=False,
    ),
    of_arrays(
        "orthogonality_span",
        orthogonality_span,
        orthogonality_span_grad,
        "outputs",
        source="guo-code",
        label="$L_o$ as meant",
        of="outputs",
        needs=frozenset({"outputs"}),
        bounds=_not_negative,
    ),
    of_arrays(
        "orthogonality_released",
        orthogonality_released,
        orthogonality_released_grad,
        "outputs",
        "routing.experts",
        source="guo-code",
        label="$L_o$ released",
        of="outputs",
        needs=frozenset({"outputs", "selection"}),
        bounds=_not_negative,
        token_mean=False,
        symmetric=False,  # rows are regrouped by the order of tokens and the numbers of experts
    ),
)
