"""Arms: the settings that papers compare, each a router, its objectives with coefficients, and where its logits come
from.

Published numbers, unless an arm says otherwise: load 0.01, intra 0.1, inter 0.05, tau 0.01, beta 0.9, temperature 1
(Hi-MoE, nanoGPT setting), bias step 0.001 (loss-free), z 0.001 (ST-MoE). Flat arms select as many experts as grouped
ones.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from himoe_theory import KeepRandomly, Partition, Router, TopK, _checks, routers
from himoe_theory.objectives import Need, Objective
from himoe_theory.objectives.catalogue import chosen
from himoe_theory.plumbing.bring import HERE, Kind, Place, make, resolve

from . import schedules as scheduling
from .events import Every
from .gates import Gate, checked
from .schedules import Schedule
from .topology import PLAIN, Topology


@dataclasses.dataclass(frozen=True)
class Arm:
    """A router, objective coefficients, and the source of the logits.

    **Arguments:** `terms`: objective, by name or as a record -> coefficient, added to the task loss; kept by name.
    `gate`: or its name in `gates.GATES`, such as `learned` (linear in the token, trained), `frozen` (linear, left at
    its random start) or `planted` (the expert whose number is the token's label, modulo the experts). `topology`: what
    stands around the routed experts. `schedules`: factors of numbers, by the step (see `schedules`). `events`: what
    happens to a run between steps (see `events`). `objectives`: records that `terms` may name besides those of the
    catalogue; the arm keeps those of its terms, so that it means what it meant when it was made.
    """

    name: str
    router: Router
    terms: Mapping[str, float] | Mapping[Objective, float] | Mapping[str | Objective, float]
    summary: str
    gate: Gate | Any = "learned"  # once made, always a gate
    topology: Topology = dataclasses.field(default=PLAIN, metadata={"described": "if changed"})
    schedules: Mapping[str, Schedule] = dataclasses.field(default_factory=dict, metadata={"described": "if changed"})
    events: tuple[Every, ...] = dataclasses.field(default=(), metadata={"described": "if changed"})
    objectives: Mapping[str, Objective] = dataclasses.field(
        default_factory=dict, repr=False, metadata={"described": False}
    )

    def __post_init__(self):
        object.__setattr__(self, "gate", checked(self.gate))
        given: Mapping[str | Objective, float] = dict(self.terms)
        found = [(chosen(term, self.objectives), coefficient) for term, coefficient in given.items()]
        for objective, coefficient in found:
            _checks.coefficient(f"terms[{objective.name}]", coefficient)
        records = {objective.name: objective for objective, _ in found}
        if len(records) < len(found):
            names = [objective.name for objective, _ in found]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"`terms` must name each objective once; {twice!r} is there {names.count(twice)} times.")
        object.__setattr__(self, "objectives", records)
        object.__setattr__(self, "terms", {objective.name: coefficient for objective, coefficient in found})
        scheduling.check(self.schedules, self.router, tuple(self.terms))

    def with_terms(self, *records: Mapping[Objective, float], **coefficients: float) -> "Arm":
        """The same arm with some coefficients set: by name, or of records, which replace those of their names."""
        given = {objective: c for some in records for objective, c in some.items()}
        own = {**self.objectives, **{objective.name: objective for objective in given}}
        by_name = {objective.name: c for objective, c in given.items()}
        return dataclasses.replace(self, terms={**self.terms, **by_name, **coefficients}, objectives=own)

    @property
    def is_random(self) -> bool:
        """Whether a step needs a key."""
        return self.router.is_random or self.gate.is_random

    def needs(self, need: Need) -> bool:
        """Whether one of the objectives needs this."""
        return any(need in objective.needs for objective in self.objectives.values())


ARM = Kind("arm", "an Arm", "himoe.arms", lambda thing: isinstance(thing, Arm), offers=("partition", "per_group"))
"""What a user may bring: an arm, or a function that gives one for the experts and groups that are asked for:

    def mine(partition, per_group):
        return Arm("mine", routers.moge(partition, per_group), {"p_squared": 0.1}, "MoGE with the sum of squared means")
"""

LOAD, INTRA, INTER = "load_per_token", "intra_group_global", "inter_group_dense"


def arms(
    partition: Partition | None = None,
    per_group: int | tuple[int, ...] = 1,
    *,
    load: float = 0.01,
    intra: float = 0.1,
    inter: float = 0.05,
    tau: float = 0.01,
    beta: float = 0.9,
    temperature: float = 1.0,
) -> dict[str, Arm]:
    """All arms by name, for a partition (default: 8 experts in 4 groups)."""
    partition = Partition.equal(8, 4) if partition is None else partition
    n = partition.num_experts
    grouped = routers.himoe(partition, per_group, tau=tau, beta=beta, temperature=temperature)
    # tau 0 and temperature 1 are MoGE exactly; one controller for all rows lets them run in one compiled program.
    uncorrected = routers.himoe(partition, per_group, tau=0.0, beta=beta, temperature=1.0)
    k = grouped.routes
    flat = routers.gshard(n, k, partition=partition)
    # By D3 the code's L_v with weight intra (N - 1) is Hi-MoE's intra term with weight intra: like against like.
    variance = intra * (n - 1)
    orthogonality = 0.01
    guo = "canonical load; L_o on the span of the other outputs, L_v across experts"
    every = (
        Arm("dense", routers.dense(partition), {}, "every expert, softmax weights"),
        Arm("gshard", flat, {LOAD: load}, f"free top-{k}, load loss"),
        Arm(
            "st-moe",
            routers.st_moe(n, k, KeepRandomly(0.2), partition=partition),
            {"load_first_choice": load, "z": 0.001},
            f"free top-{k}, later experts kept at random by gate, load of first choices, z-loss",
        ),
        Arm(
            "switch",
            routers.switch(n, partition=partition),
            {LOAD: load},
            "free top-1, weight not renormalised, load loss",
        ),
        Arm("loss-free", routers.loss_free(n, k, partition=partition), {}, f"sigmoid, free top-{k} of score + bias"),
        Arm("moge", uncorrected, {LOAD: load}, "top-K in every group, load loss (Table 3, row 1)"),
        Arm("moge-intra", uncorrected, {LOAD: load, INTRA: intra}, "MoGE + intra (row 2)"),
        Arm("moge-inter", uncorrected, {LOAD: load, INTER: inter}, "MoGE + inter (row 3)"),
        Arm("moge-bias", grouped, {LOAD: load}, "MoGE + bias correction (row 4)"),
        Arm("moge-intra-inter", uncorrected, {LOAD: load, INTRA: intra, INTER: inter}, "MoGE + intra + inter (row 5)"),
        Arm("hi-moe", grouped, {LOAD: load, INTRA: intra, INTER: inter}, "Hi-MoE, all parts (row 6)"),
        Arm("free-top-k", flat, {LOAD: load, INTRA: intra, INTER: inter}, f"Hi-MoE's objectives, free top-{k}"),
        Arm("guo-none", flat, {}, f"free top-{k}, task loss alone"),
        Arm("guo-aux", flat, {"load": load}, guo),
        Arm("guo-aux-lo", flat, {"load": load, "orthogonality_span": orthogonality}, guo),
        Arm("guo-aux-lv", flat, {"load": load, "variance_across_experts": variance}, guo),
        Arm(
            "guo-all",
            flat,
            {"load": load, "orthogonality_span": orthogonality, "variance_across_experts": variance},
            guo,
        ),
        planted(partition),
        Arm("frozen", uncorrected, {}, "control: untrained, random gate left as it was drawn, grouped", gate="frozen"),
    )
    return {arm.name: arm for arm in every}


def planted(partition: Partition) -> Arm:
    """The control that reads the label."""
    router = Router("planted", partition, TopK(1), "himoe-theory")
    return Arm("planted", router, {}, "control: expert = label, top-1", gate="planted")


def without_task_gradient(arm: Arm) -> bool:
    """Whether a gate that should learn gets no gradient from the task, whatever the task is."""
    return arm.gate.learns and not arm.router.task_reaches_gate


def choose(names: Sequence[str], available: Mapping[str, Arm], *, place: Place = HERE, **offered: object) -> list[Arm]:
    """Arms by name, those of users included (see `ARM`).

    **Arguments:** `place`: where their files are. `offered`: what their functions may ask for. **Raises:** `ValueError`
    for a name that is unknown, or stands for something else.
    """
    return [make(ARM, name, resolve(ARM, name, available, place), offered=offered) for name in names]
