"""The terminal: what commands print, and their progress.

Names and paths are printed as they are: nothing that is printed is read as markup.
"""

from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

Several = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""An option of several words that may also be given several times: `--arm a b --arm c`."""


def terminal(**how: Any) -> Console:
    """A console that takes no text for markup."""
    return Console(markup=False, emoji=False, **how)


def progress(console: Console, field: str, *columns: ProgressColumn, width: int | None = 40, **how: Any) -> Progress:
    """A bar that goes when it is done, with the task's `field` behind it."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(width),
        TaskProgressColumn(),
        *(columns or (TimeRemainingColumn(),)),
        TextColumn(f"{{task.fields[{field}]}}", markup=False),
        console=console,
        transient=True,
        **how,
    )
