"""The properties of an objective."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from .. import routers
from ..objectives import Objective
from ..partition import Partition
from ..routers import Router
from .cases import EXPERTS, PARTITION, ROUTES, SPREADS, TOKENS, Cases, balanced, drawn, hostile, renaming
from .examine import Property, difference, pair
from .finding import Finding, Outcome, skipped
from .programs import Evaluated, Runner

DTYPES = ("bfloat16", "float32", "float64")
OTHER_PARTITION = Partition((0, 0, 0, 0, 1, 1, 1, 2))
"""Groups that are none of those of `PARTITION`."""
REAL = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)
"""A mask of half of the tokens, not at the end."""
EXACT = 1e-9
"""What rounding in float64 may do, relative."""
STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
"""Of central differences: rounding eps/h against curvature h²."""


def flat_router(partition: Partition = PARTITION, k: int = ROUTES) -> Router:
    """What selects for the objective: the k largest of a softmax."""
    return routers.gshard(partition.num_experts, k, partition=partition)


def properties(objective: Objective) -> Iterator[Finding]:
    """All of them, in float64 unless the property is one of dtypes. Call it inside `float64()`."""
    rng = np.random.default_rng(0)
    run = Runner(objective, flat_router())
    cases = drawn(rng, [spread for spread in SPREADS for _ in range(10)])
    yield from _derivatives(run, cases, rng)
    yield from _finite(run, rng)
    yield _gauge(run, cases, rng)
    yield _tokens(run, cases, rng)
    yield _experts(run, cases)
    yield _groups(run, cases)
    yield _masks(run, cases, rng)
    yield _batches(run, cases)


def _derivatives(run: Runner, cases: Cases, rng: np.random.Generator) -> Iterator[Finding]:
    objective, variable = run.objective, run.variable

    def against_autodiff(some: Cases) -> np.ndarray:
        found = run(some)
        return difference(found.gradient, found.autodiff, allowed=EXACT)

    def told(some: Cases) -> str:
        found = run(some)
        return pair("gradient", found.gradient[0], "autodiff", found.autodiff[0])

    held = (
        f"they agree to {EXACT:g}"
        if objective.closed_form
        else f"none is given; that of the record agrees to {EXACT:g}"
    )
    by_autodiff = Property(
        "gradient against autodiff", True, against_autodiff, told, held, ties=False, variable=variable
    ).examine(cases)
    yield by_autodiff

    along = rng.standard_normal(getattr(cases, variable).shape[1:])
    along /= np.linalg.norm(along)

    def slopes(some: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found, at = run(some), getattr(some, variable)
        ahead, behind = (run(some._replace(**{variable: at + sign * STEP * along})).value for sign in (1, -1))
        return (found.gradient * along).reshape(some.number, -1).sum(axis=1), (ahead - behind) / (2 * STEP), found.value

    def against_differences(some: Cases) -> np.ndarray:
        gradient, slope, value = slopes(some)
        allowed = 1e-6 * np.maximum(np.abs(gradient), np.abs(slope)) + 1e-8 * np.maximum(1, np.abs(value))
        return np.abs(gradient - slope) / allowed

    def told_slopes(some: Cases) -> str:
        gradient, slope, _ = slopes(some)
        return pair("slope of the value along a direction", slope, "gradient", gradient)

    finding = Property(
        "gradient against differences", True, against_differences, told_slopes, "to 1e-6", ties=False, variable=variable
    ).examine(cases)
    if finding.outcome is Outcome.FAILS and by_autodiff.outcome is Outcome.HOLDS:
        # The derivative is right, of a value part of which is held constant: as in a frozen load.
        text = f"{finding.text}: part of the value is held constant, as autodiff has it too"
        finding = dataclasses.replace(finding, claimed=False, text=text)
    yield finding


def _finite(run: Runner, rng: np.random.Generator) -> Iterator[Finding]:
    for name, cases in (("finite at ±1e4", hostile(rng, 60)), ("finite at exact balance", balanced(rng))):
        found = [_finite_in(dataclasses.replace(run, dtype=dtype), name, cases) for dtype in DTYPES]
        yield next((each for each in found if each.outcome is Outcome.FAILS), found[-1])


def _finite_in(run: Runner, name: str, cases: Cases) -> Finding:
    def excess(some: Cases) -> np.ndarray:
        found = run(some)
        flat = np.concatenate([each.reshape(some.number, -1) for each in found], axis=1)
        return np.where(np.isfinite(flat).all(axis=1), 0, np.inf)

    def told(some: Cases) -> str:
        found = run(some)
        parts = zip(("value", "gradient", "autodiff"), found, strict=True)
        bad = [
            f"{part} {entries[~np.isfinite(entries)][0]:g}" for part, entries in parts if not np.isfinite(entries).all()
        ]
        return f"{run.dtype}: {', '.join(bad)}"

    held = f"value and gradient in {', '.join(DTYPES)}"
    return Property(name, True, excess, told, held, variable=run.variable).examine(cases)


def _gauge(run: Runner, cases: Cases, rng: np.random.Generator) -> Finding:
    name, claimed = "gauge", run.objective.gauge_invariant
    if run.variable == "outputs":
        return skipped(name, "it is an objective of outputs")
    shifts = np.round(rng.uniform(-20, 20, (TOKENS, 1)), 1)

    def both(some: Cases) -> tuple[np.ndarray, np.ndarray]:
        return run(some._replace(logits=some.logits + shifts)).value, run(some).value

    def excess(some: Cases) -> np.ndarray:
        return difference(*both(some), allowed=EXACT)

    def told(some: Cases) -> str:
        after, before = both(some)
        added = ", ".join(f"{shift:g}" for shift in shifts[:2, 0])
        return f"value {before[0]:.6g}, and {after[0]:.6g} with {added}, ... added to the tokens"

    held = "a constant added to a token's logits changes nothing"
    return Property(name, claimed, excess, told, held).examine(cases)


def _tokens(run: Runner, cases: Cases, rng: np.random.Generator) -> Finding:
    order = rng.permutation(TOKENS)

    def excess(some: Cases) -> np.ndarray:
        before, after = run(some), run(some.tokens(order))
        values = difference(after.value, before.value, allowed=EXACT)
        return np.maximum(values, difference(after.gradient, before.gradient[:, order], allowed=EXACT))

    def told(some: Cases) -> str:
        before, after = run(some), run(some.tokens(order))
        return _both_told(after, before, before.gradient[:, order], f"tokens in the order {_listed(order)}")

    held = "permuted tokens have permuted gradients and the same value"
    return Property(
        "order of tokens", run.objective.symmetric, excess, told, held, ties=False, variable=run.variable
    ).examine(cases)


def _experts(run: Runner, cases: Cases) -> Finding:
    order = renaming(PARTITION)

    def there(gradient: np.ndarray) -> np.ndarray:
        return gradient if run.variable == "outputs" else gradient[..., order]

    def excess(some: Cases) -> np.ndarray:
        before, after = run(some), run(some.renamed(order))
        values = difference(after.value, before.value, allowed=EXACT)
        return np.maximum(values, difference(after.gradient, there(before.gradient), allowed=EXACT))

    def told(some: Cases) -> str:
        before, after = run(some), run(some.renamed(order))
        return _both_told(after, before, there(before.gradient), f"experts in the order {_listed(order)}")

    held = "experts renamed with their groups have renamed gradients and the same value"
    return Property("names of experts", run.objective.symmetric, excess, told, held, ties=False).examine(cases)


def _both_told(after: Evaluated, before: Evaluated, expected: np.ndarray, how: str) -> str:
    if difference(after.value, before.value, allowed=EXACT)[0] > 1:
        return f"value {before.value[0]:.6g}, and {after.value[0]:.6g} with {how}"
    return f"{pair('gradient', after.gradient[0], 'expected', expected[0])}, with {how}"


def _listed(order: np.ndarray) -> str:
    return " ".join(str(each) for each in order)


def _groups(run: Runner, cases: Cases) -> Finding:
    uses = run.objective.uses_groups
    other = dataclasses.replace(run, router=flat_router(OTHER_PARTITION))

    def excess(some: Cases) -> np.ndarray:
        return difference(run(some).value, other(some).value, allowed=EXACT)

    def told(some: Cases) -> str:
        a, b = run(some).value[0], other(some).value[0]
        return f"value {a:.6g} with groups {PARTITION.group_of}, {b:.6g} with {OTHER_PARTITION.group_of}"

    held = "other groups under the same selection change nothing"
    finding = Property("no use of groups", not uses, excess, told, held).examine(cases)
    return finding


def _masks(run: Runner, cases: Cases, rng: np.random.Generator) -> Finding:
    """Padding of any content changes nothing: the value is that of the real tokens alone."""
    padding = np.where(rng.random((TOKENS, 1)) < 0.5, -30.0, 30.0) * rng.random((TOKENS, EXPERTS))
    real = np.flatnonzero(REAL)

    def padded(some: Cases) -> Cases:
        return some._replace(logits=np.where(REAL[:, None], some.logits, some.logits + padding))

    def excess(some: Cases) -> np.ndarray:
        alone, after = run(some.tokens(real)), run(padded(some), REAL)
        inside = difference(after.gradient[:, REAL], alone.gradient, allowed=EXACT)
        outside = difference(after.gradient[:, ~REAL], 0 * after.gradient[:, ~REAL], allowed=EXACT)
        return np.max([difference(after.value, alone.value, allowed=EXACT), inside, outside], axis=0)

    def told(some: Cases) -> str:
        alone, after = run(some.tokens(real)), run(padded(some), REAL)
        if difference(after.value, alone.value, allowed=EXACT)[0] > 1:
            both = f"{after.value[0]:.6g} with padding, {alone.value[0]:.6g} without"
            return f"value {both}; real tokens are {_listed(real)}"
        outside = np.abs(after.gradient[0][~REAL]).max()
        if not outside <= EXACT:
            return f"gradient up to {outside:.6g} in padding"
        return pair("gradient with padding", after.gradient[0][REAL], "without", alone.gradient[0])

    held = "padding changes nothing and has gradient 0"
    return Property("masks", True, excess, told, held, ties=False, variable=run.variable).examine(cases)


def _batches(run: Runner, cases: Cases) -> Finding:
    first, second = np.arange(TOKENS // 2), np.arange(TOKENS // 2, TOKENS)

    def both(some: Cases) -> tuple[np.ndarray, np.ndarray]:
        halves = run(some.tokens(first)).value, run(some.tokens(second)).value
        return run(some).value, (halves[0] + halves[1]) / 2

    def excess(some: Cases) -> np.ndarray:
        return difference(*both(some), allowed=EXACT)

    def told(some: Cases) -> str:
        whole, mean = both(some)
        return f"value of the batch {whole[0]:.6g}, mean of its halves {mean[0]:.6g}"

    held = "a batch is the mean of its halves"
    claimed = run.objective.token_mean
    return Property("batch splitting", claimed, excess, told, held, ties=False, variable=run.variable).examine(cases)
