"""How selections change over time, and which choices come together.

`mask` names the real tokens; the others change nothing.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import safe_divide, xlogx
from ._common import Mask, below, flags, joint_counts, to_float, token_mean, whole

MAX_CODES = 65536
"""Most joint choices that `choice_redundancy` counts."""


def churn(
    before: Bool[Array, "tokens experts"], after: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Share of routes that changed for the same tokens, mean over tokens of $1 - |A \cap B| / \max(|A|, |B|)$.

    A and B are a token's experts before and after. Range $[0, 1]$, symmetric; 0 for a token without any expert in both,
    1 for one that lost or gained all its experts. A mean over tokens.
    """
    before = flags("before", before, mask=mask)
    after = _checks.same_shape("after", flags("after", after, mask=mask), "before", before)
    common = to_float((before & after).sum(axis=-1))
    larger = to_float(jnp.maximum(before.sum(axis=-1), after.sum(axis=-1)))
    return token_mean(1 - safe_divide(common, larger, otherwise=1.0), mask)


def co_activation(selected: Bool[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "experts experts"]:
    r"""Joint frequency $c_{ij}$, the share of tokens that select both i and j; on the diagonal the `hard_load`.

    Symmetric, entries in $[0, 1]$; 0 in the row of a dead expert. A mean over tokens.
    """
    chosen = flags("selected", selected, mask=mask)
    tokens = jnp.asarray(chosen.shape[0]) if mask is None else jnp.maximum(jnp.asarray(mask).sum(), 1)
    return to_float(joint_counts(chosen, chosen)) / to_float(tokens)


def co_activation_excess(
    selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "experts experts"]:
    r"""Joint frequency of each pair above its null, $c_{ij} - \kappa h_i h_j$ for $i \ne j$; 0 on the diagonal.

    Independent experts would have $c_{ij} = h_i h_j$. Tokens that select exactly K cannot be independent: every token
    makes $K(K-1)$ ordered pairs, so $\sum_{i \ne j} c_{ij} = K(K-1)$, while $\sum_{i \ne j} h_i h_j = K^2 - \|h\|^2$.
    The null keeps the proportions of independence and the right total, $\kappa = K(K-1) / (K^2 - \|h\|^2)$; in general
    $\kappa = \sum_{i \ne j} c_{ij} / \sum_{i \ne j} h_i h_j$. Exact for sets of K drawn uniformly, where the excess
    is 0 in expectation; for unequal loads an approximation, whose rows need not sum to $(K-1) h_i$.

    Symmetric, sum 0; entries in $[-1, 1]$ when every token selects K. All 0 when no token selects two experts (K = 1),
    for one token, and for no selection at all. Where one expert is selected in each group, pairs inside a group never
    occur: their excess is negative by construction. Not a mean over tokens. **Source:** [himoe-theory].
    """
    joint = co_activation(selected, mask=mask)
    load = jnp.diagonal(joint)
    diagonal = jnp.eye(load.shape[0], dtype=bool)
    pairs = jnp.where(diagonal, 0, joint)
    independent = jnp.where(diagonal, 0, load[:, None] * load)
    return pairs - safe_divide(pairs.sum(), independent.sum(), otherwise=0.0) * independent


def choice_redundancy(
    choices: Int[Array, "tokens groups"], sizes: tuple[int, ...], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""How far the groups' choices repeat one another, from 0 (independent) to 1 (each a function of one of them):

    $$R = \frac{\sum_g H(c_g) - H(c_1, \dots, c_M)}{\sum_g H(c_g) - \max_g H(c_g)}.$$

    $c_g(t)$ is the place, inside group g, of the expert that token t selects there; entropies are of their frequencies
    over tokens. The numerator is the total correlation, at most the denominator since the joint entropy is at least
    the largest one. Range $[0, 1]$; 0 where the denominator is 0: at most one group whose choice varies, so also one
    group or one token. Not a mean over tokens, and biased upward when tokens are few beside the joint choices.

    **Arguments:** `choices`: $c_g$ in $[0, S_g)$; outside `jit` others are a `ValueError`, inside such a token counts
    nowhere. `sizes`: $S_g$, static. **Raises:** `ValueError` if there are more than `MAX_CODES` joint choices.
    **Source:** [himoe-theory].
    """
    choices = whole("choices", choices, ("tokens", "groups"), mask)
    if not isinstance(sizes, tuple):
        raise ValueError(f"`sizes` must be a tuple, the size of each group; got {_checks.shown(sizes)}.")
    if len(sizes) != choices.shape[1]:
        raise ValueError(f"`sizes` has {len(sizes)} groups, `choices` has {choices.shape[1]}.")
    for size in sizes:
        _checks.count("sizes", size)
    if math.prod(sizes) > MAX_CODES:
        raise ValueError(f"`sizes` must make at most {MAX_CODES} joint choices; {sizes} makes {math.prod(sizes)}.")
    below("choices", choices, sizes)
    choices = choices.astype(jnp.int32)
    valid = ((choices >= 0) & (choices < jnp.asarray(sizes, jnp.int32))).all(axis=-1)
    valid = valid if mask is None else valid & mask
    # Mixed radix: the joint choice as one number below the product of the sizes.
    radix = [math.prod(sizes[g + 1 :]) for g in range(len(sizes))]
    code = (choices * jnp.asarray(radix, jnp.int32)).sum(axis=-1)
    counts = jax.ops.segment_sum(valid.astype(jnp.int32), code, num_segments=math.prod(sizes)).reshape(sizes)
    others = [tuple(h for h in range(len(sizes)) if h != g) for g in range(len(sizes))]
    single = jnp.stack([_entropy(counts.sum(axis=axes)) for axes in others])
    total = single.sum()
    return safe_divide(total - _entropy(counts), total - single.max(), otherwise=0.0)


def _entropy(counts: Int[Array, "*outcomes"]) -> Float[Array, ""]:
    """Of their frequencies, in nats; 0 if there are none."""
    values = to_float(counts)
    return -xlogx(safe_divide(values, values.sum(), otherwise=0.0)).sum()
