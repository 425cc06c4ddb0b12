"""Patches, single-index clusters and streams hold what they were planted with."""

import jax
import numpy as np
import pytest
from scipy import stats

from simulations.data import Data, Patches, SingleIndex, Streams, chen_settings

FALSE_ALARM = 1e-6
Z = stats.norm.isf(FALSE_ALARM / 2)
DATA = [Patches(), SingleIndex(), Streams()]


def sample(data, tokens, seed=0):
    truth = data.truth(np.random.default_rng(seed))
    draw = jax.jit(data.draw, static_argnums=2)  # one program in place of dozens of small ones
    return truth, jax.device_get(draw(truth, jax.random.key(seed), tokens))


@pytest.mark.parametrize("data", DATA, ids=lambda data: type(data).__name__)
def test_a_seed_fixes_everything_and_shapes_are_as_announced(data):
    assert isinstance(data, Data)
    (truth, batch), (again, same) = sample(data, 64), sample(data, 64)
    jax.tree.map(np.testing.assert_array_equal, (truth, batch), (again, same))
    assert batch.x.shape == (64, data.dim)
    assert batch.y.shape == (64, data.outputs)
    assert np.abs(sample(data, 64, seed=1)[1].x - batch.x).max() > 0
    assert {leaf.dtype for leaf in batch} == {np.dtype("float32"), np.dtype("int32")}
    assert set(batch.labels) <= set(range(data.num_labels))


# Patches


@pytest.fixture(scope="module")
def patches():
    data = Patches(noise=2.0, patches=5)
    return data, *sample(data, 4000)


def coordinates(data, truth, batch):
    """Every patch by its coordinates along the planted vectors `[tokens, patches, 2 clusters]`, and what is left."""
    x = batch.x.reshape(-1, data.patches, data.patch_dim).astype(np.float64)
    along = x @ truth["vectors"].T
    return along, x - along @ truth["vectors"]


def test_patch_vectors_are_orthonormal(patches):
    _, truth, _ = patches
    np.testing.assert_allclose(truth["vectors"] @ truth["vectors"].T, np.eye(8), atol=1e-6)


def test_each_sample_has_its_three_planted_patches(patches):
    """Found again from the patches alone, token by token: which they are, their lengths, the label in the sign."""
    data, truth, batch = patches
    along, rest = coordinates(data, truth, batch)
    planted = np.linalg.norm(rest, axis=2) < 1e-3
    np.testing.assert_array_equal(planted.sum(axis=1), 3)
    signed = np.where(planted[:, :, None], along, 0).sum(axis=1)  # the three are orthogonal
    features, centres = signed[:, :4] / 10, signed[:, 4:] / 10
    tokens = np.arange(len(signed))
    np.testing.assert_array_equal((np.abs(centres) > 1e-3).sum(axis=1), 1)
    np.testing.assert_array_equal(centres.argmax(axis=1), batch.labels)
    np.testing.assert_array_equal((np.abs(features) > 1e-3).sum(axis=1), 2)
    signal = features[tokens, batch.labels]
    np.testing.assert_array_equal(signal > 0, batch.y[:, 1] == 1)
    features[tokens, batch.labels] = 0
    for values, (low, high) in (
        (np.abs(signal), data.signal),
        (centres.max(axis=1), data.centre),
        (np.abs(features).max(axis=1), data.distraction),
    ):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > FALSE_ALARM


