"""Arms: the settings that papers compare, each a router, its objectives with coefficients, and where its logits come
from.

Published numbers, unless an arm says otherwise: load 0.01, intra 0.1, inter 0.05, tau 0.01, beta 0.9, temperature 1
(Hi-MoE, nanoGPT setting), bias step 0.001 (loss-free), z 0.001 (ST-MoE). Flat arms select as many experts as grouped
ones.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from himoe_theory import KeepRandomly, Partition, Router, TopK, _checks, routers
from himoe_theory.objectives import OBJECTIVES, OUTPUT_OBJECTIVES

Gate = Literal["learned", "frozen", "planted"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A router, objective coefficients, and the source of the logits.

    `gate`: `learned` (linear in the token, trained), `frozen` (linear, left at its random start) or `planted` (the
    expert whose number is the token's label, modulo the experts).
    """

    name: str
    router: Router
    terms: Mapping[str, float]
    """Objective name → coefficient, added to the task loss."""
    summary: str
    gate: Gate = "learned"

    def __post_init__(self):
        for name, coefficient in self.terms.items():
            if name not in OBJECTIVES and name not in OUTPUT_OBJECTIVES:
                known = ", ".join(sorted([*OBJECTIVES, *OUTPUT_OBJECTIVES]))
                raise ValueError(f"`terms` must name known objectives; got {name!r}, known are {known}.")
            _checks.coefficient(f"terms[{name}]", coefficient)

    def with_terms(self, **coefficients: float) -> "Arm":
        """The same arm with some coefficients set."""
        return dataclasses.replace(self, terms={**self.terms, **coefficients})


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
        Arm("planted", _top_1(partition), {}, "control: expert = label, top-1", gate="planted"),
        Arm("frozen", uncorrected, {}, "control: random router, never trained, grouped", gate="frozen"),
    )
    return {arm.name: arm for arm in every}


def _top_1(partition: Partition) -> Router:
    return Router("planted", partition, TopK(1), "himoe-theory")


def choose(names: list[str], available: Mapping[str, Arm]) -> list[Arm]:
    """Arms by name. **Raises:** `ValueError` naming the unknown one and all known."""
    for name in names:
        if name not in available:
            raise ValueError(f"`arm` must be one of {', '.join(available)}; got {name!r}.")
    return [available[name] for name in names]
