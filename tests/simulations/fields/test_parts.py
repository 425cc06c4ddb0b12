"""Parts of routers as fields of a sweep: each can be replaced, each number set, and what does not fit is named."""

import equinox as eqx
import pytest

from himoe_theory import (
    Capacity,
    GroupedTopK,
    KeepAbove,
    KeepRandomly,
    Partition,
    SelectionBias,
    Sigmoid,
    SoftmaxThenMask,
    TopK,
)
from simulations.gates import Cosine, Frozen, Jittered, Planted, TwoLevel
from simulations.sweep import build, grid
from simulations.topology import Topology


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [
        ({"arm": "loss-free", "router.controller.rate": 0.05}, "controller", SelectionBias(0.05)),
        ({"arm": "st-moe", "router.policy.threshold": 0.3}, "policy", KeepRandomly(0.3)),
        ({"arm": "st-moe", "router.policy.kind": "above"}, "policy", KeepAbove(0.2)),
        ({"router.capacity.factor": 1.25}, "capacity", Capacity(1.25)),
        ({"router.weighting.kind": "softmax-then-mask"}, "weighting", SoftmaxThenMask()),
        ({"router.score.kind": "sigmoid"}, "score", Sigmoid()),
        ({"arm": "gshard", "router.selection.k": 3}, "selection", TopK(3)),
        ({"router.group_of": [0, 0, 0, 1, 1], "router.per_group": [2, 1]}, "selection", GroupedTopK((2, 1))),
        ({"router.group_of": [0, 0, 0, 1, 1]}, "partition", Partition((0, 0, 0, 1, 1))),
    ],
)
def test_every_part_of_a_router_is_a_field(values, part, expected):
    (setting,) = grid({}, fixed=values).settings()
    assert eqx.tree_equal(getattr(setting.arm.router, part), expected)


def test_a_topology_has_fields():
    values = {"topology.shared": 2, "topology.widths": (1, 2), "topology.nested": True}
    assert build(values).arm.topology == Topology(shared=2, widths=(1, 2), nested=True)
    with pytest.raises(ValueError, match="`rounds` must be at least 1; got 0"):
        build({"topology.rounds": 0})


def test_the_gate_is_a_field():
    assert build({"gate": "frozen"}).arm.gate == Frozen()
    assert build({"arm": "planted", "gate.height": 5.0}).arm.gate == Planted(5.0)
    assert build({"gate": "two-level", "gate.groups": 4}).arm.gate == TwoLevel(4)
    assert build({"gate": "jittered", "gate.inner": "cosine", "gate.epsilon": 0.5}).arm.gate == Jittered(Cosine(), 0.5)
    with pytest.raises(ValueError, match=r"`gate.groups` must be a field of 'cosine'; got 4, known are"):
        build({"gate": "cosine", "gate.groups": 4})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"arm": "gshard", "router.controller.rate": 0.1},
            "`router.controller.rate` must be a field of 'none'; got 0.1, known are none",
        ),
        (
            {"router.controller.rate": 0.1},
            "must be a field of 'logit-average'; got 0.1, known are router.controller.tau, router.controller.beta, ",
        ),
        (
            {"arm": "gshard", "router.controller.kind": "selection-bias"},
            "`router.controller.rate` must be given for 'selection-bias'; got nothing",
        ),
        ({"router.group_of": [0, 0, 1], "router.experts": 3}, "must be given without .* got 3 and None"),
        ({"router.experts": 10**30}, r"`router.experts` must be at most 65536; got 1000000000000000000000000000000"),
        ({"data.shared": [0.1, 0.2]}, r"`data.shared` of 'clusters' must be a number; got \(0\.1, 0\.2\)"),
        ({"data.mean": 10**400}, r"`data.mean` in \[fixed\] must be a number; got 1000"),
        ({"router.group_of": [0, 2]}, r"must use each group 0..M-1 at least once; got group_of=\(0, 2\)"),
        ({"arm": "gshard", "router.selection.k": 9}, "`k` must be .*; got 9"),
    ],
)
def test_parts_that_do_not_fit_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        grid({}, fixed=values).settings()
