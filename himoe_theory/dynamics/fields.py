r"""Velocity fields of training as data: what `linearise` and `flows` take.

A *state* is a pytree of floating arrays, a *field* a function state -> velocity of the same structure. It need not be
minus a gradient: a load with frozen or hard h is none (D1, D10), so that fields are built from the closed-form logit
gradients of `OBJECTIVES` and never from a second derivative of a loss. Selections are what the router chooses at the
state; as functions of the state they are constant but for jumps, which `switching` treats.

Fields here are Equinox modules: their numbers are leaves, so that another coefficient is no other program. Time is in
steps of rate 1. Any other function of a state will do as well; it compiles once for each function object.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, UInt32

from .. import _checks
from ..controllers import Tree
from ..objectives import OBJECTIVES, Objective, View, load_for_share_grad
from ..routers import Router
from ..routing import Routing
from ._real import Real
from .terms import Terms, of_logits, of_outputs

State = Any
"""A pytree of floating arrays."""
Field = Callable[[State], State]
"""State -> velocity, of the same structure."""
Gradient = Callable[[Float[Array, "tokens experts"]], Float[Array, "tokens experts"]]
"""Logits -> what the flow descends along; the derivative of a batch mean, so that it carries 1/T."""

LOADS = {OBJECTIVES["load"]: 1.0, OBJECTIVES["load_frozen"]: 1.0, OBJECTIVES["p_squared"]: 2.0}
r"""Loads that `PopulationGradient` knows, and c of their gradient $cN \pi_e (h_e - \langle h, \pi\rangle)$."""


MOST_NODES = 10**6
"""Nodes above which `gaussian_nodes` refuses: a sample of the tokens is then cheaper."""


class LogitGradient(eqx.Module):
    r"""$s \mapsto \sum_k c_k\, \partial L_k/\partial s$ by the closed forms of `OBJECTIVES`, for one batch.

    **Arguments:** `router`: what selects; its controller is held at `state`: how that moves is not part of the field.
    `terms`: objective, by name or as a record -> coefficient. `state`: of the controller, zeros if not given. `key`:
    for a random policy, the same draw at every state; `OverDraws` takes the mean. **Raises:** `ValueError` for an
    unknown objective or a coefficient that is negative or not finite.
    """

    router: Router
    terms: Terms
    state: Tree | None
    key: PRNGKeyArray | None

    def __init__(
        self,
        router: Router,
        terms: Mapping[str, Real] | Mapping[Objective, Real],
        state: Tree | None = None,
        key: PRNGKeyArray | None = None,
    ):
        self.router, self.terms, self.state, self.key = router, of_logits(terms), state, key

    def __call__(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """`[tokens, experts]`, the derivative of the batch mean."""
        state = self.router.init(logits.dtype) if self.state is None else self.state
        routing, _ = self.router.step(self.key, state, logits, training=False)
        total = jnp.zeros_like(logits)
        for objective, coefficient in self.terms.items():
            total += coefficient.astype(logits.dtype) * _pulled(self.router, state, routing, objective)
        return total


class PopulationGradient(eqx.Module):
    r"""The mean-field limit: the same for a distribution given by nodes of weight $\omega_q$ instead of a batch.

    The logits at the nodes go in; out comes $\omega_q$ times the derivative of the loss at the node, so that
    `LinearRouter` with the nodes as inputs flows as with infinitely many tokens. Nodes are a fixed sample (equal
    weights give `LogitGradient`) or a quadrature. Hard counts jump node by node, so quadratures suit smooth terms.

    **Arguments:** `terms`: objectives that are means over tokens, and `load`, `load_frozen`, `p_squared`. `weights`:
    $\omega \ge 0$ with sum 1. **Raises:** `ValueError` for other objectives, weights that do not sum to 1, or a router
    with a random policy.
    **Source:** [himoe-theory] D2, D10: population and batch loads differ by the variance over batches.
    """

    router: Router
    terms: Terms
    weights: Float[Array, " tokens"]

    def __init__(
        self, router: Router, terms: Mapping[str, Real] | Mapping[Objective, Real], weights: Float[Array, " tokens"]
    ):
        if router.is_random:
            raise ValueError(f"`router` must have no random policy in a population; {router.name} has {router.policy}.")
        self.router, self.terms = router, of_logits(terms)
        for objective in self.terms.objectives:
            if objective not in LOADS and (not objective.token_mean or objective.of != "logits"):
                loads = ", ".join(load.name for load in LOADS)
                raise ValueError(f"`terms` must be means over tokens of the logits, or {loads}; got {objective.name}.")
        self.weights = _checks.matrix("weights", weights, ("tokens",))
        _checks.coefficient("weights", self.weights)
        if _checks.known(self.weights) and abs(float(self.weights.sum()) - 1) > 1e-5:
            raise ValueError(f"`weights` must sum to 1; the sum is {float(self.weights.sum()):g}.")

    def __call__(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """`[nodes, experts]`, each row with its node's weight."""
        tokens = logits.shape[0]
        if tokens != self.weights.size:
            raise ValueError(f"`weights` has {self.weights.size} nodes, `logits` has {tokens}.")
        routing, _ = self.router.step(None, self.router.init(logits.dtype), logits, training=False)
        total = jnp.zeros_like(logits)
        for objective, coefficient in self.terms.items():
            if objective in LOADS:
                hard = "selection" in objective.needs
                share = self.weights @ (routing.selected.astype(logits.dtype) if hard else routing.probs)
                slope = LOADS[objective] * load_for_share_grad(routing.log_probs, share / share.sum())
                slope = routing.score.pull_back(logits, slope)
            else:
                slope = objective.gradient(View(routing))
            total += coefficient.astype(logits.dtype) * tokens * slope
        return self.weights[:, None] * total


