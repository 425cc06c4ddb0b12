r"""Identities of finite sums of symbolic length, such as $\sum_e \pi_e^2 = \sum_g m_g^2 \|q_g\|^2$ for every N and M.

Expressions are SymPy's: indexed symbols, indices (`Idx`) that know their range, `Sum` over them. `normal` brings such
an expression to a normal form: sums first, products of sums as joint sums, Kronecker deltas contracted, bound indices
renamed, assumed sums replaced. Two expressions with the same normal form are equal for all sizes; that a difference has
a normal form other than 0 proves nothing, so what is *not* equal is shown by evaluation instead.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import sympy as sp
from sympy import Expr, Idx, Indexed, IndexedBase, KroneckerDelta, Sum

Data = Mapping[str, np.ndarray]
"""Values of indexed symbols by name, for evaluation."""


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""$\sum_{index} body = result$, whatever the values of the other indices in `body`."""

    index: Idx
    body: Expr
    result: Expr


def total(body: Expr, *indices: Idx) -> Expr:
    """The sum of `body` over the whole range of each index, the first one outermost."""
    for index in reversed(indices):
        body = Sum(body, index)
    return body


def normal(expr: Expr, rules: Iterable[Rule] = (), indicators: Iterable[IndexedBase] = ()) -> Expr:
    """The normal form; 0 only if `expr` is 0 for all sizes, under the rules, with `indicators` being 0 or 1."""
    form = _Form(tuple(rules), frozenset(base.label for base in indicators))
    collected: dict[tuple[Expr, tuple[Idx, ...]], Expr] = {}
    for bound, product in form.terms(expr):
        scalar, rest = _split(product)
        collected[rest, bound] = collected.get((rest, bound), sp.S.Zero) + scalar
    parts = ((sp.cancel(scalar), rest, bound) for (rest, bound), scalar in collected.items())
    return sp.Add(*(scalar * total(rest, *bound) for scalar, rest, bound in parts))


def evaluate(expr: Expr, data: Data, sizes: Mapping[sp.Symbol, int]) -> np.ndarray:
    """Values over the ranges of the free indices (in the order of their names), in float64."""
    return evaluator(expr, sizes)(data)


def evaluator(expr: Expr, sizes: Mapping[sp.Symbol, int]) -> Callable[[Data], np.ndarray]:
    """`evaluate` for one expression and many data."""
    return _evaluator(expr, tuple(sizes.items()))


@functools.lru_cache(maxsize=64)  # sides are evaluated again and again, and compiling them takes most of the time
def _evaluator(expr: Expr, of: tuple[tuple[sp.Symbol, int], ...]) -> Callable[[Data], np.ndarray]:
    sizes = dict(of)
    free = sorted((i for i in expr.free_symbols if isinstance(i, Idx)), key=str)
    bases = sorted({i.base.label for i in expr.atoms(Indexed)}, key=str)
    scalars = sorted((s for s in expr.free_symbols - set(free) - set(bases) if not isinstance(s, Indexed)), key=str)
    function = sp.lambdify([*bases, *scalars, *free], expr, modules=["scipy", "numpy"])
    ranges = [int(_size(i).subs(sizes)) for i in free]

    def compute(data: Data) -> np.ndarray:
        given = [data[str(b)] for b in bases] + [sizes[s] if s in sizes else data[str(s)] for s in scalars]
        values = [float(function(*given, *place)) for place in itertools.product(*map(range, ranges))]
        return np.asarray(values).reshape(ranges)

    return compute


def _size(index: Idx) -> Expr:
    return index.upper - index.lower + 1


def _split(product: Expr) -> tuple[Expr, Expr]:
    """Factors that are numbers or plain symbols, and those with an index."""
    scalar, rest = sp.S.One, sp.S.One
    for factor in sp.Mul.make_args(product):
        if factor.has(Indexed, Idx, KroneckerDelta, Sum):
            rest *= factor
        else:
            scalar *= factor
    return scalar, rest


Term = tuple[tuple[Idx, ...], Expr]
"""Bound indices and the product that is summed over them."""


