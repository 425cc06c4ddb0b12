"""The mathematics of mixture-of-experts routers: pure functions of arrays, no files, no plots, no training loops."""

from . import gates as gates
from . import metrics as metrics
from . import objectives as objectives
from . import routers as routers
from .contract import Contract as Contract
from .contract import check as check
from .contract import cosines as cosines
from .contract import growth as growth
from .controllers import Controller as Controller
from .controllers import LogitAverage as LogitAverage
from .controllers import Prepared as Prepared
from .controllers import SelectionBias as SelectionBias
from .controllers import Uncontrolled as Uncontrolled
from .partition import Partition as Partition
from .routers import Router as Router
from .routers import from_routes as from_routes
from .routing import Blend as Blend
from .routing import Routing as Routing
from .routing import blend as blend
from .routing import from_dense as from_dense
from .routing import to_dense as to_dense
from .scores import Entmax15 as Entmax15
from .scores import Keys as Keys
from .scores import Score as Score
from .scores import Sigmoid as Sigmoid
from .scores import Sinkhorn as Sinkhorn
from .scores import Softmax as Softmax
from .scores import cosine_logits as cosine_logits
from .scores import distance_logits as distance_logits
from .selection import Above as Above
from .selection import AtRandom as AtRandom
from .selection import ByGate as ByGate
from .selection import ByPosition as ByPosition
from .selection import ByPriority as ByPriority
from .selection import Capacity as Capacity
from .selection import Choice as Choice
from .selection import Everything as Everything
from .selection import ExpertChoice as ExpertChoice
from .selection import GlobalTop as GlobalTop
from .selection import GroupedTopK as GroupedTopK
from .selection import GroupLimited as GroupLimited
from .selection import KeepAbove as KeepAbove
from .selection import KeepAll as KeepAll
from .selection import KeepFirst as KeepFirst
from .selection import KeepRandomly as KeepRandomly
from .selection import Mass as Mass
from .selection import Order as Order
from .selection import Policy as Policy
from .selection import Selection as Selection
from .selection import TopK as TopK
from .selection import assign_slots as assign_slots
from .selection import expert_choice as expert_choice
from .selection import global_top as global_top
from .selection import ranked as ranked
from .selection import uniform_noise_top1 as uniform_noise_top1
from .sources import SOURCES as SOURCES
from .sources import Source as Source
from .weights import Renormalised as Renormalised
from .weights import SoftmaxThenMask as SoftmaxThenMask
from .weights import Weighting as Weighting

__all__ = [
    "SOURCES",
    "Above",
    "AtRandom",
    "Blend",
    "ByGate",
    "ByPosition",
    "ByPriority",
    "Capacity",
    "Choice",
    "Contract",
    "Controller",
    "Entmax15",
    "Everything",
    "ExpertChoice",
    "GlobalTop",
    "GroupLimited",
    "GroupedTopK",
    "KeepAbove",
    "KeepAll",
    "KeepFirst",
    "KeepRandomly",
    "Keys",
    "LogitAverage",
    "Mass",
    "Order",
    "Partition",
    "Policy",
    "Prepared",
    "Renormalised",
    "Router",
    "Routing",
    "Score",
    "Selection",
    "SelectionBias",
    "Sigmoid",
    "Sinkhorn",
    "Softmax",
    "SoftmaxThenMask",
    "Source",
    "TopK",
    "Uncontrolled",
    "Weighting",
    "assign_slots",
    "blend",
    "check",
    "cosine_logits",
    "cosines",
    "distance_logits",
    "expert_choice",
    "from_dense",
    "from_routes",
    "gates",
    "global_top",
    "growth",
    "metrics",
    "objectives",
    "ranked",
    "routers",
    "to_dense",
    "uniform_noise_top1",
]
