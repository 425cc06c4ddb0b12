"""Reads the reference cases and builds the router and the losses that each case's settings describe."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory import Capacity, KeepAll, Partition, Router, Routing, routers
from himoe_theory import objectives as obj

FOLDER = Path(os.environ.get("HIMOE_GOLDEN", Path(__file__).parents[1] / "golden"))
RELEASED_EPSILON = 1e-10


def cases(name: str) -> dict[str, tuple[dict, dict[str, np.ndarray]]]:
    """Case name → (settings, arrays). `HIMOE_GOLDEN` may name another folder of the same form."""
    settings = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays: dict[str, dict[str, np.ndarray]] = {case: {} for case in settings}
        for key in file.files:
            case, array = key.split("/", 1)
            arrays[case][array] = file[key]
    return {case: (settings[case], arrays[case]) for case in settings}


def grouped_router(c: dict) -> Router:
    partition = Partition.equal(c["n_experts"], c["n_groups"])
    capacity = Capacity(c["capacity_factor"], c["min_capacity"])
    return routers.himoe(
        partition,
        c["top_k_per_group"],
        tau=c["tau"],
        beta=c["beta"],
        temperature=c["temperature"],
        capacity=capacity,
        epsilon=RELEASED_EPSILON,
    )


def flat_router(c: dict) -> Router:
    capacity = Capacity(c["capacity_factor"], c["min_capacity"], even=c["kind"] != "lossfree")
    n, k = c["n_experts"], c["top_k"]
    if c["kind"] == "vanilla":
        return routers.gshard(n, k, capacity=capacity)
    if c["kind"] == "stmoe":
        return routers.st_moe(n, k, KeepAll(), capacity=capacity)
    if c["kind"] == "lossfree":
        return routers.loss_free(n, k, rate=c["bias_update_rate"], capacity=capacity)
    raise ValueError(f"unknown kind {c['kind']!r}")


def losses(c: dict):
    """Loss name → (value of a routing, closed-form gradient in the raw logits)."""
    if c.get("kind") == "vanilla":
        load = (
            lambda r: obj.load_selected_weights(r.logits, r.selected),
            lambda r: obj.load_selected_weights_grad(r.logits, r.selected),
        )
    elif c.get("kind") == "stmoe":
        load = (
            lambda r: obj.load_first_choice(r.logits, r.experts),
            lambda r: obj.load_first_choice_grad(r.logits, r.experts),
        )
    else:
        load = (
            lambda r: obj.load_per_token(r.logits, r.selected),
            lambda r: obj.load_per_token_grad(r.logits, r.selected),
        )
    out = {
        "load_balance_loss": load,
        "router_z_loss": (lambda r: obj.z_loss(r.logits), lambda r: obj.z_loss_grad(r.logits)),
    }
    if "lambda_intra" in c:
        out["himoe_intra_loss"] = _scaled(c["lambda_intra"], *_intra(c))
        out["himoe_inter_loss"] = _scaled(c["lambda_inter"], *_inter(c))
    return out


def _scaled(factor, value, gradient):
    return lambda r: factor * value(r), lambda r: factor * gradient(r)


def _intra(c: dict):
    if c["entropy_mode"] == "shannon":
        e = RELEASED_EPSILON
        return lambda r: obj.token_entropy(r.logits, epsilon=e), lambda r: obj.token_entropy_grad(r.logits, epsilon=e)
    selection = c["intra_source"] == "selection"
    factor = 1 / c["temperature"] if selection else 1.0  # chain rule from the corrected to the raw logits

    def of(r: Routing):
        return r.selection_logits if selection else r.logits

    if c["intra_mode"] == "global":
        return lambda r: obj.intra_group_global(of(r)), lambda r: factor * obj.intra_group_global_grad(of(r))
    e = RELEASED_EPSILON
    return (
        lambda r: obj.intra_group_conditional(of(r), r.partition, epsilon=e),
        lambda r: factor * obj.intra_group_conditional_grad(of(r), r.partition, epsilon=e),
    )


def _inter(c: dict):
    e = RELEASED_EPSILON
    if c["entropy_mode"] == "shannon":
        return (
            lambda r: obj.group_neg_entropy(r.logits, r.partition, epsilon=e),
            lambda r: obj.group_neg_entropy_grad(r.logits, r.partition, epsilon=e),
        )
    factor = 1 / c["temperature"]
    return {
        "dense_group_mass": (
            lambda r: obj.inter_group_dense(r.logits, r.partition),
            lambda r: obj.inter_group_dense_grad(r.logits, r.partition),
        ),
        "sparse_group_mass": (
            lambda r: obj.inter_group_sparse(r.selection_logits, r.selected, r.partition),
            lambda r: factor * obj.inter_group_sparse_grad(r.selection_logits, r.selected, r.partition),
        ),
        "selected_l2": (
            lambda r: obj.inter_group_selected(r.selection_logits, r.selected),
            lambda r: factor * obj.inter_group_selected_grad(r.selection_logits, r.selected),
        ),
    }[c["inter_mode"]]


def route(c: dict, arrays: dict[str, np.ndarray]):
    """The last step's (routing, state, function from (x, w) to that routing)."""
    w = jnp.asarray(arrays["w"])
    if "n_groups" in c:
        router = grouped_router(c)
        state = router.init(jnp.float64)
        batches, scale = arrays["x"], jnp.asarray(arrays["router_scale"])
    else:
        router, batches, scale = flat_router(c), arrays["x"][None], None
        state = jnp.asarray(arrays["bias_before"]) if "bias_before" in arrays else router.init()
    for x in batches[:-1]:
        _, state = router.step(None, state, jnp.asarray(x) @ w.T, scale=scale)
    before = state

    def forward(x, w):
        return router.step(None, before, x @ w.T, scale=scale)

    x = jnp.asarray(batches[-1])
    routing, state = forward(x, w)
    return routing, state, forward, x, w


def gradients(values, forward, x, w):
    """Loss name → its gradients in x and w, all from one pass forward."""

    def all_of_them(x, w):
        routing, _ = forward(x, w)
        return {name: value(routing) for name, value in values.items()}

    out, pull_back = jax.vjp(all_of_them, x, w)
    zero = jax.tree.map(jnp.zeros_like, out)
    return {name: pull_back(zero | {name: jnp.ones_like(value)}) for name, value in out.items()}
