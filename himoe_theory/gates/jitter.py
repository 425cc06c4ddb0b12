"""Noise on what the gate sees, and on nothing else."""

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _checks


def jittered(
    key: PRNGKeyArray, x: Float[Array, "tokens dim"], epsilon: float | Float[Array, ""]
) -> Float[Array, "tokens dim"]:
    r"""$x_{td}\,u_{td}$ with every $u_{td}$ uniform on $[1 - \epsilon, 1 + \epsilon)$, drawn for each entry.

    For the gate alone: experts see x. **Arguments:** `epsilon`: half the width, >= 0. **Source:**
    [switch] (there 0.01).
    """
    _checks.coefficient("epsilon", epsilon)
    return x * (1 + epsilon * jax.random.uniform(key, x.shape, x.dtype, -1, 1))
