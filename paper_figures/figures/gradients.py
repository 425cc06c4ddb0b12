"""Figure 4: closed-form gradients against autodiff, objective by objective, over the concentration of routing."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from proofs_checks.gradients import BOUND

from .. import read, style

ALT = "Heat map: objectives (rows) by standard deviation of the logits (columns); cells state errors as powers of ten."


def exponents(result: xr.Dataset) -> Float[np.ndarray, "objectives concentrations"]:
    """Decimal logarithm of the errors. An error of exactly 0 is shown as half an eps, an undefined one as NaN."""
    errors = result["max_error"].transpose("objective", "concentration").values
    return np.log10(np.where(errors == 0, eps(result) / 2, errors))


def eps(result: xr.Dataset) -> float:
    """Spacing of the numbers next to 1, in the dtype of the comparison."""
    return float(np.finfo(result.attrs["dtype"]).eps)


def draw(result: xr.Dataset) -> Figure:
    """The heat map, with every cell's exponent written in it."""
    values = exponents(result)
    names = [str(name) for name in result.objective.values]
    columns = [f"{c:g}" for c in result.concentration.values]
    low = np.log10(eps(result)) - 0.5
    norm = Normalize(low, max(low + 4, float(np.nanmax(values, initial=low))))
    with style.context():
        figure = Figure(figsize=(3.4 + 0.55 * len(columns), 1.3 + 0.22 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(values, cmap=style.COLOURS, norm=norm, aspect="auto", interpolation="none")
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if norm(value) > 0.5 else "white"
            text = "NaN" if np.isnan(value) else f"{value:.1f}".replace("-", "−")
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color="red" if text == "NaN" else colour)
        axes.set_yticks(range(len(names)), names, family="DejaVu Sans Mono", fontsize=6.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_xlabel("standard deviation of the logits (nats);\nfor orthogonality_*: of the experts' outputs")
        below = "min" if (values < low).any() else "neither"
        bar = figure.colorbar(image, ax=axes, aspect=35, pad=0.02, extend=below)
        bar.set_label("log₁₀ of the largest error, closed form against autodiff")
        place = np.log10(eps(result))
        bar.ax.axhline(place, color="white", lw=1.2)
        across = bar.ax.get_yaxis_transform()
        bar.ax.text(1.3, place, "eps", transform=across, ha="left", va="center", fontsize=6)
    return figure


def caption(result: xr.Dataset) -> tuple[str, str]:
    """What is drawn; the largest error and where; objectives that do not agree."""
    errors = result["max_error"].transpose("objective", "concentration")
    bad = errors.where(errors <= BOUND).isnull().any("concentration")
    names = [str(name) for name in errors.objective.values[bad.values]]
    samples = read.configuration(result)["samples"]
    drawn = (
        f"Largest error of every closed-form gradient over {samples} random batches at each concentration, "
        f"in {result.attrs['dtype']} (eps {eps(result):.2g}). The error is |closed form − autodiff| "
        "per token, divided by the largest entry of the gradient where that exceeds 1: at one-hot routing the "
        "gradients themselves vanish."
    )
    seen = (
        f"{_worst(result, errors)}{errors.sizes['objective'] - len(names)} of {errors.sizes['objective']} objectives "
        f"stay within {BOUND:.0e}; above it or undefined: {read.listed(names)}."
    )
    return drawn, seen


def _worst(result: xr.Dataset, errors: xr.DataArray) -> str:
    if not np.isfinite(errors.values).any():
        return ""
    row, column = np.unravel_index(np.nanargmax(errors.values), errors.shape)
    objective, concentration = str(errors.objective.values[row]), float(errors.concentration[column])
    value = float(errors[row, column])
    return f"The largest of all is {value:.1e}, {value / eps(result):.0f} eps: {objective} at {concentration:g}. "
