"""What a model costs, before any of it is allocated: shapes, parameters, arithmetic of a token, memory of a training
step, on as many devices as the model names, whether they are there or not."""

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from rich.box import SIMPLE_HEAD
from rich.table import Table

from himoe_theory import _checks

from .model import Model
from .parameters import map_named

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """Counts, in parameters, operations a token and bytes.

    `active`: parameters that a token meets, those of its own experts alone. `matmul_active`: of these the ones that
    are factors of products; the embedding is looked up, the head is a product (also where the two are one array).
    `flops_per_token`: of a training step, 6 × `matmul_active` + 12 × layers × context × d (scores and sums of
    attention, over all places, as is usual). Bytes are those of one device: of the experts' parameters, and of what
    goes with them, it holds its groups', of all others everything, of a batch its share. `accumulated`: the sum of
    gradients where several micro-batches make a step, beside the gradient of the one at hand. `optimizer`: two
    moments. `activations`: what reverse mode keeps from the forward pass of a micro-batch.
    """

    total: int
    active: int
    matmul_active: int
    flops_per_token: int
    parameters: int
    gradients: int
    accumulated: int
    optimizer: int
    activations: int

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return self.parameters + self.gradients + self.accumulated + self.optimizer + self.activations


def plan(
    model: Model,
    batch: int = 1,
    *,
    micro_batches: int = 1,
    context: int | None = None,
    compute: DTypeLike = jnp.float32,
) -> Plan:
    """Costs of a training step on `micro_batches` times `batch` sequences of `context` tokens (default: the model's).
    Nothing is allocated.

    **Raises:** `ValueError` for a batch below 1 or that devices cannot share, or a context longer than the model's.
    """
    _checks.count("batch", batch)
    _checks.count("micro_batches", micro_batches)
    devices = math.prod(model.devices)
    if batch % devices:
        raise ValueError(
            f"a micro-batch must be a multiple of the number of `devices`, {devices}; got {batch} sequences."
        )
    time = model.context if context is None else context
    _checks.count("context", time, maximum=model.context, of="the model's context")
    total, active, products = count(model)
    size = sum(_bytes(model).values())
    return Plan(
        total=total,
        active=active,
        matmul_active=products,
        flops_per_token=6 * products + 12 * model.layers * time * model.dim,
        parameters=size,
        gradients=size,
        accumulated=size if micro_batches > 1 else 0,
        optimizer=2 * size,
        activations=activations(model, batch, time, compute) // devices,
    )


def count(model: Model) -> tuple[int, int, int]:
    """(all parameters, active ones, active ones that are factors of products)."""
    sums = {"total": 0, "active": 0, "products": 0}

    def add(name: str, leaf: jax.ShapeDtypeStruct) -> None:
        size = math.prod(leaf.shape)
        keys = name.split(".")
        own = size
        if "moe" in keys and keys[keys.index("moe") + 1] in ("in", "out"):
            own = size // model.experts * model.routes
        sums["total"] += size
        sums["active"] += own
        if "gate" in keys:
            times = len(model.moe_layers) if keys[0] == "gate" else 1  # one for all layers
            sums["products"] += times * own if len(leaf.shape) > 1 else 0
        elif keys[0] == "head" or (keys[0] == "layers" and "norm" not in name and keys[-1] == "weight"):
            sums["products"] += own
        if name == "embedding.token" and model.style == "nanogpt":
            sums["products"] += own  # the tied head

    map_named(add, model.shapes())
    return sums["total"], sums["active"], sums["products"]


def activations(model: Model, batch: int, time: int, compute: DTypeLike) -> int:
    """Bytes that reverse mode keeps, on all devices: what the backward pass reads besides parameters and inputs."""
    tokens = jax.ShapeDtypeStruct((batch, time), jnp.int32)
    state = jax.eval_shape(model.init_state)
    key = jax.eval_shape(lambda: jax.random.key(0)) if model.arm.is_random else None

    def pull_back(parameters: Any, state: Any, tokens: Any, key: Any) -> Any:
        def loss(p: Any) -> jax.Array:
            return model.loss(p, state, tokens, tokens, key=key, step=0, compute=compute)[0]

        return jax.vjp(loss, parameters)[1]

    jaxpr = jax.make_jaxpr(pull_back)(model.shapes(), state, tokens, key).jaxpr
    given = {id(var) for var in (*jaxpr.invars, *jaxpr.constvars)}
    kept = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
    return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in kept.values() if hasattr(aval, "shape"))


