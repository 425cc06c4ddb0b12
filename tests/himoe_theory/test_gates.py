"""Gates: by hand, by loops over tokens and experts in NumPy, and their gradients against differences."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from himoe_theory import Partition, gates

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 3))
CODES = RNG.normal(size=(6, 3))
UNEQUAL = Partition((0, 2, 0, 1, 2, 0))
GROUPS, EXPERTS = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 6))
MEANS = RNG.normal(size=(6, 2, 3))
LOG_STD, LOG_WEIGHTS = 0.3 * RNG.normal(size=(6, 2)), RNG.normal(size=(6, 2))
MAPS = RNG.normal(size=(6, 3, 5))
BITS, MIX = 0.4 * RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 2))
CELL = gates.Cell(*(jnp.asarray(RNG.normal(size=shape)) for shape in ((12, 3), (12, 4), (12,), (4,))))
MEMORY = np.tanh(RNG.normal(size=(4, 4)))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def softmax(values):
    raised = np.exp(values - values.max())
    return raised / raised.sum()


def test_two_levels_are_the_product_of_both():
    found = gates.two_level_logits(jnp.asarray(GROUPS), jnp.asarray(EXPERTS), UNEQUAL)
    for t in range(4):
        p = softmax(GROUPS[t])
        for g in range(3):
            members = UNEQUAL.members(g)
            close(np.exp(found[t, members]), p[g] * softmax(EXPERTS[t, members]))
    close(jax.nn.softmax(found), np.exp(found))


def test_a_group_far_below_another_keeps_its_inner_choice():
    experts = jnp.asarray([[0.0, 1000.0, 0.0, -800.0, 1000.0, math.log(2)]])
    found = gates.two_level_logits(jnp.zeros((1, 3)), experts, UNEQUAL)
    close(found, np.log(1 / 3) + np.log([[1 / 4, 1 / 2, 1 / 4, 1, 1 / 2, 1 / 2]]))


def test_pairs_are_independent():
    rows, columns = GROUPS, EXPERTS[:, :2]
    found = jax.nn.softmax(gates.pair_logits(jnp.asarray(rows), jnp.asarray(columns)))
    for t in range(4):
        close(found[t], [a * b for a, b in itertools.product(softmax(rows[t]), softmax(columns[t]))])


def test_the_nearest_code_wins():
    found = gates.code_logits(jnp.asarray(X), jnp.asarray(CODES))
    close(found, [[-sum((x - c) ** 2) for c in CODES] for x in X])
    near = gates.code_logits(jnp.asarray(CODES[[4, 1]] + 1e-3), jnp.asarray(CODES))
    assert near.argmax(axis=1).tolist() == [4, 1]


def test_quantisation_moves_codes_and_tokens_apart_from_each_other():
    """Two tokens, codes at distances 1 and 3 on a line; the far code has no token and stays."""
    x, codes = jnp.asarray([[1.0], [4.0]]), jnp.asarray([[0.0], [7.0], [100.0]])
    value, (of_x, of_codes) = jax.value_and_grad(lambda x, c: gates.quantisation(x, c, commitment=0.5), argnums=(0, 1))(
        x, codes
    )
    close(value, 1.5 * (1 + 9) / 2)
    close(of_x, [[0.5 * 2 * 1 / 2], [0.5 * 2 * -3 / 2]])
    close(of_codes, [[-2 * 1 / 2], [2 * 3 / 2], [0]])


def test_the_mixture_is_a_sum_of_densities():
    found = gates.mixture_logits(*map(jnp.asarray, (X, MEANS, LOG_STD, LOG_WEIGHTS)))
    weights = softmax(LOG_WEIGHTS.ravel()).reshape(6, 2)
    density = np.zeros((4, 6))
    for t, e, c in itertools.product(range(4), range(6), range(2)):
        std = math.exp(LOG_STD[e, c])
        square = sum((X[t] - MEANS[e, c]) ** 2)
        density[t, e] += weights[e, c] * math.exp(-square / (2 * std**2)) / (math.sqrt(2 * math.pi) * std) ** 3
    close(found, np.log(density))
    close(gates.mixture_log_likelihood(found), np.log(density.sum(axis=1)).mean())


def test_one_component_far_away_is_still_finite():
    found = gates.mixture_logits(jnp.full((1, 2), 1e4), jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    close(found, [[-1e8 - math.log(2 * math.pi)]])


def test_norms_are_those_of_each_expert_s_activation():
    close(
        gates.norm_logits(jnp.asarray(X), jnp.asarray(MAPS)),
        [[np.linalg.norm(x @ one) for one in MAPS] for x in X],
    )
    slope = jax.grad(lambda x: gates.norm_logits(x, jnp.asarray(MAPS)).sum())(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(slope, np.zeros((2, 3)))


def test_the_cell_is_equinox_s():
    """Whose parts are stacked in the same order."""
    cell = eqx.nn.GRUCell(3, 4, key=jax.random.key(0))
    cell = eqx.tree_at(lambda c: (c.weight_ih, c.weight_hh, c.bias, c.bias_n), cell, tuple(CELL))
    found = gates.recur(CELL, jnp.asarray(X), jnp.asarray(MEMORY))
    close(found, [cell(jnp.asarray(x), jnp.asarray(h)) for x, h in zip(X, MEMORY, strict=True)])
    assert float(jnp.abs(found).max()) < 1


def test_the_smooth_step_and_its_plateaus():
    z = jnp.asarray([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    close(gates.smooth_step(z, 2.0), [0, 0, 0.5 - 0.375 - 0.25 * -0.125, 0.5, 0.84375, 1, 1])
    slope = jax.vmap(jax.grad(lambda z: gates.smooth_step(z, 2.0)))(z)
    close(slope, [0, 0, 0.5625, 0.75, 0.5625, 0, 0])


def test_bits_are_a_product_for_every_expert_and_selector():
    """Six experts of eight codes: what the two codes without an expert hold is lost, softmax divides by the rest."""
    found = np.exp(gates.bit_logits(jnp.asarray(BITS), jnp.asarray(MIX), 6))
    on, mix = np.asarray(gates.smooth_step(jnp.asarray(BITS))), [softmax(row) for row in MIX]
    for t, e in itertools.product(range(4), range(6)):
        total = 0.0
        for i in range(2):
            factors = [on[t, i, j] if (e >> j) & 1 else 1 - on[t, i, j] for j in range(3)]
            total += mix[t][i] * math.prod(factors)
        close(found[t, e], total)


def test_decided_bits_leave_one_expert_a_selector_and_no_gradient():
    bits = jnp.asarray([[[2.0, -2.0, 2.0], [-2.0, 2.0, -2.0]]])  # experts 5 and 2
    mix = jnp.asarray([[math.log(3.0), 0.0]])
    probs = jax.nn.softmax(gates.bit_logits(bits, mix, 6))
    close(probs, [[0, 0, 0.25, 0, 0, 0.75]])
    slope = jax.grad(lambda bits: jax.nn.softmax(gates.bit_logits(bits, mix, 6))[0, 5])(bits)
    np.testing.assert_array_equal(slope, np.zeros_like(bits))


def test_tables_and_even_hashes():
    found = gates.table_logits(jnp.asarray([2, 0, 2]), np.asarray([1, 0, 3]), 4, height=5.0)
    close(found, [[0, 0, 0, 5], [0, 5, 0, 0], [0, 0, 0, 5]])
    table = gates.hashed(100, 8, seed=3)
    assert sorted(np.bincount(table, minlength=8).tolist()) == [12] * 4 + [13] * 4
    assert (table == gates.hashed(100, 8, seed=3)).all()
    assert (table != gates.hashed(100, 8, seed=4)).any()


def test_jitter_is_uniform_for_every_entry():
    x = jnp.full((2000, 2), -3.0)
    factor = np.asarray(gates.jittered(jax.random.key(0), x, 0.25)) / -3
    assert 0.75 <= factor.min() < 0.751
    assert 1.249 < factor.max() <= 1.25
    assert abs(np.corrcoef(factor.T)[0, 1]) < 4 / math.sqrt(2000)  # entries of a token are drawn apart
    np.testing.assert_array_equal(gates.jittered(jax.random.key(0), x, 0.0), x)


def test_jitter_for_the_gate_alone_by_its_exact_probability():
    """x = (1, 1), rows (1, 0) and (0, .99): expert 1 wins where .99 u' > u for u, u' uniform on (.9, 1.1). Its share of
    400,000 draws is within 5 standard errors (.0039) of the exact .4510."""
    draws = 400_000
    seen = gates.jittered(jax.random.key(1), jnp.ones((draws, 2)), 0.1)
    second = np.asarray(seen @ jnp.asarray([[1.0, 0.0], [0.0, 0.99]]).T).argmax(axis=1).mean()
    # The area of {0.99 v > u} in the square: v above 1.1/0.99 is none; below, u runs from 0.9 to 0.99 v.
    low, high = 0.9 / 0.99, 1.1
    exact = ((0.99 * high**2 / 2 - 0.9 * high) - (0.99 * low**2 / 2 - 0.9 * low)) / 0.2**2
    assert round(exact, 4) == 0.4510
    assert abs(second - exact) < 5 * math.sqrt(exact * (1 - exact) / draws)


@pytest.mark.parametrize(
    ("gate", "arguments"),
    [
        (lambda a, b: gates.two_level_logits(a, b, UNEQUAL), (GROUPS, EXPERTS)),
        (gates.pair_logits, (GROUPS, EXPERTS)),
        (gates.code_logits, (X, CODES)),
        (gates.mixture_logits, (X, MEANS, LOG_STD, LOG_WEIGHTS)),
        (gates.norm_logits, (X, MAPS)),
        (lambda a, b: gates.bit_logits(a, b, 6), (BITS, MIX)),
        (lambda x, h, *cell: gates.recur(gates.Cell(*cell), x, h), (X, MEMORY, *CELL)),
    ],
    ids=["two-level", "pair", "code", "mixture", "norm", "bit", "recur"],
)
def test_gradients_against_differences(gate, arguments):
    def of_arrays(*numbers):
        return gate(*map(jnp.asarray, numbers))

    check_grads(of_arrays, arguments, order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gates.two_level_logits(jnp.ones((4, 2)), jnp.asarray(EXPERTS), UNEQUAL), r"\(4, 3\).*got \(4, 2\)"),
        (lambda: gates.code_logits(jnp.ones((1, 2)), jnp.ones((1, 3))), "2 dimensions, experts have 3"),
        (lambda: gates.norm_logits(jnp.ones((1, 2)), jnp.ones((1, 3, 4))), "2 dimensions, maps of experts have 3"),
        (lambda: gates.bit_logits(jnp.ones((1, 2, 2)), jnp.ones((1, 2)), 6), "3 a selector for 6 experts; got 2"),
        (
            lambda: gates.mixture_logits(jnp.ones((1, 2)), jnp.ones((3, 1, 2)), jnp.ones((3, 1)), jnp.ones((3, 2))),
            r"fit 2 dimensions.*\(3, 2\)",
        ),
        (lambda: gates.smooth_step(jnp.ones(1), 0.0), "`width`"),
        (lambda: gates.jittered(jax.random.key(0), jnp.ones((1, 1)), -1.0), "`epsilon`.*-1"),
        (lambda: gates.hashed(0, 3), "`vocabulary` must be at least 1; got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
