"""Selection rules, the policies that thin a selection, and capacity."""

from .capacity import Capacity as Capacity
from .capacity import assign_slots as assign_slots
from .policies import KeepAbove as KeepAbove
from .policies import KeepAll as KeepAll
from .policies import KeepFirst as KeepFirst
from .policies import KeepRandomly as KeepRandomly
from .policies import Policy as Policy
from .top_k import Everything as Everything
from .top_k import GroupedTopK as GroupedTopK
from .top_k import Selection as Selection
from .top_k import TopK as TopK
