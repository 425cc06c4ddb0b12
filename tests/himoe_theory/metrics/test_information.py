"""Information between labels and experts, against scikit-learn, enumeration of permutations, and loops."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from himoe_theory import metrics

from .cases import LABELS, PROBS, SELECTED, check_slope, loose_selections, probabilities, run, selections, slope

COUNTS = np.array([[3.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 5.0]])


@st.composite
def tables(draw):
    """Counts in which rows, columns or everything may be empty."""
    shape = draw(st.sampled_from([(1, 1), (1, 4), (3, 1), (3, 4)]))
    counts = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 9)))
    return counts * draw(hnp.arrays(bool, shape[1])) * draw(hnp.arrays(bool, (shape[0], 1)))


@st.composite
def assignments(draw, sizes=(1, 2, 3, 4, 5), kinds=3):
    size = draw(st.sampled_from(sizes))
    sides = [hnp.arrays(np.int64, size, elements=st.integers(0, kinds - 1)) for _ in range(2)]
    return draw(sides[0]), draw(sides[1])


@given(st.one_of(probabilities(), loose_selections()), st.data())
def test_contingency_adds_up_tokens(weights, data):
    labels = data.draw(hnp.arrays(np.int64, len(weights), elements=st.integers(0, 3)))
    expected = np.zeros((4, weights.shape[1]))
    for label, row in zip(labels, weights, strict=True):
        expected[label] += row
    table = run(metrics.contingency, labels, weights, static=(4,))
    np.testing.assert_allclose(table, expected, rtol=1e-14, atol=1e-300)


def test_contingency_hand_values():
    selected = np.array([[True, False], [True, True], [False, True]])
    table = run(metrics.contingency, [1, 1, 3], selected, static=(4,))
    np.testing.assert_array_equal(table, [[0, 0], [2, 1], [0, 0], [0, 1]])
    assert table.dtype == jnp.float64


def test_compiled_contingency_counts_foreign_labels_nowhere():
    table = jax.jit(metrics.contingency, static_argnums=2)(jnp.array([-1, 0, 2]), jnp.ones((3, 2)), 2)
    np.testing.assert_array_equal(table, [[1, 1], [0, 0]])


@given(tables())
def test_mutual_information_against_scikit_learn(counts):
    value = run(metrics.mutual_information, counts.astype(float))
    expected = mutual_info_score(None, None, contingency=counts) if counts.any() else 0.0
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-14)
    if counts.any():
        sides = [scipy.stats.entropy(counts.sum(axis=a)) for a in (0, 1)]
        assert 0 <= value <= min(sides) + 1e-12


@given(hnp.arrays(np.int64, (2, 3), elements=st.integers(-40, 3)))
def test_mutual_information_of_cells_of_very_different_size(exponents):
    table = 10.0**exponents
    total, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    terms = [
        table[r, c] / total * (math.log(table[r, c]) + math.log(total) - math.log(rows[r]) - math.log(columns[c]))
        for r, c in np.ndindex(2, 3)
    ]
    np.testing.assert_allclose(run(metrics.mutual_information, table), math.fsum(terms), rtol=1e-9, atol=1e-13)
    assert jnp.isfinite(slope(metrics.mutual_information, table)).all()


def test_mutual_information_hand_value():
    # Rows 4 and 6 of 10, columns 4 and 6: each cell by its definition.
    cells = [(3, 4, 4), (1, 4, 6), (1, 6, 4), (5, 6, 6)]
    expected = sum(n / 10 * math.log(n * 10 / (row * column)) for n, row, column in cells)
    np.testing.assert_allclose(run(metrics.mutual_information, COUNTS), expected, rtol=1e-14)


def test_mutual_information_does_not_depend_on_the_total():
    expected = run(metrics.mutual_information, COUNTS)
    np.testing.assert_allclose(run(metrics.mutual_information, COUNTS / 7e5), expected, rtol=1e-13)


def test_small_information_is_not_lost_in_rounding():
    # p = (1 +- d)/4: I = d^2/2 + O(d^4), far below the rounding of the entropies.
    d = 2.0**-25
    table = jnp.array([[1 + d, 1 - d], [1 - d, 1 + d]])
    np.testing.assert_allclose(run(metrics.mutual_information, table), d**2 / 2, rtol=1e-6)
    outer = jnp.outer(jnp.array([0.1, 0.7, 0.2]), jnp.array([0.3, 0.6, 0.1]))
    assert 0 <= run(metrics.mutual_information, outer) < 1e-30


@pytest.mark.parametrize(
    "table",
    [np.zeros((2, 3)), np.array([[0, 0, 0], [2, 7, 1]]), np.array([[0, 3, 0], [0, 1, 0]]), np.array([[4]])],
    ids=["empty", "one-label", "one-expert-in-use", "one-expert"],
)
def test_no_information(table):
    table = np.asarray(table, float)
    for measure, static in ((metrics.mutual_information, ()), (metrics.normalised_information, (1,))):
        assert run(measure, table, static=static) == 0.0
        assert jnp.isfinite(slope(measure, table, static=static)).all()


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3), st.sampled_from(["float32", "float64"]))
def test_a_constant_label_says_exactly_nothing(row, dtype):
    """Whatever the rounding of the normalisation: 0, not a ratio of two roundings."""
    table = jnp.asarray([row, [0] * len(row)], dtype) / 7
    assert run(metrics.mutual_information, table) == 0.0
    assert run(metrics.normalised_information, table, static=(1,)) == 0.0


@given(selections(), st.data())
def test_normalised_information_of_hard_routing_stays_in_range(case, data):
    selected, routes = case
    labels = data.draw(hnp.arrays(np.int64, len(selected), elements=st.integers(0, 2)))
    table = run(metrics.contingency, labels, selected, static=(3,))
    value = run(metrics.normalised_information, table, static=(routes,))
    assert 0 <= value <= 1 + 1e-12
    bound = min(scipy.stats.entropy(np.bincount(labels)), math.log(selected.shape[1] / routes))
    if bound:
        np.testing.assert_allclose(value, run(metrics.mutual_information, table) / bound, rtol=1e-12)
    else:
        assert value == 0.0


def test_normalised_information_reaches_one():
    def share(table, routes):
        return run(metrics.normalised_information, table, static=(routes,))

    # Three labels, each with its own two of six experts: ln 3 of ln 3, by the labels for one route and for two.
    blocks = np.kron(np.eye(3), np.ones((1, 2)))
    np.testing.assert_allclose([share(blocks, 2), share(blocks, 1)], 1.0, rtol=1e-14)
    # Six labels, two experts each: the experts are the bound, ln(6/2).
    pairs = np.kron(np.eye(3), np.ones((2, 2)))
    np.testing.assert_allclose([share(pairs, 2), share(pairs, 1)], [1.0, math.log(3) / math.log(6)], rtol=1e-14)


def test_routes_may_be_counted_while_compiled():
    """The least number of routes in a batch is a result of the batch; the static number gives the same."""
    for routes in (1, 2, 3):
        counted = run(metrics.normalised_information, COUNTS, np.float64(routes))
        np.testing.assert_allclose(counted, run(metrics.normalised_information, COUNTS, static=(routes,)), rtol=1e-14)
    assert counted == 0.0  # as many routes as experts
    assert metrics.normalised_information(jnp.asarray(COUNTS), jnp.array(2.0)) > 0


def test_all_experts_selected_tell_nothing():
    table = run(metrics.contingency, jnp.asarray(LABELS), jnp.ones((6, 5), bool), static=(3,))
    assert run(metrics.normalised_information, table, static=(5,)) == 0.0


def test_gradients():
    table = PROBS[:4, :4] + 0.1
    check_slope(metrics.mutual_information, table)
    check_slope(metrics.normalised_information, table, static=(2,))
    check_slope(lambda weights: metrics.contingency(jnp.asarray(LABELS), weights, 3)[2, 1], PROBS)


def plain_information(labels, experts):
    tokens = len(labels)
    total = 0.0
    for pair in set(zip(labels, experts, strict=True)):
        joint = sum((a, b) == pair for a, b in zip(labels, experts, strict=True))
        product = sum(a == pair[0] for a in labels) * sum(b == pair[1] for b in experts)
        total += joint / tokens * math.log(joint * tokens / product)
    return total


@given(assignments())
@example((np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])))  # a label and an expert share tokens in every order
def test_adjusted_information_against_all_permutations(case):
    labels, experts = (side.tolist() for side in case)
    values = [plain_information(labels, order) for order in itertools.permutations(experts)]
    expectation = math.fsum(values) / len(values)
    ceiling = sum(plain_information(side, side) for side in (labels, experts)) / 2
    adjusted = metrics.adjusted_information(*case)
    if max(values) - min(values) < 1e-12:
        assert adjusted == pytest.approx(0.0, abs=1e-12)  # 0 by rounding only; the exact cases are below
    else:
        expected = (plain_information(labels, experts) - expectation) / (ceiling - expectation)
        np.testing.assert_allclose(adjusted, expected, rtol=1e-9, atol=1e-9)
        assert adjusted <= 1 + 1e-9


@pytest.mark.parametrize("follow", [0.0, 0.5, 0.97])
@pytest.mark.parametrize(("tokens", "kinds", "experts"), [(40, 3, 64), (60, 3, 4), (2048, 8, 8), (5000, 100, 3)])
def test_adjusted_information_of_many_tokens_against_scikit_learn(tokens, kinds, experts, follow):
    rng = np.random.default_rng(tokens)
    # Skewed, so that a label and an expert may have more than all tokens between them.
    labels, others = ((rng.random(tokens) ** 3 * number).astype(int) for number in (kinds, experts))
    chosen = np.where(rng.random(tokens) < follow, labels % experts, others)
    value = metrics.adjusted_information(labels, chosen)
    assert value == pytest.approx(adjusted_mutual_info_score(labels, chosen), rel=1e-11, abs=1e-13)


def test_adjusted_information_of_a_match_and_of_jax_arrays():
    labels = jnp.array([0, 0, 1, 1, 2])
    assert metrics.adjusted_information(labels, jnp.array([2, 2, 0, 0, 1])) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "experts"),
    [([3], [1]), ([1, 1, 1], [0, 1, 0]), ([0, 1, 0], [2, 2, 2]), ([1, 1, 1], [4, 4, 4]), ([0, 1, 2], [2, 0, 1])],
    ids=["one-token", "constant-labels", "one-expert", "both-constant", "all-distinct"],
)
def test_adjusted_information_where_chance_decides_everything(labels, experts):
    assert metrics.adjusted_information(np.array(labels), np.array(experts)) == 0.0


@given(assignments((1, 4, 7), kinds=4))
def test_matching_accuracy_against_all_matchings(case):
    labels, experts = case
    best = max(
        np.mean([order[a] == b for a, b in zip(*case, strict=True)]) for order in itertools.permutations(range(4))
    )
    value = metrics.matching_accuracy(labels, experts, 4)
    assert value == pytest.approx(best, rel=1e-15)
    assert 0 < value <= 1
    # Names of labels and of experts do not matter.
    renamed = np.array([2, 0, 3, 1])[experts]
    assert metrics.matching_accuracy(labels + 10**12, renamed, 4) == value


def test_matching_accuracy_hand_values():
    # Labels outnumber experts: label 2 stays unmatched, label 1 keeps two of its three tokens.
    assert metrics.matching_accuracy(np.array([0, 0, 1, 1, 1, 2]), np.array([1, 1, 0, 0, 1, 1]), 2) == 4 / 6
    # A constant label: the busiest expert.
    assert metrics.matching_accuracy(np.array([5, 5, 5, 5]), np.array([2, 2, 0, 2]), 3) == 3 / 4
    assert metrics.matching_accuracy(jnp.array([0]), jnp.array([7]), 8) == 1.0


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    selected, labels = jnp.asarray(SELECTED), jnp.asarray(LABELS)
    with pytest.raises(ValueError, match=r"`labels` must be below 2; got 2 at \(1,\)"):
        metrics.contingency(labels, selected, 2)
    with pytest.raises(ValueError, match="`labels` must not be negative; its smallest entry is -3"):
        metrics.contingency(labels - 3, selected, 3)
    with pytest.raises(ValueError, match="`labels` has 4 tokens, `weights` has 6"):
        metrics.contingency(labels[:4], selected, 3)
    with pytest.raises(ValueError, match="`labels` must be whole numbers; got dtype float64"):
        metrics.contingency(labels.astype(float), selected, 3)
    with pytest.raises(ValueError, match="`num_labels` must be at least 1; got 0"):
        metrics.contingency(labels, selected, 0)
    with pytest.raises(ValueError, match=r"`weights` must not be negative; its smallest entry is -0\.9"):
        metrics.contingency(labels, -jnp.asarray(PROBS), 3)
    with pytest.raises(ValueError, match="`table` must not be negative; its smallest entry is -1"):
        metrics.mutual_information(jnp.array([[1.0, -1.0]]))
    with pytest.raises(ValueError, match=r"`table` must be finite; 1 of 2 are not, the first at \(0, 1\)"):
        metrics.normalised_information(jnp.array([[1.0, np.nan]]), 1)
    with pytest.raises(ValueError, match=r"`routes` must be at most 3 \(the experts of `table`\); got 4"):
        metrics.normalised_information(jnp.asarray(COUNTS), 4)
    with pytest.raises(ValueError, match=r"`routes` must be a whole number; got 1\.5"):
        metrics.normalised_information(jnp.asarray(COUNTS), jnp.array(1.5))
    with pytest.raises(ValueError, match="`labels` has 3 tokens, `assignments` has 2"):
        metrics.adjusted_information(np.arange(3), np.arange(2))
    with pytest.raises(ValueError, match=r"`assignments` must be below 2; got 2 at \(2,\)"):
        metrics.matching_accuracy(np.arange(3), np.arange(3), 2)
    with pytest.raises(ValueError, match=r"`labels` must have at least one of its tokens; got shape \(0,\)"):
        metrics.matching_accuracy(np.zeros(0, int), np.zeros(0, int), 2)
    with pytest.raises(ValueError, match="`assignments` must not be negative; its smallest entry is -1"):
        metrics.adjusted_information(np.arange(3), np.arange(3) - 1)
    with pytest.raises(ValueError, match="`assignments` must be whole numbers; got dtype float64"):
        metrics.adjusted_information(np.arange(3), np.ones(3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_at_the_end_of_the_range(dtype):
    largest = float(jnp.finfo(dtype).max)
    found = run(metrics.normalised_information, np.array([[largest, 0], [0, largest]], dtype), static=(1,))
    np.testing.assert_allclose(found, 1.0, rtol=1e-6)
    np.testing.assert_allclose(run(metrics.mutual_information, np.full((2, 3), largest, dtype)), 0, atol=1e-6)


def test_a_table_of_whole_numbers():
    table = np.array([[3, 1, 0], [0, 2, 5]])
    expected = run(metrics.normalised_information, table.astype(float), static=(1,))
    assert run(metrics.normalised_information, table.astype(np.int32), static=(1,)) == expected
