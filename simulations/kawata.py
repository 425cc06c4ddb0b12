r"""The staged experiment of Kawata et al.: a mixture finds a direction that a pooled network cannot see.

Neurons $\sigma(w \cdot x)$, $\sigma = \mathrm{He}_k/\sqrt{k!}$, unit vectors w, M experts of J neurons. Each stage
moves one block, by gradient steps on the correlation $E[y f(x)]$ with fresh batches:

1. *explore*: first layers under the uniform router; every expert sees all tokens and leans to some clusters' $w_c$;
2. *route*: the router $\pi = \mathrm{softmax}(\Theta x)$ from $\Theta = 0$, first layers held;
3. *exploit*: fresh first layers, each expert on the tokens of which its logit is the largest; inside a cluster $w_g$
   has the coefficient $s_c$, which pooled sums to 0;
4. the second layer, convex: least squares, each expert on its tokens.

The pooled network has the same neurons and tokens, and goes on with stage 1 from beginning to end. **Source:**
[kawata]. Correlation steps, the activation and the fresh start of stage 3 are ours; the paper's constants were not at
hand.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from himoe_theory import _checks, metrics

from .data import SingleIndex, Truth
from .data.single_index import hermite

Neurons = Float[Array, "experts neurons dim"]


@dataclasses.dataclass(frozen=True)
class Kawata:
    """What is run, on every seed."""

    data: SingleIndex = dataclasses.field(default_factory=SingleIndex)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    experts: int = 8
    neurons: int = 8
    """Of each expert."""
    batch: int = 2048
    explore: int = 300
    route: int = 100
    exploit: int = 300
    """Steps of the first three stages."""
    expert_rate: float = 0.05
    router_rate: float = 1.0
    tokens: int = 32768
    """Of the sample for the second layer, and of the test sample. Moments are taken over both."""

    def __post_init__(self):
        for name in ("experts", "neurons", "batch", "explore", "route", "exploit", "tokens"):
            _checks.count(name, getattr(self, name))
        _checks.count("number of seeds", len(self.seeds))
        for seed in self.seeds:
            _checks.count("seeds", seed, minimum=0, maximum=2**31 - 1)
        for name in ("expert_rate", "router_rate"):
            _checks.positive(name, getattr(self, name))

    @property
    def steps(self) -> int:
        """Of the first three stages together."""
        return self.explore + self.route + self.exploit

    def pieces(self) -> list["Kawata"]:
        """It is one program."""
        return [self]

    def combine(self, found: Sequence[xr.Dataset]) -> xr.Dataset:
        """The result of the only piece."""
        (result,) = found
        return result

    def simulate(self, report: Callable[[float], None] = lambda share: None) -> xr.Dataset:
        """Overlaps over the steps, routing and test errors at the end, Hermite moments of the data.

        **Returns:** a data set over (network, seed, step) and (label, seed). `shared_overlap`: the largest
        |w . w_g| over neurons; `local_overlap`: that with w_c, mean over clusters. `test_error`: mean squared;
        `target_variance`: that of y on the same tokens. `information`: of cluster and chosen expert, normalised.
        """
        began = time.perf_counter()
        rngs = [np.random.default_rng((seed, 0)) for seed in self.seeds]
        truths = jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *[self.data.truth(rng) for rng in rngs])
        first, second = (jnp.asarray(np.stack([_unit(rng, self) for rng in rngs])) for _ in range(2))
        keys = jax.vmap(jax.random.key)(jnp.asarray(self.seeds, jnp.uint32))
        end, overlaps = jax.device_get(train(self, truths, first, second, keys))
        report(0.8)
        result = _label(self, overlaps)
        sampled = sample(self, truths, keys)
        rows = [
            _measure(self, *jax.tree.map(lambda leaf, s=s: leaf[s], (end, jax.device_get((sampled, truths)))))
            for s in range(len(self.seeds))
        ]
        for name, axes in _AXES.items():
            result[name] = (("seed", *axes), np.stack([row[name] for row in rows]))
        return result.assign_attrs(seconds=time.perf_counter() - began, dtype="float32")


class Carry(NamedTuple):
    """The mixture's first layers, its router, and the pooled network's neurons."""

    first: Neurons
    router: Float[Array, "experts dim"]
    pooled: Neurons


class Samples(NamedTuple):
    """Tokens for the second layer and for the test."""

    x: Float[Array, "*runs sets tokens dim"]
    y: Float[Array, "*runs sets tokens"]
    labels: Int[Array, "*runs sets tokens"]


def activation(config: Kawata, index: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """σ."""
    return hermite((0.0,) * config.data.exponent + (1.0,), index)


def expert_step(
    config: Kawata, first: Neurons, x: Float[Array, "tokens dim"], pull: Float[Array, "tokens experts"]
) -> Neurons:
    r"""A step of size η along $\sum_t u_{te}\,\sigma'(w \cdot x_t) x_t$ on the sphere, u = `pull`: y over the tokens
    that the expert sees."""
    index = jnp.einsum("td,ejd->tej", x, first)
    k = config.data.exponent  # the derivative of the orthonormal He_k is sqrt(k) times the orthonormal He_{k-1}
    slope = hermite((0.0,) * (k - 1) + (k**0.5,), index) * pull[:, :, None]
    moved = first + np.float32(config.expert_rate) * jnp.einsum("tej,td->ejd", slope, x)
    radial = (moved * first).sum(axis=-1, keepdims=True)
    # The part along w is taken back before normalising: a step on the sphere, whatever the slope's length.
    moved = moved - (radial - 1) * first
    return moved / jnp.linalg.norm(moved, axis=-1, keepdims=True)


def router_step(
    config: Kawata, carry: Carry, x: Float[Array, "tokens dim"], y: Float[Array, " tokens"]
) -> Float[Array, "experts dim"]:
    r"""A step along the gradient of $E[y \sum_e \pi_e f_e]$ in Θ, $E[y\,\pi_e (f_e - \sum_i \pi_i f_i)\,x]$."""
    outputs = activation(config, jnp.einsum("td,ejd->tej", x, carry.first)).mean(axis=2)
    probs = jax.nn.softmax(x @ carry.router.T, axis=1)
    above = probs * (outputs - (probs * outputs).sum(axis=1, keepdims=True))
    return carry.router + np.float32(config.router_rate / x.shape[0]) * (above * y[:, None]).T @ x


def step(
    config: Kawata, truth: Truth, fresh: Neurons, carry: Carry, t: Int[Array, ""], key: PRNGKeyArray
) -> tuple[Carry, Float[Array, "2 2"]]:
    """One step of whichever stage it is, and the overlaps (shared, local) of (mixture, pooled) before it."""
    batch = config.data.draw(truth, jax.random.fold_in(key, t), config.batch)
    x, y = batch.x, batch.y[:, 0]
    everywhere = jnp.broadcast_to(y[:, None] / config.batch, (config.batch, config.experts))
    chosen = _chosen(x, carry.router)
    routed = chosen * y[:, None] / jnp.maximum(chosen.sum(axis=0), 1)
    exploiting = t >= config.explore + config.route
    first = jnp.where(t == config.explore + config.route, fresh, carry.first)
    carry = Carry(first, carry.router, carry.pooled)
    overlaps = jnp.stack([_overlaps(truth, first), _overlaps(truth, carry.pooled)])
    moved = expert_step(config, first, x, jnp.where(exploiting, routed, everywhere))
    routing = (t >= config.explore) & ~exploiting
    after = Carry(
        jnp.where(routing, first, moved),
        jnp.where(routing, router_step(config, carry, x, y), carry.router),
        expert_step(config, carry.pooled, x, everywhere),
    )
    return after, overlaps


@eqx.filter_jit
def train(
    config: Kawata,
    truths: Truth,
    first: Float[Array, "runs ..."],
    fresh: Float[Array, "runs ..."],
    keys: Key[Array, " runs"],
) -> tuple[Carry, Float[Array, "runs steps 2 2"]]:
    """Stages 1 to 3 of all seeds; the mixture and the pooled network start from the same neurons."""

    def one(truth: Truth, first: Array, fresh: Array, key: PRNGKeyArray) -> tuple[Carry, Array]:
        start = Carry(first, jnp.zeros((config.experts, config.data.dim), jnp.float32), first)
        times = jnp.arange(config.steps, dtype=jnp.int32)
        return jax.lax.scan(lambda carry, t: step(config, truth, fresh, carry, t, key), start, times)

    return jax.vmap(one)(truths, first, fresh, keys)


@eqx.filter_jit
def sample(config: Kawata, truths: Truth, keys: Key[Array, " runs"]) -> Samples:
    """Two samples a seed that training does not see."""

    def one(truth: Truth, key: PRNGKeyArray) -> Samples:
        batch = config.data.test(truth, jax.random.fold_in(key, config.steps), 2 * config.tokens)
        x = batch.x.reshape(2, config.tokens, config.data.dim)
        return Samples(x, batch.y.reshape(2, config.tokens), batch.labels.reshape(2, config.tokens))

    return jax.vmap(one)(truths, keys)


# After training, seed by seed on the host.

_AXES: dict[str, tuple[str, ...]] = {
    "test_error": ("network",),
    "target_variance": (),
    "information": (),
    "hard_load": ("expert",),
    "cluster_moment": ("label",),
    "pooled_moment": (),
    "exact_moment": ("label",),
}


def _measure(config: Kawata, end: Carry, rest: tuple[Samples, Truth]) -> dict[str, np.ndarray]:
    """Second layers and their errors, routing, moments; of one seed."""
    samples, truth = rest
    fit, test = ((samples.x[part], samples.y[part].astype(np.float64)) for part in (0, 1))
    errors = []
    for first, router in ((end.first, end.router), (end.pooled, None)):
        features = [np.asarray(second_layer_inputs(config, first, router, x), np.float64) for x, _ in (fit, test)]
        weights = np.linalg.lstsq(features[0], fit[1], rcond=1e-6)[0]
        errors.append(np.square(features[1] @ weights - test[1]).mean())
    chosen = _chosen(jnp.asarray(test[0]), jnp.asarray(end.router))
    table = metrics.contingency(jnp.asarray(samples.labels[1]), chosen, config.data.num_labels)
    shared = np.asarray(activation(config, jnp.asarray(samples.x @ truth["shared"])), np.float64) * samples.y
    inside = [shared[samples.labels == c].mean() for c in range(config.data.num_labels)]
    return {
        "test_error": np.asarray(errors),
        "target_variance": np.asarray(test[1].var()),
        "information": np.asarray(metrics.normalised_information(table, 1)),
        "hard_load": np.asarray(chosen.mean(axis=0)),
        "cluster_moment": np.asarray(inside),
        "pooled_moment": np.asarray(shared.mean()),
        "exact_moment": config.data.moments(),
    }


def second_layer_inputs(
    config: Kawata, first: Neurons | np.ndarray, router: Array | np.ndarray | None, x: Array | np.ndarray
) -> Float[Array, "tokens features"]:
    """All neurons and a constant; with a router, those of the chosen expert, 0 for the others."""
    hidden = activation(config, jnp.einsum("td,ejd->tej", x, first))
    if router is None:
        return jnp.pad(hidden.reshape(x.shape[0], -1), ((0, 0), (0, 1)), constant_values=1.0)
    hidden = jnp.pad(hidden, ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
    return (hidden * _chosen(jnp.asarray(x), jnp.asarray(router))[:, :, None]).reshape(x.shape[0], -1)


def _chosen(x: Float[Array, "tokens dim"], router: Float[Array, "experts dim"]) -> Float[Array, "tokens experts"]:
    best = jnp.argmax(x @ router.T, axis=1)
    return jax.nn.one_hot(best, router.shape[0], dtype=x.dtype)


def _overlaps(truth: Truth, first: Neurons) -> Float[Array, "2"]:
    shared = jnp.abs(jnp.einsum("ejd,d->ej", first, truth["shared"])).max()
    local = jnp.abs(jnp.einsum("ejd,cd->ejc", first, truth["local"])).max(axis=(0, 1)).mean()
    return jnp.stack([shared, local])


def _unit(rng: np.random.Generator, config: Kawata) -> Float[np.ndarray, "experts neurons dim"]:
    drawn = rng.standard_normal((config.experts, config.neurons, config.data.dim))
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def _label(config: Kawata, overlaps: Float[np.ndarray, "runs steps 2 2"]) -> xr.Dataset:
    axes = ("seed", "step", "network")
    variables = {"shared_overlap": (axes, overlaps[..., 0]), "local_overlap": (axes, overlaps[..., 1])}
    coords = {
        "seed": np.asarray(config.seeds, np.int32),
        "step": np.arange(config.steps, dtype=np.int32),
        "network": ["mixture", "pooled"],
        "label": np.arange(config.data.num_labels, dtype=np.int32),
        "expert": np.arange(config.experts, dtype=np.int32),
    }
    return xr.Dataset(variables, coords)
