"""Everything that trains: data with planted labels, arms, a small layer, the training scan, regimes and results on
disk."""

try:
    from himoe_theory.plumbing.shadow import check as _check

    _check("himoe_theory")
except ModuleNotFoundError:  # another folder of that name comes first
    raise SystemExit("a folder hides the package himoe_theory where this was started: start from another.") from None

from .arms import Arm as Arm
from .arms import arms as arms
from .arms import choose as choose
from .data import Batch as Batch
from .data import Clusters as Clusters
from .data import Data as Data
from .data import Digits as Digits
from .experts import EXPERTS as EXPERTS
from .experts import Cubic as Cubic
from .experts import Expert as Expert
from .experts import Linear as Linear
from .experts import TwoLayer as TwoLayer
from .layer import Layer as Layer
from .provenance import configuration as configuration
from .provenance import source_hash as source_hash
from .provenance import versions as versions
from .record import DESCRIPTIONS as DESCRIPTIONS
from .regimes import NAMES as NAMES
from .regimes import Balance as Balance
from .regimes import Name as Name
from .regimes import Regime as Regime
from .regimes import Thresholds as Thresholds
from .run import Interval as Interval
from .run import interval as interval
from .run import name_of as name_of
from .run import simulate as simulate
from .store import read_result as read_result
from .store import save as save
from .training import Training as Training

__all__ = [
    "DESCRIPTIONS",
    "EXPERTS",
    "NAMES",
    "Arm",
    "Balance",
    "Batch",
    "Clusters",
    "Cubic",
    "Data",
    "Digits",
    "Expert",
    "Interval",
    "Layer",
    "Linear",
    "Name",
    "Regime",
    "Thresholds",
    "Training",
    "TwoLayer",
    "arms",
    "choose",
    "configuration",
    "interval",
    "name_of",
    "read_result",
    "save",
    "simulate",
    "source_hash",
    "versions",
]
