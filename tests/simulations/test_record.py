"""Measurements that take a bound from the router, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import metrics, routers
from simulations import Clusters, Layer, Training, simulate
from simulations.data import Batch
from simulations.layer import Output
from simulations.record import measure

LABELS = np.array([0, 0, 1, 1, 2, 2], np.int32)


def alone(tree):
    """One seed, one arm."""
    return jax.tree.map(lambda leaf: leaf[None, None], tree)


def test_information_is_over_what_selection_and_probabilities_can_hold():
    """Two of four experts: the selection can hold ln 2 on three labels, probabilities ln 3."""
    router, rng = routers.gshard(4, 2), np.random.default_rng(0)
    logits = jnp.asarray(4 * rng.standard_normal((6, 4)), jnp.float32)
    routing, _ = router.step(jax.random.key(0), router.init(), logits)
    x, y = jnp.ones((6, 2), jnp.float32), jnp.ones((6, 1), jnp.float32)
    outputs = jnp.asarray(rng.standard_normal((6, 4, 1)), jnp.float32)
    experts = {"weight": jnp.asarray(rng.standard_normal((4, 2, 1)), jnp.float32)}
    batch = jax.tree.map(lambda leaf: leaf[None], Batch(x, y, jnp.asarray(LABELS)))
    measured = measure(Clusters(3), alone(experts), alone(Output(y, routing, outputs)), batch, jnp.float32(2))
    for name, of, most in (("information", routing.selected, 2.0), ("soft_information", routing.probs, 3.0)):
        table = np.zeros((3, 4))
        np.add.at(table, LABELS, np.asarray(of, float))
        held = float(metrics.mutual_information(jnp.asarray(table))) / np.log(most)
        assert float(measured[name][0, 0]) == pytest.approx(held, rel=1e-5)


def test_information_of_a_run_is_over_what_its_routes_can_hold():
    """Four of eight experts hold at most ln 2. Labels are equally frequent, but for sampling."""
    training = Training(steps=1, batch=8, records=1, test_tokens=1024)
    result = simulate("gshard", Clusters(mean=0.0), Layer(gate_std=1.0), training, 1).isel(arm=0, seed=0, step=-1)
    joint = result["assignment"].values.astype(float) / (8 * 4)
    against = joint.sum(axis=0) * joint.sum(axis=1, keepdims=True)
    held = (joint * np.log(np.where(joint > 0, joint, 1) / against)).sum()
    assert float(result["information"]) == pytest.approx(held / np.log(2), rel=0.05)
