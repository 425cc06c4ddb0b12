"""The layer is the sum over experts that the definition says, and each gate learns what it may."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations import Cubic, Layer, Linear, TwoLayer, arms

ARMS = arms()
RNG = np.random.default_rng(3)
X = RNG.standard_normal((7, 16)).astype(np.float32)
LABELS = jnp.asarray([0, 9, 3, 3, 7, 1, 2], jnp.int32)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def by_hand(expert, parameters, x):
    p = {k: np.asarray(v, np.float64) for k, v in parameters.items()}
    if isinstance(expert, Linear):
        return x @ p["weight"]
    if isinstance(expert, TwoLayer):
        return gelu(x @ p["in"] + p["in_bias"]) @ p["out"] + p["out_bias"]
    return np.array([sum((filter_ @ x) ** 3 for filter_ in filters) for filters in p["weight"]])


@pytest.mark.parametrize("expert", [Linear(), TwoLayer(5), Cubic(3)])
@pytest.mark.parametrize("arm", ["dense", "gshard", "loss-free", "hi-moe", "planted"])
def test_prediction_is_the_weighted_sum_of_selected_experts(expert, arm):
    layer, router = Layer(expert, gate_std=1.0), ARMS[arm].router
    parameters = jax.tree.map(jnp.asarray, layer.init(np.random.default_rng(0), 8, 16, 2, ARMS[arm].gate))
    output, _ = layer.apply(
        parameters,
        router,
        ARMS[arm].gate,
        jnp.zeros(8, jnp.float32),
        jnp.asarray(X),
        LABELS,
        key=jax.random.key(0),
        training=True,
    )
    for t in range(len(X)):
        total = np.zeros(2)
        for r in range(router.routes):
            e = int(output.routing.experts[t, r])
            one = {k: v[e] for k, v in parameters["experts"].items()}
            total += float(output.routing.weights[t, r]) * by_hand(expert, one, X[t].astype(np.float64))
        np.testing.assert_allclose(output.prediction[t], total, rtol=2e-5, atol=2e-5)


def test_gates_learn_what_they_may():
    layer = Layer(learn_scale=True)
    parameters = jax.tree.map(jnp.asarray, layer.init(np.random.default_rng(0), 8, 16, 1))

    def loss(p, arm):
        out, _ = layer.apply(
            p,
            ARMS[arm].router,
            ARMS[arm].gate,
            jnp.zeros(8, jnp.float32),
            jnp.asarray(X),
            LABELS,
            key=jax.random.key(0),
            training=True,
        )
        return jnp.square(out.prediction - 1).sum()

    def size(tree):
        return float(jnp.abs(tree).max())

    learned, frozen, planted = (jax.grad(loss)(parameters, arm) for arm in ("moge", "frozen", "planted"))
    assert size(learned["gate"]) > 0
    assert size(frozen["gate"]) == size(planted["gate"]) == 0
    assert min(size(g["experts"]["weight"]) for g in (learned, frozen, planted)) > 0
    assert size(learned["scale"]) > 0


def test_planted_gate_sends_a_label_to_its_expert_modulo_their_number():
    layer = Layer()
    parameters = jax.tree.map(jnp.asarray, layer.init(np.random.default_rng(0), 8, 16, 1))
    logits = layer.logits(parameters, ARMS["planted"].gate, jnp.asarray(X), LABELS)
    np.testing.assert_array_equal(np.asarray(logits).argmax(axis=1), np.asarray(LABELS) % 8)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="`width` must be at least 1; got 0"):
        TwoLayer(0)
    with pytest.raises(ValueError, match="`filters` must be at least 1; got -2"):
        Cubic(-2)
    with pytest.raises(ValueError, match="`gate_std` must be finite and at least 0; got -1"):
        Layer(gate_std=-1.0)
