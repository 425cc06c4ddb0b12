"""The claim about what minimises the load loss with hard counts, which is not uniform routing."""

import fractions
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import objectives

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..search import search
from ..solvers import reals
from ..witnesses import exhaustive, witness

F = fractions.Fraction


def lowest(experts: int) -> F:
    """What `HARD_MINIMUM` says is the infimum of the load with hard first choices."""
    return F(7, 8) if experts == 2 else F(experts, (experts + 1) ** 2 // 4)


def _exact_load(rows: Sequence[Sequence[F]]) -> F:
    """N sum h P; the first of a row's largest entries is its choice."""
    choices = [list(row).index(max(row)) for row in rows]
    experts, tokens = len(rows[0]), len(rows)
    share = [F(choices.count(x), tokens) for x in range(experts)]
    return experts * sum(share[x] * sum(row[x] for row in rows) / tokens for x in range(experts))


def _computed_load(rows: Sequence[Sequence[F]]) -> Array:
    logits = jnp.log(jnp.asarray([[float(x) or 1e-30 for x in row] for row in rows]))
    return objectives.load(logits, jax.nn.one_hot(logits.argmax(1), logits.shape[1], dtype=bool))


def _attaining(experts: int) -> list[list[F]]:
    """Probabilities whose hard load is the infimum; ties go to the expert of lower number, which is live."""
    if experts == 2:
        return [[F(1, 2), F(1, 2)]] * 3 + [[F(0), F(1)]]
    live = (experts + 1) // 2
    each = F(1, experts - live + 1)
    return [[each if x == a or x >= live else F(0) for x in range(experts)] for a in range(live)]


def as_sympy(value: F) -> sp.Rational:
    return sp.Rational(value.numerator, value.denominator)


def _nine_and_one(effort: Effort) -> Iterator[Finding]:
    rows = [[F(51, 100), F(49, 100)]] * 9 + [[F(0), F(1)]]
    exact = _exact_load(rows)
    yield witness(
        "nine tokens with probabilities (.51, .49) and one with (0, 1)",
        exact,
        ">=",
        1,
        holds_at={"all tokens (1/2, 1/2)": (F(1), F(1)), "ten tokens (0, 1)": (F(2), F(1))},
        code=[(_computed_load(rows), as_sympy(exact))],
    )


def _means(experts: int) -> list[list[list[int]]]:
    """For each choice a, the sets that can be best for its tokens: a and the k smallest shares among the others."""
    others = [[x for x in range(experts) if x != a] for a in range(experts)]
    return [[[a, *rest[:k]] for k in range(experts)] for a, rest in enumerate(others)]


def _coefficient(experts: int, a: int, b: int, sets: Sequence[Sequence[int]], bound: F) -> F:
    """Of y_a y_b (b >= a) in the loss less the bound, where h_e = y_0 + ... + y_e; linear in each choice's set."""
    part = sum(
        (F((i >= a) * sum(x >= b for x in chosen) + (i >= b) * sum(x >= a for x in chosen), len(chosen)))
        for i, chosen in enumerate(sets)
    )
    return experts * part - 2 * bound * (experts - a) * (experts - b)


def _visible(experts: int, bound: F) -> bool:
    """Whether every coefficient is non-negative, whichever set each choice uses: each set is minimised by itself."""
    options = _means(experts)

    def least(a: int, b: int) -> F:
        parts = (
            min(F((i >= a) * sum(x >= b for x in o) + (i >= b) * sum(x >= a for x in o), len(o)) for o in options[i])
            for i in range(a, experts)
        )
        return experts * sum(parts) - 2 * bound * (experts - a) * (experts - b)

    return all(least(a, b) >= 0 for a in range(experts) for b in range(a, experts))


def _forms(experts: int) -> Iterator[tuple[int, Sequence[Sequence[int]]]]:
    """Every choice of a set for each expert's tokens."""
    return ((experts, sets) for sets in itertools.product(*_means(experts)))


def _nonnegative(case: tuple[int, Sequence[Sequence[int]]], more: F, effort: Effort) -> bool:
    """Whether one such quadratic form is non-negative for non-negative steps: by its coefficients, else by z3."""
    experts, sets = case
    bound = lowest(experts) + more
    pairs = itertools.combinations_with_replacement(range(experts), 2)
    found = {(a, b): _coefficient(experts, a, b, sets, bound) / (1 + (a == b)) for a, b in pairs}
    if min(found.values()) >= 0:
        return True
    y = reals("y", experts)
    terms = [z3.Q(c.numerator, c.denominator) * y[a] * y[b] for (a, b), c in found.items()]
    solver = z3.Solver()
    solver.set("timeout", int(1000 * effort.seconds))
    solver.add(*[step >= 0 for step in y], z3.Sum(terms) < 0)
    answer = solver.check()
    if answer == z3.unknown:
        raise AssertionError(f"z3 gave up on {sets}")
    return answer == z3.unsat


def _infimum(effort: Effort) -> Iterator[Finding]:
    yield exhaustive(
        "2 to 4 experts: nothing is lower, whichever sets",
        itertools.chain.from_iterable(map(_forms, (2, 3, 4))),
        lambda case: _nonnegative(case, F(0), effort),
        false={"one hundredth more": lambda case: _nonnegative(case, F(1, 100), effort)},
    )
    yield exhaustive(
        "5 to 10 experts: nothing is lower",
        range(5, 11),
        lambda experts: _visible(experts, lowest(experts)),
        false={"one hundredth more": lambda experts: _visible(experts, lowest(experts) + F(1, 100))},
    )
    yield exhaustive(
        "2 to 32 experts: the bound is attained",
        range(2, 33),
        lambda experts: _exact_load(_attaining(experts)) == lowest(experts),
        false={"4/N for all N": lambda experts: _exact_load(_attaining(experts)) == F(4, experts)},
    )
    experts = 4
    np.testing.assert_allclose(_computed_load(_attaining(experts)), float(lowest(experts)), rtol=1e-9)

    def sides(point: Array) -> tuple[Array, Array]:
        share = jax.nn.softmax(point[:experts])
        free = point[experts:].reshape(experts, experts)
        own = jnp.eye(experts, dtype=bool)
        logits = jnp.where(own, free.max(axis=1, keepdims=True), free)  # a token's own choice is a largest
        losses = jax.vmap(lambda row: objectives.load_for_share(row[None], share))(logits)
        return jnp.asarray(float(lowest(experts))), (share * losses).sum()

    yield search(sides, experts + experts**2, effort, false_factor=0.9, what="4 experts; shares and logits")


HARD_MINIMUM = Claim(
    id="load/hard-minimum",
    statement=r"N \sum_e h_e P_e \ge 1",
    words="With hard counts, uniform routing minimises the load loss.",
    source="[switch] eq. (4)",
    recorded=Verdict.CORRECTED,
    check=_nine_and_one,
    assumptions=("every token counts for its most probable expert", "h sums to 1"),
    functions=(objectives.load, objectives.load_for_share),
    correction=Correction(
        statement=r"\min N \sum_e h_e P_e = \frac{N}{\lfloor (N+1)^2/4 \rfloor} \; (N \ge 3), \quad 7/8 \; (N = 2)",
        words="About half of the experts dead, each live expert's tokens sharing their probability with all dead ones.",
        check=_infimum,
    ),
    remark="Given the shares, the loss is linear in each token's probabilities, so that those of choice a do best with "
    "the uniform distribution over a and the smallest shares. With shares in ascending order, written as sums of "
    "non-negative steps, the loss less the bound is a quadratic form in the steps; its coefficients are non-negative "
    "from 5 experts on (a coefficient is at least a multiple of N/((a+1)(N-a)) less the bound, or of (N+1)/(2N) less "
    "the bound, which needs N^2 - 5N + 2 >= 0), and 2 to 4 are decided. It is a minimum where ties go to a live "
    "expert, else an infimum.",
)

CLAIMS = (HARD_MINIMUM,)
