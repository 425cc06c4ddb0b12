"""Measurements of a routing: balance, concentration, information, similarity and change.

Functions of arrays that return arrays or, where they say host only, a Python float. None takes part in training.
"""

from .balance import coefficient_of_variation as coefficient_of_variation
from .balance import drop_rate as drop_rate
from .balance import group_cv as group_cv
from .balance import group_cv_per_expert as group_cv_per_expert
from .balance import hard_load as hard_load
from .balance import load_before_and_after_drops as load_before_and_after_drops
from .balance import max_absolute_violation as max_absolute_violation
from .balance import max_cv as max_cv
from .balance import max_violation as max_violation
from .balance import soft_load as soft_load
from .change import MAX_CODES as MAX_CODES
from .change import choice_redundancy as choice_redundancy
from .change import churn as churn
from .change import co_activation as co_activation
from .change import co_activation_excess as co_activation_excess
from .concentration import collision_information as collision_information
from .concentration import effective_experts as effective_experts
from .concentration import effective_groups as effective_groups
from .concentration import gini_gain as gini_gain
from .concentration import groups_touched as groups_touched
from .concentration import routing_variance as routing_variance
from .floor import SamplingFloor as SamplingFloor
from .floor import Verdict as Verdict
from .floor import cv_floor as cv_floor
from .floor import sampling_floor as sampling_floor
from .floor import verdict as verdict
from .information import adjusted_information as adjusted_information
from .information import contingency as contingency
from .information import matching_accuracy as matching_accuracy
from .information import mutual_information as mutual_information
from .information import normalised_information as normalised_information
from .similarity import expert_overlap as expert_overlap
from .similarity import linear_cka as linear_cka
from .similarity import mean_off_diagonal as mean_off_diagonal
from .similarity import output_cosine as output_cosine
from .similarity import parameter_cosine as parameter_cosine
from .similarity import silhouette as silhouette

__all__ = [
    "MAX_CODES",
    "SamplingFloor",
    "Verdict",
    "adjusted_information",
    "choice_redundancy",
    "churn",
    "co_activation",
    "co_activation_excess",
    "coefficient_of_variation",
    "collision_information",
    "contingency",
    "cv_floor",
    "drop_rate",
    "effective_experts",
    "effective_groups",
    "expert_overlap",
    "gini_gain",
    "group_cv",
    "group_cv_per_expert",
    "groups_touched",
    "hard_load",
    "linear_cka",
    "load_before_and_after_drops",
    "matching_accuracy",
    "max_absolute_violation",
    "max_cv",
    "max_violation",
    "mean_off_diagonal",
    "mutual_information",
    "normalised_information",
    "output_cosine",
    "parameter_cosine",
    "routing_variance",
    "sampling_floor",
    "silhouette",
    "soft_load",
    "verdict",
]
