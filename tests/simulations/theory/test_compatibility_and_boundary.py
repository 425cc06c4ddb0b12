"""Angles and edges on small versions, within the figures' bounds."""

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, routers
from himoe_theory.objectives import OBJECTIVES, View
from paper_figures.figures import boundary as edges
from paper_figures.figures import compatibility as angles
from simulations import theory
from simulations.theory import compatibility


def test_exact_relations_between_gradients():
    found = theory.cosines(concentrations=(0.3, 3.0), tokens=16)
    assert angles.exact_error(found) <= angles.BOUND
    euclidean = found["cosine"].sel(metric="Euclidean").values
    np.testing.assert_allclose(euclidean, np.swapaxes(euclidean, 1, 2), atol=1e-12)
    np.testing.assert_allclose(np.diagonal(euclidean, axis1=1, axis2=2), 1.0, rtol=1e-12)
    # In the Euclidean metric the two are not orthogonal: the relation is one of the metric.
    pair = {"a": "inter_group_dense", "b": "intra_group_conditional"}
    assert float(np.abs(found["cosine"].sel(metric="Euclidean", **pair)).max()) > 1e-3
    # Hi-MoE's two terms oppose each other.
    assert float(found["cosine"].sel(a="inter_group_dense", b="intra_group_global").max()) < -0.3
    assert np.isnan(found["cosine"].sel(metric="Fisher", a="z")).all()


def test_every_objective_is_mapped_or_a_multiple_of_one_that_is():
    """With group-limited selection of one expert and no bias correction, for logits of any spread."""
    router, rng = routers.moge(Partition.equal(8, 4), 1), np.random.default_rng(4)
    assert {*compatibility.MAPPED, *theory.DUPLICATES} == {
        name for name, each in OBJECTIVES.items() if each.of != "outputs"
    }
    for spread in (0.2, 4.0):
        logits = jnp.asarray(spread * rng.standard_normal((12, 8)))
        routing, _ = router.step(None, router.init(logits.dtype), logits)
        for name, other in theory.DUPLICATES.items():
            a, b = (np.asarray(OBJECTIVES[each].gradient(View(routing))).ravel() for each in (name, other))
            assert a @ b == pytest.approx(np.linalg.norm(a) * np.linalg.norm(b), rel=1e-12)


def test_edges_of_collapse():
    common = theory.common_mode(points=3, experts=4, steps=100)
    assert edges.edge_error(common) <= edges.BOUND
    # The full load needs half as much.
    np.testing.assert_allclose(
        common["edge"].sel(load_kind="frozen") / common["edge"].sel(load_kind="full"), 2, rtol=0.01
    )
    ratio = theory.group_ratio(sizes=(3,), groups=2, points=2)
    assert edges.edge_error(ratio) <= edges.BOUND
    np.testing.assert_allclose(ratio["growth"][0], [-0.5, 0.5], rtol=0.02)
