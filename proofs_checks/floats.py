"""Attacks on functions of floating-point numbers: from which size of its arguments on is one not what a claim says?

A claim is proved of a function of real numbers; the function that it names works in 32 or 16 bits. It is computed there
and in 64 bits from the same numbers, at every power of ten that the type has: tiny and huge, saturated rows, ties, near
ties, zeros of both signs. That shows where it follows the real function to rounding and where it stops, and whether the
range stated for it (`Numbers`) is right: inside all is well, just outside there is a counter-example.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from himoe_theory import Partition

from .ledger import Control, Finding, Numbers, Outcome

TOKENS, EXPERTS, ROUTES, DIM = 3, 4, 2, 3
POWERS = np.arange(-46, 39)
"""Of ten: from below the least number of 32 bits, or of bfloat16, to the largest."""
Arguments = Mapping[str, Any]

_SHAPES: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys("logits log_scores scores noise a b slope weights probs combine".split(), (TOKENS, EXPERTS)),
    **dict.fromkeys("state load row".split(), (EXPERTS,)),
    **dict.fromkeys("inner square_a square_b residuals".split(), (TOKENS,)),
    **dict.fromkeys("tokens inputs".split(), (TOKENS, DIM)),
    **dict.fromkeys("rows centres parameters gradients".split(), (EXPERTS, DIM)),
    **dict.fromkeys("matrix table".split(), (EXPERTS, EXPERTS)),
    "outputs": (TOKENS, ROUTES, DIM),
    "moment": (DIM, DIM),
    **dict.fromkeys("lambda_intra lambda_inter alpha tau temperature rate gain decay beta coupling".split(), ()),
    **dict.fromkeys(
        "chance router_term expert_control group_control router_rate expert_rate density spread".split(), ()
    ),
}
"""Of the arguments that are drawn, by name."""
_POSITIVE = frozenset("weights load table square_a square_b combine".split()) | {n for n, s in _SHAPES.items() if not s}
_FIXED: Arguments = {
    "selected": np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]], dtype=bool),
    "experts": np.array([[0, 1], [1, 2], [3, 0]], dtype=np.int32),
    "share": np.array([0.5, 0.5, 0.625, 0.375]),
    "purity": np.float64(0.625),
    "mass": np.float64(0.375),
    "p": np.float64(0.75),
    "partition": Partition((0, 1, 0, 1)),
    **{
        "num_experts": EXPERTS,
        "k": ROUTES,
        "routes": ROUTES,
        "places": ROUTES,
        "group_size": 2,
        "num_groups": 2,
        "live": 2,
    },
    "noise_std": 0.5,
}


def attacked(part: str, function: Callable[..., Any], numbers: Numbers) -> Iterator[Finding]:
    """One finding for each type of `numbers`. Controls: arguments with a third of their digits must be noticed, and
    so must those ten times larger than the largest (or smaller than the smallest) that are stated.

    **Arguments:** `function`: of arguments whose names say what they are, as listed above; one token, batch or layer.
    """
    names = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    constant = {n: _FIXED[n] for n in names if n in _FIXED and isinstance(_FIXED[n], np.ndarray | np.generic)}
    static = {n: _FIXED[n] for n in names if n in _FIXED and n not in constant}
    drawn = _drawn([n for n in names if n not in _FIXED])

    @jax.jit
    def compute(given: Arguments, constant: Arguments) -> Any:
        return jax.vmap(lambda each: function(**each, **constant, **static))(given)

    def results(given: Arguments, type_: Any) -> list[np.ndarray]:
        given = {n: jnp.asarray(v).astype(type_) for n, v in given.items()}
        fixed = {n: jnp.asarray(v).astype(type_ if v.dtype.kind == "f" else v.dtype) for n, v in constant.items()}
        return [np.asarray(x) for x in jax.tree.leaves(compute(given, fixed))]

    for kind in numbers.types:
        type_ = jnp.dtype(kind)
        with np.errstate(over="ignore"):  # what the type does not hold is passed over below
            low = {n: v.astype(type_).astype(np.float64) for n, v in drawn.items()}
        held = np.all([np.isfinite(v).reshape(len(v), -1).all(axis=1) for v in low.values()], axis=0)
        low = {n: np.where(held.reshape(-1, *(1,) * (v.ndim - 1)), v, 0) for n, v in low.items()}
        low = {n: np.where(np.abs(v) < float(jnp.finfo(type_).tiny), 0 * v, v) for n, v in low.items()}
        exact = results(low, jnp.float64)
        coarse = {n: _with_a_third_of_the_digits(v, type_) for n, v in low.items()}
        excess, noticed = (_excess(results(given, type_), exact, numbers.roundings) for given in (low, coarse))
        yield _finding(f"{part} in {kind}", numbers, excess, noticed)


def _finding(part: str, numbers: Numbers, excess: np.ndarray, noticed: np.ndarray) -> Finding:
    """What the cases say; `excess`: difference over what is allowed, [cases]."""
    excess, noticed = excess.reshape(len(POWERS), -1), noticed.reshape(len(POWERS), -1)
    patterns = list(_patterns(np.random.default_rng(0), (2, 2)))
    last = POWERS[-1] if math.isinf(numbers.largest) else round(math.log10(numbers.largest))
    first = round(math.log10(numbers.smallest)) if numbers.smallest else POWERS[0]
    inside = (first <= POWERS) & (last >= POWERS)
    controls = [Control("arguments with a third of their digits", bool((noticed[inside] > 1).any()))]
    steps = [f"{excess[inside].size} cases: {len(patterns)} patterns times powers of ten from {first} to {last}."]
    for power in (last + 1, first - 1):
        if power in POWERS:
            there = excess[POWERS == power][0]
            controls.append(Control(f"just outside, at 1e{power}", bool((there > 1).any())))
            steps.append(f"At 1e{power} {patterns[int(there.argmax())]} numbers break it: {_times(there.max())}.")
    if last == POWERS[-1]:
        steps.append("No larger counter-example is shown: there are no finite numbers outside.")
    scope = f"{part.rpartition(' in ')[0]} in {numbers}"
    if (excess[inside] <= 1).all():
        steps.append(f"Inside, the largest difference is {_times(excess[inside].max())}.")
        return Finding("floating point", Outcome.NO_VIOLATION, tuple(steps), tuple(controls), scope, part=part)
    row, column = np.unravel_index(np.where(inside[:, None], excess, 0).argmax(), excess.shape)
    text = f"{part}, {patterns[column]} numbers of size 1e{POWERS[row]}: off by {_times(excess[row, column])}"
    return Finding("floating point", Outcome.VIOLATED, (text,), tuple(controls[:1]), scope, text, part=part)


def _times(excess: float) -> str:
    return f"{excess:.2g} of what is allowed"


def _excess(found: list[np.ndarray], exact: list[np.ndarray], roundings: int) -> np.ndarray:
    """Largest difference over what is allowed, for each case; infinite for a NaN and for an infinity that is none."""
    worst = np.zeros(len(exact[0]))
    for low, high in zip(found, exact, strict=True):
        a, b = (each.reshape(len(each), -1).astype(np.float64) for each in (low, high))
        if not jnp.issubdtype(low.dtype, jnp.floating):
            worst = np.maximum(worst, np.where((a == b).all(axis=1), 0.0, np.inf))
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
            size = np.maximum(1, np.where(np.isfinite(b), np.abs(b), 1).max(axis=1))
            allowed = roundings * float(jnp.finfo(low.dtype).eps) * size
            worst = np.maximum(worst, np.nan_to_num(off, nan=np.inf).max(axis=1) / allowed)
    return worst


def _with_a_third_of_the_digits(x: np.ndarray, type_: Any) -> np.ndarray:
    scale = 2.0 ** (jnp.finfo(type_).nmant // 3)
    fraction, exponent = np.frexp(x)
    return np.ldexp(np.round(fraction * scale) / scale, exponent)


def _drawn(names: list[str]) -> dict[str, np.ndarray]:
    """All patterns at all powers of ten, by argument; arguments differ by a turn of their rows and a factor."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for power in POWERS.tolist():
        for number, name in enumerate(names):
            for value in _patterns(np.random.default_rng(number), _SHAPES[name]).values():
                turned = np.roll(value, number, axis=0) if value.ndim else value
                found[name].append(_in_domain(name, turned, power))
    return {name: np.array(values) for name, values in found.items()}


