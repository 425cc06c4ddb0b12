"""The figures by number: which stored results each needs, how it is drawn, what it says."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

from matplotlib.figure import Figure

from .figures import activation, balance, digits, gradients, regimes, tightness


@dataclasses.dataclass(frozen=True)
class Entry:
    """One figure. `draw` and `caption` take the results named in `needs`, in that order."""

    number: int
    name: str
    title: str
    needs: tuple[str, ...]
    draw: Callable[..., Figure]
    caption: Callable[..., tuple[str, str]]
    alt: str

    @property
    def stem(self) -> str:
        """File name without suffix."""
        return f"figure-{self.number}-{self.name}"

    def needs_only(self, available: Collection[str]) -> bool:
        """Whether all that it needs is among the results of these names."""
        return all(name in available for name in self.needs)


_BALANCE = ("balance-mean-4", "balance-mean-0")

FIGURES = (
    Entry(
        1,
        "regimes",
        "Regimes: which expert takes which cluster",
        ("regimes",),
        regimes.draw,
        regimes.caption,
        regimes.ALT,
    ),
    Entry(2, "balance", "Quality against balance", _BALANCE, balance.draw, balance.caption, balance.ALT),
    Entry(
        3,
        "activation",
        "Use of the experts over training",
        ("regimes",),
        activation.draw,
        activation.caption,
        activation.ALT,
    ),
    Entry(
        4,
        "gradients",
        "Closed-form gradients against autodiff",
        ("gradients",),
        gradients.draw,
        gradients.caption,
        gradients.ALT,
    ),
    Entry(5, "digits", "The same arms on digits", ("digits",), digits.draw, digits.caption, digits.ALT),
    Entry(
        6,
        "tightness",
        "The claims ledger: left against right side of its inequalities",
        ("ledger",),
        tightness.draw,
        tightness.caption,
        tightness.ALT,
    ),
)


def select(chosen: Sequence[str]) -> tuple[Entry, ...]:
    """Figures by number or name; all if none is chosen. **Raises:** `ValueError` for an unknown one, naming all."""
    known = {str(entry.number): entry for entry in FIGURES} | {entry.name: entry for entry in FIGURES}
    for one in chosen:
        if one not in known:
            names = ", ".join(f"{entry.number} ({entry.name})" for entry in FIGURES)
            raise ValueError(f"`only` must be among {names}; got {one!r}.")
    wanted = {known[one].number for one in chosen} or {entry.number for entry in FIGURES}
    return tuple(entry for entry in FIGURES if entry.number in wanted)
