"""Interventions after training: the trained layer, measured with another router, with experts closed, with logits
moved."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from himoe_theory import Router

from .arms import Arm
from .data import Batch, Data
from .layer import Layer
from .training import Carry, Measured, Program, Setting, Settings, Training, group, shared_program, stack


class Trained(NamedTuple):
    """An arm at the end of its training, on every seed: `carry` `[seeds, 1, ...]` and the test batch `[seeds, ...]`."""

    arm: Arm
    program: Program
    settings: Settings
    carry: Carry
    test: Batch
    keys: Key[Array, " seeds"]

    def measured(
        self,
        router: Router | None = None,
        limits: Bool[Array, " experts"] | None = None,
        offset: Float[Array, " experts"] | None = None,
    ) -> Measured:
        """Measurements `[seeds, ...]` on the test batch, as in training where nothing is given.

        **Arguments:** `router`: in place of the arm's. `limits`: false for experts that may not be chosen. `offset`:
        added to the logits of every token.
        """
        settings, carry = self.settings, self.carry
        seeds, done = settings.learning_rate.shape[0], self.program.source.training.steps
        if router is not None:
            arm = dataclasses.replace(self.arm, router=router, schedules={})
            settings = stack([[(arm, 0.0)]] * seeds, self.program.terms)
        held = carry.limits, carry.offset

        def each(one: Array) -> Array:
            return jnp.broadcast_to(one, (seeds, 1, *one.shape))

        carry = dataclasses.replace(
            carry,
            limits=held[0] if limits is None else each(jnp.asarray(limits)),
            offset=held[1] if offset is None else each(jnp.asarray(offset, jnp.float32)),
        )
        program = self.program if router is None else dataclasses.replace(self.program, schedules=())
        found = program.evaluate(carry, settings, self.test, self.keys, done)
        return {name: values[:, 0] for name, values in found.items()}


def train(arm: Arm, data: Data, layer: Layer, training: Training, seeds: Sequence[int]) -> Trained:
    """Trains one arm and keeps all that it ends with."""
    (members,) = group([arm])
    program = shared_program([Setting(arm, data, layer, training)])
    settings = members.settings(training, len(seeds))
    *_, (carry, test, _) = program.states(data, layer, seeds, settings)
    return Trained(arm, program, settings, carry, test, jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)))
