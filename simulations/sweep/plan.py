"""From a design to chunks: runs that go through one compiled program at once.

What a chunk holds, and its shape, follow from the design alone. The machine decides only how many chunks run at once,
so that results do not depend on it. Chunks that are not full are padded by repeating their last run.
"""

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeVar

from ..arms import Arm
from ..data import Clusters, Data
from ..layer import Layer
from ..training import Group, Training, group
from .design import Design
from .fields import Setting

Item = TypeVar("Item")

MOST_BYTES = 2**28
"""Bound on a chunk's estimated memory. A constant, not what the machine has: it shapes chunks, and so last bits."""
_BLOCK_BYTES = 2**25  # of the batches that are drawn at once
_ARRAYS = 16  # a run's arrays of tokens × experts that live at the same time, about

# Numbers of the data that no program depends on: they shape the truth, which is data to the program.
_IN_TRUTH = ("radius", "noise", "mean", "shared", "overlap", "anisotropy")


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Settings of one structure and one data configuration, times seeds."""

    points: tuple[int, ...]
    """Numbers of the settings in the design."""
    seeds: tuple[int, ...]
    members: Group
    """Their arms, padded."""
    padded_seeds: tuple[int, ...]
    data: Data
    layer: Layer
    training: Training

    @property
    def runs(self) -> int:
        """Without padding."""
        return len(self.points) * len(self.seeds)

    @property
    def bytes(self) -> int:
        """Estimated memory."""
        runs = len(self.members.arms) * len(self.padded_seeds)
        experts = self.members.arms[0].router.partition.num_experts
        return runs * run_bytes(self.data, self.training, experts) + _BLOCK_BYTES


def neutral(data: Data) -> Data:
    """Equal for data that one compiled program serves."""
    if not isinstance(data, Clusters):
        return data
    default = Clusters(clusters=1, dim=2)
    return dataclasses.replace(data, **{name: getattr(default, name) for name in _IN_TRUTH})


def pieces(data: Data, training: Training, seeds: int) -> int:
    """Parts of the steps between two records, so that a part's batches fit in memory: a divisor of their number."""
    step = 4 * seeds * training.batch * (data.dim + data.outputs + 1)
    fitting = (n for n in range(1, training.stride) if training.stride % n == 0)
    return next((n for n in fitting if training.stride // n * step <= _BLOCK_BYTES), training.stride)


def run_bytes(data: Data, training: Training, experts: int) -> int:
    """Memory that one run takes, estimated: arrays of tokens × experts."""
    return 4 * _ARRAYS * max(training.batch, training.test_tokens) * experts * max(1, data.outputs)


def plan(design: Design) -> list[Chunk]:
    """All chunks of a design. **Raises:** `ValueError` for settings that cannot be built."""
    programs: dict[Hashable, dict[int, Setting]] = {}
    for point, setting in enumerate(design.settings()):
        key = (neutral(setting.data), setting.layer, setting.training)
        programs.setdefault(key, {})[point] = setting
    return [
        chunk
        for settings in programs.values()
        for members in group([_named(setting.arm, point) for point, setting in settings.items()])
        for chunk in _chunks(members, settings, design)
    ]


def _named(arm: Arm, point: int) -> Arm:
    return dataclasses.replace(arm, name=str(point))


def _chunks(members: Group, settings: dict[int, Setting], design: Design) -> Iterator[Chunk]:
    """Chunks of the arms that share a program, all of one shape: full in settings first, as they share batches."""
    by_data: dict[Data, list[Arm]] = {}
    for arm in members.arms:
        by_data.setdefault(settings[int(arm.name)].data, []).append(arm)
    one = settings[int(members.arms[0].name)]
    experts = members.arms[0].router.partition.num_experts
    most = max(1, min(design.runs_per_chunk, MOST_BYTES // run_bytes(one.data, one.training, experts)))
    wide = _even(max(map(len, by_data.values())), most)
    deep = _even(len(design.seeds), most // wide)
    for data, arms in by_data.items():
        for some, seeds in itertools.product(_split(arms, wide), _split(design.seeds, deep)):
            padded = [_named(arm, place) for place, arm in enumerate(_pad(some, wide))]
            yield Chunk(
                tuple(int(arm.name) for arm in some),
                tuple(seeds),
                dataclasses.replace(members, arms=tuple(padded)),
                tuple(_pad(seeds, deep)),
                data,
                one.layer,
                one.training,
            )


def _even(count: int, most: int) -> int:
    """The size of the fewest equal parts of at most `most`."""
    return math.ceil(count / math.ceil(count / most))


def _split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _pad(items: Sequence[Item], size: int) -> list[Item]:
    return [*items, *[items[-1]] * (size - len(items))]
