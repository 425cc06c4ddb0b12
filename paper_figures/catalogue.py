"""The figures by number: which stored results each needs, how it is drawn, what it says."""

import dataclasses
from collections.abc import Callable, Collection, Sequence

from matplotlib.figure import Figure

from .figures import (
    activation,
    balance,
    batches,
    boundary,
    chen,
    compatibility,
    digits,
    gradients,
    growth,
    kawata,
    language,
    language_ablation,
    language_activation,
    language_depth,
    language_guo,
    language_load,
    language_loads,
    language_scope,
    regimes,
    reinforcement,
    tightness,
)


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
    table: Callable[..., tuple[Sequence[str], Sequence[Sequence[str]]]] | None = None
    """Heading and rows of a table below the figure, from the same results."""

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
    Entry(
        7,
        "chen",
        "Linear and cubic experts: the experiment of Chen et al.",
        ("chen",),
        chen.draw,
        chen.caption,
        chen.ALT,
        chen.table,
    ),
    Entry(
        8,
        "kawata",
        "A direction that cancels over clusters: the experiment of Kawata et al.",
        ("kawata",),
        kawata.draw,
        kawata.caption,
        kawata.ALT,
    ),
    Entry(
        9,
        "growth",
        "Theory over simulation: growth near symmetric states",
        ("modes", "specialisation", "onset"),
        growth.draw,
        growth.caption,
        growth.ALT,
    ),
    Entry(
        10,
        "reinforcement",
        "Theory over simulation: reinforcement and its controllers",
        ("hysteresis-8", "hysteresis-64", "staircase", "oscillation"),
        reinforcement.draw,
        reinforcement.caption,
        reinforcement.ALT,
    ),
    Entry(
        11,
        "batches",
        "Theory over simulation: finite batches, hard counts, groups",
        ("batch-load", "window", "violation-8", "violation-32", "effective-groups", "sliding"),
        batches.draw,
        batches.caption,
        batches.ALT,
    ),
    Entry(
        12,
        "compatibility",
        "Which objectives agree: angles between their gradients",
        ("cosines", "along-training"),
        compatibility.draw,
        compatibility.caption,
        compatibility.ALT,
    ),
    Entry(
        13,
        "boundary",
        "Theory over simulation: where routing collapses",
        ("common-mode", "hard-counts", "group-ratio", "trained", "phases"),
        boundary.draw,
        boundary.caption,
        boundary.ALT,
    ),
    Entry(
        14,
        "language",
        "Language models: the arms of Tables 2 and 3",
        ("language",),
        language.draw,
        language.caption,
        language.ALT,
        language.table,
    ),
    Entry(
        15,
        "language-loads",
        "Language models: use of experts and groups, by layer",
        ("language",),
        language_loads.draw,
        language_loads.caption,
        language_loads.ALT,
        language_loads.table,
    ),
    Entry(
        16,
        "language-guo",
        "Language models: Guo's ablation with every form of its objectives",
        ("language-guo",),
        language_guo.draw,
        language_guo.caption,
        language_guo.ALT,
    ),
    Entry(
        17,
        "language-load",
        "Language models: the load coefficient, and where theory puts the boundary",
        ("language-boundary", "language-load"),
        language_load.draw,
        language_load.caption,
        language_load.ALT,
        language_load.table,
    ),
    Entry(
        18,
        "language-quick",
        "Language models: a quick profile, computed with these figures",
        ("language-quick",),
        language.draw,
        language.caption,
        language.ALT,
        language.table,
    ),
    Entry(
        19,
        "language-depth",
        "Language models: quantities over depth, and what routers cost",
        ("language-depth", "language-time"),
        language_depth.draw,
        language_depth.caption,
        language_depth.ALT,
        language_depth.table,
    ),
    Entry(
        20,
        "language-ablation",
        "Language models: Hi-MoE's Table 3 as printed and here, and why they differ",
        ("language",),
        language_ablation.draw,
        language_ablation.caption,
        language_ablation.ALT,
        language_ablation.table,
    ),
    Entry(
        21,
        "language-scope",
        "Language models: the load counted in micro-batches or in the whole batch",
        ("language-scope-micro", "language-scope-global"),
        language_scope.draw,
        language_scope.caption,
        language_scope.ALT,
    ),
    Entry(
        22,
        "language-activation",
        "Language models: activation of every expert, and groups by selections and probability",
        ("language",),
        language_activation.draw,
        language_activation.caption,
        language_activation.ALT,
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
