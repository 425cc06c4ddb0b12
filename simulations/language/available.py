"""The arms that a language model can have: those of `simulations.arms`, one in the paper's form, and no mixture."""

import dataclasses

from himoe_theory import Capacity, Partition, Router, routers

from ..arms import INTER, INTRA, LOAD, Arm, arms

PLAIN = "plain"


def available(
    partition: Partition | None = None,
    per_group: int | tuple[int, ...] = 1,
    *,
    capacity: float | None = None,
    **numbers: float,
) -> dict[str, Arm]:
    """All of them by name.

    **Arguments:** `partition`, `per_group`, `numbers`: as in `arms`. `capacity`: factor of the released code's
    capacity; without one nothing is dropped. Where every expert takes every token there is none.
    """
    partition = Partition.equal(8, 4) if partition is None else partition
    known = arms(partition, per_group, **numbers)
    every = (*known.values(), _paper(known["hi-moe"], partition, per_group), plain())
    if capacity is None:
        return {arm.name: arm for arm in every}
    return {arm.name: dataclasses.replace(arm, router=_limited(arm.router, capacity)) for arm in every}


def plain() -> Arm:
    """No mixture at all: one expert. See `plain_widths`."""
    return Arm(PLAIN, routers.dense(Partition.equal(1, 1)), {}, "no mixture: plain networks, as many active parameters")


def plain_widths(width: int, routes: int) -> dict[str, int]:
    """Fields of a plain model that is active in as many parameters as one whose tokens select `routes` experts of
    `width`, but for gates: those networks that would be mixtures are `routes` times as wide."""
    return {"width": routes * width, "dense_width": width}


def _paper(himoe: Arm, partition: Partition, per_group: int | tuple[int, ...]) -> Arm:
    """Hi-MoE by the paper's equations: weights not renormalised (5), regularisers of the corrected weights (6, 7)."""
    average = himoe.router.controller.average
    assert average is not None
    router = routers.himoe_paper(
        partition, per_group, tau=average.tau, beta=average.beta, temperature=average.temperature
    )
    terms = {
        LOAD: himoe.terms[LOAD],
        "intra_group_global_selection": himoe.terms[INTRA],
        "inter_group_selected": himoe.terms[INTER],
    }
    return Arm(
        "hi-moe-paper", router, terms, "Hi-MoE by the paper's equations: softmax, then mask; all weights corrected"
    )


def _limited(router: Router, factor: float) -> Router:
    """The router with a capacity, unless all experts take all tokens."""
    if router.is_dense:
        return router
    return dataclasses.replace(router, capacity=Capacity(factor, even=router.name != "loss-free"))
