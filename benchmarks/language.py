"""Training steps of a language model as a share of the machine's matmul rate: `python -m benchmarks.language`.

Whole steps (forward, backward, clipping by global norm, AdamW), 6 layers, d 256, 8 heads, context 256, batch 8, 8
experts in 4 groups, one of each, every second layer, vocabulary 256. Steps and float32 products at 2048³ take turns, so
that what else the machine does meets both; shares are of medians, by the clock and by core time. Before it is timed the
step's gradients are compared with the dense form's, in a process of its own, so that what is measured of memory is the
training's. After it one more step is profiled. Results are written as JSON with facts about the machine.
"""

import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
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
    out: Path = Path("results/benchmarks/language.json")


def main(options: Options) -> None:
    """Measures, prints and writes."""
    result: dict[str, Any] = {"machine": machine()}
    result["options"] = dataclasses.asdict(options) | {"out": str(options.out)}
    result["steps"] = {
        compute: {"largest_relative_difference_of_a_gradient_from_dense": alone(disagreement, options, compute)}
        | alone(measure, options, compute)
        for compute in options.compute
    }
    result["machine"]["load_after"] = os.getloadavg()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result, indent=1))


def machine() -> dict[str, Any]:
    """Cores, processor, load and versions."""
    from simulations.provenance import processor  # loads jax

    facts = {"cores": len(os.sched_getaffinity(0)), "processor": processor(), "load_before": os.getloadavg()}
    return facts | {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "optax")}


def alone(work: Callable[[Options, str], Any], options: Options, compute: str) -> Any:
    """The result of a function that has a process to itself."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (options, compute))


def _model(options: Options) -> Any:
    from simulations.arms import arms
    from simulations.language import Model

    return Model(6, 8, 256, 256, 256, 1024, arms()["hi-moe"], stride=2, dispatch=options.dispatch, router_scale=True)


def _loss(compute: str) -> Callable[[Any, Any], Any]:
    """The loss and what comes with it, of a model and its parameters, on one batch."""
    import jax.numpy as jnp
    import numpy as np

    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 257)), jnp.int32)

    def loss(model: Any, parameters: Any, state: Any) -> Any:
        kind = jnp.dtype(compute)
        return model.loss(parameters, state, tokens[:, :-1], tokens[:, 1:], step=0, compute=kind)

    return loss


def measure(options: Options, compute: str) -> dict[str, Any]:
    """One type: rates and memory."""
    from simulations.language.memory import keep_freed_memory

    kept = options.keep_memory and keep_freed_memory()
    import jax
    import jax.numpy as jnp
    import optax

    from simulations.language.plan import plan
    from simulations.language.program import step_options

    from .profile import profile

    model, loss = _model(options), _loss(compute)
    costs = plan(model, 8, compute=jnp.dtype(compute))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1))

    def step(parameters: Any, moments: Any, state: Any) -> Any:
        (value, aux), gradients = jax.value_and_grad(lambda p: loss(model, p, state), has_aux=True)(parameters)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, aux.state, value

    at_start = _resident("VmRSS")
    parameters = model.init(0)
    carry = (parameters, optimizer.init(parameters), model.init_state())
    del parameters
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=(0, 1, 2), compiler_options=step_options(compute)).lower(*carry).compile()
    compile_seconds = time.perf_counter() - began
    before = _resident("VmRSS")
    _forget_peak()
    *carry, value = compiled(*carry)
    value.block_until_ready()
    peak = _resident("VmHWM")
    timed, carry, value = _in_turns(compiled, carry, options.rounds)
    memory = compiled.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    # What the step needs: its arguments, which are there before it, and what it adds.
    needed = memory.argument_size_in_bytes + peak - before
    return {
        "freed_memory_kept": kept,
        "compile_seconds": compile_seconds,
        **_shares(timed, costs.flops_per_token * 8 * 256),
        "loss": float(value),
        "planned_bytes": costs.memory,
        "program_bytes": used,
        "program_of_planned": used / costs.memory,
        "resident_for_a_step_bytes": needed,
        "resident_of_planned": needed / costs.memory,
        "resident_with_compiler_of_planned": (peak - at_start) / costs.memory,
        "profile": profile(compiled, lambda: jax.block_until_ready(compiled(*carry))),
    }


def _in_turns(compiled: Any, carry: Any, rounds: int) -> tuple[dict[str, list[tuple[float, float]]], Any, Any]:
    """(seconds, core seconds) of steps and of both products, in turns; what the next step needs; and the last loss."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    square = jnp.asarray(np.random.default_rng(1).standard_normal((SIDE, SIDE)), jnp.float32)
    product, plain = jax.jit(jnp.matmul), np.asarray(square)
    timed: dict[str, list[tuple[float, float]]] = {"step": [], "product": [], "numpy": []}
    for turn in range(rounds + 1):
        with _clock(timed["step"]):
            *carry, value = compiled(*carry)
            value.block_until_ready()
        with _clock(timed["product"]):
            product(square, square).block_until_ready()
        with _clock(timed["numpy"]):
            plain @ plain
        if turn == 0:  # caches, pages and threads are warm now
            timed = {name: [] for name in timed}
    return timed, carry, value


def _resident(kind: str) -> int:
    """Memory of this process: now (VmRSS), or at most since the last reset (VmHWM); 0 where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(kind)), 0)


def _forget_peak() -> None:
    """Lets the peak start anew, so that compiling does not count."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5", encoding="utf-8")


def disagreement(options: Options, compute: str) -> float:
    """Largest difference of a parameter's gradient from that of the dense form, relative to its norm."""
    import jax
    import numpy as np

    model, loss = _model(options), _loss(compute)
    parameters, state = model.init(0), model.init_state()
    forms = (model, dataclasses.replace(model, dispatch="dense"))
    found = (jax.jit(jax.grad(lambda p, form=form: loss(form, p, state)[0]))(parameters) for form in forms)
    one, other = map(jax.device_get, found)
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
