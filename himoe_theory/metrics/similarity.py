r"""How alike experts are: in their outputs, in their parameters, as clusters.

Cosines with the zero vector are 0: an expert that is silent is like no other, itself included. Products are taken at
the highest precision of the device. `mask` names the real tokens; the others change nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks
from .._numerics import accumulate, safe_divide
from ._common import Mask, direction, host_whole, of_real_tokens, root, token_mean

_HIGHEST = jax.lax.Precision.HIGHEST
_OUTPUTS = ("tokens", "experts", "dim")


def output_cosine(outputs: Float[Array, "tokens experts dim"], *, mask: Mask = None) -> Float[Array, "experts experts"]:
    r"""$\frac1T \sum_t \cos(x_{ti}, x_{tj})$ for each pair of experts that all see the same tokens.

    Symmetric, entries in $[-1, 1]$; the diagonal is the share of tokens on which the expert's output is not zero. The
    cosine with a zero output is 0, with gradient 0. A mean over tokens. **Source:** [himoe] Table 10, whose number is
    `mean_off_diagonal` of this.
    """
    unit = direction(_checked(outputs, _OUTPUTS, mask))
    return jnp.einsum("tid,tjd->ij", unit, unit, precision=_HIGHEST) / _number(unit, mask)


def parameter_cosine(parameters: Float[Array, "experts dim"]) -> Float[Array, "experts experts"]:
    r"""$\cos(\theta_i, \theta_j)$ of the experts' flattened parameters.

    Symmetric, entries in $[-1, 1]$, diagonal 1; the row of an expert whose parameters are all 0 is 0. Permuting an
    expert's hidden units changes it and not the expert: a small value does not prove experts different.
    **Source:** [himoe] Table 10.
    """
    unit = direction(accumulate(_checks.matrix("parameters", parameters, ("experts", "dim"))))
    return jnp.matmul(unit, unit.T, precision=_HIGHEST)


def linear_cka(outputs: Float[Array, "tokens experts dim"], *, mask: Mask = None) -> Float[Array, "experts experts"]:
    r"""Linear centred kernel alignment, $\|X_i^\top X_j\|_F^2 \,/\, (\|X_i^\top X_i\|_F \|X_j^\top X_j\|_F)$.

    $X_i$ (tokens by dim) are an expert's outputs minus their mean over tokens. Symmetric, range $[0, 1]$, diagonal 1.
    Unchanged when an expert's outputs are shifted, scaled, or turned by an orthogonal matrix, so it compares what
    experts represent where `output_cosine` compares what they emit. The row of an expert with constant outputs is 0;
    hence all is 0 for one token. Close to 1 whatever the experts when tokens are fewer than dimensions. Not a mean over
    tokens. **Source:** Kornblith et al., arXiv:1905.00414.
    """
    outputs = _checked(outputs, _OUTPUTS, mask)
    # Relative to the first real token: constant outputs become exactly 0, which their mean's rounding would prevent.
    shifted = outputs - (outputs[0] if mask is None else outputs[jnp.argmax(mask)])
    centred = shifted - token_mean(shifted, mask)
    centred = centred if mask is None else jnp.where(jnp.asarray(mask)[:, None, None], centred, 0)
    # Fourth powers follow, so each expert is brought to size 1 (the measure does not depend on it, so no gradient).
    size = jax.lax.stop_gradient(jnp.abs(centred).max(axis=(0, 2), keepdims=True))
    centred = safe_divide(centred, size, otherwise=0.0)
    tokens, _, dim = centred.shape
    aligned = _alignment_by_tokens(centred) if tokens <= dim else _alignment_by_dimensions(centred)
    norm = root(jnp.diagonal(aligned))
    return safe_divide(aligned, norm[:, None] * norm, otherwise=0.0)


def mean_off_diagonal(matrix: Float[Array, "experts experts"]) -> Float[Array, ""]:
    """Mean over ordered pairs of different experts; 0 for one expert, which is like no other."""
    matrix = accumulate(_checks.matrix("matrix", matrix, ("experts", "experts")))
    experts, columns = matrix.shape
    if experts != columns:
        raise ValueError(f"`matrix` must be square; got shape {matrix.shape}.")
    return _off_diagonal(matrix).sum() / max(experts * (experts - 1), 1)


def expert_overlap(outputs: Float[Array, "tokens routes dim"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Mean over tokens and ordered pairs of a token's routes of $\cos^2(x_{ti}, x_{tj})$.

    Range $[0, 1]$: 0 when the outputs of a token's experts are orthogonal, 1 when they are parallel; 0 for one route.
    The output of a dropped route is 0 and overlaps with nothing. A mean over tokens. This definition is ours:
    [guo] reports expert overlap without a formula, and $\cos^2$ is its objective $L_o$ (a squared projection) per
    unit of squared output. **Source:** [himoe-theory].
    """
    unit = direction(_checked(outputs, ("tokens", "routes", "dim"), mask))
    routes = unit.shape[1]
    squared = jnp.square(jnp.einsum("tid,tjd->tij", unit, unit, precision=_HIGHEST))
    return _off_diagonal(squared).sum() / (_number(unit, mask) * max(routes * (routes - 1), 1))