def gaussian_nodes(
    mean: Float[Array, " dim"], root: Float[Array, "dim dim"], order: int
) -> tuple[Float[Array, "nodes dim"], Float[Array, " nodes"]]:
    r"""Nodes and weights, with sum 1, of a Gaussian of covariance $L L^\top$, for `PopulationGradient`. Host only.

    Gauss-Hermite in every direction, `order` nodes each: exact for polynomials up to the degree 2 order - 1 in each.
    **Arguments:** `root`: L. **Returns:** order^dim nodes.
    """
    _checks.count("order", order)
    mean, root = _checks.matrix("mean", mean, ("dim",)), _checks.matrix("root", root, ("dim", "dim"))
    if root.shape != (mean.size, mean.size):
        raise ValueError(f"`root` must be square of the size of `mean`, {mean.size}; got shape {root.shape}.")
    if order**mean.size > MOST_NODES:
        raise ValueError(f"order^dim must be at most {MOST_NODES} nodes; got {order}^{mean.size}: draw a sample.")
    points, weights = np.polynomial.hermite_e.hermegauss(order)
    grid = np.stack(np.meshgrid(*[points] * mean.size, indexing="ij"), axis=-1).reshape(-1, mean.size)
    product = np.stack(np.meshgrid(*[weights] * mean.size, indexing="ij"), axis=-1).reshape(-1, mean.size).prod(axis=1)
    nodes = np.asarray(mean) + grid @ np.asarray(root).T
    return jnp.asarray(nodes, mean.dtype), jnp.asarray(product / product.sum(), mean.dtype)


