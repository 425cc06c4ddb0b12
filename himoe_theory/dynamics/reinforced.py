r"""Fields of reinforced scores: with loads (D7, D8), with a bias as controller (D9, D5), at two levels.

The state is the scores `[experts]`, or several arrays in a named tuple.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from ..partition import Partition
from ._real import Real
from .fields import Gradient
from .potts import coefficients, reinforcement


class Reinforcement(eqx.Module):
    r"""$\dot x = \eta\pi - \lambda x - \beta G(\beta x)$ with $\pi = \mathrm{softmax}(\beta x)$.

    **Arguments:** `gain`, `decay`, `beta`: $\eta, \lambda, \beta$. `gradient`: G of the load in the logits, such as
    `LogitGradient` with `load_frozen`, for a single token; `None` without a load.
    **Source:** [himoe-theory] D7, D8.
    """

    gain: Real
    decay: Real
    beta: Real
    gradient: Gradient | None = None

    def __check_init__(self):
        coefficients(self.gain, self.decay, self.beta)

    def __call__(self, scores: Float[Array, " experts"]) -> Float[Array, " experts"]:
        """The velocity."""
        velocity = reinforcement(scores, self.gain, self.decay, self.beta)
        if self.gradient is not None:
            velocity -= self.beta * self.gradient(self.beta * scores[None])[0]
        return velocity


class Biased(NamedTuple):
    """State of `BiasedReinforcement`."""

    scores: Float[Array, " experts"]
    bias: Float[Array, " experts"]


def proportional(excess: Float[Array, " experts"]) -> Float[Array, " experts"]:
    """The excess itself: the controller of D9."""
    return excess


class SmoothSign(eqx.Module):
    r"""$\tanh(\text{excess}/\text{width})$; tends to the sign, the released update, as the width (above 0) does."""

    width: Real

    def __check_init__(self):
        _checks.positive("width", self.width)

    def __call__(self, excess: Float[Array, " experts"]) -> Float[Array, " experts"]:
        """In [-1, 1], entry by entry."""
        return jnp.tanh(excess / self.width)


class BiasedReinforcement(eqx.Module):
    r"""$\dot x = \eta\pi - \lambda x,\ \dot b = -u\,\phi(\pi - 1/N)$ with $\pi = \mathrm{softmax}(\beta(x + b))$.

    **Arguments:** `rate`: u. `law`: $\phi$, `proportional` (D9) or `SmoothSign(width)` (D5).
    **Source:** [himoe-theory] D9.
    """

    gain: Real
    decay: Real
    beta: Real
    rate: Real
    law: Callable[[Float[Array, " experts"]], Float[Array, " experts"]] = proportional

    def __check_init__(self):
        coefficients(self.gain, self.decay, self.beta)
        _checks.coefficient("rate", self.rate)

    def __call__(self, state: Biased) -> Biased:
        """The velocity."""
        probs = jax.nn.softmax(self.beta * (state.scores + state.bias))
        excess = probs - 1 / probs.shape[0]
        return Biased(self.gain * probs - self.decay * state.scores, -self.rate * self.law(excess))


class Levels(NamedTuple):
    """State of `GroupedReinforcement`."""

    experts: Float[Array, " experts"]
    groups: Float[Array, " groups"]


class GroupedReinforcement(eqx.Module):
    r"""Scores of experts and of groups, reinforced together: $\dot x_e = \eta\pi_e - \lambda x_e$,
    $\dot y_g = \eta m_g - \lambda y_g$ with $\pi = \mathrm{softmax}(\beta x_e + \gamma y_{g(e)})$.

    **Arguments:** `beta`, `group_beta`: $\beta, \gamma$; $\gamma = 0$ is `Reinforcement`. `partition`: static.
    **Source:** [himoe-theory] D7, extended to a router with group and expert logits.
    """

    gain: Real
    decay: Real
    beta: Real
    group_beta: Real
    partition: Partition = eqx.field(static=True)

    def __check_init__(self):
        coefficients(self.gain, self.decay, self.beta)
        _checks.coefficient("group_beta", self.group_beta)

    def __call__(self, state: Levels) -> Levels:
        """The velocity."""
        probs = jax.nn.softmax(self.beta * state.experts + self.group_beta * self.partition.spread(state.groups))
        return Levels(
            self.gain * probs - self.decay * state.experts,
            self.gain * self.partition.sum(probs) - self.decay * state.groups,
        )
