"""`himoe-simulate fields`: every field with its type, default and meaning."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from himoe_theory.objectives.record import OBJECTIVE
from himoe_theory.plumbing import files
from himoe_theory.plumbing.bring import offered

from .known import LANGUAGE, OF_ARM, OF_SIZE, Field, every
from .types import words


@dataclasses.dataclass(frozen=True)
class Fields:
    """List the fields that --set, sweeps and designs know, with type, default and meaning.

    examples:
      himoe-simulate fields
      himoe-simulate fields data training.steps
      himoe-simulate fields router.policy
      himoe-simulate fields --json fields.json
    """

    prefix: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only fields whose names begin like this; all if not given."""
    json: Path | None = None
    """File for the list, as objects; nothing is printed then but its name."""
    force: bool = False
    """Replace a file that is there."""


def run_fields(args: Fields, console: Console) -> None:
    """Prints the fields by their first part, or writes them."""
    chosen = matching(args.prefix)
    if args.json is not None:
        listing = json.dumps([entry(field) for field in chosen], indent=1)
        files.write(args.json, f"{listing}\n", replace=args.force)
        console.print(f"{args.json}: {len(chosen)} fields", soft_wrap=True)
        return
    for (head, scope), members in itertools.groupby(chosen, lambda f: (f.name.split(".")[0], f.scope)):
        console.print(Text(f"\n{head}" + (f" ({scope})" if scope == LANGUAGE else ""), style="bold underline"))
        for field in members:
            console.print(Text.assemble((field.name, "bold"), f": {facts(field)}"), soft_wrap=True)
            console.print(Padding(field.meaning, (0, 0, 0, 4)), highlight=False)


def matching(prefixes: tuple[str, ...]) -> list[Field]:
    """Fields whose names begin with one of these. **Raises:** `ValueError` for a prefix that none begins with."""
    fields = _with_packages(every())
    for prefix in prefixes:
        if not any(field.name.startswith(prefix) for field in fields):
            heads = dict.fromkeys(field.name.split(".")[0] for field in fields)
            raise ValueError(f"`prefix` must begin a field; got {prefix!r}, fields begin with {', '.join(heads)}.")
    return [field for field in fields if field.name.startswith(prefixes or "")]


def _with_packages(fields: Sequence[Field]) -> list[Field]:
    """With the coefficients of what installed packages offer, behind ours; nothing is loaded."""
    last = max(place for place, field in enumerate(fields) if field.name.startswith("terms."))
    theirs = [
        Field(f"terms.{name}", float, OF_ARM, f"Coefficient of {name}, of the package {package}")
        for name, package in offered(OBJECTIVE).items()
    ]
    return [*fields[: last + 1], *theirs, *fields[last + 1 :]]


def facts(field: Field) -> str:
    """Type and default, and of which kinds it is a field."""
    said = field.default if field.default in (OF_ARM, OF_SIZE) else f"default {_shown(field.default)}"
    default = "no default" if field.default is None else said
    return f"{words(field.hint)}; {default}" + (f"; of {', '.join(field.kinds)}" if field.kinds else "")


def entry(field: Field) -> dict[str, Any]:
    """One field as JSON values."""
    return {
        "name": field.name,
        "type": words(field.hint),
        "default": field.default,
        "meaning": field.meaning,
        "kinds": list(field.kinds),
        "of": field.scope or "layer and language model",
    }


def _shown(default: Any) -> str:
    """As it would be written in a design."""
    if isinstance(default, bool):
        return str(default).lower()
    return str(list(default)) if isinstance(default, tuple) else str(default)
