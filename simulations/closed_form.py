r"""The gradient of a training step in closed form: linear gate and experts, top-K inside groups, half squared error.

No derivative is computed by differentiating a program, so that one pass over the batch gives everything. T tokens, N
experts, O outputs; $s = W x$, $a = (s - \tau\bar g)/\mathrm{Temp}$, $p = \mathrm{softmax}(a)$, $\pi =
\mathrm{softmax}(s)$, weights $w$ of the selected experts, outputs $c_e = A_e x$, prediction $f = \sum_e w_e c_e$.

**Task.** With $\delta = (f - y)/(TO)$ the loss $\frac{1}{2TO}\sum_{t,o}(f - y)^2$ has $\partial L/\partial A_e =
\sum_t w_e\, x\,\delta^T$. For weights $w_e = p_e/(Q + \epsilon)$, Q the selected mass, $\partial \ln w_e/\partial a_j
= 1[e = j] - w_j - \kappa p_j$ with $\kappa = \epsilon/(Q + \epsilon)$; for weights $w_e = p_e$ it is $1[e = j] - p_j$.
As $\sum_e w_e\,\langle\delta, c_e\rangle = \langle\delta, f\rangle$,

$$\partial L/\partial a_j = w_j \langle\delta, c_j\rangle - \rho_j \langle\delta, f\rangle,
\qquad \rho = w + \kappa p \ \text{or}\ \rho = p.$$

**Objectives.** Each routing objective has a gradient $\frac1T \pi_j(b_j - \sum_e \pi_e b_e)$ (see
`himoe_theory.objectives`); the slopes b add up with their coefficients, and one pull-back serves them all. Those of the
bias-corrected probabilities do the same with p. Finally $\partial L/\partial s$ adds $\partial L/\partial a$ /
Temp, and $\partial L/\partial W = \sum_t \partial L/\partial s\; x^T$.

**Layout.** One seed at a time, all arms: arrays are `[experts, arms, tokens]`, tokens last since they are what a
processor's vectors run over, experts first since sums over them are then sums of vectors.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from himoe_theory import Partition, Router, Softmax
from himoe_theory.controllers import Tree
from himoe_theory.objectives import OBJECTIVES, Objective

from .gates import Gate
from .layer import Layer

# Comparing every pair of a group is written out: longer programs than this one would take to compile too long.
_EXPERTS_UP_TO = 16

PerExpert = Float[Array, "experts arms tokens"]


class Routed(NamedTuple):
    """What slopes are made of. `share`: dispatches over tokens, $n_e/T$; `mean`: token mean of `probs`."""

    probs: PerExpert
    selected: Bool[Array, "experts arms tokens"]
    share: Float[Array, "experts arms 1"]
    partition: Partition
    routes: int

    @property
    def mean(self) -> Float[Array, "experts arms 1"]:
        """P."""
        return _over_tokens(self.probs)


Slope = Callable[[Routed], Float[Array, "experts arms #tokens"]]

SLOPES: Mapping[str, Slope] = {
    "load": lambda r: r.probs.shape[0] / r.routes * r.share,
    "load_per_token": lambda r: r.probs.shape[0] * r.share,
    "load_frozen": lambda r: r.probs.shape[0] * r.mean,
    "p_squared": lambda r: 2 * r.probs.shape[0] * r.mean,
    "intra_group_global": lambda r: -2 * r.probs,
    "inter_group_dense": lambda r: 2 * _mass(r.probs, r.partition),
    "variance_across_experts": lambda r: -2 / (r.probs.shape[0] - 1) * r.probs,
}
"""Objectives of the raw softmax: T times the gradient in the probabilities, up to what a pull-back removes."""

SELECTION_SLOPES: Mapping[str, Slope] = {
    "intra_group_global_selection": lambda r: -2 * r.probs,
    "inter_group_selected": lambda r: 2 * _kept(r),
    "inter_group_sparse": lambda r: jnp.where(r.selected, 2 * _mass(_kept(r), r.partition), 0),
}
"""Objectives of the bias-corrected softmax, likewise."""


_KNOWN = {name: OBJECTIVES[name] for name in (*SLOPES, *SELECTION_SLOPES)}
"""Whose slopes these are: another objective of the same name has none here."""


def applies(layer: Layer, router: Router, gate: Gate, terms: Sequence[Objective], task: str) -> bool:
    """Whether `gradients` is the gradient of this layer with this router and these objectives; that in a gate that does
    not learn is not to be used."""
    return (
        layer.expert.is_linear
        and not layer.learn_scale
        and gate.is_linear
        and task == "regression"
        and router.score == Softmax()
        and router.selection.grouping(router.partition) is not None
        and (router.controller.leaves_logits or router.controller.average is not None)
        and not router.policy.thins
        and router.weighting.closed_form
        and router.nulls == 0
        and router.capacity is None
        and router.partition.num_experts <= _EXPERTS_UP_TO
        and all(_KNOWN.get(objective.name) == objective for objective in terms)
    )


def gradients(
    parameters: dict[str, Any],
    router: Router,
    coefficients: Mapping[str, Float[Array, " arms"]],
    state: Tree,
    x: Float[Array, "dim tokens"],
    y: Float[Array, "outputs tokens"],
) -> tuple[dict[str, Any], Tree]:
    r"""Gradient of the loss of every arm on the batch they share, and the controller's next state.

    **Arguments:** `parameters`: `gate` [arms, experts, dim], `experts.weight` [arms, experts, dim, outputs], `scale`.
    `router`: its numbers have a leading axis of arms. **Returns:** a tree like `parameters`, 0 for `scale`.
    """
    gate = jnp.moveaxis(parameters["gate"], 0, 1)  # [experts, arms, dim]
    weight = jnp.moveaxis(parameters["experts"]["weight"], (3, 1), (0, 1))  # [outputs, experts, arms, dim]
    both = _times(jnp.concatenate([gate[None], weight]), x)
    logits, outputs = both[0], both[1:]
    corrected, temperature, state = _correct(router, state, logits, gate, x)
    selected = _select(router, corrected)
    share = _over_tokens(selected.astype(x.dtype))

    raised, total = _softmax(corrected)
    weights, left_out = _weigh(router, raised, total, selected)
    slope, taken = _task(weights, left_out, outputs, y)
    routed = Routed(raised / total, selected, share, router.partition, router.routes)
    slope = slope + _pull_back(routed, SELECTION_SLOPES, coefficients, x.shape[1])
    slope = slope / temperature
    raised, total = _softmax(logits)
    slope = slope + _pull_back(routed._replace(probs=raised / total), SLOPES, coefficients, x.shape[1])
    found = {
        "gate": jnp.moveaxis(_times(slope, x.T), 0, 1),
        "scale": jnp.zeros_like(parameters["scale"]),
        "experts": {"weight": jnp.moveaxis(_times(taken, x.T), (0, 1), (3, 1))},
    }
    return found, state


def _times(rows: Float[Array, "*rows inner"], x: Float[Array, "inner outer"]) -> Float[Array, "*rows outer"]:
    """Matrix product as one flat one: a compiler would otherwise run one small product a row block."""
    flat = jnp.matmul(rows.reshape(-1, rows.shape[-1]), x, precision="highest")
    return flat.reshape(*rows.shape[:-1], x.shape[-1])


def _over_tokens(values: PerExpert) -> Float[Array, "experts arms 1"]:
    """Token mean, as a product: sums along the last axis are not vectorised."""
    tokens = values.shape[-1]
    return _times(values, jnp.full((tokens, 1), 1 / tokens, values.dtype))


def _sum(values: Float[Array, "experts *rest"]) -> Float[Array, "*rest"]:
    # Not written out as additions: these would be done again for every expert that needs the sum.
    return values.sum(axis=0)


def _softmax(logits: PerExpert) -> tuple[PerExpert, Float[Array, "arms tokens"]]:
    """Exponentials, the largest 1, and their sum."""
    raised = jnp.exp(logits - logits.max(axis=0))
    return raised, _sum(raised)


def _correct(
    router: Router,
    state: Tree,
    logits: PerExpert,
    gate: Float[Array, "experts arms dim"],
    x: Float[Array, "dim tokens"],
) -> tuple[PerExpert, Float[Array, "#arms 1"], Tree]:
    """Corrected logits, temperature and the controller's next state; the mean logit is that of the mean token."""
    average = router.controller.average
    if average is None:
        return logits, jnp.ones((1, 1), x.dtype), state
    tau, beta, temperature = (jnp.asarray(v)[:, None] for v in (average.tau, average.beta, average.temperature))
    mean = _times(gate, x.mean(axis=1, keepdims=True))[..., 0].T
    state = beta * state + (1 - beta) * mean
    return (logits - (tau * state).T[:, :, None]) / temperature, temperature, state


