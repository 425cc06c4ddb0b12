"""Fixed maps from what a token is to its expert."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import _checks


def table_logits(
    ids: Int[Array, " tokens"], table: Int[Array | np.ndarray, " vocabulary"], num_experts: int, *, height: float = 20.0
) -> Float[Array, "tokens experts"]:
    r"""`height` at the expert that the table has for the token's id, 0 elsewhere; float32.

    As a softmax the expert's probability is $e^h/(e^h + N - 1)$. **Arguments:** `table`: the expert of every id.
    `height`: h. **Source:** [word-experts]; [hash-layers].
    """
    _checks.count("num_experts", num_experts)
    chosen = jnp.asarray(table, jnp.int32)[ids]
    return height * (chosen[:, None] == jnp.arange(num_experts, dtype=jnp.int32)).astype(jnp.float32)


def hashed(vocabulary: int, num_experts: int, seed: int = 0) -> Int[np.ndarray, " vocabulary"]:
    """An expert for every id, at random but as even as can be: loads over the ids differ by at most 1.

    **Arguments:** `vocabulary`: number of ids. **Source:** [hash-layers], the balanced assignment (there by frequency).
    """
    _checks.count("vocabulary", vocabulary)
    _checks.count("num_experts", num_experts)
    return (np.random.default_rng((seed, vocabulary)).permutation(vocabulary) % num_experts).astype(np.int32)
