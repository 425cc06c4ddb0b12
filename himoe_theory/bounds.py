r"""Bounds on group balance and on gradient coupling: the published form and the corrected one side by side.

`weights[t, e]` is the weight $\tilde\pi_{te} \ge 0$ of expert e for token t, 0 where not selected; $r_{tg}$ is the
share of group g in the weights of token t, $\bar r$ its mean over tokens. By Proposition B.1 the group CV of $\bar r$
has $\mathrm{CV}^2 + 1 = M \|\bar r\|^2$, so that a bound on $\|\bar r\|^2$, times M, is one on $\mathrm{CV}^2 + 1$.
Everything is dimensionless, in at least float32. A token without weight has no shares: outside `jit` it is a
`ValueError`, inside it counts as one with shares 0.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _checks
from ._numerics import accumulate, safe_divide, within_range
from .partition import Partition, fitting


class GroupBalance(eqx.Module):
    r"""The chain $M\|\bar r\|^2 \le M \overline{\|r\|^2} \le$ `corrected`, and the bound that was published.

    **Fields:**

    - `exact`: $M \|\bar r\|^2 = \mathrm{CV}^2 + 1$, in $[1, M]$.
    - `mean_square`: $M \overline{\|r\|^2}$, in $[1, M]$.
    - `corrected`: M times `corrected_bound`; never below `mean_square`.
    - `published`: M times `published_bound`; a bound only if the weights of every token sum to 1.
    """

    exact: Float[Array, ""]
    mean_square: Float[Array, ""]
    corrected: Float[Array, ""]
    published: Float[Array, ""]


def group_balance(weights: Float[Array, "tokens experts"], partition: Partition) -> GroupBalance:
    r"""All four in units of $\mathrm{CV}^2 + 1$. **Source:** [himoe] Thm 4.1; [himoe-theory]."""
    weights = _checked(weights, partition)
    groups = partition.num_groups
    return GroupBalance(
        exact=groups * squared_mean_share(weights, partition),
        mean_square=groups * mean_squared_share(weights, partition),
        corrected=groups * corrected_bound(weights, partition),
        published=groups * published_bound(weights, partition),
    )


def group_shares(
    weights: Float[Array, "tokens experts"], partition: Partition
) -> Float[Array, "tokens {partition.num_groups}"]:
    r"""$r_{tg} = \sum_{e \in g} \tilde\pi_{te} \,/\, \sum_e \tilde\pi_{te}$; rows sum to 1.

    **Source:** [himoe] Thm 4.1.
    """
    weights = _normalised(_checked(weights, partition))
    return partition.sum(weights)


def squared_mean_share(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$\|\bar r\|^2$, in $[1/M, 1]$: $(\mathrm{CV}^2 + 1)/M$. **Source:** [himoe] Thm 4.1, Prop. B.1."""
    return jnp.square(group_shares(weights, partition).mean(axis=0)).sum()


