"""Growth rates at uniform routing, against the flow of the objectives themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import LogitAverage, Partition, Softmax, dynamics
from himoe_theory import objectives as obj

INTRA, INTER, ALPHA = 0.3, 0.07, 0.02
GROUPS = Partition((0, 1, 0, 1, 2, 2, 0, 2, 1))  # three interleaved groups of three
N, S, T = 9, 3, 4
CONTRAST, COMMON = np.array([1.0, -2.0, 0.5, 0.5]), np.ones(4)
WITHIN = np.array([1.0, 0.0, -1.0, 2.0, 0.0, 0.0, 0.0, 0.0, -2.0])
BETWEEN = np.array([1.0, -3.0, 1.0, -3.0, 2.0, 2.0, 1.0, 2.0, -3.0])


def flow(kind):
    """-T times the gradient of the whole loss. The frozen load has no potential: only its gradient is used."""

    def regularisers(s):
        return INTRA * obj.intra_group_global(s) + INTER * obj.inter_group_dense(s, GROUPS)

    load = {"full": obj.p_squared_grad, "frozen": obj.load_frozen_grad}[kind]
    return lambda s: -T * (jax.grad(regularisers)(s) + ALPHA * load(s))


CASES = [
    ("full", CONTRAST, WITHIN, dynamics.contrast_within(INTRA, N)),
    ("frozen", CONTRAST, BETWEEN, dynamics.contrast_between(INTRA, INTER, N, S)),
    ("full", COMMON, WITHIN, dynamics.common_within_full(INTRA, ALPHA, N)),
    ("frozen", COMMON, WITHIN, dynamics.common_within_frozen(INTRA, ALPHA, N)),
    ("full", COMMON, BETWEEN, dynamics.common_between_full(INTRA, INTER, ALPHA, N, S)),
    ("frozen", COMMON, BETWEEN, dynamics.common_between_frozen(INTRA, INTER, ALPHA, N, S)),
]


@pytest.mark.parametrize(("kind", "token_mode", "expert_mode", "rate"), CASES)
def test_the_linearised_flow_multiplies_each_mode_by_its_rate(kind, token_mode, expert_mode, rate):
    mode = jnp.asarray(np.outer(token_mode, expert_mode))
    _, moved = jax.jvp(flow(kind), (jnp.zeros_like(mode),), (mode,))
    np.testing.assert_allclose(moved, rate * mode, atol=1e-14)


def test_hand_values():
    assert dynamics.contrast_within(0.5, 2) == pytest.approx(0.25, rel=1e-15)
    assert dynamics.contrast_between(0.1, 0.05, 8, 2) == pytest.approx(0.0, abs=1e-17)
    assert dynamics.contrast_between(0.1, 0.05, 64, 16) == pytest.approx(-1.4 / 4096, rel=1e-14)
    assert dynamics.load_pull_full(0.4, 8) == 2 * dynamics.load_pull_frozen(0.4, 8) == pytest.approx(0.1)
    assert dynamics.critical_group_ratio(16) == 16.0


@pytest.mark.parametrize(
    ("critical", "rate"),
    [
        (dynamics.critical_load_full, dynamics.common_within_full),
        (dynamics.critical_load_frozen, dynamics.common_within_frozen),
    ],
)
def test_the_critical_load_stops_the_common_mode(critical, rate):
    at = critical(INTRA, N)
    assert rate(INTRA, at, N) == pytest.approx(0.0, abs=1e-17)
    assert rate(INTRA, 0.9 * at, N) > 0 > rate(INTRA, 1.1 * at, N)


def test_bias_correction_scales_contrasts_and_common_modes():
    tau, temperature = 0.4, 0.7
    controller = LogitAverage(tau, 0.0, temperature)  # beta 0: the mean has always caught up

    def push(s):
        state, corrected, _ = controller.prepare(jnp.zeros(N), s, Softmax(), mask=None, training=True)

        def value(logits):
            fixed = (logits - tau * jax.lax.stop_gradient(state)) / temperature
            return INTRA * obj.intra_group_global(fixed)

        np.testing.assert_allclose(corrected, (s - tau * state) / temperature, rtol=1e-14)
        return -T * jax.grad(value)(s)

    rate, small = dynamics.contrast_within(INTRA, N), 1e-5
    for token_mode, factor in (
        (CONTRAST, dynamics.corrected_contrast(temperature)),
        (COMMON, dynamics.corrected_common(tau, temperature)),
    ):
        mode = np.outer(token_mode, WITHIN)
        # A central difference: what is left is of third order.
        pushed = (push(jnp.asarray(small * mode)) - push(jnp.asarray(-small * mode))) / (2 * small)
        np.testing.assert_allclose(pushed, factor * rate * mode, atol=1e-9)
    assert dynamics.corrected_common(0.01, 1.0) == pytest.approx(0.99)


def test_arrays_of_coefficients():
    found = jax.vmap(lambda a: dynamics.common_within_full(INTRA, a, N))(jnp.array([0.0, ALPHA]))
    expected = [dynamics.contrast_within(INTRA, N), dynamics.common_within_full(INTRA, ALPHA, N)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.usefixtures("unchecked")
def test_errors_show_the_numbers():
    with pytest.raises(ValueError, match="`group_size` must divide `num_experts`; got 3 and 8"):
        dynamics.contrast_between(0.1, 0.1, 8, 3)
    with pytest.raises(
        ValueError, match=r"`group_size` must be at most 4 \(half of `num_experts`, two groups\); got 9"
    ):
        dynamics.contrast_between(0.1, 0.1, 8, 9)
    with pytest.raises(ValueError, match="`lambda_intra` must be finite and at least 0; got -1"):
        dynamics.contrast_within(-1.0, 8)
    with pytest.raises(ValueError, match="`lambda_inter` must be finite and at least 0; got nan"):
        dynamics.contrast_between(1.0, float("nan"), 8, 2)
    with pytest.raises(ValueError, match=r"`alpha` must be finite and at least 0; got -0\.5"):
        dynamics.load_pull_frozen(-0.5, 8)
    with pytest.raises(ValueError, match="`num_experts` must be at least 2; got 0"):
        dynamics.contrast_within(1.0, 0)
    with pytest.raises(ValueError, match="`temperature` must be above 0; got 0"):
        dynamics.corrected_contrast(0.0)
    with pytest.raises(ValueError, match="`tau` must be finite and at least 0; got -1"):
        dynamics.corrected_common(-1.0, 1.0)
    with pytest.raises(ValueError, match="`group_size` must be at least 1; got 0"):
        dynamics.critical_group_ratio(0)


def test_the_critical_load_is_that_of_the_regulariser_alone():
    """With a further rate mu of the mode, N mu/2 more full load is needed, or N mu more frozen load."""
    experts, intra, more = 8, 0.1, 0.03
    full = dynamics.critical_load_full(intra, experts) + experts * more / 2
    frozen = dynamics.critical_load_frozen(intra, experts) + experts * more
    assert more + dynamics.common_within_full(intra, full, experts) == pytest.approx(0, abs=1e-15)
    assert more + dynamics.common_within_frozen(intra, frozen, experts) == pytest.approx(0, abs=1e-15)
    assert more + dynamics.common_within_full(0.0, dynamics.critical_load_full(0.0, experts), experts) > 0
