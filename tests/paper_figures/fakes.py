"""Experiments that take no time: their results are drawn at random. In a module of their own, for workers to import."""

import dataclasses
import os
import signal
import time
from collections.abc import Sequence

import numpy as np
import xarray as xr

from paper_figures import catalogue
from paper_figures.plan import Audit, Report, Simulation
from paper_figures.profiles import with_alpha
from simulations import Clusters, Digits, Layer

from .synthetic import ARMS, TRAINING, audited, simulated

SEEDS = (0, 1, 2)
FIGURES = catalogue.FIGURES[:5]
"""Those that `fake_profile` has results for."""


@dataclasses.dataclass(frozen=True)
class FakeSimulation(Simulation):
    """Random measurements in place of training."""

    def run(self, report: Report) -> xr.Dataset:
        """Reports half-time, as a real one would."""
        report(0.5)
        result = simulated(self.arms, self.seeds, self.data, self.training)
        report(1.0)
        return result


@dataclasses.dataclass(frozen=True)
class FakeAudit(Audit):
    """Chosen errors in place of gradients."""

    def run(self, report: Report) -> xr.Dataset:
        """All errors are 1e-15."""
        return audited(np.full((2, len(self.concentrations)), 1e-15), self.concentrations, ["load", "z"])


@dataclasses.dataclass(frozen=True)
class Failing(Audit):
    """An experiment with a mistake in its settings."""

    def run(self, report: Report) -> xr.Dataset:
        """Raises what the library raises for bad settings."""
        raise ValueError(f"`samples` must be at least 1; got {self.samples}.")


@dataclasses.dataclass(frozen=True)
class Endless(Audit):
    """An experiment that takes longer than any test waits."""

    seconds = 60.0

    def run(self, report: Report) -> xr.Dataset:
        """Says who it is, and sleeps."""
        print(os.getpid(), flush=True)
        time.sleep(self.seconds)
        raise AssertionError("nobody ended this worker")


@dataclasses.dataclass(frozen=True)
class Killed(Audit):
    """An experiment whose process dies, as when memory runs out."""

    def run(self, report: Report) -> xr.Dataset:
        """Ends its own process."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def fake(name: str, arms: Sequence[str] = ("moge", "hi-moe"), seeds: Sequence[int] = SEEDS) -> FakeSimulation:
    """One experiment on clusters."""
    data = Clusters(clusters=3, dim=8)
    return FakeSimulation(name, tuple(ARMS[arm] for arm in arms), data, Layer(), TRAINING, tuple(seeds))


def fake_profile() -> tuple[Simulation | Audit, ...]:
    """All that the figures need."""
    swept = tuple(with_alpha(ARMS[name], alpha) for name in ("moge", "hi-moe") for alpha in (0.0, 0.1))
    balance = [
        dataclasses.replace(fake(f"balance-mean-{mean:g}"), arms=swept, data=Clusters(clusters=3, dim=8, mean=mean))
        for mean in (4.0, 0.0)
    ]
    digits = dataclasses.replace(fake("digits"), data=Digits())
    return fake("regimes"), *balance, digits, FakeAudit("gradients", (0.1, 1.0), 7, 3)
