"""What `himoe-simulate` does with sweeps: start one, resume one, show one."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tyro
from rich.console import Console

from himoe_theory.plumbing.commands import words

from ..terminal import Several, progress
from . import show
from .cluster import dask
from .design import read_design
from .picture import plot
from .read import read_sweep
from .run import Progress as Report
from .run import resume, sweep
from .store import Store
from .table import print_table
from .workers import Executor, local

LOCAL = "local"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Compute every setting of a design with every seed, into a store that an interruption does not harm.

    examples:
      himoe-simulate sweep collapse.toml
      himoe-simulate sweep collapse.toml --out /data/collapse --executor tcp://scheduler:8786

    A design:
      seeds = 8
      partners = true                           # false: no frozen and planted runs, and no regime is judged
      [fixed]
      arm = "hi-moe"
      training.steps = 600
      [grid]                                    # or [list], or [random] with samples = 20
      data.mean = [0.0, 2.0, 4.0]               # in [random]: { uniform = [0.0, 4.0] }
      terms.load_per_token = [0.0, 0.01, 0.1]
    """

    file: tyro.conf.Positional[Path]
    """A TOML file."""
    out: Path | None = None
    """The store, a folder; results/NAME-OF-THE-FILE if not given."""
    workers: int | None = None
    """Processes; as many as cores and memory allow if not given."""
    executor: str = LOCAL
    """local, or the address of a Dask scheduler, such as tcp://host:8786."""


@dataclasses.dataclass(frozen=True)
class Resume:
    """Compute what a store lacks.

    examples:
      himoe-simulate resume results/collapse
      himoe-simulate resume results/collapse --workers 1
    """

    store: tyro.conf.Positional[Path]
    """A folder that `sweep` made."""
    workers: int | None = None
    """Processes; as many as cores and memory allow if not given."""
    executor: str = LOCAL
    """local, or the address of a Dask scheduler, such as tcp://host:8786."""


@dataclasses.dataclass(frozen=True)
class Show:
    """Print the table of a stored result with its legend, and draw it beside the file; of a sweep, any one or two of
    its fields.

    examples:
      himoe-simulate show results/hi-moe.nc
      himoe-simulate show results/collapse --x data.mean --y seed --at terms.load_per_token=0.01
      himoe-simulate show results/collapse --value regime
    """

    file: tyro.conf.Positional[Path]
    """A result file written by `run` or `lm`, or a store written by `sweep`."""
    x: str | None = None
    """Sweep: a field, or seed; the first field with several values if not given."""
    y: str | None = None
    """Sweep: a second field, for a map."""
    value: str = "test_error"
    """Sweep: a measurement, regime or balance."""
    at: Several = ()
    """Sweep: FIELD=VALUE, to see only the runs that have it."""


def run_sweep(args: Sweep, console: Console) -> None:
    """Starts a sweep, or goes on with it."""
    design, executor = read_design(args.file), _executor(args.executor, args.workers)
    folder = store_of(args)
    _report(_with_progress(console, lambda report: sweep(design, folder, executor=executor, progress=report)), console)


def run_resume(args: Resume, console: Console) -> None:
    """Goes on with a sweep."""
    executor = _executor(args.executor, args.workers)
    _report(_with_progress(console, lambda report: resume(args.store, executor=executor, progress=report)), console)


def run_show(args: Show, console: Console) -> None:
    """Prints a table and draws it beside the store."""
    folder = args.file if args.file.name not in ("", "..") else args.file.resolve()  # a picture needs a name
    at = _pairs(words("at", args.at))
    result = read_sweep(folder)
    if not result.attrs["chunks_stored"]:
        raise ValueError(f"`{folder}` must hold at least one finished chunk; got 0 of {result.attrs['chunks']}.")
    seen = show.view(result, args.x, args.y, args.value, at)
    print_table(seen, console)
    path = folder.with_name(f"{folder.name}.{_name(seen, at)}.png")
    plot(seen, path)
    part = f"{result.attrs['chunks_stored']} of {result.attrs['chunks']} chunks stored"
    console.print(f"{path} ({part})", soft_wrap=True)


def _name(seen: show.View, at: Mapping[str, str]) -> str:
    """What a view is of, so that two have two pictures: measurement, fields, and where the sweep was cut."""
    parts = [seen.measurement, *seen.fields, *(f"{field}={value}" for field, value in at.items())]
    return re.sub(r"[^\w.=+-]", "_", "-".join(parts))


def _pairs(at: Sequence[str]) -> dict[str, str]:
    """Fields and their values from `FIELD=VALUE`."""
    found: dict[str, str] = {}
    for text in at:
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"`at` must be FIELD=VALUE; got {text!r}.")
        if field in found:
            raise ValueError(f"`at` must fix a field once; got {field}={found[field]} and {text}.")
        found[field] = value
    return found


def store_of(args: Sweep) -> Path:
    """Where a sweep is stored."""
    return args.out or Path("results") / args.file.stem


def _executor(name: str, workers: int | None) -> Executor | None:
    """`None` leaves the choice to what the machine has."""
    if name != LOCAL:
        if "://" not in name:
            raise ValueError(f"`executor` must be {LOCAL} or an address such as tcp://host:8786; got {name!r}.")
        return dask(name)
    if workers is None:
        return None
    return local(workers)


def _with_progress(console: Console, work: Callable[[Report], Store]) -> Store:
    # Speed is averaged long: programs compile, and then run, at very different paces.
    with progress(console, "rate", speed_estimate_period=600) as bar:
        task = bar.add_task("sweep", total=None, rate="compiling")

        def report(done: float, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.3g} runs/s" if speed else "compiling"
            bar.update(task, description=f"{done:.0f} of {total} runs", completed=done, total=total, rate=rate)

        return work(report)


def _report(store: Store, console: Console) -> None:
    console.print(f"{store.folder}: {len(store.hashes)} chunks, all stored", soft_wrap=True)
