"""Designs: which settings a sweep runs, with which seeds; as a TOML file, as values, as JSON."""

import dataclasses
import itertools
import math
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from himoe_theory import _checks
from himoe_theory.plumbing import files
from himoe_theory.plumbing.bring import HERE, Kind, Place, names_file

from ..fields import Setting, Value, brought_by, build, check, free_below
from ..partners import Places, with_partners

RUNS_PER_CHUNK = 36
"""Enough to fill a core with one program, few enough that a small sweep is several chunks."""
MOST_RUNS = 10**7
"""Settings times seeds of one design: more would take weeks, and more memory to plan than a machine has."""
_RUN_BYTES = 2**10  # of one run's results, at least
TABLES = ("fixed", "grid", "list", "random")
PLAIN = ("seeds", "runs_per_chunk", "partners")


@dataclasses.dataclass(frozen=True)
class Design:
    """Settings and seeds. Axes are crossed (a grid) or go together, the first values of all, then the second.

    `fixed` holds the fields that are equal in all settings. `runs_per_chunk` is the most (setting, seed) pairs that one
    compiled program holds at once; it belongs to the design, since the last bits of a result may depend on it.
    `partners`: also run the settings' partners (see `simulations.partners`); without them no regime is judged. `place`:
    where the files of users are; it does not belong to the design.

    **Raises:** `ValueError` for no seeds, repeated ones, or repeated values of a crossed axis.
    """

    axes: Mapping[str, tuple[Value, ...]]
    fixed: Mapping[str, Value]
    seeds: tuple[int, ...]
    crossed: bool = True
    runs_per_chunk: int = RUNS_PER_CHUNK
    partners: bool = True
    place: Place = dataclasses.field(default=HERE, compare=False, repr=False)

    def __post_init__(self):
        _checks.count("number of seeds", len(self.seeds))
        for seed in self.seeds:
            _checks.count("seeds", seed, minimum=0, maximum=2**31 - 1)
        _distinct("seeds", self.seeds)
        _checks.count("runs_per_chunk", self.runs_per_chunk, maximum=MOST_RUNS, of="runs of a design")
        if not isinstance(self.partners, bool):
            raise ValueError(f"`partners` must be true or false; got {self.partners!r}.")
        for name, values in self.axes.items():
            if not values:
                raise ValueError(f"`{name}` must have at least one value; got [].")
            if name in self.fixed:
                raise ValueError(f"`{name}` must be fixed or an axis; got {self.fixed[name]!r} and {list(values)}.")
            if self.crossed:
                _distinct(name, values)
        lengths = {name: len(values) for name, values in self.axes.items()}
        if not self.crossed and len(set(lengths.values())) != 1:
            got = ", ".join(f"{length} of {name}" for name, length in lengths.items()) or "none"
            raise ValueError(f"`list` must have equally many values of all fields; got {got}.")
        _few_enough(math.prod(self.shape.values()), len(self.seeds))

    @property
    def shape(self) -> dict[str, int]:
        """Names and lengths of the dimensions that settings have."""
        if not self.crossed:
            return {"setting": len(next(iter(self.axes.values())))}
        return {name: len(values) for name, values in self.axes.items()}

    @property
    def points(self) -> list[dict[str, Value]]:
        """Fields of every setting; of a grid, the last axis varies fastest."""
        rows = itertools.product(*self.axes.values()) if self.crossed else zip(*self.axes.values(), strict=True)
        return [dict(self.fixed) | dict(zip(self.axes, row, strict=True)) for row in rows]

    def settings(self) -> list[Setting]:
        """Every setting, built. **Raises:** `ValueError` naming the first that cannot be, and why."""
        found = []
        for point in self.points:
            try:
                found.append(build(point, self.place))
            except ValueError as error:
                at = ", ".join(f"{name} = {point[name]!r}" for name in self.axes) or "the only one"
                raise ValueError(f"Setting {len(found)} ({at}): {error}") from None
        return found

    def every(self) -> tuple[list[Setting], list[Places]]:
        """Every setting, then their partners; and for each setting where its partners stand, or would stand."""
        settings = self.settings()
        every, places = with_partners(settings)
        return every if self.partners else settings, places

    def names_brought(self) -> Mapping[str, Kind]:
        """What in it is not ours, by name: in files and in packages. Nothing is loaded."""
        every = {name: list(values) for name, values in self.axes.items()}
        return brought_by({name: [value] for name, value in self.fixed.items()} | every)

    def with_sources(self) -> "Design":
        """With the content of the files that it names: what it means from now on, here and in other processes.

        **Raises:** `ValueError` for a file that does not load.
        """
        files = [name for name in self.names_brought() if names_file(name)]
        return dataclasses.replace(self, place=self.place.with_sources(files)) if files else self

    def hashes_brought(self) -> dict[str, str]:
        """Of what is not ours, by name."""
        return {name: self.place.hash_of(kind, name) for name, kind in self.names_brought().items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON values. The order of axes counts, which the keys of a JSON object do not keep."""
        axes = [[name, list(values)] for name, values in self.axes.items()]
        plain = {name: getattr(self, name) for name in ("seeds", "crossed", "runs_per_chunk", "partners")}
        return plain | {"axes": axes, "fixed": dict(sorted(self.fixed.items()))}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Design":
        """From what `to_json` gave, once it has been through JSON."""
        of_users = free_below(dict(stored["axes"]) | stored["fixed"])
        axes = {name: tuple(check("[axes]", name, v, of_users) for v in values) for name, values in stored["axes"]}
        fixed = {name: check("[fixed]", name, value, of_users) for name, value in stored["fixed"].items()}
        return cls(axes, fixed, tuple(stored["seeds"]), stored["crossed"], stored["runs_per_chunk"], stored["partners"])


def grid(
    axes: Mapping[str, Any], *, fixed: Mapping[str, Any] | None = None, seeds: Any = 8, partners: bool = True
) -> Design:
    """Every combination of the axes' values, each axis a list or an array; `seeds` is how many, or which."""
    return _made("grid", axes, fixed, seeds, partners=partners)


def listed(
    columns: Mapping[str, Any], *, fixed: Mapping[str, Any] | None = None, seeds: Any = 8, partners: bool = True
) -> Design:
    """The first values of all fields, the second values of all, and so on."""
    return _made("list", columns, fixed, seeds, crossed=False, partners=partners)


def drawn(
    samples: int,
    columns: Mapping[str, Any],
    *,
    seed: int = 0,
    fixed: Mapping[str, Any] | None = None,
    seeds: Any = 8,
    partners: bool = True,
) -> Design:
    """A list of random values, each field `{distribution: parameters}`; see `DISTRIBUTIONS`.

    Every field has a stream of its own: another field changes no values. `seed` is not a seed of runs.
    """
    _checks.count("samples", samples)
    _few_enough(samples, 1)
    _checks.count("seed", seed, minimum=0)
    if not columns:
        raise ValueError("[random] must have at least one field; got none.")
    values = {name: _draw(name, _plain(spec), samples, seed) for name, spec in columns.items()}
    return _made("random", values, fixed, seeds, crossed=False, partners=partners)


_INT64 = np.iinfo(np.int64)


def _between(name: str, parameters: Sequence[Any], kind: str, least: int | float, most: int | float) -> tuple[Any, Any]:
    """Two rising numbers from `least` to `most`."""
    types = (int,) if kind == "whole numbers" else (int, float)
    # No conversion to float: a whole number may be larger than any.
    if not (
        len(parameters) == 2
        and all(type(p) in types and least <= p <= most for p in parameters)
        and parameters[0] < parameters[1]
    ):
        raise ValueError(
            f"`{name}` in [random] must have two rising {kind} from {least:.4g} to {most:.4g}; got {list(parameters)}."
        )
    return parameters[0], parameters[1]


def _uniform(name: str, rng: np.random.Generator, parameters: Sequence[Any], samples: int) -> list[Any]:
    half = sys.float_info.max / 2  # so that the difference is finite
    return rng.uniform(*_between(name, parameters, "numbers", -half, half), samples).tolist()


def _log_uniform(name: str, rng: np.random.Generator, parameters: Sequence[Any], samples: int) -> list[Any]:
    low, high = _between(name, parameters, "numbers", sys.float_info.min, sys.float_info.max)
    return np.exp(rng.uniform(math.log(low), math.log(high), samples)).tolist()


def _integers(name: str, rng: np.random.Generator, parameters: Sequence[Any], samples: int) -> list[Any]:
    low, high = _between(name, parameters, "whole numbers", int(_INT64.min), int(_INT64.max))
    return rng.integers(low, high, samples, endpoint=True).tolist()


def _choice(name: str, rng: np.random.Generator, parameters: Sequence[Any], samples: int) -> list[Any]:
    if not parameters:
        raise ValueError(f"`{name}` in [random] must have at least one value; got [].")
    return [parameters[i] for i in rng.integers(len(parameters), size=samples)]


DISTRIBUTIONS: dict[str, Callable[[str, np.random.Generator, Sequence[Any], int], list[Any]]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "integers": _integers,
    "choice": _choice,
}
"""`uniform` and `log_uniform` between two numbers, `integers` between two, both included, `choice` from a list."""


def _draw(name: str, spec: Any, samples: int, seed: int) -> list[Any]:
    known = isinstance(spec, Mapping) and len(spec) == 1 and next(iter(spec)) in DISTRIBUTIONS
    if not known or not isinstance(next(iter(spec.values())), (list, tuple)):
        rule = f"be {{ DISTRIBUTION = [...] }} with one of {', '.join(DISTRIBUTIONS)}"
        raise ValueError(f"`{name}` in [random] must {rule}; got {spec!r}.")
    ((distribution, parameters),) = spec.items()
    return DISTRIBUTIONS[distribution](name, np.random.default_rng([seed, *name.encode()]), parameters, samples)


def read_design(path: Path) -> Design:
    """The design of a TOML file: `seeds`, `partners`, a table `fixed`, and one of the tables `grid`, `list`, `random`.

    **Raises:** `ValueError` for a file that cannot be read, or naming the field, the rule and what was found.
    """
    try:
        found = tomllib.loads(files.read(path).decode())
    except (ValueError, RecursionError) as error:
        why = files.reason(error.__cause__ or error)
        raise ValueError(f"`{path}` must be a readable TOML file; got {why}.") from error
    for name, value in found.items():
        if name not in (*TABLES, *PLAIN):
            raise ValueError(f"`{name}` must be one of {', '.join((*PLAIN, *TABLES))}; got {value!r}.")
        if name in TABLES and not isinstance(value, dict):
            raise ValueError(f"`{name}` must be a table; got {value!r}.")
    if not any(name in found for name in (*TABLES, "seeds")):
        got = ", ".join(found) or "nothing"
        raise ValueError(f"`{path}` must say what to run: at least one of {', '.join(TABLES)}, seeds; got {got}.")
    kinds = [name for name in TABLES[1:] if name in found]
    if len(kinds) > 1:
        raise ValueError(f"`{path}` must have one of the tables {', '.join(TABLES[1:])}; got {' and '.join(kinds)}.")
    design = _design(kinds[0] if kinds else "grid", found)
    plain = {name: found[name] for name in PLAIN[1:] if name in found}
    return dataclasses.replace(design, place=Place(path.absolute().parent), **plain)


def _design(kind: str, found: dict[str, Any]) -> Design:
    common = {"fixed": _flat(found.get("fixed", {})), "seeds": found.get("seeds", 8)}
    table = dict(found.get(kind, {}))
    if kind == "random":
        if "samples" not in table:
            raise ValueError("`samples` in [random] must be given: the number of settings; got none.")
        samples, seed = table.pop("samples"), table.pop("seed", 0)
        return drawn(samples, _flat(table, stop=DISTRIBUTIONS), seed=seed, **common)
    return (grid if kind == "grid" else listed)(_flat(table), **common)


def _flat(table: Mapping[str, Any], prefix: str = "", stop: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Nested tables as dotted names; a table with a key of `stop` is a value."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and not (stop and any(key in stop for key in value)):
            found |= _flat(value, f"{prefix}{name}.", stop)
        else:
            found[f"{prefix}{name}"] = value
    return found


def _made(where: str, axes: Mapping[str, Any], fixed: Mapping[str, Any] | None, seeds: Any, **rest: bool) -> Design:
    axes, fixed = _plain(axes), _plain(fixed or {})
    of_users = free_below(fixed | axes)
    checked = {name: check("[fixed]", name, value, of_users) for name, value in fixed.items()}
    return Design(_axes(where, axes, of_users), checked, _seeds(seeds), **rest)


def _axes(where: str, axes: Mapping[str, Any], of_users: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    found = {}
    for name, values in axes.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"`{name}` in [{where}] must be a list of at least one value; got {values!r}.")
        found[name] = tuple(check(f"[{where}]", name, value, of_users) for value in values)
    return found


def _seeds(seeds: Any) -> tuple[int, ...]:
    seeds = _plain(seeds)
    if isinstance(seeds, (list, tuple)):
        return tuple(seeds)
    _checks.count("seeds", seeds)
    _few_enough(1, seeds)
    return tuple(range(seeds))


def _few_enough(settings: int, seeds: int) -> None:
    """**Raises:** `ValueError` with an estimate for a design that no machine finishes."""
    runs = settings * seeds
    if runs > MOST_RUNS:
        got = f"got {settings} settings × {seeds} seeds, {runs * _RUN_BYTES / 2**30:.3g} GiB of results or more"
        raise ValueError(f"`design` must have at most {MOST_RUNS} runs; {got}. Take fewer values or seeds.")


def _plain(value: Any) -> Any:
    """Arrays, their scalars and ranges as the lists and numbers that a file would hold, also within others."""
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return value.tolist()
    if isinstance(value, (list, tuple, range)):
        return [_plain(one) for one in value]
    return {name: _plain(one) for name, one in value.items()} if isinstance(value, Mapping) else value


def _distinct(name: str, values: Sequence[Any]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ValueError(f"`{name}` must have distinct values; got {value!r} twice.")
        seen.add(value)
