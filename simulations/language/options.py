"""What `himoe-simulate lm` can be asked for, and the model and recipe that follow from it."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from himoe_theory.plumbing.commands import words

from .. import fields
from ..arms import Arm
from ..fields.known import LANGUAGE
from ..terminal import Several
from . import exchange
from .available import PLAIN, available, plain_widths
from .config import STYLES, Dispatch, Scope
from .model import Model
from .recipe import Recipe
from .sizes import SIZES, check_size, model, partition_of

# For this machine's sizes: chosen so that the loss falls quickly within minutes. Published ones: nanoGPT's for GPT-2
# with about half a million tokens a step, and OLMoE's.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"steps": 200, "batch": 8, "learning_rate": 3e-3, "warmup": 20},
    "small": {"steps": 1000, "batch": 16, "learning_rate": 1e-3, "warmup": 100},
    "nanogpt-1b": {"steps": 600_000, "batch": 480, "micro_batches": 30, "learning_rate": 6e-4, "warmup": 2000},
    "olmoe-7b": {"steps": 1_220_000, "batch": 1024, "micro_batches": 128, "learning_rate": 4e-4, "warmup": 2500},
}
LOADS: Mapping[str, float] = {"olmoe-7b": 1e-4}
"""Published load coefficients that are not 0.01."""


@dataclasses.dataclass(frozen=True)
class Lm:
    """Train a language model with mixture-of-experts layers; print its losses and store its trajectory.

    Text is the Python library's source as bytes, or token files of your own. Ctrl-C writes a checkpoint and ends.

    examples:
      himoe-simulate lm --arm hi-moe --size small
      himoe-simulate lm --arm moge --size tiny --steps 100 --seed 1 --out results/moge-1
      himoe-simulate lm --arm moge --size tiny --steps 100 --seed 1 --out results/moge-1 --resume
      himoe-simulate lm --size tiny --term z=0.001 --set model.router_scale=false training.beta2=0.99
      himoe-simulate lm --preset olmoe-7b --plan
      himoe-simulate lm --size small --data openwebtext --vocabulary 50304 --bfloat16 --micro-batches 4
      himoe-simulate lm --size small --devices 2 4       (on eight devices: two copies, a group of experts on each)
      himoe-simulate lm --arm moge --size tiny --steps 100 --seed 1 --out results/moge-1 --export moge.safetensors
      himoe-simulate lm --arm hi-moe --size tiny --import moge.safetensors --out results/from-moge
      himoe-simulate lm --preset nanogpt-1b --devices 4 4 --data openwebtext --vocabulary 50304
        --coordinator node0:1234 --processes 4 --process 0      (and 1, 2, 3 on the other hosts of four devices each)
    """

    arm: str = "hi-moe"
    """Name of an arm (see `himoe-simulate arms`)."""
    size: str | None = None
    """tiny (seconds), small (3 M parameters, minutes), nanogpt-1b or olmoe-7b (as published); small if not given."""
    preset: str | None = None
    """A size by another name, or a style for the size: nanogpt or olmoe."""
    term: Several = ()
    """NAME=COEFFICIENT: an objective, added to the arm's own or in place of its coefficient there."""
    set: Several = ()
    """FIELD=VALUE: any field of a language model (see `himoe-simulate fields`)."""
    steps: int | None = None
    """Optimiser steps. This and what follows without a default: as the size says."""
    seed: int = 0
    """Fixes initial parameters and the order of the data, equally for all arms."""
    data: Path | None = None
    """Folder with train.bin and val.bin, uint16 tokens of nanoGPT's scripts; else the Python library's text."""
    vocabulary: int | None = None
    """Number of tokens of `data`; read from its meta.json if not given."""
    batch: int | None = None
    """Sequences a step."""
    micro_batches: int | None = None
    """Parts of a batch whose gradients are accumulated."""
    context: int | None = None
    """Tokens a sequence."""
    learning_rate: float | None = None
    """After warm-up; it then falls to a tenth along a cosine."""
    warmup: int | None = None
    """Steps of linear warm-up."""
    weight_decay: float = 0.1
    """Of matrices."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    bfloat16: bool = False
    """Matrix products in bfloat16; routers, norms, losses and sums stay in float32."""
    dispatch: Dispatch = "sorted"
    """How tokens reach experts, with equal numbers: sorted by expert, dense (all to all), or in slots of `capacity`."""
    capacity: float | None = None
    """Factor of the released code's capacity, beyond which routes are dropped; none are if not given."""
    load_scope: Scope = "micro"
    """Whose loads the load losses see: each micro-batch's own (micro), the whole batch's (global, one forward pass
    more), each sequence's own (sequence), or those of all layers together (pooled)."""
    devices: tuple[int, int] = (1, 1)
    """DATA GROUP: copies of the model, each with part of the batch, times devices that share its groups of experts."""
    coordinator: str | None = None
    """HOST:PORT of process 0, when several hosts train one model: start the same command on each."""
    processes: int | None = None
    """With `coordinator`: how many there are; found by itself on known clusters."""
    process: int | None = None
    """With `coordinator`: the number of this one, from 0; found by itself on known clusters."""
    experts: int | None = None
    """N."""
    groups: int | None = None
    """M, equal groups."""
    per_group: int | None = None
    """K, experts selected in each group; flat arms select as many in all."""
    load: float | None = None
    """Load coefficient (alpha) of the arms that have one."""
    intra: float = 0.1
    """Intra-group coefficient."""
    inter: float = 0.05
    """Inter-group coefficient."""
    tau: float = 0.01
    """Bias correction: share of the logit average taken off."""
    beta: float = 0.9
    """Bias correction: memory of the logit average."""
    temperature: float = 1.0
    """Bias correction: temperature."""
    records: int = 20
    """Measurements on validation text along the way."""
    held_out: int = 64
    """Sequences of validation text."""
    checkpoint_every: int | None = None
    """Steps between two checkpoints; a tenth of all if not given."""
    out: Path | None = None
    """Folder of result and checkpoints, seen by all hosts; results/lm-ARM-SIZE-SEED if not given."""
    resume: bool = False
    """Go on from the newest checkpoint in the folder; all other options as before."""
    force: bool = False
    """Replace a result, or exported files, that are there."""
    from_step: int | None = None
    """With `resume`: go on from the checkpoint of this step."""
    export: Path | None = None
    """Train nothing: write the newest checkpoint's model, or that of `from-step`, as FILE.safetensors under nanoGPT's
    names, and the released code's settings beside it as FILE.json; all other options as in training."""
    initial: Annotated[Path | None, tyro.conf.arg(name="import")] = None
    """Start from the weights in FILE.safetensors under nanoGPT's names; shapes are those of FILE.json where it lies
    beside it, else the size's."""
    plan: bool = False
    """Print shapes, parameters, arithmetic and memory; allocate nothing."""

    @property
    def sized(self) -> str:
        """The size that was asked for."""
        named = self.size if self.preset is None or self.preset in STYLES else self.preset
        return "small" if named is None else named

    @property
    def folder(self) -> Path:
        """Where result and checkpoints go."""
        name = self.arm.rpartition(":")[2]  # of FILE.py:NAME
        return self.out or Path("results") / f"lm-{name}-{self.sized}-{self.seed}"

    def check(self) -> None:
        """`ValueError` for options that do not go together, before anything is read or joined."""
        check_size(self.sized)
        if self.size is not None and self.sized != self.size:
            raise ValueError(f"`size` and `preset` must not name two sizes; got {self.size} and {self.preset}.")
        if self.from_step is not None and not self.resume and self.export is None:
            raise ValueError(f"`from_step` needs `--resume` or `--export`; got step {self.from_step} without.")
        if self.vocabulary is not None and self.data is None and not self.plan:
            got = f"got {self.vocabulary} without data"
            raise ValueError(f"`vocabulary` is for `data`: text is bytes, 256 of them; {got}.")
        if self.initial is not None:
            exchange.settings_file(self.initial)
            if not os.path.isfile(self.initial):
                raise ValueError(f"`import` must be a file of weights; there is no {self.initial}.")
        if self.export is not None:
            exchange.settings_file(self.export)
            if self.coordinator is not None:
                raise ValueError(f"`export` is for one process; got it with coordinator {self.coordinator}.")

    @functools.cached_property
    def imported(self) -> Model | None:
        """The model that the settings beside the imported weights describe, if they are there."""
        return None if self.initial is None else exchange.described(self.initial)

    def numbers(self) -> tuple[int, int, int]:
        """(N, M, K): as given, as imported, or the size's."""
        partition, k = partition_of(self.sized)
        n, m, source = partition.num_experts, partition.num_groups, self.imported
        if source is not None and source.moe_layers:
            router = source.arm.router
            grouped = router.selection.quotas(router.partition) is not None
            n = source.experts
            m = source.arm.router.partition.num_groups if grouped else self.values.get("router.groups", m)
            if source.routes % m:
                raise ValueError(f"`groups` must divide the {source.routes} experts that a token selects; got {m}.")
            k = source.routes // m
        asked = (self.values.get(f"router.{name}", own) for name, own in (("experts", n), ("groups", m)))
        return *asked, self.values.get("router.per_group", k)

    @functools.cached_property
    def values(self) -> Mapping[str, fields.Value]:
        """The fields that options give."""
        sets = fields.read(words("set", self.set), words("term", self.term), LANGUAGE)
        return fields.given(self, FIELD_OF, sets, LANGUAGE)

    def chosen_arm(self) -> Arm:
        """The arm with its numbers."""
        arm = self.arm_named(self.arm)
        if self.capacity is not None and arm.router.capacity is None:
            raise ValueError(f"`capacity` is for arms that choose among experts; got {self.capacity:g} for {arm.name}.")
        return arm

    def arm_named(self, name: str) -> Arm:
        """Any arm with these numbers."""
        values = {"arms.load": LOADS.get(self.sized, 0.01), **self.values, "arm": name}
        if "router.group_of" not in values:
            n, m, k = self.numbers()
            values |= {"router.experts": n, "router.groups": m, "router.per_group": k}
        return fields.arm_of(values, functools.partial(available, capacity=self.capacity))

    def model(self, vocabulary: int | None) -> Model:
        """The model; `None` leaves the vocabulary to the size, and so do imported weights to theirs."""
        arm, source = self.chosen_arm(), self.imported
        shape: dict[str, Any] = {}
        if arm.name == PLAIN:
            shape |= plain_widths(SIZES[self.sized]["width"], self.arm_named("hi-moe").router.routes)
        if source is not None:
            names = ("layers", "heads", "dim", "context", "vocabulary", "width", "dense_width", "stride", "bias")
            shape |= {name: getattr(source, name) for name in (*names, "router_scale")}
        elif vocabulary is not None:
            shape["vocabulary"] = vocabulary
        shape |= {"style": self.preset} if self.preset in STYLES else {}
        given = fields.below("model", self.values)
        if vocabulary is not None and given.get("vocabulary", vocabulary) < vocabulary:
            least = f"`model.vocabulary` must be at least the {vocabulary} tokens of the text"
            raise ValueError(f"{least}; got {given['vocabulary']}.")
        return model(self.sized, arm, **shape | given)

    def recipe(self) -> Recipe:
        """The recipe: the size's with what was given in its place."""
        given = fields.below("training", self.values)
        numbers = {**RECIPES[self.sized], **given}
        if "warmup" not in given:  # a short run still has most of its steps at a high rate
            numbers["warmup"] = min(numbers["warmup"], numbers["steps"] // 10)
        numbers["records"] = min(numbers.get("records", self.records), numbers["steps"])
        return Recipe(**{"compute": "bfloat16" if self.bfloat16 else "float32"} | numbers)


FIELD_OF = {
    **{name: f"router.{name}" for name in ("experts", "groups", "per_group")},
    **{name: f"arms.{name}" for name in ("load", "intra", "inter", "tau", "beta", "temperature")},
    **{name: f"model.{name}" for name in ("context", "dispatch", "load_scope", "devices")},
    **{
        name: f"training.{name}"
        for name in (
            *("steps", "batch", "micro_batches", "learning_rate", "warmup"),
            *("weight_decay", "clip", "records", "held_out"),
        )
    },
}
"""The field that an option of `lm` names."""
