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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray
from scipy.special import entr

from himoe_theory import _checks

from .chen_model import ACTIVATIONS, PAPER, RELEASED, Data, Program, Samples
from .data import Parts, Patches, Truth, chen_settings

KINDS = tuple(ACTIVATIONS)
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
        return self.combine(found).assign_attrs(seconds=time.perf_counter() - began, dtype="float32")

    def combine(self, found: Sequence[xr.Dataset]) -> xr.Dataset:
        """One result from those of the pieces."""
        plain = {"data_vars": "minimal", "coords": "minimal", "compat": "override", "join": "exact"}
        result = xr.combine_by_coords(found, combine_attrs="override", **plain)
        return result.sel(model=list(self.models), activation=list(self.activations), setting=list(self.settings))


def dispatch_entropy(table: Float[np.ndarray, "*runs labels experts"]) -> Float[np.ndarray, "*runs"]:
    r"""$H = -\sum_m \frac{n_m}{n} \sum_k p(k|m) \ln p(k|m)$: what the expert leaves open about the cluster; nats.

    Range $[0, \ln K]$. **Arguments:** `table`: samples of cluster k sent to expert m. **Source:** [chen] section 6.
    """
    joint = table / table.sum(axis=(-2, -1), keepdims=True)
    return np.asarray(entr(joint).sum(axis=(-2, -1)) - entr(joint.sum(axis=-2)).sum(axis=-1))


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
    measured["entropy"] = dispatch_entropy(measured["table"])
    # A single expert leaves the other columns empty.
    measured["table"] = np.pad(measured["table"], ((0, 0), (0, 0), (0, piece.experts - experts)))
    variables = {
        name: ((*axes, "label", "expert") if name == "table" else axes, value.reshape(*shape, *value.shape[1:]))
        for name, value in measured.items()
    }
    coords = {"model": [model], "activation": [activation], "setting": list(piece.settings), "seed": list(piece.seeds)}
    sizes = {name: np.arange(size) for name, size in zip(("label", "expert"), measured["table"].shape[1:], strict=True)}
    return xr.Dataset(variables, coords | sizes)


def _data(settings: Sequence[str], seeds: Sequence[int], samples: int) -> tuple[Data, Key[Array, " runs"]]:
    """The samples of every run, settings first, and its key for the router's noise."""
    known, runs = chen_settings(), list(itertools.product(settings, seeds))
    truths = [known[setting].truth(np.random.default_rng((seed, 0))) for setting, seed in runs]
    truth = jax.tree.map(lambda *one: jnp.asarray(np.stack(one)), *truths)
    keys = jax.vmap(jax.random.key)(jnp.asarray([seed for _, seed in runs], jnp.uint32))
    # The settings differ in their truths alone: any of them draws for all.
    return Data(*(_draw(known["1"], truth, keys, jnp.int32(part), samples) for part in (0, 1))), keys


@eqx.filter_jit
def _draw(setting: Patches, truth: Truth, keys: Key[Array, " runs"], part: Int[Array, ""], samples: int) -> Samples:
    """The training (part 0) or test samples of every run."""

    def one(truth: Truth, key: PRNGKeyArray) -> Samples:
        return _samples(setting.parts(truth, jax.random.fold_in(key, part), samples), jnp.asarray(truth["vectors"]))

    return jax.vmap(one)(truth, keys)


def _samples(parts: Parts, vectors: Float[Array, "vectors dim"]) -> Samples:
    total = (vectors[parts.index] * parts.length[:, :, None]).sum(axis=1) + parts.noise.sum(axis=1)
    return Samples(parts, vectors, total)


def _initial(rng: np.random.Generator, experts: int, filters: int, dim: int, factor: float) -> dict[str, Any]:
    """Small weights and biases, uniform as the framework of the released code draws them."""
    size = factor / dim**0.5
    shape = (experts, 2, filters)
    weight, bias = rng.uniform(-size, size, (*shape, dim)), rng.uniform(-size, size, shape)
    return {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
