"""The experiment of Chen et al.: its fast evaluation against naive loops, its two forms, its measures."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simulations.chen import Chen, _samples, dispatch_entropy
from simulations.chen_model import (
    ACTIVATIONS,
    PAPER,
    RELEASED,
    Carry,
    Data,
    Program,
    _noise,
    cross_entropy,
    double_cross_entropy,
    normalised,
)
from simulations.data import Patches

EPS = np.finfo(np.float32).eps
TOKENS, EXPERTS, FILTERS = 12, 3, 2
PATCHES = Patches(patches=5, patch_dim=9, scale=2.0)
POWERS = {"linear": 1, "cubic": 3}


@pytest.fixture(scope="module")
def samples():
    truth = PATCHES.truth(np.random.default_rng(0))
    parts = jax.jit(PATCHES.parts, static_argnums=2)(truth, jax.random.key(0), TOKENS)
    return _samples(parts, jnp.asarray(truth["vectors"]))


@pytest.fixture(scope="module")
def parameters():
    rng = np.random.default_rng(1)
    shapes = {"weight": (EXPERTS, 2, FILTERS, 9), "bias": (EXPERTS, 2, FILTERS)}
    experts = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    noise = jnp.asarray(rng.uniform(size=(TOKENS, EXPERTS)), jnp.float32)
    return experts, jnp.asarray(0.2 * rng.normal(size=(EXPERTS, 9)), jnp.float32), noise


def patches_of(samples):
    """Patches written out, `[tokens, patches, dim]`, in float64 and in another order."""
    parts = samples.parts
    planted = np.asarray(parts.length)[:, :, None] * np.asarray(samples.vectors)[parts.index]
    return np.concatenate([planted, parts.noise], axis=1)[:, [3, 0, 4, 2, 1]].astype(float)


def naive(form, power, experts, router, samples, noise):
    """Every sample, patch and filter in turn: outputs and chosen experts."""
    weight, bias = np.asarray(experts["weight"], float), np.asarray(experts["bias"], float)
    outputs, chosen = [], []
    for x, r in zip(patches_of(samples), np.asarray(noise, float), strict=True):
        logits = np.asarray(router, float) @ x.sum(axis=0)
        m = int((logits + r).argmax())
        f = [sum((weight[m, o, j] @ p + bias[m, o, j]) ** power for p in x for j in range(FILTERS)) for o in (0, 1)]
        gate = (logits + r)[m] if form is RELEASED else np.exp(logits[m]) / np.exp(logits).sum()
        outputs.append(gate * np.asarray(f))
        chosen.append(m)
    return np.asarray(outputs), chosen


def program(form, kind):
    return Program(form, ACTIVATIONS[kind], expert_rate=0.1, router_rate=0.5, steps=1)


@pytest.mark.parametrize("form", [PAPER, RELEASED], ids=["paper", "released"])
@pytest.mark.parametrize("kind", POWERS)
def test_outputs_are_those_of_naive_loops_over_patches_in_another_order(form, kind, samples, parameters):
    expected, experts = naive(form, POWERS[kind], parameters[0], parameters[1], samples, parameters[2])
    outputs, chosen = jax.jit(program(form, kind).outputs)(parameters[0], parameters[1], samples, parameters[2])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert list(chosen) == experts
    assert len(set(experts)) > 1


def test_a_step_is_the_normalised_gradient_of_finite_differences(samples, parameters):
    """Paper's form, cubic: four coordinates of an expert and of the router, by differences of the naive loss."""
    experts, router, _ = parameters
    experts = {"weight": 0.3 * experts["weight"]}
    carry = Carry(experts, router, jnp.float32(jnp.inf), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    key, run = jax.random.key(3), program(PAPER, "cubic")
    after, loss = jax.jit(run.step)(carry, Data(samples, samples), key)
    weight_move = np.asarray(experts["weight"] - after.experts["weight"], float)
    router_move = np.asarray(router - after.router, float)

    noise, y = _noise(key, TOKENS, EXPERTS), np.asarray(samples.parts.y, float)
    zero = np.zeros((EXPERTS, 2, FILTERS))

    def value(weight, theta):
        outputs = naive(PAPER, 3, {"weight": weight, "bias": zero}, theta, samples, noise)[0]
        return float(np.log1p(np.exp(-(2 * y[:, 1] - 1) * (outputs[:, 1] - outputs[:, 0]))).mean())

    weight, theta = np.asarray(experts["weight"], float), np.asarray(router, float)
    np.testing.assert_allclose(loss, value(weight, theta), rtol=1e-5)

    def slope(which, place):
        shift = np.zeros_like((weight, theta)[which])
        shift[place] = 1e-5
        ends = [value(weight + s * shift, theta) if which == 0 else value(weight, theta + s * shift) for s in (1, -1)]
        return (ends[0] - ends[1]) / 2e-5

    for place in ((0, 3), (2, 7)):
        np.testing.assert_allclose(router_move[place], 0.5 * slope(1, place), rtol=2e-3, atol=1e-5)
    norms = np.sqrt(np.square(weight_move).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(norms, 0.1, rtol=1e-5)
    places = [(1, 0, 1, 2), (1, 1, 0, 5)]
    ratio = [weight_move[place] / slope(0, place) for place in places]
    np.testing.assert_allclose(ratio[0], ratio[1], rtol=2e-3)
    assert ratio[0] > 0


def test_an_expert_is_divided_by_the_sum_of_its_tensors_norms():
    slope = {"weight": jnp.array([[3.0, 4.0], [0.0, 0.0]]), "bias": jnp.array([[12.0], [0.0]])}
    found = normalised(slope)
    np.testing.assert_allclose(found["weight"], [[3 / 17, 4 / 17], [0, 0]])  # 5 + 12, not 13
    np.testing.assert_allclose(found["bias"], [[12 / 17], [0]])


def test_losses():
    outputs, y = jnp.array([[0.3, -1.0], [2.0, 5.0]]), jnp.array([[0.0, 1.0], [0.0, 1.0]])
    logistic = [math.log1p(math.exp(1.3)), math.log1p(math.exp(-3))]
    np.testing.assert_allclose(cross_entropy(outputs, y), np.mean(logistic))
    floor = math.log1p(math.exp(-1))
    assert floor == pytest.approx(0.3133, abs=5e-5)
    np.testing.assert_allclose(double_cross_entropy(jnp.array([[-50.0, 50.0]]), y[:1]), floor)
    assert float(double_cross_entropy(outputs, y)) > floor


def test_the_released_form_stops_and_the_paper_form_does_not(samples, parameters):
    experts, router, _ = parameters
    steps = {form: jax.jit(program(form, "linear").step) for form in (RELEASED, PAPER)}
    for form, least, stops in ((RELEASED, 1e-3, True), (RELEASED, np.inf, False), (PAPER, 1e-3, False)):
        carry = Carry(experts, router, jnp.float32(least), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
        after, _ = steps[form](carry, Data(samples, samples), jax.random.key(0))
        assert bool(after.stopped) is stops
        assert int(after.steps) == (not stops)
        same = (after.experts["weight"] == experts["weight"]).all() & (after.router == router).all()
        assert bool(same) is stops


def test_dispatch_entropy_by_hand():
    apart = np.zeros((4, 8))
    apart[[0, 1, 2, 3], [5, 1, 0, 7]] = [4.0, 2.0, 9.0, 1.0]
    mixed = np.array([[3.0, 0.0], [1.0, 4.0]])  # expert 0: 3 to 1; expert 1 pure
    expected = 4 / 8 * (0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    np.testing.assert_allclose(dispatch_entropy(apart), 0, atol=1e-15)
    np.testing.assert_allclose(dispatch_entropy(np.ones((4, 8))), math.log(4))
    np.testing.assert_allclose(dispatch_entropy(np.stack([mixed, 2 * mixed])), [expected] * 2)


@pytest.fixture(scope="module")
def small():
    return Chen(models=("released", "single"), activations=("cubic",), settings=("3", "1"), samples=100, steps=5)


def test_a_small_run_is_complete_and_repeats(small):
    small = dataclasses.replace(small, seeds=(0, 4))
    shares = []
    result = small.simulate(shares.append)
    assert shares == [0.5, 1.0]
    assert dict(result.sizes) == {"model": 2, "activation": 1, "setting": 2, "seed": 2, "label": 4, "expert": 8}
    np.testing.assert_array_equal(result["table"].sum(("label", "expert")), 100)
    assert (result["table"].sel(model="single").sum("label").isel(expert=slice(1, None)) == 0).all()
    clusters = result["table"].sel(model="single", expert=0) / 100
    np.testing.assert_allclose(
        result["entropy"].sel(model="single"), -(clusters * np.log(clusters)).sum("label"), rtol=10 * EPS
    )
    # The same test samples for every model of a seed.
    labels = result["table"].sum("expert")
    np.testing.assert_array_equal(labels.sel(model="single"), labels.sel(model="released"))
    assert ((result["accuracy"] >= 0) & (result["accuracy"] <= 1)).all()
    # A run does not depend on its place among others.
    turned = dataclasses.replace(small, models=("released",), settings=("1", "3"), seeds=(4, 0)).simulate()
    same = turned.sel(setting=["3", "1"], seed=[0, 4])
    for name in ("loss", "table", "accuracy"):
        np.testing.assert_array_equal(same[name], result[name].sel(model=["released"]))


@pytest.mark.deep
@pytest.mark.usefixtures("optimised")
def test_the_two_regimes():
    """Linear experts stay mixed (H > 1), cubic ones separate the clusters (H < .7), in most seeds. (Chen et al.)"""
    result = Chen(models=("released",), settings=("1", "3")).simulate()
    assert (result["entropy"].sel(activation="linear") > 1).mean() > 0.5
    assert (result["entropy"].sel(activation="cubic") < 0.7).mean() > 0.5
    mean = result["accuracy"].mean("seed")
    assert (mean.sel(activation="cubic") > mean.sel(activation="linear")).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ("mixture",)}, r"`models` must be distinct ones of paper, released, single; got \('mixture',\)"),
        ({"activations": ()}, r"`activations` must be distinct ones of linear, cubic; got \(\)"),
        ({"settings": ("1", "1")}, r"`settings` must be distinct ones of 1, 2, 3, 4; got \('1', '1'\)"),
        ({"seeds": ()}, "`number of seeds` must be at least 1; got 0"),
        ({"seeds": (-1,)}, "`seeds` must be at least 0; got -1"),
        ({"samples": 0}, "`samples` must be at least 1; got 0"),
        ({"expert_rate": 0.0}, "`expert_rate` must be above 0; got 0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Chen(**change)
    assert "\n" not in str(caught.value)
