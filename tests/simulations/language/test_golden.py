"""Equal to the authors' released language model: logits, loss and every gradient to 1e-4 relative in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.language.config import DISPATCHES
from simulations.language.released import from_settings
from simulations.language.weights import from_released, to_released

from ...himoe_theory import golden

CASES = golden.cases("nanogpt")


def close(actual, desired):
    """1e-4 relative, entry by entry; entries far below the largest are compared on its scale, as float32 computes."""
    desired = np.asarray(desired)
    np.testing.assert_allclose(actual, desired, rtol=1e-4, atol=1e-5 * np.abs(desired).max(initial=0.0))


def parameters_of(arrays):
    return {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}


@functools.cache
def step(case: str, dispatch: str):
    """(model, parameters, loss, aux, logits, gradients) of a case."""
    settings, arrays = CASES[case]
    model = from_settings(settings, dispatch=dispatch)
    parameters, state = from_released(model, parameters_of(arrays))
    tokens, targets = jnp.asarray(arrays["idx"]), jnp.asarray(arrays["targets"])
    steps = [value for name, value in arrays.items() if name.endswith("training_step")]

    def both(parameters):
        loss, aux = model.loss(parameters, state, tokens, targets, step=int(max(steps, default=0)), records=True)
        return loss, (aux, model.logits(parameters, state, tokens, training=True))

    (loss, (aux, logits)), gradients = jax.jit(jax.value_and_grad(both, has_aux=True))(parameters)
    return model, parameters, state, loss, aux, logits, gradients


# The other forms of dispatch on one case with, and one without a state that is updated; elsewhere on every case.
BOTH = {"himoe-paper-eq", "vanilla"} if golden.FOLDER == golden.Path(__file__).parents[2] / "golden" else set(CASES)
EVERY = [
    (case, form)
    for case in CASES
    for form in (DISPATCHES if case in BOTH and CASES[case][0]["n_exp"] > 1 else DISPATCHES[:1])
]


@pytest.mark.parametrize(("case", "dispatch"), EVERY)
def test_logits_and_loss(case, dispatch):
    arrays = CASES[case][1]
    *_, loss, _aux, logits, _ = step(case, dispatch)
    close(loss, arrays["loss"])
    close(logits, arrays["logits"])


@pytest.mark.parametrize(("case", "dispatch"), EVERY)
def test_every_gradient(case, dispatch):
    arrays = CASES[case][1]
    model, *_, gradients = step(case, dispatch)
    actual = to_released(model, gradients)
    stored = {name.removeprefix("grad/"): value for name, value in arrays.items() if name.startswith("grad/")}
    assert set(actual) - {"lm_head.weight"} == set(stored) - {"lm_head.weight"}
    for name, value in stored.items():
        close(actual[name], value)


@pytest.mark.parametrize("case", CASES)
def test_state_and_drops(case):
    """Moving averages after one step are (1 - beta) x the mean logits; drops are what overflows the capacity."""
    model, parameters, state, _, aux, *_ = step(case, "sorted")
    for layer, routing in enumerate(aux.routing):
        logits = np.asarray(routing.logits, np.float64)
        gate = parameters["layers"][f"{model.moe_layers[layer]:02d}"]["moe"]["gate"]
        close(logits, np.asarray(aux.hidden[layer], np.float64) @ np.asarray(gate, np.float64).T)
        controller = model.arm.router.controller
        if hasattr(controller, "beta"):
            before = np.asarray(state[layer], np.float64)
            close(aux.state[layer], controller.beta * before + (1 - controller.beta) * logits.mean(axis=0))
        counts = np.bincount(np.asarray(routing.experts)[np.asarray(routing.active)], minlength=model.experts)
        np.testing.assert_array_equal(aux.counts[layer], counts)
        assert float(aux.dropped[layer]) == np.maximum(counts - routing.capacity, 0).sum()