def _in_domain(name: str, value: np.ndarray, power: int) -> np.ndarray:
    value = np.asarray(value * 10.0**power)
    if name in ("probs", "row", "log_scores"):  # what a softmax of such logits gives
        shifted = value - value.max(axis=-1, keepdims=True)
        log = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return log if name == "log_scores" else np.exp(log)
    if name == "chance":
        return np.asarray(0.5 + 0.5 * np.tanh(value))
    return np.asarray(np.abs(value)) if name in _POSITIVE else value


def _patterns(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Numbers of size 1, by what is hard about them."""
    place = np.arange(math.prod(shape)).reshape(shape)
    column = place % (shape[-1] if shape else 1)
    row = place // (shape[-1] if shape else 1)
    peak = (row % (shape[-1] if shape else 1) == column).astype(float)
    found = {
        "generic": rng.standard_normal(shape),
        "one-hot": peak,
        "one-cold": -peak,
        "saturated": 2 * peak - 1,
        "equal": np.ones(shape),
        "zero of both signs": np.where(place % 2, 0.0, -0.0),
        "close": 1 + place % 5 / 64,
        "nearly equal": 1 + 2.0**-20 * (place % 3),
        "mixed": rng.standard_normal(shape) * 10.0 ** (-3 * column),
    }
    return {name: np.asarray(value) for name, value in found.items()}
