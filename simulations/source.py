"""How long training is, and where its batches come from."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key, PRNGKeyArray

from himoe_theory import _checks

from .compiling import OWN_SUMS, QUICK, compiled
from .data import Batch, Data, Truth

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd, "adamw": optax.adamw}


@dataclasses.dataclass(frozen=True)
class Training:
    """How long and how fast; the record is taken `records` times at equal distances, and once at the start."""

    steps: int = 1500
    """Optimiser steps."""
    batch: int = 256
    """Tokens a step."""
    learning_rate: float = 3e-3
    """The optimiser's, the same at every step."""
    optimizer: str = "adam"
    """adam, adamw or sgd."""
    records: int = 50
    """Measurements along the way; must divide the steps."""
    test_tokens: int = 2048
    """Tokens of the test batch."""

    def __post_init__(self):
        for name in ("steps", "batch", "records", "test_tokens"):
            _checks.count(name, getattr(self, name))
        _checks.count("steps", self.steps, maximum=2**31 - 1, of="steps are counted in 32 bits")
        _checks.count("records", self.records, maximum=self.steps, of="steps")
        if self.steps % self.records:
            raise ValueError(f"`records` must divide `steps`; got {self.records} records, {self.steps} steps.")
        _checks.positive("learning_rate", self.learning_rate)
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}.")

    @property
    def stride(self) -> int:
        """Steps between two records."""
        return self.steps // self.records


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the batches of all seeds come from. Compiled once for all arms that train on the same data."""

    data: Data
    training: Training
    brought: tuple[str, ...] = ()
    """Hashes of what a user brought: what is redefined in place is compiled anew."""

    def truths(self, seeds: Sequence[int]) -> Truth:
        """The planted truth of every seed, stacked."""
        truths = [self.data.truth(np.random.default_rng((seed, 0))) for seed in seeds]
        return jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *truths)

    @compiled(OWN_SUMS)
    def block(self, truths: Truth, keys: Key[Array, " seeds"], first: Array) -> Batch:
        """The batches of one stride of steps, `[steps, seeds, tokens, ...]`."""

        def one(truth: Truth, key: PRNGKeyArray, step: Array) -> Batch:
            return self.data.draw(truth, jax.random.fold_in(jax.random.fold_in(key, 0), step), self.training.batch)

        steps = first + jnp.arange(self.training.stride, dtype=jnp.int32)
        over_seeds = jax.vmap(one, in_axes=(0, 0, None))
        return jax.lax.map(lambda step: over_seeds(truths, keys, step), steps)

    @compiled(OWN_SUMS, QUICK)
    def test(self, truths: Truth, keys: Key[Array, " seeds"]) -> Batch:
        """The test batch of every seed."""
        tokens = self.training.test_tokens
        return jax.vmap(lambda truth, key: self.data.test(truth, jax.random.fold_in(key, 1), tokens))(truths, keys)
