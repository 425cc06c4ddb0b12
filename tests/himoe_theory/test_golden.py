"""Equal to the authors' released routers: decisions exactly, numbers and gradients to 1e-9 relative in float64."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Renormalised, Sigmoid, assign_slots, from_dense, to_dense

from . import golden

GROUPED, FLAT = golden.cases("himoe_router"), golden.cases("flat_routers")
ALL = GROUPED | FLAT


@functools.cache
def routed(case):
    return golden.route(*ALL[case])


def close(actual, desired):
    """1e-9 relative, entry by entry; entries that cancel to nothing are compared on the scale of the largest."""
    desired = np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=1e-9, atol=1e-14 * np.abs(desired).max(initial=0.0))


@pytest.mark.parametrize("case", ALL)
def test_decisions(case):
    settings, arrays = ALL[case]
    routing, *_ = routed(case)
    experts, slots, kept, weights = routing.experts, routing.slots, routing.kept, routing.weights
    if settings.get("kind") == "lossfree":  # its columns are in no particular order: take the stored one
        np.testing.assert_array_equal(np.sort(experts), np.sort(arrays["expert_indices"]))
        stored = jnp.asarray(arrays["expert_indices"])
        weights = jnp.where(arrays["dispatch_mask"], from_dense(_undropped(routing), stored), 0)
        slots, kept = _slots_in_order(stored, routing)
        experts = stored
    np.testing.assert_array_equal(experts, arrays["expert_indices"])
    np.testing.assert_array_equal(slots, arrays["slot_indices"])
    np.testing.assert_array_equal(kept, arrays["dispatch_mask"])
    assert routing.capacity == int(arrays["capacity"])
    used = np.bincount(np.asarray(experts)[np.asarray(kept)], minlength=settings["n_experts"])
    np.testing.assert_array_equal(used, arrays["used_capacity"])
    close(weights, arrays["combine_weights"])


def _undropped(routing):
    """Loss-free gates of the whole selection, before drops."""
    gates = Renormalised(1e-20).weigh(from_dense(Sigmoid().log(routing.logits), routing.experts))
    return to_dense(gates, routing.experts, routing.partition.num_experts)


def _slots_in_order(stored, routing):
    slots = assign_slots(stored, jnp.ones(stored.shape, bool), routing.partition.num_experts)
    kept = slots < routing.capacity
    return jnp.where(kept, slots, -1), kept


@pytest.mark.parametrize("case", ALL)
def test_state(case):
    _, arrays = ALL[case]
    _, state, *_ = routed(case)
    reference = arrays.get("avg_logits", arrays.get("bias_after"))
    if reference is None:
        np.testing.assert_array_equal(state, 0.0)  # routers without a controller carry nothing
    else:
        close(state, reference)


@pytest.mark.parametrize("case", ALL)
def test_losses_and_gradients(case):
    settings, arrays = ALL[case]
    routing, _, forward, x, w = routed(case)
    stored = [name for name in arrays if name.endswith("_loss")]
    assert stored or settings["kind"] == "lossfree"
    losses = golden.losses(settings)
    gradients = golden.gradients({name: losses[name][0] for name in stored}, forward, x, w)
    for name in stored:
        value, gradient = losses[name]
        close(value(routing), arrays[name])
        dx, dw = gradients[name]
        close(dx, arrays[f"{name}__dx"])
        close(dw, arrays[f"{name}__dw"])
        closed = gradient(routing)
        close(closed @ w, arrays[f"{name}__dx"])
        close(closed.T @ x, arrays[f"{name}__dw"])


def test_all_reference_files_are_read():
    assert (len(GROUPED), len(FLAT)) == (26, 12) or golden.FOLDER != golden.Path(__file__).parents[1] / "golden"
