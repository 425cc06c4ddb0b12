"""Topologies: what stands around the routed experts of an arm, and how often a token passes them."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from himoe_theory import Partition, Router, _checks


@dataclasses.dataclass(frozen=True)
class Topology:
    """The default is the plain mixture: the routed experts alone, all of one width, passed once."""

    shared: int = 0
    """Experts that every token passes, with weight 1, whatever the router does."""
    adjugates: int = 0
    """Hidden units of an expert that each group has besides its routed ones, weighted by the sum of their weights."""
    widths: tuple[int, ...] = ()
    """Hidden units of each routed expert, at most those of the layer's; all of them if not given."""
    nested: bool = False
    """Whether routed experts are the first units, as many as `widths` says, of one expert."""
    rounds: int = 1
    """How often a token passes the layer, each time by a gate of its own and with what came out added to it."""
    layers: int = 1
    """Mixtures above each other, each with experts of its own, in a residual stream; the last gives the outputs."""

    def __post_init__(self):
        for name in ("shared", "adjugates"):
            _checks.count(name, getattr(self, name), minimum=0)
        for name in ("rounds", "layers"):
            _checks.count(name, getattr(self, name))
        for width in self.widths:
            _checks.count("widths", width)
        if self.nested and not self.widths:
            raise ValueError("`nested` must come with `widths`, the units of each expert; got none.")

    @property
    def depth(self) -> int:
        """Mixtures that a token passes."""
        return self.rounds * self.layers

    @property
    def costs(self) -> Float[Array, " experts"] | None:
        """Hidden units of each routed expert, what objectives of costs read; `None` where all are alike."""
        return jnp.asarray(self.widths, jnp.float32) if self.widths else None

    def check(self, num_experts: int, width: int | None) -> None:
        """`ValueError` unless it fits so many experts of so many hidden units (`None`: without)."""
        if width is None and (self.widths or self.adjugates):
            raise ValueError("`widths` and `adjugates` must have experts with hidden units, such as TwoLayer.")
        if self.widths and len(self.widths) != num_experts:
            number = len(self.widths)
            raise ValueError(f"`widths` must be one number an expert; got {number} for {num_experts} experts.")
        if width is not None and self.widths and max(self.widths) > width:
            raise ValueError(f"`widths` must be at most the layer's, {width}; got {max(self.widths)}.")


PLAIN = Topology()


def finer(router: Router, times: int) -> Router:
    """The router for experts that are cut into so many parts each: N times the experts, K times as many selected.

    With experts of a width divided by the same number arithmetic and parameters stay as they are; a group's parts stay
    in the group. **Raises:** `ValueError` for a selection that counts no experts. **Source:** DeepSeekMoE, 2401.06066.
    """
    _checks.count("times", times)
    partition = Partition(tuple(group for group in router.partition.group_of for _ in range(times)))
    counts = {f.name: getattr(router.selection, f.name) for f in dataclasses.fields(router.selection)}  # pyright: ignore
    given = {name: counts[name] for name in ("k", "per_group") if name in counts}
    if not given:
        raise ValueError(f"`router` must select a number of experts; got {router.selection}.")
    grown = {n: times * v if isinstance(v, int) else tuple(times * one for one in v) for n, v in given.items()}
    selection = dataclasses.replace(router.selection, **grown)  # pyright: ignore
    return dataclasses.replace(router, partition=partition, selection=selection, nulls=times * router.nulls)
