"""Equal to the authors' released routers: decisions exactly, numbers and gradients to 1e-9 relative in float64."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Renormalised, Sigmoid, assign_slots, from_dense

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
    experts = stored = jnp.asarray(arrays["expert_indices"])
    slots, kept, weights = routing.slots, routing.kept, routing.combine
    if settings.get("kind") == "lossfree":  # its columns are in no particular order: take the stored one
        np.testing.assert_array_equal(np.sort(routing.experts), np.sort(stored))
        slots = assign_slots(routing.selected, stored)
        kept = slots < routing.capacity
        slots, weights = jnp.where(kept, slots, -1), jnp.where(kept, _undropped(routing), 0)
    else:
        experts = routing.experts
    slots, kept, weights = (from_dense(dense, experts) for dense in (slots, kept, weights))
    np.testing.assert_array_equal(experts, arrays["expert_indices"])
    np.testing.assert_array_equal(slots, arrays["slot_indices"])
    np.testing.assert_array_equal(kept, arrays["dispatch_mask"])
    assert routing.capacity == int(arrays["capacity"])
    used = np.bincount(np.asarray(experts)[np.asarray(kept)], minlength=settings["n_experts"])
    np.testing.assert_array_equal(used, arrays["used_capacity"])
    close(weights, arrays["combine_weights"])


def _undropped(routing):
    """Loss-free gates of the whole selection, before drops."""
    return Renormalised(1e-20).weigh(Sigmoid().log(routing.logits), routing.selected)


@pytest.mark.parametrize("case", ALL)
def test_state(case):
    _, arrays = ALL[case]
    _, state, *_ = routed(case)
    reference = arrays.get("avg_logits", arrays.get("bias_after"))
    if reference is None:
        assert state == ()  # routers without a controller carry nothing
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
