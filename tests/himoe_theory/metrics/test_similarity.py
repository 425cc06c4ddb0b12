"""Similarity of experts, against NumPy loops, the kernel form of CKA, and invariances."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from himoe_theory import metrics

from .cases import OUTPUTS, check_slope, run, slope, vectors

SHAPES = [(1, 3, 2), (4, 1, 3), (2, 3, 5), (5, 2, 2)]


def cosine(x, y):
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return x @ y / norm if norm else 0.0


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
def test_output_cosine_against_loops(shape, data):
    outputs = data.draw(vectors(shape))
    experts = range(shape[1])
    expected = [[np.mean([cosine(token[i], token[j]) for token in outputs]) for j in experts] for i in experts]
    np.testing.assert_allclose(run(metrics.output_cosine, outputs), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
def test_expert_overlap_against_loops(shape, data):
    outputs = data.draw(vectors(shape))
    routes = range(shape[1])
    pairs = [cosine(token[i], token[j]) ** 2 for token in outputs for i in routes for j in routes if i != j]
    overlap = run(metrics.expert_overlap, outputs)
    np.testing.assert_allclose(overlap, np.mean(pairs) if pairs else 0.0, rtol=1e-12, atol=1e-13)
    assert 0 <= overlap <= 1 + 1e-12


@given(hnp.arrays(float, (3, 4), elements=st.floats(-10, 10).map(lambda x: x if abs(x) > 1e-3 else 0.0)))
def test_parameter_cosine_against_loops(parameters):
    expected = [[cosine(p, q) for q in parameters] for p in parameters]
    np.testing.assert_allclose(run(metrics.parameter_cosine, parameters), expected, rtol=1e-12, atol=1e-13)


def test_cosine_hand_values():
    outputs = jnp.array([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 2.0]]])
    np.testing.assert_allclose(run(metrics.output_cosine, outputs), [[0.5, 0.3], [0.3, 1.0]], rtol=1e-14)
    np.testing.assert_allclose(run(metrics.expert_overlap, outputs), 0.36 / 2, rtol=1e-14)
    parameters = jnp.array([[3.0, 4.0], [-1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        run(metrics.parameter_cosine, parameters), [[1.0, -0.6, 0.0], [-0.6, 1.0, 0.0], [0.0, 0.0, 0.0]], rtol=1e-14
    )


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_cosines_of_tiny_and_huge_outputs(scale):
    """Squares leave the range of float32; the cosine does not."""
    outputs = jnp.asarray(OUTPUTS, jnp.float32)
    for measure in (metrics.output_cosine, metrics.expert_overlap, metrics.linear_cka):
        np.testing.assert_allclose(run(measure, outputs * scale), run(measure, outputs), rtol=1e-5, atol=1e-6)


def test_mean_off_diagonal():
    matrix = jnp.array([[9.0, 1.0, 2.0], [3.0, 9.0, 4.0], [5.0, 6.0, 9.0]])
    np.testing.assert_allclose(run(metrics.mean_off_diagonal, matrix), 21 / 6, rtol=1e-15)
    assert run(metrics.mean_off_diagonal, jnp.array([[1.0]])) == 0.0
    np.testing.assert_array_equal(slope(metrics.mean_off_diagonal, matrix), np.where(np.eye(3, dtype=bool), 0.0, 1 / 6))


def alignment(x, y):
    """CKA by its definition through centred kernels."""
    tokens = len(x)
    centring = np.eye(tokens) - np.ones((tokens, tokens)) / tokens
    kernels = [centring @ z @ z.T @ centring for z in (x, y)]
    independence = [[np.trace(a @ b) for b in kernels] for a in kernels]
    norm = np.sqrt(independence[0][0] * independence[1][1])
    return independence[0][1] / norm if norm > 1e-20 else 0.0


# More tokens than dimensions and the reverse take different ways through the code.
@pytest.mark.parametrize("shape", [(7, 3, 2), (3, 3, 5), (4, 2, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_cka_against_kernels(shape, seed):
    outputs = np.random.default_rng(seed).normal(size=shape) * np.array([1e-3, 1.0, 50.0])[: shape[1], None] + 3.0
    experts = range(shape[1])
    expected = [[alignment(outputs[:, i], outputs[:, j]) for j in experts] for i in experts]
    np.testing.assert_allclose(run(metrics.linear_cka, outputs), expected, rtol=1e-8)


def test_cka_hand_value():
    # Experts over three tokens, one dimension: squared correlations of (0,1,2), (0,1,5), (0,0,0).
    outputs = jnp.array([[[0.0], [0.0], [4.0]], [[1.0], [1.0], [4.0]], [[2.0], [5.0], [4.0]]])
    # Centred (-1,0,1) and (-2,-1,3): product 5, squares 2 and 14.
    np.testing.assert_allclose(
        run(metrics.linear_cka, outputs), [[1, 25 / 28, 0], [25 / 28, 1, 0], [0, 0, 0]], rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("shape", [(7, 3, 2), (3, 3, 5)])
@given(data=st.data())
def test_cka_range_and_diagonal(shape, data):
    outputs = data.draw(vectors(shape))
    matrix = np.asarray(run(metrics.linear_cka, outputs))
    assert (matrix >= 0).all()
    assert (matrix <= 1 + 1e-9).all()
    varies = [(outputs[:, e] != outputs[0, e]).any() for e in range(3)]
    np.testing.assert_allclose(np.diagonal(matrix), varies, rtol=1e-12)
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("tokens", [2, 6])
def test_cka_ignores_rotation_scale_and_shift_of_one_expert(tokens):
    outputs = OUTPUTS[:tokens, :3]
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    moved = outputs.copy()
    moved[:, 1] = 40.0 * outputs[:, 1] @ rotation - 7.0
    expected = run(metrics.linear_cka, outputs)
    np.testing.assert_allclose(run(metrics.linear_cka, moved), expected, rtol=1e-10)
    # The cosine of outputs is the one that sees it.
    assert np.abs(run(metrics.output_cosine, moved) - run(metrics.output_cosine, outputs)).max() > 0.1


def test_constant_outputs_align_with_nothing():
    """0.1 seven times has a mean that is not 0.1: the rounding must not be taken for a direction."""
    outputs = np.array(np.broadcast_to([[0.1, 0.7, -0.3]], (7, 3)))[:, None].repeat(2, axis=1)
    outputs[:, 1] += np.arange(7)[:, None]
    np.testing.assert_allclose(run(metrics.linear_cka, outputs), [[0.0, 0.0], [0.0, 1.0]], rtol=1e-12, atol=0)


def test_undefined_cases_have_finite_gradients():
    silent = jnp.asarray(OUTPUTS).at[2, 1].set(0.0).at[:, 3].set(0.0)
    for measure in (metrics.output_cosine, metrics.linear_cka):
        gradient = slope(lambda x, f=measure: metrics.mean_off_diagonal(f(x)), silent)
        assert jnp.isfinite(gradient).all()
    gradient = slope(metrics.expert_overlap, silent)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, 3], 0.0)
    one_token = run(metrics.linear_cka, OUTPUTS[:1])
    np.testing.assert_array_equal(one_token, np.zeros((5, 5)))
    assert run(metrics.expert_overlap, OUTPUTS[:, :1]) == 0.0


@pytest.mark.parametrize("tokens", [2, 6])
def test_gradients(tokens):
    outputs = OUTPUTS[:tokens, :3]
    for measure in (metrics.output_cosine, metrics.linear_cka):
        check_slope(lambda x, f=measure: metrics.mean_off_diagonal(f(x)), outputs)
    check_slope(metrics.expert_overlap, outputs)
    check_slope(lambda x: metrics.mean_off_diagonal(metrics.parameter_cosine(x)), outputs[0])


def plain_silhouette(outputs, assignments):
    scores = []
    for t, own in enumerate(assignments):
        distances = np.linalg.norm(outputs - outputs[t], axis=1)
        mates = [s for s, a in enumerate(assignments) if a == own and s != t]
        if not mates:
            scores.append(0.0)
            continue
        inside = np.mean(distances[mates])
        outside = min(np.mean(distances[assignments == other]) for other in set(assignments.tolist()) - {own})
        largest = max(inside, outside)
        scores.append((outside - inside) / largest if largest else 0.0)
    return np.mean(scores)


@given(hnp.arrays(float, (6, 2), elements=st.integers(-20, 20)), hnp.arrays(np.int64, 6, elements=st.integers(0, 3)))
def test_silhouette_against_its_definition(outputs, assignments):
    value = metrics.silhouette(outputs, assignments)
    expected = plain_silhouette(outputs, assignments) if len(set(assignments.tolist())) > 1 else 0.0
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7)
    assert -1 <= value <= 1


def test_silhouette_hand_value_and_undefined_cases():
    outputs, assignments = jnp.array([[0.0], [1.0], [10.0]]), jnp.array([0, 0, 4])
    # (10 - 1)/10, (9 - 1)/9, and a cluster of one counts 0.
    assert metrics.silhouette(outputs, assignments) == pytest.approx((0.9 + 8 / 9) / 3, rel=1e-12)
    assert metrics.silhouette(outputs, jnp.array([2, 2, 2])) == 0.0
    assert metrics.silhouette(outputs, jnp.array([0, 1, 2])) == 0.0
    assert metrics.silhouette(outputs[:1], jnp.array([0])) == 0.0


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    outputs = jnp.asarray(OUTPUTS)
    with pytest.raises(ValueError, match=r"`outputs` must have axes \(tokens, experts, dim\); got shape \(6, 5\)"):
        metrics.output_cosine(outputs[..., 0])
    with pytest.raises(ValueError, match=r"`outputs` must have axes \(tokens, routes, dim\); got shape \(5, 3\)"):
        metrics.expert_overlap(outputs[0])
    with pytest.raises(ValueError, match=r"`outputs` must have at least one of its tokens; got shape \(0, 5, 3\)"):
        metrics.linear_cka(outputs[:0])
    with pytest.raises(ValueError, match=r"1 of 90 are not, the first at \(2, 1, 0\)"):
        metrics.linear_cka(outputs.at[2, 1, 0].set(jnp.nan))
    with pytest.raises(ValueError, match=r"`matrix` must be square; got shape \(2, 3\)"):
        metrics.mean_off_diagonal(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`parameters` must have axes \(experts, dim\); got shape \(6, 5, 3\)"):
        metrics.parameter_cosine(outputs)
    with pytest.raises(ValueError, match="`outputs` has 6 tokens, `assignments` has 5"):
        metrics.silhouette(OUTPUTS[:, 0], np.zeros(5, int))
    with pytest.raises(ValueError, match="`assignments` must not be negative; its smallest entry is -1"):
        metrics.silhouette(OUTPUTS[:, 0], np.full(6, -1))
