"""Gates in two levels: a group, then an expert in it; and experts that are pairs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate
from ..partition import Partition, fitting


def two_level_logits(
    groups: Float[Array, "tokens groups"], experts: Float[Array, "tokens experts"], partition: Partition
) -> Float[Array, "tokens experts"]:
    r"""$s_e = \log p_{g(e)} + \log q_{e \mid g(e)}$, p a softmax over groups, q one inside each group.

    Normalised: $\mathrm{softmax}(s)_e = e^{s_e} = p_g q_{e \mid g}$, and the mass of a group is its p. Range
    $(-\infty, 0]$. With logits of both levels by distance it is the Laplace-Laplace gate of [hmoe].
    **Arguments:** `groups`, `experts`: logits of either level. **Raises:** `ValueError` for sizes that do not fit the
    partition. **Source:** [smile].
    """
    experts = accumulate(_checks.matrix("experts", experts))
    groups = accumulate(_checks.matrix("groups", groups, ("tokens", "groups")))
    ids = fitting(partition, "experts", experts.shape[1]).ids()
    if groups.shape != (experts.shape[0], partition.num_groups):
        there, wanted = tuple(groups.shape), (experts.shape[0], partition.num_groups)
        raise ValueError(f"`groups` must have shape {wanted}, tokens and groups; got {there}.")
    # Each group's own largest logit is taken off: a group far below another must not underflow.
    shifted = experts - jax.lax.stop_gradient(partition.max(experts))[:, ids]
    mass = partition.sum(jnp.exp(shifted))
    return jax.nn.log_softmax(groups)[:, ids] + shifted - jnp.log(mass)[:, ids]


def pair_logits(
    rows: Float[Array, "tokens rows"], columns: Float[Array, "tokens columns"]
) -> Float[Array, "tokens experts"]:
    r"""$s_{(i,j)} = a_i + b_j$, expert number $i\,J + j$ for J columns: $\mathrm{softmax}(s) = p_i q_j$.

    Two small gates for I·J experts, whose choices are independent of each other. **Arguments:** `rows`, `columns`: a
    and b. **Source:** [cartesian].
    """
    a = accumulate(_checks.matrix("rows", rows, ("tokens", "rows")))
    b = accumulate(_checks.matrix("columns", columns, ("tokens", "columns")))
    return (a[:, :, None] + b[:, None, :]).reshape(a.shape[0], -1)
