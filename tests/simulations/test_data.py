"""The planted truth is what the configuration says, and the labels belong to the tokens."""

import jax
import numpy as np
import pytest
from scipy import stats

from simulations import Clusters, Digits

FALSE_ALARM = 1e-6


def sample(data, tokens=4096, seed=0):
    truth = data.truth(np.random.default_rng(seed))
    return truth, data.draw(truth, jax.random.key(seed), tokens)


def test_centres_are_orthogonal_to_each_other_and_to_the_mean():
    truth, _ = sample(Clusters(radius=3.0, mean=5.0))
    gram = truth["centres"] @ truth["centres"].T
    np.testing.assert_allclose(gram, 9 * np.eye(8), atol=1e-5)
    np.testing.assert_allclose(truth["centres"] @ truth["mean"], 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(truth["mean"]), 5.0, rtol=1e-6)


def test_overlap_is_the_inner_product_of_directions():
    truth, _ = sample(Clusters(radius=2.0, overlap=0.3, mean=0.0))
    gram = truth["centres"] @ truth["centres"].T / 4
    np.testing.assert_allclose(gram, 0.3 + 0.7 * np.eye(8), atol=1e-5)


@pytest.mark.parametrize("anisotropy", [1.0, 6.0])
def test_tokens_are_centre_plus_mean_plus_noise_of_the_stated_size(anisotropy):
    data = Clusters(noise=0.5, anisotropy=anisotropy)
    truth, batch = sample(data, tokens=20000)
    noise = np.asarray(batch.x) - truth["centres"][batch.labels] - truth["mean"]
    std = noise.std(axis=0)
    # A sample variance of n normals has relative standard error sqrt(2/n); 16 coordinates.
    tolerance = stats.norm.isf(FALSE_ALARM / 32) * np.sqrt(2 / 20000)
    np.testing.assert_allclose(np.square(std).mean(), 0.25, rtol=tolerance)
    np.testing.assert_allclose(std.max() / std.min(), anisotropy, rtol=2 * tolerance)


@pytest.mark.parametrize("priors", [None, (0.5, 0.25, 0.15, 0.1)])
def test_labels_follow_the_priors(priors):
    data = Clusters(clusters=4, priors=priors)
    _, batch = sample(data, tokens=8000)
    expected = 8000 * np.asarray(priors or [0.25] * 4)
    assert stats.chisquare(np.bincount(batch.labels, minlength=4), expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("target", "formula"),
    [
        ("linear", lambda a: a),
        ("single-index", lambda a: 4 * np.tanh(a / 4)),
        ("quadratic", lambda a: a**2 / 4),
    ],
)
def test_targets_token_by_token(target, formula):
    truth, batch = sample(Clusters(target=target, outputs=3), tokens=50)
    for x, y, label in zip(*map(np.asarray, batch), strict=True):
        np.testing.assert_allclose(y, formula(x @ truth["maps"][label]), rtol=2e-4, atol=2e-5)


def test_shared_component_is_all_there_is_at_one():
    truth, _ = sample(Clusters(shared=1.0))
    np.testing.assert_array_equal(truth["maps"], np.broadcast_to(truth["maps"][:1], truth["maps"].shape))
    truth, _ = sample(Clusters(shared=0.0))
    assert np.abs(truth["maps"][0] - truth["maps"][1]).max() > 0.1


def test_factors_add_up():
    truth, _ = sample(Clusters(clusters=6, factors=(2, 3), radius=1.0))
    for values in (truth["centres"], truth["maps"]):
        grid = values.reshape(2, 3, -1)  # where x what: no interaction
        np.testing.assert_allclose(grid[0, 0] - grid[0, 2], grid[1, 0] - grid[1, 2], atol=1e-6)
        np.testing.assert_allclose(grid[0, 1] - grid[1, 1], grid[0, 2] - grid[1, 2], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(truth["centres"], axis=1), 1, rtol=1e-5)


def test_digits_are_scikit_learns_and_training_never_sees_the_held_out():
    data = Digits(test_images=300)
    truth, batch = sample(data, tokens=5000)
    test = data.test(truth, jax.random.key(0), 10_000)
    assert test.x.shape == (300, 64)
    held_out = {row.tobytes() for row in np.asarray(test.x)}
    trained_on = {row.tobytes() for row in np.asarray(batch.x)}
    assert len(trained_on) > 1000
    assert not held_out & trained_on
    assert (batch.x.min(), batch.x.max()) == (0, 1)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    known = {(row / 16).astype(np.float32).tobytes(): label for row, label in zip(images, labels, strict=True)}
    assert all(
        known[np.asarray(x).tobytes()] == label for x, label in zip(test.x, np.asarray(test.labels), strict=True)
    )
    np.testing.assert_array_equal(np.asarray(test.y).argmax(axis=1), test.labels)


@pytest.mark.parametrize("data", [Clusters(), Digits()])
def test_a_seed_fixes_everything(data):
    (truth, batch), (again, same) = sample(data, 64), sample(data, 64)
    jax.tree.map(np.testing.assert_array_equal, (truth, batch), (again, same))
    other = sample(data, 64, seed=1)[1]
    assert np.abs(np.asarray(other.x) - np.asarray(batch.x)).max() > 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Clusters(clusters=16), "16 centre directions by 1.*got 16"),
        (lambda: Clusters(clusters=0), "`clusters` must be at least 1; got 0"),
        (lambda: Clusters(noise=-1.0), "`noise` must be finite and at least 0; got -1"),
        (lambda: Clusters(mean=float("nan")), "`mean` must be finite.*got nan"),
        (lambda: Clusters(overlap=1.0), r"`overlap` must be finite and in \[0, 0.999999\]; got 1"),
        (lambda: Clusters(anisotropy=0.5), "`anisotropy` must be finite and at least 1; got 0.5"),
        (lambda: Clusters(clusters=2, priors=(0.5, 0.6)), "`priors` must be 2 numbers.*got 2 with sum 1.1"),
        (lambda: Clusters(factors=(2, 3)), r"`factors` must multiply to 8 clusters; got \(2, 3\)"),
        (lambda: Digits(test_images=1797), r"`test_images` must be in 1..1796; got 1797"),
    ],
)
def test_bad_configurations_are_refused_with_their_numbers(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
