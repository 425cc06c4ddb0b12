"""Models from the settings of the released code, under its own names ([himoe-code], nanoGPT part), and back."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from himoe_theory import (
    Capacity,
    KeepAbove,
    KeepAll,
    KeepFirst,
    KeepRandomly,
    Partition,
    Router,
    Uncontrolled,
    _checks,
    routers,
)
from himoe_theory.selection import Policy

from ..arms import Arm
from .model import Model

DEFAULTS: Mapping[str, Any] = {
    "block_size": 1024,
    "vocab_size": 50_304,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "dropout": 0.0,
    "bias": True,
    "moe_type": "vanilla",
    "n_exp": 1,
    "top_k": 2,
    "use_aux_loss": False,
    "use_router_z_loss": False,
    "use_noisy_top_k": False,
    "aux_loss_weight": 0.01,
    "router_z_loss_weight": 0.001,
    "train_capacity": 1.25,
    "eval_capacity": 2.0,
    "min_capacity": 4,
    "stride": 2,
    "bias_update_rate": 0.001,
    "n_groups": 4,
    "use_router_scale": True,
    "use_himoe_penalty": False,
    "use_himoe_regularization": False,
    "himoe_tau": 0.01,
    "himoe_beta": 0.9,
    "himoe_temperature": 1.0,
    "himoe_lambda1": 1.0,
    "himoe_lambda2": 1.0,
    "himoe_warmup_iters": 0,
    "himoe_intra_source": "raw",
    "himoe_intra_mode": "global",
    "himoe_inter_mode": "dense_group_mass",
    "himoe_entropy_mode": "l2",
    "aux_loss_type": "switch",
    "second_policy_train": "random",
    "second_policy_eval": "random",
    "second_threshold_train": 0.2,
    "second_threshold_eval": 0.2,
    "use_momentum": False,
    "ep_backend": "none",
}

# Of no consequence for one process in float32: initial values, precision, reports, options of what is off.
IGNORED = frozenset(
    {
        "use_switch_tfm_init",
        "switch_tfm_init_scale",
        "router_use_full_prec",
        "analysis_n_groups",
        "ep_size",
        "ep_overlap_degree",
        "ep_profile_nvtx",
        "deepseek_alpha",
        "deepseek_seq_aux",
        "momentum_type",
        "moe_gamma1",
        "moe_gamma2",
        "moe_mu",
        "moe_beta1",
        "moe_beta2",
        "c_norm_thresh",
    }
)

KINDS = ("vanilla", "moge", "lossfree", "stmoe")
_CHOICES = {
    "moe_type": KINDS,
    "himoe_intra_source": ("raw", "selection"),
    "himoe_intra_mode": ("global", "group_conditional"),
    "himoe_inter_mode": ("dense_group_mass", "sparse_group_mass", "selected_l2"),
    "himoe_entropy_mode": ("l2", "shannon"),
    "second_policy_train": ("all", "none", "threshold", "random"),
    "second_policy_eval": ("all", "none", "threshold", "random"),
}
_INTRA = {
    ("raw", "global"): "intra_group_global",
    ("selection", "global"): "intra_group_global_selection",
    ("raw", "group_conditional"): "intra_group_conditional",
    ("selection", "group_conditional"): "intra_group_conditional_selection",
}
_INTER = {
    "dense_group_mass": "inter_group_dense",
    "sparse_group_mass": "inter_group_sparse",
    "selected_l2": "inter_group_selected",
}
_LOADS = {"vanilla": "load_selected_weights", "stmoe": "load_first_choice", "moge": "load_per_token"}


def from_settings(settings: Mapping[str, Any], **overrides: Any) -> Model:
    """The model that settings of the released code describe.

    **Arguments:** `settings`: its names; missing ones have its defaults. `overrides`: fields of `Config`, say
    `dispatch`. **Raises:** `ValueError` for unknown settings, and for those that have no counterpart here: dropout,
    noisy top-k, momentum layers, expert parallelism, and the `deepseek` load of grouped routers (which the released
    code cannot compute either).
    """
    unknown = sorted(set(settings) - set(DEFAULTS) - IGNORED)
    if unknown:
        raise ValueError(f"`settings` must be the released code's; unknown: {', '.join(unknown)}.")
    c = {name: _as_default(name, value) for name, value in {**DEFAULTS, **settings}.items()}
    _check_supported(c)
    width = 4 * c["n_embd"]
    moe = c["n_exp"] > 1
    router = _router(c, "train") if moe else routers.dense(Partition.equal(1, 1))
    return Model(
        **{
            "layers": c["n_layer"],
            "heads": c["n_head"],
            "dim": c["n_embd"],
            "context": c["block_size"],
            "vocabulary": c["vocab_size"],
            "width": width,
            "stride": c["stride"],
            "bias": c["bias"],
            "arm": Arm(c["moe_type"] if moe else "plain", router, _terms(c) if moe else {}, "settings of [himoe-code]"),
            "evaluation": _router(c, "eval") if moe else None,
            "router_scale": moe and c["moe_type"] == "moge" and c["use_router_scale"],
            "intra_warmup": c["himoe_warmup_iters"],
            **overrides,
        }
    )


def _as_default(name: str, value: Any) -> Any:
    """A whole number where a fraction could stand (JSON has one kind of number) is taken as one."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and isinstance(DEFAULTS.get(name), float) else value