def test_patch_signs_clusters_and_places_are_independent_and_uniform(patches):
    data, truth, batch = patches
    along, rest = coordinates(data, truth, batch)
    own = batch.labels
    where = np.abs(along[np.arange(len(own)), :, 4 + own]).argmax(axis=1)  # of the centre
    planted = np.linalg.norm(rest, axis=2) < 1e-3
    features = np.where(planted[:, :, None], along, 0).sum(axis=1)[:, :4]
    features[np.arange(len(own)), own] = 0
    other = np.abs(features).argmax(axis=1)
    signs = batch.y[:, 1].astype(int), (features.sum(axis=1) > 0).astype(int)
    cells = np.ravel_multi_index((own, (other - own - 1) % 4, *signs), (4, 3, 2, 2))
    assert stats.chisquare(np.bincount(cells, minlength=48)).pvalue > FALSE_ALARM
    assert stats.chisquare(np.bincount(np.flatnonzero(~planted.ravel()) % 5, minlength=5)).pvalue > FALSE_ALARM
    assert stats.chisquare(np.bincount(where, minlength=5)).pvalue > FALSE_ALARM
    # Mean square length of a noise patch: 100 sigma_p^2, from 8000 patches of 50 normals.
    square = np.square(batch.x.reshape(4000, 5, 50))[~planted].sum(axis=1)
    np.testing.assert_allclose(square.mean(), 400, rtol=Z * np.sqrt(2 / (8000 * 50)))


def test_chens_settings():
    found = chen_settings()
    assert [s.noise for s in found.values()] == [1, 2, 1, 2]
    assert [s.distraction for s in found.values()] == [(0.5, 3.0), (0.5, 3.0), (0.5, 2.0), (0.5, 2.0)]
    assert all(s.signal == (0.5, 2.0) and s.centre == (1.0, 2.0) and s.scale == 10 for s in found.values())


# Single index


def he3(z):
    return (z**3 - 3 * z) / 6**0.5


@pytest.mark.parametrize("leak", [0.0, 0.25])
def test_single_index_moments_cancel_over_clusters_unless_means_leak(leak):
    data = SingleIndex(leak=leak, radius=2.0)
    truth, batch = sample(data, 60_000)
    product = he3(batch.x.astype(np.float64) @ truth["shared"]) * batch.y[:, 0]
    exact = data.moments()
    assert abs(exact.mean()) == (0 if leak == 0 else pytest.approx(abs(exact[0]) / 2 - 0.5))
    for c in range(4):
        inside = product[batch.labels == c]
        assert abs(inside.mean() - exact[c]) < Z * inside.std() / inside.size**0.5
    assert abs(product.mean() - exact.mean()) < Z * product.std() / product.size**0.5
    if leak:  # the hand value: E He3(z + m)^2 / 6 with m = 1/2
        m = data.radius * leak
        assert exact[0] == pytest.approx((6 + 18 * m**2 + 9 * m**4 + m**6) / 6)
    else:
        np.testing.assert_allclose(exact, [1, 1, -1, -1], atol=1e-12)


def test_single_index_targets_token_by_token():
    data = SingleIndex(clusters=2, dim=8, noise=0.0, local=(0.5, 2.0), shared=(-1.0,))
    truth, batch = sample(data, 200)
    z = np.einsum("td,td->t", batch.x, truth["local"][batch.labels]).astype(np.float64)
    g = (batch.x @ truth["shared"]).astype(np.float64)
    he4 = (z**4 - 6 * z**2 + 3) / 24**0.5
    expected = 0.5 * he3(z) + 2 * he4 - np.where(batch.labels == 0, 1, -1) * he3(g)
    np.testing.assert_allclose(batch.y[:, 0], expected, rtol=2e-4, atol=2e-4)


def test_single_index_directions():
    data = SingleIndex(leak=0.3)
    truth = data.truth(np.random.default_rng(0))
    gram = truth["centres"] @ truth["centres"].T / 16
    np.testing.assert_allclose(np.diag(gram), 1, rtol=1e-5)
    np.testing.assert_allclose(truth["centres"] @ truth["shared"], 4 * np.array([0.3, 0.3, 0, 0]), atol=1e-5)
    both = np.concatenate([truth["local"], truth["shared"][None]])
    np.testing.assert_allclose(both @ both.T, np.eye(5), atol=1e-6)
    np.testing.assert_allclose(truth["local"] @ truth["centres"].T, 0, atol=1e-5)
    assert sum(data.signs) == 0


