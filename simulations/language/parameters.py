"""Parameters by name: shapes without arrays, and initial values.

A nested dict of float32 arrays, linear weights (inputs, outputs), experts first:
`{"embedding": {"token", "position"}, "layers": {"00": {"attention": {"norm", "qkv", "out"},
"mlp" or "moe": {...}}, ...}, "norm", "head"}`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory.controllers import Tree

from .blocks import Parameters
from .config import Config


def layer_name(layer: int) -> str:
    """Key of a block: two digits or more, so that keys sort as numbers do."""
    return f"{layer:02d}"


def shapes(config: Config) -> Parameters:
    """The tree of parameters, as `jax.ShapeDtypeStruct`."""
    return jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32), _tree(config), is_leaf=lambda x: isinstance(x, tuple)
    )


def _tree(config: Config) -> Parameters:
    d = config.dim
    embedding = {"token": (config.vocabulary, d)}
    if config.style == "nanogpt":
        embedding["position"] = (config.context, d)
    layers = {layer_name(i): {"attention": _attention(config), **_network(config, i)} for i in range(config.layers)}
    tree = {"embedding": embedding, "layers": layers, "norm": _norm(config)}
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
        "gate": (n, d),
        "in": _linear(config, n, d, inner),
        "out": _linear(config, n, h, d),
    }
    return {"moe": moe | ({"scale": (n,)} if config.router_scale else {})}


def init(config: Config, seed: int) -> Parameters:
    """Initial values: normal of std 0.02 (0.02/√(2 layers) for maps back to the residual stream), norms and scales 1,
    biases 0. **Source:** nanoGPT, as [himoe-code]. Drawn in the order of the tree, from one generator."""
    rng = np.random.default_rng((seed, 2))
    back = 0.02 / (2 * config.layers) ** 0.5

    def value(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        keys = [str(key.key) for key in path]
        if keys[-1] == "bias":
            return jnp.zeros(leaf.shape, jnp.float32)
        if keys[-1] == "scale" or any("norm" in key for key in keys):
            return jnp.ones(leaf.shape, jnp.float32)
        std = back if "out" in keys else 0.02
        return jnp.asarray(np.float32(std) * rng.standard_normal(leaf.shape, dtype=np.float32))

    return jax.tree_util.tree_map_with_path(value, shapes(config))


def init_state(config: Config) -> Tree:
    """The routers' states before the first step, one row a mixture."""
    rows = len(config.moe_layers)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), config.arm.router.init())


def map_named(function: Callable[[str, jax.Array], object], parameters: Parameters) -> Parameters:
    """The tree with `function(name, array)` at every leaf; names are keys joined by dots."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(".".join(str(key.key) for key in path), leaf), parameters
    )
