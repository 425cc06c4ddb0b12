r"""Squared coefficients of variation of importance and load (Shazeer et al.).

$\mathrm{CV}^2 = \mathrm{Var}/\mathrm{mean}^2$ is computed without the square root, so value and gradient are finite,
and the gradient is exactly 0, at perfect balance. Range $[0, N-1]$; dimensionless; to be minimised.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._numerics import masked_softmax, safe_divide
from ..partition import Partition
from ._softmax import Mask, blanked, checked_logits, checked_selection, pull_back, token_sum
from .record import Objective, View, of_arrays


def cv_squared(amounts: Float[Array, " experts"]) -> Float[Array, ""]:
    r"""$N \sum_e a_e^2 / (\sum_e a_e)^2 - 1$ of non-negative amounts; 0 when all amounts are 0 (nothing is uneven)."""
    amounts = _checks.matrix("amounts", amounts, ("experts",))
    _checks.coefficient("amounts", amounts)
    variation = jnp.square(_centred(amounts)).sum()
    return amounts.shape[0] * safe_divide(variation, jnp.square(amounts.sum()), otherwise=0.0)


def _centred(amounts: Float[Array, " experts"]) -> Float[Array, " experts"]:
    """Amounts less their mean. Differences are taken first, so that equal amounts give exactly 0."""
    from_first = amounts - jax.lax.stop_gradient(amounts[0])
    return from_first - from_first.mean()


def _cv_squared_slope(amounts: Float[Array, " experts"]) -> Float[Array, " experts"]:
    r"""$\partial \mathrm{CV}^2/\partial a_e = \frac{2N}{A^2} (a_e - \|a\|^2/A) = \frac{2N}{A^2} (c_e - \|c\|^2/A)$,
    $A = \sum a$ and $c = a - A/N$; the second form is exactly 0 where all amounts are equal."""
    total, centred = amounts.sum(), _centred(amounts)
    excess = safe_divide(jnp.square(centred).sum(), total, otherwise=0.0)
    return 2 * amounts.shape[0] * safe_divide(centred - excess, jnp.square(total), otherwise=0.0)


def importance_cv_squared(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""$\mathrm{CV}^2$ of the importance $I_e = \sum_t w_{te}$, w the softmax over the selected logits; gradient full.

    With everything selected this is `p_squared` - 1. **Source:** [shazeer] eqs. (6, 7), without the weight.
    """
    logits = checked_logits(logits, mask=mask)
    return cv_squared(masked_softmax(logits, checked_selection(selected, logits, mask)).sum(axis=0))


def importance_cv_squared_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""Pull-back of $\frac{2N}{A^2}(I_e - \|I\|^2/A)$, $A = \sum_e I_e = T$, through the masked softmax."""
    logits = checked_logits(logits, mask=mask)
    weights = masked_softmax(logits, checked_selection(selected, logits, mask))
    return pull_back(weights, _cv_squared_slope(weights.sum(axis=0)))


def load_cv_squared(
    logits: Float[Array, "tokens experts"],
    noise: Float[Array, "tokens experts"],
    *,
    k: int,
    noise_std: float,
    mask: Mask = None,
) -> Float[Array, ""]:
    r"""$\mathrm{CV}^2$ of the smooth load $\sum_t \Phi\big((s_{te} - \theta_{te})/\sigma\big)$; gradient full.

    $\theta_{te}$ is the k-th largest of the *other* experts' noisy logits $s + \mathrm{noise}$: the term is the
    probability that e is among the top k if its own noise were drawn again.

    **Arguments:** `noise`: the noise added for selection, a constant (zeros for none). `k`: in 1..N-1. `noise_std`:
    $\sigma > 0$. **Source:** [shazeer] eqs. (8-11) with a fixed $\sigma$.
    """
    logits = checked_logits(logits, mask=mask)
    threshold, _ = _threshold(logits, blanked("noise", noise, mask), k)
    _checks.positive("noise_std", noise_std)
    return cv_squared(token_sum(jax.scipy.stats.norm.cdf((logits - threshold) / noise_std), mask))


def load_cv_squared_grad(
    logits: Float[Array, "tokens experts"],
    noise: Float[Array, "tokens experts"],
    *,
    k: int,
    noise_std: float,
    mask: Mask = None,
) -> Float[Array, "tokens experts"]:
    r"""$b_{te} - \sum_{e': \theta_{te'} = s_{te} + \mathrm{noise}} b_{te'}$ with
    $b_{te} = \frac1\sigma \varphi(z_{te})\, \partial \mathrm{CV}^2/\partial \mathrm{load}_e$:
    the second term is from the threshold, which is another expert's logit."""
    logits = checked_logits(logits, mask=mask)
    threshold, source = _threshold(logits, blanked("noise", noise, mask), k)
    _checks.positive("noise_std", noise_std)
    z = (logits - threshold) / noise_std
    slope = _cv_squared_slope(token_sum(jax.scipy.stats.norm.cdf(z), mask))
    push = blanked("push", jax.scipy.stats.norm.pdf(z) / noise_std * slope, mask)
    rows = jnp.arange(logits.shape[0])[:, None]
    return push.at[rows, source].add(-push)


def _threshold(
    logits: Float[Array, "tokens experts"], noise: Float[Array, "tokens experts"], k: int
) -> tuple[Float[Array, "tokens experts"], Array]:
    """The k-th largest noisy logit among the others, and whose it is: rank k+1 for the top k, rank k for the rest."""
    _checks.count("k", k, maximum=logits.shape[1] - 1, of="one less than the experts")
    noise = _checks.same_shape("noise", _checks.matrix("noise", noise), "logits", logits)
    noisy = logits + jax.lax.stop_gradient(noise).astype(logits.dtype)
    _, order = jax.lax.top_k(noisy, k + 1)
    inside = jnp.zeros(logits.shape, bool).at[jnp.arange(logits.shape[0])[:, None], order[:, :k]].set(True)
    source = jnp.where(inside, order[:, k : k + 1], order[:, k - 1 : k])
    return jnp.take_along_axis(noisy, source, axis=1), source


def _smooth(view: View) -> tuple[Array, Array, int]:
    """What the smooth load takes of a routing without noise: logits, zeros, k."""
    logits = view.routing.logits
    return logits, jnp.zeros_like(logits), min(view.routing.experts.shape[1], logits.shape[1] - 1)


def _smooth_load(view: View) -> Float[Array, ""]:
    logits, noise, k = _smooth(view)
    return load_cv_squared(logits, noise, k=k, noise_std=1.0, mask=view.routing.mask)


def _smooth_load_grad(view: View) -> Float[Array, "tokens experts"]:
    logits, noise, k = _smooth(view)
    return load_cv_squared_grad(logits, noise, k=k, noise_std=1.0, mask=view.routing.mask)


def _up_to_one_expert(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, partition.num_experts - 1.0


RECORDS = (
    of_arrays(
        "importance_cv_squared",
        importance_cv_squared,
        importance_cv_squared_grad,
        "routing.log_probs",
        "routing.selected",
        source="shazeer",
        label="CV² of importance",
        needs=frozenset({"selection"}),
        bounds=_up_to_one_expert,
        token_mean=False,
    ),
    Objective(
        "load_cv_squared",
        _smooth_load,
        "shazeer",
        gradient=_smooth_load_grad,
        label="CV² of smooth load",
        needs=frozenset({"logits"}),
        bounds=_up_to_one_expert,
        token_mean=False,
    ),
)
