"""What routers cost in a forward pass, by the clock and by core time (after Table 9 of Hi-MoE)."""

import dataclasses
import operator
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from himoe_theory import _checks
from himoe_theory.objectives import View

from ..arms import Arm
from ..provenance import processor
from .config import scaled_by_default
from .model import Model
from .parameters import layer_name

SHAPE: Mapping[str, int] = {
    "layers": 6,
    "heads": 8,
    "dim": 256,
    "context": 256,
    "vocabulary": 256,
    "width": 1024,
    "stride": 2,
}
PARTS = ("forward", "routers")
CLOCKS = ("seconds", "core seconds")


@dataclasses.dataclass(frozen=True)
class RouterTime:
    """Forward passes with the training loss, and the same routers and objectives alone on the inputs they had there.

    Programs of all arms take turns, so that what else the machine does meets all of them.
    """

    arms: tuple[Arm, ...]
    shape: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(SHAPE))
    batch: int = 8
    rounds: int = 15
    seed: int = 0
    """Of parameters, tokens and random policies."""

    def __post_init__(self):
        _checks.count("number of arms", len(self.arms))
        _checks.count("rounds", self.rounds)
        _checks.count("batch", self.batch)

    def pieces(self) -> list["RouterTime"]:
        """One: side by side, arms would disturb each other."""
        return [self]

    def simulate(self, report: Callable[[float], None]) -> xr.Dataset:
        """`time` over (arm, part, clock, round), for all mixtures together; `layers`, the number of mixtures."""
        began = time.perf_counter()
        programs = {arm.name: self._programs(arm) for arm in self.arms}
        found = np.empty((len(self.arms), len(PARTS), len(CLOCKS), self.rounds))
        for turn in range(-1, self.rounds):  # the first warms caches up
            for a, own in enumerate(programs.values()):
                for b, program in enumerate(own):
                    taken = _timed(program)
                    if turn >= 0:
                        found[a, b, :, turn] = taken
            report((turn + 1) / self.rounds)
        layers = [len(self._model(arm).moe_layers) for arm in self.arms]
        return xr.Dataset(
            {"time": (("arm", "part", "clock", "round"), found), "layers": ("arm", layers)},
            {"arm": [arm.name for arm in self.arms], "part": list(PARTS), "clock": list(CLOCKS)},
            {
                "seconds": time.perf_counter() - began,
                "dtype": "float32",
                "processor": processor(),
                "cores": os.cpu_count() or 1,
                "flags": os.environ.get("XLA_FLAGS", ""),  # programs of the figures' processes are compiled plainly
            },
        )

    def combine(self, pieces: Sequence[xr.Dataset]) -> xr.Dataset:
        """The only piece."""
        (piece,) = pieces
        return piece

    def _model(self, arm: Arm) -> Model:
        return Model(arm=arm, router_scale=scaled_by_default(arm), **self.shape)

    def _programs(self, arm: Arm) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Both parts of one arm, compiled and given their arguments."""
        model = self._model(arm)
        parameters, key = model.init(self.seed), jax.random.key(self.seed)
        state = model.init_state()
        text = np.random.default_rng(self.seed).integers(0, model.vocabulary, (self.batch, model.context + 1))
        tokens, targets = jnp.asarray(text[:, :-1], jnp.int32), jnp.asarray(text[:, 1:], jnp.int32)

        def forward(parameters: Any) -> Any:
            return model.loss(parameters, state, tokens, targets, key=key)[0]

        def routers(parameters: Any, hidden: Any) -> Any:
            found = []
            seen = model.seen(parameters, tokens)
            for row, (number, x) in enumerate(zip(model.moe_layers, hidden, strict=True)):
                own = jax.random.fold_in(key, row)
                held = jax.tree.map(operator.itemgetter(row), state)
                network = parameters["layers"][layer_name(number)]["moe"]
                routing, moved, memory = model.route(network, held, seen._replace(x=x), own, True)
                seen = seen._replace(memory=memory)
                found.append((routing.experts, routing.combine, moved, model.terms(View(routing), 0)))
            return found

        _, aux = jax.jit(lambda p: model.loss(p, state, tokens, targets, key=key, records=True))(parameters)
        whole = jax.jit(forward).lower(parameters).compile()
        alone = jax.jit(routers).lower(parameters, aux.hidden).compile()
        return lambda: whole(parameters), lambda: alone(parameters, aux.hidden)


def _timed(program: Callable[[], Any]) -> tuple[float, float]:
    began = time.perf_counter(), time.process_time()
    jax.block_until_ready(program())
    return time.perf_counter() - began[0], time.process_time() - began[1]
