"""Gates that can be trained: parameters of their own around the functions of `himoe_theory.gates`."""

from collections.abc import Mapping

from .base import GATE as GATE
from .base import Draw as Draw
from .base import Gate as Gate
from .base import Seen as Seen
from .base import check_needs as check_needs
from .base import drawing as drawing
from .levels import Pairs as Pairs
from .levels import Recurrent as Recurrent
from .levels import TwoLevel as TwoLevel
from .plain import ExpertNorm as ExpertNorm
from .plain import Linear as Linear
from .plain import Planted as Planted
from .plain import Table as Table
from .space import Codebook as Codebook
from .space import Cosine as Cosine
from .space import Gaussians as Gaussians
from .space import Laplace as Laplace
from .space import SmoothBits as SmoothBits
from .wrappers import Frozen as Frozen
from .wrappers import Jittered as Jittered
from .wrappers import Shared as Shared

GATES: Mapping[str, type[Gate]] = {
    "learned": Linear,
    "frozen": Frozen,
    "planted": Planted,
    "jittered": Jittered,
    "shared": Shared,
    "cosine": Cosine,
    "laplace": Laplace,
    "two-level": TwoLevel,
    "pairs": Pairs,
    "gaussians": Gaussians,
    "codebook": Codebook,
    "table": Table,
    "recurrent": Recurrent,
    "expert-norm": ExpertNorm,
    "smooth-bits": SmoothBits,
}
"""By name; those around another gate are around the linear one, unless that is given."""
_OURS = frozenset(GATES.values())


def checked(gate: Gate | str) -> Gate:
    """A gate, from itself or its name. **Raises:** `ValueError` for anything else."""
    if isinstance(gate, str) and gate in GATES:
        return GATES[gate]()
    if type(gate) not in _OURS and not GATE.holds(gate):  # asking a protocol is slow, and sweeps ask by the thousand
        raise ValueError(f"`gate` must be a gate, such as Cosine(), or one of {', '.join(GATES)}; got {gate!r}.")
    return gate  # pyright: ignore


_PLAIN = ("learned", "frozen", "planted")


def name_of(gate: Gate) -> str | None:
    """The name of a gate without numbers of its own; `None` if it has some."""
    return next((name for name in _PLAIN if gate == GATES[name]()), None)


__all__ = [
    "GATE",
    "GATES",
    "Codebook",
    "Cosine",
    "Draw",
    "ExpertNorm",
    "Frozen",
    "Gate",
    "Gaussians",
    "Jittered",
    "Laplace",
    "Linear",
    "Pairs",
    "Planted",
    "Recurrent",
    "Seen",
    "Shared",
    "SmoothBits",
    "Table",
    "TwoLevel",
    "check_needs",
    "checked",
    "drawing",
    "name_of",
]
