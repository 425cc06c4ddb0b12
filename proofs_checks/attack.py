"""Attacks on what was proved: Hypothesis looks for numbers at which the proven sides differ.

A proof by form rests on rewriting rules. An attack evaluates the two sides as they stand, at points that Hypothesis
draws, directs towards the largest difference and shrinks, so that a mistake in a rule has a second way to be noticed.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import hypothesis
import mpmath
import numpy as np
import sympy as sp
from hypothesis import configuration, strategies
from hypothesis.extra import numpy as arrays
from sympy import Expr

from .ledger import Control, Effort, Finding, Outcome

Values = Mapping[str, np.ndarray]
Sides = tuple[np.ndarray, np.ndarray]

DIGITS = 40
"""Of the arithmetic in which identities without sizes are evaluated: enough to survive cancellation."""
SPREAD = 8.0
"""Positive numbers are tried from 1/SPREAD to SPREAD times the value drawn first, others within SPREAD of it."""


@dataclasses.dataclass(frozen=True)
class Attack:
    """A proven equality as numbers."""

    start: Values
    """Values by name. Whole numbers, such as the zeros and ones of indicators, are not varied."""
    sides: Callable[[Values], Sides]
    """Both sides there. Points at which they are not finite are passed over."""
    tolerance: float
    """Relative to the larger side; absolute where a side is exactly 0."""

    def carry_out(self, effort: Effort) -> Finding:
        """A directed search for numbers at which the sides differ. Control: a wrong right side must be noticed."""
        names = [name for name, value in self.start.items() if not _whole(value)]
        count = sum(self.start[name].size for name in names)

        def moved(steps: np.ndarray) -> Values:
            parts = np.split(steps, np.cumsum([self.start[name].size for name in names])[:-1])
            there = zip(names, parts, strict=True)
            return dict(self.start) | {name: _moved(self.start[name], step) for name, step in there}

        def violates(steps: np.ndarray) -> bool:
            excess = self._excess(*self.sides(moved(steps)))
            hypothesis.target(excess, label="difference of the sides over what rounding allows")
            return excess > 1

        left, right = self.sides(self.start)
        controls = (Control("a wrong right side", self._excess(left, np.where(right == 0, 1, 2 * right)) > 1),)
        scope = f"{effort.examples} examples of Hypothesis, {count} numbers each"
        found = find(violates, count, effort.examples, 1.0)
        if found is None:
            # Not by how much they did: what Hypothesis draws depends on the modules that are loaded.
            steps = (f"At none do the sides differ by more than {self.tolerance:g} of the larger one.",)
            return Finding("directed search", Outcome.NO_VIOLATION, steps, controls, scope)
        values = moved(found)
        shown = "; ".join(f"{name} = {np.round(values[name].astype(float), 4).tolist()}" for name in names)
        left, right = (side.astype(float).tolist() for side in self.sides(values))
        witness = f"at {shown} the sides are {left} and {right}"
        return Finding("directed search", Outcome.VIOLATED, (witness,), controls, scope, witness)

    def _excess(self, left: np.ndarray, right: np.ndarray) -> float:
        """Largest difference over what the tolerance allows; 0 where a side is not finite."""
        with np.errstate(invalid="ignore"):  # older NumPy warns of a NaN among numbers of many digits
            a, b = left.astype(float), right.astype(float)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            return 0.0
        scale = max(np.abs(a).max(), np.abs(b).max())
        scale = scale if a.any() and b.any() else max(1.0, scale)
        return float(np.abs(np.asarray(left - right, dtype=float)).max() / (self.tolerance * scale))


def attack(start: Values, sides: Callable[[Values], Sides], tolerance: float) -> Attack | None:
    """An `Attack`, unless nothing in it can vary."""
    start = {name: np.asarray(value) for name, value in start.items()}  # a sample may hold plain numbers
    return None if all(map(_whole, start.values())) else Attack(start, sides, tolerance)


def attack_on(left: Expr, right: Expr) -> Attack | None:
    """The attack on an identity in symbols without sizes; None if nothing in it can vary, or it is not of numbers."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    compute = sp.lambdify(symbols, [left, right], modules="mpmath")

    def sides(values: Values) -> Sides:
        with mpmath.workdps(DIGITS):
            try:
                found = compute(*(values[str(symbol)].item() for symbol in symbols))
            except (ZeroDivisionError, ValueError, OverflowError):  # outside the domain of a function
                found = [mpmath.nan, mpmath.nan]
            a, b = (np.asarray(mpmath.nan if isinstance(v, mpmath.mpc) else mpmath.mpf(v), object) for v in found)
            return a, b

    rng = np.random.default_rng(5)
    first = {str(s): int(rng.integers(2, 7)) if s.is_integer else mpmath.mpf(rng.uniform(0.2, 0.9)) for s in symbols}
    start = {name: np.asarray(value, dtype=object) for name, value in first.items()}
    try:
        numbers = all(mpmath.isfinite(side.item()) for side in sides(start))
    # An abstract function has no name in mpmath, an abstract derivative no number. Then there is nothing to attack, no
    # finding is made of it, and the proof stands by its own controls.
    except (NameError, TypeError, AttributeError, NotImplementedError):
        numbers = False
    return attack(start, sides, 10.0 ** (-DIGITS / 2)) if numbers else None


def find(violates: Callable[[np.ndarray], bool], count: int, examples: int, bound: float) -> np.ndarray | None:
    """A small vector of `count` numbers up to `bound` that Hypothesis finds to violate a statement, or None."""
    quiet = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    entries = strategies.floats(-bound, bound, allow_nan=False)
    try:
        with _nothing_stored():
            return hypothesis.find(arrays.arrays(np.float64, count, elements=entries), violates, settings=quiet)
    except hypothesis.errors.NoSuchExample:
        return None


@contextlib.contextmanager
def _nothing_stored() -> Iterator[None]:
    """Without a database, too, Hypothesis keeps things in the folder where a command is started; not below a file."""
    before = configuration.storage_directory(intent_to_write=False)
    configuration.set_hypothesis_home_dir(Path(os.devnull) / "hypothesis")
    try:
        yield
    finally:
        # Older versions give a path, later ones a record that holds it.
        configuration.set_hypothesis_home_dir(getattr(before, "home_directory", before))


def _whole(value: np.ndarray) -> bool:
    return all(float(entry).is_integer() for entry in value.flat)


def _moved(value: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Positive numbers by a factor, others by a shift; `step` from -1 to 1."""
    step = step.reshape(value.shape)
    moved = value * SPREAD**step if (value > 0).all() else value + SPREAD * step
    return np.asarray(moved, dtype=value.dtype)
