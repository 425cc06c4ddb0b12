"""What a name on the command line stands for: ours, a package's, or `FILE.py:NAME`."""

from typing import Any

from ..objectives import OBJECTIVES, Objective
from ..objectives.record import OBJECTIVE
from ..plumbing.bring import HERE, Kind, Place, make, names, names_file, resolve
from ..routers import ROUTER, Router
from .ours import PER_GROUP, ROUTERS, partition


def _routed(thing: Any) -> bool:
    """Whether it is an arm, or something else that has a router."""
    return isinstance(getattr(thing, "router", None), Router)


_OFFERS = ("partition", "per_group")
_ARM = Kind("arm", "an Arm", "himoe.arms", _routed, _OFFERS)
_ANY = Kind(
    "contract",
    "an Objective, a Router or an Arm",
    "himoe.objectives",
    lambda thing: isinstance(thing, Objective | Router) or _routed(thing),
    _OFFERS,
)


def called(name: str, place: Place = HERE) -> Any:
    """The object. Functions of a file or a package are offered eight experts in four groups, one of each. `place`:
    where files are.

    **Raises:** `ValueError` in one line, as `bring.resolve` and `bring.make`, or for an unknown name.
    """
    offered = {"partition": partition(), "per_group": PER_GROUP}
    if names_file(name):
        return make(_ANY, name, resolve(_ANY, name, place=place), offered=offered)
    tables = ((OBJECTIVE, OBJECTIVES), (ROUTER, ROUTERS), (_ARM, {}))
    for kind, ours in tables:
        if name in names(kind, ours):
            return make(kind, name, resolve(kind, name, ours), offered=offered)
    known = ", ".join(each for kind, ours in tables for each in names(kind, ours))
    raise ValueError(f"`NAME` must be FILE.py:NAME or one of {known}; got {name!r}.")