def _check_supported(c: Mapping[str, Any]) -> None:
    """`ValueError` for what this package does not compute."""
    for name in ("n_embd", "n_exp", "top_k", "n_groups", "min_capacity", "stride"):
        _checks.count(name, c[name])
    for name, known in _CHOICES.items():
        if c[name] not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {c[name]!r}.")
    if c["dropout"] != 0:
        raise ValueError(f"`dropout` is not supported and must be 0; got {c['dropout']}.")
    if c["n_exp"] == 1:
        return
    kind = c["moe_type"]
    if c["use_noisy_top_k"] and kind == "vanilla":
        raise ValueError("`use_noisy_top_k` is not supported and must be false; got True.")
    if c["use_momentum"]:
        raise ValueError("`use_momentum` is not supported and must be false; got True.")
    if c["ep_backend"] != "none" and kind in ("vanilla", "moge"):
        raise ValueError(f"`ep_backend` is not supported and must be 'none'; got {c['ep_backend']!r}.")
    if kind == "moge" and c["use_aux_loss"] and c["aux_loss_type"] != "switch":
        raise ValueError(f"`aux_loss_type` of a grouped router must be 'switch'; got {c['aux_loss_type']!r}.")


def _router(c: Mapping[str, Any], mode: str) -> Router:
    """The router in training (`train`) or outside (`eval`)."""
    n, k, kind = c["n_exp"], c["top_k"], c["moe_type"]
    capacity = Capacity(c[f"{mode}_capacity"], c["min_capacity"], even=kind != "lossfree")
    if kind == "vanilla":
        return routers.gshard(n, k, capacity=capacity)
    if kind == "stmoe":
        return routers.st_moe(n, k, _policy(c, mode), capacity=capacity)
    if kind == "lossfree":
        return routers.loss_free(n, k, rate=c["bias_update_rate"], capacity=capacity)
    partition = Partition.equal(n, c["n_groups"])
    if not c["use_himoe_penalty"]:
        return routers.moge(partition, k, capacity=capacity)
    return routers.himoe(
        partition,
        k,
        tau=c["himoe_tau"],
        beta=c["himoe_beta"],
        temperature=c["himoe_temperature"],
        capacity=capacity,
    )


def _policy(c: Mapping[str, Any], mode: str) -> Policy:
    name, threshold = c[f"second_policy_{mode}"], c[f"second_threshold_{mode}"]
    if name == "threshold":
        return KeepAbove(threshold)
    if name == "random":
        return KeepRandomly(threshold)
    return KeepAll() if name == "all" else KeepFirst()


