"""Regimes follow the stated thresholds, and the collapse of D12 appears and disappears where it should."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from simulations import (
    Clusters,
    Interval,
    Layer,
    Regime,
    Thresholds,
    Training,
    arms,
    interval,
    name_regimes,
    regime_of,
    simulate,
)

ARMS = arms()
HEALTHY = {
    "test_loss": 0.1,
    "cv": 0.2,
    "soft_cv": 0.2,
    "information": 0.6,
    "soft_information": 0.6,
    "redundancy": 0.3,
}


def final(**changes):
    values = {name: np.array([value]) for name, value in (HEALTHY | changes).items()}
    return values | {"hard_load": np.full((1, 8), 0.5)}


def named(arm="moge", initial=1.0, **changes):
    return Regime(name_regimes(final(**changes), np.array([initial]), ARMS[arm].router)[0])


@pytest.mark.parametrize(
    ("changes", "regime"),
    [
        ({}, Regime.SPECIALISED),
        ({"information": 0.09}, Regime.UNIFORM),
        ({"information": 0.11}, Regime.SPECIALISED),
        ({"redundancy": 0.81}, Regime.REDUNDANT),
        ({"redundancy": 0.79}, Regime.SPECIALISED),
        ({"redundancy": np.nan}, Regime.SPECIALISED),
        ({"redundancy": 0.9, "information": 0.05}, Regime.UNIFORM),
        ({"cv": 0.51}, Regime.COLLAPSED),  # the largest CV at N 8, R 4 is 1
        ({"cv": 0.49}, Regime.SPECIALISED),
        ({"cv": 0.9, "information": 0.0}, Regime.COLLAPSED),
        ({"test_loss": np.nan, "cv": 0.9}, Regime.DIVERGED),
        ({"test_loss": np.inf}, Regime.DIVERGED),
        ({"test_loss": 101.0}, Regime.DIVERGED),
        ({"test_loss": 99.0}, Regime.SPECIALISED),
    ],
)
def test_thresholds(changes, regime):
    assert named(**changes) == regime


def test_a_dense_layer_is_judged_by_its_probabilities():
    assert named("dense", cv=0.0, information=0.0) == Regime.SPECIALISED
    assert named("dense", soft_information=0.05) == Regime.UNIFORM
    assert named("dense", soft_cv=0.51 * np.sqrt(7)) == Regime.COLLAPSED
    assert named("dense", soft_cv=0.49 * np.sqrt(7)) == Regime.SPECIALISED


def test_thresholds_can_be_given():
    strict = Thresholds(collapsed=0.1)
    codes = name_regimes(final(), np.array([1.0]), ARMS["moge"].router, strict)
    assert codes[0] == Regime.COLLAPSED


def test_most_frequent_regime_with_its_count():
    codes = xr.Dataset({"regime": (("arm", "seed"), [[1, 3, 3], [1, 1, 4]])}, {"arm": ["a", "b"]})
    assert regime_of(codes, "a") == (Regime.COLLAPSED, 2)
    assert regime_of(codes, "b") == (Regime.SPECIALISED, 2)


def test_interval_by_hand():
    # n = 4: t(0.975, 3) = 3.18245; mean 2.5, standard deviation 1.290994
    found = interval(np.array([1.0, 2.0, 3.0, 4.0]))
    assert found.mean == 2.5
    assert found.half_width == pytest.approx(3.182446 * 1.290994 / 2, rel=1e-6)
    assert str(interval(np.array([1.0]))) == "1.000 ± n/a"
    assert np.isnan(interval(np.array([1.0, np.nan])).mean)
    assert str(Interval(0.25, 0.125)) == "0.250 ± 0.125"


def test_the_mean_of_the_tokens_drives_collapse(optimised):
    """D12: Hi-MoE's regularisers without load loss collapse at mean 4 and do not at mean 0."""
    arm = dataclasses.replace(ARMS["hi-moe"].with_terms(load_per_token=0.0), name="no load")
    training = Training(steps=1500, records=2)
    far, near = (simulate([arm], Clusters(mean=mean), Layer(), training, range(4)) for mean in (4.0, 0.0))
    assert regime_of(far, "no load") == (Regime.COLLAPSED, 4)
    assert (near["cv"].isel(step=-1) < 0.4).all()
    assert regime_of(near, "no load")[0] == Regime.SPECIALISED
    assert far["test_error"].isel(step=-1).mean() > 2 * near["test_error"].isel(step=-1).mean()
