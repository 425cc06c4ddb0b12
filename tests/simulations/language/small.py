"""The smallest language model that has all parts, and text for it."""

import numpy as np

from himoe_theory import Partition
from simulations.arms import Arm, arms
from simulations.data.corpus import Corpus, Part
from simulations.language.model import Model
from simulations.language.recipe import Recipe
from simulations.language.training import Run

PARTITION = Partition((0, 0, 0, 1))
"""Groups of unequal size."""


def arm(name: str = "hi-moe", **numbers: float) -> Arm:
    return arms(PARTITION, **numbers)[name]


def model(name: str = "hi-moe", **fields) -> Model:
    shape = {"layers": 1, "heads": 1, "dim": 8, "context": 8, "vocabulary": 16, "width": 8, "stride": 1}
    return Model(**{"arm": arm(name), "dispatch": "dense", "router_scale": True, "bias": True, **shape, **fields})


def recipe(**fields) -> Recipe:
    return Recipe(**{"steps": 6, "batch": 4, "learning_rate": 0.01, "warmup": 2, "records": 3, "held_out": 6, **fields})


def corpus() -> Corpus:
    """Tokens that follow a rule, in two domains with alphabets of their own."""

    def part(tokens: int, seed: int) -> Part:
        domains = np.repeat(np.arange(tokens // 50 + 1) % 2, 50)[:tokens].astype(np.uint8)
        noise = np.random.default_rng(seed).integers(0, 4, tokens)
        return Part((domains * 8 + noise).astype(np.uint16), domains)

    return Corpus(part(2000, 0), part(400, 1), 16, "byte", ("low", "high"), {"sha256": "none", "files": []})


def run(folder=None, **fields) -> Run:
    given = {"model": model(), "recipe": recipe(), "corpus": corpus(), "folder": folder, "every": 2}
    return Run(**{**given, **fields})
