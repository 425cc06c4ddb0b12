"""A corpus: a training and a validation sequence of token numbers, each token tagged with its domain.

Batches are windows at random places, a function of seed and step alone: a run that is resumed reads what it would have
read, and every arm reads the same.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int, UInt

from himoe_theory import _checks

Unit = Literal["byte", "token"]
"""What one prediction is of: losses are in nats per this."""

_BATCHES = 1
"""Stream of random numbers that no other purpose uses with the same seed."""


class Windows(NamedTuple):
    """Sequences, and what follows each of their tokens."""

    tokens: Int[np.ndarray, "sequences context"]
    targets: Int[np.ndarray, "sequences context"]
    domains: Int[np.ndarray, "sequences context"]
    """Of the tokens."""
    target_domains: Int[np.ndarray, "sequences context"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A sequence of tokens, in memory or mapped from a file."""

    tokens: UInt[np.ndarray, " tokens"]
    domains: UInt[np.ndarray, " tokens"] | None = None
    """Number of each token's domain; `None` if there is one."""

    def windows(self, starts: Int[np.ndarray, " sequences"], context: int) -> Windows:
        """The windows of `context` tokens that begin at `starts`."""
        places = starts[:, None] + np.arange(context + 1)
        tokens = self.tokens[places].astype(np.int32)
        domains = np.zeros_like(tokens) if self.domains is None else self.domains[places].astype(np.int32)
        return Windows(tokens[:, :-1], tokens[:, 1:], domains[:, :-1], domains[:, 1:])


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Two parts that share no file. `manifest` says, in JSON values, what they were made from."""

    train: Part
    validation: Part
    vocabulary: int
    unit: Unit
    domains: tuple[str, ...]
    manifest: Mapping[str, Any]

    def check(self, context: int) -> None:
        """`ValueError` if a part is shorter than a window."""
        _checks.count("context", context)
        for name in ("train", "validation"):
            found = len(getattr(self, name).tokens)
            if found < context + 1:
                raise ValueError(
                    f"`{name}` must have at least {context + 1} tokens, one more than the context; got {found}."
                )

    def batch(self, seed: int, step: int, sequences: int, context: int) -> Windows:
        """What step number `step` trains on. **Raises:** `ValueError` for a token outside of the vocabulary."""
        places = np.random.default_rng((seed, _BATCHES, step))
        starts = places.integers(0, len(self.train.tokens) - context, size=sequences)
        return self._known(self.train.windows(starts, context))

    def held_out(self, sequences: int, context: int) -> Windows:
        """Validation windows that do not overlap, evenly spaced; fewer if there are not so many."""
        places = (len(self.validation.tokens) - 1) // context
        chosen = np.arange(min(sequences, places)) * places // min(sequences, places)
        return self._known(self.validation.windows(chosen * context, context))

    def _known(self, windows: Windows) -> Windows:
        largest = max(int(windows.tokens.max()), int(windows.targets.max()))
        if largest >= self.vocabulary:
            raise ValueError(f"tokens must be below the vocabulary's size, {self.vocabulary}; got {largest}.")
        return windows
