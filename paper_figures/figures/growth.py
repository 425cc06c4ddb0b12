"""Rates of growth near symmetric states, theory against gradient steps, plain ones and those of Adam (D1, D6)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .. import style

BOUND = 0.03
"""Largest relative difference of a measured rate from the flow's."""
ONSET_BOUND = 0.15
"""The same for the step at which specialisation sets in."""
MODE_LINES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D")
ALT = (
    "Six panels: sizes of a linear router's modes over time and their rates against theory; specialisation of experts "
    "over time for several numbers of experts and its rate against the number of experts; the same under Adam, and the "
    "step at which specialisation sets in against the number of experts for both optimisers."
)


def mode_error(result: xr.Dataset, theory: str) -> float:
    """Largest difference of a measured rate from theory, as a share of the fastest rate of its setting."""
    fastest = np.abs(result["predicted"]).max(("load_kind", "mode"))
    return float((np.abs(result["measured"] - result[theory]) / fastest).max())


def expert_error(result: xr.Dataset, theory: str) -> float:
    """Largest relative difference of a measured rate of specialisation from theory."""
    return float(np.abs(result["measured"] / result[theory] - 1).max())


def onset_error(result: xr.Dataset) -> float:
    """Largest relative difference of a step of onset from theory."""
    return float(np.abs(result["measured"] / result["predicted"] - 1).max())


def draw(modes: xr.Dataset, specialisation: xr.Dataset, onset: xr.Dataset) -> Figure:
    """Modes at uniform routing, specialisation by plain steps, and by Adam; left over time, right the rates."""
    with style.context():
        figure = Figure(figsize=(8.2, 9.0), layout="constrained")
        grid = figure.subplots(3, 2)
        _sizes(grid[0, 0], modes)
        _rates(grid[0, 1], modes)
        _norms(grid[1, 0], specialisation)
        _speeds(grid[1, 1], specialisation)
        _amplitudes(grid[2, 0], onset)
        _onsets(grid[2, 1], onset)
        style.letter(grid.flat)
    return figure


def _shown(modes: xr.Dataset) -> xr.Dataset:
    """The setting of a layer with all modes whose rates are furthest apart: its lines overlap least."""
    full = modes.isel(layer=np.flatnonzero(modes["exists"].all("mode"))).stack(setting=("layer", "draw"))
    rates = full["predicted"].isel(load_kind=0).transpose("setting", "mode").values
    fastest = np.abs(rates).max(axis=1, keepdims=True)
    return full.isel(setting=int(np.diff(np.sort(rates / fastest, axis=1), axis=1).min(axis=1).argmax()))


def _sizes(axes: Axes, modes: xr.Dataset) -> None:
    one = _shown(modes).sel(load_kind="full")
    times = one["time"].values
    for mode, line, marker in zip(one.mode.values, MODE_LINES, MARKERS, strict=True):
        rate = float(one["corrected"].sel(mode=mode))
        axes.semilogy(times, np.exp(rate * times), line, color=style.MIDDLE, lw=1.1)
        axes.semilogy(times, one["size"].sel(mode=mode), marker, color=style.DARK, ms=3.2, mfc="white", label=str(mode))
    axes.set(xlabel="time (step size × steps)", ylabel="size of the mode / its start")
    axes.legend(frameon=False, title=f"full load, one of {one.layer.item()}", title_fontsize=7, loc="lower left")


def _rates(axes: Axes, modes: xr.Dataset) -> None:
    fastest = np.abs(modes["predicted"]).max(("load_kind", "mode"))
    rates = modes[["predicted", "measured"]] / fastest
    for load, colour in (("full", style.DARK), ("frozen", style.ACCENT)):
        for mode, marker in zip(modes.mode.values, MARKERS, strict=True):
            one = rates.sel(load_kind=load, mode=mode)
            label = f"{load} load" if marker == MARKERS[0] else None
            axes.plot(
                one["predicted"].values.ravel(),
                one["measured"].values.ravel(),
                marker,
                color=colour,
                ms=3.6,
                mfc="none",
                mew=0.8,
                label=label,
            )
    axes.axline((0, 0), slope=1, color=style.MIDDLE, lw=0.8)
    axes.set(xlabel="predicted rate / fastest of the setting", ylabel="measured, likewise")
    told = _told(mode_error(modes, "predicted"), mode_error(modes, "corrected"))
    style.note(axes, 0.98, 0.04, told, ha="right")
    axes.legend(frameon=False, loc="upper left")


def _norms(axes: Axes, specialisation: xr.Dataset) -> None:
    for experts, marker in zip(specialisation.experts.values, MARKERS, strict=False):
        one = specialisation.sel(experts=experts)
        times, norm = one["time"].values, one["norm"].sel(part="router").values
        at = int(np.searchsorted(norm, 1e-4))  # the line goes through this record: theory says nothing of the start
        axes.semilogy(times[::4], norm[::4], marker, color=style.DARK, ms=2.8, mfc="white", label=f"{experts} experts")
        line = norm[at] * np.exp(float(one["corrected"]) * (times - times[at]))
        inside = (line > norm[0] / 3) & (line < 3)
        axes.semilogy(times[inside], line[inside], "-", color=style.MIDDLE, lw=1.0)
    axes.set(xlabel="time (step size × steps)", ylabel="norm of the router rows along\nthe fastest eigenvector of A")
    axes.legend(frameon=False, loc="lower right")