class FreeLogits(eqx.Module):
    r"""$\dot s = -T\, \partial L/\partial s$, the logits of T tokens being the state `[tokens, experts]`.

    **Arguments:** `gradient`: of a batch mean. **Source:** [himoe-theory] D1.
    """

    gradient: Gradient

    def __call__(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The velocity."""
        return -logits.shape[0] * self.gradient(logits)


class LinearRouter(eqx.Module):
    r"""$\dot W = -\eta\, (\partial L/\partial s)^\top X$ for logits $s = X W^\top$; the state is W, `[experts, dim]`.

    **Arguments:** `inputs`: X, one row a token. `rate`: $\eta$, at least 0. **Source:** [himoe-theory] D1.
    """

    gradient: Gradient
    inputs: Float[Array, "tokens dim"]
    rate: Real = 1.0

    def __check_init__(self):
        _checks.matrix("inputs", self.inputs, ("tokens", "dim"))
        _checks.coefficient("rate", self.rate)

    def __call__(self, weights: Float[Array, "experts dim"]) -> Float[Array, "experts dim"]:
        """The velocity."""
        return -self.rate * self.gradient(self.inputs @ weights.T).T @ self.inputs


class Mixture(NamedTuple):
    """State of `RouterAndExperts`: router rows, and the experts' parameters stacked along their first axis."""

    router: Float[Array, "experts dim"]
    experts: State


def linear_expert(slopes: Float[Array, "dim outputs"], x: Float[Array, " dim"]) -> Float[Array, " outputs"]:
    """$x^\\top V$, the expert of D6."""
    return x @ slopes


def two_layer_expert(
    layers: tuple[Float[Array, "dim width"], Float[Array, "width outputs"]], x: Float[Array, " dim"]
) -> Float[Array, " outputs"]:
    r"""$\tanh(x^\top V_1)\, V_2$, a smooth nonlinear expert."""
    return jnp.tanh(x @ layers[0]) @ layers[1]


class RouterAndExperts(eqx.Module):
    r"""Gradient flow of a linear router and its experts on $\frac12 E|y - \sum_i w_i f_i(x)|^2$ plus router terms.

    The combine weights $w_i$ are those of `router`: all experts, top-K or grouped, and differentiable given the
    selection. Its controller is held: how that moves is not part of the field.

    **Arguments:** `gradient`: of the router's terms in the logits, `None` for the task alone. `expert`: parameters of
    one expert and one token -> outputs. `targets`: y. `router_rate`, `expert_rate`: $\eta_w, \eta_v$. `output_terms`:
    objective of outputs -> coefficient, added to the loss on the outputs of each token's selected experts; they
    have no gradient in the logits, and kinks where those outputs are dependent. `held`: the controller's state, zeros
    if not given. `key`: for a random policy, the same draw at every state. **Source:** [himoe-theory] D6.
    """

    router: Router
    gradient: Gradient | None
    expert: Callable[[State, Float[Array, " dim"]], Float[Array, " outputs"]]
    inputs: Float[Array, "tokens dim"]
    targets: Float[Array, "tokens outputs"]
    router_rate: Real = 1.0
    expert_rate: Real = 1.0
    output_terms: Terms = eqx.field(default_factory=dict, converter=of_outputs)
    held: Float[Array, " experts"] | None = None
    key: PRNGKeyArray | None = None

    def __check_init__(self):
        tokens = _checks.matrix("inputs", self.inputs, ("tokens", "dim")).shape[0]
        targets = _checks.matrix("targets", self.targets, ("tokens", "outputs"))
        if targets.shape[0] != tokens:
            raise ValueError(f"`targets` has {targets.shape[0]} tokens, `inputs` has {tokens}.")
        _checks.coefficient("router_rate", self.router_rate)
        _checks.coefficient("expert_rate", self.expert_rate)

    def task(self, state: Mixture) -> Float[Array, ""]:
        """Half the mean squared error, summed over outputs."""
        routing, every = self._routed(state)
        missed = self.targets - (routing.combine[:, :, None] * every).sum(axis=1)
        return jnp.square(missed).sum(axis=1).mean() / 2

    def loss(self, state: Mixture) -> Float[Array, ""]:
        """The task and the terms of outputs."""
        total = self.task(state)
        if self.output_terms.objectives:
            routing, every = self._routed(state)
            view = View(routing, jnp.take_along_axis(every, routing.experts[:, :, None], axis=1), self.inputs)
            for objective, coefficient in self.output_terms.items():
                total += coefficient.astype(total.dtype) * objective.value(objective.check(view))
        return total

    def _routed(self, state: Mixture) -> tuple[Routing, Float[Array, "tokens experts outputs"]]:
        """What the router decides, and the outputs of all experts."""
        logits = self.inputs @ state.router.T
        held = self.router.init(logits.dtype) if self.held is None else self.held
        routing, _ = self.router.step(self.key, held, logits, training=False)
        every = jax.vmap(jax.vmap(self.expert, in_axes=(0, None)), in_axes=(None, 0))(state.experts, self.inputs)
        expected = (*logits.shape, self.targets.shape[1])
        if every.shape != expected:
            raise ValueError(
                f"`expert` must give (tokens, experts, outputs) = {expected}, outputs as `targets`; got {every.shape}."
            )
        return routing, every

    def __call__(self, state: Mixture) -> Mixture:
        """The velocity."""
        slope = jax.grad(self.loss)(state)
        rows = slope.router
        if self.gradient is not None:
            rows = rows + self.gradient(self.inputs @ state.router.T).T @ self.inputs

        def scaled(g: Float[Array, "..."]) -> Float[Array, "..."]:
            return -self.expert_rate * g

        return Mixture(-self.router_rate * rows, jax.tree.map(scaled, slope.experts))


class OverDraws(eqx.Module):
    r"""$E_\xi F(z; \xi)$ as the mean over given draws: what a random policy does to a field in expectation.

    **Arguments:** `field`: key -> field, such as `lambda key: LogitGradient(router, terms, key=key)`. `keys`: one a
    draw; the error falls as their number to the power -1/2. **Source:** [st-moe], second expert policy.
    """

    field: Callable[[PRNGKeyArray], Field] = eqx.field(static=True)
    keys: Key[Array, " draws"] | UInt32[Array, "draws words"]

    def __call__(self, state: State) -> State:
        """The mean velocity."""

        def drawn(key: PRNGKeyArray) -> State:
            return self.field(key)(state)

        def mean(moved: Float[Array, "draws ..."]) -> Float[Array, "..."]:
            return moved.mean(axis=0)

        return jax.tree.map(mean, jax.vmap(drawn)(self.keys))


class Normalised(eqx.Module):
    r"""$\dot z = \eta F/(|F| + \epsilon)$ entry by entry: Adam with no memory, the sign of the gradient for small
    $\epsilon$.

    Near a fixed point, while $|F| \ll \epsilon$, it is the field times $\eta/\epsilon$: same modes, rates in that
    ratio. Beyond, every entry moves at speed $\eta$, whatever the size of the gradient.

    **Arguments:** `field`: F. `rate`: $\eta$, at least 0. `epsilon`: above 0.
    **Source:** [himoe-theory] D6, extended to Adam.
    """

    field: Field
    rate: Real
    epsilon: Real

    def __check_init__(self):
        _checks.coefficient("rate", self.rate)
        _checks.positive("epsilon", self.epsilon)

    def __call__(self, state: State) -> State:
        """The velocity."""

        def normalised(f: Float[Array, "..."]) -> Float[Array, "..."]:
            return self.rate * f / (jnp.abs(f) + self.epsilon)

        return jax.tree.map(normalised, self.field(state))


def evaluated(field: Field, state: State) -> State:
    """F at the state. **Raises:** `ValueError` if the field cannot take it or gives another structure."""
    try:
        moved = field(state)
    except (AttributeError, IndexError, TypeError) as error:
        reason = str(error).partition("\n")[0].removesuffix(".")
        raise ValueError(f"`field` must take the state, {structure(state)}; it fails with: {reason}.") from error
    if structure(moved) != structure(state):
        raise ValueError(f"`field` must give the state's structure, {structure(state)}; got {structure(moved)}.")
    return moved


def leaves(name: str, state: State) -> State:
    """The state with arrays as leaves, at least one."""
    found, tree = jax.tree.flatten(state)
    if not found:
        raise ValueError(f"`{name}` must have at least one array of numbers; got {_checks.shown(state)}.")
    return jax.tree.unflatten(tree, [_checks.array(name, leaf) for leaf in found])


def structure(state: State) -> str:
    """The shapes of the leaves, in their places; one line."""
    return str(jax.tree.map(jnp.shape, state)).replace("\n", " ")


def _pulled(router: Router, state: Tree, routing: Routing, objective: Objective) -> Float[Array, "tokens experts"]:
    """An objective's gradient in the raw logits; selections and the controller's state are constants."""
    gradient = objective.gradient(objective.check(View(routing)))
    if objective.of == "logits":
        return gradient

    def corrected(logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        return router.controller.prepare(state, logits, router.score, mask=None, training=False).logits

    return jax.vjp(corrected, routing.logits)[1](gradient)[0]
