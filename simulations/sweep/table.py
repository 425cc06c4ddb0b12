"""A view of a sweep as text that fits the terminal's width."""

from collections.abc import Callable, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..null import rules
from .show import View, label, labels, number

_FEWEST_ROWS, _OTHER_LINES = 10, 10  # of a table in a low terminal; around a table
_BLOCKED = -2  # the form in which a table of two fields is broken into blocks


def print_table(view: View, console: Console) -> None:
    """The title, the table, and what its marks mean."""
    for line in [view.title, *(_matrix(view, console) if view.matrix else _rows(view, console))]:
        console.print(line, highlight=False, markup=False)


def cell(view: View, place: tuple[int, ...], form: int = 0) -> str:
    """What one point shows, in one of the forms of `_FORMS` or `_NAME_FORMS`; each is shorter than the one before."""
    if not view.runs[place]:
        return "-"
    if view.kind:
        return _NAME_FORMS[form](view, place)
    return _FORMS[form](view, place)


def _full(view: View, place: tuple[int, ...]) -> str:
    diverged, runs = view.diverged[place], view.runs[place]
    if diverged == runs:
        return f"all {runs} div."
    half = number(view.half_width[place], 2) if np.isfinite(view.half_width[place]) else "n/a"
    text = number(view.mean[place]) + (f" ± {half}" if np.isfinite(view.half_width).any() else "")
    return f"{text} ({diverged} div.)" if diverged else text


def _short(digits: int) -> Callable[[View, tuple[int, ...]], str]:
    def write(view: View, place: tuple[int, ...]) -> str:
        if view.diverged[place] == view.runs[place]:
            return "div."
        return number(view.mean[place], digits) + "*" * bool(view.diverged[place])

    return write


def _name(view: View, place: tuple[int, ...]) -> str:
    return next(name.label for name in view.names if name == view.mean[place])


_FORMS = (_full, _short(4), _short(3), _short(2))
_NAME_FORMS: tuple[Callable[[View, tuple[int, ...]], str], ...] = (
    lambda view, place: f"{_name(view, place)} {view.agreeing[place]}/{view.runs[place]}",
    lambda view, place: f"{_name(view, place)[:4]} {view.agreeing[place]}/{view.runs[place]}",
    lambda view, place: f"{_name(view, place)[0].upper()} {view.agreeing[place]}/{view.runs[place]}",
    lambda view, place: _name(view, place)[0].upper(),
)


def _matrix(view: View, console: Console) -> list[Table | str]:
    """Rows are the first field's values, columns the second's; if no form fits, blocks of columns."""
    columns = len(view.values[1])
    for blocks in range(1, columns + 1):
        parts = np.array_split(np.arange(columns), blocks)
        for form in range(len(_FORMS)) if blocks == 1 else (len(_FORMS) + _BLOCKED,):
            tables = [_block(view, part, form) for part in parts]
            if all(_width(table, console) <= console.width for table in tables) or blocks == columns:
                return [f"rows: {view.fields[0]}, columns: {view.fields[1]}", *tables, *_notes(view, form)]
    raise AssertionError("a block of one column is always returned")


def _block(view: View, columns: Sequence[int] | np.ndarray, form: int) -> Table:
    out = Table(box=SIMPLE_HEAD, padding=(0, int(form == 0), 0, 0))
    out.add_column("", no_wrap=True)
    heads = labels(view.values[1], 4 - form)
    for j in columns:
        out.add_column(heads[j], no_wrap=True)
    for i, head in enumerate(labels(view.values[0])):
        out.add_row(head, *(cell(view, (i, int(j)), form) for j in columns))
    return out


def _notes(view: View, form: int) -> list[str]:
    """What a short form leaves out, and what its marks mean."""
    if view.kind:
        letters = [f"{name.label[0].upper()}: {name.label}" for name in view.names]
        short = letters if form >= len(_NAME_FORMS) + _BLOCKED else []
        return ["; ".join(short + ["n/m: n of m runs agree"] * (form < len(_NAME_FORMS) - 1)), *rules(view.kind)]
    lost, every = view.diverged > 0, view.diverged == view.runs
    known = bool(np.isfinite(view.half_width).any())
    if form == 0:
        notes = ["±: 95 % interval over seeds"] * known + ["div.: diverged runs, left out"] * bool(lost.any())
    else:
        notes = ["intervals: in a wider terminal, or along a single field"] * known
        notes += ["*: without diverged runs"] * bool((lost & ~every).any())
        notes += ["div.: all runs diverged"] * bool((lost & every).any())
    return ["; ".join(notes)] if notes else []


def _rows(view: View, console: Console) -> list[Table | str]:
    """A row a point: of one field, or of two that are not crossed."""
    out = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for field in view.fields:
        out.add_column(field, no_wrap=True)
    out.add_column(view.measurement, no_wrap=True)
    out.add_column("runs")
    columns = [[label(value) for value in values] for values in view.values]
    points = len(columns[0])
    shown = np.arange(points)
    room = max(_FEWEST_ROWS, console.height - _OTHER_LINES)
    if console.is_terminal and points > room:
        shown = np.linspace(0, points - 1, room).round().astype(int)
    for i in shown:
        out.add_row(*(column[i] for column in columns), cell(view, (int(i),)), str(view.runs[i]))
    left = points - len(shown)
    cut = [f"{left} of {points} rows left out, evenly; a file or a pipe gets all"] if left else []
    return [out, *cut, *_notes(view, 0)]


def _width(table: Table, console: Console) -> int:
    """What the table needs if nothing is cut off."""
    return Measurement.get(console, console.options.update(max_width=100_000), table).maximum
