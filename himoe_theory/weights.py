r"""Combine weights of the selected experts: the two conventions, which papers and code confuse.

A weighting of your own is a frozen dataclass with `weigh`, as here the weights of [mixtral], divided by twice the sum:

    @dataclasses.dataclass(frozen=True)
    class Halved(Weighting):
        def weigh(self, log_scores, selected):      # [tokens, experts] both -> the same shape, 0 where not selected
            return masked_softmax(log_scores, selected) / 2
"""

import dataclasses
import math
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from . import _checks
from ._numerics import masked_softmax


@runtime_checkable
class Weighting(Protocol):
    """What a router asks of a weighting. Frozen and hashable: static under `jit`."""

    sums_to_one: ClassVar[bool] = False
    """Whether a token's weights sum to 1 (but for an epsilon): then a single selected expert has weight 1, and the task
    gives its gate no gradient."""
    closed_form: ClassVar[bool] = False
    """Whether weights are scores over `epsilon_of_sum` plus their sum, or as they are where that is `None`."""

    @property
    def epsilon_of_sum(self) -> float | None:
        """What is added to the sum that scores are divided by."""
        return None

    def weigh(
        self, log_scores: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        """Weights, 0 where not selected."""
        ...


@dataclasses.dataclass(frozen=True)
class SoftmaxThenMask(Weighting):
    """The scores of the selected experts as they are, not renormalised. **Source:** [himoe] eq. (5)."""

    closed_form: ClassVar[bool] = True

    def weigh(
        self, log_scores: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        """Each in [0, 1]; sums to at most 1 for softmax scores."""
        return jnp.where(selected, jnp.exp(log_scores), 0)


@dataclasses.dataclass(frozen=True)
class Renormalised(Weighting):
    r"""$w_e = p_e / (\sum_{e'} p_{e'} + \epsilon)$ over the selected experts.

    `epsilon` 0 is the definition (a softmax of the log scores, finite when every score underflows); the released code
    uses 1e-10 (grouped), 1e-9 (ST-MoE) and 1e-20 (loss-free). **Source:** [gshard]; [himoe-code].
    """

    epsilon: float = 0.0
    """Added to the sum that weights are divided by."""

    sums_to_one: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True

    @property
    def epsilon_of_sum(self) -> float:
        """`epsilon`."""
        return self.epsilon

    def __post_init__(self):
        _checks.coefficient("epsilon", self.epsilon)

    def weigh(
        self, log_scores: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        """Each in [0, 1]; sums to 1 up to `epsilon`, or to 0 where nothing is selected."""
        if self.epsilon == 0:
            return masked_softmax(log_scores, selected)
        # In logarithms: where all scores underflow, the quotient's derivative would be 0 / epsilon^2, NaN in float32.
        low = jnp.finfo(log_scores.dtype).min / 2
        shown = jnp.where(selected, log_scores, low)
        total = jnp.logaddexp(jax.nn.logsumexp(shown, axis=-1, keepdims=True), math.log(self.epsilon))
        return jnp.where(selected, jnp.exp(shown - total), 0)
