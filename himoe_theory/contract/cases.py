"""The cases on which a contract is tried: batches of draws, hostile ones, and how one is written down."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from ..partition import Partition

TOKENS, EXPERTS, ROUTES, DIM = 8, 8, 2, 5
"""Sizes of a case. Eight tokens share eight experts evenly, and split into equal halves."""
PARTITION = Partition((0, 1, 0, 2, 1, 0, 3, 3))
"""Groups of 3, 2, 1 and 2 experts, interleaved: what holds for equal ones alone is seen."""
SPREADS = (0.3, 1.0, 3.0)
"""Standard deviations of drawn logits: near uniform routing, as at the start of training, and sharp."""
HUGE = 1e4


class Cases(NamedTuple):
    """A stack of cases, arrays of NumPy or JAX: all that an objective may ask for.

    **Fields:** `logits`: `[cases, tokens, experts]`, and `above`, those of the layer above. `outputs`: `[cases, tokens,
    routes, dim]`. `x`: `[cases, tokens, dim]`. `costs`: `[cases, experts]`. Inside a program, without the first axis.
    """

    logits: Any
    outputs: Any
    x: Any
    above: Any
    costs: Any

    @property
    def number(self) -> int:
        """How many."""
        return len(self.logits)

    def take(self, index: Sequence[int] | slice | Int[np.ndarray, " some"]) -> "Cases":
        """Some of them."""
        return Cases(*(part[index] for part in self))

    def tokens(self, index: Sequence[int] | Int[np.ndarray, " tokens"]) -> "Cases":
        """Some tokens of each, in this order."""
        whole = {name: part[:, index] for name, part in self._asdict().items() if name != "costs"}
        return self._replace(**whole)

    def renamed(self, order: Int[np.ndarray, " experts"]) -> "Cases":
        """New expert i is old expert `order[i]`."""
        own = {name: getattr(self, name)[..., order] for name in ("logits", "above", "costs")}
        return self._replace(**own)


def float64() -> contextlib.AbstractContextManager[None]:
    """float64 inside, and as before outside."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax import experimental

    return experimental.enable_x64(True)  # pyright: ignore[reportAttributeAccessIssue]  # JAX below 0.8


def drawn(rng: np.random.Generator, spreads: Sequence[float], *, experts: int = EXPERTS, tokens: int = TOKENS) -> Cases:
    """One case a spread of the logits; no two entries of a row are equal."""
    scale = np.asarray(spreads, float)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((scale.size, *shape)) * scale.reshape(-1, *[1] * len(shape))

    return Cases(
        normal(tokens, experts),
        normal(tokens, ROUTES, DIM),
        normal(tokens, DIM),
        normal(tokens, experts),
        1 + rng.random((scale.size, experts)),
    )


def stacked(*some: Cases) -> Cases:
    """All of them as one stack."""
    return Cases(*(np.concatenate(parts) for parts in zip(*some, strict=True)))


def hostile(rng: np.random.Generator, count: int, *, experts: int = EXPERTS, tokens: int = TOKENS) -> Cases:
    """Entries of -1e4, 0 and 1e4, in logits and outputs; the first three are all 1e4, all -1e4, and one far ahead."""
    cases = drawn(rng, [1.0] * count, experts=experts, tokens=tokens)
    logits = rng.choice([-HUGE, 0.0, HUGE], size=cases.logits.shape)
    outputs = rng.choice([-HUGE, 0.0, HUGE], size=cases.outputs.shape)
    logits[0], logits[1], logits[2] = HUGE, -HUGE, -HUGE
    logits[2, :, 0] = HUGE
    outputs[0], outputs[1] = HUGE, -HUGE
    return cases._replace(logits=logits, outputs=outputs)


def balanced(rng: np.random.Generator) -> Cases:
    """Exactly equal logits: 0, 1 and -3; outputs that are 0, all equal, and all opposite."""
    cases = drawn(rng, [1.0] * 3)
    logits, outputs = np.zeros_like(cases.logits), np.zeros_like(cases.outputs)
    logits[1], logits[2] = 1.0, -3.0
    outputs[1], outputs[2] = 1.0, [[1.0] * DIM, [-1.0] * DIM]
    return cases._replace(logits=logits, outputs=outputs)


def renaming(partition: Partition, quotas: tuple[int, ...] | None = None) -> Int[np.ndarray, " experts"]:
    """A renaming of experts that maps groups to groups: turned inside groups, and groups of equal size (and quota)
    exchanged. New expert i is old expert `order[i]`; the partition stays as it is."""
    order = np.arange(partition.num_experts)
    kinds = [(size, None if quotas is None else quotas[g]) for g, size in enumerate(partition.sizes)]
    for kind in set(kinds):
        alike = [g for g, each in enumerate(kinds) if each == kind]
        for group, source in zip(alike, alike[1:] + alike[:1], strict=True):
            order[partition.members(group)] = np.roll(partition.members(source), 1)
    return order


def written(name: str, table: Float[np.ndarray, "tokens *rest"]) -> str:
    """A case in one line: rows that differ, and how often each is there in a row."""
    runs: list[tuple[np.ndarray, int]] = []
    for row in table:
        if runs and np.array_equal(runs[-1][0], row, equal_nan=True):
            runs[-1] = (row, runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    return f"{name} " + ", ".join(f"{_row(row)}{f' x {count}' if count > 1 else ''}" for row, count in runs)


def _row(row: Float[np.ndarray, "..."]) -> str:
    if row.ndim > 1:
        return "[" + ", ".join(_row(each) for each in row) + "]"
    return "(" + ", ".join(f"{entry + 0.0:.6g}" for entry in row) + ")"
