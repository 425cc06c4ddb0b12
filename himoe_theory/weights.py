"""Combine weights of the selected experts: the two conventions, which papers and code confuse."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks


@dataclasses.dataclass(frozen=True)
class SoftmaxThenMask:
    """The scores of the selected experts as they are, not renormalised. **Source:** [himoe] eq. (5)."""

    def weigh(self, log_scores: Float[Array, "tokens routes"]) -> Float[Array, "tokens routes"]:
        """Each in (0, 1]; sums to at most 1 for softmax scores."""
        return jnp.exp(log_scores)


@dataclasses.dataclass(frozen=True)
class Renormalised:
    r"""$w_r = p_r / (\sum_{r'} p_{r'} + \epsilon)$ over the selected experts.

    `epsilon` 0 is the definition (a softmax of the log scores, finite when every score underflows); the released code
    uses 1e-10 (grouped), 1e-9 (ST-MoE) and 1e-20 (loss-free). **Source:** [gshard]; [himoe-code].
    """

    epsilon: float = 0.0

    def __post_init__(self):
        _checks.coefficient("epsilon", self.epsilon)

    def weigh(self, log_scores: Float[Array, "tokens routes"]) -> Float[Array, "tokens routes"]:
        """Each in [0, 1]; sums to 1 up to `epsilon`."""
        if self.epsilon == 0:
            return jax.nn.softmax(log_scores)
        # In logarithms: where all scores underflow, the quotient's derivative would be 0 / epsilon^2, NaN in float32.
        total = jax.nn.logsumexp(log_scores, axis=-1, keepdims=True)
        return jnp.exp(log_scores - jnp.logaddexp(total, math.log(self.epsilon)))


Weighting = SoftmaxThenMask | Renormalised
