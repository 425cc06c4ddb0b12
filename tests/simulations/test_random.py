"""The random numbers are the published generator's, and behave like independent uniforms and normals.

Statistical tests have fixed keys; with other keys each would fail once in a million (`FALSE_ALARM`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from simulations import random

FALSE_ALARM = 1e-6
STREAMS, ROWS, TOKENS = 48, 16, 256
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
FULL = 0xFFFFFFFF


_threefry = jax.jit(lambda key, high, low, rounds: random.threefry(key, high, low, rounds=rounds), static_argnums=3)


def words(key, high, low, rounds=random.ROUNDS):
    arrays = (np.asarray(v, np.uint32) for v in (key, *np.broadcast_arrays(high, low)))
    return np.stack(jax.device_get(_threefry(*arrays, rounds)))


@pytest.fixture(scope="module")
def streams():
    """Normals of neighbouring seeds and steps, as training draws them: `[seed and step, coordinate, token]`."""

    def one(seed, step):
        return random.normal(jax.random.fold_in(jax.random.key(seed), step), ROWS, TOKENS)

    seed, step = np.divmod(np.arange(STREAMS, dtype=np.uint32), np.uint32(8))
    return np.asarray(jax.jit(jax.vmap(one))(seed, step), float)


@pytest.mark.parametrize(
    ("rounds", "key", "counter", "answer"),
    [
        # The known answers that come with [random123].
        (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
        (13, (FULL, FULL), (FULL, FULL), (0xFD36D048, 0x2D17272C)),
        (13, PI[2:], PI[:2], (0xBA3E4725, 0xF27D669E)),
        (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        (20, PI[2:], PI[:2], (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(rounds, key, counter, answer):
    assert tuple(words(key, *counter, rounds=rounds).tolist()) == answer


def test_with_20_rounds_it_is_jaxs_own_generator():
    key, counters = np.array([5, 7], np.uint32), np.arange(64, dtype=np.uint32)
    theirs = threefry_2x32(jnp.asarray(key), jnp.asarray(counters))  # the halves are the two words
    np.testing.assert_array_equal(words(key, counters[:32], counters[32:], rounds=20).ravel(), theirs)


def avalanche(rounds: int) -> float:
    """p value, over the pairs of an input and an output bit, of: flipping the one flips the other half of the time."""
    rng = np.random.default_rng(0)
    key, (high, low) = rng.integers(2**32, size=2), rng.integers(2**32, size=(2, 4096))
    base = words(key, high, low, rounds)
    worst = 0.0
    for bit in range(64):
        flip = 1 << (bit % 32)
        other = words(key, high ^ flip * (bit < 32), low ^ flip * (bit >= 32), rounds)
        changed = np.unpackbits((base ^ other).astype("<u4").view(np.uint8).reshape(2, -1, 4), axis=2).mean(axis=1)
        worst = max(worst, np.abs(changed - 0.5).max())
    return 64 * 64 * 2 * stats.binom.sf(4096 * (0.5 + worst) - 1, 4096, 0.5)


def test_every_counter_bit_reaches_every_output_bit():
    assert avalanche(random.ROUNDS) > FALSE_ALARM
    assert avalanche(5) < FALSE_ALARM  # the test bites


def test_bits_and_bytes_are_uniform():
    counters = np.arange(2**16)
    for word in words((0, 1), 0 * counters, counters):
        octets = word.view(np.uint8).reshape(-1, 4)
        for place in range(4):
            counts = np.bincount(octets[:, place], minlength=256)
            assert stats.chisquare(counts).pvalue > FALSE_ALARM / 8
        ones = np.unpackbits(octets, axis=1).sum(axis=0).astype(int)
        assert 64 * stats.binom.sf(np.abs(ones - 2**15).max() + 2**15 - 1, 2**16, 0.5) > FALSE_ALARM


def test_no_counter_serves_twice_and_more_tokens_change_none():
    key = jax.random.key(3)
    few, many = jax.device_get(jax.jit(lambda: (random.normal(key, 5, 50), random.normal(key, 6, 200)))())
    np.testing.assert_array_equal(few, many[:5, :50])  # an odd number of rows leaves one unused
    assert len(np.unique(many)) > 0.999 * many.size  # 24-bit radii: a repeat is rare, not impossible
    high, low = np.divmod(np.arange(2**16), 2**8)
    assert len(np.unique(words((1, 2), high, low).T, axis=0)) == 2**16


def test_moments_and_shape(streams):
    z = streams.ravel()
    n = z.size
    bound = stats.norm.isf(FALSE_ALARM / 8)
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - mean) < bound * np.sqrt(variance / n), power
    assert stats.kstest(z, "norm").pvalue > FALSE_ALARM


def test_tails(streams):
    z = np.abs(streams.ravel())
    for threshold in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(threshold)
        assert stats.binomtest(int((z > threshold).sum()), z.size, expected).pvalue > FALSE_ALARM / 3, threshold
    assert z.max() < np.sqrt(50 * np.log(2))


@pytest.mark.parametrize("power", [1, 2])
def test_seeds_steps_and_coordinates_are_uncorrelated(streams, power):
    """Squares too: sine and cosine of one angle share their radius, and must not show it."""
    for rows in (streams.reshape(STREAMS, -1), streams.transpose(1, 0, 2).reshape(ROWS, -1), streams[:, 0, :].T[:48]):
        off = np.corrcoef(rows**power)[np.triu_indices(len(rows), 1)]
        bound = stats.norm.isf(FALSE_ALARM / (6 * off.size)) / np.sqrt(rows.shape[1])
        # Squares have heavier tails than normals: their correlations are allowed half as much again.
        assert np.abs(off).max() < bound * (1 if power == 1 else 1.5)


def test_uniform_numbers():
    u, other = np.asarray(jax.jit(jax.vmap(lambda k: random.uniform(k, 2**16)))(jax.random.split(jax.random.key(1))))
    u, other = u.astype(float), other.astype(float)
    assert 0 <= u.min() < u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > FALSE_ALARM
    np.testing.assert_array_equal(u * 2**24, np.round(u * 2**24))
    assert abs(np.corrcoef(u, other)[0, 1]) < stats.norm.isf(FALSE_ALARM / 2) / 2**8


def test_cosine_is_the_cosine():
    corners = np.arange(8, dtype=np.uint64) << 29
    inner = np.random.default_rng(0).integers(2**32, size=100_000)
    word = np.concatenate([corners, corners - 1 & FULL, inner]).astype(np.uint32)
    angle = (word >> 30) * (np.pi / 2) + (word << np.uint32(2)).view(np.int32) * (np.pi / 2**33)
    np.testing.assert_allclose(random.cosine(jnp.asarray(word)), np.cos(angle), atol=1.2e-7)
