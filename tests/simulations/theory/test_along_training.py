"""Angles along a training run: the first of them against differences of losses at the untrained gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations import Clusters, Layer, Training, arms, theory
from simulations.gates import Linear
from simulations.training import Source

SEED, STEP = 3, 1e-8
"""So short a step that no token changes its experts, where the loss jumps."""


def losses(gate, parameters, batch):
    """Task by the layer's own forward pass; R_intra and R_inter from the probabilities, in float64."""
    router = arms()["hi-moe"].router
    every = {**parameters, "gate": gate}
    key, state = jax.random.key(0), jnp.zeros(8)
    output, _ = Layer().apply(every, router, Linear(), state, batch.x, batch.labels, key=key, training=False)
    probs = jax.nn.softmax(batch.x @ gate.T)
    task = jnp.square(output.prediction - batch.y).mean() / 2
    masses = probs.reshape(-1, 4, 2).sum(axis=2)
    return jnp.stack([task, -jnp.square(probs).sum(axis=1).mean(), jnp.square(masses).sum(axis=1).mean()])


def test_the_first_angles_are_those_of_differences():
    found = theory.along_training(steps=2, records=1, seeds=(SEED,))
    assert list(found.step.values) == [0, 2]
    data = Clusters(mean=4.0, outputs=4)
    source = Source(data, Training(steps=2, records=1, batch=256, test_tokens=512))
    keys = jax.vmap(jax.random.key)(jnp.asarray([SEED], jnp.uint32))
    test = jax.tree.map(lambda leaf: leaf[0], source.test(source.truths((SEED,)), keys))
    double = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (test.x, test.y))
    batch = test._replace(x=double[0], y=double[1])
    drawn = Layer().init(np.random.default_rng((SEED, 1)), 8, data.dim, data.outputs)
    parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), drawn)
    moves = STEP * np.eye(8 * data.dim).reshape(-1, 8, data.dim)
    moved = parameters["gate"] + jnp.asarray(np.concatenate([moves, -moves]))
    up, down = np.split(np.asarray(jax.jit(jax.vmap(lambda g: losses(g, parameters, batch)))(moved)), 2)
    slopes = ((up - down) / (2 * STEP)).T
    unit = slopes / np.linalg.norm(slopes, axis=1, keepdims=True)
    names = ["task", "intra_group_global", "inter_group_dense"]
    first = found["cosine"].isel(seed=0, step=0).sel(a=names, b=names).values
    np.testing.assert_allclose(first, unit @ unit.T, atol=2e-3)
    assert np.abs(first - np.eye(3)).max() > 0.05
    assert np.isfinite(found["experts_cosine"]).all()
    # Two steps later the angles are others: it is the training that is recorded.
    assert float(np.abs(found["cosine"][0, 1] - found["cosine"][0, 0]).max()) > 1e-4
    assert found["cosine"].values[0, 1].trace() == pytest.approx(5, abs=1e-4)