def _select(router: Router, keys: PerExpert) -> Bool[Array, "experts arms tokens"]:
    """The K_g largest keys of every group, the expert of lower number first among equals."""
    grouping = router.selection.grouping(router.partition)
    assert grouping is not None  # `applies` has asked
    partition, quotas = grouping
    chosen = [jnp.zeros(keys.shape[1:], bool)] * partition.num_experts
    for group, k in enumerate(quotas):
        members = partition.members(group).tolist()
        for e in members:
            ahead = [keys[j] >= keys[e] if j < e else keys[j] > keys[e] for j in members if j != e]
            chosen[e] = _fewer(ahead, k, keys)
    return jnp.stack(chosen)


def _fewer(ahead: list[Bool[Array, "arms tokens"]], k: int, keys: PerExpert) -> Bool[Array, "arms tokens"]:
    """Whether fewer than k of the flags hold."""
    if k > len(ahead):
        return jnp.ones(keys.shape[1:], bool)
    if k == 1:
        return ~functools.reduce(operator.or_, ahead)
    return functools.reduce(operator.add, [flag.astype(jnp.int32) for flag in ahead]) < k


def _weigh(
    router: Router,
    raised: PerExpert,
    total: Float[Array, "arms tokens"],
    selected: Bool[Array, "experts arms tokens"],
) -> tuple[PerExpert, PerExpert]:
    r"""Weights w, and $\rho$: what the logarithm of every weight loses when a logit grows."""
    kept = jnp.where(selected, raised, 0)
    epsilon = router.weighting.epsilon_of_sum
    if epsilon is None:
        return kept / total, raised / total
    # The largest exponential, 1, is selected in its group: the sum is at least 1 and needs no care.
    share = 1 / (_sum(kept) + epsilon * total)
    weights = kept * share
    return weights, weights + epsilon * share * raised


