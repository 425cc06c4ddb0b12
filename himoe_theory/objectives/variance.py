r"""The variance objective L_v of Guo et al.: across tokens in the paper, across experts in the code.

Both to be minimised (the variance is maximised). They meet Hi-MoE (D3): the code's form is its intra-group term,
$L_v = -\frac{1}{N-1}\big(\overline{\|\pi\|^2} - 1/N\big)$; the paper's is that term and a balance penalty,
$-\frac TN \big(\overline{\|s\|^2} - \|\bar s\|^2\big)$, $-T/N$ times the Gini gain.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._numerics import masked_softmax
from ..partition import Partition
from ._softmax import Mask, blanked, checked_logits, checked_selection, per_token, pull_back, token_mean
from .record import of_arrays


def variance_across_tokens(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""$-\frac1N \sum_t \sum_e (w_{te} - \bar w_e)^2$, w the weights renormalised over the selection, $\bar w_e$ their
    token mean.

    Summed over tokens as printed, so it grows with T; range $[-\frac TN (1 - 1/\min(T, N)), 0]$, least at one-hot
    weights spread evenly over as many experts as there are tokens; 0 for one token.
    **Source:** [guo] eq. (5), paper form.
    """
    logits = checked_logits(logits, mask=mask)
    weights = masked_softmax(logits, checked_selection(selected, logits, mask))
    return -jnp.square(blanked("weights", weights - token_mean(weights, mask), mask)).sum() / logits.shape[1]


def variance_across_tokens_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""Pull-back of $\partial L_v/\partial w_{te} = -\frac2N (w_{te} - \bar w_e)$ through the masked softmax.

    The factor (T-1)/T printed in [guo] eqs. (9, 10) is not there: the deviations of a column sum to zero.
    """
    logits = checked_logits(logits, mask=mask)
    weights = masked_softmax(logits, checked_selection(selected, logits, mask))
    return -2 / logits.shape[1] * pull_back(weights, weights - token_mean(weights, mask))


def variance_across_experts(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$-\frac1T \sum_t \frac{1}{N-1} \sum_e (\pi_e - 1/N)^2$: minus the unbiased variance of each token's
    probabilities.

    Range $[-1/N, 0]$. **Raises:** `ValueError` for one expert, whose variance is undefined. **Source:** [guo-code].
    """
    logits = checked_logits(logits, mask=mask)
    experts = _several_experts(logits)
    return -token_mean(jnp.square(jax.nn.softmax(logits) - 1 / experts).sum(axis=-1), mask) / (experts - 1)


def variance_across_experts_grad(
    logits: Float[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$-\frac{2}{T(N-1)} \pi_e (\pi_e - \|\pi\|^2)$."""
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    return -2 / (_several_experts(logits) - 1) * per_token(pull_back(probs, probs), mask)


def _several_experts(logits: Float[Array, "tokens experts"]) -> int:
    experts = logits.shape[1]
    if experts < 2:
        raise ValueError(f"`logits` must have at least 2 experts for a variance across them; got {experts}.")
    return experts


def _spread_over_tokens(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    experts = partition.num_experts
    return -tokens / experts * (1 - 1 / min(tokens, experts)), 0.0


def _spread_over_experts(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return -1 / partition.num_experts, 0.0


RECORDS = (
    of_arrays(
        "variance_across_tokens",
        variance_across_tokens,
        variance_across_tokens_grad,
        "routing.log_probs",
        "routing.selected",
        source="guo",
        label="$L_v$ paper",
        needs=frozenset({"selection"}),
        bounds=_spread_over_tokens,
        token_mean=False,
    ),
    of_arrays(
        "variance_across_experts",
        variance_across_experts,
        variance_across_experts_grad,
        "routing.log_probs",
        source="guo-code",
        label="$L_v$ released",
        bounds=_spread_over_experts,
    ),
)
