"""Gates: how logits come from tokens, ids, a memory or the experts themselves; pure functions of arrays.

A linear gate is $s = x W^T$ and needs no function; those on the sphere and by distance stand in `himoe_theory.scores`.
"""

from .codes import code_logits as code_logits
from .codes import quantisation as quantisation
from .jitter import jittered as jittered
from .levels import pair_logits as pair_logits
from .levels import two_level_logits as two_level_logits
from .mixtures import mixture_log_likelihood as mixture_log_likelihood
from .mixtures import mixture_logits as mixture_logits
from .norms import norm_logits as norm_logits
from .recurrent import Cell as Cell
from .recurrent import recur as recur
from .smooth import bit_logits as bit_logits
from .smooth import smooth_step as smooth_step
from .tables import hashed as hashed
from .tables import table_logits as table_logits

__all__ = [
    "Cell",
    "bit_logits",
    "code_logits",
    "hashed",
    "jittered",
    "mixture_log_likelihood",
    "mixture_logits",
    "norm_logits",
    "pair_logits",
    "quantisation",
    "recur",
    "smooth_step",
    "table_logits",
    "two_level_logits",
]
