"""A contract on the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from himoe_theory.contract import Contract, Finding, Outcome, Table

STYLES = {Outcome.HOLDS: "green", Outcome.FAILS: "yellow", Outcome.DOES_NOT_APPLY: "dim"}


def show(contract: Contract, console: Console) -> None:
    """Properties, each with its outcome and, if it fails, the smallest example; then what was measured; then a line."""
    console.print(f"{contract.name}: {contract.kind}", style="bold", highlight=False)
    for name, said in contract.about:
        console.print(f"  {name}: {said}", highlight=False, soft_wrap=True)
    console.print()
    for each in contract.findings:
        console.print(_line(each), soft_wrap=True)
        if each.example:
            console.print(f"  {'':14} smallest example: {each.example}", highlight=False, soft_wrap=True)
    for table in contract.tables:
        console.print(f"\n{table.title}", style="bold", highlight=False)
        for row in _rows(table):
            console.print(f"  {row}", highlight=False, soft_wrap=True)
        if table.note:
            console.print(f"  {table.note}", highlight=False, soft_wrap=True)
    console.print(f"\n{contract.verdict}", highlight=False, soft_wrap=True)


def _line(finding: Finding) -> Text:
    style = "bold red" if finding.broken else STYLES[finding.outcome]
    outcome = Text(f"  {finding.outcome:14}", style=style)
    told = f" {finding.text}"
    if finding.outcome is not Outcome.DOES_NOT_APPLY:
        told = f" ({finding.standing}){told}"
    return Text.assemble(outcome, " ", (finding.name, "bold"), told)


def _rows(table: Table) -> Iterator[str]:
    """Columns as wide as they need to be: a narrow terminal wraps them, and loses nothing."""
    every = (table.heading, *table.rows)
    widths = [max(len(row[i]) for row in every) for i in range(len(table.heading))]
    for first, *rest in every:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
