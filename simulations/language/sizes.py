"""Named shapes: two for this machine, two as published."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from himoe_theory import Partition

from ..arms import Arm
from .config import scaled_by_default
from .model import Model

# tiny trains in seconds, small (2.7 M parameters with 8 experts and vocabulary 256) in minutes on 2 cores. The other
# two are [himoe]'s: nanoGPT with GPT-2's vocabulary padded to a multiple of 64, OLMoE-1B-7B.
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"layers": 2, "heads": 2, "dim": 32, "context": 32, "vocabulary": 256, "width": 128, "stride": 1},
    "small": {"layers": 4, "heads": 4, "dim": 128, "context": 128, "vocabulary": 256, "width": 512, "stride": 2},
    "nanogpt-1b": {
        "layers": 24,
        "heads": 16,
        "dim": 1024,
        "context": 1024,
        "vocabulary": 50_304,
        "width": 4096,
        "stride": 2,
    },
    "olmoe-7b": {
        "layers": 16,
        "heads": 16,
        "dim": 2048,
        "context": 4096,
        "vocabulary": 50_304,
        "width": 1024,
        "stride": 1,
        "style": "olmoe",
    },
}

# (N, M, K) of the published models; the sizes for this machine take 8, 4, 1.
PARTITIONS: Mapping[str, tuple[int, int, int]] = {
    "tiny": (8, 4, 1),
    "small": (8, 4, 1),
    "nanogpt-1b": (8, 4, 1),
    "olmoe-7b": (64, 4, 2),
}


def partition_of(size: str) -> tuple[Partition, int]:
    """The partition of a size, and K, the experts that a token selects in each group."""
    check_size(size)
    n, m, k = PARTITIONS[size]
    return Partition.equal(n, m), k


def check_size(size: str) -> None:
    """`ValueError` unless the size is known."""
    if size not in SIZES:
        raise ValueError(f"`size` must be one of {', '.join(SIZES)}; got {size!r}.")


def model(size: str, arm: Arm, **overrides: Any) -> Model:
    """The model of a size with an arm.

    **Arguments:** `overrides`: any field of `Config`; `router_scale` is by default what the released code does (true
    for grouped routers). **Raises:** `ValueError` for an unknown size or field.
    """
    check_size(size)
    fields = {field.name for field in dataclasses.fields(Model)}
    for name in overrides:
        if name not in fields:
            raise ValueError(f"a language model has no field {name!r}; it has {', '.join(sorted(fields))}.")
    return Model(**{"arm": arm, "router_scale": scaled_by_default(arm), **SIZES[size], **overrides})
