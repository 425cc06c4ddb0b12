"""`himoe-simulate lm`: train a language model, go on with one, or print what it would need."""

import dataclasses
import math
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from himoe_theory import Partition

from .. import store
from ..arms import Arm, arms, choose
from ..data import library_text, token_files
from ..sweep.store import locked
from . import checkpoints, hosts, plan
from .config import STYLES, Scope
from .memory import keep_freed_memory
from .model import Model
from .recipe import Recipe
from .sizes import check_size, model, partition_of
from .training import Diverged, Interrupted, Run, stop_requests
from .training import Progress as Done
from .trajectory import balance

RESULT, CHECKPOINTS = "result.nc", "checkpoints"

# For this machine's sizes: chosen so that the loss falls quickly within minutes. Published ones: nanoGPT's for GPT-2
# with about half a million tokens a step, and OLMoE's.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"steps": 200, "batch": 8, "learning_rate": 3e-3, "warmup": 20},
    "small": {"steps": 1000, "batch": 16, "learning_rate": 1e-3, "warmup": 100},
    "nanogpt-1b": {"steps": 600_000, "batch": 480, "micro_batches": 40, "learning_rate": 6e-4, "warmup": 2000},
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
      himoe-simulate lm --preset olmoe-7b --plan
      himoe-simulate lm --size small --data openwebtext --vocabulary 50304 --bfloat16 --micro-batches 4
      himoe-simulate lm --size small --devices 2 4       (on eight devices: two copies, a group of experts on each)
      himoe-simulate lm --preset nanogpt-1b --devices 4 4 --coordinator node0:1234 --processes 4 --process 0
    """

    arm: str = "hi-moe"
    """Name of an arm (see `himoe-simulate arms`)."""
    size: str = "small"
    """tiny (seconds), small (3 M parameters, minutes), nanogpt-1b or olmoe-7b (as published)."""
    preset: str | None = None
    """A size by another name, or a style for the size: nanogpt or olmoe."""
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
    load_scope: Scope = "micro"
    """Whose loads the load loss sees: each micro-batch its own, or the whole batch's (one forward pass more)."""
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
    from_step: int | None = None
    """With `resume`: go on from the checkpoint of this step."""
    plan: bool = False
    """Print shapes, parameters, arithmetic and memory; allocate nothing."""

    @property
    def sized(self) -> str:
        """The size that was asked for."""
        return self.size if self.preset is None or self.preset in STYLES else self.preset

    @property
    def folder(self) -> Path:
        """Where result and checkpoints go."""
        return self.out or Path("results") / f"lm-{self.arm}-{self.sized}-{self.seed}"

    def chosen_arm(self) -> Arm:
        """The arm with its numbers."""
        partition, per_group = partition_of(self.sized)
        experts = partition.num_experts if self.experts is None else self.experts
        groups = partition.num_groups if self.groups is None else self.groups
        per_group = per_group if self.per_group is None else self.per_group
        numbers = {name: getattr(self, name) for name in ("intra", "inter", "tau", "beta", "temperature")}
        load = LOADS.get(self.sized, 0.01) if self.load is None else self.load
        available = arms(Partition.equal(experts, groups), per_group, load=load, **numbers)
        return choose([self.arm], available)[0]

    def model(self, vocabulary: int | None) -> Model:
        """The model; `None` leaves the vocabulary to the size."""
        shape: dict[str, Any] = {"load_scope": self.load_scope, "devices": self.devices}
        given = {"vocabulary": vocabulary, "context": self.context}
        shape |= {name: value for name, value in given.items() if value is not None}
        shape |= {"style": self.preset} if self.preset in STYLES else {}
        return model(self.sized, self.chosen_arm(), **shape)

    def recipe(self) -> Recipe:
        """The recipe: the size's with what was given in its place."""
        names = ("steps", "batch", "micro_batches", "learning_rate", "warmup")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        numbers = {**RECIPES[self.sized], **given}
        if self.warmup is None:  # a short run still has most of its steps at a high rate
            numbers["warmup"] = min(numbers["warmup"], numbers["steps"] // 10)
        others = {name: getattr(self, name) for name in ("weight_decay", "clip", "held_out")}
        compute: Literal["float32", "bfloat16"] = "bfloat16" if self.bfloat16 else "float32"
        return Recipe(**numbers, **others, compute=compute, records=min(self.records, numbers["steps"]))


def run_lm(args: Lm, console: Console) -> None:
    """Trains and stores, or prints the plan. Exit code 1 if training diverges."""
    check_size(args.sized)
    keep_freed_memory()
    hosts.join(args.coordinator, args.processes, args.process)
    recipe = args.recipe()
    if args.plan:
        console.print(plan.table(args.model(args.vocabulary), recipe.micro_batch, compute=recipe.dtype))
        return
    if args.vocabulary is not None and args.data is None:
        raise ValueError(f"`vocabulary` is for `data`: text is bytes, 256 of them; got {args.vocabulary} without data.")
    _check_folder(args)
    args.chosen_arm()  # a wrong name shows before the text is read
    corpus = library_text() if args.data is None else token_files(args.data, args.vocabulary)
    every = max(1, recipe.steps // 10) if args.checkpoint_every is None else args.checkpoint_every
    run = Run(args.model(corpus.vocabulary), recipe, corpus, args.seed, args.folder / CHECKPOINTS, every)
    if not hosts.leads():
        _train(args, run, Console(quiet=True))
        return
    store.writable(args.folder / RESULT)
    with locked(args.folder):
        _train(args, run, console)


def _check_folder(args: Lm) -> None:
    """Whether `resume` is given if and only if there is something to resume."""
    found = checkpoints.steps_of(args.folder / CHECKPOINTS)
    if found and not args.resume:
        cure = "Go on with `--resume`, or choose another folder with `--out`"
        raise ValueError(f"`{args.folder}` must be without checkpoints; it has one of step {found[-1]}. {cure}.")
    if args.resume and not found:
        raise ValueError(f"`{args.folder}` must have a checkpoint to resume; it has none. Leave out `--resume`.")
    if args.from_step is not None and not args.resume:
        raise ValueError(f"`from_step` needs `--resume`; got step {args.from_step} without it.")


def _train(args: Lm, run: Run, console: Console) -> None:
    step = args.from_step
    if args.resume and step is None:
        step = checkpoints.steps_of(args.folder / CHECKPOINTS)[-1]
    position, began = run.start(step), time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(12), TaskProgressColumn(), TimeRemainingColumn())
    # Speed is averaged long: measurements and checkpoints come between steps.
    how = {"console": console, "transient": True, "speed_estimate_period": 300}
    try:
        with Progress(*columns, TextColumn("{task.fields[now]}"), **how) as bar, stop_requests() as stopped:
            total, done = run.recipe.steps, int(position.state.step)
            task = bar.add_task(f"{args.arm} {args.sized}", total=total, completed=done, now="compiling")
            last = 0.0

            def report(progress: Done) -> None:
                nonlocal last
                if time.perf_counter() - last > 0.5 or progress.done == total:
                    last = time.perf_counter()
                    bar.update(task, completed=progress.done, now=now(progress, run, bar.tasks[0].speed))

            result = run.train(position, report=report, stopped=stopped)
    except Interrupted:
        raise KeyboardInterrupt from None
    except Diverged as error:
        result = run.result(position.trajectory, time.perf_counter() - began)
        result.attrs["stopped"] = str(error)
        store.save(result, args.folder / RESULT)
        kept = f"the state before it is kept in {args.folder / CHECKPOINTS}, the trajectory in {args.folder / RESULT}"
        print(f"himoe-simulate: {error}; {kept}.", file=sys.stderr)
        sys.exit(1)
    store.save(result, args.folder / RESULT)
    console.print(table(result))
    console.print(f"{args.folder / RESULT} ({result.attrs['seconds']:.1f} s)", soft_wrap=True)


def now(progress: Done, run: Run, speed: float | None) -> str:
    """Two live lines: speed and loss; CV and drop rate since the last record, effective groups at the last record."""
    record = int(np.searchsorted(run.recipe.record_steps, progress.done))
    counts, seen = progress.trajectory["counts"][record], progress.trajectory["effective_groups"]
    line = f"{speed * run.recipe.batch * run.model.context:,.0f} tokens/s, " if speed else ""
    line += f"loss {progress.step_loss:.3f} nats/{run.corpus.unit}"
    if run.model.moe_layers and counts.sum():
        cv = balance(counts.astype(np.float32), run.model.arm.router.partition)["cv"].mean()
        measured = seen[np.isfinite(seen).all(axis=1)]
        drops = progress.trajectory["dropped"][record].sum() / counts.sum()
        line += f"\nCV {cv:.3f}, {measured[-1].mean():.2f} groups, dropped {drops:.1%}"
    return line


def table(result: xr.Dataset) -> Table:
    """Validation losses and perplexities by domain and the routers' measurements, at the last record that was taken."""
    unit, taken = result.attrs["unit"], np.flatnonzero(np.isfinite(result["validation_loss"].values))
    final = result.isel(record=int(taken[-1]))
    out = Table(
        box=SIMPLE_HEAD,
        title=f"{result.attrs['arm']}, step {int(final.record)}, validation"
        + (f"; stopped: {result.attrs['stopped']}" if "stopped" in result.attrs else ""),
    )
    for heading in ("domain", f"loss (nats/{unit})", f"perplexity (per {unit})"):
        out.add_column(heading)
    rows = [("all", final["validation_loss"])] + [
        (str(name), final["loss_by_domain"].sel(domain=name)) for name in final.domain.values
    ]
    for name, loss in rows if len(rows) > 2 else rows[:1]:
        out.add_row(name, f"{float(loss):.4f}", f"{math.exp(float(loss)):.3f}")
    if result.sizes.get("layer"):
        each = ", ".join(f"{cv:.3f}" for cv in final["cv"].values)
        means = {name: float(final[name].mean()) for name in ("effective_groups", "information", "drop_rate")}
        out.caption = (
            f"CV per layer {each}; effective groups {means['effective_groups']:.3f}; "
            f"domain-expert information {means['information']:.3f}; dropped {means['drop_rate']:.1%}"
        )
    return out


def kept(args: Lm) -> str:
    """What an interruption leaves, and how to go on."""
    found = checkpoints.steps_of(args.folder / CHECKPOINTS)
    return f"step {found[-1]} is stored; go on with `{command_line(args)}`" if found else "nothing was stored"


def command_line(args: Lm) -> str:
    """The command that resumes a run."""
    given = dataclasses.replace(args, resume=True, from_step=None)
    words = ["himoe-simulate", "lm"]
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if value != field.default:
            given_values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, given_values)]
    return shlex.join(words)