def _task(
    weights: PerExpert,
    left_out: PerExpert,
    outputs: Float[Array, "outputs experts arms tokens"],
    y: Float[Array, "outputs tokens"],
) -> tuple[PerExpert, Float[Array, "outputs experts arms tokens"]]:
    """Gradient of the task loss in the corrected logits, and in the experts' outputs."""
    slope = jnp.zeros_like(weights)
    taken = []
    for output, target in zip(outputs, y, strict=True):
        prediction = _sum(weights * output)
        error = (prediction - target) / y.size
        slope = slope + weights * (error * output) - left_out * (error * prediction)
        taken.append(weights * error)
    return slope, jnp.stack(taken)


def _pull_back(
    routed: Routed, slopes: Mapping[str, Slope], coefficients: Mapping[str, Float[Array, " arms"]], tokens: int
) -> PerExpert | Float[Array, ""]:
    r"""$\frac1T \pi_j(b_j - \sum_e \pi_e b_e)$ for the sum b of the slopes with their coefficients."""
    parts = [c[:, None] / tokens * slopes[name](routed) for name, c in coefficients.items() if name in slopes]
    if not parts:
        return jnp.zeros((), routed.probs.dtype)
    along = routed.probs * functools.reduce(operator.add, parts)
    return along - routed.probs * _sum(along)


def _kept(routed: Routed) -> PerExpert:
    return jnp.where(routed.selected, routed.probs, 0)


def _mass(values: PerExpert, partition: Partition) -> PerExpert:
    """Each group's sum, at every expert of the group."""
    groups = [_sum(jnp.stack([values[e] for e in partition.members(g)])) for g in range(partition.num_groups)]
    return jnp.stack([groups[g] for g in partition.group_of])
