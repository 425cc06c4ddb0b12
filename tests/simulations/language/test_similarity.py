"""Equal experts are alike in every measure; the powers of the gate's inputs are those of NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.language import similarity

from .small import model


@pytest.fixture(scope="module")
def measured():
    """What `compare` says of experts as they start, and of copies of the first; and the gate's inputs."""
    small = model()
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 16, (4, 8)), jnp.int32)

    @functools.partial(jax.jit)
    def compare(parameters):
        _, aux = small.loss(parameters, small.init_state(), tokens, tokens, training=False, records=True)
        return *similarity.compare(small, parameters, aux.routing, aux.hidden, jnp.float32), aux.hidden

    parameters = small.init(0)
    # Initial outputs are those of nearly linear networks: larger weights tell experts apart.
    moe = {name: jax.tree.map(lambda w: 20 * w, part) for name, part in parameters["layers"]["00"]["moe"].items()}
    own = parameters | {"layers": {"00": parameters["layers"]["00"] | {"moe": moe}}}
    copied = {
        name: jax.tree.map(lambda w: jnp.broadcast_to(w[:1], w.shape), part) if name in ("in", "out") else part
        for name, part in moe.items()
    }
    same = own | {"layers": {"00": own["layers"]["00"] | {"moe": copied}}}
    return compare(own), compare(same)


def test_copies_are_alike_in_every_measure(measured):
    (apart, _, _), (same, _, _) = measured
    for name in ("output_similarity", "output_cka", "parameter_similarity", "expert_overlap"):
        np.testing.assert_allclose(same[name], 1, atol=1e-4, err_msg=name)
        assert abs(float(apart[name][0])) < 0.95, name


def test_powers_are_those_of_the_gates_inputs(measured):
    (found, outputs, (hidden,)), _ = measured
    x = np.asarray(hidden, np.float64)
    assert outputs.shape == (1, *x.shape)
    np.testing.assert_allclose(found["common_power"], [np.square(x.mean(axis=0)).sum()], rtol=1e-5)
    largest = np.linalg.eigvalsh(np.cov(x.T, bias=True))[-1]
    np.testing.assert_allclose(found["contrast_power"], [largest], rtol=1e-5)


def test_silhouettes_by_layer():
    outputs = np.array([[[0.0], [0.1], [5.0], [5.1]], [[1.0], [2.0], [3.0], [4.0]]])
    apart, none = similarity.silhouettes(outputs, np.array([[0, 0, 1, 1], [2, 2, 2, 2]]))
    assert apart > 0.95
    assert none == 0