# Streams


def test_stream_labels_stay_as_long_as_stated():
    data = Streams(clusters=4, dim=8, priors=(0.4, 0.3, 0.2, 0.1), dwell=5.0)
    truth = data.truth(np.random.default_rng(0))
    labels = np.asarray(jax.jit(data._labels, static_argnums=2)(truth, jax.random.key(0), 20_000))
    q = 0.16 + 0.09 + 0.04 + 0.01
    for lag in (1, 4):
        same = labels[lag:] == labels[:-lag]
        expected = q + (1 - q) * 0.8**lag
        spread = np.sqrt(expected * (1 - expected) / data.independent_tokens(20_000))
        assert abs(same.mean() - expected) < Z * spread
    share = np.bincount(labels, minlength=4) / 20_000
    spread = np.sqrt(np.array([0.4, 0.3, 0.2, 0.1]) * 0.9 / data.independent_tokens(20_000))
    assert (np.abs(share - [0.4, 0.3, 0.2, 0.1]) < Z * spread).all()


def test_stream_tokens_are_those_of_their_clusters():
    data = Streams(clusters=3, dim=8, noise=0.5, outputs=2, dwell=4.0)
    truth, batch = sample(data, 3000)
    noise = batch.x - truth["centres"][batch.labels] - truth["mean"]
    np.testing.assert_allclose(np.square(noise).mean(), 0.25, rtol=Z * np.sqrt(2 / 24_000))
    neighbours = (noise[1:] * noise[:-1]).mean()
    assert abs(neighbours) < Z * 0.25 / np.sqrt(24_000)  # nothing but the cluster is remembered
    expected = np.einsum("td,tdo->to", batch.x, truth["maps"][batch.labels])
    np.testing.assert_allclose(batch.y, expected, rtol=2e-4, atol=2e-5)


def test_independent_tokens():
    assert Streams(dwell=1.0).independent_tokens(100) == 100
    # By hand for three tokens, r = 1/2: 9 / (3 + 2 (2/2 + 1/4)).
    assert Streams(dwell=2.0).independent_tokens(3) == pytest.approx(9 / 5.5)
    assert Streams(dwell=50.0).independent_tokens(10**5) == pytest.approx(10**5 / 99, rel=1e-3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Patches(clusters=1), "`clusters` must be at least 2; got 1"),
        (lambda: Patches(patches=2), "`patches` must be at least 3; got 2"),
        (lambda: Patches(patch_dim=7), "at least the 8 orthonormal vectors of 4 clusters; got 7"),
        (lambda: Patches(signal=(2.0, 1.0)), r"`signal` must be a range .* got \(2, 1\)"),
        (lambda: Patches(centre=(1.0, float("nan"))), r"`centre` must be a range .* got \(1, nan\)"),
        (lambda: Patches(noise=-1.0), "`noise` must be finite and at least 0; got -1"),
        (lambda: Patches(scale=0.0), "`scale` must be above 0; got 0"),
        (lambda: SingleIndex(clusters=3), "`clusters` must be even, for signs that sum to 0; got 3"),
        (lambda: SingleIndex(dim=8), "`dim` must be at least the 9 planted directions; got 8"),
        (lambda: SingleIndex(leak=1.0), r"`leak` must be finite and in \[0, 0.999999\]; got 1"),
        (lambda: SingleIndex(local=(0.0, 1.0)), r"`local` must be finite weights, the first not 0; got \(0.0, 1.0\)"),
        (lambda: SingleIndex(shared=()), r"`shared` must be finite weights, the first not 0; got \(\)"),
        (lambda: Streams(dwell=0.5), "`dwell` must be finite and at least 1; got 0.5"),
        (lambda: Streams().independent_tokens(0), "`tokens` must be at least 1; got 0"),
    ],
)
def test_bad_configurations_are_refused_with_their_numbers(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
