"""`himoe-simulate`: run arms on data, train language models, list arms, sweep over settings, show what is stored."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from himoe_theory import Partition, _checks

from . import store
from .arms import arms, choose
from .data import KINDS, Clusters, Data
from .experts import EXPERTS
from .language.available import available
from .language.command import kept as kept_of_lm
from .language.command import run_lm
from .language.command import table as table_of_lm
from .language.options import Lm
from .layer import Layer
from .run import interval, regime_of, simulate
from .sweep.command import Resume, Show, Sweep, run_resume, run_show, run_sweep, store_of
from .training import Training

EXAMPLES = """examples:
  himoe-simulate run --arm hi-moe --data clusters --seeds 8
  himoe-simulate arms
  himoe-simulate lm --arm hi-moe --size small
  himoe-simulate show results/hi-moe.nc
  himoe-simulate sweep collapse.toml
  himoe-simulate resume results/collapse
  himoe-simulate show results/collapse --x data.mean --value cv"""


@dataclasses.dataclass(frozen=True)
class Run:
    """Train arms on data, print mean ± 95 % interval over seeds, and store the trajectories.

    examples:
      himoe-simulate run --arm hi-moe --data clusters --seeds 8
      himoe-simulate run --arm moge hi-moe --load 0 --mean 0 --seeds 4
      himoe-simulate run --arm gshard --data digits --expert two-layer
    """

    arm: tuple[str, ...] = ("hi-moe",)
    """Names of arms (see `himoe-simulate arms`)."""
    data: Literal["clusters", "digits", "patches", "single-index"] = "clusters"
    """Planted clusters (regression), scikit-learn's digits, patches, single-index clusters."""
    seeds: int = 8
    """Number of seeds: 0, 1, ..."""
    first_seed: int = 0
    """The first of them."""
    experts: int = 8
    """N."""
    groups: int = 4
    """M, equal groups."""
    per_group: int = 1
    """K, experts selected in each group; flat arms select as many in all."""
    expert: str = "linear"
    """linear, two-layer or cubic."""
    load: float = 0.01
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
    mean: float = 4.0
    """Length of the clusters' common mean (μ)."""
    outputs: int = 1
    """Targets of the clustered regression."""
    steps: int = 1500
    """Optimiser steps."""
    batch: int = 256
    """Tokens a step."""
    learning_rate: float = 3e-3
    optimizer: str = "adam"
    """adam, adamw or sgd."""
    records: int = 50
    """Measurements along the way; must divide the steps."""
    out: Path | None = None
    """Result file; results/ARM.nc if not given."""


@dataclasses.dataclass(frozen=True)
class Arms:
    """List the arms with their routers and objectives; `run` and `sweep` have all but those marked lm alone."""


Command = Run | Lm | Arms | Show | Sweep | Resume
Commands = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Lm, tyro.conf.subcommand("lm")]
    | Annotated[Arms, tyro.conf.subcommand("arms")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


def _data(args: Run) -> Data:
    return Clusters(mean=args.mean, outputs=args.outputs) if args.data == "clusters" else KINDS[args.data]()


def _run(args: Run, console: Console) -> None:
    if args.expert not in EXPERTS:
        raise ValueError(f"`expert` must be one of {', '.join(EXPERTS)}; got {args.expert!r}.")
    _checks.count("seeds", args.seeds)
    available = arms(
        Partition.equal(args.experts, args.groups),
        args.per_group,
        load=args.load,
        intra=args.intra,
        inter=args.inter,
        tau=args.tau,
        beta=args.beta,
        temperature=args.temperature,
    )
    chosen = choose(list(args.arm), available)
    training = Training(args.steps, args.batch, args.learning_rate, args.optimizer, args.records)
    path = args.out or Path("results") / f"{'+'.join(args.arm)}.nc"
    store.writable(path)
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, transient=True) as bar:
        task = bar.add_task(f"{len(chosen)} arms × {args.seeds} seeds", total=None, rate="compiling")

        def progress(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f} steps/s" if speed else "compiling")

        result = simulate(chosen, _data(args), Layer(EXPERTS[args.expert]()), training, seeds, progress=progress)
    store.save(result, path)
    console.print(table(result))
    console.print(f"{path} ({result.attrs['seconds']:.1f} s)", soft_wrap=True)


COLUMNS = {
    "test_error": "test error",
    "cv": "hard CV",
    "collision_information": "I₂ (nats)",
    "information": "label info",
    "effective_groups": "eff. groups",
}


def table(result: xr.Dataset) -> Table:
    """Mean ± half-width of the 95 % interval over seeds at the last step, and the regime, for every arm."""
    out = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"step {int(result.step[-1])}, {result.sizes['seed']} seeds, mean ± 95 % interval; div.: diverged runs",
    )
    out.add_column("arm", no_wrap=True)
    for heading in COLUMNS.values():
        out.add_column(heading)
    out.add_column("regime (seeds)", no_wrap=True)
    out.add_column("div.", no_wrap=True)
    final = result.isel(step=-1)
    for arm in result.arm.values:
        regime, seeds = regime_of(result, arm)
        cells = [str(interval(final[name].sel(arm=arm).values)) for name in COLUMNS]
        diverged = int((result["regime"].sel(arm=arm) == 4).sum())
        out.add_row(arm, *cells, f"{regime.name.lower()} ({seeds}/{result.sizes['seed']})", str(diverged))
    return out


def _arms(console: Console) -> None:
    out = Table(title="arms at N 8, M 4, K 1 with default coefficients")
    for heading in ("arm", "what it is", "objectives", "source"):
        out.add_column(heading)
    everywhere = arms()
    for arm in available().values():
        terms = ", ".join(f"{c:g} {name}" for name, c in arm.terms.items()) or "task only"
        summary = arm.summary if arm.name in everywhere else f"{arm.summary} (lm alone)"
        out.add_row(arm.name, summary, terms, arm.router.source)
    console.print(out)


def _show(args: Show, console: Console) -> None:
    if args.file.is_dir():
        run_show(args, console)
    elif args != Show(args.file):
        raise ValueError(
            f"`x`, `y`, `value` and `at` must be left out for a result file; {args.file} is no store of a sweep."
        )
    else:
        result = store.load(args.file)
        console.print(table(result) if "regime" in result else table_of_lm(result))


def _kept(args: Command) -> str:
    """What an interruption leaves."""
    if isinstance(args, Lm):
        return kept_of_lm(args)
    if not isinstance(args, Sweep | Resume):
        return "nothing was stored"
    folder = store_of(args) if isinstance(args, Sweep) else args.store
    return f"finished chunks are stored; go on with `himoe-simulate resume {folder}`"


def main() -> None:
    """Entry point; exit code 2 and one line on bad input."""
    args = tyro.cli(Commands, prog="himoe-simulate", description=f"Simulates routers.\n\n{EXAMPLES}")  # pyright: ignore
    console = Console()
    try:
        if isinstance(args, Run):
            _run(args, console)
        elif isinstance(args, Lm):
            run_lm(args, console)
        elif isinstance(args, Sweep):
            run_sweep(args, console)
        elif isinstance(args, Resume):
            run_resume(args, console)
        elif isinstance(args, Show):
            _show(args, console)
        else:
            _arms(console)
    except ValueError as error:
        print(f"himoe-simulate: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"himoe-simulate: interrupted, {_kept(args)}.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
