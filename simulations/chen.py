r"""The experiment of Chen et al.: mixtures of linear and of cubic experts on four settings of the patch data.

Expert m gives $f_m(x)_o = \sum_p \sum_j \sigma(w_{moj} \cdot x^{(p)} + b_{moj})$, $\sigma(z) = z$ or $z^3$; the router
$h(x) = \Theta \sum_p x^{(p)}$ sends x to $m = \arg\max (h + r)$ with fresh $r \sim U(0, 1)$. Full batch; experts take
normalised gradient steps, each its own, the router plain ones. Paper and released code differ, so both are here:

| | paper's form | released form |
|---|---|---|
| output | $\mathrm{softmax}(h)_m f_m$ | $(h + r)_m f_m$ |
| loss | cross-entropy of the output | of softmax(output): never below ln(1 + 1/e) = .3133 |
| biases | none | yes; an expert's gradient is divided by the sum of its tensors' norms |
| test | without noise | with noise |
| stops | after the last step | also at a loss .02 above the least, or at most .314 and not a new least |

**Source:** [chen] sections 3 and 6; [chen-code].
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray
from scipy.special import entr

from himoe_theory import _checks
from himoe_theory._numerics import safe_divide

from .data import Parts, chen_settings

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

KINDS = ("linear", "cubic")
MODELS = ("paper", "released", "single")
"""The mixture in its two forms, and a single expert of the paper's form."""


@dataclasses.dataclass(frozen=True)
class Chen:
    """What is run: every model with every activation on every setting and seed."""

    models: tuple[str, ...] = MODELS
    activations: tuple[str, ...] = KINDS
    settings: tuple[str, ...] = ("1", "2", "3", "4")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """A seed fixes vectors, samples, initial weights and noise. (The paper's runs share one data set.)"""
    samples: int = 4000
    """Of the training set, and of the test set; 16,000 in the paper."""
    steps: int = 500
    experts: int = 8
    filters: int = 8
    """Filters an output, of each expert."""
    expert_rate: float = 1e-3
    router_rate: float = 0.1
    initial: float = 1e-3
    """Factor on initial weights uniform in ±1/sqrt(d)."""

    def __post_init__(self):
        for name, known in (("models", MODELS), ("activations", KINDS), ("settings", tuple("1234"))):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
                raise ValueError(f"`{name}` must be distinct ones of {', '.join(known)}; got {chosen}.")
        for name in ("samples", "steps", "experts", "filters"):
            _checks.count(name, getattr(self, name))
        _checks.count("number of seeds", len(self.seeds))
        for seed in self.seeds:
            _checks.count("seeds", seed, minimum=0, maximum=2**31 - 1)
        for name in ("expert_rate", "router_rate", "initial"):
            _checks.positive(name, getattr(self, name))

    def pieces(self) -> list["Chen"]:
        """The same, split into what compiles to one program each."""
        pairs = itertools.product(self.models, self.activations)
        return [dataclasses.replace(self, models=(model,), activations=(name,)) for model, name in pairs]

    def simulate(self, report: Callable[[float], None] = lambda share: None) -> xr.Dataset:
        """Test accuracy, training loss, steps taken, and test samples by cluster and expert, with the dispatch entropy.

        **Returns:** a data set over (model, activation, setting, seed). A diverged run keeps its NaN loss.
        """
        began, found, pieces = time.perf_counter(), [], self.pieces()
        for done, piece in enumerate(pieces):
            found.append(_run(piece))
            report((done + 1) / len(pieces))
        result = xr.combine_by_coords(found, join="outer", combine_attrs="override")
        result = result.sel(model=list(self.models), activation=list(self.activations))
        result["entropy"] = xr.apply_ufunc(dispatch_entropy, result["table"], input_core_dims=[["label", "expert"]])
        return result.assign_attrs(seconds=time.perf_counter() - began, dtype="float32")


def dispatch_entropy(table: Float[np.ndarray, "*runs labels experts"]) -> Float[np.ndarray, "*runs"]:
    r"""$H = -\sum_m \frac{n_m}{n} \sum_k p(k|m) \ln p(k|m)$: what the expert leaves open about the cluster; nats.

    Range $[0, \ln K]$. **Arguments:** `table`: samples of cluster k sent to expert m. **Source:** [chen] section 6.
    """
    joint = table / table.sum(axis=(-2, -1), keepdims=True)
    return entr(joint).sum(axis=(-2, -1)) - entr(joint.sum(axis=-2)).sum(axis=-1)


