"""From a design to chunks: runs that go through one compiled program at once.

A chunk has rows: a seed with one data set, whose batches several settings share. Settings, data sets and layers of one
chunk differ in numbers alone, which are given to the program. What a chunk holds, and its shape, follow from the design
alone. The machine decides only how many chunks run at once, so that results do not depend on it. Rows and chunks that
are not full are padded by repeating their last member.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from ..data import Data
from ..machine import batch_bytes, record_bytes, run_bytes
from ..partners import Places
from ..training import Program, Setting, Training, group, objectives_of, shared_program
from .design import Design

Item = TypeVar("Item")

MOST_BYTES = 2**28
"""Bound on a chunk's estimated memory. A constant, not what the machine has: it shapes chunks, and so last bits."""
FEWEST_CHUNKS = 4
"""Of a program with at least as many runs, so that a small sweep, too, is stored as it goes."""
_BLOCK_BYTES = 2**25  # of the batches that are drawn at once
_DRAW = 0.25
"""What drawing a row's batches costs, in runs. Measured roughly; it decides how wide rows are where data sets have
unequal numbers of settings."""


@dataclasses.dataclass(frozen=True)
class Row:
    """Settings of one structure that train on the same batches."""

    seed: int
    points: tuple[int, ...]
    """Numbers of the settings in the design, with its partners."""
    settings: tuple[Setting, ...]
    """The same, padded."""
    partners: tuple[tuple[int, int, int], ...]
    """For each, the numbers of its partners: two frozen ones, which may be the same, and the planted one; -1 for a
    partner, which has none."""

    @property
    def data(self) -> Data:
        """What all of them train on."""
        return self.settings[0].data


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Rows of equal width that one program computes."""

    rows: tuple[Row, ...]
    depth: int
    """Rows with padding."""
    program: Program
    of: "tuple[Design, int] | None" = None
    """Which chunk of which design it is, where a design names what users bring: that is sent to other processes as
    the content of files, never as objects."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(protocol) if self.of is None else (_planned, self.of)

    @property
    def padded(self) -> list[Row]:
        """Rows, the last one repeated."""
        return _pad(self.rows, self.depth)

    @property
    def runs(self) -> int:
        """Without padding."""
        return sum(len(row.points) for row in self.rows)

    @property
    def bytes(self) -> int:
        """Estimated memory."""
        one = self.rows[0].settings[0]
        # At least one step's batches are drawn at once, however large.
        drawn = max(_BLOCK_BYTES, self.depth * batch_bytes(one))
        return self.depth * len(self.rows[0].settings) * (run_bytes(one) + record_bytes(one)) + drawn


def pieces(data: Data, training: Training, rows: int) -> int:
    """Parts of the steps between two records, so that a part's batches fit in memory: a divisor of their number."""
    step, stride = 4 * rows * training.batch * (data.dim + data.outputs + 1), training.stride
    small = [n for n in range(1, math.isqrt(stride) + 1) if stride % n == 0]
    divisors = sorted({*small, *(stride // n for n in small)})
    return next((n for n in divisors if stride // n * step <= _BLOCK_BYTES), stride)


def plan(design: Design) -> list[Chunk]:
    """All chunks of a design, partners counted after the settings. **Raises:** `ValueError` for settings that cannot be
    built."""
    chunks = _plan(design)
    if not design.names_brought():
        return chunks
    return [dataclasses.replace(chunk, of=(design, number)) for number, chunk in enumerate(chunks)]


_plans: dict[str, list[Chunk]] = {}  # in a process that computes: of the design that it computes


def _planned(design: Design, number: int) -> Chunk:
    """A chunk in another process, made anew from the design."""
    key = json.dumps([design.to_json(), design.hashes_brought()])
    if key not in _plans:
        _plans.clear()
        _plans[key] = plan(design)
    return _plans[key][number]


def _plan(design: Design) -> list[Chunk]:
    settings, places = design.every()
    programs: dict[Program, list[int]] = {}
    for point, setting in enumerate(settings):
        bare = dataclasses.replace(shared_program([setting]), terms=())
        programs.setdefault(bare, []).append(point)
    return [
        chunk
        for bare, points in programs.items()
        for members in group([dataclasses.replace(settings[point].arm, name=str(point)) for point in points])
        for chunk in _chunks({int(arm.name): settings[int(arm.name)] for arm in members.arms}, places, design, bare)
    ]


def _chunks(settings: dict[int, Setting], places: Sequence[Places], design: Design, bare: Program) -> Iterator[Chunk]:
    """Chunks of the settings that share a program, given without its terms, all of one shape."""
    by_data: dict[Data, list[int]] = {}
    for point, setting in settings.items():
        by_data.setdefault(setting.data, []).append(point)
    one = next(iter(settings.values()))
    share = math.ceil(len(settings) * len(design.seeds) / FEWEST_CHUNKS)
    most = max(1, min(design.runs_per_chunk, MOST_BYTES // run_bytes(one), share))
    wide = _width([len(points) for points in by_data.values()], most)
    rows = [
        Row(seed, tuple(some), tuple(_pad([settings[point] for point in some], wide)), _partners(some, places))
        for points in by_data.values()
        for some in _split(points, wide)
        for seed in design.seeds
    ]
    deep = _even(len(rows), max(1, most // wide))
    program = dataclasses.replace(bare, terms=objectives_of([setting.arm for setting in settings.values()]))
    for some in _split(rows, deep):
        yield Chunk(tuple(some), deep, program)


def _partners(points: Sequence[int], places: Sequence[Places]) -> tuple[tuple[int, int, int], ...]:
    none = Places((-1, -1), -1)
    found = [places[point] if point < len(places) else none for point in points]
    return tuple((*place.frozen, place.planted) for place in found)


def _width(counts: Sequence[int], most: int) -> int:
    """Settings in a row, for data sets with these numbers of settings: the cheapest, with padding and drawing."""
    widths = sorted({_even(count, limit) for count in set(counts) for limit in range(1, most + 1)}, reverse=True)
    return min(widths, key=lambda wide: sum(math.ceil(count / wide) for count in counts) * (wide + _DRAW))


def _even(count: int, most: int) -> int:
    """The size of the fewest equal parts of at most `most`."""
    return math.ceil(count / math.ceil(count / most))


def _split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _pad(items: Sequence[Item], size: int) -> list[Item]:
    return [*items, *[items[-1]] * (size - len(items))]
