r"""Markov-switching streams: the tokens of clusters in an order that stays with a cluster for a while.

At every token the cluster is drawn anew from the priors with probability 1/D, else kept: $P(c_t = c_{t+h}) = q +
(1-q)(1-1/D)^h$, $q = \sum_c p_c^2$. Each token alone has the law of the clusters; D = 1 gives independent tokens. What
changes is what a batch holds, and with it every loss whose scope is a batch.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from himoe_theory import _checks

from .. import random
from .base import Batch, Truth
from .clusters import Clusters


@dataclasses.dataclass(frozen=True)
class Streams(Clusters):
    """Clusters whose batch is one stream of neighbouring tokens, started afresh.

    The test set is of independent tokens: what the layer is judged on does not depend on the order it was trained in.
    """

    dwell: float = 16.0
    """D, mean number of tokens from one draw of the cluster to the next, at least 1. A draw may give the same cluster
    again: a run of cluster c lasts D / (1 - p_c) tokens in the mean."""

    in_truth: ClassVar[tuple[str, ...]] = (*Clusters.in_truth, "dwell")

    def __post_init__(self):
        super().__post_init__()
        _checks.coefficient("dwell", self.dwell, minimum=1.0)

    def truth(self, rng: np.random.Generator) -> Truth:
        """The clusters', and the probability that a token's cluster is drawn anew, 1/D."""
        return super().truth(rng) | {"switch": np.float32(1 / self.dwell)}

    def draw(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """One stream, in order."""
        k_label, k_token = jax.random.split(key)
        labels = self._labels(truth, k_label, tokens)
        # One cluster alone, whichever it is: so that the label is given and the rest is the clusters' own.
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Clusters)}
        single = Clusters(**own | {"clusters": 1, "priors": None, "factors": None})

        def token(label: Array, key: PRNGKeyArray) -> Batch:
            own = {name: jnp.asarray(truth[name])[label][None] for name in ("centres", "maps")}
            return single.draw(truth | own, key, 1)

        drawn = jax.vmap(token)(labels, jax.random.split(k_token, tokens))
        return Batch(drawn.x[:, 0], drawn.y[:, 0], labels)

    def test(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Independent tokens that training does not see."""
        return super().draw(truth, key, tokens)

    def independent_tokens(self, tokens: int) -> float:
        r"""Number of independent tokens whose mean label indicator varies as much as that of a stream of T tokens.

        $T^2 / \sum_{s,t \le T} r^{|s-t|}$ with $r = 1 - 1/D$; near T/(2D - 1) for T much longer than D. It takes the
        place of T in D2 for whatever depends on the label alone. **Source:** [himoe-theory].
        """
        _checks.count("tokens", tokens)
        lags = np.arange(1, tokens)
        return tokens**2 / (tokens + 2 * float(((tokens - lags) * (1 - 1 / self.dwell) ** lags).sum()))

    def _labels(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Int[Array, " tokens"]:
        k_fresh, k_switch = jax.random.split(key)
        fresh = self._independent_labels(k_fresh, tokens)
        place = jnp.arange(tokens, dtype=jnp.int32)
        switch = random.uniform(k_switch, tokens) < truth["switch"]
        return fresh[jax.lax.cummax(jnp.where(switch, place, 0))]
