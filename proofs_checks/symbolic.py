"""Proofs with SymPy: identities for all sizes, identities size by size, and sum-of-squares certificates.

Each method also runs on false variants of the statement (right side doubled, its sign changed, an assumption left out,
and what the caller adds), none of which it may prove and each of which must differ when evaluated. Where `code` is
given, the proven right side is evaluated and compared with that function of himoe_theory, so that the two cannot drift
apart.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import sympy as sp
from sympy import Expr, Idx, IndexedBase

from . import sums
from .attack import Attack, attack, attack_on
from .ledger import Control, Finding, Outcome
from .notation import INDICATORS, SIZES, Assumption, generic

AGREE = 1e-9
"""Relative difference below which two evaluations in float64 agree; variants must differ by 1e-4."""
DIFFER = 1e-4


Sample = Callable[[np.random.Generator], dict[str, np.ndarray]]


def identity(
    left: Expr,
    right: Expr,
    *,
    assumptions: Sequence[Assumption] = (),
    variants: Mapping[str, Expr] | None = None,
    code: Callable[[sums.Data], object] | None = None,
    more_code: Sequence[tuple[Expr, Callable[[sums.Data], object]]] = (),
    sample: Sample = generic,
    indicators: Sequence[IndexedBase] = INDICATORS,
    sizes: Mapping[sp.Symbol, int] = SIZES,
) -> Finding:
    """Proves left = right for all sizes, by the normal form of sums; or finds values where they differ.

    **Arguments:** `assumptions`: each must be needed, as leaving it out is a control. `variants`: other false right
    sides by name. `code`: what himoe_theory computes from the sampled data, over the free indices in the order of their
    names. `more_code`: other expressions that went into the proof, such as the value that `left` is the derivative of,
    each with what himoe_theory computes for it. `sample`: generic data by name, on which the assumptions are then
    imposed.
    """
    setting = _Setting(tuple(assumptions), sample, tuple(indicators), sizes)
    proved = setting.vanishes(left - right)
    sides = [setting.value(side) for side in (left, right)]
    agree = _close(*sides)
    if proved and not agree:
        raise AssertionError(f"normal form 0, but the sides evaluate to {sides[0]} and {sides[1]}")
    if not proved and agree:
        raise AssertionError(f"the sides agree when evaluated, but no normal form 0: {setting.normal(left - right)}")
    if not agree:
        control = Control("both sides the same", setting.vanishes(left - left))
        shown = f"at {_shown(setting.data, left - right)} the sides are {sides[0]} and {sides[1]}"
        return Finding("evaluation", Outcome.VIOLATED, ("The sides differ when evaluated.",), (control,), "", shown)
    steps = [
        f"Left side: ${latex(left)}$",
        f"Right side: ${latex(right)}$",
        *(f"Assumed: {assumption.words}." for assumption in assumptions),
        "The difference has normal form 0: sums pulled to the front, deltas contracted, bound indices renamed, "
        "assumed sums replaced.",
    ]
    if code is not None:
        _compare(code(setting.data), sides[1])
        steps.append("The right side, evaluated in float64, agrees with himoe_theory to 1e-9.")
    for expr, computes in more_code:
        _compare(computes(setting.data), setting.value(expr))
        steps.append(f"So does ${latex(expr)}$.")
    controls = tuple(_controls(setting, left, right, variants or {}))
    attack = setting.attack(left, right)
    return Finding("identity of sums (SymPy)", Outcome.PROVED, tuple(steps), controls, "all sizes", attack=attack)


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What an identity is proved and evaluated under."""

    assumptions: tuple[Assumption, ...]
    sample: Sample
    indicators: tuple[IndexedBase, ...]
    sizes: Mapping[sp.Symbol, int]

    @functools.cached_property
    def data(self) -> dict[str, np.ndarray]:
        """Generic values on which the assumptions are imposed, in their order."""
        return self._imposed(self.sample(np.random.default_rng(7)))

    def _imposed(self, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return functools.reduce(lambda values, assumption: assumption.impose(values), self.assumptions, drawn)

    def normal(self, expr: Expr) -> Expr:
        return sums.normal(expr, [rule for a in self.assumptions for rule in a.rules], self.indicators)

    def vanishes(self, expr: Expr) -> bool:
        return self.normal(expr) == 0

    def value(self, expr: Expr) -> np.ndarray:
        return sums.evaluate(expr, self.data, self.sizes)

    def attack(self, left: Expr, right: Expr) -> Attack | None:
        compute = [sums.evaluator(side, self.sizes) for side in (left, right)]

        def sides(drawn: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            data = self._imposed(dict(drawn))
            return compute[0](data), compute[1](data)

        return attack(self.sample(np.random.default_rng(11)), sides, AGREE)


_FACTORS = {"constant: right side doubled": 2, "sign: right side negated": -1}


def _false(right: Expr) -> dict[str, Expr]:
    """Wrong right sides that every equality has."""
    if right == 0:
        return {"constant: right side 1 instead of 0": sp.S.One}
    return {words: factor * right for words, factor in _FACTORS.items()}


def _controls(setting: _Setting, left: Expr, right: Expr, variants: Mapping[str, Expr]) -> Iterator[Control]:
    """False right sides and left out assumptions: none may be proved, all must differ when evaluated.

    The normal form is linear, and left - right has form 0: a multiple c of the right side is proved just if (c - 1)
    times the right side has form 0. This spares most of the work.
    """
    value, own = setting.value(left), setting.value(right)
    if right != 0:
        stays = not setting.vanishes(right)
        for words, factor in _FACTORS.items():
            yield Control(words, stays and _differ(value, np.asarray(factor * own)))
    for words, variant in {**(_false(right) if right == 0 else {}), **variants}.items():
        different = _differ(value, np.broadcast_to(setting.value(variant), value.shape))
        yield Control(words, different and not setting.vanishes(left - variant))
    for dropped in setting.assumptions:
        kept = tuple(assumption for assumption in setting.assumptions if assumption is not dropped)
        less = dataclasses.replace(setting, assumptions=kept)
        different = _differ(less.value(left), less.value(right))
        yield Control(f"assumption left out: {dropped.words}", different and not less.vanishes(left - right))


def for_sizes(
    scope: str,
    cases: Iterable[tuple[Expr, Expr]],
    *,
    variants: Callable[[Expr], Mapping[str, Expr]] | None = None,
) -> Finding:
    """Proves left = right for each case, an identity in finitely many real symbols that SymPy reduces to 0.

    **Arguments:** `scope`: the sizes, in words. `cases`: (left, right). `variants`: false right sides made from a right
    side.
    """
    count = 0
    controls: dict[str, bool] = {}
    for left, right in cases:
        count += 1
        if not _zero(left - right):
            symbols = _random_rationals(left - right)
            values = [sp.nsimplify(side.subs(symbols)) for side in (left, right)]
            if _number(values[0] - values[1]) < 1e-12:
                raise AssertionError(f"the sides agree at {symbols}, but SymPy does not reduce their difference to 0")
            same = Control("both sides the same", _zero(left - left))
            shown = f"at {symbols} the sides are {values[0]} and {values[1]}"
            return Finding("evaluation", Outcome.VIOLATED, ("The sides differ.",), (same,), scope, shown)
        for words, variant in {**_false(right), **(variants(right) if variants else {})}.items():
            difference = left - variant
            refuted = not _zero(difference) and _number(difference.subs(_random_rationals(difference))) > 1e-9
            controls[words] = controls.get(words, True) and refuted
    if not count:
        raise ValueError("`cases` must not be empty.")
    step = f"In each of {count} cases SymPy reduces the difference of the sides to 0; the last: ${latex(left)}$ is "
    steps = (f"{step}${latex(right)}$.",)
    told = tuple(Control(words, passed) for words, passed in controls.items())
    # The last case is the largest; for one attack there is time.
    return Finding("identity (SymPy)", Outcome.PROVED_FOR_SIZES, steps, told, scope, attack=attack_on(left, right))


def equation(left: Expr, right: Expr, *, variants: Mapping[str, Expr] | None = None, why: str = "") -> Finding:
    """Proves left = right, an identity in real symbols without sizes."""
    found = for_sizes("", [(left, right)], variants=lambda _: variants or {})
    outcome = Outcome.PROVED if found.outcome is Outcome.PROVED_FOR_SIZES else found.outcome
    steps = ((why,) if why else ()) + found.steps
    return dataclasses.replace(found, outcome=outcome, steps=steps, scope="all values")


def certificate(
    difference: Expr,
    nonnegative: Expr,
    *,
    assumptions: Sequence[Assumption] = (),
    sample: Sample = generic,
    code: Callable[[sums.Data], object] | None = None,
    more_code: Sequence[tuple[Expr, Callable[[sums.Data], object]]] = (),
    variants: Mapping[str, Expr] | None = None,
    sizes: Mapping[sp.Symbol, int] = SIZES,
) -> Finding:
    """Proves an inequality difference >= 0: it equals an expression that is visibly a sum of non-negative terms.

    `nonnegative` must be built from squares of real expressions, non-negative symbols, sums, products and positive
    numbers. That this test of form can fail is a control: the negated expression must not pass.
    """
    found = identity(
        difference,
        nonnegative,
        assumptions=assumptions,
        sample=sample,
        code=code,
        more_code=more_code,
        variants=variants,
        sizes=sizes,
    )
    if found.outcome is not Outcome.PROVED:
        return found
    if not visibly_nonnegative(nonnegative):
        raise AssertionError(f"not visibly non-negative: {nonnegative}")
    form = Control("the negated certificate as a sum of squares", not visibly_nonnegative(-nonnegative))
    steps = (*found.steps, "The right side is a sum of squares and products of non-negative numbers.")
    return dataclasses.replace(
        found, method="sum-of-squares certificate (SymPy)", controls=(*found.controls, form), steps=steps
    )


def visibly_nonnegative(expr: Expr) -> bool:
    """Whether the form of an expression alone shows that it is not negative."""
    if isinstance(expr, sp.Sum):
        return visibly_nonnegative(expr.function)
    if isinstance(expr, sp.Add | sp.Mul):
        return all(map(visibly_nonnegative, expr.args))
    if isinstance(expr, sp.Pow):
        even = expr.exp.is_Integer and expr.exp % 2 == 0
        return bool(even and _real(expr.base)) or visibly_nonnegative(expr.base)
    if isinstance(expr, sp.KroneckerDelta):
        return True
    return bool(expr.is_nonnegative)


def latex(expr: Expr) -> str:
    """LaTeX in which an index is its name; SymPy would add its range each time."""
    indices = {i: sp.Symbol(str(i).strip("_")) for i in expr.atoms(Idx)}
    return sp.latex(expr.xreplace(indices))


def _real(expr: Expr) -> bool:
    """Every leaf real, every operation closed over the reals."""
    if isinstance(expr, sp.Sum):
        return _real(expr.function)
    if isinstance(expr, sp.Add | sp.Mul):
        return all(map(_real, expr.args))
    if isinstance(expr, sp.Pow):
        return bool(expr.exp.is_Integer) and _real(expr.base)
    return isinstance(expr, sp.KroneckerDelta) or bool(expr.is_real)


def _scale(*arrays: np.ndarray) -> float:
    return max(float(np.abs(a).max(initial=0.0)) for a in arrays) or 1.0


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    # Beside an exact 0 nothing but rounding is left to set a scale: the data are of order 1.
    scale = _scale(a, b) if a.any() and b.any() else max(1.0, _scale(a, b))
    return bool(np.abs(a - b).max() <= AGREE * scale)


def _differ(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() > DIFFER * _scale(a, b))


def _compare(computed: object, expected: np.ndarray) -> None:
    found = np.asarray(computed, dtype=np.float64)
    if found.shape != expected.shape or not _close(found, expected):
        raise AssertionError(f"himoe_theory computes {found}, the proven expression {expected}")


def _shown(data: sums.Data, expr: Expr) -> str:
    names = {str(i.base.label) for i in expr.atoms(sp.Indexed)}
    return "; ".join(f"{name} = {np.round(value, 3).tolist()}" for name, value in data.items() if name in names)


def _zero(expr: Expr) -> bool:
    """Whether SymPy reduces it to 0: as a rational function first, which is quick and decides those, then by all its
    rules."""
    reduced = sp.cancel(sp.together(expr))
    if reduced == 0:
        return True
    powers = all(power.exp.is_Integer for power in expr.atoms(sp.Pow))
    rational = powers and not expr.atoms(sp.Function, sp.NumberSymbol, sp.Sum) and not expr.has(sp.I)
    return not rational and sp.simplify(expr) == 0


def _random_rationals(expr: Expr) -> dict[Expr, Expr]:
    rng = np.random.default_rng(3)
    free = sorted((s for s in expr.free_symbols if not isinstance(s, Idx)), key=str)
    return {symbol: sp.Rational(int(rng.integers(2, 40)), 41) for symbol in free}


def _number(expr: Expr) -> float:
    return abs(complex(sp.N(expr, 30)))
