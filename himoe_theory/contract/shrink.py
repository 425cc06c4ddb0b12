"""Smaller examples of the same failure: rows cleared, entries cleared, numbers rounded, while it still fails."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Bool, Float

ROUNDS = 30

Table = Float[np.ndarray, "tokens *rest"]
Fails = Callable[[Float[np.ndarray, "cases tokens *rest"]], Bool[np.ndarray, " cases"]]


def smallest(table: Table, fails: Fails, *, ties: bool) -> Table:
    """A table that still fails, as simple as a greedy search finds.

    **Arguments:** `fails`: of a stack of tables. `ties`: whether equal entries in a row are allowed; if not, a cleared
    row is 0, -0.1, -0.2, ... instead of 0.
    """
    plain = _plain(table, ties)
    for _ in range(ROUNDS):
        candidates = [each for each in _simpler(table, plain) if _cost(each, plain) < _cost(table, plain)]
        candidates = [each for each in candidates if ties or not _tied(each)]
        if not candidates:
            break
        failing = np.flatnonzero(fails(np.stack(candidates)))
        if not failing.size:
            break
        table = candidates[min(failing, key=lambda i: _cost(candidates[i], plain))]
    return table


def _plain(table: Table, ties: bool) -> Table:
    if ties:
        return np.zeros_like(table)
    return np.broadcast_to(-np.arange(table[0].size).reshape(table[0].shape) / 10, table.shape).copy()


def _tied(table: Table) -> bool:
    rows = np.sort(table.reshape(len(table), -1), axis=1)
    return bool((np.diff(rows, axis=1) == 0).any())


def _cost(table: Table, plain: Table) -> tuple[int, int, int, float]:
    """Rows and entries that are not plain, their digits, and their size."""
    other = table != plain
    rows = int(other.reshape(len(table), -1).any(axis=1).sum())
    digits = sum(len(f"{entry:.17g}") for entry in table[other])
    return rows, int(other.sum()), digits, float(np.abs(table[other]).sum())


def _simpler(table: Table, plain: Table) -> Iterator[Table]:
    for row in range(len(table)):
        alone = plain.copy()
        alone[row] = table[row]
        yield alone
        yield _with(table, row, plain[row])
    for digits in (0, 1, 2, 4):
        yield np.round(table, digits)
    for place in np.argwhere(table != plain):
        where = tuple(int(i) for i in place)
        yield _with(table, where, plain[where])
        yield _with(table, where, np.sign(table[where]))
        yield _with(table, where, np.round(table[where], 1))


def _with(table: Table, where: int | tuple[int, ...], value: Float[np.ndarray, "..."] | float) -> Table:
    changed = table.copy()
    changed[where] = value
    return changed
