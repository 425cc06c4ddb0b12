"""`himoe-check`: every claim with its verdict, how it was reached, and how tight it is; or, of an objective or a router
of yours, what it claims and whether it is so."""

import collections
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from himoe_theory.contract import Contract
from himoe_theory.contract import check as contract
from himoe_theory.contract.names import called
from himoe_theory.contract.page import as_json, contract_page
from himoe_theory.plumbing import files
from himoe_theory.plumbing.commands import parsed, told, words

from .claims import CLAIMS
from .contract_text import show
from .explain import explain
from .ledger import DEEP, Claim, Effort, Verdict, select
from .pages import ledger_page
from .precision import compile_plainly, unoptimised
from .record import Record
from .runner import WorkerLost, run

EXAMPLES = """examples:
  himoe-check                                   every claim; minutes
  himoe-check --only 'himoe/*' 'guo/lemma*'     those whose id matches a pattern
  himoe-check --explain himoe/eq4-mass-purity   one claim in full: steps, controls, witness, slack
  himoe-check --json c.json --html c.html       for programs, and as a page
  himoe-check --deep                            the searches run longer
  himoe-check mine.py:peaked                    the contract of an objective, a router or an arm in a file
  himoe-check load gshard --html load.html      of ours, or of a package's, by name"""

STYLES = {
    Verdict.PROVED: "green",
    Verdict.PROVED_FOR_SIZES: "green",
    Verdict.SUPPORTED: "cyan",
    Verdict.REFUTED: "red",
    Verdict.CORRECTED: "magenta",
    Verdict.UNVERIFIABLE: "yellow",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Exit code 0 if every verdict is the recorded one (or all that an object claims holds), 1 if not, 2 on bad
    usage."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Whose contract is checked: FILE.py:NAME, or a name; the ledger if not given."""
    only: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    """Shell patterns of ids; all claims if not given."""
    explain: str | None = None
    """The id (or a pattern) of claims to explain in full."""
    list: bool = False
    """Print the ids with what they say, and examine nothing."""
    json: Path | None = None
    """File for the results: a list of objects."""
    html: Path | None = None
    """File for the results as one page."""
    force: bool = False
    """Replace files that are there."""
    deep: bool = False
    """Search longer: more starts, steps and examples, more time for solvers."""
    workers: int | None = None
    """Processes; as many as there are cores if not given."""


def check(options: Options, console: Console) -> int:
    """Examines what is asked for and returns the exit code. **Raises:** `ValueError` for bad options."""
    return _contracts(options, console) if options.names else _ledger(options, console)


def _contracts(options: Options, console: Console) -> int:
    """The contract of each object, and 1 if one claims what it does not have."""
    for option in ("only", "explain", "list", "deep", "workers"):
        if getattr(options, option):
            raise ValueError(f"`{option}` must not be given with a name; it is for claims, {options.names[0]} is none.")
    outputs = _outputs(options)
    things = [called(name) for name in options.names]
    found: list[Contract] = []
    compile_plainly()
    with unoptimised():
        for thing in things:
            found.append(contract(thing))
            show(found[-1], console)
    _write(options, json.dumps([as_json(each) for each in found], indent=1), lambda: contract_page(found))
    _told(outputs, console)
    return 1 if any(each.broken for each in found) else 0


def _ledger(options: Options, console: Console) -> int:
    """The verdicts of claims, and 1 if one is not as recorded."""
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"`workers` must be at least 1; got {options.workers}.")
    claims = select(CLAIMS, words("only", options.only), () if options.explain is None else (options.explain,))
    if options.list:
        for claim in claims:
            console.print(f"{claim.id}: {claim.words}", soft_wrap=True, highlight=False)
        return 0
    outputs = _outputs(options)
    records = _examine(claims, DEEP if options.deep else Effort(), options, console)
    _write(options, json.dumps(records, indent=1), lambda: ledger_page(records))
    _told(outputs, console)
    return _summary(records, console)


def _outputs(options: Options) -> list[Path]:
    """The files that will be written. **Raises:** `ValueError` now rather than after the work."""
    outputs = [path for path in (options.json, options.html) if path is not None]
    for path in outputs:
        if not os.path.isdir(path.parent):
            raise ValueError(f"`{path}` must be a file in a folder that exists.")
        files.writable(path, replace=options.force)
    return outputs


def _write(options: Options, values: str, page: Callable[[], str]) -> None:
    if options.json is not None:
        files.write(options.json, values + "\n", replace=options.force)
    if options.html is not None:
        files.write(options.html, page(), replace=options.force)


def _told(outputs: Sequence[Path], console: Console) -> None:
    for path in outputs:
        console.print(f"{path}: written", soft_wrap=True, highlight=False)


def _examine(claims: Sequence[Claim], effort: Effort, options: Options, console: Console) -> list[Record]:
    """The records in the order of the claims; printed in the order in which they are done."""
    found: dict[str, Record] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("examining", total=len(claims))
        for each in run(claims, effort, options.workers):
            found[each["id"]] = each
            if options.explain:
                console.print(explain(each) + "\n", soft_wrap=True, highlight=False)
            else:
                console.print(_row(each), soft_wrap=True)
            bar.advance(task)
    return [found[claim.id] for claim in claims]


def _row(of: Record) -> Text:
    verdict = Text(f"{of['verdict']:17}", style=STYLES[Verdict(of["verdict"])])
    ratio = f"{of['tightness']:8.4f}" if of["tightness"] is not None else " " * 8
    row = Text.assemble(verdict, f" {of['id']:44} {ratio} {of['seconds']:6.1f} s  {', '.join(of['methods'])}")
    if not of["as_recorded"]:
        row.append(f"  NOT AS RECORDED ({of['recorded']})", style="bold red")
        row.append(f" {_reason(of)}")
    return row


def _reason(of: Record) -> str:
    if of["failure"]:
        return of["failure"]
    wrong = [f"{f['method']}: {c['variant']}" for f in of["findings"] for c in f["controls"] if not c["passed"]]
    return f"controls answered wrongly: {'; '.join(wrong)}" if wrong else ""


def _summary(records: Sequence[Record], console: Console) -> int:
    """The last lines: counts, and what is not as recorded."""
    counts = collections.Counter(each["verdict"] for each in records)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])
    console.print(f"{len(records)} claims: {told}.", highlight=False, soft_wrap=True)
    different = [each["id"] for each in records if not each["as_recorded"]]
    if different:
        console.print(f"Not as recorded: {', '.join(different)}.", highlight=False, soft_wrap=True)
    return 1 if different else 0


def main() -> None:
    """Entry point; one line and exit code 2 on bad usage, 1 when a process is killed, 130 when interrupted."""
    console = Console(markup=False, emoji=False)  # ids and paths are printed as they are
    name, said = "himoe-check", f"{__doc__}\n\n{Options.__doc__}\n\n{EXAMPLES}"
    options = parsed(name, lambda: tyro.cli(Options, prog=name, description=said))
    with told(name, "interrupted."):
        try:
            sys.exit(check(options, console))
        except WorkerLost as error:
            sys.exit(f"himoe-check: {files.one_line(error)}")


if __name__ == "__main__":
    main()
