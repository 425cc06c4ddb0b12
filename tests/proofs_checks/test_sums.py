"""The calculus of sums, against evaluation on random data."""

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import KroneckerDelta

from proofs_checks.notation import SIZES, B, M, N, T, c, e, g, generic, h, index, j, p, t
from proofs_checks.sums import Rule, evaluate, normal, total

DATA = generic(np.random.default_rng(0))

ATOMS = (
    p[t, e],
    p[t, j],
    B[g, e],
    B[h, e],
    c[t, e],
    KroneckerDelta(e, j),
    KroneckerDelta(g, h),
    sp.Integer(2),
    N,
    1 / T,
)
INDICES = (t, e, j, g, h)


@st.composite
def sums(draw: st.DrawFn) -> sp.Expr:
    """A sum of nested sums of products, closed over every index."""
    total_ = sp.S.Zero
    for _ in range(draw(st.integers(1, 2))):
        product = sp.Mul(*draw(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=3)))
        for i in draw(st.permutations(INDICES)):
            # Multiplied in halfway, so that sums of different depth stand beside each other.
            product = total(product, i) * draw(st.sampled_from((sp.S.One, p[t, e] if i not in (t, e) else sp.S.One)))
        total_ += draw(st.sampled_from((1, -2))) * product
    return total_


@settings(max_examples=max(8, settings.default.max_examples // 3))  # each takes a fifth of a second
@given(sums())
def test_a_normal_form_has_the_same_value(expr):
    form = normal(expr)
    np.testing.assert_allclose(evaluate(form, DATA, SIZES), evaluate(expr, DATA, SIZES), rtol=1e-9)


@settings(max_examples=max(8, settings.default.max_examples // 3))  # each takes a fifth of a second
@given(sums())
def test_order_of_summation_does_not_matter(expr):
    def swapped(e_: sp.Expr) -> sp.Expr:
        return e_.replace(sp.Sum, lambda f, *limits: sp.Sum(f, *limits[::-1]))

    assert normal(expr - swapped(expr)) == 0
    assert normal(expr - swapped(expr) + 1) != 0


def test_products_of_sums_are_joint_sums():
    assert normal(total(p[t, e], e) ** 2 - total(p[t, e] * p[t, j], e, j)) == 0
    assert normal(total(p[t, e], e) ** 2 - total(p[t, e] ** 2, e)) != 0


def test_a_delta_contracts_and_an_empty_sum_counts():
    assert normal(total(KroneckerDelta(e, j) * p[t, e], e) - p[t, j]) == 0
    assert normal(total(sp.S.One, e, g) - N * M) == 0


def test_rules_apply_whatever_the_other_index():
    rows = Rule(e, p[t, e], sp.S.One)
    other = index("other", T)
    assert normal(total(p[other, e], e, other) - T, [rows]) == 0
    assert normal(total(p[other, e], e, other) - T) != 0


def test_a_rule_does_not_apply_to_another_range():
    squares = Rule(e, p[t, e], sp.S.One)
    over_tokens = total(p[t, j], t)  # the same base, summed over the other index
    assert normal(over_tokens - 1, [squares]) != 0


def test_indicators_are_idempotent_only_if_declared():
    assert normal(B[g, e] ** 3 - B[g, e], indicators=[B]) == 0
    assert normal(B[g, e] ** 3 - B[g, e]) != 0


def test_sums_inside_a_logarithm_are_normalised():
    twice = sp.log(total(p[t, e] + p[t, e], e))
    assert normal(twice - sp.log(2 * total(p[t, j], j))) == 0
    assert normal(twice - sp.log(3 * total(p[t, j], j))) != 0


@pytest.mark.parametrize("sign", [1, -1])
def test_lagrange_identity(sign):
    difference = N * total(p[t, e] ** 2, e) - total(p[t, e], e) ** 2
    squares = total((p[t, e] - p[t, j]) ** 2, e, j) / 2
    assert (normal(difference - sign * squares) == 0) is (sign == 1)
