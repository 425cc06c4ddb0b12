r"""How concentrated each token's routing is, and how much of that depends on the token.

$\pi_t$ are probabilities over experts (rows that sum to 1; outside `jit` other rows are a `ValueError`), means are over
the T tokens. `collision_information`, `gini_gain` and `routing_variance` compare the same two numbers, the mean of
$\|\pi_t\|^2$ and the square of the mean: by ratio, by difference, and by difference per expert. All three are 0 exactly
when routing ignores the token, so also for one token. `mask` names the real tokens; the others change nothing.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .. import _checks
from .._numerics import accumulate, safe_divide, xlogx
from ..partition import Partition, fitting
from ._common import ROUTED, Mask, flags, of_real_tokens, simplex, to_float, token_mean


def effective_experts(probs: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Mean over tokens of $\exp H(\pi_t)$: the number of equally likely experts with the entropy of a token.

    Range $[1, N]$: 1 when each token has one expert, N at uniform probabilities. A dead expert adds nothing.
    """
    return token_mean(_perplexity(simplex("probs", probs, mask)), mask)


def effective_groups(
    probs: Float[Array, "tokens experts"], partition: Partition, *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Mean over tokens of $\exp H(m_t)$, $m_{tg} = \sum_{e \in g} \pi_{te}$: effective groups a token.

    Range $[1, M]$, never more than `effective_experts`; 1 for one group. Sees a group collapse that counts cannot see
    when the number of experts selected in each group is fixed (D11).
    """
    probs = simplex("probs", probs, mask)
    fitting(partition, "probs", probs.shape[1])
    return token_mean(_perplexity(partition.sum(probs)), mask)


def groups_touched(
    selected: Bool[Array, "tokens experts"], partition: Partition, *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Mean over tokens of the number of groups in which the token selects an expert.

    Range $[0, M]$; M under grouped selection; a token without any selection counts 0.
    **Source:** [himoe], which reports 3.14 of 4 for flat top-4 of 8.
    """
    selected = flags("selected", selected, mask=mask)
    fitting(partition, "selected", selected.shape[1])
    return token_mean((partition.sum(to_float(selected)) > 0).sum(axis=-1), mask)


def collision_information(probs: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$I_2 = H_2(E) - H_2(E|X) = \ln\big(\overline{\|\pi_t\|^2} \,/\, \|\bar\pi\|^2\big)$, in nats.

    Range $[0, \ln\min(N, T)]$: 0 when routing ignores the token (so for one token), greatest when tokens spread evenly
    over experts, one each. Not a mean over tokens. **Source:** [himoe] Thm 4.3; non-negative by Jensen.
    """
    gain, square_of_mean = _gini_parts(simplex("probs", probs, mask), mask)
    # ln(1 + gain / ...) keeps its relative accuracy where routing hardly depends on the token.
    return jnp.log1p(safe_divide(gain, square_of_mean, otherwise=0.0))


def gini_gain(probs: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$\overline{\|\pi_t\|^2} - \|\bar\pi\|^2$, the drop in Gini impurity of the expert once the token is known.

    Range $[0, 1 - 1/\min(N, T)]$; 0 for one token. The numerator of Goodman and Kruskal's tau, and N times
    `routing_variance`. Not a mean over tokens.
    """
    return _gini_parts(simplex("probs", probs, mask), mask)[0]


def routing_variance(weights: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Mean over experts of the variance over tokens, $\frac{1}{NT} \sum_e \sum_t (w_{te} - \bar w_e)^2$.

    The population's variance (1/T); accepts any weights. Equals $-L_v/T$ for the paper's variance objective. At least
    0, and at most $1/N$ for rows that are probabilities; 0 for one token. Not a mean over tokens.
    **Source:** [guo] eq. (5).
    """
    real = of_real_tokens("weights", weights, ROUTED, mask)
    wide = accumulate(_checks.matrix("weights", real))
    return _gini_parts(wide, mask)[0] / wide.shape[1]


def _perplexity(probs: Float[Array, "tokens outcomes"]) -> Float[Array, " tokens"]:
    return jnp.exp(-xlogx(probs).sum(axis=-1))


def _gini_parts(weights: Float[Array, "tokens experts"], mask: Mask) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean square minus square of the mean, and square of the mean."""
    # A sum of squares cannot come out negative, and relative to the first real token equal rows give exactly 0.
    shifted = weights - (weights[:1] if mask is None else weights[jnp.argmax(mask)])
    gain = token_mean(jnp.square(shifted - token_mean(shifted, mask)).sum(axis=-1), mask)
    return gain, jnp.square(token_mean(weights, mask)).sum()
