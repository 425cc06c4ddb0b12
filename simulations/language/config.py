"""The static description of a language model: shapes, style, router, objectives, and how tokens reach experts."""

import dataclasses
from typing import Literal

from jaxtyping import Array, Int

from himoe_theory import Partition, Router, _checks

from ..arms import Arm
from ..gates import check_needs
from ..schedules import named, router_at
from ..topology import PLAIN

Style = Literal["nanogpt", "olmoe"]
Dispatch = Literal["sorted", "capacity", "dense"]
Scope = Literal["micro", "global", "sequence", "pooled"]

STYLES: tuple[Style, ...] = ("nanogpt", "olmoe")
DISPATCHES: tuple[Dispatch, ...] = ("sorted", "capacity", "dense")
SCOPES: tuple[Scope, ...] = ("micro", "global", "sequence", "pooled")

# Of these the share h can come from a larger batch; the number is what h sums to (`None`: the routes of a token).
GLOBAL_LOADS = {"load": 1, "load_first_choice": 1, "load_per_token": None}
_LOCAL_LOADS = ("load_selected_weights", "importance_cv_squared", "load_cv_squared")
_LOCAL_LOADS += ("load_top_k", "load_top_k_per_token")  # they count another selection than the dispatched one

# Far beyond any published model, and small enough that a plan can be made: its own tables are in memory.
_LARGEST = {"layers": 2**12, "heads": 2**16, "stride": 2**12}
_LARGEST |= dict.fromkeys(("dim", "context", "vocabulary", "width"), 2**24)


