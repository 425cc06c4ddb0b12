"""Training steps of a language model as a share of the machine's matmul rate: `python -m benchmarks.language`.

Whole steps (forward, backward, clipping by global norm, AdamW), 6 layers, d 256, 8 heads, context 256, batch 8, 8
experts in 4 groups, one of each, every second layer, vocabulary 256. Steps and float32 products at 2048³ take turns, so
that what else the machine does meets both; shares are of medians, by the clock and by core time. Before it is timed the
step's gradients are compared with the dense form's. Results are written as JSON with facts about the machine.
"""

import dataclasses
import json
import os
import platform
import resource
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import tyro

SIDE = 2048


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, and where to write it."""

    compute: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """Types of the factors of products."""
    dispatch: Literal["sorted", "dense"] = "sorted"
    """How tokens reach experts."""
    rounds: int = 9
    """Turns of each."""
    keep_memory: bool = True
    """Whether the process keeps freed memory (as `himoe-simulate lm` does)."""
    vector_width: int = 256
    """Bits of the vectors that the compiler prefers (its own default is 256)."""
    out: Path = Path("results/benchmarks/language.json")


def main(options: Options) -> None:
    """Measures, prints and writes."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_prefer_vector_width={options.vector_width}"
    os.environ["XLA_FLAGS"] = flags.strip()  # read when jax starts, which is below
    from simulations.language.memory import keep_freed_memory

    kept = options.keep_memory and keep_freed_memory()
    result: dict[str, Any] = {"machine": machine(), "freed_memory_kept": kept}
    result["options"] = dataclasses.asdict(options) | {"out": str(options.out)}
    result["steps"] = {compute: measure(options, compute) for compute in options.compute}
    result["machine"]["load_after"] = os.getloadavg()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))


def machine() -> dict[str, Any]:
    """Cores, processor, load and versions."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    facts = {"cores": len(os.sched_getaffinity(0)), "processor": model, "load_before": os.getloadavg()}
    return facts | {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax")}


def measure(options: Options, compute: str) -> dict[str, Any]:
    """One type: agreement with the dense form, rates and memory."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from simulations.arms import arms
    from simulations.language import Model
    from simulations.language.plan import plan

    kind = jnp.dtype(compute)
    model = Model(6, 8, 256, 256, 256, 1024, arms()["hi-moe"], stride=2, dispatch=options.dispatch, router_scale=True)
    costs = plan(model, 8, compute=kind)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 257)), jnp.int32)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1))

    def loss(m: Model, parameters: Any, state: Any) -> Any:
        return m.loss(parameters, state, tokens[:, :-1], tokens[:, 1:], step=0, compute=kind)

    def step(parameters: Any, moments: Any, state: Any) -> Any:
        (value, aux), gradients = jax.value_and_grad(lambda p: loss(model, p, state), has_aux=True)(parameters)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, aux.state, value

    parameters, state = model.init(0), model.init_state()
    gap = _disagreement(lambda m, p: loss(m, p, state)[0], model, parameters)
    carry = (parameters, optimizer.init(parameters), state)
    del parameters
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*carry).compile()
    compile_seconds = time.perf_counter() - began
    square = jnp.asarray(np.random.default_rng(1).standard_normal((SIDE, SIDE)), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    plain = np.asarray(square)
    timed: dict[str, list[tuple[float, float]]] = {"step": [], "product": [], "numpy": []}
    for turn in range(options.rounds + 1):
        with _clock(timed["step"]):
            *carry, value = compiled(*carry)
            value.block_until_ready()
        with _clock(timed["product"]):
            product(square, square).block_until_ready()
        with _clock(timed["numpy"]):
            plain @ plain
        if turn == 0:  # caches, pages and threads are warm now
            timed = {name: [] for name in timed}
    memory = compiled.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return {
        "largest_relative_difference_of_a_gradient_from_dense": gap,
        "compile_seconds": compile_seconds,
        **_shares(timed, costs.flops_per_token * 8 * 256),
        "loss": float(value),
        "planned_bytes": costs.memory,
        "program_bytes": used,
        "program_of_planned": used / costs.memory,
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _disagreement(loss: Any, model: Any, parameters: Any) -> float:
    """Largest difference of a parameter's gradient from that of the dense form, relative to its norm."""
    import jax
    import numpy as np

    forms = (model, dataclasses.replace(model, dispatch="dense"))
    one, other = (jax.device_get(jax.jit(jax.grad(lambda p, m=m: loss(m, p)))(parameters)) for m in forms)
    norms = jax.tree.map(lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b)), one, other)
    return max(jax.tree.leaves(norms))


class _clock:
    """Appends (seconds, core seconds) of its block."""

    def __init__(self, found: list[tuple[float, float]]):
        self.found = found

    def __enter__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.found.append((time.perf_counter() - self.began[0], time.process_time() - self.began[1]))


def _shares(timed: dict[str, list[tuple[float, float]]], operations: int) -> dict[str, Any]:
    """Rates in GF/s and their quotients, by the clock and by core time."""
    found: dict[str, Any] = {}
    for index, clock in enumerate(("clock", "core_time")):
        seconds = {name: statistics.median(pair[index] for pair in pairs) for name, pairs in timed.items()}
        rates = {name: 2 * SIDE**3 / seconds[name] / 1e9 for name in ("product", "numpy")}
        rate = operations / seconds["step"] / 1e9
        found[clock] = {
            "step_seconds": seconds["step"],
            "step_gflops": rate,
            "product_gflops": rates["product"],
            "numpy_product_gflops": rates["numpy"],
            "share": rate / rates["product"],
            "share_of_faster_product": rate / max(rates.values()),
        }
    return found


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
