r"""Scores: how logits become the numbers that selection ranks and combine weights are made of.

A score gives its logarithm, which stays finite where the value underflows; all else follows from it. What a score of
your own needs, as a file of yours would have it:

    @dataclasses.dataclass(frozen=True)
    class Squared(Score):
        def log(self, logits):                      # [tokens, experts] -> the same shape
            return 2 * jax.nn.log_sigmoid(logits)
"""

import dataclasses
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from . import _checks
from ._numerics import accumulate, safe_divide, within_range


class Keys(NamedTuple):
    """What a selection ranks. Larger is better; an expert whose value is -inf is never chosen.

    `values`: scores plus what a controller adds; comparable between experts and between tokens. `ties`: decides between
    equal values of different tokens, where values saturate or underflow. `ranks`: orders the experts of one token, by
    the first array, equal ones by the next: it does not saturate where the score's order does not.
    """

    values: Float[Array, "tokens experts"]
    ties: Float[Array, "tokens experts"]
    ranks: tuple[Float[Array, "tokens experts"], ...]

    def limited(self, allowed: Bool[Array, "*#tokens experts"]) -> "Keys":
        """With -inf where `allowed` is false."""

        def shown(part: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
            return jnp.where(allowed, part, -jnp.inf)

        return jax.tree.map(shown, self)

    @property
    def available(self) -> Bool[Array, "tokens experts"]:
        """Whether an expert may be chosen at all. NaN may: what has diverged still shows."""
        return self.values != -jnp.inf


@runtime_checkable
class Score(Protocol):
    """What a router asks of a score; subclass it and write `log`. Frozen and hashable: static under `jit`."""

    @property
    def couples_tokens(self) -> bool:
        """Whether the keys of one token depend on others."""
        return False

    @property
    def is_sparse(self) -> bool:
        """Whether it can be exactly 0, with a key of -inf: then such experts are not chosen."""
        return False

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the score, finite for finite logits."""
        ...

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The score, non-negative."""
        return jnp.exp(self.log(logits))

    def log_probs(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Logarithm of the score over its sum over all experts."""
        return jax.nn.log_softmax(self.log(logits))

    def pull_back(
        self, logits: Float[Array, "tokens experts"], gradient: Float[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        """Gradient in the logits from one in `log_probs` that belongs to a function of the probabilities alone: its
        rows sum to 0."""
        return jax.vjp(self.log_probs, logits)[1](gradient)[0]

    def keys(self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None) -> Keys:
        """What an uncontrolled selection ranks: values, ties by their logarithm. A score that looks at the whole batch
        must pass masked tokens over."""
        value, log = self.value(logits), self.log(logits)
        return Keys(value, log, (value, log))


@dataclasses.dataclass(frozen=True)
class Softmax(Score):
    r"""$\pi = \mathrm{softmax}(s)$: experts compete. **Source:** [shazeer], [gshard]."""

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """In (0, 1), rows sum to 1."""
        return jax.nn.softmax(logits)

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the value."""
        return jax.nn.log_softmax(logits)

    def log_probs(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The same."""
        return jax.nn.log_softmax(logits)

    def pull_back(
        self, logits: Float[Array, "tokens experts"], gradient: Float[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        """The gradient as it is."""
        return gradient

    def keys(self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None) -> Keys:
        """Within a token a softmax ranks as its logits do, which never saturate."""
        return Keys(self.value(logits), self.log(logits), (logits,))


@dataclasses.dataclass(frozen=True)
class Sigmoid(Score):
    r"""$\sigma(s)$: every expert on its own. **Source:** [loss-free] eq. (1) with G sigmoid; [deepseek-v3]."""

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """In [0, 1]; in floating point it is 1 from about 17 on in float32, 37 in float64."""
        return jax.nn.sigmoid(logits)

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the value."""
        return jax.nn.log_sigmoid(logits)

    def pull_back(
        self, logits: Float[Array, "tokens experts"], gradient: Float[Array, "tokens experts"]
    ) -> Float[Array, "tokens experts"]:
        r"""$g\,(1 - \sigma(s))$: rows no longer sum to 0, there is no softmax gauge."""
        return gradient * jax.nn.sigmoid(-logits)

    def keys(self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None) -> Keys:
        """Ranked by logits: values saturate where the order does not."""
        return Keys(self.value(logits), logits, (logits,))


@dataclasses.dataclass(frozen=True)
class Entmax15(Score):
    r"""$p = \mathrm{relu}(s/2 - \theta)^2$ with $\theta$ such that p sums to 1: a softmax with zeros (1.5-entmax).

    An expert off the support is never chosen (its key is -inf); the logarithm there is the lowest finite number, with
    gradient 0. **Source:** [mumoe].
    """

    @property
    def is_sparse(self) -> bool:
        """True."""
        return True

    def value(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """In [0, 1], rows sum to 1."""
        return jnp.square(self._root(logits))

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """Natural logarithm of the value."""
        root = self._root(logits)
        inside = root > 0
        low = jnp.finfo(logits.dtype).min
        return jnp.where(inside, 2 * jnp.log(jnp.where(inside, root, 1)), low)

    def log_probs(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The same: rows sum to 1 already."""
        return self.log(logits)

    def keys(self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None) -> Keys:
        """Logits on the support, -inf off it."""
        value = self.value(logits)
        return Keys(value, logits, (logits,)).limited(value > 0)

    def _root(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The square root of p. The threshold is that of the largest prefix, in falling order, that reaches it."""
        half = (logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))) / 2
        falling = -jnp.sort(-half, axis=-1)
        size = jnp.arange(1, half.shape[-1] + 1, dtype=half.dtype)
        mean = jnp.cumsum(falling, axis=-1) / size
        spread = jnp.cumsum(jnp.square(falling), axis=-1) - size * jnp.square(mean)
        inside = jnp.maximum((1 - spread) / size, 0)
        # The root's derivative at 0 is infinite; where a prefix is too long its threshold is not used.
        threshold = mean - jnp.where(inside > 0, jnp.sqrt(jnp.where(inside > 0, inside, 1)), 0)
        last = (threshold <= falling).sum(axis=-1, keepdims=True) - 1
        return jnp.maximum(half - jnp.take_along_axis(threshold, last, axis=-1), 0)


@dataclasses.dataclass(frozen=True)
class Sinkhorn(Score):
    r"""Ranks the plan of entropic transport between tokens and experts; weights are those of `inner`.

    From $K = e^s$, alternately $d^0_t = 1/(T \sum_e d^1_e K_{te})$ and $d^1_e = 1/(N \sum_t d^0_t K_{te})$, `rounds`
    times: the plan $d^1 K d^0$ has equal column sums. No gradient passes through it, and tokens see each other. In
    logarithms, so that no exponential overflows. **Source:** [megatron], sinkhorn routing (there until a tolerance,
    with 1e-8 added to the sums).
    """

    inner: Score = dataclasses.field(default_factory=Softmax)
    """Score that the weights are of."""
    rounds: int = 20
    """Rounds of the alternation."""

    def __post_init__(self):
        _checks.count("rounds", self.rounds)

    @property
    def couples_tokens(self) -> bool:
        """True."""
        return True

    def log(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The inner score's."""
        return self.inner.log(logits)

    def log_probs(self, logits: Float[Array, "tokens experts"]) -> Float[Array, "tokens experts"]:
        """The inner score's."""
        return self.inner.log_probs(logits)

    def keys(self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None) -> Keys:
        """The plan's logarithm."""
        plan = self.log_plan(logits, mask)
        return Keys(jnp.exp(plan), plan, (plan,))

    def log_plan(
        self, logits: Float[Array, "tokens experts"], mask: Bool[Array, " tokens"] | None = None
    ) -> Float[Array, "tokens experts"]:
        """Logarithm of the plan, -inf for masked tokens; sums to 1, columns to 1/N after the last round."""
        s = jax.lax.stop_gradient(logits)
        real = jnp.ones(s.shape[0], bool) if mask is None else mask
        tokens = jnp.maximum(real.sum(dtype=jnp.int32), 1).astype(s.dtype)
        experts = jnp.asarray(s.shape[1], s.dtype)

        def rows(column: Float[Array, "1 experts"]) -> Float[Array, "tokens 1"]:
            total = jax.nn.logsumexp(s + column, axis=1, keepdims=True)
            return jnp.where(real[:, None], -total - jnp.log(tokens), -jnp.inf)

        def turn(column: Float[Array, "1 experts"], _: None) -> tuple[Float[Array, "1 experts"], None]:
            total = jax.nn.logsumexp(s + rows(column), axis=0, keepdims=True)
            return jnp.where(real.any(), -total - jnp.log(experts), 0), None

        column, _ = jax.lax.scan(turn, jnp.zeros((1, s.shape[1]), s.dtype), length=self.rounds)
        return s + rows(column) + column


def cosine_logits(
    tokens: Float[Array, "tokens dim"],
    rows: Float[Array, "experts dim"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, "tokens experts"]:
    r"""Logits on the sphere, $s_{te} = \cos(x_t, w_e)/\tau$.

    Range $[-1/\tau, 1/\tau]$; the cosine with a zero vector is 0, with gradient 0. Lengths of tokens and rows do not
    matter. **Arguments:** `tokens`: x, after the projection if there is one. `rows`: w. `temperature`: $\tau$ > 0.
    **Raises:** `ValueError` if the dimensions differ. **Source:** [xmoe], the router on the sphere.
    """
    x, w = same_space(tokens, rows)
    _checks.positive("temperature", temperature)
    product = jnp.matmul(_unit(x), _unit(w).T, precision=jax.lax.Precision.HIGHEST)
    return product / temperature


def distance_logits(
    tokens: Float[Array, "tokens dim"], centres: Float[Array, "experts dim"]
) -> Float[Array, "tokens experts"]:
    r"""Logits of the Laplace gate, $s_{te} = -\|x_t - w_e\|$.

    Range $(-\infty, 0]$; the gradient at a centre, where the distance has a corner, is 0. Add a bias by hand where the
    gate has one. **Arguments:** `tokens`: x. `centres`: w. **Raises:** `ValueError` if the dimensions differ.
    **Source:** [fusemoe] Laplace gate; [hmoe].
    """
    x, w = same_space(tokens, centres)
    return -_length(x[:, None, :] - w[None, :, :])


def same_space(
    tokens: Float[Array, "tokens dim"], rows: Float[Array, "experts dim"]
) -> tuple[Float[Array, "tokens dim"], Float[Array, "experts dim"]]:
    """Both in at least float32. **Raises:** `ValueError` if their dimensions differ."""
    x = accumulate(_checks.matrix("tokens", tokens, ("tokens", "dim")))
    w = accumulate(_checks.matrix("experts", rows, ("experts", "dim")))
    if x.shape[1] != w.shape[1]:
        raise ValueError(f"tokens have {x.shape[1]} dimensions, experts have {w.shape[1]}.")
    return x, w


def _length(x: Float[Array, "*batch dim"]) -> Float[Array, "*batch"]:
    square = jnp.square(x).sum(axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _unit(x: Float[Array, "count dim"]) -> Float[Array, "count dim"]:
    x = within_range(x)  # squares neither vanish nor overflow
    return safe_divide(x, _length(x)[:, None], otherwise=0.0)
