r"""Angles between logit gradients, in two metrics, and when two objectives can descend together.

A gradient is `[tokens, experts]`, in the logits of a softmax. The *Euclidean* metric is the one that plain gradient
steps on free logits use. The *Fisher* metric of a token's softmax is $G = \mathrm{diag}(\pi) - \pi\pi^\top$; it does
not depend on how the distribution is written, and splits exactly into groups and inside groups (D4). Everything is
dimensionless and token by token; sum over tokens for a batch.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from . import _checks
from ._numerics import accumulate, safe_divide, within_range

_GAUGE = 1e-3
"""A row sum above this share of the row's largest entry is not rounding."""


def _pair(
    a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"]
) -> tuple[Float[Array, "tokens experts"], Float[Array, "tokens experts"]]:
    a = accumulate(_checks.matrix("a", a))
    return a, accumulate(_checks.same_shape("b", _checks.matrix("b", b), "a", a))


def _directions(
    a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"]
) -> tuple[Float[Array, "tokens experts"], Float[Array, "tokens experts"]]:
    """Each token's gradients in a range where their squares neither vanish nor overflow: an angle knows no length."""
    a, b = _pair(a, b)
    return within_range(a), within_range(b)


def euclidean_inner(a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"]) -> Float[Array, " tokens"]:
    r"""$\langle a, b \rangle = \sum_e a_e b_e$ of every token. Range: the reals. **Source:** [himoe-theory] D4."""
    a, b = _pair(a, b)
    return (a * b).sum(axis=-1)


def fisher_inner(
    a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"], logits: Float[Array, "tokens experts"]
) -> Float[Array, " tokens"]:
    r"""$\langle a, b \rangle_F = \sum_e a_e b_e / \pi_e$ of every token, $\pi = \mathrm{softmax}(s)$.

    It is $a^\top G^- b$ for gradients of functions of $\pi$, whose rows sum to zero. With $a_e = \pi_e (\alpha_e -
    \langle \pi, \alpha \rangle)$ and b likewise from $\beta$ it is the covariance of the slopes, $\mathrm{Cov}_\pi
    (\alpha, \beta)$; so a function of the group masses and a function of the conditionals have inner product 0.

    **Arguments:** `logits`: s, finite. Experts whose probability underflows to 0 count 0. **Returns:** `[tokens]`,
    any real number. **Raises:** `ValueError` if a gradient's rows do not sum to zero, as for the z-loss: such a
    gradient is not one of a function of $\pi$. **Source:** [himoe-theory] D4.
    """
    a, b = _pair(a, b)
    logits = accumulate(_checks.same_shape("logits", _checks.matrix("logits", logits), "a", a))
    for name, gradient in (("a", a), ("b", b)):
        _sums_to_zero(name, gradient)
    return safe_divide(a * b, jax.nn.softmax(logits), otherwise=0.0).sum(axis=-1)


def _sums_to_zero(name: str, gradient: Float[Array, "tokens experts"]) -> None:
    if not _checks.known(gradient):
        return
    share = safe_divide(jnp.abs(gradient.sum(axis=-1)), jnp.abs(gradient).max(axis=-1), otherwise=0.0)
    if float(share.max()) > _GAUGE:
        raise ValueError(f"rows of `{name}` must sum to zero; one sums to {float(share.max()):g} of its largest entry.")


def cosine(
    inner: Float[Array, " tokens"], square_a: Float[Array, " tokens"], square_b: Float[Array, " tokens"]
) -> Float[Array, " tokens"]:
    r"""$\langle a, b\rangle / \sqrt{\langle a, a\rangle \langle b, b\rangle}$, in any metric; 0 where a gradient is 0.

    Range $[-1, 1]$. **Arguments:** `inner`, `square_a`, `square_b`: inner products of the two, of a and of b with
    itself. **Source:** [himoe-theory] D4.
    """
    inner, square_a, square_b = _inner_products(inner, square_a, square_b)
    # Roots first: the product of two small squares underflows.
    ratio = safe_divide(safe_divide(inner, jnp.sqrt(square_a), otherwise=0.0), jnp.sqrt(square_b), otherwise=0.0)
    return jnp.clip(ratio, -1, 1)


def euclidean_cosine(a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"]) -> Float[Array, " tokens"]:
    r"""Cosine of the angle between two logit gradients of every token, in $[-1, 1]$; 0 where one of them is 0.

    **Source:** [himoe-theory] D4.
    """
    a, b = _directions(a, b)
    return cosine(euclidean_inner(a, b), euclidean_inner(a, a), euclidean_inner(b, b))


def fisher_cosine(
    a: Float[Array, "tokens experts"], b: Float[Array, "tokens experts"], logits: Float[Array, "tokens experts"]
) -> Float[Array, " tokens"]:
    r"""The same in the Fisher metric: the correlation under $\pi$ of the slopes in the probabilities.

    **Arguments:** `logits`: s, as for `fisher_inner`. **Raises:** `ValueError` as `fisher_inner`.
    **Source:** [himoe-theory] D4.
    """
    a, b = _directions(a, b)
    return cosine(fisher_inner(a, b, logits), fisher_inner(a, a, logits), fisher_inner(b, b, logits))


def joint_descent_exists(
    inner: Float[Array, " tokens"], square_a: Float[Array, " tokens"], square_b: Float[Array, " tokens"]
) -> Bool[Array, " tokens"]:
    r"""Whether some direction decreases both objectives at first order, in any metric.

    False only where a gradient is 0 or the two are antiparallel: $\langle a, a\rangle > 0$, $\langle b, b\rangle > 0$
    and cosine $> -1$ (to rounding). **Arguments:** `inner`, `square_a`, `square_b`: as
    for `cosine`. **Source:** [himoe-theory] D4.
    """
    inner, square_a, square_b = _inner_products(inner, square_a, square_b)
    opposed = cosine(inner, square_a, square_b) <= -1 + 8 * jnp.finfo(inner.dtype).eps
    return (square_a > 0) & (square_b > 0) & ~opposed


def joint_descent_ratios(
    inner: Float[Array, " tokens"], square_a: Float[Array, " tokens"], square_b: Float[Array, " tokens"]
) -> Float[Array, "tokens 2"]:
    r"""Open interval of $r = \lambda_b/\lambda_a > 0$ for which the step $-(\lambda_a a + \lambda_b b)$ decreases both.

    The rates are $-(\langle a, a\rangle + r \langle a, b\rangle)$ and $-(\langle a, b\rangle + r \langle b, b\rangle)$:
    with $c = \langle a, b\rangle$ the interval is $(-c/\langle b, b\rangle, \langle a, a\rangle/(-c))$ if $c < 0$,
    and $(0, \infty)$ otherwise; empty (lower end not below the upper) exactly where the two are antiparallel. (0, 0)
    where a gradient is 0. **Arguments:** `inner`, `square_a`, `square_b`: as
    for `cosine`. **Source:** [himoe-theory] D4.
    """
    inner, square_a, square_b = _inner_products(inner, square_a, square_b)
    against = jnp.maximum(-inner, 0)
    low = safe_divide(against, square_b, otherwise=0.0)
    high = safe_divide(square_a, against, otherwise=math.inf)
    flat = (square_a == 0) | (square_b == 0)
    return jnp.where(flat[:, None], 0, jnp.stack([low, high], axis=-1))


def _inner_products(
    inner: Float[Array, " tokens"], square_a: Float[Array, " tokens"], square_b: Float[Array, " tokens"]
) -> tuple[Array, Array, Array]:
    inner = accumulate(_checks.matrix("inner", inner, ("tokens",)))
    found = [inner]
    for name, square in (("square_a", square_a), ("square_b", square_b)):
        square = _checks.same_shape(name, _checks.matrix(name, square, ("tokens",)), "inner", inner)
        _checks.coefficient(name, square)
        found.append(accumulate(square))
    return found[0], found[1], found[2]
