"""Selection from the whole batch at once: what one token gets depends on the others, later ones included.

Tokens get unequal numbers of experts. Ties go to the token, then to the expert, of lower number. Masked tokens are
passed over, and the number of places is that of the real tokens.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from ..partition import Partition
from ..scores import Keys
from .base import Choice, Selection
from .ranking import rank

_Keys = tuple[Float[Array, "tokens experts"], ...]


def expert_choice(scores: Float[Array, "tokens experts"], places: int) -> Bool[Array, "tokens experts"]:
    r"""Every expert takes its `places` tokens of largest score, $C = cT/N$ of them for c experts a token on average.

    Each column has exactly C flags: loads are equal. A row may have none, and a later token can take the place of an
    earlier one. **Arguments:** `scores`: any finite ranking keys. `places`: C, in 1..T. **Returns:** true where the
    expert takes the token. **Raises:** `ValueError` if C exceeds the number of tokens. **Source:** [expert-choice].
    """
    scores = _checks.matrix("scores", scores)
    _checks.count("places", places, maximum=scores.shape[0], of="the number of tokens")
    return _by_expert((scores,), places)


def global_top(scores: Float[Array, "tokens experts"], places: int) -> Bool[Array, "tokens experts"]:
    r"""The `places` largest cells of the whole matrix, $T k$ of them for k experts a token on average.

    Neither rows nor columns have a fixed number of flags. **Arguments:** `scores`: any finite ranking keys, comparable
    between tokens. `places`: in 1..TN. **Returns:** true where the token goes to the expert. **Raises:** `ValueError`
    if `places` exceeds the number of cells. **Source:** [usmoe].
    """
    scores = _checks.matrix("scores", scores)
    _checks.count("places", places, maximum=scores.size, of="the number of cells")
    return _of_all((scores,), places)


def _by_expert(keys: _Keys, places: int | Int[Array, ""]) -> Bool[Array, "tokens experts"]:
    return rank(tuple(key.T for key in keys)).T < places


def _of_all(keys: _Keys, places: int | Int[Array, ""]) -> Bool[Array, "tokens experts"]:
    shape = keys[0].shape
    return rank(tuple(key.reshape(-1) for key in keys)).reshape(shape) < places


def _capped(keys: _Keys, most: int | None) -> Bool[Array, "tokens experts"]:
    """The best `most` experts of every token: only these cells compete."""
    return jnp.ones(keys[0].shape, bool) if most is None else rank(keys) < most


def _places(tokens: int, per_token: float, mask: Bool[Array, " tokens"] | None, share: int) -> int | Int[Array, ""]:
    """floor(real tokens · `per_token` / `share`), at least 1: looked up, since only Python's arithmetic is exact."""
    table = [max(1, math.floor(t * per_token / share)) for t in range(tokens + 1)]
    return table[-1] if mask is None else jnp.asarray(np.asarray(table, np.int32))[mask.sum(dtype=jnp.int32)]


def _shown(keys: Keys, mask: Bool[Array, " tokens"] | None, cap: int | None) -> _Keys:
    """Values and ties, -inf where a cell does not compete."""
    shown = keys if mask is None else keys.limited(mask[:, None])
    shown = shown.limited(_capped(shown.ranks, cap))
    return shown.values, shown.ties


@dataclasses.dataclass(frozen=True)
class ExpertChoice(Selection):
    r"""Every expert takes its $C = \max(1, \lfloor cT/N \rfloor)$ tokens of largest value; see `expert_choice`.

    **Arguments:** `per_token`: c, experts a token on average, in (0, N]. `most`: cap on a token's experts, of its best
    ones (default: N). **Source:** [expert-choice].
    """

    per_token: float
    """c, experts a token on average, in (0, N]."""
    most: int | None = None
    """Most experts of a token, its best; all if not given."""

    def __post_init__(self):
        _checks.positive("per_token", self.per_token)

    def check(self, partition: Partition) -> None:
        """`ValueError` if `per_token` or `most` exceeds the number of experts."""
        _checks.coefficient("per_token", self.per_token, maximum=float(partition.num_experts))
        if self.most is not None:
            _checks.count("most", self.most, maximum=partition.num_experts, of="the number of experts")

    def average(self, partition: Partition) -> float | None:
        """c, up to rounding; unknown with a cap."""
        return float(self.per_token) if self.most is None else None

    @property
    def couples_tokens(self) -> bool:
        """True: a later token can take the place of an earlier one."""
        return True

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """No ranked view."""
        places = _places(len(keys.values), self.per_token, mask, partition.num_experts)
        shown = _shown(keys, mask, self.most)
        return Choice(_by_expert(shown, places) & (shown[0] != -jnp.inf))


@dataclasses.dataclass(frozen=True)
class GlobalTop(Selection):
    r"""The $\lfloor kT \rfloor$ largest values of the whole matrix; see `global_top`.

    **Arguments:** `per_token`: k, experts a token on average, in (0, N]. `most`: as in `ExpertChoice`.
    **Source:** [usmoe].
    """

    per_token: float
    """k, experts a token on average, in (0, N]."""
    most: int | None = None
    """Most experts of a token, its best; all if not given."""

    def __post_init__(self):
        _checks.positive("per_token", self.per_token)

    def check(self, partition: Partition) -> None:
        """`ValueError` if `per_token` or `most` exceeds the number of experts."""
        ExpertChoice(self.per_token, self.most).check(partition)

    def average(self, partition: Partition) -> float | None:
        """k, up to rounding; less with a cap below it."""
        return float(self.per_token) if self.most is None else None

    @property
    def couples_tokens(self) -> bool:
        """True."""
        return True

    def choose(self, keys: Keys, partition: Partition, mask: Bool[Array, " tokens"] | None) -> Choice:
        """No ranked view."""
        places = _places(len(keys.values), self.per_token, mask, 1)
        shown = _shown(keys, mask, self.most)
        return Choice(_of_all(shown, places) & (shown[0] != -jnp.inf))
