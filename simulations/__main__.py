"""`himoe-simulate`: run arms on data, train language models, list arms, sweep over settings, show what is stored."""

import dataclasses
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from himoe_theory.plumbing.bring import offered
from himoe_theory.plumbing.commands import parsed, told

from . import store
from .arms import ARM, arms
from .command import NEEDED, Run, print_runs, run_run
from .fields.command import Fields, run_fields
from .language.available import available
from .language.command import NEEDED as NEEDED_OF_LM
from .language.command import kept as kept_of_lm
from .language.command import print_model, run_lm
from .language.options import Lm
from .language.picture import plot_model
from .picture import picture_of, plot_runs
from .screen.command import Screen, run_screen
from .sweep.command import Resume, Show, Sweep, run_resume, run_show, run_sweep, store_of
from .terminal import terminal

EXAMPLES = """examples:
  himoe-simulate run --arm hi-moe --data clusters --seeds 8
  himoe-simulate arms
  himoe-simulate fields
  himoe-simulate lm --arm hi-moe --size small
  himoe-simulate show results/hi-moe.nc
  himoe-simulate screen mine.py:my_loss
  himoe-simulate sweep collapse.toml
  himoe-simulate resume results/collapse
  himoe-simulate show results/collapse --x data.mean --value cv"""


@dataclasses.dataclass(frozen=True)
class Arms:
    """List the arms with their routers and objectives; `run` and `sweep` have all but those marked lm alone.

    examples:
      himoe-simulate arms
    """


Command = Run | Lm | Arms | Fields | Screen | Show | Sweep | Resume
Commands = (
    Annotated[Run, tyro.conf.subcommand("run")]
    | Annotated[Lm, tyro.conf.subcommand("lm")]
    | Annotated[Arms, tyro.conf.subcommand("arms")]
    | Annotated[Fields, tyro.conf.subcommand("fields")]
    | Annotated[Screen, tyro.conf.subcommand("screen")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


def _arms(console: Console) -> None:
    out = Table(title="arms at N 8, M 4, K 1 with default coefficients")
    for heading in ("arm", "what it is", "objectives", "source"):
        out.add_column(heading)
    everywhere = arms()
    for arm in available().values():
        terms = ", ".join(f"{c:g} {name}" for name, c in arm.terms.items()) or "task only"
        summary = arm.summary if arm.name in everywhere else f"{arm.summary} (lm alone)"
        out.add_row(arm.name, summary, terms, arm.router.source)
    for name, package in offered(ARM).items():
        out.add_row(name, f"of the package {package}, not loaded", "", "")
    console.print(out)


def _show(args: Show, console: Console) -> None:
    if args.file.is_dir():
        run_show(args, console)
    elif args != Show(args.file):
        raise ValueError(
            f"`x`, `y`, `value` and `at` must be left out for a result file; {args.file} is no store of a sweep."
        )
    else:
        result, picture = store.read_result(args.file), picture_of(args.file)
        of_run = "regime" in result
        store.check_holds(result, args.file, NEEDED if of_run else NEEDED_OF_LM)
        if of_run:
            print_runs(result, console)
            plot_runs(result, picture)
        else:
            print_model(result, console)
            plot_model(result, picture)
        console.print(picture, soft_wrap=True)


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
    name, said = "himoe-simulate", f"Simulates routers.\n\n{EXAMPLES}"
    args = parsed(name, lambda: tyro.cli(Commands, prog=name, description=said))  # pyright: ignore
    console = terminal()
    with told(name, lambda: f"interrupted, {_kept(args)}."):
        if isinstance(args, Run):
            run_run(args, console)
        elif isinstance(args, Lm):
            run_lm(args, console)
        elif isinstance(args, Sweep):
            run_sweep(args, console)
        elif isinstance(args, Resume):
            run_resume(args, console)
        elif isinstance(args, Show):
            _show(args, console)
        elif isinstance(args, Screen):
            run_screen(args, console)
        elif isinstance(args, Fields):
            run_fields(args, console)
        else:
            _arms(console)


if __name__ == "__main__":
    main()
