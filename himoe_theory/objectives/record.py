"""What an objective is: one record for those of logits and those of outputs, and the view that it reads."""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import Array, Float

from .._numerics import accumulate
from ..partition import Partition
from ..plumbing.bring import Kind
from ..routing import Routing
from ._softmax import blanked, token_mean


class View(eqx.Module):
    """What an objective may read of one layer and batch. What is `None` was not given.

    **Fields:**

    - `routing`: what the router decided.
    - `outputs`: of the selected experts, in the order of `routing.experts`.
    - `x`: the tokens, as the router saw them.
    - `parameters`: of the layer, as its owner arranges them.
    - `above`: the routing of the layer that these tokens passed before.
    - `costs`: of one token at each expert.
    """

    routing: Routing
    outputs: Float[Array, "tokens routes width"] | None = None
    x: Float[Array, "tokens dim"] | None = None
    parameters: Any = None
    above: Routing | None = None
    costs: Float[Array, " experts"] | None = None

    def mean(self, values: Float[Array, " tokens"]) -> Float[Array, ""]:
        """Mean over the real tokens: what padding holds does not count."""
        return token_mean(values, self.routing.mask)


Need = Literal["selection", "logits", "outputs", "x", "parameters", "above", "costs"]
"""`selection`: which experts are chosen. `logits`: not only through the probabilities. The rest: fields of `View`."""
GIVEN: tuple[Need, ...] = ("outputs", "x", "parameters", "above", "costs")
"""Needs that a view may lack."""
Variable = Literal["logits", "selection_logits", "outputs"]
Bounds = Callable[[Partition, int, int], tuple[float, float]]
"""Partition, tokens, routes of a token -> least and greatest value."""


def _probs(routing: Routing) -> Float[Array, "tokens experts"]:
    """Probabilities."""
    return routing.probs


def _itself(share: Array) -> Array:
    """h."""
    return share


@dataclasses.dataclass(frozen=True)
class LoadForm:
    r"""A load loss as $\frac{N}{T} \sum_{te} f(h)_e w_{te}$, where h may be that of another set of tokens: a scope.

    **Fields:** `counted`: routing -> what h is the mean of, `[tokens, experts]`. `per_token`: h is over the number of
    tokens, else over the sum of the counts. `weights`: routing -> w, a softmax of the log-probabilities over some
    experts. `slope`: f. `gradient`: derivative over the one at constant f(h): 2 where it goes through h as well.
    """

    counted: Callable[[Routing], Array]
    per_token: bool = False
    weights: Callable[[Routing], Float[Array, "tokens experts"]] = _probs
    slope: Callable[[Array], Array] = _itself
    gradient: float = 1.0


@dataclasses.dataclass(frozen=True)
class LoadConvention:
    """What one code base calls the load-balancing loss: how h is normalised, what P is, which gradient, who uses it."""

    share: str
    probability: str
    gradient: str
    used_by: str
    at_uniform: Callable[[int, int], float]
    """Value at exactly uniform routing, as a function of N experts and K selected per token."""
    form: LoadForm
    """For other scopes than the batch at hand, see `scopes`."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A function of arrays as a function of a view, of which it takes the parts with these dotted names, in order, and
    the mask."""

    function: Callable[..., Array]
    parts: tuple[str, ...]

    def __call__(self, view: View) -> Array:
        """The function's result."""
        given = (operator.attrgetter(part)(view) for part in self.parts)
        return self.function(*given, mask=view.routing.mask)


@dataclasses.dataclass(frozen=True)
class ThroughScore:
    """A gradient in log-probabilities as one in the logits that the router's score made them of."""

    function: Reading
    of: Literal["logits", "selection_logits"]

    def __call__(self, view: View) -> Array:
        """In the variable `of`, in at least float32."""
        routing = view.routing
        logits = accumulate(blanked(self.of, getattr(routing, self.of), routing.mask))
        return routing.score.pull_back(logits, self.function(view))


@dataclasses.dataclass(frozen=True)
class Autodiff:
    """The gradient of an objective that gives none, by reverse mode; decisions are constants."""

    value: Callable[[View], Float[Array, ""]]
    of: Variable

    def __call__(self, view: View) -> Array:
        """In the variable `of`."""

        def value(at: Array) -> Float[Array, ""]:
            return self.value(with_variable(view, self.of, at))

        return jax.grad(value)(variable(view, self.of))


