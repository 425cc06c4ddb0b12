"""The mixture of Chen et al. and one step of its training, in the form of the paper and in that of the released code.

The table in `simulations.chen` says in what they differ.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from himoe_theory._numerics import safe_divide

from . import random
from .data import Parts

Logits = Float[Array, "tokens experts"]
Outputs = Float[Array, "tokens 2"]


def softmax_gate(logits: Logits, noisy: Logits) -> Logits:
    """Factor of an expert's output in the paper: its probability, without noise."""
    return jax.nn.softmax(logits, axis=1)


def noisy_logit_gate(logits: Logits, noisy: Logits) -> Logits:
    """Factor in the released code: the logit itself, noise included."""
    return noisy


def cross_entropy(outputs: Outputs, y: Outputs) -> Float[Array, ""]:
    """Mean cross-entropy: the logistic loss of the difference of the two outputs."""
    return -(y * jax.nn.log_softmax(outputs, axis=1)).sum(axis=1).mean()


def double_cross_entropy(outputs: Outputs, y: Outputs) -> Float[Array, ""]:
    """Cross-entropy of probabilities taken for logits: at least ln(1 + 1/e)."""
    return cross_entropy(jax.nn.softmax(outputs, axis=1), y)


@dataclasses.dataclass(frozen=True)
class Form:
    """One reading of the experiment; see the table above."""

    gate: Callable[[Logits, Logits], Logits]
    loss: Callable[[Outputs, Outputs], Float[Array, ""]]
    bias: bool
    noisy_test: bool
    early_stop: bool


PAPER = Form(softmax_gate, cross_entropy, bias=False, noisy_test=False, early_stop=False)
RELEASED = Form(noisy_logit_gate, double_cross_entropy, bias=True, noisy_test=True, early_stop=True)

Parameters = dict[str, Float[Array, "..."]]


class Samples(NamedTuple):
    """A set of samples: nothing here depends on the order of their patches, and nor does the model."""

    parts: Parts
    vectors: Float[Array, "*runs vectors dim"]
    """What `parts.index` refers to."""
    total: Float[Array, "*runs tokens dim"]
    """Sum of a sample's patches, which is what the router reads."""


class Data(NamedTuple):
    """The two sets of samples of a run."""

    train: Samples
    test: Samples


class Carry(NamedTuple):
    """All that the next step needs."""

    experts: Parameters
    router: Float[Array, "*runs experts dim"]
    least: Float[Array, "*runs"]
    stopped: Array
    steps: Int[Array, "*runs"]


