"""Data with labels to score specialisation by: planted clusters, patches, single-index clusters and streams, and real
digits; text and token files for language models."""

from collections.abc import Mapping

from .base import DATA as DATA
from .base import Batch as Batch
from .base import Data as Data
from .base import Truth as Truth
from .clusters import Clusters as Clusters
from .corpus import Corpus as Corpus
from .corpus import Windows as Windows
from .digits import Digits as Digits
from .patches import Parts as Parts
from .patches import Patches as Patches
from .patches import chen_settings as chen_settings
from .single_index import SingleIndex as SingleIndex
from .streams import Streams as Streams
from .text import library_text as library_text
from .tokens import token_files as token_files

KINDS: Mapping[str, type[Clusters | Digits | Patches | SingleIndex]] = {
    "clusters": Clusters,
    "digits": Digits,
    "patches": Patches,
    "single-index": SingleIndex,
    "streams": Streams,
}
"""Data for the small layer, by the names that commands and sweeps know."""

__all__ = [
    "DATA",
    "KINDS",
    "Batch",
    "Clusters",
    "Corpus",
    "Data",
    "Digits",
    "Parts",
    "Patches",
    "SingleIndex",
    "Streams",
    "Truth",
    "Windows",
    "chen_settings",
    "library_text",
    "token_files",
]
