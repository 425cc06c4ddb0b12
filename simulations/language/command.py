"""`himoe-simulate lm`: train a language model, go on with one, export it, or print what it would need."""

import dataclasses
import math
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from himoe_theory.plumbing import files

from .. import machine, store
from ..data import library_text, token_files
from ..legend import print_legend
from ..picture import picture_of
from ..sweep.store import locked
from ..terminal import progress, terminal
from . import checkpoints, exchange, hosts, plan
from .memory import keep_freed_memory
from .model import Model
from .options import Lm
from .picture import plot_model
from .recipe import Recipe
from .released import to_settings
from .training import Diverged, Interrupted, Run, stop_requests
from .training import Progress as Done
from .trajectory import DESCRIPTIONS, balance

RESULT, CHECKPOINTS = "result.nc", "checkpoints"


def run_lm(args: Lm, console: Console) -> None:
    """Trains and stores, exports, or prints the plan. Exit code 1 if training diverges."""
    args.check()
    keep_freed_memory()
    hosts.join(args.coordinator, args.processes, args.process)
    if args.plan:
        recipe = args.recipe()
        planned, parts = args.model(args.vocabulary), recipe.micro_batches
        console.print(plan.measures(planned), soft_wrap=True, highlight=False)
        console.print(plan.shapes_table(planned))
        console.print(plan.table(planned, recipe.micro_batch, micro_batches=parts, compute=recipe.dtype))
    elif args.export is not None:
        _export(args, args.export, console)
    elif hosts.leads():
        _check_folder(args)
        run = run_of(args)
        files.writable(args.folder / RESULT, replace=args.resume or args.force)
        with locked(args.folder):
            _train(args, run, console)
    else:
        _check_folder(args)
        _train(args, run_of(args), terminal(quiet=True))


