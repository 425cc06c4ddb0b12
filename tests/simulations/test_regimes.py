"""Names follow the stated thresholds; a gate that nobody trained has no name that training gives."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from himoe_theory import Everything, KeepAbove, KeepAll, Partition, Router, TopK, routers
from simulations import (
    Arm,
    Balance,
    Clusters,
    Interval,
    Layer,
    Regime,
    Thresholds,
    Training,
    arms,
    interval,
    name_of,
    regimes,
    simulate,
)

ARMS = arms()
NAN = float("nan")
TOKENS = 400  # a sampling floor of 1/20 of the largest CV


def learned(gain, information=0.6, diverged=False, at=regimes.DEFAULT):
    return Regime(regimes.name_regimes(*(np.array([x]) for x in (gain, information, diverged)), at)[0])


@pytest.mark.parametrize(
    ("given", "regime"),
    [
        ((0.51,), Regime.SPECIALISED),
        ((0.49,), Regime.PARTIAL),
        ((0.11,), Regime.PARTIAL),
        ((0.09,), Regime.UNLEARNED),
        ((-3.0,), Regime.UNLEARNED),
        ((7.0,), Regime.SPECIALISED),
        ((0.9, 0.09), Regime.PARTIAL),
        ((0.9, 0.11), Regime.SPECIALISED),
        ((0.05, 0.9), Regime.UNLEARNED),
        ((0.9, NAN), Regime.PARTIAL),
        ((NAN,), Regime.NOT_JUDGED),
        ((0.9, 0.6, True), Regime.DIVERGED),
        ((NAN, NAN, True), Regime.DIVERGED),
    ],
)
def test_thresholds_of_regimes(given, regime):
    assert learned(*given) == regime


def test_gain_by_hand():
    def one(error, frozen, planted, first=1.0):
        return float(regimes.gain(*(np.array(x) for x in (error, first, frozen, planted))))

    assert one(0.2, 0.5, 0.1) == pytest.approx(0.75)
    assert one(0.5, 0.5, 0.1) == 0
    assert one(0.1, 0.5, 0.1) == 1
    assert one(0.6, 0.5, 0.1) == pytest.approx(-0.25)
    assert one(0.095, 0.1, 0.1) == pytest.approx(0.25)  # partners alike: 2 % of the first error
    assert one(0.0, 0.1, 0.3) == pytest.approx(5.0)  # the planted partner is worse
    assert one(0.0, 0.0, 0.0, first=0.0) == 0
    assert np.isnan(one(0.1, NAN, 0.1))
    assert np.isnan(one(0.1, 0.5, NAN))


errors = st.floats(0.01, 10.0)


@given(errors, errors, errors, st.floats(0.125, 8.0))
def test_gain_has_no_unit_and_rises_as_the_error_falls(frozen, planted, first, factor):
    error = np.linspace(0.0, 10.0, 5)
    found = regimes.gain(error, np.array(first), np.array(frozen), np.array(planted))
    assert (np.diff(found) < 0).all()
    assert np.isfinite(found).all()
    scaled = regimes.gain(*(np.array(factor * x) for x in (error, first, frozen, planted)))
    np.testing.assert_allclose(scaled, found, rtol=1e-9, atol=1e-9)


def balanced(start, end, router=ARMS["moge"].router, at=regimes.DEFAULT, kept=4.0, diverged=False):
    """The name for measurements at the start and at the end, `cv` in shares of the largest, 1 for 4 of 8."""
    n = router.partition.num_experts

    def of(changes):
        values = {"cv": 0.1, "soft_cv": 0.1, "redundancy": 0.3} | changes
        return {name: np.array([v]) for name, v in values.items()} | {"hard_load": np.full((1, n), kept / n)}

    return Balance(regimes.name_balance(of(start), of(end), np.array([diverged]), router, TOKENS, at)[0])


@pytest.mark.parametrize(
    ("start", "end", "balance"),
    [
        ({}, {}, Balance.EVEN),  # twice the floor
        ({}, {"cv": 0.11}, Balance.UNEVEN),
        ({}, {"cv": 0.49}, Balance.UNEVEN),
        ({"cv": 0.0}, {"cv": 0.51}, Balance.COLLAPSED),
        ({"cv": 0.1}, {"cv": 0.54}, Balance.LOPSIDED),  # half of .9 is .45
        ({"cv": 0.1}, {"cv": 0.56}, Balance.COLLAPSED),
        ({"cv": 0.8}, {"cv": 0.89}, Balance.LOPSIDED),
        ({"cv": 0.8}, {"cv": 0.91}, Balance.COLLAPSED),
        ({"cv": 0.9}, {"cv": 0.9}, Balance.LOPSIDED),
        ({"cv": 1.0}, {"cv": 1.0}, Balance.LOPSIDED),
        ({"cv": 1.0}, {"cv": 0.6}, Balance.LOPSIDED),
        ({"cv": 1.0}, {"cv": 0.4}, Balance.UNEVEN),
        ({"redundancy": 0.3}, {"redundancy": 0.81}, Balance.REDUNDANT),
        ({"redundancy": 0.3}, {"redundancy": 0.79}, Balance.EVEN),
        ({"redundancy": 0.85}, {"redundancy": 0.9}, Balance.EVEN),  # it was so from the start
        ({"redundancy": NAN}, {"redundancy": NAN}, Balance.EVEN),
        ({"redundancy": 0.3}, {"redundancy": 0.9, "cv": 0.9}, Balance.COLLAPSED),
    ],
)
def test_thresholds_of_balance(start, end, balance):
    assert balanced(start, end) == balance


def test_a_diverged_run_has_no_balance():
    assert balanced({}, {"cv": NAN}, diverged=True) == Balance.DIVERGED


def test_thresholds_can_be_given():
    assert learned(0.3, at=Thresholds(specialised=0.2)) == Regime.SPECIALISED
    assert balanced({"cv": 0.0}, {"cv": 0.3}, at=Thresholds(lopsided=0.2, by_training=0.1)) == Balance.COLLAPSED


@given(st.floats(0, 1), st.floats(0, 1))
def test_what_training_leaves_as_it_was_is_never_its_work(share, redundancy):
    same = {"cv": share, "redundancy": redundancy}
    assert balanced(same, same) in (Balance.EVEN, Balance.UNEVEN, Balance.LOPSIDED)


def test_a_dense_layer_is_judged_by_its_probabilities():
    dense, most = ARMS["dense"].router, 7**0.5
    assert regimes.keeps_all(dense)
    assert balanced({}, {"cv": 0.0, "soft_cv": 0.6 * most}, dense, kept=8.0) == Balance.COLLAPSED
    assert balanced({}, {"cv": 0.0, "soft_cv": 0.4 * most}, dense, kept=8.0) == Balance.UNEVEN
    assert balanced({}, {"cv": 0.0, "soft_cv": 0.09 * most}, dense, kept=8.0) == Balance.EVEN


def test_a_policy_that_thins_all_experts_is_judged_by_what_it_keeps():
    partition = Partition.equal(8, 4)
    thinned = Router("", partition, Everything(), "", policy=KeepAbove(0.2))
    assert not regimes.keeps_all(thinned)
    assert regimes.keeps_all(dataclasses.replace(thinned, policy=KeepAll()))
    assert regimes.keeps_all(Router("", partition, TopK(8), ""))
    # 2.5 of 8 kept: the largest CV is sqrt(2.2). Probabilities would say even.
    assert balanced({"cv": 0.0}, {"cv": 0.6 * 2.2**0.5, "soft_cv": 0.0}, thinned, kept=2.5) == Balance.COLLAPSED
    assert balanced({"cv": 0.0}, {"cv": 0.4 * 2.2**0.5, "soft_cv": 2.0}, thinned, kept=2.5) == Balance.UNEVEN
    assert balanced({"cv": 0.0}, {"cv": 0.0}, thinned, kept=8.0) == Balance.EVEN  # it happened to keep all


@pytest.mark.parametrize(("tokens", "routes"), [(64, 2), (400, 1)])
def test_the_floor_is_that_of_even_routers(tokens, routes):
    rng, router = np.random.default_rng(0), routers.gshard(6, routes)
    counts = np.stack(
        [np.bincount(rng.random((tokens, 6)).argsort(axis=1)[:, :routes].ravel(), minlength=6) for _ in range(2000)]
    )
    cv = counts.std(axis=1) / counts.mean(axis=1)
    floor = regimes.cv_floor({"hard_load": counts[:1] / tokens}, router, tokens)
    np.testing.assert_allclose(np.sqrt(np.square(cv).mean()), floor[0], rtol=0.05)


def test_most_frequent_name_with_its_count():
    codes = xr.Dataset(
        {"regime": (("arm", "seed"), [[1, 3, 3], [1, 1, 4]]), "balance": (("arm", "seed"), [[3, 4, 4], [0, 0, 1]])},
        {"arm": ["a", "b"]},
    )
    assert name_of(codes, "a") == (Regime.SPECIALISED, 2)
    assert name_of(codes, "b") == (Regime.UNLEARNED, 2)
    assert name_of(codes, "a", "balance") == (Balance.COLLAPSED, 2)


def test_interval_by_hand():
    # n = 4: t(0.975, 3) = 3.18245; mean 2.5, standard deviation 1.290994
    found = interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.mean == 2.5
    assert found.half_width == pytest.approx(3.182446 * 1.290994 / 2, rel=1e-6)
    assert str(interval(np.array([1.0]))) == "1.000 ± n/a"
    assert np.isnan(interval(np.array([1.0, np.nan])).mean)
    assert str(Interval(0.25, 0.125)) == "0.250 ± 0.125"


def test_the_mean_of_the_tokens_drives_collapse(optimised):
    """D12: Hi-MoE's regularisers without load loss end lopsided at mean 4, where gates are drawn so, not at mean 0."""
    arm = dataclasses.replace(ARMS["hi-moe"].with_terms(load_per_token=0.0), name="no load")
    training = Training(steps=1500, records=2)
    far, near = (simulate([arm], Clusters(mean=mean), Layer(), training, range(4)) for mean in (4.0, 0.0))
    assert (far["balance"] >= Balance.LOPSIDED).all()
    assert (near["cv"].isel(step=-1) < 0.4).all()
    assert name_of(near, "no load") == (Regime.SPECIALISED, 4)
    assert (near["balance"] == Balance.UNEVEN).all()
    assert far["test_error"].isel(step=-1).mean() > 2 * near["test_error"].isel(step=-1).mean()


