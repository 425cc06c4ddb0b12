"""Partners: the runs beside which a run is judged, on the same data, layer, training and seed.

*Frozen*: the run's own router over a gate left as it was drawn, without objectives. Where its weights do not sum to 1,
also with weights that do, and the better of the two counts: else a gate that learned to weigh its experts more, which
speeds them up, would seem to have learned what to select. *Planted*: the control that reads the label. They depend on
neither the objectives nor, but for its number of experts, the planted one on the router: runs of one topology share
them.
"""

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from himoe_theory import Renormalised, Router, Softmax

from .arms import Arm, planted
from .gates import Frozen, Planted
from .regimes import DEFAULT, Thresholds, gain, has_diverged, keeps_all, name_regimes
from .schedules import named
from .training import Setting

JUDGED_BY = ("test_error", "test_loss", "information", "soft_information")
"""Measurements that regimes are read from."""


class Places(NamedTuple):
    """Where a setting's partners stand."""

    frozen: tuple[int, int]
    """The better of the two counts; the same where weights sum to 1."""
    planted: int


def with_partners(settings: Sequence[Setting]) -> tuple[list[Setting], list[Places]]:
    """The settings, then those of their partners that are not among them; and for each where its partners stand."""
    every, keys, taken = list(settings), _Keys(), {setting.arm.name for setting in settings}
    place: dict[Hashable, int] = {}
    for number, setting in enumerate(settings):
        place.setdefault(keys.of(setting), number)

    def stand(setting: Setting) -> int:
        key = keys.of(setting)
        if key not in place:
            place[key] = len(every)
            every.append(dataclasses.replace(setting, arm=_named_apart(setting.arm, taken, len(every))))
        return place[key]

    found = [([stand(frozen) for frozen in _frozen(one)], stand(_planted(one))) for one in settings]
    return every, [Places((frozen[0], frozen[-1]), planted) for frozen, planted in found]


def judge(
    first: Mapping[str, np.ndarray],
    final: Mapping[str, np.ndarray],
    places: Sequence[Places],
    at: Thresholds = DEFAULT,
) -> dict[str, np.ndarray]:
    """Errors of the partners, gain and regime of runs, `[settings, seeds]`.

    **Arguments:** `first`, `final`: measurements at the start and at the end, `[settings and partners, seeds]`, in the
    order of `with_partners`; without rows of partners, or NaN there, no run is judged. `places`: where each setting's
    partners stand.
    """
    diverged = has_diverged(final["test_loss"], first["test_loss"], at)
    error = np.where(diverged, np.nan, final["test_error"]).astype(np.float64)
    own = slice(len(places))

    def of(place: int) -> np.ndarray:
        return error[place] if 0 <= place < len(error) else np.full(error.shape[1:], np.nan)

    partner = {
        "frozen": np.stack([np.min([of(place) for place in one.frozen], axis=0) for one in places]),
        "planted": np.stack([of(one.planted) for one in places]),
    }
    # Where many experts are selected, probabilities may tell labels apart that the selection hardly does.
    information = np.fmax(final["information"][own], final["soft_information"][own])
    gained = gain(error[own], first["test_error"][own].astype(np.float64), **partner, at=at)
    found = {f"{kind}_error": values for kind, values in partner.items()} | {"gain": gained}
    return {name: values.astype(np.float32) for name, values in found.items()} | {
        "regime": name_regimes(gained, information, diverged[own], at)
    }


def _frozen(setting: Setting) -> list[Setting]:
    gate = Frozen(setting.arm.gate) if setting.arm.gate.learns else Frozen()
    kept = {name: one for name, one in setting.arm.schedules.items() if not name.startswith("terms.")}
    arm = dataclasses.replace(setting.arm, terms={}, schedules=kept, gate=gate, name=f"{setting.arm.name}/frozen")
    found = [arm]
    if not _sums_to_one(arm.router):
        router = dataclasses.replace(arm.router, weighting=Renormalised())
        found.append(dataclasses.replace(arm, router=router, name=f"{arm.name}/renormalised"))
    return [dataclasses.replace(setting, arm=one) for one in found]


def _sums_to_one(router: Router) -> bool:
    """Whether a token's weights do where nothing is dropped; a softmax over all experts does, however it is weighed."""
    return router.weighting.sums_to_one or (keeps_all(router) and router.score == Softmax())


def _planted(setting: Setting) -> Setting:
    arm = _planted_arm(setting.arm.router.partition)
    return dataclasses.replace(setting, arm=dataclasses.replace(arm, topology=setting.arm.topology))


_planted_arm = functools.lru_cache(planted)  # sweeps ask for it once a setting


class _Keys:
    """Of settings: equal for those that train alike."""

    def __init__(self):
        self._routers: dict[tuple[int, bool], tuple[Router, Hashable]] = {}  # which keeps routers, and so their ids

    def of(self, setting: Setting) -> Hashable:
        """The key of one."""
        arm = setting.arm
        terms = tuple(sorted((name, value) for name, value in arm.terms.items() if value))
        acts = named(arm.schedules), arm.events
        return arm.gate, arm.topology, acts, self._of_router(arm), terms, setting.data, setting.layer, setting.training

    def _of_router(self, arm: Arm) -> Hashable:
        """Thousands of settings may have one router: it is taken apart once."""
        seen = id(arm.router), arm.gate == Planted()
        if seen not in self._routers:
            self._routers[seen] = arm.router, _router_key(arm)
        return self._routers[seen][1]


def _router_key(arm: Arm) -> Hashable:
    router = dataclasses.replace(arm.router, name="", source="")
    numbers, structure = jax.tree.flatten(router)
    control = dataclasses.replace(_planted_arm(router.partition).router, name="", source="")
    if arm.gate == Planted() and router == control:
        structure = router.partition.num_experts  # its one route knows no groups
    return structure, tuple(map(float, numbers))


def _named_apart(arm: Arm, taken: set[str], number: int) -> Arm:
    """The arm with a name that is not taken yet, and is from now on."""
    name = arm.name
    while name in taken:
        name += f" {number}"
    taken.add(name)
    return dataclasses.replace(arm, name=name)
