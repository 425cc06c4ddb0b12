"""Results of language-model studies with chosen numbers, without training anything."""

import dataclasses

import numpy as np
import xarray as xr

from paper_figures.plan import Replication
from simulations.language.recipe import Recipe
from simulations.language.study import Study, ablated, compared, loaded

RECIPE = Recipe(steps=20, batch=2, warmup=2, records=4, held_out=4)
COMPARED = Study(compared(), recipe=RECIPE)
ABLATED = Study(ablated(), recipe=RECIPE)
LOADED = Study(loaded((0.0, 0.01, 0.1)), seeds=(0, 1), recipe=RECIPE)
BOUNDED = Study(loaded((0.0, 0.002, 0.01, 0.1), ("hi-moe",)), recipe=RECIPE)
SCOPED = Study(loaded((0.1, 0.4), ("hi-moe",)), recipe=dataclasses.replace(RECIPE, micro_batches=2))
_BY_LAYER = (
    *("cv", "max_violation", "effective_groups", "information", "output_similarity", "parameter_similarity"),
    *("expert_overlap", "silhouette", "routing_variance", "common_power", "contrast_power", "collision_information"),
)


def spoken(study: Study, draw: int = 0) -> xr.Dataset:
    """Numbers in (0, 1), loads that sum to 4 and probabilities that sum to 1; the plain model has no layers of them."""
    rng, records, layers, experts = np.random.default_rng(draw), len(study.recipe.record_steps), 2, 8
    axes = ("arm", "seed", "record")
    shape = (len(study.arms), len(study.seeds), records)

    def numbers(*sizes: int) -> np.ndarray:
        return rng.uniform(size=(*shape, *sizes))

    def shares(total: float) -> np.ndarray:
        drawn = numbers(layers, experts)
        return total * drawn / drawn.sum(axis=-1, keepdims=True)

    layered = {name: ((*axes, "layer"), numbers(layers)) for name in _BY_LAYER}
    by_expert = {name: ((*axes, "layer", "expert"), shares(4)) for name in ("hard_load", "train_load")}
    by_expert["soft_load"] = ((*axes, "layer", "expert"), shares(1))
    layered["groups_touched"] = ((*axes, "layer"), 1 + 3 * numbers(layers))
    by_expert["assignment"] = ((*axes, "layer", "domain", "expert"), 500 * np.stack([shares(4), shares(4)], axis=-2))
    domains = {"domain_tokens": ((*axes, "domain"), np.full((*shape, 2), 500))}
    losses = {name: (axes, 2 + numbers()) for name in ("validation_loss", "perplexity")}
    coords = {
        "arm": [arm.name for arm in study.arms],
        "seed": list(study.seeds),
        "record": list(study.recipe.record_steps),
        "layer": [0, 2],
        "expert": range(experts),
    }
    found = xr.Dataset(losses | layered | by_expert | domains, coords)
    for name in [*layered, *by_expert]:
        found[name] = found[name].where(found.arm != "plain")
    attributes = Replication("language", study).fingerprint()
    return found.assign_attrs(attributes | {"device": "none", "seconds": 1.0, "commit": "none", "dtype": "float32"})


def timed() -> xr.Dataset:
    """Three rounds of one arm with two mixtures: seconds that the core time triples."""
    core = np.array([[30.0, 20.0, 40.0], [3.0, 1.0, 8.0]])
    return xr.Dataset(
        {"time": (("arm", "part", "clock", "round"), np.stack([core / 3, core], axis=1)[None]), "layers": ("arm", [2])},
        {"arm": ["moge"], "part": ["forward", "routers"], "clock": ["seconds", "core seconds"]},
        {"device": "a processor", "flags": ""},
    )
