r"""The Shannon pair of the released Hi-MoE code: sharp tokens, even groups, measured in nats.

Both to be minimised: $+\lambda_{intra} H(\pi)$ and $-\lambda_{inter} H(m)$, averaged over tokens, always of the raw
softmax. `epsilon` is what the code adds inside the logarithm (1e-10); 0 is the definition, finite for any logits.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from ..partition import Partition
from ._softmax import Mask, checked_logits, group_log_mass, grouped_logits, per_token, pull_back, token_mean
from .record import of_arrays


def _log(probs: Array, exact: Array, epsilon: float) -> Array:
    _checks.coefficient("epsilon", epsilon)
    return exact if epsilon == 0 else jnp.log(probs + epsilon)


def _slope(probs: Array, log: Array, epsilon: float) -> Array:
    """Derivative of p ln(p + epsilon), less the constant 1 that the softmax gauge removes when `epsilon` is 0."""
    return log if epsilon == 0 else log + probs / (probs + epsilon)


def token_entropy(
    logits: Float[Array, "tokens experts"], *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, ""]:
    r"""$\frac1T \sum_t H(\pi_t)$, $H(\pi) = -\sum_e \pi_e \ln(\pi_e + \epsilon)$; range $[0, \ln N]$ nats if
    epsilon is 0.

    **Source:** [himoe-code] entropy mode `shannon`, intra term.
    """
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    return -token_mean((probs * _log(probs, jax.nn.log_softmax(logits), epsilon)).sum(axis=-1), mask)


def token_entropy_grad(
    logits: Float[Array, "tokens experts"], *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$-\frac1T \pi_e (\ln \pi_e + H(\pi))$ for epsilon 0; in general $\pi_e(a_e - \langle \pi, a\rangle)$ with
    $a = -\ln(\pi + \epsilon) - \pi/(\pi + \epsilon)$."""
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    slope = _slope(probs, _log(probs, jax.nn.log_softmax(logits), epsilon), epsilon)
    return -per_token(pull_back(probs, slope), mask)


def group_neg_entropy(
    logits: Float[Array, "tokens experts"], partition: Partition, *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, ""]:
    r"""$-\frac1T \sum_t H(m_t)$, $H(m) = -\sum_g m_g \ln(m_g + \epsilon)$; range $[-\ln M, 0]$ nats for epsilon 0.

    **Source:** [himoe-code] entropy mode `shannon`, inter term.
    """
    logits = grouped_logits(logits, partition, mask)
    mass = partition.sum(jax.nn.softmax(logits))
    return token_mean((mass * _log(mass, group_log_mass(logits, partition), epsilon)).sum(axis=-1), mask)


def group_neg_entropy_grad(
    logits: Float[Array, "tokens experts"], partition: Partition, *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac1T \pi_e (\ln m_{g(e)} + H(m))$ for epsilon 0; in general the pull-back of
    $a_g = \ln(m_g + \epsilon) + m_g/(m_g + \epsilon)$, the same for all experts of a group."""
    logits = grouped_logits(logits, partition, mask)
    probs = jax.nn.softmax(logits)
    mass = partition.sum(probs)
    slope = _slope(mass, _log(mass, group_log_mass(logits, partition), epsilon), epsilon)
    return per_token(pull_back(probs, partition.spread(slope)), mask)


def _nats(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, math.log(partition.num_experts)


def _minus_nats(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return -math.log(partition.num_groups), 0.0


RECORDS = (
    of_arrays(
        "token_entropy",
        token_entropy,
        token_entropy_grad,
        "routing.log_probs",
        source="himoe-code",
        label="H of a token",
        bounds=_nats,
    ),
    of_arrays(
        "group_neg_entropy",
        group_neg_entropy,
        group_neg_entropy_grad,
        "routing.log_probs",
        "routing.partition",
        source="himoe-code",
        label="−H of masses",
        bounds=_minus_nats,
        uses_groups=True,
    ),
)