# One program: a model and an activation, on all settings and seeds.

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
        noise = jax.random.uniform(key, (y.shape[0], carry.router.shape[0]), jnp.float32)

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
            end, losses = jax.lax.scan(lambda c, t: self.step(c, data, jax.random.fold_in(key, t)), start, times)
            test = data.test.parts
            noise = jnp.zeros((test.y.shape[0], router.shape[0]), jnp.float32)
            if self.form.noisy_test:
                noise = jax.random.uniform(jax.random.fold_in(key, self.steps), noise.shape, jnp.float32)
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
    """σ(z) = z³. Planted patches are multiples of few vectors: their products with the filters are read from a table."""
    weight, parts = experts["weight"], samples.parts
    table = jnp.einsum("eojd,vd->evoj", weight, samples.vectors)
    planted = table[chosen[:, None], parts.index] * parts.length[:, :, None, None]
    noise = [patch @ weight.reshape(-1, weight.shape[-1]).T for patch in jnp.moveaxis(parts.noise, 1, 0)]
    responses = jnp.stack([_own(every.reshape(-1, *weight.shape[:3]), chosen) for every in noise], axis=1)
    index = jnp.concatenate([planted, responses], axis=1)
    if "bias" in experts:
        index = index + experts["bias"][chosen][:, None]
    return (index**3).sum(axis=(1, 3))


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


def _run(piece: Chen) -> xr.Dataset:
    """One model with one activation."""
    (model,), (activation,) = piece.models, piece.activations
    form = RELEASED if model == "released" else PAPER
    experts = 1 if model == "single" else piece.experts
    program = Program(form, ACTIVATIONS[activation], piece.expert_rate, piece.router_rate, piece.steps)
    data, keys = _data(piece.settings, piece.seeds, piece.samples)
    runs, dim = data.test.vectors.shape[::2]
    drawn = [
        _initial(np.random.default_rng((seed, 1)), experts, piece.filters, dim, piece.initial) for seed in piece.seeds
    ]
    stacked = jax.tree.map(lambda *one: jnp.asarray(np.stack(one * len(piece.settings))), *drawn)
    chosen = {name: value for name, value in stacked.items() if name == "weight" or form.bias}
    measured = jax.device_get(program.run(data, chosen, jnp.zeros((runs, experts, dim), jnp.float32), keys))
    shape = (1, 1, len(piece.settings), len(piece.seeds))
    axes = ("model", "activation", "setting", "seed")
    variables = {
        name: ((*axes, "label", "expert") if name == "table" else axes, value.reshape(*shape, *value.shape[1:]))
        for name, value in measured.items()
    }
    coords = {"model": [model], "activation": [activation], "setting": list(piece.settings), "seed": list(piece.seeds)}
    sizes = {name: np.arange(size) for name, size in zip(("label", "expert"), measured["table"].shape[1:], strict=True)}
    return xr.Dataset(variables, coords | sizes)


def _data(settings: Sequence[str], seeds: Sequence[int], samples: int) -> tuple[Data, Key[Array, " runs"]]:
    """The samples of every run, settings first, and its key for the router's noise."""
    known, found, keys = chen_settings(), [], []
    for setting, seed in itertools.product(settings, seeds):
        truth, key = known[setting].truth(np.random.default_rng((seed, 0))), jax.random.key(seed)
        sets = [known[setting].parts(truth, jax.random.fold_in(key, part), samples) for part in (0, 1)]
        found.append(Data(*(_samples(parts, jnp.asarray(truth["vectors"])) for parts in sets)))
        keys.append(jax.random.fold_in(key, 2))
    return jax.tree.map(lambda *one: jnp.stack(one), *found), jnp.stack(keys)


def _samples(parts: Parts, vectors: Float[Array, "vectors dim"]) -> Samples:
    total = (vectors[parts.index] * parts.length[:, :, None]).sum(axis=1) + parts.noise.sum(axis=1)
    return Samples(parts, vectors, total)


def _initial(rng: np.random.Generator, experts: int, filters: int, dim: int, factor: float) -> dict[str, Any]:
    """Small weights and biases, uniform as the framework of the released code draws them."""
    size = factor / dim**0.5
    shape = (experts, 2, filters)
    weight, bias = rng.uniform(-size, size, (*shape, dim)), rng.uniform(-size, size, shape)
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
