r"""Names of modes: how much of a displacement is common to all tokens or a contrast between them, equal for all
experts, between or within groups, in the router or in the experts.

Shares are of squared norms. Tokens: *common* is the mean over tokens, *contrast* the rest. Experts: *shared* is the
mean over experts (for logits a constant that changes no probability), *between* the group means less that, *within*
the rest. The six parts are orthogonal, for unequal groups too.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from .. import _checks
from ..partition import Partition, fitting
from .fields import (
    Field,
    FreeLogits,
    LinearRouter,
    LogitGradient,
    Mixture,
    Normalised,
    OverDraws,
    PopulationGradient,
    RouterAndExperts,
    State,
)

Table = Float[np.ndarray | jax.Array, "tokens experts *rest"] | Complex[np.ndarray, "tokens experts *rest"]
Rows = Float[np.ndarray | jax.Array, "experts dim"] | Complex[np.ndarray, "experts dim"]


def mode_shares(field: Field, state: State, mode: State) -> dict[str, float]:
    """The shares of a mode of any field of tokens and experts; `Spectrum.names` are the largest.

    Of free logits and of linear routers the six of `shares`, by the change of the logits at the tokens (or at the nodes
    of a population, with their weights); of router and experts those of `mixture_shares`. Groups are those of the
    gradient's router; of another gradient all experts are one. **Raises:** `ValueError` for other fields.
    """
    if isinstance(field, Normalised):
        return mode_shares(field.field, state, mode)
    if isinstance(field, OverDraws):
        return mode_shares(field.field(field.keys[0]), state, mode)
    if isinstance(field, RouterAndExperts):
        return mixture_shares(field, state, mode)
    if not isinstance(field, FreeLogits | LinearRouter):
        known = "FreeLogits, LinearRouter, RouterAndExperts or these in Normalised or OverDraws"
        raise ValueError(f"`field` must be one of {known} for modes to have names; got a {type(field).__name__}.")
    table = logit_change(mode, field.inputs) if isinstance(field, LinearRouter) else _table("mode", mode)
    gradient = field.gradient
    routed = isinstance(gradient, LogitGradient | PopulationGradient)
    partition = gradient.router.partition if routed else Partition.equal(table.shape[1], 1)
    return shares(table, partition, gradient.weights if isinstance(gradient, PopulationGradient) else None)


def shares(
    change: Table, partition: Partition, weights: Float[np.ndarray | jax.Array, " tokens"] | None = None
) -> dict[str, float]:
    """Share of each of the six names in what a displacement does to a table of tokens by experts.

    **Arguments:** `change`: real or complex, such as a mode of free logits, or `logit_change`. `weights`: of the
    tokens, with sum 1; equal if not given. **Returns:** name -> share in [0, 1]; they sum to 1, or are all 0 for no
    change.
    """
    change = _table("change", change)
    fitting(partition, "change", change.shape[1])
    ids = partition.ids()
    tokens = np.full(len(change), 1 / len(change)) if weights is None else _token_weights(weights, len(change))
    means = np.stack([change[:, ids == g].mean(axis=1) for g in range(partition.num_groups)], axis=1)[:, ids]
    shared = np.broadcast_to(change.mean(axis=1, keepdims=True), change.shape)
    sizes: dict[str, float] = {}
    for name, part in (("shared", shared), ("between", means - shared), ("within", change - means)):
        common = np.tensordot(tokens, part, axes=1)
        sizes[f"common {name}"] = float(np.square(np.abs(common)).sum())
        sizes[f"contrast {name}"] = float(np.tensordot(tokens, np.square(np.abs(part - common)), axes=1).sum())
    return _normalised(sizes)


def logit_change(mode: Rows, inputs: Float[np.ndarray | jax.Array, "tokens dim"]) -> Table:
    """What a displacement of a linear router's rows `[experts, dim]` does to the logits `[tokens, experts]`."""
    inputs, mode = _table("inputs", inputs), _table("mode", mode)
    if inputs.ndim != 2 or mode.ndim != 2 or inputs.shape[1] != mode.shape[1]:
        raise ValueError(f"`mode` must be (experts, dim), `inputs` (tokens, dim); got {mode.shape}, {inputs.shape}.")
    return inputs @ mode.T


