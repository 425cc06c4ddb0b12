"""Selection rules, the policies that thin a selection, and capacity."""

from .capacity import Capacity as Capacity
from .capacity import assign_slots as assign_slots
from .noise import uniform_noise_top1 as uniform_noise_top1
from .policies import KeepAbove as KeepAbove
from .policies import KeepAll as KeepAll
from .policies import KeepFirst as KeepFirst
from .policies import KeepRandomly as KeepRandomly
from .policies import Policy as Policy
from .pool import expert_choice as expert_choice
from .pool import global_top as global_top
from .top_k import Everything as Everything
from .top_k import GroupedTopK as GroupedTopK
from .top_k import Selection as Selection
from .top_k import TopK as TopK

__all__ = [
    "Capacity",
    "Everything",
    "GroupedTopK",
    "KeepAbove",
    "KeepAll",
    "KeepFirst",
    "KeepRandomly",
    "Policy",
    "Selection",
    "TopK",
    "assign_slots",
    "expert_choice",
    "global_top",
    "uniform_noise_top1",
]
