"""Which stored results the figures need, and how a stored result shows that it is still the one that would be computed.

A *fingerprint* is what determines a result: configuration, hash of the sources, versions of the packages. It is stored
with the result; a result whose fingerprint differs from today's is computed again.
"""

import dataclasses
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr

import proofs_checks
import simulations
from proofs_checks.ledger import Claim, Effort, examine, select
from proofs_checks.precision import float64
from proofs_checks.record import record
from simulations import Arm, Data, Layer, Training, provenance, store
from simulations.chen import Chen
from simulations.kawata import Kawata
from simulations.language.study import Study
from simulations.language.timing import RouterTime
from simulations.run import arms_and_partners, judged
from simulations.training import group

Report = Callable[[float], None]
"""Called with the share done, in [0, 1]."""

# Rough seconds on one core. They weigh the parts of the progress bar and decide nothing else.
COMPILING, STEPS_PER_SECOND, SECONDS_PER_CLAIM = 12.0, 6000.0, 1.5


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Arms trained on a data set; one file of results."""

    name: str
    arms: tuple[Arm, ...]
    data: Data
    layer: Layer
    training: Training
    seeds: tuple[int, ...]
    optimise: bool = True
    """Let the compiler optimise; without, compiling takes half the time, which is what counts in very small runs."""

    @property
    def cost(self) -> float:
        """Rough seconds of a part."""
        return COMPILING + len(self.arms) * len(self.seeds) * self.training.steps / STEPS_PER_SECOND

    def fingerprint(self) -> dict[str, str]:
        """What determines the result, as it is stored."""
        configuration = simulations.configuration(self.arms, self.data, self.layer, self.training, self.seeds)
        return _fingerprint(configuration | {"optimise": self.optimise}, simulations.source_hash())

    def parts(self) -> list["Simulation"]:
        """The arms and their partners, split into what compiles to one program each; parts can run at the same time."""
        every = arms_and_partners(self.arms, self.data, self.layer, self.training)
        return [dataclasses.replace(self, arms=members.arms) for members in group(every)]

    def run(self, report: Report) -> xr.Dataset:
        """Trains every arm on every seed, without the partners, which are parts of their own."""
        settings = (self.arms, self.data, self.layer, self.training, self.seeds)
        return simulations.simulate(*settings, partners=False, progress=lambda done, total: report(done / total))

    def join(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """One result from those of the parts, with the arms in the order of this experiment, judged beside partners."""
        joined = xr.concat(results, dim="arm", join="outer", fill_value=np.nan, combine_attrs="override")
        joined = judged(joined, self.arms, self.data, self.layer, self.training)
        joined.attrs |= self.fingerprint() | {"seconds": sum(one.attrs["seconds"] for one in results)}
        return joined


@dataclasses.dataclass(frozen=True)
class Audit:
    """Closed-form gradients against autodiff; one file of results."""

    name: str
    concentrations: tuple[float, ...]
    samples: int
    seed: int

    cost = 1.5 * COMPILING
    optimise = True

    def fingerprint(self) -> dict[str, str]:
        """What determines the result, as it is stored."""
        configuration = {"concentrations": self.concentrations, "samples": self.samples, "seed": self.seed}
        return _fingerprint(configuration, simulations.source_hash("himoe_theory", "proofs_checks"))

    def parts(self) -> list["Audit"]:
        """It is one program."""
        return [self]

    def run(self, report: Report) -> xr.Dataset:
        """Compares every objective's gradients."""
        result = proofs_checks.audit(self.concentrations, self.samples, self.seed)
        report(1.0)
        return result.assign_attrs(device=jax.devices()[0].device_kind)

    def join(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """The result, with where it comes from."""
        (result,) = results
        result.attrs |= self.fingerprint() | {"format": store.FORMAT, "commit": provenance.commit()}
        return result


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The claims ledger; one file of results."""

    name: str
    only: tuple[str, ...] = ()
    """Shell patterns of ids; all claims if empty."""
    pieces: int = 8
    """Parts that can run at the same time."""
    optimise: bool = True
    """As for simulations."""

    @property
    def cost(self) -> float:
        """Rough seconds of a part."""
        return SECONDS_PER_CLAIM * len(self._claims()) / self.pieces

    def _claims(self) -> list[Claim]:
        # Imported here: it takes seconds (SymPy), and the processes that compute something else do without.
        from proofs_checks.claims import CLAIMS

        return select(CLAIMS, self.only)

    def fingerprint(self) -> dict[str, str]:
        """What determines the result, as it is stored."""
        configuration = {"claims": [claim.id for claim in self._claims()], "effort": dataclasses.asdict(Effort())}
        return _fingerprint(configuration, simulations.source_hash("himoe_theory", "proofs_checks"))

    def parts(self) -> list["Ledger"]:
        """Every `pieces`-th claim."""
        ids = [claim.id for claim in self._claims()]
        chosen = [tuple(ids[first :: self.pieces]) for first in range(self.pieces)]
        return [dataclasses.replace(self, only=some, pieces=1) for some in chosen if some]

    def run(self, report: Report) -> xr.Dataset:
        """Examines the claims one after another."""
        claims, records, began = self._claims(), [], time.perf_counter()
        for claim in claims:
            records.append(json.dumps(record(examine(claim, Effort()))))
            report(len(records) / len(claims))
        found = xr.Dataset({"record": ("claim", records)}, {"claim": [claim.id for claim in claims]})
        device = jax.devices()[0].device_kind
        return found.assign_attrs(seconds=time.perf_counter() - began, device=device, dtype="float64")

    def join(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """The claims in the order of the ledger."""
        joined = xr.concat(results, dim="claim", combine_attrs="override")
        joined = joined.sel(claim=[claim.id for claim in self._claims()])
        joined.attrs |= self.fingerprint() | {"seconds": sum(one.attrs["seconds"] for one in results)}
        joined.attrs |= {"format": store.FORMAT, "commit": provenance.commit()}
        return joined


@dataclasses.dataclass(frozen=True)
class Theory:
    """A measurement that theory is laid over, in float64; one file of results."""

    name: str
    function: Callable[..., xr.Dataset]
    """A function of `simulations.theory`."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Its keyword arguments, where they are not the usual ones; plain JSON values."""
    seconds: float = COMPILING
    """Rough seconds it takes."""
    optimise: bool = True
    """As for simulations."""

    @property
    def cost(self) -> float:
        """Rough seconds of a part."""
        return self.seconds

    def fingerprint(self) -> dict[str, str]:
        """What determines the result, as it is stored."""
        given = inspect.signature(self.function).bind(**self.settings)
        given.apply_defaults()
        return _fingerprint({"function": self.function.__name__, **given.arguments}, simulations.source_hash())

    def parts(self) -> list["Theory"]:
        """It is one program."""
        return [self]

    def run(self, report: Report) -> xr.Dataset:
        """Measures."""
        began = time.perf_counter()
        with float64():
            found = self.function(**self.settings)
        report(1.0)
        device = jax.devices()[0].device_kind
        return found.assign_attrs(seconds=time.perf_counter() - began, device=device, dtype="float64")

    def join(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """The result, with where it comes from."""
        (result,) = results
        result.attrs |= self.fingerprint() | {"format": store.FORMAT, "commit": provenance.commit()}
        return result


@dataclasses.dataclass(frozen=True)
class Replication:
    """An experiment that simulates itself: a paper's own, or language models; one file of results."""

    name: str
    study: Chen | Kawata | Study | RouterTime
    cost: float = 60.0
    """Rough seconds of a part."""
    shipped: bool = False
    """Whether the result comes with this package: computing takes too long to do it with the figures, and edits of
    sources do not ask for it. Where the file is missing, or of another configuration, it is computed."""
    optimise: bool = True
    """As for simulations."""

    def fingerprint(self) -> dict[str, str]:
        """What determines the result, as it is stored."""
        configuration = provenance.describe(self.study)
        return _fingerprint(configuration | {"optimise": self.optimise}, simulations.source_hash())

    def parts(self) -> list["Replication"]:
        """The same, split into what compiles to one program each."""
        return [dataclasses.replace(self, study=piece) for piece in self.study.pieces()]

    def run(self, report: Report) -> xr.Dataset:
        """Trains every model on every seed."""
        return self.study.simulate(report).assign_attrs(device=jax.devices()[0].device_kind)

    def join(self, results: Sequence[xr.Dataset]) -> xr.Dataset:
        """One result from those of the parts."""
        joined = self.study.combine(results)
        joined.attrs |= self.fingerprint() | {"seconds": sum(one.attrs["seconds"] for one in results)}
        joined.attrs |= {"format": store.FORMAT, "commit": provenance.commit()}
        return joined


Experiment = Simulation | Audit | Ledger | Theory | Replication


def stale(experiment: Experiment, stored: xr.Dataset) -> list[str]:
    """The parts of the fingerprint in which a stored result differs from what would be computed now.

    A result that comes with this package must be of today's configuration. Its sources and versions may be older: the
    report names them.
    """
    parts = experiment.fingerprint()
    compared = ("configuration",) if shipped(experiment) else parts
    return [part for part in compared if stored.attrs.get(part) != parts[part]]


def shipped(experiment: Experiment) -> bool:
    """Whether its result comes with this package."""
    return isinstance(experiment, Replication) and experiment.shipped


def _fingerprint(configuration: dict[str, object], source_hash: str) -> dict[str, str]:
    return {
        "configuration": json.dumps(configuration, sort_keys=True),
        "sources": source_hash,
        "versions": json.dumps(simulations.versions(), sort_keys=True),
    }
