r"""Intra-group regularisers of Hi-MoE, which sharpen each token's choice.

To be minimised with weight lambda_intra: the sign is inside, so a sharper softmax has a lower value. Dimensionless,
averaged over tokens. By Eq. 4, $\|\pi\|^2 = \sum_g m_g^2 \|q_g\|^2$: the global form also rewards unequal group
masses and so opposes the inter-group term (D4); the conditional form does not.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from ..partition import Partition
from ._softmax import Mask, checked_logits, conditional, grouped_logits, per_token, pull_back, token_mean
from .record import of_arrays


def intra_group_global(logits: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, ""]:
    r"""$-\frac1T \sum_t \|\pi_t\|^2$, range $[-1, -1/N]$.

    **Source:** [himoe] eq. (7); [himoe-code] mode `global`, its default.
    """
    return -token_mean(jnp.square(jax.nn.softmax(checked_logits(logits, mask=mask))).sum(axis=-1), mask)


def intra_group_global_grad(
    logits: Float[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$-\frac2T \pi_e (\pi_e - \|\pi\|^2)$."""
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    return -2 * per_token(pull_back(probs, probs), mask)


def intra_group_conditional(
    logits: Float[Array, "tokens experts"], partition: Partition, *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, ""]:
    r"""$-\frac1T \sum_t \frac1M \sum_g \|q_g\|^2$ with $q_{e|g} = \pi_e/(m_g + \epsilon)$.

    Range $[-1, -\frac1M \sum_g 1/S_g]$ for `epsilon` 0, where it is a function of the differences inside groups alone
    and finite even if a group's mass underflows. **Arguments:** `epsilon`: 0 for the definition, 1e-10 for the released
    code. **Source:** [himoe-code] mode `group_conditional`.
    """
    logits = grouped_logits(logits, partition, mask)
    q = _damped_conditional(logits, partition, epsilon)[0]
    return -token_mean(jnp.square(q).sum(axis=-1), mask) / partition.num_groups


def intra_group_conditional_grad(
    logits: Float[Array, "tokens experts"], partition: Partition, *, epsilon: float = 0.0, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$-\frac{2}{TM} \big( q_e (q_e - \|q_g\|^2) - \pi_e \sum_h \|q_h\|^2 \epsilon/(m_h + \epsilon) \big)$.

    The second term, from `epsilon` alone, is what couples the groups. For `epsilon` 0 it is absent.
    """
    logits = grouped_logits(logits, partition, mask)
    q, left_out = _damped_conditional(logits, partition, epsilon)
    purity = partition.sum(jnp.square(q))
    inside = q * (q - partition.spread(purity))
    across = jax.nn.softmax(logits) * (purity * left_out).sum(axis=-1, keepdims=True)
    return -2 / partition.num_groups * per_token(inside - across, mask)


def _damped_conditional(
    logits: Float[Array, "tokens experts"], partition: Partition, epsilon: float
) -> tuple[Float[Array, "tokens experts"], Float[Array, "tokens groups"]]:
    r"""$q = \pi/(m + \epsilon)$ and the share $\epsilon/(m + \epsilon)$ that it leaves out, per group."""
    _checks.coefficient("epsilon", epsilon)
    q = conditional(logits, partition)
    mass = partition.sum(jax.nn.softmax(logits))
    if epsilon == 0:
        return q, jnp.zeros_like(mass)
    return q * partition.spread(mass / (mass + epsilon)), epsilon / (mass + epsilon)


def _to_even(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return -1.0, -1 / partition.num_experts


def _to_even_inside(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return -1.0, -sum(1 / size for size in partition.sizes) / partition.num_groups


RECORDS = (
    of_arrays(
        "intra_group_global",
        intra_group_global,
        intra_group_global_grad,
        "routing.log_probs",
        source="himoe",
        label=r"$R_\mathrm{intra}$ global",
        bounds=_to_even,
    ),
    of_arrays(
        "intra_group_global_selection",
        intra_group_global,
        intra_group_global_grad,
        "routing.selection_log_probs",
        source="himoe-code",
        label=r"$R_\mathrm{intra}$ global, corrected",
        of="selection_logits",
        bounds=_to_even,
    ),
    of_arrays(
        "intra_group_conditional",
        intra_group_conditional,
        intra_group_conditional_grad,
        "routing.log_probs",
        "routing.partition",
        source="himoe-code",
        label=r"$R_\mathrm{intra}$ conditional",
        bounds=_to_even_inside,
        uses_groups=True,
    ),
    of_arrays(
        "intra_group_conditional_selection",
        intra_group_conditional,
        intra_group_conditional_grad,
        "routing.selection_log_probs",
        "routing.partition",
        source="himoe-code",
        label=r"$R_\mathrm{intra}$ conditional, corrected",
        of="selection_logits",
        bounds=_to_even_inside,
        uses_groups=True,
    ),
)
