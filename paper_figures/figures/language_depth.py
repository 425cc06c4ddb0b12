"""Figure 19: what mixtures of different depth do in one language model, and what routers cost (after Table 9)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations import Interval, interval

from .. import read, style

ALT = (
    "Five panels over the number of the layer, a line for every arm: CV of the loads, effective groups, domain–expert "
    "information, similarity of expert outputs, ratio of the two rates of the gate's inputs; intervals over seeds."
)
PANELS = {
    "cv": "CV of the expert loads",
    "effective_groups": "effective groups",
    "information": "domain–expert\ninformation",
    "output_similarity": "cosine of\nexpert outputs",
    "rates": "κ₀ / κ_c of the gate's inputs",
}
LINES = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))


def by_layer(result: xr.Dataset, arm: str, name: str) -> list[Interval]:
    """A measurement at the end for every layer, over seeds; `rates`: common over contrast power (D1)."""
    last = result.sel(arm=arm).isel(record=-1)
    values = last["common_power"] / last["contrast_power"] if name == "rates" else last[name]
    return [interval(values.sel(layer=layer).values) for layer in result.layer.values]


def draw(result: xr.Dataset, times: xr.Dataset) -> Figure:
    """Panels over depth."""
    with style.context():
        figure = Figure(figsize=(10.4, 2.7), layout="constrained")
        panels = figure.subplots(1, len(PANELS))
        for axes, (name, label) in zip(panels, PANELS.items(), strict=True):
            _panel(axes, result, name)
            axes.set(xlabel="layer", ylabel=label)
        panels[1].legend(frameon=False, loc="lower left", fontsize=6.5)
        style.letter(panels)
    return figure


def _panel(axes: Axes, result: xr.Dataset, name: str) -> None:
    layers = result.layer.values
    arms = read.arms_in_order(result)
    for number, (arm, (marker, line)) in enumerate(zip(arms, LINES, strict=False)):
        found = by_layer(result, arm, name)
        aside = 0.18 * (number - (len(arms) - 1) / 2)  # intervals side by side
        axes.errorbar(
            layers + aside, [one.mean for one in found], yerr=np.nan_to_num([one.half_width for one in found]),
            marker=marker, ls=line, ms=3.8, mfc="white", color=style.ACCENT if number == 1 else style.DARK,
            elinewidth=0.8, capsize=2, lw=0.9, label=arm,
        )  # fmt: skip
    axes.set_xticks(layers)
    if name not in ("rates", "output_similarity"):
        axes.set_ylim(bottom=0)


def caption(result: xr.Dataset, times: xr.Dataset) -> tuple[str, str]:
    """How the models were trained; first layer against last; what routers cost."""
    recipe, shape = (read.configuration(result)[part] for part in ("recipe", "shape"))
    drawn = (
        f"Language models of {shape['layers']} layers, width {shape['dim']}, a mixture every {shape['stride']} "
        f"blocks, {recipe['steps']} steps of {recipe['batch']} × {shape['context']} bytes. Means with 95 % Student "
        f"intervals over {result.sizes['seed']} seeds at the end, by layer. κ₀ and κ_c: squared mean of the gate's "
        "inputs and largest eigenvalue of their covariance, at which common modes and contrasts grow (D1). The table: "
        "time of the routers (gate, selection, weights, state, objectives) against the whole forward pass with the "
        "loss, on "
        f"{times.attrs.get('processor', times.attrs['device'])}{_flags(times)}."
    )
    first, last = result.layer.values[[0, -1]]
    told = []
    for arm in read.arms_in_order(result):
        ends = [by_layer(result, arm, name) for name in ("cv", "information")]
        told.append(f"{arm}: CV {ends[0][0]} to {ends[0][-1]}, information {ends[1][0]} to {ends[1][-1]}")
    shares = {arm: f"{share(times, arm):.1%}" for arm in times.arm.values}
    routers = ", ".join(f"{arm} {value}" for arm, value in shares.items())
    seen = f"From layer {first} to layer {last}, {'; '.join(told)}. Routers' share of a forward pass: {routers}."
    return drawn, seen


def _flags(times: xr.Dataset) -> str:
    flags = times.attrs["flags"]
    return f", compiled with {flags}" if flags else ""


def share(times: xr.Dataset, arm: str, clock: str = "core seconds") -> float:
    """Median over rounds of the routers' time over that of the forward pass in the same round."""
    one = times["time"].sel(arm=arm, clock=clock)
    return float((one.sel(part="routers") / one.sel(part="forward")).median())


def table(result: xr.Dataset, times: xr.Dataset) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row an arm: medians over rounds."""
    heading = (
        "arm",
        "router, ms a layer",
        "forward pass, ms",
        "share",
        "router, core ms a layer",
        "forward pass, core ms",
        "share of core time",
    )
    return heading, [_row(times, arm) for arm in times.arm.values]


def _row(times: xr.Dataset, arm: str) -> tuple[str, ...]:
    cells = [arm]
    for clock in times.clock.values:
        one = 1000 * times["time"].sel(arm=arm, clock=clock).median("round")
        router = float(one.sel(part="routers")) / int(times["layers"].sel(arm=arm))
        cells += [f"{router:.2f}", f"{float(one.sel(part='forward')):.0f}", f"{share(times, arm, clock):.1%}"]
    return tuple(cells)
