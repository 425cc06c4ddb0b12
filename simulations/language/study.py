"""Many arms of one language model on the same text in the same order, several seeds each: one result."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from himoe_theory import _checks

from ..arms import INTER, INTRA, LOAD, Arm, arms
from ..data import library_text
from .available import PLAIN, available, plain_widths
from .config import scaled_by_default
from .model import Model
from .recipe import Recipe
from .training import Progress, Run

SHAPE: Mapping[str, Any] = {
    "layers": 4,
    "heads": 4,
    "dim": 64,
    "context": 64,
    "vocabulary": 256,
    "width": 256,
    "stride": 2,
}
"""Small enough for dozens of runs on two cores; every other layer is a mixture, as published."""

RECIPE = Recipe(steps=200, batch=8, learning_rate=2e-3, warmup=20, records=10, held_out=64)
BY_SEQUENCE = dataclasses.replace(RECIPE, micro_batches=RECIPE.batch)
"""The same steps, a micro-batch a sequence: as small as the load loss can count."""

# Variables that only steps have; a study keeps what is measured at records.
_BY_STEP = ("total_loss", "gradient_norm")


@dataclasses.dataclass(frozen=True)
class Study:
    """What is trained. At equal seeds, arms of equal shapes start from equal parameters, and all read the same text.

    The plain network is as wide as what a token selects in the others: as many parameters are active.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe = RECIPE
    shape: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(SHAPE))

    def __post_init__(self):
        _checks.count("number of arms", len(self.arms))
        _checks.count("number of seeds", len(self.seeds))

    def pieces(self) -> list["Study"]:
        """One an arm: an arm is a program of its own, its seeds are not."""
        return [dataclasses.replace(self, arms=(arm,)) for arm in self.arms]

    def model(self, arm: Arm) -> Model:
        """The model of an arm."""
        shape = dict(self.shape)
        if arm.name == PLAIN:
            shape |= plain_widths(shape["width"], arms()["moge"].router.routes)
        return Model(arm=arm, router_scale=scaled_by_default(arm), **shape)

    def simulate(self, report: Callable[[float], None]) -> xr.Dataset:
        """Trains every arm on every seed."""
        corpus, found, done = library_text(), [], 0
        total = len(self.arms) * len(self.seeds) * self.recipe.steps

        def progress(now: Progress) -> None:
            report((done + now.done) / total)

        for arm in self.arms:
            runs = []
            for seed in self.seeds:
                run = Run(self.model(arm), self.recipe, corpus, seed)
                runs.append(run.train(run.start(), report=progress).drop_vars(_BY_STEP))
                done += self.recipe.steps
            joined = xr.concat(runs, dim="seed", combine_attrs="override").assign_coords(seed=list(self.seeds))
            joined.attrs["seconds"] = sum(run.attrs["seconds"] for run in runs)
            found.append(joined.expand_dims(arm=[arm.name]))
        return self.combine(found)

    def combine(self, pieces: Sequence[xr.Dataset]) -> xr.Dataset:
        """One result of those of the arms; NaN where an arm has no such quantity."""
        joined = xr.concat(pieces, dim="arm", join="outer", fill_value=np.nan, combine_attrs="override")
        joined.attrs["seconds"] = sum(piece.attrs["seconds"] for piece in pieces)
        joined.attrs.pop("arm", None)  # of the first piece alone
        return joined.sel(arm=[arm.name for arm in self.arms])


def compared() -> tuple[Arm, ...]:
    """The arms of Table 2 and the rows of Table 3, Hi-MoE by the paper's equations, and one with the two weights
    swapped (D11)."""
    known = available()
    names = ("gshard", "st-moe", "loss-free", "moge", "moge-intra", "moge-inter", "moge-bias", "moge-intra-inter")
    swapped = dataclasses.replace(
        known["hi-moe"].with_terms(**{INTRA: 0.05, INTER: 0.1}),
        name="hi-moe-swapped",
        summary="Hi-MoE with intra 0.05 and inter 0.1: contrasts between groups do not grow (D1, D11)",
    )
    return (known[PLAIN], *(known[name] for name in names), known["hi-moe"], known["hi-moe-paper"], swapped)


def ablated() -> tuple[Arm, ...]:
    """Guo's five arms, with the three forms of L_o and the two of L_v."""
    known = arms()
    aux, weight = known["guo-aux"], known["guo-all"].terms
    orthogonality, variance = weight["orthogonality_span"], weight["variance_across_experts"]
    forms = {
        "guo-aux-lo-paper": {"orthogonality_paper": orthogonality},
        "guo-aux-lo-span": {"orthogonality_span": orthogonality},
        "guo-aux-lo-released": {"orthogonality_released": orthogonality},
        "guo-aux-lv-code": {"variance_across_experts": variance},
        "guo-aux-lv-paper": {"variance_across_tokens": variance},
    }
    made = [dataclasses.replace(aux.with_terms(**terms), name=name) for name, terms in forms.items()]
    return (known["guo-none"], aux, *made, known["guo-all"])


def loaded(alphas: Sequence[float], names: Sequence[str] = ("moge", "hi-moe")) -> tuple[Arm, ...]:
    """Arms over the load coefficient; names as `hi-moe α=0.01`."""
    known = arms()
    rows = [(known[name], alpha) for name in names for alpha in alphas]
    return tuple(
        dataclasses.replace(arm.with_terms(**{LOAD: alpha}), name=f"{arm.name} α={alpha:g}") for arm, alpha in rows
    )
