"""What every data set offers: a planted truth drawn once a seed, fresh batches, and a test set."""

from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

Task = Literal["regression", "classification"]


Truth = dict[str, Array | np.ndarray]
"""Named arrays that a seed fixes; NumPy when drawn, JAX inside a program."""


class Batch(NamedTuple):
    """Tokens, targets and planted labels. For classification `y` is the one-hot label."""

    x: Float[Array, "tokens dim"]
    y: Float[Array, "tokens outputs"]
    labels: Int[Array, " tokens"]


@runtime_checkable
class Data(Protocol):
    """A data set. Frozen and hashable: static under `jit`."""

    task: Task
    in_truth: ClassVar[tuple[str, ...]]
    """Fields that only the truth depends on, as numbers in it: programs of data that differ in no other are equal."""

    @property
    def dim(self) -> int: ...
    @property
    def outputs(self) -> int: ...
    @property
    def num_labels(self) -> int: ...

    def truth(self, rng: np.random.Generator) -> Truth:
        """What the seed fixes: arrays that `draw` and `test` read. On the host: done once, and quick to compile."""
        ...

    def draw(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """A training batch."""
        ...

    def test(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """A fixed batch that training does not see."""
        ...