def run_of(args: Lm) -> Run:
    """The run that options describe, with its text."""
    recipe = args.recipe()
    planned = args.model(args.vocabulary)  # a wrong name shows before the text is read
    _check_memory(planned, recipe)
    corpus = library_text() if args.data is None else token_files(args.data, args.vocabulary)
    every = max(1, recipe.steps // 10) if args.checkpoint_every is None else args.checkpoint_every
    lm = args.model(corpus.vocabulary)
    return Run(lm, recipe, corpus, args.seed, args.folder / CHECKPOINTS, every, args.initial)


def _check_memory(model: Model, recipe: Recipe) -> None:
    """**Raises:** `ValueError` with the estimate if what is kept of every step, or one step's text, does not fit."""
    cure = "Take fewer --steps, --batch sequences or a shorter --context"
    kept = 4 * recipe.steps * (len(model.arm.terms) + 3)
    machine.check_fits("what is kept of the steps", kept, cure)
    machine.check_fits("the text of a step", 16 * recipe.batch * model.context, cure)


def _check_folder(args: Lm) -> None:
    """Whether `resume` is given if and only if there is something to resume."""
    found = checkpoints.steps_of(args.folder / CHECKPOINTS)
    if found and not args.resume:
        cure = "Go on with `--resume`, or choose another folder with `--out`"
        raise ValueError(f"`{args.folder}` must be without checkpoints; it has one of step {found[-1]}. {cure}.")
    if args.resume and not found:
        raise ValueError(f"`{args.folder}` must have a checkpoint to resume; it has none. Leave out `--resume`.")


def _export(args: Lm, path: Path, console: Console) -> None:
    """Writes the model of a checkpoint."""
    found = checkpoints.steps_of(args.folder / CHECKPOINTS)
    if not found:
        raise ValueError(
            f"`{args.folder}` must have a checkpoint to export; it has none. Train first, or give `--out`."
        )
    for file in (path, exchange.settings_file(path)):
        files.check(file, replace=args.force)
    here = dataclasses.replace(args, devices=(1, 1))
    to_settings(here.model(None))  # what has no counterpart shows before the text is read
    run = run_of(here)
    step = found[-1] if args.from_step is None else args.from_step
    state = run.look(step).state
    left = exchange.write(path, run.model, state.parameters, state.router, step=step, replace=args.force)
    console.print(f"{path} and {exchange.settings_file(path)}: {args.arm}, step {step}", soft_wrap=True)
    if left:
        terms = ", ".join(f"{coefficient:g} {name}" for name, coefficient in left.items())
        console.print(f"objectives that the released code has no settings for: {terms}", soft_wrap=True)


def _train(args: Lm, run: Run, console: Console) -> None:
    step = args.from_step
    if args.resume and step is None:
        step = checkpoints.steps_of(args.folder / CHECKPOINTS)[-1]
    position, began = run.start(step), time.perf_counter()
    try:
        # Speed is averaged long: measurements and checkpoints come between steps.
        with progress(console, "now", width=12, speed_estimate_period=300) as bar, stop_requests() as stopped:
            total, done = run.recipe.steps, int(position.state.step)
            task = bar.add_task(f"{args.arm} {args.sized}", total=total, completed=done, now="compiling")
            last = 0.0

            def report(seen: Done) -> None:
                nonlocal last
                if time.perf_counter() - last > 0.5 or seen.done == total:
                    last = time.perf_counter()
                    bar.update(task, completed=seen.done, now=now(seen, run, bar.tasks[0].speed))

            result = run.train(position, report=report, stopped=stopped)
    except Interrupted:
        raise KeyboardInterrupt from None
    except Diverged as error:
        result = run.result(position.trajectory, time.perf_counter() - began)
        result.attrs["stopped"] = str(error)
        store.save(result, args.folder / RESULT)
        kept = f"the state before it is kept in {args.folder / CHECKPOINTS}, the trajectory in {args.folder / RESULT}"
        print(f"himoe-simulate: {files.one_line(error)}; {kept}.", file=sys.stderr)
        sys.exit(1)
    store.save(result, args.folder / RESULT)
    print_model(result, console)
    picture = picture_of(args.folder / RESULT)
    plot_model(result, picture)
    console.print(f"{args.folder / RESULT} and {picture} ({result.attrs['seconds']:.1f} s)", soft_wrap=True)


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


OF_ROUTERS = ("cv", "effective_groups", "information", "drop_rate")
NEEDED = ("arm", "unit", "record", "domain", "validation_loss", "loss_by_domain")
"""What the table reads; of a model with routers, `OF_ROUTERS` too."""

COLUMNS = {
    "validation_loss": "loss",
    "perplexity": "perplexity",
    "cv": "CV per layer",
    "effective_groups": "effective groups",
    "information": "domain-expert information",
    "drop_rate": "dropped",
}


def print_model(result: xr.Dataset, console: Console) -> None:
    """The table and its legend."""
    console.print(table(result))
    print_legend(COLUMNS if result.sizes.get("layer") else dict(list(COLUMNS.items())[:2]), DESCRIPTIONS, console)


def table(result: xr.Dataset) -> Table:
    """Validation losses and perplexities by domain and the routers' measurements, at the last record that was taken."""
    unit, taken = result.attrs["unit"], np.flatnonzero(np.isfinite(result["validation_loss"].values))
    final = result.isel(record=int(taken[-1]) if taken.size else 0)
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
        out.add_row(name, _shown(float(loss), ".4f"), _shown(_exp(float(loss)), ".3f"))
    if result.sizes.get("layer") and all(name in final for name in OF_ROUTERS):
        each = ", ".join(_shown(float(cv), ".3f") for cv in final["cv"].values)
        means = {name: float(final[name].mean()) for name in OF_ROUTERS[1:]}
        out.caption = (
            f"CV per layer {each}; effective groups {_shown(means['effective_groups'], '.3f')}; domain-expert "
            f"information {_shown(means['information'], '.3f')}; dropped {_shown(means['drop_rate'], '.1%')}"
        )
    return out


def _exp(loss: float) -> float:
    """A perplexity, infinite where it is beyond the largest number."""
    return math.exp(loss) if loss < math.log(sys.float_info.max) else math.nan if math.isnan(loss) else math.inf


def _shown(value: float, form: str) -> str:
    """A number, or `n/a`: a domain without tokens has no loss, steps that did not all happen no drop rate."""
    return "n/a" if math.isnan(value) else format(value, form)


def kept(args: Lm) -> str:
    """What an interruption leaves, and how to go on."""
    found = checkpoints.steps_of(args.folder / CHECKPOINTS)
    return f"step {found[-1]} is stored; go on with `{command_line(args)}`" if found else "nothing was stored"


def command_line(args: Lm) -> str:
    """The command that resumes a run."""
    given = dataclasses.replace(args, resume=True, from_step=None, force=False)
    flags = {"initial": "import"}
    words = ["himoe-simulate", "lm"]
    for field in dataclasses.fields(given):
        value = getattr(given, field.name)
        if value != field.default:
            several = isinstance(value, tuple) and isinstance(value[0], tuple)
            for each in value if several else (value,):
                given_values = each if isinstance(each, tuple) else () if each is True else (each,)
                words += [f"--{flags.get(field.name, field.name).replace('_', '-')}", *map(str, given_values)]
    return shlex.join(words)