def _speeds(axes: Axes, specialisation: xr.Dataset) -> None:
    experts = specialisation.experts.values
    axes.loglog(experts, specialisation["predicted"], "-", color=style.MIDDLE, lw=1.0, label="|λ(A)| / N")
    axes.loglog(experts, specialisation["measured"], "o", color=style.DARK, ms=4, mfc="white", label="measured")
    axes.set_xticks(experts, [str(n) for n in experts])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="experts N", ylabel="rate of specialisation")
    told = _told(expert_error(specialisation, "predicted"), expert_error(specialisation, "corrected"))
    style.note(axes, 0.04, 0.05, told)
    axes.legend(frameon=False, loc="upper right")


def _amplitudes(axes: Axes, onset: xr.Dataset) -> None:
    steps = onset.step.values[1:]
    axes.loglog(steps, onset["curve"][1:], "-", color=style.MIDDLE, lw=1.1, label="theory, for any N")
    shown = np.unique(np.geomspace(1, len(steps), 14).astype(int))
    for experts, marker in zip(onset.experts.values, MARKERS, strict=False):
        one = onset["amplitude"].sel(experts=experts)
        axes.loglog(shown, one[shown], marker, color=style.DARK, ms=3.2, mfc="none", label=f"{experts} experts")
    axes.set(xlabel="steps of Adam", ylabel="router entries (root mean square)\n/ learning rate")
    axes.legend(frameon=False, loc="upper left")


def _onsets(axes: Axes, onset: xr.Dataset) -> None:
    experts = onset.experts.values
    for name, marker, colour in (("plain", "o", style.DARK), ("Adam", "s", style.ACCENT)):
        one = onset.sel(optimiser=name)
        axes.loglog(experts, one["predicted"], "-", color=style.MIDDLE, lw=1.0)
        axes.loglog(experts, one["measured"], marker, color=colour, ms=4, mfc="white", label=f"{name} steps")
    axes.set_xticks(experts, [str(n) for n in experts])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="experts N", ylabel="step at which specialisation sets in")
    style.note(axes, 0.04, 0.9, f"lines: theory; largest error {onset_error(onset):.0%}")
    axes.legend(frameon=False, loc="center right")


def _told(flow: float, corrected: float) -> str:
    return f"largest error {flow:.1%};\nwith ln(1 + ηρ)/η for the rate ρ: {corrected:.1g}"


def caption(modes: xr.Dataset, specialisation: xr.Dataset, onset: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the largest errors, and whether they are within the stated bound."""
    drawn = (
        "Lines: theory; marks: plain gradient steps. (a), (b): a linear router near uniform routing under R_intra, "
        f"R_inter and a soft load, {modes.sizes['draw']} settings with random coefficients of each of "
        f"{', '.join(map(str, modes.layer.values))} (experts, experts of a group); modes are common to all "
        "tokens or a contrast between them, within groups or between groups (D1). (c), (d): linear experts leaving "
        "the symmetric state, where A is the residual-weighted second moment of the tokens (D6). (e), (f): the same "
        "under Adam, whose steps know a gradient's past and not its size, and when specialisation sets in (root mean "
        "square of the router's entries), plain steps and Adam's, at one learning rate each for all N."
    )
    errors = {"modes": mode_error(modes, "predicted"), "specialisation": expert_error(specialisation, "predicted")}
    inside = all(error <= BOUND for error in errors.values())
    seen = (
        f"Rates differ from those of the flow by at most {errors['modes']:.1%} (modes) with "
        f"{_by_layer(modes)} and {errors['specialisation']:.1%} (specialisation), "
        f"{'within' if inside else 'not within'} {BOUND:.0%}; once "
        f"the finite step is allowed for, by {mode_error(modes, 'corrected'):.1g} and "
        f"{expert_error(specialisation, 'corrected'):.1g}. With plain steps specialisation is slower in proportion to "
        f"the number of experts; from {onset.experts.values[0]} to {onset.experts.values[-1]} experts its onset moves "
        f"by a factor of {_delay(onset, 'plain'):.1f}, under Adam by {_delay(onset, 'Adam'):.2f}. Onsets differ "
        f"from theory by at most {onset_error(onset):.0%}, "
        f"{'within' if onset_error(onset) <= ONSET_BOUND else 'not within'} {ONSET_BOUND:.0%}."
    )
    return drawn, seen


def _by_layer(modes: xr.Dataset) -> str:
    """The largest error of each layer."""
    return ", ".join(f"{mode_error(modes.sel(layer=name), 'predicted'):.1%} at {name}" for name in modes.layer.values)


def _delay(onset: xr.Dataset, name: str) -> float:
    """The last number of experts' step of onset over the first's."""
    steps = onset["measured"].sel(optimiser=name).values
    return float(steps[-1] / steps[0])