@dataclasses.dataclass(frozen=True)
class Config:
    """A decoder of `layers` blocks; every `stride`-th, from the first, is a mixture of experts (as in [himoe-code]).

    **Raises:** `ValueError` for shapes that do not fit each other, or objectives that a language model cannot have.
    """

    layers: int
    """Number of blocks."""
    heads: int
    """Heads of attention."""
    dim: int
    """d, width of the residual stream."""
    context: int
    """Tokens of the longest sequence."""
    vocabulary: int
    """Number of tokens there are."""
    width: int
    """Hidden width of an expert."""
    arm: Arm = dataclasses.field(hash=False)  # its terms are a dict
    """Router and objectives; one expert in all means plain networks everywhere."""
    stride: int = 2
    """Every so-manieth block, from the first, is a mixture of experts."""
    dense_width: int | None = None
    """Hidden width of the other blocks' networks; `width` if not given."""
    style: Style = "nanogpt"
    """`nanogpt` (learned positions, LayerNorm, exact GELU, tied head) or `olmoe` (RMSNorm, rotary positions, SwiGLU,
    normed queries and keys, a head of its own)."""
    bias: bool = False
    """Biases in linear maps and norms (nanogpt alone)."""
    evaluation: Router | None = dataclasses.field(default=None, hash=False)
    """The router outside training if it differs (capacity, policy)."""
    router_scale: bool = False
    """A learned factor of each expert's weight, initially 1."""
    dispatch: Dispatch = "sorted"
    """How tokens reach experts; the numbers are the same. `capacity` lays them out in the router's slots and so needs
    its capacity, `sorted` and `dense` obey one if there is one."""
    load_scope: Scope = "micro"
    """Whose h the load losses see: the micro-batch's, the whole batch's, each sequence's (the loss is their mean), or
    that of all layers pooled, which makes one loss of theirs (D2; `himoe_theory.objectives.Scope`)."""
    devices: tuple[int, int] = (1, 1)
    """Copies of the model, each with its part of the sequences, times devices that share the groups of experts of a
    copy (`mesh.py`)."""
    intra_warmup: int = 0
    """Steps over which intra-group terms grow linearly from 0."""
    norm_epsilon: float = 1e-5
    """Added under the root of the norms."""
    rotary_base: float = 10_000.0
    """Base of the rotary positions' wavelengths (olmoe alone)."""

    def __post_init__(self):
        for name in ("layers", "heads", "dim", "context", "vocabulary", "width", "stride"):
            _checks.count(name, getattr(self, name), maximum=_LARGEST[name])
        if self.dense_width is not None:
            _checks.count("dense_width", self.dense_width, maximum=_LARGEST["width"])
        _checks.count("intra_warmup", self.intra_warmup, minimum=0)
        _checks.positive("norm_epsilon", self.norm_epsilon)
        for name, known in (("style", STYLES), ("dispatch", DISPATCHES), ("load_scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if self.dim % self.heads:
            raise ValueError(f"`heads` must divide `dim`; got {self.heads} heads, dim {self.dim}.")
        if self.style == "olmoe" and (self.dim // self.heads) % 2:
            raise ValueError(f"rotary positions need an even width a head; got {self.dim // self.heads}.")
        if self.style == "olmoe" and self.bias:
            raise ValueError("`bias` must be false in style olmoe; got True.")
        self._check_arm()
        self._check_devices()

    def _check_arm(self) -> None:
        topology = self.arm.topology
        topology.check(self.experts, self.width)
        for name in ("nested", "rounds", "layers"):
            if getattr(topology, name) != getattr(PLAIN, name):
                got = getattr(topology, name)
                raise ValueError(f"`topology` of a language model must leave `{name}` to the small layer; got {got}.")
        if topology != PLAIN and self.devices != (1, 1):
            raise ValueError(f"`topology` must be plain on several devices; got {topology}.")
        for name in self.arm.schedules:
            if not name.startswith(("terms.", "router.")):
                raise ValueError(f"`schedules` of a language model must be of terms and router; got {name!r}.")
        if self.arm.events:
            raise ValueError(f"`events` must be left to the small layer; got {len(self.arm.events)}.")
        check_needs(self.arm.gate, "a language model", "ids", *(["experts"] if self.devices == (1, 1) else []))
        for router in (self.arm.router, self.evaluation):
            if self.dispatch == "capacity" and router is not None and router.capacity is None and self.experts > 1:
                raise ValueError(f"dispatch 'capacity' needs a router with a capacity; {router.name} has none.")
        if self.evaluation is not None and self.evaluation.partition != self.arm.router.partition:
            raise ValueError("`evaluation` must have the partition of the arm's router.")
        if self.load_scope == "global":
            for name in _LOCAL_LOADS:
                if name in self.arm.terms:
                    raise ValueError(f"`load_scope` global needs a load with h apart; {name} has none. Choose micro.")

    def _check_devices(self) -> None:
        for axis, count in zip(("data", "group"), self.devices, strict=True):
            _checks.count(f"devices ({axis})", count)
        if self.devices == (1, 1):
            return
        partition, cut = self.arm.router.partition, self.devices[1]
        if partition.num_groups % cut or partition != Partition.equal(partition.num_experts, partition.num_groups):
            raise ValueError(
                f"`devices` (group) must divide the number of equal groups, so that none is cut; got {cut} devices "
                f"for {partition.num_groups} groups of {', '.join(map(str, partition.sizes))} experts."
            )
        if self.dispatch != "sorted":
            raise ValueError(f"`dispatch` must be sorted on several devices; got {self.dispatch!r}.")
        if self.wants_outputs:
            raise ValueError("objectives of the experts' outputs need all experts on one device; leave out `devices`.")

    @property
    def experts(self) -> int:
        """N."""
        return self.arm.router.partition.num_experts

    @property
    def routes(self) -> int:
        """Experts a token selects in a mixture-of-experts layer."""
        return self.arm.router.routes

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the blocks that are mixtures of experts: none if there is but one expert."""
        return () if self.experts == 1 else tuple(range(0, self.layers, self.stride))

    @property
    def plain_width(self) -> int:
        """Hidden width of the blocks that are no mixture of experts."""
        return self.width if self.dense_width is None else self.dense_width

    def hidden(self, layer: int) -> int:
        """Hidden width of a block's network or of each of its experts.

        With one expert the blocks that could be mixtures keep `width`: a plain network of as many active parameters.
        """
        return self.width if layer % self.stride == 0 else self.plain_width

    @property
    def wants_outputs(self) -> bool:
        """Whether an objective reads the experts' outputs."""
        return self.arm.needs("outputs")

    def router(self, training: bool, step: Int[Array, ""] | int | None = None) -> Router:
        """The router in training, or outside, with its numbers at a step; without a step those that it has."""
        if not training and self.evaluation is not None:
            return self.evaluation
        return self.arm.router if step is None else router_at(self.arm.router, named(self.arm.schedules), step)


def scaled_by_default(arm: Arm) -> bool:
    """Whether the released code gives the arm's router a learned scale: grouped routers have one, flat ones not."""
    return arm.router.selection.quotas(arm.router.partition) is not None
