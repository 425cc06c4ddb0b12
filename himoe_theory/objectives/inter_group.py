r"""Inter-group regularisers of Hi-MoE: three objectives that paper and released code give one name.

To be minimised with weight lambda_inter; dimensionless, averaged over tokens. The paper's Eq. 6 penalises the selected
weights; the released code penalises the group mass of the full softmax by default. `logits` are those of the
probabilities the term uses: for the two selected forms the released code takes the bias-corrected ones.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..partition import Partition
from ._softmax import Mask, checked_logits, checked_selection, grouped_logits, per_token, pull_back, token_mean
from .record import of_arrays


def inter_group_selected(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""$\frac1T \sum_t \|\tilde\pi_t\|^2$, $\tilde\pi$ the softmax masked to the selection, not renormalised.

    Range $[0, 1]$. **Source:** [himoe] eq. (6); [himoe-code] mode `selected_l2`.
    """
    logits = checked_logits(logits, mask=mask)
    kept = jnp.where(checked_selection(selected, logits, mask), jax.nn.softmax(logits), 0)
    return token_mean(jnp.square(kept).sum(axis=-1), mask)


def inter_group_selected_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac2T \pi_e (1_{sel} \pi_e - \|\tilde\pi\|^2)$; the selection is a constant."""
    logits = checked_logits(logits, mask=mask)
    probs = jax.nn.softmax(logits)
    kept = jnp.where(checked_selection(selected, logits, mask), probs, 0)
    return 2 * per_token(pull_back(probs, kept), mask)


def inter_group_sparse(
    logits: Float[Array, "tokens experts"],
    selected: Bool[Array, "tokens experts"],
    partition: Partition,
    *,
    mask: Mask = None,
) -> Float[Array, ""]:
    r"""$\frac1T \sum_t \sum_g \tilde m_g^2$ with $\tilde m_g = \sum_{e \in g,\, e\ \mathrm{selected}} \pi_e$.

    Range $[0, 1]$. Equals `inter_group_selected` when one expert a group is selected, and `inter_group_dense` when all
    are. **Source:** [himoe-code] mode `sparse_group_mass`.
    """
    logits = grouped_logits(logits, partition, mask)
    kept = jnp.where(checked_selection(selected, logits, mask), jax.nn.softmax(logits), 0)
    return token_mean(jnp.square(partition.sum(kept)).sum(axis=-1), mask)


def inter_group_sparse_grad(
    logits: Float[Array, "tokens experts"],
    selected: Bool[Array, "tokens experts"],
    partition: Partition,
    *,
    mask: Mask = None,
) -> Float[Array, "tokens experts"]:
    r"""$\frac2T \pi_e (1_{sel} \tilde m_{g(e)} - \sum_h \tilde m_h^2)$; the selection is a constant."""
    logits = grouped_logits(logits, partition, mask)
    selected = checked_selection(selected, logits, mask)
    probs = jax.nn.softmax(logits)
    mass = partition.spread(partition.sum(jnp.where(selected, probs, 0)))
    return 2 * per_token(pull_back(probs, jnp.where(selected, mass, 0)), mask)


def inter_group_dense(
    logits: Float[Array, "tokens experts"], partition: Partition, *, mask: Mask = None
) -> Float[Array, ""]:
    r"""$\frac1T \sum_t \sum_g m_g^2$ with the group mass $m_g = \sum_{e \in g} \pi_e$ of the full softmax.

    Range $[1/M, 1]$: least at equal group masses, greatest when each token uses one group.
    **Source:** [himoe-code] mode `dense_group_mass`, its default; not [himoe] eq. (6).
    """
    logits = grouped_logits(logits, partition, mask)
    return token_mean(jnp.square(partition.sum(jax.nn.softmax(logits))).sum(axis=-1), mask)


def inter_group_dense_grad(
    logits: Float[Array, "tokens experts"], partition: Partition, *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac2T \pi_e (m_{g(e)} - \sum_h m_h^2)$."""
    logits = grouped_logits(logits, partition, mask)
    probs = jax.nn.softmax(logits)
    return 2 * per_token(pull_back(probs, partition.spread(partition.sum(probs))), mask)


def _unit(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, 1.0


def _from_even_groups(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 1 / partition.num_groups, 1.0


RECORDS = (
    of_arrays(
        "inter_group_selected",
        inter_group_selected,
        inter_group_selected_grad,
        "routing.selection_log_probs",
        "routing.selected",
        source="himoe",
        label=r"$R_\mathrm{inter}$ selected",
        of="selection_logits",
        needs=frozenset({"selection"}),
        bounds=_unit,
    ),
    of_arrays(
        "inter_group_sparse",
        inter_group_sparse,
        inter_group_sparse_grad,
        "routing.selection_log_probs",
        "routing.selected",
        "routing.partition",
        source="himoe-code",
        label=r"$R_\mathrm{inter}$ sparse",
        of="selection_logits",
        needs=frozenset({"selection"}),
        bounds=_unit,
        uses_groups=True,
    ),
    of_arrays(
        "inter_group_dense",
        inter_group_dense,
        inter_group_dense_grad,
        "routing.log_probs",
        "routing.partition",
        source="himoe-code",
        label=r"$R_\mathrm{inter}$ dense",
        bounds=_from_even_groups,
        uses_groups=True,
    ),
)