def mean_squared_share(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$\overline{\|r\|^2}$, in $[1/M, 1]$; at least $\|\bar r\|^2$. **Source:** [himoe] Thm 4.1."""
    return jnp.square(group_shares(weights, partition)).sum(axis=-1).mean()


def published_bound(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$S_{\max} \overline{\|\tilde\pi\|^2}$, as printed. At least 0.

    Bounds `mean_squared_share` if each token's weights sum to 1 (or more), not for a softmax that is masked to the
    selection and left so, which is [himoe] eq. (5): there the ratio of the sides approaches S/K near uniform logits.
    **Source:** [himoe] Thm 4.1.
    """
    weights = _checked(weights, partition)
    return max(partition.sizes) * jnp.square(weights).sum(axis=-1).mean()


def corrected_bound(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$K_{\max} \overline{\|\tilde\pi\|^2 / (\sum_e \tilde\pi_e)^2}$, at least `mean_squared_share` for any weights.

    $K_{\max}$ is the largest number of positive weights that a token has in one group: only they add to the group's
    share, so that Lemma B.2 holds with it in the place of $S_{\max}$. Equality if every token has one expert a group.
    **Source:** [himoe-theory], correcting [himoe] Thm 4.1.
    """
    weights = _checked(weights, partition)
    return _most_in_a_group(weights, partition) * jnp.square(_normalised(weights)).sum(axis=-1).mean()


def load_bound_selected(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$M K_{\max} \overline{\|\tilde\pi\|^2} \,/\, (\overline{\sum_e \tilde\pi_e})^2$, at least `load_bound_mass`.

    What the inter-group term of [himoe] eq. (6), $\overline{\|\tilde\pi\|^2}$, bounds: $\mathrm{CV}^2 + 1$ of the group
    totals of the mean weights, which need not be normalised. **Source:** [himoe-theory].
    """
    weights = within_range(_checked(weights, partition), (0, 1))
    most = _most_in_a_group(weights, partition)
    return partition.num_groups * most * _over_squared_total(jnp.square(weights).sum(axis=-1), weights)


def load_bound_mass(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    r"""$M \overline{\|\tilde m\|^2} \,/\, (\overline{\sum_e \tilde\pi_e})^2$, $\tilde m$ the weights' group sums.

    At least $\mathrm{CV}^2 + 1$ of the group totals of the mean weights, by Jensen, with constant 1. With the weights
    of the selection it is a multiple of the released code's `sparse_group_mass`; with the full softmax, whose rows sum
    to 1, it is M times its default, `dense_group_mass`. **Source:** [himoe-theory]; [himoe-code].
    """
    weights = within_range(_checked(weights, partition), (0, 1))
    mass = jnp.square(partition.sum(weights)).sum(axis=-1)
    return partition.num_groups * _over_squared_total(mass, weights)


def published_range(partition: Partition, per_group: tuple[int, ...]) -> tuple[float, float]:
    r"""$[M S_{\max}/R,\, M S_{\max}]$: what M `published_bound` can be for R normalised weights a token.

    R is the sum of `per_group`, the experts selected in each group. The bound says nothing where its least value is
    not below M, which $\mathrm{CV}^2 + 1$ never exceeds. **Raises:** `ValueError` if `per_group` does not fit.
    **Source:** [himoe-theory].
    """
    routes = _routes(partition, per_group)
    top = float(partition.num_groups * max(partition.sizes))
    return top / routes, top


def corrected_range(partition: Partition, per_group: tuple[int, ...]) -> tuple[float, float]:
    r"""$[M K_{\max}/R,\, M K_{\max}]$: what M `corrected_bound` can be. **Source:** [himoe-theory].

    Weights that are selected are taken as positive. **Raises:** `ValueError` if `per_group` does not fit the groups.
    """
    routes = _routes(partition, per_group)
    top = float(partition.num_groups * max(per_group))
    return top / routes, top


def coupling(probs: Float[Array, " experts"], gradients: Float[Array, "experts dim"]) -> Float[Array, ""]:
    r"""$\sum_{i \ne j} \langle \pi_i g_i, \pi_j g_j \rangle = \|\sum_i \pi_i g_i\|^2 - \sum_i \pi_i^2 \|g_i\|^2$.

    For one token. May be negative. **Arguments:** `gradients`: of the experts. **Source:** [himoe] Thm 4.2.
    """
    scaled = _probs_and_gradients(probs, gradients)
    inner = jnp.einsum("id,jd->ij", scaled, scaled, precision="highest")
    return jnp.where(jnp.eye(scaled.shape[0], dtype=bool), 0, inner).sum()


def coupling_bound(probs: Float[Array, " experts"], gradients: Float[Array, "experts dim"]) -> Float[Array, ""]:
    r"""$G^2 (1 - \|\pi\|^2)$, G the largest norm of a gradient; at least $|$`coupling`$|$ for probabilities.

    Reached by equal gradients. That the bound falls as $\|\pi\|^2$ rises does not mean that the coupling does.
    **Source:** [himoe] Thm 4.2.
    """
    _probs_and_gradients(probs, gradients)
    gradients, probs = _checks.array("gradients", gradients), _checks.array("probs", probs)
    largest = jnp.square(accumulate(gradients)).sum(axis=-1).max()
    # As a sum of products: the difference of 1 and the squares has no right digit where one probability is near 1.
    probs = accumulate(probs)
    return largest * jnp.where(jnp.eye(probs.size, dtype=bool), 0, jnp.outer(probs, probs)).sum()


def _checked(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, "tokens experts"]:
    weights = accumulate(_checks.matrix("weights", weights))
    fitting(partition, "weights", weights.shape[1])
    if _checks.known(weights):
        _checks.coefficient("weights", weights)
        empty = np.flatnonzero(np.asarray(weights).sum(axis=-1) == 0)
        if empty.size:
            raise ValueError(f"`weights` must have a positive entry in each row; row {int(empty[0])} has none.")
    return weights


def _normalised(weights: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
    weights = within_range(weights)
    return safe_divide(weights, weights.sum(axis=-1, keepdims=True), otherwise=0.0)


def _most_in_a_group(weights: Float[Array, "tokens experts"], partition: Partition) -> Float[Array, ""]:
    return partition.sum((weights > 0).astype(weights.dtype)).max()


def _over_squared_total(squares: Float[Array, " tokens"], weights: Float[Array, "tokens experts"]) -> Float[Array, ""]:
    return safe_divide(squares.mean(), jnp.square(weights.sum(axis=-1).mean()), otherwise=0.0)


def _routes(partition: Partition, per_group: tuple[int, ...]) -> int:
    _checks.kind("partition", partition, Partition)
    _checks.kind("per_group", per_group, tuple)
    if len(per_group) != partition.num_groups:
        raise ValueError(f"`per_group` must have one entry a group; got {len(per_group)} for {partition.num_groups}.")
    for group, (selected, size) in enumerate(zip(per_group, partition.sizes, strict=True)):
        _checks.count(f"per_group[{group}]", selected, maximum=size, of="the group's size")
    return sum(per_group)


def _probs_and_gradients(
    probs: Float[Array, " experts"], gradients: Float[Array, "experts dim"]
) -> Float[Array, "experts dim"]:
    probs = accumulate(_checks.matrix("probs", probs, ("experts",)))
    gradients = accumulate(_checks.matrix("gradients", gradients, ("experts", "dim")))
    if gradients.shape[0] != probs.shape[0]:
        raise ValueError(f"`gradients` has {gradients.shape[0]} experts, `probs` has {probs.shape[0]}.")
    return probs[:, None] * gradients
