"""A sweep seen along one or two of its axes: the numbers of a table and of a picture."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from ..regimes import NAMES, Name, Regime
from ..run import interval

_NO_AXES = {"record", "expert", "step", "setting"}
REGIME = "regime"


@dataclasses.dataclass(frozen=True)
class View:
    """A measurement at the end of training over the values of one field, or of two.

    Of a grid, `values` are the levels of each field, and the arrays are `[x]` or `[x, y]`. Of a list (`scattered`) they
    are each field's value at every point, as the arrays are: a point is a setting. `mean` and `half_width` (of the 95 %
    interval over seeds; NaN for fewer than two) leave out diverged runs. Of names, regime or balance, `mean` is the
    code of the most frequent one (the later on a tie, NaN where no run is stored) and `agreeing` the number of runs
    that show it. `diverged` and `runs` are counts; runs that are not stored are left out of all.
    """

    fields: tuple[str, ...]
    values: tuple[list[object], ...]
    scattered: bool
    measurement: str
    mean: np.ndarray
    half_width: np.ndarray
    agreeing: np.ndarray
    diverged: np.ndarray
    runs: np.ndarray
    title: str

    @property
    def kind(self) -> type[Name] | None:
        """The names that are shown; `None` of a measurement."""
        return NAMES.get(self.measurement)

    @property
    def names(self) -> list[Name]:
        """Those that occur."""
        codes = {int(code) for code in self.mean.ravel() if not math.isnan(code)}
        return [one for one in self.kind or () if one in codes]

    @property
    def matrix(self) -> bool:
        """Whether two fields are crossed."""
        return len(self.fields) == 2 and not self.scattered


def view(
    result: xr.Dataset,
    x: str | None = None,
    y: str | None = None,
    measurement: str = "test_error",
    at: Mapping[str, object] | None = None,
) -> View:
    """The mean over the other axes of a grid and over seeds; seeds are what the interval is over.

    **Arguments:** `x`, `y`: fields of the design, or `seed`. If neither is given: the first with several values, and
    the second of a grid. `measurement`: one without experts, `regime` or `balance`. `at`: values of fields,
    to which the sweep is cut before. **Raises:** `ValueError` for a field, a value or a measurement that the sweep does
    not have.
    """
    at = at or {}
    for field, value in at.items():
        result = _cut(result, field, value)
    fields = _fields(result, x, y, set(at))
    for field in fields:
        if result[field].dims == (field,) and is_number(result[field].values.tolist()[0]):
            result = result.sortby(field)
    scattered = "setting" in result.dims
    axes = tuple(dict.fromkeys(("setting",) * scattered + tuple(str(result[field].dims[0]) for field in fields)))
    over = [str(d) for d in result[REGIME].dims if d not in (*axes, "seed")]
    codes = _cube(result[REGIME], result[REGIME], axes, over)
    values = _cube(_at_end(result, measurement), result[REGIME], axes, over)
    found = [_summary(c, v, measurement) for c, v in zip(codes, values, strict=True)]
    if scattered:
        flat = result[REGIME].isel({d: 0 for d in ("seed", *over) if d not in axes})
        columns = [result[field].broadcast_like(flat).transpose(*axes).values.ravel().tolist() for field in fields]
        order = sorted(range(len(found)), key=lambda place: [column[place] for column in columns])
        found = [found[place] for place in order]
        levels = tuple([column[place] for place in order] for column in columns)
        shape: tuple[int, ...] = (len(found),)
    else:
        levels = tuple(result[field].values.tolist() for field in fields)
        shape = tuple(map(len, levels))
    arrays = [np.asarray(column).reshape(shape) for column in zip(*found, strict=True)]
    return View(fields, levels, scattered, measurement, *arrays, _title(result, measurement, axes, over, fields, at))


def _cube(values: xr.DataArray, like: xr.DataArray, axes: Sequence[str], over: Sequence[str]) -> np.ndarray:
    """`[points, seeds, rest]`; one seed if seeds are an axis."""
    seeds = [] if "seed" in axes else ["seed"]
    whole = values.broadcast_like(like).transpose(*axes, *seeds, *over)
    points = math.prod(like.sizes[d] for d in axes)
    return whole.values.reshape(points, like.sizes["seed"] if seeds else 1, -1)


def _summary(codes: np.ndarray, values: np.ndarray, measurement: str) -> tuple[float, float, int, int, int]:
    """Of one point's runs `[seeds, rest]`: mean, half-width, how many agree, diverged, stored."""
    stored = codes >= 0
    runs, diverged = int(stored.sum()), int((codes == Regime.DIVERGED).sum())
    if measurement in NAMES:
        counts = np.bincount(values[stored].astype(int), minlength=len(NAMES[measurement]))
        best = len(counts) - 1 - int(counts[::-1].argmax())
        return (float(best) if runs else math.nan), math.nan, int(counts.max()), diverged, runs
    good = stored & (codes != Regime.DIVERGED)
    seeds = [value[kept].mean() for value, kept in zip(values, good, strict=True) if kept.any()]
    if not seeds:
        return math.nan, math.nan, 0, diverged, runs
    mean = interval(np.asarray(seeds))
    return mean.mean, mean.half_width, 0, diverged, runs


