"""What `himoe-simulate` does with single runs: train arms, print their table, store and draw them."""

import dataclasses
from pathlib import Path

import xarray as xr
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from himoe_theory import _checks
from himoe_theory.plumbing import files
from himoe_theory.plumbing.commands import words

from . import fields, machine, store
from .legend import print_legend
from .picture import drawable, picture_of, plot_runs
from .record import DESCRIPTIONS
from .run import interval, regime_of, simulate
from .terminal import Several, progress


@dataclasses.dataclass(frozen=True)
class Run:
    """Train arms on data, print mean ± 95 % interval over seeds, store the trajectories and draw them.

    Options are short names of fields; --set reaches every field (see `himoe-simulate fields`).

    examples:
      himoe-simulate run --arm hi-moe --data clusters --seeds 8
      himoe-simulate run --arm moge hi-moe --load 0 --mean 0 --seeds 4
      himoe-simulate run --arm gshard --data digits --expert two-layer
      himoe-simulate run --arm gshard --term z=0.001 --set router.policy.kind=above layer.gate_std=1
    """

    arm: Several = ()
    """Names of arms (see `himoe-simulate arms`); hi-moe if not given."""
    data: str = "clusters"
    """clusters (regression), digits (scikit-learn's), patches, single-index (clusters) or streams (of clusters)."""
    seeds: int = 8
    """Number of seeds: 0, 1, ..."""
    first_seed: int = 0
    """The first of them."""
    term: Several = ()
    """NAME=COEFFICIENT: an objective, added to the arms' own or in place of its coefficient there."""
    set: Several = ()
    """FIELD=VALUE: any field, as in sweeps."""
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
    clusters: int | None = None
    """Number of clusters; the data's own if not given (clusters and streams 8, patches and single-index 4)."""
    mean: float = 4.0
    """Length of the clusters' common mean (μ)."""
    outputs: int = 1
    """Targets of the clustered regression."""
    steps: int = 1500
    """Optimiser steps."""
    batch: int = 256
    """Tokens a step."""
    learning_rate: float = 3e-3
    """The optimiser's, the same at every step."""
    optimizer: str = "adam"
    """adam, adamw or sgd."""
    records: int = 50
    """Measurements along the way; must divide the steps."""
    out: Path | None = None
    """Result file; results/ARM.nc if not given. The picture gets the same name and .png."""
    force: bool = False
    """Replace a result file that is there."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return words("arm", self.arm) or ("hi-moe",)


FIELD_OF = {
    "data": "data.kind",
    "experts": "router.experts",
    "groups": "router.groups",
    "per_group": "router.per_group",
    "expert": "layer.expert.kind",
    **{name: f"arms.{name}" for name in ("load", "intra", "inter", "tau", "beta", "temperature")},
    **{name: f"data.{name}" for name in ("clusters", "mean", "outputs")},
    **{name: f"training.{name}" for name in ("steps", "batch", "learning_rate", "optimizer", "records")},
}
"""The field that an option of `run` names."""


def settings_of(args: Run) -> list[fields.Setting]:
    """One setting an arm. **Raises:** `ValueError` for options that cannot be, or are given twice."""
    kinds = {"data.kind": args.data, "layer.expert.kind": args.expert}
    values = fields.given(args, FIELD_OF, fields.read(words("set", args.set), words("term", args.term), kinds=kinds))
    values = {"training.records": args.records} | values  # a sweep's default is the end alone
    return [fields.build(values | {"arm": arm}) for arm in args.arms]


def run_run(args: Run, console: Console) -> None:
    """Trains, prints, stores and draws."""
    _checks.count("seeds", args.seeds, maximum=2**31)
    _checks.count("first_seed", args.first_seed, minimum=0, maximum=2**31 - args.seeds, of="2^31 - seeds")
    settings = settings_of(args)
    (data,), (layer,), (training,) = ({getattr(s, part) for s in settings} for part in ("data", "layer", "training"))
    _check_memory(settings, args.seeds)
    path = args.out or Path("results") / f"{'+'.join(setting.arm.name for setting in settings)}.nc"
    files.writable(path, replace=args.force)
    drawable(picture_of(path))
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    with progress(console, "rate") as bar:
        task = bar.add_task(f"{len(settings)} arms × {args.seeds} seeds", total=None, rate="compiling")

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:,.0f} steps/s" if speed else "compiling")

        result = simulate([setting.arm for setting in settings], data, layer, training, seeds, progress=report)
    store.save(result, path, replace=args.force)
    print_runs(result, console)
    plot_runs(result, picture_of(path))
    console.print(f"{path} and {picture_of(path)} ({result.attrs['seconds']:.1f} s)", soft_wrap=True)


def _check_memory(settings: list[fields.Setting], seeds: int) -> None:
    """**Raises:** `ValueError` with the estimate if all runs at once do not fit."""
    one = settings[0]
    needed = len(settings) * seeds * (machine.run_bytes(one) + machine.record_bytes(one))
    needed += seeds * one.training.stride * machine.batch_bytes(one)  # all that comes between two records
    cure = "Take fewer seeds, tokens (--batch), experts or outputs, or more --records, or a sweep, which cuts its work"
    machine.check_fits(f"{len(settings) * seeds} runs", needed, cure)


COLUMNS = {
    "test_error": "test error",
    "cv": "hard CV",
    "collision_information": "I₂ (nats)",
    "information": "label info",
    "effective_groups": "eff. groups",
}

NEEDED = ("arm", "seed", "step", "regime", *COLUMNS)
"""What the table reads."""


def print_runs(result: xr.Dataset, console: Console) -> None:
    """The table and its legend."""
    console.print(table(result))
    print_legend(COLUMNS, DESCRIPTIONS, console)


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
