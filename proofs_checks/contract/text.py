"""A contract on the terminal."""

from collections.abc import Iterator, Sequence

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
    console.print(f"\n{verdict(contract)}", highlight=False, soft_wrap=True)


def verdict(contract: Contract) -> str:
    """How many hold, fail and do not apply, and what was claimed and fails."""
    counts = [sum(each.outcome is outcome for each in contract.findings) for outcome in Outcome]
    told = ", ".join(f"{count} {_plural(outcome, count)}" for outcome, count in zip(Outcome, counts, strict=True))
    broken = contract.broken
    end = f"Claimed and not so: {_listed(broken)}." if broken else "All that it claims holds."
    return f"{contract.name}: {told}. {end}"


def _plural(outcome: Outcome, count: int) -> str:
    if count == 1:
        return str(outcome)
    return {Outcome.HOLDS: "hold", Outcome.FAILS: "fail", Outcome.DOES_NOT_APPLY: "do not apply"}[outcome]


def _listed(findings: Sequence[Finding]) -> str:
    return ", ".join(each.name for each in findings)


def standing(finding: Finding) -> str:
    """What stands behind a property: a claim, a broken one, or nothing."""
    return "BROKEN" if finding.broken else "claimed" if finding.claimed else "not claimed"


def _line(finding: Finding) -> Text:
    style = "bold red" if finding.broken else STYLES[finding.outcome]
    outcome = Text(f"  {finding.outcome:14}", style=style)
    told = f" {finding.text}"
    if finding.outcome is not Outcome.DOES_NOT_APPLY:
        told = f" ({standing(finding)}){told}"
    return Text.assemble(outcome, " ", (finding.name, "bold"), told)


def _rows(table: Table) -> Iterator[str]:
    """Columns as wide as they need to be: a narrow terminal wraps them, and loses nothing."""
    every = (table.heading, *table.rows)
    widths = [max(len(row[i]) for row in every) for i in range(len(table.heading))]
    for first, *rest in every:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