def test_one_target_for_all_leaves_nothing_to_specialise_for(optimised):
    training = Training(steps=600, records=1)
    result = simulate([ARMS["moge"], ARMS["switch"]], Clusters(mean=0.0, shared=1.0), Layer(), training, range(4))
    assert (result["information"].isel(step=-1) > 0.1).all()
    assert (result["regime"] == Regime.UNLEARNED).all()
    assert (result["gain"] < 0.1).all()


def test_a_gate_that_the_task_does_not_reach_has_learned_nothing():
    single = Partition.equal(4, 1)
    known = arms(single)
    chosen = [known["guo-none"], known["frozen"], known["switch"]]
    result = simulate(chosen, Clusters(mean=0.0), Layer(), Training(steps=20, batch=64, records=1), range(2))
    assert result.attrs["no_task_gradient"] == '["guo-none"]'
    assert (result["gain"].sel(arm=["guo-none", "frozen"]) == 0).all()
    assert (result["regime"].sel(arm=["guo-none", "frozen"]) == Regime.UNLEARNED).all()
    assert (result["gain"].sel(arm="switch") != 0).all()


@pytest.mark.parametrize(
    ("router", "reached"),
    [
        (routers.gshard(4, 1), False),
        (routers.gshard(4, 2), True),
        (routers.switch(4), True),
        (routers.moge(Partition.equal(4, 1), 1), False),
        (routers.moge(Partition.equal(4, 2), 1), True),
        (routers.loss_free(4, 1), False),
        (routers.dense(Partition.equal(4, 2)), True),
    ],
)
def test_which_gates_the_task_reaches(router, reached):
    """Against the gradient itself, of any function of the combine weights."""
    import jax
    import jax.numpy as jnp

    logits, values = (jnp.asarray(np.random.default_rng(i).normal(size=(16, 4))) for i in range(2))

    def loss(logits):
        routing, _ = router.step(None, router.init(jnp.float64), logits)
        return (routing.combine * values).sum()

    assert router.task_reaches_gate == reached
    assert (float(jnp.abs(jax.grad(loss)(logits)).max()) > 1e-6) == reached


def test_an_arm_of_ones_own_stands_beside_its_own_partners():
    """A frozen and a planted arm are their own partners, whatever their names."""
    mine = Arm("mine", ARMS["hi-moe"].router, {}, "", gate="frozen")
    result = simulate(
        [mine, ARMS["planted"]],
        Clusters(mean=0.0),
        Layer(),
        Training(steps=20, batch=64, records=1),
        [0],
        partners=False,
    )
    assert list(result.arm.values) == ["mine", "planted"]
    np.testing.assert_array_equal(result["gain"].sel(arm="mine"), 0)
    assert (result["regime"].sel(arm="planted") == Regime.NOT_JUDGED).all()  # frozen top-1 was not run
