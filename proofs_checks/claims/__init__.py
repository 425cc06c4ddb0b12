"""The claims, one module for each source or subject; `CLAIMS` is all of them, in the order of the report."""

from collections.abc import Sequence

from ..ledger import Claim
from . import (
    batches,
    capacity,
    combinatorics,
    compatibility,
    conserved,
    dynamics_adam,
    dynamics_bias,
    dynamics_control,
    dynamics_extensions,
    dynamics_groups,
    dynamics_growth,
    dynamics_potts,
    dynamics_regimes,
    dynamics_sampling,
    dynamics_spread,
    dynamics_symmetric,
    dynamics_thresholds,
    gates,
    gradients,
    guo,
    guo_layers,
    guo_lemmas,
    guo_outputs,
    hard_loads,
    hard_minimum,
    hi_moe,
    hi_moe_balance,
    hi_moe_information,
    hi_moe_modes,
    hi_moe_numbers,
    imbalance,
    literature_balance,
    literature_clusters,
    literature_gates,
    literature_gaussian,
    literature_geometry,
    literature_overlap,
    load_gradients,
    loads,
    opposition,
    output_gradients,
    ranges,
    routing,
    symmetry,
)

_MODULES = (
    # the two papers
    *(hi_moe, hi_moe_balance, hi_moe_modes, hi_moe_information, hi_moe_numbers),
    *(guo, guo_outputs, guo_layers, guo_lemmas),
    # objectives
    *(gradients, load_gradients, output_gradients, loads, hard_loads, hard_minimum, batches, conserved),
    *(compatibility, opposition),
    # dynamics
    *(dynamics_growth, dynamics_thresholds, dynamics_symmetric, dynamics_groups, dynamics_potts),
    *(dynamics_control, dynamics_bias, dynamics_sampling, dynamics_spread, dynamics_extensions),
    *(dynamics_adam, dynamics_regimes),
    # routing
    *(routing, symmetry, gates, capacity, combinatorics, imbalance, ranges),
    # other papers
    *(literature_clusters, literature_gates, literature_geometry, literature_overlap),
    *(literature_gaussian, literature_balance),
)

CLAIMS: Sequence[Claim] = tuple(claim for module in _MODULES for claim in module.CLAIMS)
