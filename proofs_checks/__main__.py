"""`himoe-check`: compare every closed-form gradient with autodiff, in float64."""

import dataclasses
import sys
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from .gradients import audit

BOUND = 1e-12
"""Largest error allowed; float64 rounding leaves about 3e-15, a wrong factor leaves 1e-2 and more."""

EXAMPLES = """examples:
  himoe-check
  himoe-check --concentrations 0.1 1 10 --samples 64 --seed 1"""


@dataclasses.dataclass(frozen=True)
class Check:
    """Compare the closed-form gradient of every objective with autodiff over random routings, in float64."""

    concentrations: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Standard deviations of the logits."""
    samples: int = 16
    """Random cases at each."""
    seed: int = 0
    """Of the cases."""


def main() -> None:
    """Exit code 0 if all agree, 1 if any error exceeds the bound, 2 on bad input."""
    args = tyro.cli(
        Annotated[Check, tyro.conf.arg(name="")], prog="himoe-check", description=f"{Check.__doc__}\n\n{EXAMPLES}"
    )
    try:
        found = audit(args.concentrations, args.samples, args.seed)["max_error"]
    except ValueError as error:
        print(f"himoe-check: {error}", file=sys.stderr)
        sys.exit(2)
    worst = found.max("concentration")
    table = Table(title=f"closed form against autodiff, {args.samples} cases each, bound {BOUND:g}")
    for heading in ("objective", *(f"std {c:g}" for c in args.concentrations), "verdict"):
        table.add_column(heading)
    passed = (worst <= BOUND).values  # NaN fails
    for name, ok in zip(found.objective.values, passed, strict=True):
        errors = [f"{e:.1e}" for e in found.sel(objective=name).values]
        table.add_row(name, *errors, "agrees" if ok else "DIFFERS")
    Console().print(table)
    sys.exit(0 if passed.all() else 1)


if __name__ == "__main__":
    main()
