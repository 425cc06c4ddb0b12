"""What is timed: the reference work by each contender, as functions that do some of it and say how many steps it was.

Reference work: clustered regression (C 8, d 16), N 8, M 4, K 1, linear experts, Adam, batch 256, the objectives of
Hi-MoE; a sweep of 12 settings and 6 seeds, of which each of two processes does 3 seeds.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch

from simulations import Arm, Clusters, Layer, Training, arms
from simulations.arms import INTER, INTRA
from simulations.compiling import OWN_SUMS, QUICK, WIDE, compiled
from simulations.training import Batch, Carry, Program, Settings, Source, group

from .rival import Run

Work = Callable[[], int]
"""Does a piece of the work; returns optimiser steps, summed over runs."""

STRIDE = 30
SEEDS = 3


def settings() -> list[Arm]:
    """12 of them: three strengths of the inter-group objective by four of the intra-group one."""
    base = arms()["hi-moe"]
    return [
        dataclasses.replace(base.with_terms(**{INTRA: intra, INTER: inter}), name=f"{intra} {inter}")
        for inter in (0.0, 0.05, 0.1)
        for intra in (0.0, 0.05, 0.1, 0.2)
    ]


def program(members: Sequence[Arm], seeds: int, stride: int = STRIDE) -> tuple[Program, Settings]:
    """The reference layer and data."""
    (found,) = group(members)
    training = Training(steps=stride, records=1)
    return Program(Source(Clusters(), training), Layer(), found.gate, found.terms), found.settings(training, seeds)


def _keys(seeds: Sequence[int]) -> jax.Array:
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))


_by_autodiff = compiled(OWN_SUMS, QUICK, WIDE)(Program.advance_by_autodiff)


def _advance(work: Program, *given) -> Carry:
    return work.advance(*given)


def _strides(advance: Callable[..., Carry]) -> Work:
    """One stride of the sweep after another, batches drawn on the way."""
    members, seeds = settings(), range(SEEDS)
    work, numbers = program(members, len(seeds))
    keys, truths = _keys(seeds), work.source.truths(seeds)
    carry, done = work.begin(seeds, numbers), 0

    def stride() -> int:
        nonlocal carry, done
        first = jnp.asarray(done, jnp.int32)
        carry = advance(work, carry, numbers, work.source.block(truths, keys, first), keys, first)
        jax.block_until_ready(carry.router)
        done += STRIDE
        return STRIDE * len(members) * len(seeds)

    return stride


def fast() -> Work:
    """The sweep as `simulate` runs it: here, in closed form."""
    return _strides(_advance)


def general() -> Work:
    """The same sweep by automatic differentiation, as any router and objective can have it."""
    return _strides(_by_autodiff)


def rival() -> Work:
    """Eager PyTorch, one run after another."""
    torch.set_num_threads(1)
    run = _rival_run(0, 0)

    def steps() -> int:
        for _ in range(20):
            run.step(*run.draw(256), groups=4, load=0.01, intra=0.1, inter=0.05)
        return 20

    return steps


CONTENDERS: dict[str, Callable[[], Work]] = {"rival": rival, "general": general, "fast": fast}


def _rival_run(arm: int, seed: int) -> Run:
    """The rival with the parameters and the truth of our run."""
    members = settings()
    work, numbers = program(members, 1)
    parameters = work.begin([seed], numbers).parameters
    truth = work.source.truths([seed])
    parts = (parameters["gate"][0, arm], parameters["experts"]["weight"][0, arm])
    parts += tuple(truth[name][0] for name in ("centres", "mean", "maps"))
    return Run(*(torch.tensor(np.asarray(part)) for part in parts), noise=work.source.data.noise)


def disagreement(steps: int = STRIDE, arm: int = 6) -> float:
    """Largest difference of a parameter after equal steps on equal batches from equal parameters, rival and ours."""
    members = settings()
    work, numbers = program(members, 1, steps)
    keys, first = _keys([0]), jnp.zeros((), jnp.int32)
    batches: Batch = work.source.block(work.source.truths([0]), keys, first)
    ours = work.advance(work.begin([0], numbers), numbers, batches, keys, first).parameters
    run = _rival_run(arm, 0)
    for x, y in zip(np.asarray(batches.x[:, 0]), np.asarray(batches.y[:, 0]), strict=True):
        terms = members[arm].terms
        run.step(torch.tensor(x), torch.tensor(y), 4, terms["load_per_token"], terms[INTRA], terms[INTER])
    found = (run.gate.detach().numpy(), run.experts.detach().numpy())
    expected = (ours["gate"][0, arm], ours["experts"]["weight"][0, arm])
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
