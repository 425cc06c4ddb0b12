r"""How evenly experts and groups are used.

A load is a non-negative vector over experts, of shares or of whole counts; leading axes, such as layers, stay. Only its
proportions matter to `coefficient_of_variation`, `group_cv`, `max_violation` and their kin, and `verdict` says whether
sampling explains them. Where every load is 0 all loads are equal, and these measures say 0; `drop_rate` tells such a
batch from a balanced one. `mask` names the real tokens; the others change nothing. Everything is dimensionless, in at
least float32.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import safe_divide, within_range
from ..partition import Partition, fitting
from ..routing import Routing
from ._common import Mask, amounts, flags, nonnegative, root, to_float, token_mean

Load = Float[Array, "*layers experts"] | Int[Array, "*layers experts"] | Int[np.ndarray, "*layers experts"]


def hard_load(selected: Bool[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, " experts"]:
    r"""Share of the tokens that each expert received, $h_e = n_e / T$.

    Sums to the number of experts a token selects (on average, where tokens differ); each entry is in $[0, 1]$; 0 for a
    dead expert. A mean over tokens. **Returns:** the default floating type. **Source:** [himoe] eq. (2).
    """
    return token_mean(flags("selected", selected, mask=mask), mask)


def soft_load(probs: Float[Array, "tokens experts"], *, mask: Mask = None) -> Float[Array, " experts"]:
    r"""Mean probability of each expert, $P_e = \frac1T \sum_t \pi_{te}$.

    Accepts any non-negative weights; sums to the mean row sum, 1 for probabilities. A mean over tokens.
    **Source:** [himoe] eq. (2).
    """
    return token_mean(nonnegative("probs", probs, mask=mask), mask)


def load_before_and_after_drops(routing: Routing) -> tuple[Float[Array, " experts"], Float[Array, " experts"]]:
    """`hard_load` of what the real tokens chose, and of what the capacity let through; never more than the first."""
    _checks.kind("routing", routing, Routing)
    selected, kept = (hard_load(flags, mask=routing.mask) for flags in (routing.selected, routing.kept))
    return selected, kept


def drop_rate(
    active: Bool[Array, "tokens routes"], kept: Bool[Array, "tokens routes"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Share of the active routes that found no place, $1 - \#\text{kept} / \#\text{active}$.

    Range $[0, 1]$; 0 if no route is active: nothing was lost. Not a mean over tokens where tokens have unequal numbers
    of active routes. **Raises:** `ValueError` if a kept route is not active.
    """
    active = flags("active", active, ("tokens", "routes"), mask)
    kept = _checks.same_shape("kept", flags("kept", kept, ("tokens", "routes"), mask), "active", active)
    if _checks.known(active) and _checks.known(kept):
        stray = int((kept & ~active).sum())
        if stray:
            raise ValueError(f"`kept` must be among `active`; {stray} of {int(kept.sum())} kept routes are not active.")
    lost = to_float((active & ~kept).sum())
    return safe_divide(lost, to_float(active.sum()), otherwise=0.0)


def coefficient_of_variation(load: Load) -> Float[Array, "*layers"]:
    r"""Standard deviation over mean, $\mathrm{CV} = \mathrm{std}(L)/\bar L$, with the population's deviation (1/N).

    $\mathrm{CV}^2 = N \|L\|^2 / (\sum_e L_e)^2 - 1$. Range $[0, \sqrt{N-1}]$: 0 at equal loads, greatest when one
    expert takes all; hard routing reaches `max_cv` at most. 0 for zero load and for one expert. The gradient at equal
    loads, where CV has a corner, is 0. Of a batch's `hard_load` it is not a mean over tokens: smaller batches have a
    larger CV. **Source:** [himoe] Prop. B.1.
    """
    return _cv(_loads(load))


