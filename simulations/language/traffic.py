"""What a selection means for devices that hold one group of experts each: rows, traffic, padding."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from himoe_theory import Router

from .grouped import tile_rows
from .mesh import most_routes


class Traffic(NamedTuple):
    """Of one layer and one pass forward, T tokens that start out spread evenly over the devices.

    `rows`: (token, expert) pairs on the mean and on the fullest device. `touched`: groups a token selects from. `sent`:
    bytes that a device receives and returns on average if tokens travel only where they are needed; `gathered`: if
    every token visits every device, as `mesh.over_devices` has it. `padding`: empty rows in the tiles of the fullest
    device, as a share of its rows. `reserved`: rows of a device's buffer, which must hold the worst case, over its mean
    rows.
    """

    mean_rows: float
    most_rows: float
    touched: float
    sent: float
    gathered: float
    padding: float
    reserved: float


def traffic(router: Router, selected: Bool[np.ndarray, "tokens experts"], *, dim: int, width: int = 4) -> Traffic:
    """Counts a selection's rows and bytes. **Arguments:** `dim`: numbers a token has; `width`: bytes of a number."""
    tokens, partition = len(selected), router.partition
    groups = [selected[:, partition.members(group)] for group in range(partition.num_groups)]
    rows = np.asarray([each.sum() for each in groups])
    visits = sum(int(each.any(axis=1).sum()) for each in groups)
    devices, full = partition.num_groups, groups[int(rows.argmax())]
    remote = visits * (devices - 1) / devices  # the share of visits that are not at home, for tokens spread evenly
    token_bytes = 2 * dim * width / devices
    worst = tokens * most_routes(router, devices)
    tile = tile_rows(worst, full.shape[1])
    used = int((-(-full.sum(axis=0) // tile) * tile).sum())
    return Traffic(
        mean_rows=float(rows.mean()),
        most_rows=float(rows.max()),
        touched=visits / tokens,
        sent=remote * token_bytes,
        gathered=tokens * (devices - 1) * token_bytes,
        padding=(used - int(rows.max())) / max(int(rows.max()), 1),
        reserved=worst / max(float(rows.mean()), 1.0),
    )
