"""What every data set offers: a planted truth drawn once a seed, fresh batches, and a test set."""

from collections.abc import Hashable
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from himoe_theory.plumbing.bring import Kind

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
    """A data set; subclass it and write what it asks for. Frozen and hashable: static under `jit`.

    @dataclasses.dataclass(frozen=True)
    class Signs(Data):
        task, dim, outputs, num_labels = "regression", 4, 1, 2
        def truth(self, rng):
            return {"map": rng.standard_normal((4, 1)).astype("float32")}
        def draw(self, truth, key, tokens):
            x = jax.random.normal(key, (tokens, 4), "float32")
            labels = (x[:, 0] > 0).astype("int32")
            return Batch(x, jnp.where(labels[:, None] > 0, 1, -1) * (x @ truth["map"]), labels)
        def test(self, truth, key, tokens):
            return self.draw(truth, key, tokens)
    """

    task: Task
    in_truth: ClassVar[tuple[str, ...]] = ()
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


DATA = Kind(
    "data.kind",
    "a frozen Data",
    "himoe.data",
    # Programs are keyed by it: a dataclass that is not frozen has no hash.
    lambda thing: isinstance(thing, Data) and isinstance(thing, Hashable),
)
"""What a user may bring: data, or a class, whose fields are then set as those of ours are."""
