"""Folders that hide ours: `python -m paper_figures` looks for all packages first where it is started."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def hidden_by(name: str) -> Path | None:
    """The folder that Python takes for our package of this name; `None` if it is ours."""
    spec = importlib.util.find_spec(name)
    found = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec is not None else []
    return None if not found or ROOT / name in found else found[0]


def check(*names: str) -> None:
    """One line if a folder hides one of these packages: the end of a command, an `ImportError` for who imports them."""
    for name in names:
        folder = hidden_by(name)
        if folder is not None:
            line = f"`{folder}` hides the package {name}: start from another folder, or rename that one."
            raise SystemExit(line) if sys.argv[0] == "-m" else ImportError(line)