def _terms(c: Mapping[str, Any]) -> dict[str, float]:
    """Objectives and coefficients. The released code adds intra and inter terms only with the load term, and its
    loss-free router has none at all, whatever the flags say."""
    kind = c["moe_type"]
    if kind == "lossfree":
        return {}
    terms = {"z": c["router_z_loss_weight"]} if c["use_router_z_loss"] else {}
    if not c["use_aux_loss"]:
        return terms
    terms[_LOADS[kind]] = c["aux_loss_weight"]
    if kind == "moge" and c["use_himoe_regularization"]:
        if c["himoe_entropy_mode"] == "shannon":
            return terms | {"token_entropy": c["himoe_lambda1"], "group_neg_entropy": c["himoe_lambda2"]}
        terms[_INTRA[c["himoe_intra_source"], c["himoe_intra_mode"]]] = c["himoe_lambda1"]
        terms[_INTER[c["himoe_inter_mode"]]] = c["himoe_lambda2"]
    return terms


# The way back. Names are those of the routers; that the numbers fit too is checked by building the model again.
_KIND_OF = {"gshard": "vanilla", "st-moe": "stmoe", "loss-free": "lossfree", "moge": "moge", "hi-moe": "moge"}


def to_settings(model: Model) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings under which the released code computes what the model does, all of `DEFAULTS`: `from_settings` undone.

    A router without capacity gets one at which nothing can overflow. **Returns:** the settings, and the objectives with
    coefficients that settings cannot say: these matter only where the model is trained further. **Raises:**
    `ValueError` for a shape or router that the released code has not, naming it.
    """
    _check_shape(model)
    settings = {
        **DEFAULTS,
        "block_size": model.context,
        "vocab_size": model.vocabulary,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_embd": model.dim,
        "bias": model.bias,
        "stride": model.stride,
    }
    if not model.moe_layers:
        return settings, {}
    router = model.arm.router
    if router.name not in _KIND_OF:
        known = ", ".join(_KIND_OF)
        raise ValueError(f"the router must be one that the released code has, {known}; got {router.name}.")
    kind = _KIND_OF[router.name]
    objectives, left = _objectives(model.arm.terms, kind)
    settings |= {"moe_type": kind, "n_exp": model.experts, "top_k": router.routes}
    settings |= _router_settings(model) | objectives
    if kind == "moge":
        groups = router.partition.num_groups
        scale = {"use_router_scale": model.router_scale, "himoe_warmup_iters": model.intra_warmup}
        settings |= {"n_groups": groups, "top_k": router.routes // groups, **scale}
    elif model.router_scale:
        raise ValueError(f"`router_scale` must be false for {router.name}, as in the released code; got True.")
    for mode in ("train", "eval"):
        own = model.router(mode == "train")
        if _numbers(_router(settings, mode)) != _numbers(own):
            raise ValueError(
                f"router {router.name} must be as the released code builds it; got {own}.".replace("\n", " ")
            )
    return settings, left


def keeps_state(router: Router) -> bool:
    """Whether the released code's router has a state: not where tau 0 and temperature 1 make an average idle, which is
    how MoGE is built where it shares a program with Hi-MoE."""
    controller = router.controller
    if controller.average is not None:
        return (controller.average.tau, controller.average.temperature) != (0, 1)
    return controller.has_state


def _check_shape(model: Model) -> None:
    if model.style != "nanogpt":
        raise ValueError(f"`style` must be nanogpt to have settings of the released code; got {model.style!r}.")
    for layer in range(model.layers):
        if model.hidden(layer) != 4 * model.dim:
            raise ValueError(
                f"`width` must be 4 `dim` to have settings of the released code, {4 * model.dim}; "
                f"got {model.hidden(layer)} in layer {layer}."
            )
    if model.norm_epsilon != 1e-5:
        raise ValueError(f"`norm_epsilon` must be 1e-5, as in the released code; got {model.norm_epsilon:g}.")


def _numbers(router: Router) -> Router:
    """A router without what changes no number here: names, the groups of a flat one, an average that is not used."""
    grouped = router.selection.quotas(router.partition) is not None
    return dataclasses.replace(
        router,
        name="",
        source="",
        capacity=None,
        partition=router.partition if grouped else Partition.equal(router.partition.num_experts, 1),
        controller=router.controller if keeps_state(router) else Uncontrolled(),
    )


def _router_settings(model: Model) -> dict[str, Any]:
    """Capacities, policies and the controller."""
    found: dict[str, Any] = {}
    for mode in ("train", "eval"):
        router = model.router(mode == "train")
        found |= _capacity_settings(router, mode, found)
        found |= _policy_settings(router, mode)
    controller = model.arm.router.controller
    average = controller.average
    if model.arm.router.name == "loss-free":
        found["bias_update_rate"] = float(controller.rate)
    if average is not None and keeps_state(model.arm.router):
        found |= {"use_himoe_penalty": True, "himoe_temperature": float(average.temperature)}
        found |= {"himoe_tau": float(average.tau), "himoe_beta": float(average.beta)}
    return found


def _capacity_settings(router: Router, mode: str, found: Mapping[str, Any]) -> dict[str, Any]:
    capacity = router.capacity
    if capacity is None:  # every expert has room for every token
        return {f"{mode}_capacity": float(math.ceil(router.partition.num_experts / router.routes))}
    if capacity.even != (router.name != "loss-free"):
        raise ValueError(f"`even` must be {not capacity.even} in a capacity of {router.name}; got {capacity.even}.")
    if found.get("min_capacity", capacity.minimum) != capacity.minimum:
        both = f"{found['min_capacity']} and {capacity.minimum}"
        raise ValueError(f"`minimum` must be the same capacity in training and outside; got {both}.")
    return {f"{mode}_capacity": float(capacity.factor), "min_capacity": capacity.minimum}


def _policy_settings(router: Router, mode: str) -> dict[str, Any]:
    policy = router.policy
    if router.name != "st-moe":
        return {}
    name = {KeepAll: "all", KeepFirst: "none", KeepAbove: "threshold", KeepRandomly: "random"}.get(type(policy), "")
    found: dict[str, Any] = {f"second_policy_{mode}": name}
    if name in ("threshold", "random"):
        found[f"second_threshold_{mode}"] = float(policy.threshold)
    return found


def _objectives(terms: Mapping[str, float], kind: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Settings of the objectives, and the objectives that there are no settings for."""
    found, left = {}, dict(terms)
    if kind == "lossfree":
        return found, left
    if "z" in left:
        found |= {"use_router_z_loss": True, "router_z_loss_weight": float(left.pop("z"))}
    if _LOADS[kind] not in left:
        return found, left
    found |= {"use_aux_loss": True, "aux_loss_weight": float(left.pop(_LOADS[kind]))}
    if kind != "moge":
        return found, left
    intra = {name: {"himoe_intra_source": source, "himoe_intra_mode": mode} for (source, mode), name in _INTRA.items()}
    inter = {name: {"himoe_inter_mode": mode} for mode, name in _INTER.items()}
    shannon = {"himoe_entropy_mode": "shannon"}
    for first, second in ((intra, inter), ({"token_entropy": shannon}, {"group_neg_entropy": shannon})):
        pair = [next((name for name in names if name in left), None) for names in (first, second)]
        if pair != [None, None]:
            found["use_himoe_regularization"] = True
            for name, names, weight in zip(pair, (first, second), ("himoe_lambda1", "himoe_lambda2"), strict=True):
                found |= names[name] if name else {}
                found[weight] = float(left.pop(name)) if name else 0.0
            break
    return found, left