def group_cv(load: Load, partition: Partition) -> Float[Array, "*layers"]:
    r"""CV of the group totals $\sum_{e \in g} L_e$, the group balance of the paper.

    Balanced means equal *totals*: with unequal groups, uniform routing has a positive value, and
    `group_cv_per_expert` is the measure that is 0 there. Range $[0, \sqrt{M-1}]$; with equal groups never more than
    the CV of the experts. 0 for zero load and for one group. **Source:** [himoe] Prop. B.1 and Thm 4.1.
    """
    return _cv(_group_totals(load, partition))


def group_cv_per_expert(load: Load, partition: Partition) -> Float[Array, "*layers"]:
    r"""CV over groups of the mean load of an expert in the group, $\frac{1}{S_g} \sum_{e \in g} L_e$.

    Balanced means that experts of different groups work equally hard on average. Groups count alike whatever their
    size. Range $[0, \sqrt{M-1}]$; equal to `group_cv` for equal groups; 0 for zero load and for one group.
    **Source:** [himoe-theory].
    """
    totals = _group_totals(load, partition)
    return _cv(totals / jnp.asarray(partition.sizes, totals.dtype))


def max_violation(load: Load) -> Float[Array, "*layers"]:
    r"""$\mathrm{MaxVio} = (\max_e L_e - \bar L) / \bar L$, how much the busiest expert exceeds the mean.

    Range $[0, N-1]$; 0 for zero load and for one expert. With it CV is known within a factor:
    $\mathrm{MaxVio} \le \sqrt{N-1}\,\mathrm{CV}$, equality when all the other loads are equal, and
    $\mathrm{CV} \le \sqrt{\mathrm{MaxVio}}$, equality when each load is 0 or the maximum (D10).
    **Source:** [loss-free], [guo] MaxVio_global.
    """
    return _excess(_loads(load)).max(axis=-1)


def max_absolute_violation(load: Load) -> Float[Array, "*layers"]:
    r"""$\max_e |L_e - \bar L| / \bar L$, which an idle expert raises to at least 1 although `max_violation` is small.

    Range $[0, \max(1, N-1)]$, at least `max_violation`; 0 for zero load and for one expert. **Source:** [guo-code],
    where it goes by the name of MaxVio.
    """
    return jnp.abs(_excess(_loads(load))).max(axis=-1)


def max_cv(num_experts: int, routes: int) -> float:
    r"""The largest CV of `hard_load` when every token selects R distinct experts, $\sqrt{N/R - 1}$.

    Each $h_e \le 1$ and $\sum_e h_e = R$, so $\sum_e h_e^2 \le R$, with equality when all tokens agree. 0 for R = N.
    """
    _checks.count("num_experts", num_experts)
    _checks.count("routes", routes, maximum=num_experts, of="num_experts")
    return math.sqrt(num_experts / routes - 1)


def _loads(load: Load) -> Float[Array, "*layers experts"]:
    """Within range: only proportions matter."""
    found = load if isinstance(load, np.ndarray) else _checks.array("load", load)
    return within_range(amounts("load", load, (*["layers"] * (found.ndim - 1), "experts")))


def _group_totals(load: Load, partition: Partition) -> Float[Array, "*layers groups"]:
    load = _loads(load)
    return fitting(partition, "load", load.shape[-1]).sum(load)


def _excess(load: Float[Array, "*layers entries"]) -> Float[Array, "*layers entries"]:
    r"""$L_e / \bar L - 1$, or 0 everywhere for zero load."""
    # Proportions depend neither on a scale nor, for deviations, on a shift, so the largest load serves as both (with no
    # gradient through it): equal loads deviate by exactly 0, and no sum or square overflows.
    largest = jax.lax.stop_gradient(load.max(axis=-1, keepdims=True))
    below = safe_divide(load - largest, largest, otherwise=0.0)
    mean = safe_divide(load, largest, otherwise=1.0).mean(axis=-1, keepdims=True)
    return (below - below.mean(axis=-1, keepdims=True)) / mean


def _cv(load: Float[Array, "*layers entries"]) -> Float[Array, "*layers"]:
    return root(jnp.square(_excess(load)).mean(axis=-1))
