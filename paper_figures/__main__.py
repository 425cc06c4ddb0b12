"""`himoe-figures`: compute what is missing, draw what changed, write the report."""

import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro
from rich.console import Console

from himoe_theory.plumbing import files
from himoe_theory.plumbing.commands import parsed, told, words
from proofs_checks.pages import ledger_page
from simulations.terminal import Several, terminal
from simulations.workers import WorkerLost

from .catalogue import FIGURES, select
from .compute import Stored, bring_up_to_date, look
from .draw import current, draw
from .figures.tightness import records
from .plan import Experiment
from .profiles import experiments, usual
from .report import LEDGER_PAGE, report

EXAMPLES = """examples:
  himoe-figures                                   all figures; minutes the first time, seconds after that
  himoe-figures --profile smoke                   the first figures from very small runs; a minute
  himoe-figures --profile smoke --only growth     any other of them likewise
  himoe-figures --only 2 digits                   some of them, by number or name
  himoe-figures --results /data/r --out /tmp/f    other folders"""


@dataclasses.dataclass(frozen=True)
class Options:
    """Results that are stored and still current are used again; the rest is computed."""

    profile: str = "full"
    """full or smoke."""
    only: Several = ()
    """Figures to bring up to date, by number or name; if not given, all (smoke: 1 to 6)."""
    results: Path | None = None
    """Folder of stored results; results/PROFILE if not given."""
    out: Path | None = None
    """Folder of figures and report.html; figures/PROFILE if not given."""

    def repeated(self) -> str:
        """The folders as arguments, where they are not the usual ones."""
        given = {"results": self.results, "out": self.out}
        return "".join(f" --{name} {folder}" for name, folder in given.items() if folder is not None)


def figures(options: Options, console: Console) -> Path:
    """Brings results, figures and report up to date; returns the report's path.

    **Raises:** `ValueError` for an unknown profile or figure, or a folder that cannot be written.
    """
    planned = experiments(options.profile)
    chosen = select(words("only", options.only) or usual(options.profile))
    out = options.out or Path("figures") / options.profile
    folder = options.results or Path("results") / options.profile
    page = out / "report.html"
    files.writable(page)
    began = time.perf_counter()
    needed = {name for entry in chosen for name in entry.needs}
    stored = bring_up_to_date([each for each in planned if each.name in needed], folder, console)
    computed = time.perf_counter()
    drawn = draw(chosen, stored, out)
    finished = time.perf_counter()
    stored |= _others(planned, stored, folder)
    shown = [e for e in FIGURES if e in chosen or (e.needs_only(stored) and current(e, stored, out))]
    if "ledger" in stored:
        files.write(out / LEDGER_PAGE, ledger_page(records(stored["ledger"].result)))
    files.write(page, report(shown, stored, out, options.profile, options.repeated()))
    console.print(
        f"{page} shows figures {', '.join(str(entry.number) for entry in shown)}; drawn now: {len(drawn)} of them; "
        f"results {computed - began:.1f} s, drawing {finished - computed:.1f} s, report "
        f"{time.perf_counter() - finished:.1f} s",
        soft_wrap=True,
        highlight=False,
    )
    return page


def _others(planned: Sequence[Experiment], stored: Mapping[str, Stored], folder: Path) -> dict[str, Stored]:
    """Current results that were not asked for: figures drawn from them earlier stay in the report."""
    looked = {each.name: look(each, folder) for each in planned if each.name not in stored}
    return {name: found for name, found in looked.items() if isinstance(found, Stored)}


def main() -> None:
    """Entry point; one line and exit code 2 on bad input, 1 when a process is killed, 130 when interrupted."""
    console = terminal()
    name, said = "himoe-figures", f"{__doc__}\n\n{EXAMPLES}"
    options = parsed(name, lambda: tyro.cli(Options, prog=name, description=said))
    with told(name, "interrupted; what is stored is kept, and the next call goes on there."):
        try:
            figures(options, console)
        except WorkerLost as error:
            sys.exit(f"himoe-figures: {files.one_line(error)} What is stored is kept.")


if __name__ == "__main__":
    main()
