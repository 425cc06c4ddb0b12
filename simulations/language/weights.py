"""Weights in and out under nanoGPT's names, as safetensors, so that a model trained here runs in the released code.

Linear weights are (out, in) there and (in, out) here; expert weights are (experts, in, out) in both; the tied head is
written twice. Router states travel along as the released code's buffers.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from himoe_theory import LogitAverage, SelectionBias
from himoe_theory.controllers import Tree
from himoe_theory.plumbing import files

from ..topology import PLAIN
from .blocks import Parameters
from .config import Config
from .parameters import init_state, layer_name, shapes
from .released import keeps_state

_PREFIX = "_orig_mod."  # what compiled PyTorch models put before every name
_HEAD, _TOKENS = "lm_head.weight", "transformer.wte.weight"

Tensors = dict[str, np.ndarray]


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _transposed(x: np.ndarray) -> np.ndarray:
    return x.T


def _row(x: np.ndarray) -> np.ndarray:
    """(N,) to (1, N)."""
    return x[None]


def _rows(x: np.ndarray) -> np.ndarray:
    """(N, h) to (N, 1, h)."""
    return x[:, None]


_BACK: dict[Callable, Callable] = {
    _same: _same,
    _transposed: _transposed,
    _row: lambda x: x[0],
    _rows: lambda x: x[:, 0],
}

Entry = tuple[tuple[str, ...], str, Callable[[np.ndarray], np.ndarray]]


def _entries(config: Config) -> Iterator[Entry]:
    """(path in the parameters, name in the file, change of form) for every parameter the style can have."""
    yield ("embedding", "token"), _TOKENS, _same
    yield ("embedding", "position"), "transformer.wpe.weight", _same
    for part in ("weight", "bias"):
        yield ("norm", part), f"transformer.ln_f.{part}", _same
    for i in range(config.layers):
        here, there = ("layers", layer_name(i)), f"transformer.h.{i}"
        moe = i in config.moe_layers
        network = (*here, "moe" if moe else "mlp")
        for part, form in (("weight", _transposed), ("bias", _same)):
            yield (*here, "attention", "norm", part), f"{there}.ln_1.{part}", _same
            yield (*here, "attention", "qkv", part), f"{there}.attn.c_attn.{part}", form
            yield (*here, "attention", "out", part), f"{there}.attn.c_proj.{part}", form
            yield (*network, "norm", part), f"{there}.ln_2.{part}", _same
            if not moe:
                yield (*network, "in", part), f"{there}.mlp.c_fc.{part}", form
                yield (*network, "out", part), f"{there}.mlp.c_proj.{part}", form
        if moe:
            router, experts = f"{there}.mlp.router", f"{there}.mlp.experts"
            biased = _buffer(config) == "expert_bias"
            yield (*network, "gate"), f"{router}.{'expert_centroids' if biased else 'w_g.weight'}", _same
            yield (*network, "scale"), f"{router}.router_scale", _row
            yield (*network, "in", "weight"), f"{experts}.c_fc", _same
            yield (*network, "in", "bias"), f"{experts}.fc_bias", _rows
            yield (*network, "out", "weight"), f"{experts}.c_proj", _same
            yield (*network, "out", "bias"), f"{experts}.proj_bias", _rows


def _get(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        if key not in tree:
            return None
        tree = tree[key]
    return tree


def _check_style(config: Config) -> None:
    if config.style != "nanogpt":
        raise ValueError(f"weights under nanoGPT's names need style nanogpt; got {config.style!r}.")
    if not config.arm.gate.is_linear:
        raise ValueError(f"weights under nanoGPT's names need a linear gate; got {config.arm.gate}.")
    if config.arm.topology != PLAIN:
        raise ValueError(f"weights under nanoGPT's names need a plain mixture; got {config.arm.topology}.")


def _buffer(config: Config) -> str | None:
    """Name of a router's state in the released code, or `None` if it has none. An idle average is read
    where there is one, and not written."""
    controller = config.arm.router.controller
    return {LogitAverage: "avg_logits", SelectionBias: "expert_bias"}.get(type(controller))


def to_released(
    config: Config,
    parameters: Parameters,
    state: Tree | None = None,
    *,
    step: int = 0,
) -> Tensors:
    """Parameters (or gradients of them) as nanoGPT names them; with a `state`, router buffers too."""
    _check_style(config)
    tensors = {}
    for path, name, form in _entries(config):
        value = _get(parameters, path)
        if value is not None:
            tensors[name] = np.ascontiguousarray(form(np.asarray(value)))
    tensors[_HEAD] = tensors[_TOKENS]
    if state is not None:
        for row, layer in enumerate(config.moe_layers):
            router = f"transformer.h.{layer}.mlp.router"
            buffer = _buffer(config)
            if buffer and keeps_state(config.arm.router):
                tensors[f"{router}.{buffer}"] = np.asarray(state[row])
            if config.arm.router.selection.quotas(config.arm.router.partition) is not None:
                tensors[f"{router}.training_step"] = np.asarray(step, np.float32)
    return tensors


def from_released(config: Config, tensors: Mapping[str, np.ndarray]) -> tuple[Parameters, Tree]:
    """Parameters and router states from nanoGPT's names. Buffers may be missing: a state is then 0.

    **Raises:** `ValueError` naming a tensor that is missing, has another shape, is not finite or belongs to no model of
    these settings, or a head that is not the embedding.
    """
    _check_style(config)
    given = {name.removeprefix(_PREFIX): np.asarray(value) for name, value in tensors.items()}
    if _TOKENS not in given and _HEAD in given:
        given[_TOKENS] = given[_HEAD]
    wanted = shapes(config)
    parameters: Parameters = {}
    used = {_HEAD}
    for path, name, form in _entries(config):
        leaf = _get(wanted, path)
        if leaf is None:
            continue
        expected = form(np.broadcast_to(np.float32(0), leaf.shape)).shape
        _put(parameters, path, jnp.asarray(_BACK[form](_read(given, name, expected))))
        used.add(name)
    if _HEAD in given and not np.array_equal(given[_HEAD], given[_TOKENS]):
        raise ValueError(f"`{_HEAD}` must equal `{_TOKENS}` (they are tied); the two differ.")
    return parameters, _read_state(config, given, used)


def _put(tree: Parameters, path: tuple[str, ...], value: Array) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _read(given: Mapping[str, np.ndarray], name: str, expected: tuple[int, ...]) -> np.ndarray:
    """A float32 copy of the tensor, once it is what it should be."""
    if name not in given:
        raise ValueError(f"tensor `{name}` of shape {expected} is missing.")
    value = given[name]
    if value.shape != expected:
        raise ValueError(f"tensor `{name}` must have shape {expected}; got {value.shape}.")
    value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"tensor `{name}` must be finite; {int((~np.isfinite(value)).sum())} of {value.size} are not.")
    return value


def _read_state(config: Config, given: Mapping[str, np.ndarray], used: set[str]) -> Tree:
    """Router states; then every tensor must have been used."""
    rows = np.zeros((len(config.moe_layers), config.experts), np.float32)
    buffer = _buffer(config)
    for row, layer in enumerate(config.moe_layers):
        router = f"transformer.h.{layer}.mlp.router"
        used.add(f"{router}.training_step")
        if buffer and f"{router}.{buffer}" in given:
            rows[row] = _read(given, f"{router}.{buffer}", (config.experts,))
            used.add(f"{router}.{buffer}")
    # The causal mask, which old PyTorch keeps as a buffer.
    rest = sorted(name for name in set(given) - used if not name.endswith(".attn.bias"))
    if rest:
        raise ValueError(f"tensor `{rest[0]}` of shape {given[rest[0]].shape} is no part of this model.")
    return init_state(config) if buffer is None else jnp.asarray(rows)


def save(
    path: Path,
    config: Config,
    parameters: Parameters,
    state: Tree | None = None,
    *,
    step: int = 0,
) -> None:
    """Writes a safetensors file; it appears under its name only when it is whole.

    **Raises:** `ValueError` for a disk that refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = to_released(config, parameters, state, step=step)
    with files.whole(path) as half:
        try:
            save_file(tensors, half, metadata={"format": "pt"})
        except SafetensorError as error:  # which hides what the system said
            raise ValueError(f"`{path}` must be a file in a writable folder; got {files.reason(error)}.") from error


def load(path: Path, config: Config) -> tuple[Parameters, Tree]:
    """Reads a safetensors file.

    **Raises:** `ValueError`, also for a file that is none, is cut off or holds a type that NumPy has not.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path}.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {files.reason(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:  # what it raises for a name of a type that it does not know
        raise ValueError(f"{path} must hold numbers of types that NumPy has; got {files.reason(error)}.") from error
    try:
        return from_released(config, tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
