"""Data with labels to score specialisation by: planted clusters, and real digits."""

from .base import Batch as Batch
from .base import Data as Data
from .base import Truth as Truth
from .clusters import Clusters as Clusters
from .digits import Digits as Digits