def mixture_shares(field: RouterAndExperts, state: Mixture, mode: Mixture) -> dict[str, float]:
    r"""Shares of a mode of router and experts: `router ...` and `expert ...` with the six names each.

    Router against expert is $|w|^2/\eta_w$ against $|\delta|^2/\eta_v$, the metric in which the flow is a gradient;
    inside, the router's part is split by the change of the logits, the experts' by the change of their outputs, to
    first order. A change of the router that changes no logit counts as `router unseen`, and so for experts. Both rates
    above 0: there is no such metric otherwise.
    """
    _checks.kind("field", field, RouterAndExperts)
    _checks.kind("state", state, Mixture)
    if not isinstance(mode, Mixture):
        raise ValueError(f"`mode` must be a `Mixture` of router and experts; got {type(mode).__name__}.")
    _checks.positive("router_rate", field.router_rate)
    _checks.positive("expert_rate", field.expert_rate)
    inputs = np.asarray(field.inputs)
    rows = float(np.square(np.abs(mode.router)).sum()) / float(np.asarray(field.router_rate))
    leaves = jax.tree.leaves(mode.experts)
    parameters = sum(float(np.square(np.abs(leaf)).sum()) for leaf in leaves) / float(np.asarray(field.expert_rate))
    tables = {
        "router": (rows, logit_change(mode.router, inputs)),
        "expert": (parameters, _output_change(field, state, mode.experts)),
    }
    sizes: dict[str, float] = {}
    for block, (size, table) in tables.items():
        inside = shares(table, field.router.partition)
        sizes |= {f"{block} {name}": size * share for name, share in inside.items()}
        sizes[f"{block} unseen"] = size * (1 - sum(inside.values()))
    return _normalised(sizes)


def largest_share(found: Mapping[str, float]) -> str:
    """The name with the largest share, the first of equals."""
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"`found` must map names to shares, at least one; got {_checks.shown(found)}.")
    for name, share in found.items():
        _checks.finite(f"found[{name}]", share)
    return max(found, key=found.__getitem__)


def _output_change(field: RouterAndExperts, state: Mixture, change: State) -> Table:
    def outputs(parameters: State) -> jax.Array:
        return jax.vmap(jax.vmap(field.expert, in_axes=(0, None)), in_axes=(None, 0))(parameters, field.inputs)

    def along(part: State) -> np.ndarray:
        like = jax.tree.map(_as, part, state.experts)
        return np.asarray(jax.jvp(outputs, (state.experts,), (like,))[1])

    real, imaginary = (jax.tree.map(part, change) for part in (np.real, np.imag))
    return along(real) + 1j * along(imaginary)


def _as(change: np.ndarray | jax.Array, parameter: jax.Array) -> jax.Array:
    return jnp.asarray(change, parameter.dtype)


def _table(name: str, x: Table) -> np.ndarray:
    """`x` as finite real or complex numbers of tokens (or experts) by something, none of it empty."""
    found = np.asarray(_checks.array(name, x))
    if found.ndim < 2 or not found.size:
        raise ValueError(f"`{name}` must have axes (tokens, experts, ...), none empty; got shape {found.shape}.")
    if not np.isfinite(found).all():
        raise ValueError(f"`{name}` must be finite; {(~np.isfinite(found)).sum()} of {found.size} are not.")
    return found


def _token_weights(weights: Float[np.ndarray | jax.Array, " tokens"], tokens: int) -> Float[np.ndarray, " tokens"]:
    found = np.asarray(_checks.matrix("weights", _checks.array("weights", weights), ("tokens",)))
    _checks.coefficient("weights", found)
    if found.size != tokens or abs(float(found.sum()) - 1) > 1e-5:
        total = float(found.sum())
        raise ValueError(f"`weights` must be one a token, {tokens}, with sum 1; got {found.size} with sum {total:g}.")
    return found


def _normalised(sizes: dict[str, float]) -> dict[str, float]:
    total = sum(sizes.values())
    return {name: size / total if total else 0.0 for name, size in sizes.items()}
