"""What a training run leaves: arrays of fixed shape that fill up step by step, and the labelled data set made of them.

The shapes are fixed so that a checkpoint holds the trajectory like any other array. Nothing in it depends on the clock.
"""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from himoe_theory import Partition, metrics

from ..data import Corpus
from . import similarity
from .model import Model
from .program import Step
from .recipe import Recipe

Trajectory = dict[str, np.ndarray]

_LAYER_SCALARS = (
    "effective_groups",
    "effective_experts",
    "groups_touched",
    "router_entropy",
    "collision_information",
    *similarity.MEASURED,
    "silhouette",
)
_STEP_SCALARS = ("total_loss", "train_loss", "gradient_norm")


def empty(model: Model, recipe: Recipe, num_domains: int) -> Trajectory:
    """NaN for everything that has not happened; counts start at 0."""
    records, layers, experts = len(recipe.record_steps), len(model.moe_layers), model.experts

    def unknown(*shape: int) -> Float[np.ndarray, "..."]:
        return np.full(shape, np.nan, np.float32)

    by_step = {name: unknown(recipe.steps) for name in (*_STEP_SCALARS, *_terms(model))}
    by_record = {name: unknown(records, layers) for name in _LAYER_SCALARS}
    return (
        by_step
        | by_record
        | {
            "counts": np.zeros((records, layers, experts), np.int64),
            "dropped": np.zeros((records, layers), np.int64),
            "domain_loss": unknown(records, num_domains),
            "domain_tokens": np.zeros((records, num_domains), np.int64),
            "assignment": unknown(records, layers, num_domains, experts),
            "soft_load": unknown(records, layers, experts),
        }
    )


def add_step(trajectory: Trajectory, recipe: Recipe, index: int, step: Step) -> None:
    """Enters step number `index` (from 0). Counts go to the next record."""
    values = {"total_loss": step.loss, "train_loss": step.cross_entropy, "gradient_norm": step.gradient_norm}
    for name, value in {**values, **{f"term_{name}": value for name, value in step.terms.items()}}.items():
        trajectory[name][index] = value
    record = int(np.searchsorted(recipe.record_steps, index + 1))
    trajectory["counts"][record] += np.asarray(step.counts).astype(np.int64)
    trajectory["dropped"][record] += np.asarray(step.dropped).astype(np.int64)


def add_record(trajectory: Trajectory, recipe: Recipe, done: int, measured: dict[str, np.ndarray]) -> None:
    """Enters the measurements after `done` steps."""
    record = recipe.record_steps.index(done)
    for name, value in measured.items():
        trajectory[name][record] = value


def _terms(model: Model) -> list[str]:
    return [f"term_{name}" for name in model.arm.terms]


def dataset(trajectory: Trajectory, model: Model, recipe: Recipe, corpus: Corpus) -> xr.Dataset:
    """The trajectory with names, units and what follows from it."""
    with np.errstate(invalid="ignore"):  # 0/0 where nothing has happened yet is NaN
        variables = _losses(trajectory, model, corpus)
        if model.moe_layers:
            variables |= _loads(trajectory, model, recipe)
    coords = {
        "step": np.arange(1, recipe.steps + 1, dtype=np.int32),
        "record": np.asarray(recipe.record_steps, np.int32),
        "domain": list(corpus.domains),
        "layer": np.asarray(model.moe_layers, np.int32),
        "expert": np.arange(model.experts, dtype=np.int32),
    }
    result = xr.Dataset(variables, coords)
    result["record"].attrs["description"] = "finished steps at a measurement on validation sequences"
    nats = f"nats/{corpus.unit}"
    for name, variable in result.data_vars.items():
        variable.attrs = {"description": DESCRIPTIONS.get(name, "coefficient times objective, summed over layers")}
        if name.endswith("loss") or name.startswith(("term_", "loss_by")):
            variable.attrs["units"] = nats
        elif name in ("router_entropy", "collision_information"):
            variable.attrs["units"] = "nats"
        elif "perplexity" in name:
            variable.attrs["units"] = f"per {corpus.unit}"
    return result


_Variables = dict[str, tuple[tuple[str, ...], np.ndarray]]


def _losses(trajectory: Trajectory, model: Model, corpus: Corpus) -> _Variables:
    loss, tokens = trajectory["domain_loss"].astype(np.float64), trajectory["domain_tokens"]
    by_domain = loss / tokens
    whole = loss.sum(axis=1) / tokens.sum(axis=1)
    return {name: (("step",), trajectory[name]) for name in (*_STEP_SCALARS, *_terms(model))} | {
        "validation_loss": (("record",), whole),
        "perplexity": (("record",), np.exp(whole)),
        "loss_by_domain": (("record", "domain"), by_domain),
        "perplexity_by_domain": (("record", "domain"), np.exp(by_domain)),
        "domain_tokens": (("record", "domain"), tokens),
    }


