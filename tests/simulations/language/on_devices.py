"""Run as a script in a process with eight host devices: prints, as JSON, how far results are from those of one."""

import dataclasses
import json
import sys

import jax
import numpy as np

from himoe_theory import Partition
from simulations.arms import arms
from simulations.data.corpus import Windows
from simulations.language.model import Model
from simulations.language.program import Program, State
from simulations.language.recipe import Recipe

SHAPE = {"layers": 1, "heads": 1, "dim": 16, "context": 8, "vocabulary": 16, "width": 24, "stride": 1}
RECIPE = Recipe(steps=10, batch=16, micro_batches=2, warmup=0, learning_rate=0.01)


def batch(program: Program, step: int):
    """Sixteen sequences of random tokens."""
    tokens = np.random.default_rng(step).integers(0, 16, (16, 9)).astype(np.int32)
    nothing = np.zeros_like(tokens)
    return program.cut(Windows(tokens[:, :-1], tokens[:, 1:], nothing[:, :-1], nothing[:, 1:]))


def trained(model: Model, steps: int = 3) -> tuple[State, list[float]]:
    """The state after some steps, and their losses."""
    program, losses = Program(model, RECIPE), []
    state = program.begin(0)
    for step in range(steps):
        state, done = program.advance(state, *batch(program, step))
        losses.append(float(done.loss))
    return state, losses


def gradient(model: Model):
    """Of the first step, with the routers' next states and the counts."""
    program = Program(model, RECIPE)
    found, router, step = jax.jit(program.gradient)(program.begin(0), *batch(program, 0))
    return jax.device_get((found, router)), jax.device_get(step.counts)


def furthest(a, b) -> float:
    """Largest difference of two trees, over the largest entry of each array."""
    pairs = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-30)) for x, y in pairs)


def compare(name: str, devices: tuple[int, int], scope: str) -> dict[str, object]:
    """An arm on several devices against the same arm on one."""
    one = Model(arm=arms(Partition.equal(8, 4), 1)[name], router_scale=name == "hi-moe", load_scope=scope, **SHAPE)
    many = dataclasses.replace(one, devices=devices)
    (found, counts), (expected, exact) = gradient(many), gradient(one)
    result = {"gradient": furthest(found, expected), "counts_equal": bool((counts == exact).all())}
    if name == "hi-moe":
        (state, losses), (alone, reference) = trained(many), trained(one)
        stacked = state.parameters["layers"]["00"]["moe"]["in"]["weight"]
        result |= {
            "losses": furthest(np.asarray(losses), np.asarray(reference)),
            "router": furthest(state.router, alone.router),
            "experts_on_a_device": sorted({shard.data.shape[0] for shard in stacked.addressable_shards}),
        }
    return result


if __name__ == "__main__":
    print(json.dumps([compare(name, tuple(devices), scope) for name, devices, scope in json.loads(sys.argv[1])]))
