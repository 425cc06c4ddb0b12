"""Events: what happens to a run between steps: experts added or closed, a gate refitted, data reweighted.

An event is a function of a run's `Carry` and the last batch it was trained on, which gives the `Carry` to go on with:

    def close_idle(carry, batch):
        rows = jnp.linalg.norm(carry.parameters["gate"], axis=1)
        return dataclasses.replace(carry, limits=rows > 0.1 * rows.max())

    Arm(..., events=(Every(200, close_idle),))

It sees one seed and arm, outside compiled code, and must keep the shapes of all arrays. Experts are added by having
them from the start, closed (`Every(0, ...)` happens before the first step), and opening them.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from himoe_theory import _checks


@dataclasses.dataclass(frozen=True)
class Every:
    """An event after every so many steps; 0 for once, before the first, where the batch is `None`."""

    steps: int
    function: Callable[[Any, Any], Any]

    def __post_init__(self):
        _checks.count("steps", self.steps, minimum=0)
        if not callable(self.function) or not isinstance(self.function, Hashable):
            raise ValueError(f"`function` must be a function of carry and batch; got {self.function!r}.")

    def happens(self, done: int) -> bool:
        """Whether after so many steps."""
        return done % self.steps == 0 and done > 0 if self.steps else done == 0


def check(events: Sequence[Every], stride: int) -> None:
    """**Raises:** `ValueError` for an event that does not come at a record, where training stops."""
    for event in events:
        if event.steps % stride:
            raise ValueError(
                f"`events` must come at records, every {stride} steps; got {event.steps}. Take more records."
            )


def happen(events: Sequence[Every], carry: Any, batches: Any, done: int) -> Any:
    """The carry `[seeds, arms, ...]` after the events of this step, run by run.

    **Arguments:** `batches`: `[seeds, ...]`, the last ones; `None` before the first step. **Raises:** `ValueError` for
    an event that changes shapes.
    """
    due = [event for event in events if event.happens(done)]
    if not due:
        return carry
    seeds, arms = jax.tree.leaves(carry)[0].shape[:2]
    rows = []
    for seed in range(seeds):
        batch = None if batches is None else jax.tree.map(lambda leaf, at=seed: leaf[at], batches)
        alone = [jax.tree.map(lambda leaf, at=(seed, arm): leaf[at], carry) for arm in range(arms)]
        rows.append([_one(due, one, batch) for one in alone])
    over_arms = [jax.tree.map(lambda *one: jnp.stack(one), *row) for row in rows]
    return jax.tree.map(lambda *one: jnp.stack(one), *over_arms)


def _one(due: Sequence[Every], carry: Any, batch: Any) -> Any:
    for event in due:
        moved = event.function(carry, batch)
        before, after = (jax.tree.map(lambda leaf: (jnp.shape(leaf), str(leaf.dtype)), one) for one in (carry, moved))
        if not eqx.tree_equal(before, after):
            raise ValueError(f"`{event.function}` must keep the shapes and types of all arrays; it has changed them.")
        carry = moved
    return carry
