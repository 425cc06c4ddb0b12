"""Training of a language model: steps, records, checkpoints, and what happens when it is stopped or fails."""

import contextlib
import dataclasses
import functools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from himoe_theory import _checks

from .. import provenance
from ..data import Corpus
from . import checkpoints, exchange, hosts, trajectory, weights
from .model import Model
from .probe import first_not_finite
from .program import Program, State
from .recipe import Recipe
from .trajectory import Trajectory


class Diverged(ArithmeticError):
    """A loss or gradient that is not finite; the state is that of the step before."""


class Interrupted(Exception):
    """Stopped on request between two steps; a checkpoint has been written."""


class Progress(NamedTuple):
    """What a display may show after a step. `trajectory` is the live record, not a copy."""

    done: int
    step_loss: float
    trajectory: Trajectory


Report = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A training run: what is trained on what, and where its checkpoints are.

    **Arguments:** `folder`: of the checkpoints; `None` writes none. `every`: steps between two checkpoints. `initial`:
    weights under nanoGPT's names to start from, instead of random ones. **Raises:** `ValueError` if model, recipe and
    corpus do not fit each other.
    """

    model: Model
    recipe: Recipe
    corpus: Corpus
    seed: int = 0
    folder: Path | None = None
    every: int = 100
    initial: Path | None = None

    def __post_init__(self):
        _checks.count("seed", self.seed, minimum=0, maximum=2**31 - 1)
        _checks.count("every", self.every)
        if self.corpus.vocabulary > self.model.vocabulary:
            least, got = self.corpus.vocabulary, self.model.vocabulary
            raise ValueError(f"`vocabulary` must be at least that of the data, {least}; got {got}.")
        self.corpus.check(self.model.context)
        self._check_devices()

    def _check_devices(self) -> None:
        """Whether sequences can be divided over the devices, in training and in measurements."""
        devices, parts, size = math.prod(self.model.devices), self.recipe.micro_batches, self.recipe.micro_batch
        data, group = self.model.devices
        if devices == 1:
            return
        if size % devices:
            raise ValueError(
                f"`batch` over `micro_batches` must be a multiple of the number of `devices`, {data} x {group} = "
                f"{devices}; got {self.recipe.batch} / {parts} = {size} sequences."
            )
        left = len(self.corpus.held_out(self.recipe.held_out, self.model.context).tokens) % size
        if left * self.model.context % devices:
            raise ValueError(
                f"`held_out` must leave sequences whose tokens {data} x {group} = {devices} `devices` can share; got "
                f"{left} x {self.model.context} tokens after parts of {size} sequences. Give a multiple of {size}."
            )

    @functools.cached_property
    def configuration(self) -> dict[str, Any]:
        """All that determines the numbers of a run, as JSON values. A checkpoint is resumed by an equal one only."""
        manifest = {key: value for key, value in self.corpus.manifest.items() if key != "files"}
        return {
            "model": provenance.describe(self.model),
            "recipe": provenance.describe(self.recipe),
            "seed": self.seed,
            "initial": None if self.initial is None else exchange.digest(self.initial),
            "data": {"unit": self.corpus.unit, "vocabulary": self.corpus.vocabulary, **manifest},
            "versions": provenance.versions(),
            "sources": provenance.source_hash(),
            "device": jax.devices()[0].device_kind,
        }

    def start(self, from_step: int | None = None) -> "Position":
        """Where training begins: at step 0, or at a checkpoint.

        **Raises:** `ValueError` if the checkpoint is missing, damaged, or of another configuration, or if processes
        that train together have not the same.
        """
        hosts.check_equal(self.configuration)
        if from_step is not None:
            return self._stored(from_step)
        given = None if self.initial is None else weights.load(self.initial, self.model)
        return self._begin(given)

    def look(self, step: int) -> "Position":
        """A checkpoint to read, not to go on from: versions, sources and devices may be others than they were.

        **Raises:** `ValueError` as `start` does.
        """
        return self._stored(step, free=(("versions",), ("sources",), ("device",), ("model", "devices")))

    def _begin(self, given: Any = None) -> "Position":
        state = Program(self.model, self.recipe).begin(self.seed, given)
        return Position(state, trajectory.empty(self.model, self.recipe, len(self.corpus.domains)))

    def _stored(self, step: int, free: Sequence[tuple[str, ...]] = ()) -> "Position":
        if self.folder is None:
            raise ValueError(f"`from_step` needs a folder of checkpoints; got {step} and no folder.")
        checkpoints.check(self.folder, step, self.configuration, free=free)
        return Position.of(checkpoints.restore(self.folder, step, self._begin().tree()))

    def train(
        self,
        position: "Position",
        *,
        report: Report = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> xr.Dataset:
        """Trains from a position to the end and returns the result.

        **Arguments:** `report`: called after every step. `stopped`: asked between steps. **Raises:** `Diverged`, with
        the name of the first tensor that was not finite, or `Interrupted`; in both cases a checkpoint of the last
        good state has been written, if there is a folder.
        """
        began, program = time.perf_counter(), Program(self.model, self.recipe)
        held_out = self.corpus.held_out(self.recipe.held_out, self.model.context)
        state, record, first = position.state, position.trajectory, int(position.state.step)
        if first == 0:
            self._measure(program, state, held_out, record, 0)
        for index in range(first, self.recipe.steps):
            batch = program.cut(self.corpus.batch(self.seed, index, self.recipe.batch, self.model.context))
            state, step = program.advance(state, *batch)
            step = jax.device_get(step)
            if not step.finite:
                self._save(Position(state, record))
                raise Diverged(f"step {index + 1} is not finite; first is {first_not_finite(program, state, *batch)}")
            done = index + 1
            trajectory.add_step(record, self.recipe, index, step)
            if done in self.recipe.record_steps:
                self._measure(program, state, held_out, record, done)
            report(Progress(done, float(step.cross_entropy), record))
            wanted = hosts.any_of_all(stopped()) and done < self.recipe.steps
            if wanted or done % self.every == 0 or done == self.recipe.steps:
                self._save(Position(state, record))
            if wanted:
                raise Interrupted(f"stopped after step {done} of {self.recipe.steps}")
        return self.result(record, time.perf_counter() - began)

    def result(self, record: Trajectory, seconds: float) -> xr.Dataset:
        """The labelled trajectory with provenance. `seconds`: since the start or the last resumption."""
        result = trajectory.dataset(record, self.model, self.recipe, self.corpus)
        result.attrs = provenance.attributes(self.configuration, seconds, self.recipe.compute)
        result.attrs["manifest"] = json.dumps(dict(self.corpus.manifest), sort_keys=True)
        result.attrs["unit"] = self.corpus.unit
        result.attrs["arm"] = self.model.arm.name
        return result

    def _measure(self, program: Program, state: State, held_out: Any, record: Trajectory, done: int) -> None:
        measured = program.evaluate(state, held_out, len(self.corpus.domains))
        trajectory.add_record(record, self.recipe, done, measured)

    def _save(self, position: "Position") -> None:
        if self.folder is not None:
            checkpoints.save(self.folder, int(position.state.step), position.tree(), self.configuration)


class Position(NamedTuple):
    """A state and the trajectory up to it: what a checkpoint holds."""

    state: State
    trajectory: Trajectory

    def tree(self) -> dict[str, Any]:
        """As plain arrays. The position in the data is the step: batches are a function of seed and step."""
        arrays = self.state._asdict() | {"key": jax.random.key_data(self.state.key)}
        return {"state": arrays, "trajectory": dict(self.trajectory)}

    @classmethod
    def of(cls, tree: dict[str, Any]) -> "Position":
        """The inverse of `tree`."""
        arrays = tree["state"] | {"key": jax.random.wrap_key_data(tree["state"]["key"])}
        # Writable: training goes on in them.
        return cls(State(**arrays), {name: np.array(value) for name, value in tree["trajectory"].items()})


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C (or SIGTERM) into an answer to `stopped`; the second interrupts at once."""
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
