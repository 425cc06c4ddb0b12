"""Router dynamics: closed forms (growth rates, transitions, thresholds, floors), and what they are special cases of:
spectra of any field of training by autodiff, and its flow. Simulations are measured against them."""

from .adam import adam_growth as adam_growth
from .adam import adam_rate as adam_rate
from .controllers import bias_determinant as bias_determinant
from .controllers import bias_threshold as bias_threshold
from .controllers import bias_trace as bias_trace
from .controllers import hopf_period as hopf_period
from .controllers import live_coefficient_frozen as live_coefficient_frozen
from .controllers import live_threshold_frozen as live_threshold_frozen
from .controllers import live_threshold_full as live_threshold_full
from .controllers import live_upper_end_frozen as live_upper_end_frozen
from .counts import count_slope as count_slope
from .counts import critical_load_hard as critical_load_hard
from .counts import spread_push as spread_push
from .counts import spread_slope as spread_slope
from .fields import Field as Field
from .fields import FreeLogits as FreeLogits
from .fields import LinearRouter as LinearRouter
from .fields import LogitGradient as LogitGradient
from .fields import Mixture as Mixture
from .fields import Normalised as Normalised
from .fields import OverDraws as OverDraws
from .fields import PopulationGradient as PopulationGradient
from .fields import RouterAndExperts as RouterAndExperts
from .fields import gaussian_nodes as gaussian_nodes
from .fields import linear_expert as linear_expert
from .fields import two_layer_expert as two_layer_expert
from .finite import critical_batch_hard as critical_batch_hard
from .finite import hard_nucleus as hard_nucleus
from .finite import hard_sharpening as hard_sharpening
from .finite import sign_bias_floor as sign_bias_floor
from .flows import Path as Path
from .flows import flow as flow
from .flows import settle as settle
from .groups import flip_purity as flip_purity
from .groups import group_coefficient as group_coefficient
from .growth import common_between_frozen as common_between_frozen
from .growth import common_between_full as common_between_full
from .growth import common_within_frozen as common_within_frozen
from .growth import common_within_full as common_within_full
from .growth import contrast_between as contrast_between
from .growth import contrast_within as contrast_within
from .growth import corrected_common as corrected_common
from .growth import corrected_contrast as corrected_contrast
from .growth import critical_group_ratio as critical_group_ratio
from .growth import critical_load_frozen as critical_load_frozen
from .growth import critical_load_full as critical_load_full
from .growth import load_pull_frozen as load_pull_frozen
from .growth import load_pull_full as load_pull_full
from .levels import between_rate as between_rate
from .levels import inside_rate as inside_rate
from .levels import potts_control as potts_control
from .linearise import Spectrum as Spectrum
from .linearise import growth_rate as growth_rate
from .linearise import jacobian as jacobian
from .linearise import leading_spectrum as leading_spectrum
from .linearise import spectrum as spectrum
from .linearise import velocity as velocity
from .modes import largest_share as largest_share
from .modes import logit_change as logit_change
from .modes import mixture_shares as mixture_shares
from .modes import mode_shares as mode_shares
from .modes import shares as shares
from .potts import coexistence as coexistence
from .potts import collapsed_control as collapsed_control
from .potts import pair_folds as pair_folds
from .potts import potential as potential
from .potts import reinforcement as reinforcement
from .potts import spinodal as spinodal
from .potts import uniform_limit as uniform_limit
from .potts import uniform_rate as uniform_rate
from .reinforced import Biased as Biased
from .reinforced import BiasedReinforcement as BiasedReinforcement
from .reinforced import GroupedReinforcement as GroupedReinforcement
from .reinforced import Levels as Levels
from .reinforced import Reinforcement as Reinforcement
from .reinforced import SmoothSign as SmoothSign
from .reinforced import proportional as proportional
from .sampling import collapse_ratio as collapse_ratio
from .sampling import collapse_window as collapse_window
from .sampling import expected_maximum as expected_maximum
from .sampling import max_violation_floor as max_violation_floor
from .specialising import Onset as Onset
from .specialising import onset as onset
from .specialising import selection_drive as selection_drive
from .specialising import slowed_rate as slowed_rate
from .specialising import symmetric_moments as symmetric_moments
from .switching import Sliding as Sliding
from .switching import SmoothedLoad as SmoothedLoad
from .switching import switched_flow as switched_flow
from .symmetric import residual_moment as residual_moment
from .symmetric import smallest_curvature as smallest_curvature
from .symmetric import specialisation_rates as specialisation_rates
from .walk import bias_walk_floor as bias_walk_floor

__all__ = [
    "Biased",
    "BiasedReinforcement",
    "Field",
    "FreeLogits",
    "GroupedReinforcement",
    "Levels",
    "LinearRouter",
    "LogitGradient",
    "Mixture",
    "Normalised",
    "Onset",
    "OverDraws",
    "Path",
    "PopulationGradient",
    "Reinforcement",
    "RouterAndExperts",
    "Sliding",
    "SmoothSign",
    "SmoothedLoad",
    "Spectrum",
    "adam_growth",
    "adam_rate",
    "between_rate",
    "bias_determinant",
    "bias_threshold",
    "bias_trace",
    "bias_walk_floor",
    "coexistence",
    "collapse_ratio",
    "collapse_window",
    "collapsed_control",
    "common_between_frozen",
    "common_between_full",
    "common_within_frozen",
    "common_within_full",
    "contrast_between",
    "contrast_within",
    "corrected_common",
    "corrected_contrast",
    "count_slope",
    "critical_batch_hard",
    "critical_group_ratio",
    "critical_load_frozen",
    "critical_load_full",
    "critical_load_hard",
    "expected_maximum",
    "flip_purity",
    "flow",
    "gaussian_nodes",
    "group_coefficient",
    "growth_rate",
    "hard_nucleus",
    "hard_sharpening",
    "hopf_period",
    "inside_rate",
    "jacobian",
    "largest_share",
    "leading_spectrum",
    "linear_expert",
    "live_coefficient_frozen",
    "live_threshold_frozen",
    "live_threshold_full",
    "live_upper_end_frozen",
    "load_pull_frozen",
    "load_pull_full",
    "logit_change",
    "max_violation_floor",
    "mixture_shares",
    "mode_shares",
    "onset",
    "pair_folds",
    "potential",
    "potts_control",
    "proportional",
    "reinforcement",
    "residual_moment",
    "selection_drive",
    "settle",
    "shares",
    "sign_bias_floor",
    "slowed_rate",
    "smallest_curvature",
    "specialisation_rates",
    "spectrum",
    "spinodal",
    "spread_push",
    "spread_slope",
    "switched_flow",
    "symmetric_moments",
    "two_layer_expert",
    "uniform_limit",
    "uniform_rate",
    "velocity",
]
