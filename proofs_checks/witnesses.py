"""Evidence in exact arithmetic: single points, reported numbers, and all cases of a small size."""

import dataclasses
import fractions
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import sympy as sp

from .ledger import Control, Finding, Outcome

Number = fractions.Fraction | int | sp.Expr
Case = TypeVar("Case")


def witness(
    where: str,
    left: Number,
    relation: str,
    right: Number,
    *,
    holds_at: Mapping[str, tuple[Number, Number]],
    code: Sequence[tuple[object, Number]] = (),
) -> Finding:
    """Evaluates a statement at one point, exactly; a violation there refutes it.

    **Arguments:** `where`: the point, in words that are enough to evaluate it by hand. `relation`: "<=", "=" or ">=".
    `holds_at`: points where the relation is known to hold, (left, right) by name; the controls. `code`: (what
    himoe_theory computes there, its exact value) for each quantity; they must agree to 1e-9.
    """
    if relation not in _HOLDS:
        raise ValueError(f"`relation` must be one of {', '.join(_HOLDS)}; got {relation!r}.")
    for computed, exact in code:
        value, expected = float(np.asarray(computed)), float(sp.N(exact, 17))
        if abs(value - expected) > 1e-9 * max(1.0, abs(expected)):
            raise AssertionError(f"himoe_theory computes {value} at {where}; exactly it is {exact}")
    controls = tuple(Control(words, _holds(a, relation, b)) for words, (a, b) in holds_at.items())
    step = f"At {where}: left side {_said(left)}, right side {_said(right)}."
    if _holds(left, relation, right):
        return Finding("exact evaluation", Outcome.NO_VIOLATION, (step,), controls, "one point")
    text = f"{where}: left {_said(left)}, right {_said(right)}, where left {relation} right is claimed"
    return Finding("exact evaluation", Outcome.VIOLATED, (step,), controls, "one point", text)


def reported(what: str, value: Number, printed: str, *, unit: str = "") -> Finding:
    """Whether a number rounds to the printed digits; a part of its own of the statement.

    An exact number (rational, or an expression that SymPy evaluates to any accuracy) proves it; one computed in
    floating point, by a root finder or quadrature, supports it. Controls: the printed number one digit off.
    """
    number = sp.nsimplify(value) if isinstance(value, int | fractions.Fraction) else value
    exact = not number.has(sp.Float)
    digits = len(printed.partition(".")[2])
    unit_off = sp.Rational(1, 10**digits)

    def rounds_to(target: sp.Expr) -> bool:
        return bool(abs(sp.N(number - target, 30)) <= unit_off / 2)

    target = sp.Rational(printed)
    step = f"{what} is {sp.N(number, 8)}{unit}; printed: {printed}{unit}."
    method = "exact arithmetic" if exact else "arithmetic in floating point"
    if not rounds_to(target):
        own = sp.Rational(round(float(sp.N(number, 17)), digits)).limit_denominator(10 ** (digits + 2))
        controls = (Control("its own rounding", rounds_to(own)),)
        return Finding(method, Outcome.VIOLATED, (step,), controls, "one number", step, part=what)
    off = [("one more in the last digit", target + unit_off), ("one less in the last digit", target - unit_off)]
    controls = tuple(Control(words, not rounds_to(other)) for words, other in off)
    outcome = Outcome.PROVED if exact else Outcome.NO_VIOLATION
    return Finding(method, outcome, (step,), controls, "one number", part=what)


def exhaustive(
    scope: str,
    cases: Iterable[Case],
    holds: Callable[[Case], bool],
    *,
    false: Mapping[str, Callable[[Case], bool]],
    said: Callable[[Case], str] = str,
) -> Finding:
    """Tries every case. Controls: false variants of the statement, each of which must fail in some case."""
    count, remaining = 0, iter(cases)
    failed: dict[str, bool] = dict.fromkeys(false, False)
    for case in remaining:
        count += 1
        if not holds(case):
            text = f"{scope}: it fails for {said(case)}"
            control = Control("some other case passes", count > 1 or any(map(holds, itertools.islice(remaining, 99))))
            return Finding("all cases", Outcome.VIOLATED, (text,), (control,), scope, text)
        for words, variant in false.items():
            failed[words] = failed[words] or not variant(case)
    if not count:
        raise ValueError("`cases` must not be empty.")
    controls = tuple(Control(words, refuted) for words, refuted in failed.items())
    steps = (f"It holds in each of {count} cases.",)
    return Finding("all cases", Outcome.PROVED_FOR_SIZES, steps, controls, scope)


def sampled(
    scope: str,
    cases: Iterable[Case],
    holds: Callable[[Case], bool],
    *,
    false: Mapping[str, Callable[[Case], bool]],
    said: Callable[[Case], str] = str,
) -> Finding:
    """As `exhaustive` for cases that are a draw and not all there are: passing supports and does not prove."""
    found = exhaustive(scope, cases, holds, false=false, said=said)
    if found.outcome is not Outcome.PROVED_FOR_SIZES:
        return found
    return dataclasses.replace(found, method="drawn cases", outcome=Outcome.NO_VIOLATION)


_HOLDS: Mapping[str, Callable[[sp.Expr], bool]] = {
    "<=": lambda difference: bool(difference <= 0),
    "=": lambda difference: bool(sp.simplify(difference) == 0),
    ">=": lambda difference: bool(difference >= 0),
}


def _holds(left: Number, relation: str, right: Number) -> bool:
    return _HOLDS[relation](sp.sympify(left) - sp.sympify(right))


def _said(value: Number) -> str:
    exact = sp.sympify(value)
    return f"{exact}" if exact.is_Integer else f"{exact} = {sp.N(exact, 6)}"
