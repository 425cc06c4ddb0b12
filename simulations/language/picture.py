"""The picture of a language model's training: losses, balance, and which experts the domains go to."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..picture import COLOURS, cells, halves, highest, store_picture, title

BY_LAYER = {"cv": "CV over experts", "information": "domain-expert information"}
"""What is drawn a line a layer, with its label."""
MOST_LAYERS = 6


def plot_model(result: xr.Dataset, path: Path) -> Any:
    """Draws a stored language model, and stores the picture at `path`; an earlier picture there is replaced.

    Above, losses, and balance and information of every mixture layer. Below, a column a layer: the share of validation
    tokens that select each expert, along training; and the share of each domain's tokens that do, at the last record.
    **Returns:** the figure. **Raises:** `ValueError` if something else is there, or the folder cannot be written.
    """
    of_routers = (*BY_LAYER, "hard_load", "assignment", "domain_tokens")
    layers = list(range(result.sizes.get("layer", 0))) if all(name in result for name in of_routers) else []
    shown = layers[:MOST_LAYERS]
    figure, above, below = halves(len(shown))
    first, *others = above.subplots(1, 1 + len(BY_LAYER) * bool(layers), squeeze=False)[0]
    _losses(first, result)
    for axes, (name, label) in zip(others, BY_LAYER.items(), strict=bool(layers)):
        for layer in layers:
            style = {
                "color": _colour(layer, len(layers)),
                "linewidth": 1.4,
                "label": f"layer {int(result.layer[layer])}",
            }
            axes.plot(result.record.values, result[name].values[:, layer], **style)
        axes.set_xlabel("step")
        axes.set_title(label, fontsize="small")
        axes.legend(fontsize="x-small")
    stopped = f"; stopped: {result.attrs['stopped']}" if "stopped" in result.attrs else ""
    some = f"; maps of the first {len(shown)} of {len(layers)} layers" if len(shown) < len(layers) else ""
    title(figure, f"{result.attrs['arm']}: validation and training of a language model{some}{stopped}")
    if shown:
        _maps(below, result, shown)
    store_picture(figure, path)
    return figure


def _losses(axes: Any, result: xr.Dataset) -> None:
    if "train_loss" in result:
        axes.plot(result.step.values, result["train_loss"].values, color="0.75", linewidth=0.8, label="training")
    axes.plot(
        result.record.values, result["validation_loss"].values, "o-", color="black", markersize=3, label="validation"
    )
    axes.set_xlabel("step")
    axes.set_title(f"loss (nats/{result.attrs['unit']})", fontsize="small")
    axes.legend(fontsize="x-small")


def _maps(figure: Any, result: xr.Dataset, layers: list[int]) -> None:
    loads, maps = figure.subplots(2, len(layers), squeeze=False)
    taken = np.flatnonzero(np.isfinite(result["validation_loss"].values))
    counts = result["assignment"].isel(record=int(taken[-1] if taken.size else 0)).values.astype(float)
    tokens = result["domain_tokens"].isel(record=int(taken[-1] if taken.size else 0)).values[:, None]
    share = np.divide(counts, tokens, out=np.full(counts.shape, np.nan), where=tokens > 0)
    load = result["hard_load"].values
    for place, layer in enumerate(layers):
        drawn = cells(loads[place], load[:, layer].T, highest(load), result.record.values)
        loads[place].set_title(f"layer {int(result.layer[layer])}", fontsize="small")
        loads[place].set_xlabel("step")
        assigned = cells(maps[place], share[layer], highest(share))
        maps[place].set_xlabel("expert")
    names = [str(name) for name in result.domain.values]
    for axes in maps:
        axes.set_yticks(range(len(names)), names if axes is maps[0] else [""] * len(names), fontsize="x-small")
    loads[0].set_ylabel("expert")
    figure.colorbar(drawn, ax=list(loads), label="share of tokens", shrink=0.9)
    figure.colorbar(assigned, ax=list(maps), label="share of domain", shrink=0.9)


def _colour(place: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps[COLOURS](0.9 * place / max(count - 1, 1))
