"""What a selection means for devices that hold one group of experts each: rows, traffic, padding."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from himoe_theory import Router

from .grouped import tile_rows
from .mesh import most_routes


class Traffic(NamedTuple):
    """Of one layer and one pass forward, T tokens that start out spread evenly over the devices, one group each.

    `rows`: (token, expert) pairs on the mean device; `fullest`: those on the fullest one, over the mean. `sent`: bytes
    that a device receives and returns on average if tokens travel only where they are needed; `gathered`: if every
    token visits every device, as `mesh.over_devices` has it. `padding`: empty rows in the tiles of the fullest device,
    as a share of its rows. `reserved`: rows of a device's buffer, which must hold the worst case, over the mean's rows.
    """

    rows: float
    fullest: float
    sent: float
    gathered: float
    padding: float
    reserved: float


def traffic(
    router: Router, load: Float[np.ndarray, " experts"], touched: float, tokens: int, *, dim: int, width: int = 4
) -> Traffic:
    """Counts rows and bytes. **Arguments:** `load`: share of the tokens that select each expert. `touched`: groups that
    a token selects from, on average. `dim`: numbers a token has. `width`: bytes of a number."""
    partition, devices = router.partition, router.partition.num_groups
    counts = np.rint(np.asarray(load) * tokens).astype(int)
    rows = np.asarray([counts[partition.members(group)].sum() for group in range(devices)])
    fullest = int(rows.argmax())
    worst = tokens * most_routes(router, devices)
    tile = tile_rows(worst, partition.sizes[fullest])
    used = int((-(-counts[partition.members(fullest)] // tile) * tile).sum())
    token_bytes = 2 * dim * width * tokens / devices
    return Traffic(
        rows=float(rows.mean()),
        fullest=float(rows.max() / rows.mean()),
        sent=touched * (devices - 1) / devices * token_bytes,  # of the visits that share is not at home
        gathered=(devices - 1) * token_bytes,
        padding=(used - int(rows.max())) / int(rows.max()),
        reserved=worst / float(rows.mean()),
    )
