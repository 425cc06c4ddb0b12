r"""Directed search for counter-examples: gradient ascent on the ratio of the sides, then Hypothesis, which shrinks.

A search supports a statement and never proves it. What it adds to a proof is the *tightness*: the largest ratio of left
to right side that it reached.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .attack import find
from .ledger import Control, Effort, Finding, Outcome, Slack

Point = Float[Array, " parameters"]
Sides = Callable[[Point], tuple[Array, Array]]

ROUNDING = 1e-9
"""A left side may exceed the right by this share of the larger one."""
RATE = 0.1
# Programs are small and run once: compiling without optimisation is what saves time.
QUICK = {"xla_backend_optimization_level": 0}
KEPT = 400
"""Points kept for the plot of left against right side."""


def search(
    sides: Sides,
    parameters: int,
    effort: Effort,
    *,
    false_factor: float,
    what: str,
    starts: Callable[[np.random.Generator], np.ndarray] | None = None,
    bound: float = 30.0,
) -> Finding:
    """Tries to violate left <= right, both non-negative functions of a vector of real parameters.

    **Arguments:** `sides`: point → (left, right), of himoe_theory's functions, differentiable. `parameters`: length of
    the vector. `false_factor`: control: with the right side multiplied by it, the search must find a violation.
    `what`: the family searched, in words, such as "8 experts in 4 groups, logits". `starts`: draws one start; normal
    vectors of standard deviations .01 to 10 if not given. `bound`: largest entry that Hypothesis tries.
    """
    rng = np.random.default_rng(effort.seed)
    if starts is None:
        scales = 10 ** rng.uniform(-2, 1, (effort.starts, 1))
        first = scales * rng.standard_normal((effort.starts, parameters))
    else:
        first = np.stack([starts(rng) for _ in range(effort.starts)])
    ends, left, right = _ascend(sides, jnp.asarray(first), effort.steps)
    ratios = _ratios(left, right)
    worst = int(np.argmax(ratios))
    scope = f"{what}; {effort.starts} starts, {effort.steps} steps of ascent, {effort.examples} examples of Hypothesis"
    controls = (Control(f"right side times {false_factor:g}", bool(ratios[worst] > false_factor * (1 + ROUNDING))),)
    keep = np.linspace(0, left.size - 1, min(KEPT, left.size)).astype(int)
    slack = Slack(left[keep], right[keep])
    common = {"controls": controls, "scope": scope, "slack": slack}
    violated = ratios[worst] > 1 + ROUNDING
    point = ends[worst] if violated else _hypothesis(sides, parameters, effort.examples, bound)
    if point is None:
        steps = (f"The largest ratio of left to right side reached is {ratios[worst]:.6g}.",)
        method = "directed search"
        return Finding(method, Outcome.NO_VIOLATION, steps, tightness=float(ratios[worst]), **common)
    a, b = (float(side) for side in sides(jnp.asarray(point)))
    text = f"at {np.round(np.asarray(point), 4).tolist()} the left side is {a:.6g}, the right side {b:.6g}"
    return Finding("directed search", Outcome.VIOLATED, (text,), witness=text, tightness=a / b, **common)


def measured(
    what: str, pairs: Sequence[tuple[str, float, float]], *, within: float, wrong: Mapping[str, Sequence[float]]
) -> Finding:
    """Predictions beside measurements: supported if all agree within a relative difference.

    **Arguments:** `pairs`: (name, predicted, measured). `wrong`: false predictions by name, one for each pair; each
    set must disagree in at least one pair.
    """

    def off(predicted: float, found: float) -> float:
        return abs(predicted - found) / max(abs(predicted), abs(found), 1e-300)

    steps = tuple(f"{name}: predicted {a:.6g}, measured {b:.6g} ({off(a, b):.2%} off)" for name, a, b in pairs)
    controls = tuple(
        Control(words, any(not off(a, b) <= within for a, (_, _, b) in zip(values, pairs, strict=True)))
        for words, values in wrong.items()
    )
    scope = f"{what}; relative difference up to {within:g}"
    missed = [step for step, (_, a, b) in zip(steps, pairs, strict=True) if not off(a, b) <= within]
    if missed:
        return Finding("measurement", Outcome.VIOLATED, steps, controls, scope, "; ".join(missed))
    return Finding("measurement", Outcome.NO_VIOLATION, steps, controls, scope)


def _ascend(sides: Sides, first: Array, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """End points, and both sides at the starts and the ends (starts last)."""
    optimiser = optax.adam(RATE)

    def ratio(point: Point) -> Array:
        left, right = sides(point)
        return left / jnp.where(right > 0, right, 1)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def climb(points: Array) -> tuple[Array, Array, Array]:
        def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], None]:
            x, state = carry
            gradient = jax.vmap(jax.grad(ratio))(x)
            updates, state = optimiser.update(jnp.where(jnp.isfinite(gradient), -gradient, 0), state)
            return (optax.apply_updates(x, updates), state), None

        with jax.numpy_dtype_promotion("standard"):
            (last, _), _ = jax.lax.scan(step, (points, optimiser.init(points)), None, length=steps)
        return (last, *jax.vmap(sides)(jnp.concatenate([last, points])))

    last, left, right = jax.device_get(climb(first))
    return np.concatenate([last, np.asarray(first)]), left, right


def _ratios(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Left over right; where the right side is 0, 1 if the left is too and infinite otherwise; never NaN unseen."""
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise AssertionError("a side is not finite at a point of the search")
    safe = np.where(right > 0, right, 1.0)
    tiny = np.abs(left) <= ROUNDING
    return np.where(right > 0, left / safe, np.where(tiny, 1.0, np.inf))


def _hypothesis(sides: Sides, parameters: int, examples: int, bound: float) -> np.ndarray | None:
    """A small point that violates left <= right, or None."""
    compiled = jax.jit(sides, compiler_options=QUICK)

    def violates(point: np.ndarray) -> bool:
        left, right = (float(side) for side in compiled(jnp.asarray(point)))
        return not left <= right + ROUNDING * max(1.0, abs(right))

    return find(violates, parameters, examples, bound)
