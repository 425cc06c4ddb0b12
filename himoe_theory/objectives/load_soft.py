r"""Load-balancing objectives of the mean probabilities P alone: frozen, full, and the entropy form.

For the counts that released code uses, and what *frozen* and *full* mean, see `load_hard`.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import xlogx
from ..partition import Partition
from ..routing import Routing
from ._softmax import Mask, checked_logits, per_token, pull_back, token_mean
from .load_hard import load_for_share, load_for_share_grad
from .record import LoadConvention, LoadForm, of_arrays


def load_frozen(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Soft load, frozen: $N \sum_e \mathrm{sg}(P_e) P_e$, h = P ($\sum_e h_e = 1$) and no gradient through h.

    Range $[1, N]$, least at uniform P. Same value as `p_squared`, half of its gradient. **Source:** D1 `frozen`.
    """
    logits = checked_logits(logits, mask=mask)
    return load_for_share(logits, token_mean(jax.nn.softmax(logits), mask), mask=mask)


def load_frozen_grad(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (P_e - \langle P, \pi \rangle)$."""
    logits = checked_logits(logits, mask=mask)
    return load_for_share_grad(logits, token_mean(jax.nn.softmax(logits), mask), mask=mask)


def p_squared(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Soft load, full: $N \sum_e P_e^2$, h = P ($\sum_e h_e = 1$) with the gradient through both factors.

    Range $[1, N]$, least at uniform P. **Source:** [dsc] ($E \sum P^2$); D1 `full`.
    """
    logits = checked_logits(logits, mask=mask)
    return logits.shape[1] * jnp.square(token_mean(jax.nn.softmax(logits), mask)).sum()


def p_squared_grad(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "tokens experts"]:
    r"""$\frac{2N}{T} \pi_e (P_e - \langle P, \pi \rangle)$."""
    return 2 * load_frozen_grad(logits, mask=mask)


def load_entropy(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""Negative entropy of the mean probabilities, $\sum_e P_e \ln P_e$, in nats; h does not occur; gradient full.

    Range $[-\ln N, 0]$, least at uniform P. **Source:** [libmoe], entropy form.
    """
    return xlogx(token_mean(jax.nn.softmax(checked_logits(logits, mask=mask)), mask)).sum()


def load_entropy_grad(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, "tokens experts"]:
    r"""$\frac1T \pi_e (\ln P_e - \sum_j \pi_j \ln P_j)$; experts whose P underflows to 0 get none."""
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    mean = token_mean(probs, mask)
    unused = mean == 0
    slope = jnp.where(unused, 0, jnp.log(jnp.where(unused, 1, mean)))
    return per_token(pull_back(probs, slope), mask)


def _one_to_experts(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 1.0, float(partition.num_experts)


def _nats(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return -math.log(partition.num_experts), 0.0


def _one(experts: int, routes: int) -> float:
    return 1.0


def _minus_log(experts: int, routes: int) -> float:
    return -math.log(experts)


def _probs(routing: Routing) -> Float[Array, "tokens experts"]:
    return routing.probs


def _log_over_experts(share: Float[Array, "rows experts"]) -> Float[Array, "rows experts"]:
    unused = share == 0
    return jnp.where(unused, 0, jnp.log(jnp.where(unused, 1, share))) / share.shape[1]


_FROZEN = LoadForm(_probs, per_token=True)

RECORDS = (
    of_arrays(
        "load_frozen",
        load_frozen,
        load_frozen_grad,
        "routing.log_probs",
        source="himoe-theory",
        label="load (frozen)",
        bounds=_one_to_experts,
        convention=LoadConvention("P as a value", "mean softmax", "frozen", "theory (D1)", _one, _FROZEN),
        token_mean=False,
    ),
    of_arrays(
        "p_squared",
        p_squared,
        p_squared_grad,
        "routing.log_probs",
        source="dsc",
        label="load (full)",
        bounds=_one_to_experts,
        convention=LoadConvention(
            "P", "mean softmax", "full", "DSC; theory (D1)", _one, dataclasses.replace(_FROZEN, gradient=2.0)
        ),
        token_mean=False,
    ),
    of_arrays(
        "load_entropy",
        load_entropy,
        load_entropy_grad,
        "routing.log_probs",
        source="libmoe",
        label="−H of the load",
        bounds=_nats,
        convention=LoadConvention(
            "none",
            "mean softmax",
            "full",
            "LibMoE (entropy form)",
            _minus_log,
            dataclasses.replace(_FROZEN, slope=_log_over_experts),
        ),
        token_mean=False,
    ),
)