def _at_end(result: xr.Dataset, measurement: str) -> xr.DataArray:
    """A measurement at each run's last record."""
    known = sorted(str(name) for name, values in result.data_vars.items() if "expert" not in values.dims)
    if measurement not in known:
        raise ValueError(f"`value` must be one of {', '.join(known)}; got {measurement!r}.")
    values = result[measurement]
    return values.isel(record=result["step"].notnull().sum("record") - 1) if "record" in values.dims else values


def _axes_of(result: xr.Dataset) -> list[str]:
    return [*(str(name) for name in result.coords if name not in {*_NO_AXES, "seed"}), "seed"]


def _cut(result: xr.Dataset, field: str, value: object) -> xr.Dataset:
    """The runs whose field has a value, given as it is or as it is printed."""
    if field not in _axes_of(result):
        raise ValueError(f"`at` must name an axis of the sweep, one of {', '.join(_axes_of(result))}; got {field!r}.")
    levels = list(dict.fromkeys(result[field].values.tolist()))
    exact = [level for level in levels if level == value or str(level) == str(value) or level == _as_number(value)]
    wanted = exact or [level for level, text in zip(levels, labels(levels), strict=True) if text == value]
    if not wanted:
        some = ", ".join(labels(levels)[:12]) + (", ..." if len(levels) > 12 else "")
        raise ValueError(f"`at` {field} must be one of its {len(levels)} values {some}; got {value!r}.")
    return result.isel({str(result[field].dims[0]): np.flatnonzero(result[field].values == wanted[0])})


def _as_number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _fields(result: xr.Dataset, x: str | None, y: str | None, cut: set[str]) -> tuple[str, ...]:
    known = _axes_of(result)
    for name, given in (("x", x), ("y", y)):
        if given is not None and given not in known:
            raise ValueError(f"`{name}` must be an axis of the sweep, one of {', '.join(known)}; got {given!r}.")
        if given in cut:
            raise ValueError(f"`{name}` must be a field that `at` does not fix; got {given!r} in both.")
    if x is not None and x == y:
        raise ValueError(f"`x` and `y` must be different fields; got {x!r} twice.")
    several = [name for name in known[:-1] if len(np.unique(result[name].values)) > 1 and name not in (x, y)]
    left = [*several, *(name for name in (*known[:-1], "seed") if name not in cut and name != y), "seed"]
    if x is None and y is None and "setting" not in result.dims and len(several) > 1:
        y = several[1]
    first = x or left[0]
    return (first,) if y is None else (first, y)


def _title(
    result: xr.Dataset,
    measurement: str,
    axes: Sequence[str],
    over: Sequence[str],
    fields: Sequence[str],
    at: Mapping[str, object],
) -> str:
    """What is shown, over what it is a mean, and where the sweep was cut."""
    count = result.sizes["seed"]
    seeds = [] if "seed" in axes else [f"over {count} seed{'s' * (count > 1)}"]
    whole = " and ".join([*seeds, *(f"over {name} ({result.sizes[name]} values)" for name in over if name not in at)])
    kind = "the most frequent" if measurement in NAMES else "mean"
    title = f"{measurement} at the end" + (f", {kind} {whole}" if whole else "")
    hidden = [n for n in _axes_of(result)[:-1] if n not in (*fields, *at)] if "setting" in axes else []
    if hidden:
        title += f"; each point is a setting; settings also differ in {', '.join(hidden)}"
    return title + "".join(f"; {field} = {label(result[field].values.tolist()[0])}" for field in at)


# How values are written.


def is_number(level: object) -> bool:
    """Whether it has a place on a numbered axis."""
    return isinstance(level, (int, float)) and not isinstance(level, bool)


def number(value: float, digits: int = 4) -> str:
    """In few letters: `5.1e-4` for 0.00051, and thousands in full."""
    if 10**digits <= abs(value) < 1e5:
        return f"{value:.0f}"
    plain = f"{value:.{digits}g}"
    if 1e-3 <= abs(value) < 1e5 or not value or not math.isfinite(value):
        return plain
    head, _, power = f"{value:.{digits - 1}e}".partition("e")
    return min(plain, f"{head.rstrip('0').rstrip('.') if '.' in head else head}e{int(power)}", key=len)


def label(level: object, digits: int = 4) -> str:
    """One level in so many digits."""
    return number(level, digits) if isinstance(level, float) else str(level)


def labels(levels: Sequence[object], digits: int = 4) -> list[str]:
    """Levels in at least so many digits, and in as many as tell them apart."""
    several = len(set(levels))
    for n in range(digits, 18):
        texts = [label(level, n) for level in levels]
        if len(set(texts)) == several:
            return texts
    return [str(level) for level in levels]