def _loads(trajectory: Trajectory, model: Model, recipe: Recipe) -> _Variables:
    by_layer, by_expert = ("record", "layer"), ("record", "layer", "expert")
    between = np.diff(recipe.record_steps, prepend=0)[:, None]
    counts = trajectory["counts"]
    tokens = between * recipe.batch * model.context
    # A run that stopped has records whose steps did not all happen: their share of tokens is unknown.
    finished = np.isfinite(trajectory["soft_load"][:, :, :1]) & (tokens > 0)[:, :, None]
    load = np.where(finished, counts / np.where(tokens > 0, tokens, 1)[:, :, None], np.nan).astype(np.float32)
    validation = trajectory["assignment"].sum(axis=2) / trajectory["domain_tokens"].sum(axis=1)[:, None, None]
    partition = model.arm.router.partition
    variables = {name: (by_layer, trajectory[name]) for name in _LAYER_SCALARS}
    variables |= {f"train_{name}": (by_layer, value) for name, value in balance(load, partition).items()}
    variables |= {name: (by_layer, value) for name, value in balance(validation, partition).items()}
    return variables | {
        "train_load": (by_expert, load),
        "hard_load": (by_expert, validation.astype(np.float32)),
        "soft_load": (by_expert, trajectory["soft_load"]),
        "drop_rate": (by_layer, np.where(finished[:, :, 0], trajectory["dropped"] / counts.sum(axis=2), np.nan)),
        "assignment": (("record", "layer", "domain", "expert"), trajectory["assignment"]),
        "information": (by_layer, _information(trajectory["assignment"], model.router(False).least_routes)),
    }


def balance(load: Float[np.ndarray, "*batch experts"], partition: Partition) -> dict[str, np.ndarray]:
    """CV over experts and over groups, and MaxVio, of every load; NaN for loads with a NaN."""
    known = np.isfinite(load).all(axis=-1)
    flat = jnp.asarray(np.where(known[..., None], load, 0).reshape(-1, load.shape[-1]), jnp.float32)
    found = {
        "cv": jax.vmap(metrics.coefficient_of_variation)(flat),
        "group_cv": jax.vmap(lambda one: metrics.group_cv(one, partition))(flat),
        "max_violation": jax.vmap(metrics.max_violation)(flat),
    }
    return {name: np.where(known, np.asarray(value).reshape(known.shape), np.nan) for name, value in found.items()}


def _information(table: Float[np.ndarray, "records layers domains experts"], least_routes: int) -> np.ndarray:
    known = np.isfinite(table).all(axis=(2, 3))
    flat = jnp.asarray(np.where(known[..., None, None], table, 0).reshape(-1, *table.shape[2:]), jnp.float32)
    found = jax.vmap(lambda one: metrics.normalised_information(one, least_routes))(flat)
    return np.where(known, np.asarray(found).reshape(known.shape), np.nan)


DESCRIPTIONS: dict[str, str] = {
    "total_loss": "training loss with all terms, mean over micro-batches",
    "train_loss": "cross-entropy of the training batch",
    "gradient_norm": "global norm of the gradient before clipping",
    "validation_loss": "mean cross-entropy over validation sequences",
    "perplexity": "exp of the validation loss",
    "loss_by_domain": "mean cross-entropy over the validation tokens of a domain",
    "perplexity_by_domain": "exp of the loss of a domain",
    "domain_tokens": "validation tokens predicted in a domain",
    "train_load": "share of training tokens since the last record that select the expert, before drops",
    "train_cv": "coefficient of variation over experts of the training load since the last record",
    "train_group_cv": "coefficient of variation over groups of the training load since the last record",
    "train_max_violation": "largest training load since the last record over the mean, minus 1",
    "hard_load": "share of validation tokens that select the expert, before drops",
    "cv": "coefficient of variation over experts of the validation load",
    "group_cv": "coefficient of variation over groups of the validation load",
    "max_violation": "largest validation load over the mean, minus 1",
    "soft_load": "mean router probability of the expert on validation tokens",
    "drop_rate": "share of routes since the last record that found no place",
    "assignment": "validation tokens of the domain that select the expert",
    "information": "domain-expert mutual information of the selection over its largest possible value",
    "effective_groups": "mean over validation tokens of exp(entropy of the group masses)",
    "effective_experts": "mean over validation tokens of exp(entropy of pi)",
    "groups_touched": "mean over validation tokens of the number of groups with a selected expert",
    "router_entropy": "mean over validation tokens of the entropy of pi",
    "output_similarity": "mean cosine of two experts' outputs on the same validation token",
    "output_cka": "mean linear CKA of two experts' outputs",
    "parameter_similarity": "mean cosine of two experts' weights",
    "expert_overlap": "mean squared cosine of the outputs of a token's experts",
    "routing_variance": "variance of pi over validation tokens, mean over experts",
    "common_power": "squared length of the mean input of the gate (kappa_0)",
    "contrast_power": "largest eigenvalue of the covariance of the gate's inputs (kappa_c)",
    "silhouette": "silhouette of the outputs of the tokens' first experts",
    "collision_information": "I_2 = ln(E|pi|^2 / |E pi|^2) over validation tokens",
}
