"""Selection rules, the policies that thin a selection, and capacity."""

from .base import Choice as Choice
from .base import Selection as Selection
from .base import ranked as ranked
from .capacity import AtRandom as AtRandom
from .capacity import ByGate as ByGate
from .capacity import ByPosition as ByPosition
from .capacity import ByPriority as ByPriority
from .capacity import Capacity as Capacity
from .capacity import Order as Order
from .capacity import assign_slots as assign_slots
from .noise import uniform_noise_top1 as uniform_noise_top1
from .policies import KeepAbove as KeepAbove
from .policies import KeepAll as KeepAll
from .policies import KeepFirst as KeepFirst
from .policies import KeepRandomly as KeepRandomly
from .policies import Policy as Policy
from .pool import ExpertChoice as ExpertChoice
from .pool import GlobalTop as GlobalTop
from .pool import expert_choice as expert_choice
from .pool import global_top as global_top
from .ranking import largest as largest
from .ranking import rank as rank
from .threshold import Above as Above
from .threshold import Mass as Mass
from .top_k import Everything as Everything
from .top_k import GroupedTopK as GroupedTopK
from .top_k import GroupLimited as GroupLimited
from .top_k import TopK as TopK

__all__ = [
    "Above",
    "AtRandom",
    "ByGate",
    "ByPosition",
    "ByPriority",
    "Capacity",
    "Choice",
    "Everything",
    "ExpertChoice",
    "GlobalTop",
    "GroupLimited",
    "GroupedTopK",
    "KeepAbove",
    "KeepAll",
    "KeepFirst",
    "KeepRandomly",
    "Mass",
    "Order",
    "Policy",
    "Selection",
    "TopK",
    "assign_slots",
    "expert_choice",
    "global_top",
    "largest",
    "rank",
    "ranked",
    "uniform_noise_top1",
]