def variable(view: View, of: Variable) -> Array:
    """The array in which a gradient is taken."""
    return getattr(view if of == "outputs" else view.routing, of)


def with_variable(view: View, of: Variable, at: Array) -> View:
    """The same decisions with another array there, and the log-probabilities that follow from it."""
    if of == "outputs":
        return dataclasses.replace(view, outputs=at)
    routing = dataclasses.replace(view.routing, **{of: at})
    if of == "logits":
        log_probs = routing.score.log_probs(accumulate(blanked("logits", at, routing.mask)))
        routing = dataclasses.replace(routing, log_probs=log_probs)
    return dataclasses.replace(view, routing=routing)


@dataclasses.dataclass(frozen=True)
class Objective:
    """An objective of routing, to be minimised. Records are equal if their functions are; programs are keyed by them.

    **Arguments:** `name`: for tables and commands. `value`: view -> scalar. `source`: key of `SOURCES`, if any.
    `label`: for figures, TeX between dollars; the name if not given. `gradient`: view -> closed form in the variable
    `of`, the selection being a constant; autodiff if not given, and then `closed_form` is false. `of`: which logits, or
    `outputs`. `needs`: see `Need`. `bounds`: of the value. `convention`: of a load loss. `gauge_invariant`: it is a
    function of the probabilities, which a constant added to a token's logits does not change where the score is a
    softmax. `uses_groups`: it depends on the partition (given the selection). `token_mean`: it is a mean of terms of
    single tokens, so that equal halves of a batch average to the whole. `symmetric`: neither the order of tokens nor
    the names of experts (renamed with their groups) matter.

    **Raises:** `ValueError` for a name that no field can have, or an objective of outputs that does not need them.
    """

    name: str
    value: Callable[[View], Float[Array, ""]]
    source: str = ""
    label: str = ""
    gradient: Any = None  # once made, always a function of a view
    of: Variable = "logits"
    needs: frozenset[Need] = frozenset()
    bounds: Bounds | None = None
    convention: LoadConvention | None = None
    gauge_invariant: bool = True
    uses_groups: bool = False
    token_mean: bool = True
    symmetric: bool = True

    def __post_init__(self):
        if not self.name.isidentifier():
            raise ValueError(f"`name` must be letters, digits and underscores, no digit first; got {self.name!r}.")
        if self.of == "outputs" and "outputs" not in self.needs:
            raise ValueError(f"`needs` of {self.name} must have 'outputs', which its gradient is in.")
        if not self.label:
            object.__setattr__(self, "label", self.name)
        # A copy with another value must not keep the old one's derivative.
        if self.gradient is None or not self.closed_form:
            object.__setattr__(self, "gradient", Autodiff(self.value, self.of))

    @property
    def closed_form(self) -> bool:
        """Whether `gradient` was given, and is not autodiff."""
        return not isinstance(self.gradient, Autodiff)

    @property
    def functions(self) -> tuple[Callable[..., Array], ...]:
        """The functions behind value and closed form."""
        found = (self.value, self.gradient) if self.closed_form else (self.value,)
        return tuple(_innermost(f) for f in found)

    def check(self, view: View) -> View:
        """The view. **Raises:** `ValueError` if it lacks something that the objective needs."""
        for need in GIVEN:
            if need in self.needs and getattr(view, need) is None:
                raise ValueError(f"{self.name} needs `{need}`, which is not there for it here.")
        return view


OBJECTIVE = Kind("term", "an Objective", "himoe.objectives", lambda thing: isinstance(thing, Objective))
"""What a user may bring; without a gradient, autodiff gives it:

    def value(view):
        return view.mean((view.routing.probs**2).sum(axis=1))

    mine = Objective("mine", value)
"""


def _innermost(function: Any) -> Callable[..., Array]:
    while hasattr(function, "function"):
        function = function.function
    return function


def of_arrays(
    name: str,
    value: Callable[..., Array],
    gradient: Callable[..., Array],
    *parts: str,
    **fields: Any,
) -> Objective:
    """The record of two functions that take the same parts of a view; see `Reading`. Where they read probabilities, the
    gradient is that in their logarithms, and the score takes it to the logits."""
    closed: Any = Reading(gradient, parts)
    if parts[0].endswith("log_probs"):
        closed = ThroughScore(closed, fields.get("of", "logits"))
    return Objective(name, Reading(value, parts), gradient=closed, **fields)
