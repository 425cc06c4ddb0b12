"""How figures look and how they are written: one style, entered while drawing and saving; nothing global changes."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, SubplotSpec
from matplotlib.image import AxesImage

from himoe_theory.plumbing.files import whole

DPI = 160
# Grows evenly in lightness, so that it reads the same printed in grey.
COLOURS = "cividis"
DARK, MIDDLE, LIGHT = "#1b2a41", "#7a8290", "#c9ced6"
ACCENT = "#b8860b"
"""Second colour of marks: lighter than `DARK` in grey too."""

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
}


def context() -> AbstractContextManager[None]:
    """The style, whatever the user's own settings are."""
    return matplotlib.style.context(["default", _RC])


def bare(axes: Axes) -> None:
    """No frame but the axes themselves."""
    axes.spines[["top", "right"]].set_visible(False)


def rows(axes: Axes) -> None:
    """A panel with a row for every arm: lines across, nothing else."""
    axes.grid(axis="x", color=LIGHT, lw=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    bare(axes)


def letter(panels: Iterable[Axes]) -> None:
    """Letters a, b, ... left above the panels, and no frames."""
    for axes, name in zip(panels, "abcdefghij", strict=False):
        axes.text(-0.11, 1.02, name, transform=axes.transAxes, ha="left", va="bottom", weight="bold", fontsize=9)
        bare(axes)


def note(axes: Axes, x: float, y: float, text: str, *, ha: str = "left", va: str = "bottom") -> None:
    """A remark inside a panel, at a place in shares of its sides."""
    axes.text(x, y, text, transform=axes.transAxes, ha=ha, va=va, fontsize=7)


COLUMNS = 6


@dataclasses.dataclass(frozen=True)
class Panel:
    """A place in a grid of panels."""

    cell: SubplotSpec
    first: bool
    """Whether nothing stands to its left."""
    last: bool
    """Whether nothing stands below it."""


def panels(
    count: int, *, width: float, height: float, top: float, hspace: float, wspace: float
) -> tuple[Figure, Iterator[Panel]]:
    """A figure with room for `count` panels, six a row, and a colour bar at the right; sizes in inches."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    across, down = max(4.6, 1.9 + width * columns), top + 0.45 + height * rows
    figure = Figure(figsize=(across, down))
    grid = GridSpec(
        rows, columns, figure, left=0.6 / across, right=1 - 1.2 / across, top=1 - top / down, bottom=0.5 / down,
        hspace=hspace, wspace=wspace,
    )  # fmt: skip
    return figure, (
        Panel(grid[divmod(i, columns)], first=i % columns == 0, last=i + columns >= count) for i in range(count)
    )


def colour_bar(figure: Figure, image: AxesImage, label: str) -> None:
    """One colour bar for all panels, in the room that `panels` left at the right."""
    across, down = figure.get_size_inches()
    length = min(3.4, down - 1.0) / down
    axes = figure.add_axes((1 - 0.95 / across, 0.5 - length / 2, 0.14 / across, length))
    figure.colorbar(image, cax=axes).set_label(label)


def save(figure: Figure, folder: Path, name: str) -> None:
    """Writes NAME.png and NAME.pdf, each whole or not at all. Equal figures give equal bytes: no dates inside.

    **Raises:** `ValueError` if the folder cannot be written.
    """
    for kind in ("png", "pdf"):
        metadata = {"CreationDate": None} if kind == "pdf" else None
        with whole(folder / f"{name}.{kind}") as temporary, context():
            figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