class _Form:
    """The rewriting behind `normal`."""

    def __init__(self, rules: tuple[Rule, ...], indicators: frozenset[sp.Symbol]):
        self.rules = rules
        self.indicators = indicators

    def terms(self, expr: Expr) -> Iterator[Term]:
        """Sums of products, each simplified and with bound indices named in a fixed way."""
        for bound, product in self._prenex(self._inner(sp.expand(expr))):
            yield from self._simplify(bound, product)

    def _inner(self, expr: Expr) -> Expr:
        """Normal forms inside what cannot be multiplied out: negative powers, logarithms, other functions."""
        if not expr.has(Sum):
            return expr
        if isinstance(expr, sp.Add | sp.Mul):
            return expr.func(*map(self._inner, expr.args))
        if isinstance(expr, Sum):
            return Sum(self._inner(sp.expand(expr.function)), *expr.limits)
        if isinstance(expr, sp.Pow) and expr.exp.is_Integer and expr.exp > 0:
            return self._inner(expr.base) ** expr.exp
        return sp.expand(expr.func(*(normal(arg, self.rules, self._bases()) for arg in expr.args)))

    def _bases(self) -> list[IndexedBase]:
        return [IndexedBase(label) for label in self.indicators]

    def _prenex(self, expr: Expr) -> Iterator[Term]:
        if isinstance(expr, sp.Add):
            for part in expr.args:
                yield from self._prenex(part)
        elif isinstance(expr, Sum) and expr.has(Sum):
            fresh = {limit[0]: Idx(sp.Dummy(integer=True), (limit[1], limit[2])) for limit in expr.limits}
            for bound, product in self._prenex(sp.expand(expr.function.xreplace(fresh))):
                yield (*fresh.values(), *bound), product
        elif isinstance(expr, sp.Mul) and expr.has(Sum):
            for parts in itertools.product(*(list(self._prenex(part)) for part in expr.args)):
                yield tuple(i for bound, _ in parts for i in bound), sp.Mul(*(product for _, product in parts))
        elif isinstance(expr, sp.Pow) and expr.exp.is_Integer and expr.exp > 0 and expr.base.has(Sum):
            copies = [list(self._prenex(expr.base)) for _ in range(int(expr.exp))]  # fresh indices in each
            for parts in itertools.product(*copies):
                yield tuple(i for bound, _ in parts for i in bound), sp.Mul(*(product for _, product in parts))
        else:
            yield (), expr

    def _simplify(self, bound: tuple[Idx, ...], product: Expr) -> Iterator[Term]:
        """One rewriting at a time, until none applies."""
        for rewritten in (self._delta(bound, product), self._idempotent(bound, product), self._rule(bound, product)):
            if rewritten is not None:
                left, changed = rewritten
                for more, part in self._prenex(sp.expand(changed)):
                    yield from self._simplify((*left, *more), part)
                return
        unused = [i for i in bound if not product.has(i)]
        product *= sp.Mul(*map(_size, unused))
        for part in sp.Add.make_args(sp.expand(product)):
            yield _named(tuple(i for i in bound if i not in unused), part)

    def _delta(self, bound: tuple[Idx, ...], product: Expr) -> Term | None:
        for factor in sp.Mul.make_args(product):
            if isinstance(factor, KroneckerDelta):
                for old, new in (factor.args, factor.args[::-1]):
                    if old in bound:
                        left = tuple(i for i in bound if i != old)
                        return left, (product / factor).xreplace({old: new})
        return None

    def _idempotent(self, bound: tuple[Idx, ...], product: Expr) -> Term | None:
        for factor in sp.Mul.make_args(product):
            if isinstance(factor, sp.Pow) and isinstance(factor.base, Indexed) and factor.exp.is_Integer:
                if factor.exp > 1 and factor.base.base.label in self.indicators:
                    return bound, product / factor * factor.base
        return None

    def _rule(self, bound: tuple[Idx, ...], product: Expr) -> Term | None:
        for index in bound:
            with_index = sp.Mul(*(f for f in sp.Mul.make_args(product) if f.has(index)))
            for rule in self.rules:
                result = _match(rule, index, with_index)
                if result is not None:
                    return tuple(i for i in bound if i != index), product / with_index * result
        return None


def _match(rule: Rule, index: Idx, part: Expr) -> Expr | None:
    if _size(rule.index) != _size(index):
        return None
    others = sorted((i for i in rule.body.free_symbols if isinstance(i, Idx) and i != rule.index), key=str)
    present = [i for i in part.free_symbols if isinstance(i, Idx) and i != index]
    for chosen in itertools.product(present, repeat=len(others)):
        renaming = {rule.index: index, **dict(zip(others, chosen, strict=True))}
        if rule.body.xreplace(renaming) == part:
            return rule.result.xreplace(renaming)
    return None


def _named(bound: tuple[Idx, ...], product: Expr) -> Term:
    """Bound indices named by range and place, in the order that gives the least expression."""
    by_size: dict[str, list[Idx]] = {}
    for index in bound:
        by_size.setdefault(str(_size(index)), []).append(index)
    names = {
        size: [Idx(sp.Symbol(f"_{size}{n}", integer=True), (i.lower, i.upper)) for n, i in enumerate(members)]
        for size, members in by_size.items()
    }
    candidates = []
    for orders in itertools.product(*(itertools.permutations(members) for members in by_size.values())):
        renaming = {
            old: new
            for order, size in zip(orders, by_size, strict=True)
            for old, new in zip(order, names[size], strict=True)
        }
        candidates.append(product.xreplace(renaming))
    every: Sequence[Idx] = [name for size in sorted(names) for name in names[size]]
    return tuple(every), min(candidates, key=sp.default_sort_key) if len(candidates) > 1 else candidates[0]
