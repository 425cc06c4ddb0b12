"""One self-contained HTML page: every figure with what is seen, how it was computed, and how to compute it again."""

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import xarray as xr

from himoe_theory import SOURCES
from himoe_theory.plumbing.html import details, page, table
from simulations import DESCRIPTIONS, Thresholds, regimes

from . import read
from .catalogue import Entry
from .compute import SHIPPED, Stored
from .draw import results

MEASURED = ("assignment", "hard_load", "cv", "test_error", "information", "gain", "collision_information", "redundancy")
"""Measurements that figures and regimes speak of."""
LEDGER_PAGE = "claims.html"
"""Beside the report: every claim of the ledger with its evidence."""


def report(entries: Sequence[Entry], stored: Mapping[str, Stored], out: Path, profile: str, folders: str = "") -> str:
    """The page. `entries`: figures that are drawn in `out`. `folders`: arguments that name other folders than usual."""
    command = f"himoe-figures --profile {profile}{folders}"
    tables = {name: stored[name].result for name in ("regimes", "digits") if name in stored}
    parts = [
        _head(profile, entries, "ledger" in stored),
        *(_figure(entry, stored, out, command) for entry in entries),
    ]
    parts += [_arms(tables), _thresholds(), _measurements()]
    return page("himoe-theory: figures", "\n".join(parts))


def _head(profile: str, entries: Sequence[Entry], ledger: bool) -> str:
    places = [(entry.stem, f"Figure {entry.number}. {entry.title}") for entry in entries]
    places += [("arms", "The arms"), ("thresholds", "How runs are named"), ("measurements", "What is measured")]
    links = "".join(f'<li><a href="#{place}">{escape(text)}</a></li>' for place, text in places)
    if ledger:
        links += f'<li><a href="{LEDGER_PAGE}">The claims ledger, claim by claim</a></li>'
    small = "" if profile == "full" else " Few arms, seeds and steps: this page shows that everything works, no more."
    return (
        "<h1>When routers collapse and when they specialise</h1>\n"
        "<p>Simulations of mixture-of-experts routers, drawn from stored results (profile "
        f"<code>{escape(profile)}</code>).{small} Numbers in captions are computed from those results; ± is the "
        f"half-width of a 95&nbsp;% Student interval over seeds.</p>\n<nav aria-label='Contents'><ul>{links}</ul></nav>"
    )


def _figure(entry: Entry, stored: Mapping[str, Stored], out: Path, command: str) -> str:
    data = results(entry, stored)
    image = base64.b64encode((out / f"{entry.stem}.png").read_bytes()).decode()
    drawn, seen = entry.caption(*data)
    pieces = [
        f"<section id='{entry.stem}'><h2>Figure {entry.number}. {escape(entry.title)}</h2>",
        f"<figure><div class=wide><img alt='{escape(entry.alt)}' src='data:image/png;base64,{image}'></div>",
        f"<figcaption><p>{escape(drawn)}</p><p><strong>Seen:</strong> {escape(seen)}</p></figcaption></figure>",
        *([table(*entry.table(*data))] if entry.table else []),
        f"<p>{_again([stored[name] for name in entry.needs], f'{command} --only {entry.number}')}</p>",
        *(_provenance(name, result) for name, result in zip(entry.needs, data, strict=True)),
    ]
    return "\n".join([*pieces, "</section>"])


def _again(needed: Sequence[Stored], command: str) -> str:
    """What computes a figure's results again."""
    with_package = [each for each in needed if each.path.parent == SHIPPED]
    call = f"<code>{escape(command)}</code>"
    if not with_package:
        return f"To compute what is missing or changed, and draw it: {call}"
    files = ", ".join(
        f"<code>{escape(each.path.relative_to(SHIPPED.parent.parent).as_posix())}</code>" for each in with_package
    )
    minutes = sum(each.result.attrs["seconds"] for each in with_package) / 60
    return (
        f"Its results come with the package and are drawn as they are: {call} draws, and computes nothing. To compute "
        f"them again (about {minutes:.0f} minutes of one core), delete {files} first."
    )


def _provenance(name: str, result: xr.Dataset) -> str:
    """Where the numbers come from, as stored with them."""
    kept, settings = result.attrs, read.configuration(result)
    seeds = settings.get("seeds", [settings.get("seed", settings.get("effort", {}).get("seed"))])
    versions = json.loads(kept["versions"])
    rows = [
        ("seeds", ", ".join(str(seed) for seed in seeds)),
        ("computing time", f"{kept['seconds']:.1f} s, summed over parts that run side by side"),
        ("device", _device(kept)),
        ("dtype", kept["dtype"]),
        ("commit", kept["commit"]),
        ("sources (SHA-256)", kept["sources"]),
        ("versions", ", ".join(f"{package} {version}" for package, version in versions.items())),
    ]
    rows += [(part, json.dumps(value)) for part, value in settings.items() if part not in ("arms", "seeds", "seed")]
    facts = f"seeds {rows[0][1]}; {kept['seconds']:.0f} s; {_device(kept)}, {kept['dtype']}"
    return details(f"Result {name}: {facts}; commit {kept['commit'][:12]}", table((), rows))


def _device(kept: Mapping[str, Any]) -> str:
    """Kind of device, and the processor where it was stored: times are facts about one."""
    processor = kept.get("processor")
    return f"{kept['device']} ({processor}, {kept['cores']} cores)" if processor else kept["device"]


def _arms(tables: Mapping[str, xr.Dataset]) -> str:
    """Every arm: what it is, its objectives, the regimes it ends in."""
    if not tables:
        return "<section id='arms'><h2>The arms</h2>\n<p>No result of them is shown here.</p></section>"
    facts = {name: fact for result in tables.values() for name, fact in read.facts(result).items()}
    rows = []
    for name in sorted(facts, key=read.place):
        terms = ", ".join(f"{coefficient:g} {term}" for term, coefficient in facts[name].terms.items()) or "task only"
        named = [
            f"{read.regime(result, name)}, {read.regime(result, name, 'balance')}"
            if name in result.arm.values
            else "not run"
            for result in tables.values()
        ]
        rows.append((name, facts[name].summary, terms, SOURCES[facts[name].source].identifier, *named))
    heads = {"regimes": "regime, balance on clusters (seeds)", "digits": "the same on digits"}
    heading = ("arm", "what it is", "objectives", "source of the router", *(heads[name] for name in tables))
    note = escape(read.untrained_note())
    return f"<section id='arms'><h2>The arms</h2>\n{table(heading, rows)}\n<p>{note}</p></section>"


def _thresholds() -> str:
    rows = [(name, f"{value:g}") for name, value in dataclasses.asdict(Thresholds()).items()]
    text = escape((regimes.__doc__ or "").replace("*", ""))
    return f"<section id='thresholds'><h2>How runs are named</h2>\n<p>{text}</p>\n{table((), rows)}</section>"


def _measurements() -> str:
    rows = [(name, DESCRIPTIONS[name]) for name in MEASURED]
    return f"<section id='measurements'><h2>What is measured</h2>\n{table((), rows)}</section>"
