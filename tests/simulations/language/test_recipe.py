"""The recipe: schedule, decay and steps against values worked out by hand or in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simulations.gates import Frozen
from simulations.language.recipe import Recipe, decays

from .small import model, recipe


def test_warm_up_never_starts_at_zero_and_the_cosine_ends_at_its_share():
    rate = Recipe(steps=100, warmup=4, learning_rate=1.0, final_share=0.1).rate()
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_allclose([rate(t) for t in range(5)], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
        np.testing.assert_allclose(rate(52), 0.55, rtol=1e-6)  # half-way between step 4 and step 100
        np.testing.assert_allclose(rate(100), 0.1, rtol=1e-5)


def test_two_steps_of_adamw_with_clipping():
    """Kingma and Ba's formulas with decoupled decay, written out."""
    given = Recipe(steps=10, warmup=1, learning_rate=0.5, clip=1.0, weight_decay=0.1)
    start = {"w": {"weight": np.array([[3.0, -2.0]])}, "norm": {"weight": np.array([1.0])}}
    gradients = [
        {"w": {"weight": np.array([[3.0, 0.0]])}, "norm": {"weight": np.array([4.0])}},  # norm 5, clipped to 1
        {"w": {"weight": np.array([[0.1, 0.2]])}, "norm": {"weight": np.array([0.2])}},  # norm 0.3, left alone
    ]
    optimizer = given.optimizer()
    p = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(p)
    expected = {"w": np.array([3.0, -2.0]), "norm": np.array([1.0])}
    m = {name: np.zeros_like(value) for name, value in expected.items()}
    v = {name: np.zeros_like(value) for name, value in expected.items()}
    for t, (gradient, rate, scale) in enumerate(zip(gradients, (0.25, 0.5), (0.2, 1.0), strict=True)):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, p)
        p = optax.apply_updates(p, updates)
        for name, decay in (("w", 0.1), ("norm", 0.0)):
            g = scale * gradient[name]["weight"].ravel()
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.95 * v[name] + 0.05 * g**2
            corrected = (m[name] / (1 - 0.9 ** (t + 1))) / (np.sqrt(v[name] / (1 - 0.95 ** (t + 1))) + 1e-8)
            expected[name] = expected[name] - rate * (corrected + decay * expected[name])
    np.testing.assert_allclose(p["w"]["weight"].ravel(), expected["w"], rtol=1e-6)
    np.testing.assert_allclose(p["norm"]["weight"], expected["norm"], rtol=1e-6)


def test_matrices_decay_and_nothing_else():
    marks = decays(model().shapes())
    leaves = jax.tree_util.tree_leaves_with_path(marks)
    kept = {".".join(key.key for key in path) for path, decay in leaves if not decay}
    assert {name.rsplit(".", 1)[-1] for name in kept if "norm" not in name} == {"bias", "scale"}
    assert all(name.endswith(("bias", "scale")) or "norm" in name for name in kept)
    moe = marks["layers"]["00"]["moe"]
    assert moe["gate"]
    assert moe["in"] == {"weight": True, "bias": False}
    assert marks["embedding"] == {"token": True, "position": True}
    assert not decays(model().shapes(), Frozen())["layers"]["00"]["moe"]["gate"]


def test_records_are_evenly_spaced_and_include_both_ends():
    assert recipe(steps=10, records=3).record_steps == (0, 4, 8, 10)
    assert recipe(steps=3, records=3, warmup=0).record_steps == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batches": 3}, "`micro_batches` must divide `batch`; got 3 micro-batches, 4 sequences"),
        ({"micro_batches": 5}, r"`micro_batches` must be at most 4 \(batch\); got 5"),
        ({"warmup": 6}, r"`warmup` must be at most 5 \(steps - 1\); got 6"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0; got 0"),
        ({"final_share": 1.5}, "`final_share` must be .* 1.*; got 1.5"),
        ({"compute": "float16"}, "`compute` must be float32 or bfloat16; got 'float16'"),
        ({"steps": 0}, "`steps` must be at least 1; got 0"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_recipes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        recipe(**fields)
