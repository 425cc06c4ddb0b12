"""What `himoe-simulate` does with single runs: train arms, print their table, store and draw them."""

import dataclasses
import json
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
from .null import rules
from .picture import drawable, picture_of, plot_runs
from .record import DESCRIPTIONS
from .regimes import NAMES, Regime
from .run import NO_TASK_GRADIENT, interval, name_of, simulate
from .terminal import Several, progress


@dataclasses.dataclass(frozen=True)
class Run:
    """Train arms on data, print mean ± 95 % interval over seeds, store the trajectories and draw them.

    Options are short names of fields; --set reaches every field (see `himoe-simulate fields`). Regimes are judged
    beside partners on the same seeds: each router with a frozen gate, and one gate that reads the label.

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
    partners: bool = True
    """Run the partners, as long as about two more arms; without them no regime is judged."""
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

        chosen, how = [setting.arm for setting in settings], {"partners": args.partners, "progress": report}
        result = simulate(chosen, data, layer, training, seeds, **how)
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
    "regime": {"test_error": "test error", "gain": "G", "information": "label info"},
    "balance": {
        "cv": "hard CV",
        "cv_floor": "floor",
        "collision_information": "I₂ (nats)",
        "effective_groups": "eff. groups",
    },
}
"""Measurements beside each name, with their headings."""

NEEDED = ("arm", "seed", "step", *NAMES, *(name for columns in COLUMNS.values() for name in columns))
"""What the tables read."""


def print_runs(result: xr.Dataset, console: Console) -> None:
    """A table for each of the two names, their legend, and what stands below."""
    for name in NAMES:
        console.print(table(result, name))
    headings = {measurement: heading for columns in COLUMNS.values() for measurement, heading in columns.items()}
    print_legend(headings, DESCRIPTIONS, console)
    for line in notes(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def table(result: xr.Dataset, name: str) -> Table:
    """Mean ± half-width of the 95 % interval over seeds at the end, for every arm, and its most frequent regime or
    balance. Before the floor that sampling sets to the CV stands its mean at the start."""
    seeds = result.sizes["seed"]
    title = f"step {int(result.step[-1])}, {seeds} seeds, mean ± 95 % interval; div.: diverged runs"
    out = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title if name == "regime" else None)
    out.add_column("arm", no_wrap=True)
    for measurement, heading in COLUMNS[name].items():
        if measurement == "cv_floor":
            out.add_column("start")
        out.add_column(heading)
    out.add_column(f"{name} (seeds)", no_wrap=True)
    out.add_column("div.", no_wrap=True)
    for arm in result.arm.values:
        one = result.sel(arm=arm)
        cells = [cell for measurement in COLUMNS[name] for cell in _cells(one, measurement)]
        most, agreeing = name_of(result, arm, name)
        diverged = int((one["regime"] == Regime.DIVERGED).sum())
        out.add_row(arm, *cells, f"{most.label} ({agreeing}/{seeds})", str(diverged))
    return out


def _cells(one: xr.Dataset, measurement: str) -> list[str]:
    """An arm's cells under a heading."""
    if measurement == "cv_floor":
        return [f"{float(values.mean()):.3f}" for values in (one["cv"].isel(step=0), one["cv_floor"])]
    values = one[measurement].isel(step=-1) if "step" in one[measurement].dims else one[measurement]
    return [str(interval(values.values)) if values.notnull().any() else "n/a"]


def notes(result: xr.Dataset) -> list[str]:
    """What stands below the tables: rules of the names, and arms that cannot learn what they are asked to."""
    said = [f"{name}: {'; '.join(rules(kind))}" for name, kind in NAMES.items()]
    unreached = json.loads(result.attrs.get(NO_TASK_GRADIENT, "[]"))
    if unreached:
        why = "the one weight of a token is 1 whatever its logits; switch is an arm that learns"
        said.append(f"warning: the task gives the gate of {', '.join(unreached)} no gradient: {why}")
    return said
