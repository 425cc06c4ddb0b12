"""For which floating-point numbers each function that a claim names follows the function of real numbers.

Declared here, and attacked by the claims of `claims/numbers.py`: all of a range holds, just outside it does not.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from himoe_theory import (
    Capacity,
    GroupedTopK,
    LogitAverage,
    Partition,
    Renormalised,
    Router,
    SelectionBias,
    Sigmoid,
    Softmax,
    SoftmaxThenMask,
    TopK,
    assign_slots,
    bounds,
    cosine_logits,
    distance_logits,
    dynamics,
    expert_choice,
    geometry,
    global_top,
    metrics,
    ranked,
    routers,
    uniform_noise_top1,
)
from himoe_theory import objectives as obj
from himoe_theory._numerics import masked_softmax
from himoe_theory.objectives import OBJECTIVES
from himoe_theory.objectives._softmax import pull_back

from .ledger import Claim, Numbers

PARTITION = Partition((0, 1, 0, 1))


class Kept(NamedTuple):
    """`call`: the function as one of arguments that `floats` knows by name; none: it is not attacked."""

    numbers: Numbers
    call: Callable[..., Any] | None


def _kept(numbers: Numbers, *functions: Callable[..., Any]) -> dict[Callable[..., Any], Kept]:
    """Functions that are attacked as they are."""
    return {function: Kept(numbers, function) for function in functions}


def _known(numbers: Numbers, *functions: Callable[..., Any]) -> dict[Callable[..., Any], Kept]:
    """Functions that are not attacked."""
    return {function: Kept(numbers, None) for function in functions}


WHOLE = Numbers("flags and whole numbers", types=("any type",), besides="no rounding takes part in them")
HOST = Numbers("numbers of Python, fields, flows and roots", types=())
ROUNDED = Numbers("logits", roundings=2)
KEYS = Numbers("keys", besides="equal keys rank by number, -0 equals 0")
SQUARES = Numbers("entries", 1e18, roundings=16, besides="squares of larger ones overflow")
LARGER_SQUARES = dataclasses.replace(SQUARES, largest=1e19)


def _equal_biases(logits: Array) -> Array:
    """Selected by a sigmoid score plus a bias that is the same for all, .25."""
    router = routers.loss_free(4, 2)
    return router.step(None, jnp.full(4, 0.25, jnp.float32), logits, training=False)[0].routes


def _averaged(logits: Array, state: Array) -> Array:
    return LogitAverage(0.5, 0.75).prepare(state, logits, Softmax(), mask=None, training=True).logits


def _fisher(logits: Array) -> Array:
    """Of gradients of functions of the probabilities whose slopes are of size 1."""
    probs, slopes = jax.nn.softmax(logits), jnp.asarray([[1, -1, 0.5, 0], [0.25, 1, -0.5, 1]], logits.dtype)
    return geometry.fisher_inner(pull_back(probs, slopes[0]), pull_back(probs, slopes[1]), logits)


ROUTING: Mapping[Callable[..., Any], Kept] = {
    Softmax.value: Kept(ROUNDED, Softmax().value),
    Softmax.log: Kept(ROUNDED, Softmax().log),
    Sigmoid.value: Kept(
        dataclasses.replace(ROUNDED, besides="values tie where logits do not: from 17 on all are 1 (4 in bfloat16)"),
        Sigmoid().value,
    ),
    masked_softmax: Kept(ROUNDED, lambda logits, selected: masked_softmax(logits, selected)),
    Renormalised.weigh: Kept(ROUNDED, Renormalised().weigh),
    SoftmaxThenMask.weigh: Kept(ROUNDED, SoftmaxThenMask().weigh),
    TopK.choose: Kept(KEYS, lambda logits: ranked(TopK(2), logits, PARTITION)),
    GroupedTopK.choose: Kept(KEYS, lambda logits: ranked(GroupedTopK(1), logits, PARTITION)),
    **_kept(KEYS, expert_choice, global_top),
    SelectionBias.prepare: Kept(
        Numbers("logits", besides="equal biases; unequal ones: up to the rounding of score plus bias, ties by logits"),
        _equal_biases,
    ),
    routers.loss_free: Kept(Numbers("logits", besides="as SelectionBias.prepare"), _equal_biases),
    Router.step: Kept(
        Numbers("logits", besides="what is selected; other parts as the router's"),
        lambda logits: routers.gshard(4, 2).step(None, (), logits)[0].selected,
    ),
    LogitAverage.prepare: Kept(ROUNDED, _averaged),
    uniform_noise_top1: Kept(ROUNDED, uniform_noise_top1),
    cosine_logits: Kept(Numbers("vectors", roundings=8), cosine_logits),
    distance_logits: Kept(SQUARES, distance_logits),
    **_known(WHOLE, SelectionBias.update, assign_slots, Capacity.slots),
}
METRICS: Mapping[Callable[..., Any], Kept] = {
    **_kept(
        Numbers("loads", roundings=8),
        *(metrics.coefficient_of_variation, metrics.group_cv, metrics.max_violation, metrics.max_absolute_violation),
    ),
    **_kept(
        Numbers("probabilities", roundings=4, besides="they may underflow to 0"),
        *(metrics.soft_load, metrics.collision_information, metrics.gini_gain),
        *(metrics.effective_experts, metrics.effective_groups),
    ),
    metrics.routing_variance: Kept(LARGER_SQUARES, metrics.routing_variance),
    metrics.mutual_information: Kept(Numbers("tables", roundings=8), metrics.mutual_information),
    **_kept(Numbers("vectors", 1e37, roundings=8), metrics.expert_overlap, metrics.parameter_cosine),
    metrics.mean_off_diagonal: Kept(Numbers("entries", 1e37, roundings=8), metrics.mean_off_diagonal),
    **_known(WHOLE, metrics.hard_load, metrics.drop_rate, metrics.co_activation, metrics.groups_touched),
    **_known(HOST, metrics.max_cv),
}
BOUNDS: Mapping[Callable[..., Any], Kept] = {
    **_kept(
        Numbers("weights", roundings=8),
        *(bounds.corrected_bound, bounds.load_bound_mass, bounds.load_bound_selected, bounds.mean_squared_share),
    ),
    **_kept(SQUARES, bounds.group_balance, bounds.published_bound, geometry.euclidean_inner),
    bounds.coupling: Kept(LARGER_SQUARES, lambda row, gradients: bounds.coupling(row, gradients)),
    bounds.coupling_bound: Kept(LARGER_SQUARES, lambda row, gradients: bounds.coupling_bound(row, gradients)),
    geometry.euclidean_cosine: Kept(Numbers("gradients", roundings=8), geometry.euclidean_cosine),
    geometry.fisher_inner: Kept(
        Numbers("logits", roundings=8, types=("float32",), besides="gradients of functions of the probabilities"),
        _fisher,
    ),
    geometry.joint_descent_ratios: Kept(Numbers("inner products", roundings=8), geometry.joint_descent_ratios),
    **_known(
        Numbers("inner products", types=(), besides="gradients that are not antiparallel to rounding"),
        geometry.joint_descent_exists,
    ),
    **_known(HOST, bounds.corrected_range, bounds.published_range),
}
OUTPUTS = Numbers("outputs", 1e18, roundings=32, besides="squares of larger ones overflow")
NOISY = Numbers("logits", 1e6, roundings=32, besides="noise of the size of its deviation, which large logits absorb")


def _smooth_load(function: Callable[..., Array]) -> Callable[[Array], Array]:
    def call(logits: Array) -> Array:
        noise = jnp.asarray([[0.25, -0.5, 0, 0.125], [-0.25, 0.375, 0.5, 0], [0.125, 0, -0.375, 0.25]], logits.dtype)
        return function(logits, noise, k=2, noise_std=0.5)

    return call


VALUES: Mapping[Callable[..., Any], Kept] = {
    **_kept(
        Numbers("logits", roundings=4),
        *(obj.token_entropy, obj.group_neg_entropy, obj.importance_cv_squared),
        *(obj.inter_group_dense, obj.inter_group_selected, obj.inter_group_sparse),
        *(obj.intra_group_global, obj.intra_group_conditional, obj.load, obj.load_first_choice),
        *(obj.load_for_share, obj.load_per_token, obj.load_selected_weights),
        *(obj.load_entropy, obj.load_frozen, obj.p_squared, obj.load_top_k, obj.load_top_k_per_token),
        *(obj.variance_across_experts, obj.variance_across_tokens),
    ),
    obj.z_loss: Kept(Numbers("logits", 1e19, roundings=8, besides="squares of larger ones overflow"), obj.z_loss),
    **_kept(OUTPUTS, obj.orthogonality_paper, obj.orthogonality_released, obj.orthogonality_span),
    obj.load_cv_squared: Kept(dataclasses.replace(NOISY, roundings=16), _smooth_load(obj.load_cv_squared)),
    **_known(WHOLE, obj.dispatch_share),
    **_known(Numbers("logits", types=(), besides="as load_cv_squared"), OBJECTIVES["load_cv_squared"].value),
}
GRADIENTS: Mapping[Callable[..., Any], Kept] = {
    **_kept(
        Numbers("logits", roundings=32, besides="a gradient below the unit of rounding may be 0"),
        *(obj.token_entropy_grad, obj.group_neg_entropy_grad, obj.importance_cv_squared_grad),
        *(obj.inter_group_dense_grad, obj.inter_group_selected_grad, obj.inter_group_sparse_grad),
        *(obj.intra_group_global_grad, obj.intra_group_conditional_grad, obj.load_grad, obj.load_first_choice_grad),
        *(obj.load_for_share_grad, obj.load_per_token_grad, obj.load_selected_weights_grad),
        *(obj.load_entropy_grad, obj.load_frozen_grad, obj.p_squared_grad, obj.z_loss_grad),
        *(obj.load_top_k_grad, obj.load_top_k_per_token_grad),
        *(obj.variance_across_experts_grad, obj.variance_across_tokens_grad),
    ),
    **_kept(OUTPUTS, obj.orthogonality_paper_grad, obj.orthogonality_released_grad, obj.orthogonality_span_grad),
    obj.load_cv_squared_grad: Kept(NOISY, _smooth_load(obj.load_cv_squared_grad)),
    pull_back: Kept(
        Numbers("slopes", 1e2, roundings=32, types=("float32",), besides="nearly equal ones lose what they share"),
        lambda probs, slope: pull_back(probs, slope),
    ),
    **_known(Numbers("logits", types=(), besides="as load_cv_squared_grad"), OBJECTIVES["load_cv_squared"].gradient),
}
PRODUCTS = "beta times a score up to 1e8: fused, the rounding of larger ones can be more than an exponential holds"
COEFFICIENTS = Numbers("coefficients", roundings=4, types=("float32",))
_D = dynamics


def _rates(largest: float, *functions: Callable[..., Any], smallest: float = 0.0) -> dict[Callable[..., Any], Kept]:
    return _kept(dataclasses.replace(COEFFICIENTS, largest=largest, smallest=smallest), *functions)


THEORY: Mapping[Callable[..., Any], Kept] = {
    **_rates(
        math.inf,
        *(_D.flip_purity, _D.group_coefficient, _D.common_between_frozen, _D.common_between_full),
        *(_D.common_within_frozen, _D.common_within_full, _D.contrast_between, _D.contrast_within),
        *(_D.critical_load_frozen, _D.critical_load_full, _D.between_rate, _D.inside_rate, _D.slowed_rate),
        *(_D.collapse_ratio, _D.smallest_curvature),
    ),
    **_rates(1e37, _D.bias_threshold),
    **_rates(1e19, _D.bias_trace, _D.uniform_rate, _D.sign_bias_floor, _D.specialisation_rates),
    **_rates(1e12, _D.bias_determinant, _D.residual_moment, _D.selection_drive),
    **_rates(math.inf, _D.corrected_common, _D.corrected_contrast, smallest=1e-18),
    **_rates(1e18, _D.live_threshold_frozen, _D.live_threshold_full, smallest=1e-18),
    **_rates(math.inf, _D.hopf_period, smallest=1e-11),
    _D.collapsed_control: Kept(COEFFICIENTS, lambda chance: _D.collapsed_control(chance, 4)),
    _D.pair_folds: Kept(
        Numbers("u", 1e1, roundings=16, types=("float32",), besides="the squared hyperbolic cosine overflows at 45"),
        lambda rate: _D.pair_folds(rate),
    ),
    _D.potential: Kept(
        Numbers("scores", 1e18, roundings=4, types=("float32",), besides=PRODUCTS),
        lambda state: _D.potential(state, 1.0, 0.5, 2.0),
    ),
    _D.reinforcement: Kept(
        Numbers("scores", roundings=4, types=("float32",), besides=PRODUCTS),
        lambda state: _D.reinforcement(state, 1.0, 0.5, 2.0),
    ),
    _D.hard_sharpening: Kept(
        COEFFICIENTS, lambda chance, lambda_intra, alpha: _D.hard_sharpening(chance, lambda_intra, alpha, 4, 64)
    ),
    _D.live_coefficient_frozen: Kept(
        COEFFICIENTS, lambda chance: _D.live_coefficient_frozen(0.3 + chance / 8, 2, 4, 1.0, 0.5, 2.0)
    ),
    **_known(
        HOST,
        *(_D.adam_growth, _D.adam_rate, _D.live_upper_end_frozen, _D.count_slope, _D.critical_load_hard),
        *(_D.spread_push, _D.spread_slope, _D.LinearRouter, _D.Normalised, _D.RouterAndExperts, _D.gaussian_nodes),
        *(_D.flow, _D.critical_group_ratio, _D.growth_rate, _D.spectrum, _D.coexistence, _D.spinodal),
        *(_D.uniform_limit, _D.BiasedReinforcement, _D.Reinforcement, _D.collapse_window, _D.expected_maximum),
        *(_D.max_violation_floor, _D.onset, _D.symmetric_moments, _D.Sliding),
    ),
}
KEPT: Mapping[Callable[..., Any], Kept] = {**ROUTING, **METRICS, **BOUNDS, **VALUES, **GRADIENTS, **THEORY}


def numbers_of(claim: Claim) -> Iterator[tuple[str, Numbers]]:
    """For which numbers the statement holds, if the claim says so itself, and those of each function that it names."""
    if claim.numbers is not None:
        yield "the statement", claim.numbers
    for function in dict.fromkeys(claim.functions):
        if function in KEPT:
            yield f"{function.__module__}.{function.__qualname__}", KEPT[function].numbers
