"""`himoe-simulate screen`: a card of an objective, a router or an arm."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from himoe_theory import _checks
from himoe_theory.plumbing import files
from himoe_theory.plumbing.commands import words

from .. import fields
from ..terminal import Several, progress
from .card import Card, screen
from .page import html, plain
from .runs import MEANS, SEEDS


@dataclasses.dataclass(frozen=True)
class Screen:
    """Screen an objective, a router or an arm: its contract, then clusters at two means over five coefficients and four
    seeds, beside gshard, moge, hi-moe, switch and an untrained gate. Writes a card (HTML), about a minute on two cores.

    examples:
      himoe-simulate screen mine.py:my_loss
      himoe-simulate screen mine.py:my_router --html card.html --json card.json
      himoe-simulate screen p_squared
    """

    thing: Annotated[str, tyro.conf.Positional]
    """FILE.py:NAME, or the name of an objective or an arm."""
    html: Path | None = None
    """The page; results/screen-NAME.html if not given."""
    json: Path | None = None
    """All numbers as a file."""
    term: Several = ()
    """NAME=COEFFICIENT: an objective, added in all runs."""
    set: Several = ()
    """FIELD=VALUE: any field but data.mean, of all runs."""
    seeds: int = SEEDS
    """Number of seeds: 0, 1, ..."""
    workers: int = 2
    """Processes."""
    force: bool = False
    """Replace files that are there."""


def run_screen(args: Screen, console: Console) -> None:
    """Screens, prints and writes."""
    _checks.count("seeds", args.seeds, minimum=2, maximum=2**31 - 1)
    _checks.count("workers", args.workers)
    values = fields.read(words("set", args.set), words("term", args.term))
    if "data.mean" in values:
        raise ValueError(f"`data.mean` is what a screening compares, {MEANS[0]:g} and {MEANS[1]:g}; got it set.")
    path = args.html or Path("results") / f"screen-{args.thing.rpartition(':')[2]}.html"
    for each in (path, *([args.json] if args.json else [])):
        files.writable(each, replace=args.force)
    with progress(console, "what") as bar:
        task = bar.add_task("screening", total=1.0, what="contract")

        def report(what: str, share: float) -> None:
            bar.update(task, completed=share, what=what)

        card = screen(args.thing, fields=values, seeds=args.seeds, workers=args.workers, report=report)
    files.write(path, html(card))
    if args.json:
        files.write(args.json, json.dumps(plain(card), indent=1) + "\n")
    for mean in MEANS:
        console.print(_table(card, mean))
    for each in card.contract.broken:
        console.print(f"claims, but has not: {each.name}: {each.text} {each.example}", soft_wrap=True)
    console.print(f"{path} ({card.seconds:.1f} s)", soft_wrap=True)


def _table(card: Card, mean: float) -> Table:
    out = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"clusters, μ = {mean:g}; mean ± 95 % interval",
        title_justify="left",
    )
    for heading in ("arm", "test error", "G", "hard CV", "regime (seeds)"):
        out.add_column(heading, no_wrap=heading == "arm")
    for line in (*card.of(mean, screened=True), *card.of(mean, screened=False)):
        cells = [
            f"{value:.3f} ± {width:.3f}" for value, width in (line.quantities[n] for n in ("test_error", "gain", "cv"))
        ]
        regime, count = max(line.names["regime"].items(), key=lambda item: item[1])
        out.add_row(line.arm, *cells, f"{regime} ({count}/{card.seeds})")
    return out
