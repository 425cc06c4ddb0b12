"""Parameters by name: shapes without arrays, and initial values.

A nested dict of float32 arrays, linear weights (inputs, outputs), experts first:
`{"embedding": {"token", "position"}, "layers": {"00": {"attention": {"norm", "qkv", "out"},
"mlp" or "moe": {...}}, ...}, "norm", "head"}`. A gate's parameters are what it makes of them: in `moe.gate`, and in
`gate` what the gates of all layers share.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory.controllers import Tree

from ..gates import drawing
from .blocks import Parameters
from .config import Config


def layer_name(layer: int) -> str:
    """Key of a block: two digits or more, so that keys sort as numbers do."""
    return f"{layer:02d}"


def shapes(config: Config) -> Parameters:
    """The tree of parameters, as `jax.ShapeDtypeStruct`."""

    def shape(given: Any) -> Any:
        return jax.ShapeDtypeStruct(given, jnp.float32) if isinstance(given, tuple) else _shapes_of(given, config)

    return jax.tree.map(shape, _tree(config), is_leaf=lambda x: isinstance(x, tuple))


def _shapes_of(drawn: Callable[..., Any], config: Config) -> Any:
    """Of a gate's parameters."""
    nothing = drawn(lambda *shape: np.broadcast_to(np.float32(0), shape), config.experts, config.dim)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.float32), nothing)


def _tree(config: Config) -> Parameters:
    d = config.dim
    embedding = {"token": (config.vocabulary, d)}
    if config.style == "nanogpt":
        embedding["position"] = (config.context, d)
    layers = {layer_name(i): {"attention": _attention(config), **_network(config, i)} for i in range(config.layers)}
    tree = {"embedding": embedding, "layers": layers, "norm": _norm(config)}
    gate = config.arm.gate
    if config.moe_layers and _shapes_of(gate.shared, config) is not None:
        tree["gate"] = gate.shared
    return tree if config.style == "nanogpt" else tree | {"head": (d, config.vocabulary)}


def _norm(config: Config) -> Parameters:
    return {"weight": (config.dim,)} | ({"bias": (config.dim,)} if config.bias else {})


def _linear(config: Config, *shape: int) -> Parameters:
    bias = {"bias": (*shape[:-2], shape[-1])} if config.bias else {}
    return {"weight": shape} | bias


def _attention(config: Config) -> Parameters:
    d = config.dim
    tree = {"norm": _norm(config), "qkv": _linear(config, d, 3 * d), "out": _linear(config, d, d)}
    return tree if config.style == "nanogpt" else tree | {"query_norm": _norm(config), "key_norm": _norm(config)}


def _network(config: Config, layer: int) -> Parameters:
    d, h = config.dim, config.hidden(layer)
    inner = h if config.style == "nanogpt" else 2 * h
    if layer not in config.moe_layers:
        return {"mlp": {"norm": _norm(config), "in": _linear(config, d, inner), "out": _linear(config, h, d)}}
    n = config.experts
    moe = {
        "norm": _norm(config),
        "gate": config.arm.gate.init,
        "in": _linear(config, n, d, inner),
        "out": _linear(config, n, h, d),
    }
    around = {"shared": (config.arm.topology.shared, h)}
    around["adjugates"] = (config.arm.router.partition.num_groups, config.arm.topology.adjugates)
    for name, (count, width) in around.items():
        if count and width:
            inputs = width if config.style == "nanogpt" else 2 * width
            moe[name] = {"in": _linear(config, count, d, inputs), "out": _linear(config, count, width, d)}
    return {"moe": moe | ({"scale": (n,)} if config.router_scale else {})}


def init(config: Config, seed: int) -> Parameters:
    """Initial values: normal of std 0.02 (0.02/√(2 layers) for maps back to the residual stream), norms and scales 1,
    biases 0. **Source:** nanoGPT, as [himoe-code]. Drawn in the order of the tree, from one generator, of which every
    gate takes as much as a linear one: all else starts the same whatever the gate."""
    rng = np.random.default_rng((seed, 2))
    back = 0.02 / (2 * config.layers) ** 0.5

    def value(path: tuple, leaf: Any) -> Any:
        keys = [str(key.key) for key in path]
        if not isinstance(leaf, tuple):
            return gate(leaf, shared=keys == ["gate"])
        if keys[-1] == "bias":
            return jnp.zeros(leaf, jnp.float32)
        if keys[-1] == "scale" or any("norm" in key for key in keys):
            return jnp.ones(leaf, jnp.float32)
        std = back if "out" in keys else 0.02
        return jnp.asarray(np.float32(std) * rng.standard_normal(leaf, dtype=np.float32))

    def gate(drawn: Callable[..., Any], *, shared: bool) -> Any:
        draw = drawing(rng, 0.02, 0 if shared else config.experts * config.dim, np.float32)
        return jax.tree.map(jnp.asarray, drawn(draw, config.experts, config.dim))

    return jax.tree_util.tree_map_with_path(value, _tree(config), is_leaf=lambda x: isinstance(x, tuple))


def init_state(config: Config) -> Tree:
    """The routers' states before the first step, one row a mixture."""
    rows = len(config.moe_layers)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), config.arm.router.init())


def map_named(function: Callable[[str, jax.Array], object], parameters: Parameters) -> Parameters:
    """The tree with `function(name, array)` at every leaf; names are keys joined by dots."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(".".join(str(key.key) for key in path), leaf), parameters
    )
