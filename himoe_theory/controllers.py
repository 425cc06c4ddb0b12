r"""Controllers: state that a router carries from batch to batch and that shifts its selection.

`prepare` runs once a forward pass, before the selection: the state after it, the logits that selection and weights see,
and the keys that selection ranks. `tally` says what of a routing the controller counts; tallies of micro-batches add
up. `update` runs once an optimiser step, with the tally of the whole batch. States are trees of arrays. Fields are
numbers or arrays, so that `vmap` sweeps them. A controller of your own, the bias in proportion to the shortfall:

    class Proportional(Controller):
        rate: float
        def init(self, num_experts, dtype=jnp.float32):
            return jnp.zeros(num_experts, dtype)
        def prepare(self, state, logits, score, *, mask, training):
            keys = score.keys(logits, mask)
            values = keys.values + state.astype(logits.dtype)
            return Prepared(state, logits, Keys(values, keys.ties, (values, keys.ties)))
        def tally(self, routing):
            return routing.counts                   # [experts], whole numbers
        def update(self, state, tally):
            counts = tally.astype(state.dtype)
            return state + self.rate * (counts.mean() - counts)
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from . import _checks
from ._numerics import accumulate, masked_mean
from .routing import Routing
from .scores import Keys, Score

Tree = Any
"""A tree of arrays."""


class Prepared(NamedTuple):
    """The state after a forward pass, the logits that selection and weights see, and what selection ranks."""

    state: Tree
    logits: Float[Array, "tokens experts"]
    keys: Keys


class Controller(eqx.Module):
    """What a router asks of a controller: these methods, of which the defaults are those of no control at all."""

    @property
    def leaves_logits(self) -> bool:
        """Whether selection ranks the score of the raw logits, whatever the state."""
        return False

    @property
    def average(self) -> "LogitAverage | None":
        """The average that corrects the logits, if that is all it does."""
        return None

    @property
    def has_state(self) -> bool:
        """Whether there is anything to carry."""
        return bool(jax.tree.leaves(jax.eval_shape(lambda: self.init(1))))

    def init(self, num_experts: int, dtype: DTypeLike = jnp.float32) -> Tree:
        """The state before the first batch. None."""
        return ()

    def prepare(
        self,
        state: Tree,
        logits: Float[Array, "tokens experts"],
        score: Score,
        *,
        mask: Bool[Array, " tokens"] | None,
        training: bool,
    ) -> Prepared:
        """Everything unchanged."""
        return Prepared(state, logits, score.keys(logits, mask))

    def tally(self, routing: Routing) -> Tree:
        """What `update` wants to know of a routing: arrays that add up over micro-batches. Nothing."""
        return ()

    def update(self, state: Tree, tally: Tree) -> Tree:
        """The state after an optimiser step. Unchanged."""
        return state


class Uncontrolled(Controller):
    """No state: selection ranks the score of the logits."""

    @property
    def leaves_logits(self) -> bool:
        """True."""
        return True


class LogitAverage(Controller):
    r"""Bias correction of Hi-MoE: $\bar g \leftarrow \beta \bar g + (1-\beta) \bar s$, selection sees
    $(s - \tau \bar g)/\mathrm{Temp}$.

    $\bar g$ starts at 0 and is not debiased; in training it is updated first and then used in the same call, so that it
    moves once a forward pass, that is once a micro-batch, as in the released code; no gradient flows through it.
    $\bar s$ is the mean over real tokens; with none the state stays. **Arguments:** `tau` >= 0, `beta` in [0, 1],
    `temperature` > 0. **Source:** [himoe] section 3.3; [himoe-code].
    """

    tau: float | Float[Array, ""]
    """Share of the logit average taken off, at least 0."""
    beta: float | Float[Array, ""]
    """Memory of the average, in [0, 1]."""
    temperature: float | Float[Array, ""] = 1.0
    """What corrected logits are divided by, above 0."""

    def __check_init__(self):
        _checks.coefficient("tau", self.tau)
        _checks.coefficient("beta", self.beta, maximum=1.0)
        _checks.positive("temperature", self.temperature)

    @property
    def average(self) -> "LogitAverage":
        """Itself."""
        return self

    def init(self, num_experts: int, dtype: DTypeLike = jnp.float32) -> Float[Array, " experts"]:
        """Zeros."""
        return jnp.zeros(num_experts, dtype)

    def prepare(
        self,
        state: Float[Array, " experts"],
        logits: Float[Array, "tokens experts"],
        score: Score,
        *,
        mask: Bool[Array, " tokens"] | None,
        training: bool,
    ) -> Prepared:
        """The new average, and the corrected logits twice (a softmax ranks as its logits do)."""
        state = _checks.per_expert("state", state, logits.shape[1])
        if training:
            mean = masked_mean(jax.lax.stop_gradient(logits), mask).astype(state.dtype)
            moved = self.beta * state + (1 - self.beta) * mean
            state = moved if mask is None else jnp.where(mask.any(), moved, state)
        corrected = (logits - self.tau * state.astype(logits.dtype)) / self.temperature
        return Prepared(state, corrected, score.keys(corrected, mask))


class SelectionBias(Controller):
    r"""Loss-free balancing: selection ranks score + b; $b_e \leftarrow b_e + u\, \mathrm{sign}(\bar n - n_e)$ after
    every optimiser step, from the tokens of the whole batch that selected e, before drops.

    b starts at 0, never enters the weights and is kept in at least float32: bfloat16 cannot add 0.001 to 0.25.
    **Arguments:** `rate`: u >= 0. **Source:** [loss-free] algorithm 1; [himoe-code], u = 0.001.
    """

    rate: float | Float[Array, ""]
    """u, step of the biases, at least 0."""

    def __check_init__(self):
        _checks.coefficient("rate", self.rate)

    def init(self, num_experts: int, dtype: DTypeLike = jnp.float32) -> Float[Array, " experts"]:
        """Zeros, in at least float32."""
        return accumulate(jnp.zeros(num_experts, dtype))

    def prepare(
        self,
        state: Float[Array, " experts"],
        logits: Float[Array, "tokens experts"],
        score: Score,
        *,
        mask: Bool[Array, " tokens"] | None,
        training: bool,
    ) -> Prepared:
        """Logits unchanged; keys are the scores plus the bias. Equal keys are ranked by the score alone, and equal
        biases leave its order as it is, where a score saturates too."""
        state = accumulate(_checks.per_expert("state", state, logits.shape[1]))
        alone = score.keys(logits, mask)
        values = alone.values + state.astype(logits.dtype)
        exact = alone.ranks[-1]
        if len(alone.ranks) == 1:
            ranks = (jnp.where((state == state[0]).all(), exact, values), exact)
        else:
            ranks = (values, exact)
        keys = Keys(values, alone.ties, ranks)
        return Prepared(state, logits, keys)

    def tally(self, routing: Routing) -> Int[Array, " experts"]:
        """Tokens that selected each expert, before drops."""
        return routing.counts

    def update(self, state: Float[Array, " experts"], tally: Int[Array, " experts"]) -> Float[Array, " experts"]:
        """One step of size u towards experts with fewer tokens than the mean; the sign is of whole numbers, exact."""
        whole, rest = jnp.divmod(tally.sum(dtype=tally.dtype), jnp.asarray(tally.size, tally.dtype))
        above = tally > whole
        below = (tally < whole) | ((tally == whole) & (rest > 0))
        return state + self.rate * (below.astype(state.dtype) - above.astype(state.dtype))
