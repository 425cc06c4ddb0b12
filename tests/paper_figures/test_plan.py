"""What makes a stored result current, and what the profiles hold."""

import dataclasses
import json

import numpy as np
import pytest
import xarray as xr

import simulations
from paper_figures.catalogue import FIGURES, select
from paper_figures.plan import Audit, stale
from paper_figures.profiles import PROFILES, experiments, usual
from simulations import Balance, Clusters, Regime, Training

from .fakes import fake


@pytest.fixture
def experiment():
    return fake("regimes")


@pytest.fixture
def stored(experiment):
    return experiment.join([experiment.run(lambda share: None)])


def test_a_result_is_current_under_its_own_settings(experiment, stored):
    assert stale(experiment, stored) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (0, 1)},
        {"data": Clusters(clusters=3, dim=8, mean=0.0)},
        {"training": Training(steps=80, records=4)},
        {"optimise": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_settings_make_it_stale(experiment, stored, changes):
    assert stale(dataclasses.replace(experiment, **changes), stored) == ["configuration"]


def test_another_coefficient_makes_it_stale(experiment, stored):
    arms = (experiment.arms[0].with_terms(load_per_token=0.02), *experiment.arms[1:])
    assert stale(dataclasses.replace(experiment, arms=arms), stored) == ["configuration"]


def test_other_sources_make_it_stale(experiment, stored, monkeypatch):
    monkeypatch.setattr(simulations, "source_hash", lambda: "other")
    assert stale(experiment, stored) == ["sources"]


def test_other_versions_make_it_stale(experiment, stored, monkeypatch):
    monkeypatch.setattr(simulations, "versions", lambda: {"jax": "other"})
    assert stale(experiment, stored) == ["versions"]


def test_a_result_without_a_fingerprint_is_stale(experiment, stored):
    assert stale(experiment, stored.drop_attrs()) == ["configuration", "sources", "versions"]


def test_the_comparison_of_gradients_depends_on_its_settings_and_sources(monkeypatch):
    audit = Audit("gradients", (0.1, 1.0), samples=4, seed=0)
    stored = xr.Dataset(attrs=audit.fingerprint())
    assert stale(audit, stored) == []
    assert stale(dataclasses.replace(audit, samples=5), stored) == ["configuration"]
    monkeypatch.setattr(simulations, "source_hash", lambda *packages: "other")
    assert stale(audit, stored) == ["sources"]


def test_sources_tell_packages_apart():
    of = simulations.source_hash
    assert of("paper_figures") == of("paper_figures")
    assert of("paper_figures") != of("paper_figures", "proofs_checks")
    assert of("himoe_theory", "simulations") == of()


def test_parts_are_programs_and_join_to_the_whole():
    whole = fake("regimes", ("moge", "gshard", "hi-moe", "guo-none", "dense"))
    parts = whole.parts()
    assert [[arm.name for arm in part.arms] for part in parts] == [
        ["moge", "hi-moe"],
        ["gshard", "guo-none"],
        ["dense"],
        ["moge/frozen", "hi-moe/frozen"],
        ["planted"],
        ["gshard/frozen"],
        ["dense/frozen"],
    ]
    results = [part.run(lambda share: None) for part in parts]
    results[1]["balance"].loc[{"arm": "gshard", "seed": 1}] = Balance.COLLAPSED
    results[0] = results[0].assign(term_only_there=results[0]["cv"])
    joined = whole.join(results)
    assert list(joined.arm.values) == ["moge", "gshard", "hi-moe", "guo-none", "dense"]
    assert joined["balance"].sel(arm="gshard", seed=1) == Balance.COLLAPSED
    assert (joined["regime"] == Regime.SPECIALISED).all()
    np.testing.assert_allclose(
        joined["frozen_error"].sel(arm="dense"),
        results[6]["test_error"].sel(arm="dense/frozen").isel(step=-1),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(joined["hard_load"].sel(arm="hi-moe"), results[0]["hard_load"].sel(arm="hi-moe"))
    np.testing.assert_array_equal(joined["hard_load"].sel(arm="dense"), results[2]["hard_load"].sel(arm="dense"))
    assert np.isnan(joined["term_only_there"].sel(arm="dense")).all()
    assert joined.attrs["seconds"] == sum(result.attrs["seconds"] for result in results) == 7 * 12.5
    assert stale(whole, joined) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_hold_what_the_figures_need(profile):
    planned = {each.name: each for each in experiments(profile)}
    assert set(planned) == {name for figure in FIGURES for name in figure.needs}
    for mean in (4.0, 0.0):
        balance = planned[f"balance-mean-{mean:g}"]
        assert balance.data.mean == mean
        alphas = [0, 1e-4, 0.01, 0.1] if profile == "full" else [0, 0.01, 0.1]
        assert [arm.terms["load_per_token"] for arm in balance.arms] == 2 * alphas
        # Nothing but the load differs from the named arms.
        for arm in balance.arms:
            bare = simulations.arms()[arm.name.split(" α=")[0]]
            assert arm.terms | {"load_per_token": 0} == dict(bare.terms) | {"load_per_token": 0}
            assert arm.router == bare.router


def test_the_full_profile_holds_every_arm_on_enough_seeds():
    planned = {each.name: each for each in experiments("full")}
    for name in ("regimes", "digits"):
        assert [arm.name for arm in planned[name].arms] == list(simulations.arms())
    for name, seeds in {"regimes": 5, "balance-mean-4": 8, "balance-mean-0": 8}.items():
        assert planned[name].seeds == tuple(range(seeds))
        assert planned[name].training.steps == 1500


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="`profile` must be one of full, smoke; got 'tiny'"):
        experiments("tiny")


def test_fingerprints_are_plain_json(experiment):
    settings = json.loads(experiment.fingerprint()["configuration"])
    assert settings["seeds"] == [0, 1, 2]
    assert settings["data"]["kind"] == "Clusters"


def test_the_smoke_profile_draws_some_figures_and_can_draw_all():
    assert [entry.number for entry in select(usual("smoke"))] == [1, 2, 3, 4, 5, 6]
    assert usual("full") == ()
    planned = {each.name for each in experiments("smoke")}
    assert all(entry.needs_only(planned) for entry in FIGURES)
