"""The claims, one module for each source or subject; `CLAIMS` is all of them, in the order of the report."""

from collections.abc import Sequence

from ..ledger import Claim
from . import (
    batches,
    capacity,
    chen_laws,
    chen_router,
    combinatorics,
    compatibility,
    conserved,
    conventions,
    dynamics_adam,
    dynamics_bias,
    dynamics_branches,
    dynamics_control,
    dynamics_extensions,
    dynamics_groups,
    dynamics_growth,
    dynamics_loaded,
    dynamics_measured,
    dynamics_potts,
    dynamics_regimes,
    dynamics_sampling,
    dynamics_sign,
    dynamics_spread,
    dynamics_symmetric,
    dynamics_thresholds,
    gates,
    gradients,
    group_gradients,
    growth_conventions,
    guo,
    guo_layers,
    guo_lemmas,
    guo_opposition,
    guo_outputs,
    guo_rows,
    hard_loads,
    hard_minimum,
    hi_moe,
    hi_moe_assumptions,
    hi_moe_balance,
    hi_moe_bounds,
    hi_moe_information,
    hi_moe_modes,
    hi_moe_numbers,
    imbalance,
    information_order,
    literature_balance,
    literature_clusters,
    literature_counts,
    literature_dynamics,
    literature_gates,
    literature_gaussian,
    literature_geometry,
    literature_overlap,
    literature_similarity,
    load_gradients,
    loads,
    numbers,
    opposition,
    order,
    output_gradients,
    ranges,
    regulariser_signs,
    routing,
    symmetry,
    zoo_notes,
)

_MODULES = (
    # the two papers
    *(hi_moe, hi_moe_balance, hi_moe_bounds, hi_moe_modes, hi_moe_assumptions, hi_moe_information, hi_moe_numbers),
    *(guo, guo_outputs, guo_rows, guo_layers, guo_lemmas, guo_opposition),
    # objectives
    *(gradients, load_gradients, output_gradients, loads, hard_loads, hard_minimum, batches, conserved),
    *(compatibility, opposition, group_gradients, regulariser_signs, information_order, conventions),
    # dynamics
    *(dynamics_growth, growth_conventions, dynamics_thresholds, dynamics_symmetric, dynamics_groups, dynamics_potts),
    *(dynamics_control, dynamics_bias, dynamics_sampling, dynamics_spread, dynamics_extensions),
    *(dynamics_adam, dynamics_branches, dynamics_loaded, dynamics_sign, dynamics_measured, dynamics_regimes),
    # routing
    *(routing, symmetry, gates, order, capacity, combinatorics, imbalance, ranges),
    # other papers
    *(chen_laws, chen_router, literature_clusters, literature_gates, literature_geometry, literature_overlap),
    *(literature_gaussian, literature_balance, literature_counts, literature_dynamics, literature_similarity),
    *(zoo_notes,),
    # floating point
    *(numbers,),
)

CLAIMS: Sequence[Claim] = tuple(claim for module in _MODULES for claim in module.CLAIMS)

__all__ = [
    "CLAIMS",
]
