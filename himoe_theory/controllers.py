"""Controllers: state that a router carries from batch to batch and that shifts its selection.

`prepare` runs before the selection and gives the state after it, the logits that selection and weights see, and the
keys that selection ranks; `update` runs after it, with the dispatch counts. Fields are numbers or arrays, so that
`vmap` sweeps them.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from .scores import Score

Prepared = tuple[
    Float[Array, " experts"],
    Float[Array, "tokens experts"],
    Float[Array, "tokens experts"],
]


class Uncontrolled(eqx.Module):
    """No state: selection ranks the logits."""

    def prepare(
        self, state: Float[Array, " experts"], logits: Float[Array, "tokens experts"], score: Score, training: bool
    ) -> Prepared:
        """Everything unchanged."""
        return state, logits, logits

    def update(self, state: Float[Array, " experts"], counts: Float[Array, " experts"]) -> Float[Array, " experts"]:
        """Unchanged."""
        return state


class LogitAverage(eqx.Module):
    r"""Bias correction of Hi-MoE: $\bar g \leftarrow \beta \bar g + (1-\beta) \bar s$, selection sees
    $(s - \tau \bar g)/\mathrm{Temp}$.

    $\bar g$ starts at 0 and is not debiased; in training it is updated first and then used in the same call; no
    gradient flows through it. **Arguments:** `tau` >= 0, `beta` in [0, 1], `temperature` > 0. **Source:** [himoe]
    section 3.3; [himoe-code].
    """

    tau: float | Float[Array, ""]
    beta: float | Float[Array, ""]
    temperature: float | Float[Array, ""] = 1.0

    def __check_init__(self):
        _checks.coefficient("tau", self.tau)
        _checks.coefficient("beta", self.beta, maximum=1.0)
        _checks.positive("temperature", self.temperature)

    def prepare(
        self, state: Float[Array, " experts"], logits: Float[Array, "tokens experts"], score: Score, training: bool
    ) -> Prepared:
        """The new average, and the corrected logits twice (a softmax ranks as its logits do)."""
        if training:
            mean = jax.lax.stop_gradient(logits).mean(axis=0).astype(state.dtype)
            state = self.beta * state + (1 - self.beta) * mean
        corrected = (logits - self.tau * state.astype(logits.dtype)) / self.temperature
        return state, corrected, corrected

    def update(self, state: Float[Array, " experts"], counts: Float[Array, " experts"]) -> Float[Array, " experts"]:
        """Unchanged: the average does not depend on the selection."""
        return state


class SelectionBias(eqx.Module):
    r"""Loss-free balancing: selection ranks score + b; $b_e \leftarrow b_e + u\, \mathrm{sign}(\bar n - n_e)$ after
    every step.

    b starts at 0 and never enters the weights. **Arguments:** `rate`: u >= 0. **Source:** [loss-free] algorithm 1;
    [himoe-code], u = 0.001.
    """

    rate: float | Float[Array, ""]

    def __check_init__(self):
        _checks.coefficient("rate", self.rate)

    def prepare(
        self, state: Float[Array, " experts"], logits: Float[Array, "tokens experts"], score: Score, training: bool
    ) -> Prepared:
        """State and logits unchanged; keys are the scores plus the bias."""
        return state, logits, score.value(logits) + state.astype(logits.dtype)

    def update(self, state: Float[Array, " experts"], counts: Float[Array, " experts"]) -> Float[Array, " experts"]:
        """One step of size u towards experts with fewer tokens than the mean."""
        # Of N times the difference from the mean: counts are whole, so that an expert at the mean gives an exact 0.
        return state + self.rate * jnp.sign(counts.sum() - counts.size * counts)


Controller = Uncontrolled | LogitAverage | SelectionBias
