"""Selection from the whole batch at once: what one token gets depends on the others.

Tokens get unequal numbers of experts, so the answer is a matrix of flags and not the experts of a fixed number of
routes; `Routing` has no place for it, and no `Router` uses these rules. Ties go to the token, then to the expert, of
lower number.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from ..partition import Partition
from ..routing import to_dense
from .top_k import TopK


def expert_choice(scores: Float[Array, "tokens experts"], places: int) -> Bool[Array, "tokens experts"]:
    r"""Every expert takes its `places` tokens of largest score, $C = cT/N$ of them for c experts a token on average.

    Each column has exactly C flags: loads are equal. A row may have none, and a later token can take the place of an
    earlier one. **Arguments:** `scores`: any finite ranking keys. `places`: C, in 1..T. **Returns:** true where the
    expert takes the token. **Raises:** `ValueError` if C exceeds the number of tokens. **Source:** [expert-choice].
    """
    scores = _checks.matrix("scores", scores)
    tokens = scores.shape[0]
    _checks.count("places", places, maximum=tokens, of="the number of tokens")
    return to_dense(*_largest(scores.T, places), tokens).T


def global_top(scores: Float[Array, "tokens experts"], places: int) -> Bool[Array, "tokens experts"]:
    r"""The `places` largest cells of the whole matrix, $T k$ of them for k experts a token on average.

    Neither rows nor columns have a fixed number of flags. **Arguments:** `scores`: any finite ranking keys, comparable
    between tokens. `places`: in 1..TN. **Returns:** true where the token goes to the expert. **Raises:** `ValueError`
    if `places` exceeds the number of cells. **Source:** [usmoe].
    """
    scores = _checks.matrix("scores", scores)
    _checks.count("places", places, maximum=scores.size, of="the number of cells")
    return to_dense(*_largest(scores.reshape(1, -1), places), scores.size).reshape(scores.shape)


def _largest(
    keys: Float[Array, "rows width"], places: int
) -> tuple[Bool[Array, "rows places"], Int[Array, "rows places"]]:
    """Flags, all true, and the places of the largest keys of each row."""
    chosen = TopK(places).choose(keys, Partition.equal(keys.shape[1], 1))
    return jnp.ones(chosen.shape, bool), chosen
