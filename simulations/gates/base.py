"""What a layer asks of a gate: parameters of its own, and logits from whatever the layer shows it."""

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from himoe_theory.plumbing.bring import Kind

Tree = Any
"""Arrays by name, nested as the gate likes; or one array."""


class Seen(NamedTuple):
    """What a gate sees of T tokens. `None` is what the layer does not have.

    `num_experts`: N. `ids`: of the tokens, in text. `labels`: planted. `memory`: what the gate of the layer before has
    left for this one, of the same tokens; `None` at the first. `key`: for noise; `None` outside training. `experts`:
    the first map of every expert. `shared`: the parameters that the gates of all layers have in common.
    """

    x: Float[Array, "tokens dim"]
    num_experts: int
    ids: Int[Array, " tokens"] | None = None
    labels: Int[Array, " tokens"] | None = None
    memory: Tree = None
    key: PRNGKeyArray | None = None
    experts: Float[Array, "experts dim width"] | None = None
    shared: Tree = None


Draw = Callable[..., Any]
"""Initial values: `draw(n, d)` are normal numbers in that shape, of the standard deviation that the layer gives its
gates, float32."""


@runtime_checkable
class Gate(Protocol):
    """A gate. Frozen and hashable: static under `jit`. A gate of your own subclasses it and writes `init` and `logits`:

    @dataclasses.dataclass(frozen=True)
    class Halves(Gate):  # one matrix for positive entries, one for negative ones
        def init(self, draw, num_experts, dim):
            return {"up": draw(num_experts, dim), "down": draw(num_experts, dim)}

        def logits(self, parameters, seen):
            up, down = jnp.maximum(seen.x, 0), jnp.minimum(seen.x, 0)
            return up @ parameters["up"].T + down @ parameters["down"].T, seen.memory
    """

    def init(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Initial parameters of one layer's gate. They are its own: whatever it draws, experts start the same."""
        ...

    def logits(self, parameters: Tree, seen: Seen) -> tuple[Float[Array, "tokens experts"], Tree]:
        """s, and the memory that the next layer's gate sees; a gate without one passes on what it got."""
        ...

    def shared(self, draw: Draw, num_experts: int, dim: int) -> Tree:
        """Initial parameters that the gates of all layers have in common; `None` for none."""
        return None

    @property
    def learns(self) -> bool:
        """Whether its parameters are trained."""
        return True

    @property
    def is_linear(self) -> bool:
        """Whether its parameters are one array W, experts × dim, and its logits x W^T."""
        return False

    @property
    def needs(self) -> frozenset[str]:
        """Fields of `Seen` without which it has no logits."""
        return frozenset()

    @property
    def is_random(self) -> bool:
        """Whether it needs a key in training."""
        return False


GATE = Kind(
    "gate", "a frozen Gate", "himoe.gates", lambda thing: isinstance(thing, Gate) and isinstance(thing, Hashable)
)
"""What a user may bring: a gate, or a class, whose fields are then set as those of ours are."""


def drawing(rng: np.random.Generator, std: float, size: int, dtype: type = np.float64) -> Draw:
    """Draws of a gate: `size` numbers of the generator, however many are used, then those of a child of it.

    What is drawn of the generator later is the same for all gates.
    """
    held, more = rng.standard_normal(size, dtype=dtype), rng.spawn(1)[0]

    def draw(*shape: int) -> Float[np.ndarray, "..."]:
        nonlocal held
        count = math.prod(shape)
        if count <= held.size:
            taken, held = held[:count], held[count:]
        else:
            taken = more.standard_normal(count, dtype=dtype)
        return np.asarray(std * taken.reshape(shape), np.float32)

    return draw


def full(draw: Draw, value: float, *shape: int) -> Any:
    """The same value everywhere, what is drawn does not count."""
    return np.full_like(draw(*shape), value)


def check_needs(gate: Gate, where: str, *given: str) -> None:
    """**Raises:** `ValueError` if the gate needs what is not given there."""
    lacking = sorted(gate.needs - set(given))
    if lacking:
        raise ValueError(f"`gate` must do without {', '.join(lacking)} in {where}; got {gate}. Choose another gate.")