def silhouette(
    outputs: Float[Array, "tokens dim"] | Float[np.ndarray, "tokens dim"],
    assignments: Int[Array, " tokens"] | Int[np.ndarray, " tokens"],
    *,
    mask: Mask = None,
) -> float:
    r"""Mean silhouette of outputs grouped by expert: $(b - a)/\max(a, b)$ with a token's mean distance a to its own
    expert's other outputs, and b to the nearest other expert's.

    Range $[-1, 1]$. 0 where it is undefined: one expert in use (so one token), or each token alone with its expert.
    Host only; memory grows with the tokens squared. **Source:** [guo].
    """
    # Imported here: scikit-learn takes longer to import than jax (1.7 s), and few callers need it.
    from sklearn.metrics import silhouette_score

    real = of_real_tokens("outputs", _checks.array("outputs", outputs), ("tokens", "dim"), mask)
    values = np.asarray(_checks.matrix("outputs", real, ("tokens", "dim")), dtype=np.float64)
    values = values if mask is None else values[np.asarray(mask)]
    assignments = host_whole("assignments", assignments, mask)
    if values.shape[0] != assignments.size:
        raise ValueError(f"`outputs` has {values.shape[0]} tokens, `assignments` has {assignments.size}.")
    clusters = np.unique(assignments).size
    if not 2 <= clusters < assignments.size:
        return 0.0
    return float(silhouette_score(values, assignments))


def _checked(
    outputs: Float[Array, "tokens several dim"], axes: tuple[str, ...], mask: Mask
) -> Float[Array, "tokens several dim"]:
    return accumulate(_checks.matrix("outputs", of_real_tokens("outputs", outputs, axes, mask), axes))


def _number(x: Float[Array, "tokens ..."], mask: Mask) -> Float[Array, ""]:
    """Of real tokens."""
    return jnp.asarray(x.shape[0] if mask is None else jnp.maximum(jnp.asarray(mask).sum(), 1), x.dtype)


def _off_diagonal(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    return jnp.where(jnp.eye(matrix.shape[-1], dtype=bool), 0, matrix)


def _alignment_by_tokens(x: Float[Array, "tokens experts dim"]) -> Float[Array, "experts experts"]:
    r"""$\langle X_i X_i^\top, X_j X_j^\top \rangle$, the cheaper form when tokens are fewer than dimensions."""
    gram = jnp.einsum("tid,sid->its", x, x, precision=_HIGHEST)
    return jnp.einsum("its,jts->ij", gram, gram, precision=_HIGHEST)


def _alignment_by_dimensions(x: Float[Array, "tokens experts dim"]) -> Float[Array, "experts experts"]:
    r"""$\|X_i^\top X_j\|_F^2$, an expert at a time: memory experts by dim squared instead of its square."""

    def row(one: Float[Array, "tokens dim"]) -> Float[Array, " experts"]:
        return jnp.square(jnp.einsum("td,tjc->jdc", one, x, precision=_HIGHEST)).sum(axis=(1, 2))

    return jax.lax.map(row, x.transpose(1, 0, 2))