@dataclasses.dataclass(frozen=True)
class Program:
    """The training of one model; static under `jit`."""

    form: Form
    expert: Callable[[Parameters, Samples, Array], Outputs]
    """The chosen experts' outputs."""
    expert_rate: float
    router_rate: float
    steps: int

    def outputs(
        self, experts: Parameters, router: Float[Array, "experts dim"], samples: Samples, noise: Logits
    ) -> tuple[Outputs, Int[Array, " tokens"]]:
        """The mixture's outputs, and the expert of every sample."""
        logits = samples.total @ router.T
        noisy = logits + noise
        chosen = jnp.argmax(noisy, axis=1).astype(jnp.int32)
        gate = jnp.take_along_axis(self.form.gate(logits, noisy), chosen[:, None], axis=1)
        return gate * self.expert(experts, samples, chosen), chosen

    def step(self, carry: Carry, data: Data, key: PRNGKeyArray) -> tuple[Carry, Float[Array, ""]]:
        """One full-batch step, and the loss before it."""
        y = data.train.parts.y
        noise = _noise(key, y.shape[0], carry.router.shape[0])

        def loss_of(experts: Parameters, router: Array) -> Array:
            return self.form.loss(self.outputs(experts, router, data.train, noise)[0], y)

        loss, (slope, router_slope) = jax.value_and_grad(loss_of, argnums=(0, 1))(carry.experts, carry.router)
        worse = (loss > carry.least) & ((loss > carry.least + np.float32(0.02)) | (loss <= np.float32(0.314)))
        stopped = carry.stopped | (worse & self.form.early_stop)
        moves = jnp.where(stopped, np.float32(0), np.float32(1))
        experts = jax.tree.map(
            lambda old, move: old - moves * np.float32(self.expert_rate) * move, carry.experts, normalised(slope)
        )
        router = carry.router - moves * np.float32(self.router_rate) * router_slope
        steps = carry.steps + (~stopped).astype(jnp.int32)
        return Carry(experts, router, jnp.minimum(carry.least, loss), stopped, steps), loss

    @eqx.filter_jit
    def run(
        self, data: Data, experts: Parameters, router: Float[Array, "runs experts dim"], keys: Key[Array, " runs"]
    ) -> dict[str, Array]:
        """Trains and tests every run, one after another: the samples of one stay in the cache."""

        def one(given: tuple[Data, Parameters, Array, PRNGKeyArray]) -> dict[str, Array]:
            data, experts, router, key = given
            start = Carry(experts, router, jnp.float32(jnp.inf), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
            times = jnp.arange(self.steps, dtype=jnp.int32)
            end, losses = jax.lax.scan(lambda c, t: self.step(c, data, jax.random.fold_in(key, t + 2)), start, times)
            test = data.test.parts
            noise = _noise(jax.random.fold_in(key, self.steps + 2), test.y.shape[0], router.shape[0])
            if not self.form.noisy_test:
                noise = jnp.zeros_like(noise)
            outputs, chosen = self.outputs(end.experts, end.router, data.test, noise)
            right = jnp.argmax(outputs, axis=1) == jnp.argmax(test.y, axis=1)
            clusters = jax.nn.one_hot(test.labels, data.test.vectors.shape[0] // 2, dtype=jnp.float32)
            table = clusters.T @ jax.nn.one_hot(chosen, router.shape[0], dtype=jnp.float32)
            return {
                "accuracy": right.astype(jnp.float32).mean(),
                "loss": losses[-1],
                "steps": end.steps,
                "table": table,
            }

        return jax.lax.map(one, (data, experts, router, keys))


def linear_outputs(experts: Parameters, samples: Samples, chosen: Int[Array, " tokens"]) -> Outputs:
    """σ(z) = z: the patches of a sample, and the filters of an output, can be summed first."""
    patches = samples.parts.noise.shape[1] + 3
    weight = experts["weight"].sum(axis=2)
    every = (samples.total @ weight.reshape(-1, weight.shape[-1]).T).reshape(-1, *weight.shape[:2])
    own = _own(every, chosen)
    return own + patches * experts["bias"].sum(axis=2)[chosen] if "bias" in experts else own


def cubic_outputs(experts: Parameters, samples: Samples, chosen: Int[Array, " tokens"]) -> Outputs:
    """σ(z) = z³. Planted patches are multiples of few vectors: their products with filters are read from a table."""
    weight, parts = experts["weight"], samples.parts
    table = jnp.einsum("eojd,vd->evoj", weight, samples.vectors)
    planted = table[chosen[:, None], parts.index] * parts.length[:, :, None, None]
    noise = [patch @ weight.reshape(-1, weight.shape[-1]).T for patch in jnp.moveaxis(parts.noise, 1, 0)]
    responses = jnp.stack([_own(every.reshape(-1, *weight.shape[:3]), chosen) for every in noise], axis=1)
    index = jnp.concatenate([planted, responses], axis=1)
    if "bias" in experts:
        index = index + experts["bias"][chosen][:, None]
    return (index**3).sum(axis=(1, 3))


def _noise(key: PRNGKeyArray, tokens: int, experts: int) -> Logits:
    """The router's noise, U(0, 1)."""
    return random.uniform(key, tokens * experts).reshape(tokens, experts)


def _own(every: Float[Array, "tokens experts ..."], chosen: Int[Array, " tokens"]) -> Float[Array, "tokens ..."]:
    """The chosen expert's entry of every sample."""
    return every[jnp.arange(chosen.shape[0], dtype=jnp.int32), chosen]


ACTIVATIONS: dict[str, Callable[[Parameters, Samples, Array], Outputs]] = {
    "linear": linear_outputs,
    "cubic": cubic_outputs,
}


def normalised(slope: Parameters) -> Parameters:
    """Each expert's gradient over the sum of its tensors' norms, 0 for an expert without gradient. [chen-code]"""
    leaves = jax.tree.leaves(slope)
    total = sum(jnp.sqrt(jnp.square(leaf).reshape(leaf.shape[0], -1).sum(axis=1)) for leaf in leaves)
    return jax.tree.map(
        lambda leaf: safe_divide(leaf, jnp.reshape(total, (-1,) + (1,) * (leaf.ndim - 1)), otherwise=0.0), slope
    )