def table(model: Model, batch: int = 1, *, micro_batches: int = 1, compute: DTypeLike = jnp.float32) -> Table:
    """The plan to print, with a line a kind of parameter."""
    found, own = plan(model, batch, micro_batches=micro_batches, compute=compute), _bytes(model)
    data, group = model.devices
    many = model.devices != (1, 1)
    out = Table(box=SIMPLE_HEAD, title=f"memory on each of {data} × {group} devices" if many else None)
    for heading, side in (("", "left"), ("count", "right"), ("MiB", "right")):
        out.add_column(heading, justify=side)
    for name, number in _kinds(model).items():
        out.add_row(f"parameters: {name}", f"{number:,}", f"{own[name] / MIB:,.1f}")
    out.add_section()
    out.add_row("parameters", f"{found.total:,}", f"{found.parameters / MIB:,.1f}")
    out.add_row("of them active", f"{found.active:,}", "")
    out.add_row("gradients", "", f"{found.gradients / MIB:,.1f}")
    if found.accumulated:
        out.add_row(f"their sum over {micro_batches} micro-batches", "", f"{found.accumulated / MIB:,.1f}")
    out.add_row("optimiser (two moments)", "", f"{found.optimizer / MIB:,.1f}")
    out.add_row(f"activations, batch {batch} × {model.context}", "", f"{found.activations / MIB:,.1f}")
    out.add_row("memory of a training step", "", f"{found.memory / MIB:,.1f}")
    out.add_row("operations a token, training", f"{found.flops_per_token:,}", "")
    return out


def measures(model: Model) -> str:
    """Two lines: the model's measures, and those of its mixtures."""
    first = f"{model.style}, {model.layers} layers, d {model.dim}, {model.heads} heads, context {model.context:,}, "
    first += f"vocabulary {model.vocabulary:,}"
    if not model.moe_layers:
        widths = sorted({model.hidden(layer) for layer in range(model.layers)})
        return f"{first}\nno mixtures, width {' and '.join(f'{width:,}' for width in widths)}"
    router = model.arm.router
    m, grouped = router.partition.num_groups, router.selection.quotas(router.partition) is not None
    k = f"{router.routes // m} in each" if grouped else f"{router.routes} in all"
    second = f"{len(model.moe_layers)} mixtures, N {model.experts}, M {m}, K {k}, width {model.width:,}"
    return f"{first}\n{second}" + (f", of plain networks {model.plain_width:,}" if model.stride > 1 else "")


def shapes_table(model: Model) -> Table:
    """The shape of every tensor; those that layers share, once, with their number."""
    rows: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def add(name: str, leaf: jax.ShapeDtypeStruct) -> None:
        keys = name.split(".")
        rows[".".join(["layers", "*", *keys[2:]] if keys[0] == "layers" else keys), leaf.shape] += 1

    map_named(add, model.shapes())
    out = Table(box=SIMPLE_HEAD)
    for heading, side in (("tensor", "left"), ("shape", "left"), ("times", "right")):
        out.add_column(heading, justify=side)
    for (name, shape), times in rows.items():
        out.add_row(name, " × ".join(map(str, shape)), str(times))
    return out


def _kinds(model: Model) -> dict[str, int]:
    """Parameters by kind."""
    kinds = {"embeddings": 0, "attention": 0, "experts": 0, "gates": 0, "plain networks": 0, "norms": 0, "head": 0}

    def add(name: str, leaf: jax.ShapeDtypeStruct) -> None:
        keys = name.split(".")
        if "gate" in keys:
            kind = "gates"
        elif "norm" in name:
            kind = "norms"
        elif "moe" in keys:
            kind = "gates" if keys[keys.index("moe") + 1] == "scale" else "experts"
        else:
            known = {"embedding": "embeddings", "head": "head", "attention": "attention", "mlp": "plain networks"}
            kind = next(known[key] for key in keys if key in known)
        kinds[kind] += math.prod(leaf.shape)

    map_named(add, model.shapes())
    return {kind: number for kind, number in kinds.items() if number}


def _bytes(model: Model) -> dict[str, int]:
    """Bytes of the parameters by kind, on one device."""
    return {
        kind: 4 * number // (model.devices[1] if kind == "experts" else 1) for kind, number in _kinds(model).items()
    }
