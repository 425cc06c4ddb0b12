"""Measurements that theory is laid over: each trains or integrates something small, and returns what was predicted
beside what was measured.

The functions compute in the default floating type; near a fixed point they want float64.
"""

from .batches import batch_load as batch_load
from .batches import violation as violation
from .batches import window as window
from .boundary import common_mode as common_mode
from .boundary import fall as fall
from .boundary import group_ratio as group_ratio
from .boundary import hard_edge as hard_edge
from .boundary import trained as trained
from .compatibility import DUPLICATES as DUPLICATES
from .compatibility import along_training as along_training
from .compatibility import cosines as cosines
from .counts import hard_counts as hard_counts
from .groups import effective_groups as effective_groups
from .growth import modes as modes
from .growth import specialisation as specialisation
from .onset import measured_onset as measured_onset
from .phases import PHASES as PHASES
from .phases import phases as phases
from .reinforcement import hysteresis as hysteresis
from .reinforcement import oscillation as oscillation
from .reinforcement import staircase as staircase
from .sliding import sliding as sliding

__all__ = [
    "DUPLICATES",
    "PHASES",
    "along_training",
    "batch_load",
    "common_mode",
    "cosines",
    "effective_groups",
    "fall",
    "group_ratio",
    "hard_counts",
    "hard_edge",
    "hysteresis",
    "measured_onset",
    "modes",
    "oscillation",
    "phases",
    "sliding",
    "specialisation",
    "staircase",
    "trained",
    "violation",
    "window",
]
