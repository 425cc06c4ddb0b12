"""Decoder-only language models with mixture-of-experts blocks, built from the routers and objectives of
`himoe_theory`."""

from .config import Config as Config
from .model import Aux as Aux
from .model import Model as Model
from .sizes import SIZES as SIZES
from .sizes import model as model

__all__ = [
    "SIZES",
    "Aux",
    "Config",
    "Model",
    "model",
]
