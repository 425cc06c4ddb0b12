"""Theory over simulation: figures print the error of their own data, captions say whether it is within bounds, and the
experiment keeps what its function returns."""

import dataclasses

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import xarray as xr

from paper_figures import plan
from paper_figures.catalogue import FIGURES
from paper_figures.figures import batches, boundary, compatibility, growth, reinforcement, sliding
from paper_figures.plan import Theory, stale
from paper_figures.profiles import THEORY, THEORY_SMOKE

from .theoretical import results

ENTRIES = {entry.name: entry for entry in FIGURES}
NAMES = ("growth", "reinforcement", "batches", "compatibility", "boundary")
PRINTED = {
    "growth": "largest error 7.0%",
    "reinforcement": "a threshold 7.0%",
    "batches": "largest error 7.0%",
    "compatibility": "largest error of an exact relation 7e-02",
    "boundary": "critical ratio 7 %",
}
"""What a figure of measurements that are 7 % off says."""


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


def drawn(name, share):
    entry, stored = ENTRIES[name], results(share)
    data = [stored[need] for need in entry.needs]
    figure = entry.draw(*data)
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts), entry.caption(*data)


@pytest.mark.parametrize("name", NAMES)
def test_the_error_of_the_data_is_printed(name):
    inside, _ = drawn(name, 1e-12)
    outside, _ = drawn(name, 0.07)
    assert PRINTED[name] in outside
    assert PRINTED[name] not in inside


@pytest.mark.parametrize("name", ["growth", "reinforcement", "batches", "boundary"])
def test_captions_say_whether_it_is_within_bounds(name):
    _, (_, good) = drawn(name, 1e-12)
    _, (_, bad) = drawn(name, 0.07)
    assert "within" in good
    assert not any(word in good for word in ("not within", "not all"))
    assert any(word in bad for word in ("not within", "not all"))


def test_errors_are_of_the_largest_difference():
    stored = results(0.07)
    of = stored.__getitem__
    assert growth.mode_error(of("modes"), "predicted") == pytest.approx(0.07)
    assert growth.expert_error(of("specialisation"), "corrected") == pytest.approx(0.07)
    assert reinforcement.jump_error(of("hysteresis-64")) == pytest.approx(0.07)
    assert reinforcement.stair_error(of("staircase")) == pytest.approx(0.07)
    assert reinforcement.period_error(of("oscillation")) == pytest.approx(0.07)
    assert batches.identity_error(of("batch-load")) == pytest.approx(7.0)
    assert batches.window_error(of("window")) == pytest.approx(0.07)
    assert batches.floor_error([of("violation-8"), of("violation-32")]) == pytest.approx(0.07)
    assert compatibility.exact_error(of("cosines")) == pytest.approx(0.07)
    assert batches.group_error(of("effective-groups")) == pytest.approx(0.07 / 1.5)
    assert sliding.order_error(of("sliding")) == pytest.approx(0.14)
    assert sliding.miscounted(of("sliding")) == pytest.approx(7.0)
    assert boundary.edge_error(of("common-mode")) == pytest.approx(0.07)
    assert boundary.count_error(of("hard-counts")) == pytest.approx(7.0)
    assert growth.onset_error(of("onset")) == pytest.approx(0.21)
    # Of the six runs one has more live experts than the three that are stable.
    assert reinforcement.above(of("staircase")) == 1


def test_sliding_is_told_by_what_is_wrong_with_it():
    good, bad = results(1e-12)["sliding"], results(0.07)["sliding"]
    assert "not within" not in sliding.told(good)
    assert "is of order 1.00, 1.00 in their size, within 0.1 of theory's 1" in sliding.told(good)
    assert "0.7500 (theory 0.7500; slides); for no" in sliding.told(good)
    of_order, of_counts = (sliding.told(good.assign({name: bad[name]})) for name in ("order", "share"))
    assert "is of order 0.86, 1.00 in their size, not within 0.1" in of_order
    assert "by more than 0.0 steps, within 2." in of_order
    assert "within 0.1 of theory's" in of_counts
    assert "by more than 7.0 steps, not within 2." in of_counts
    inside, outside = drawn("batches", 1e-12)[0], drawn("batches", 0.07)[0]
    for error in ("order 1, off by at most 0.14", "it slides, off by at most 7.0"):
        assert error in outside
        assert error not in inside


def test_the_trained_boundary_by_hand():
    found = boundary.compared(results(0.07)["trained"])
    assert found.error == pytest.approx(0.07)
    assert found.mean == pytest.approx(4 * (0.5 - 0.1) / (0.7 - 0.1))
    assert (found.beyond, found.within) == ((0, 6), (2, 2))
    below = results(0.0)["trained"].isel(mean=[0])
    assert np.isnan(boundary.compared(below).error)
    assert np.isnan(boundary.compared(below).mean)


def test_captions_read_the_results():
    assert "1 of 6 runs end with more live experts than are stable, 67%" in drawn("reinforcement", 0.0)[1][1]
    assert "endless training by at most 4.7%" in drawn("batches", 0.07)[1][1]
    assert "published: 1.50 of 4 at purity 0.90 (flip at 0.5)" in drawn("batches", 0.0)[1][1]
    seen = drawn("boundary", 0.07)[1][1]
    assert "μ = 0: 0 ± 0 (predicted 0); μ = 4: 0.04 ± 0 (predicted 0.037)" in seen
    assert "measured α / predicted 1.1 to 1.1, error 7%" in seen
    assert "collapse from μ = 2.7, predicted: from any mean" in seen
    assert "Beyond the predicted boundary 0 of 6 layers collapse, within it 2 of 2." in seen
    assert "Of 8 small layers 88% start by the predicted phase (not within the bound of 90%), 25% end in it" in seen
    assert "collapse for redundant at αN = 0 λ_intra, λ_intra = 1, strength 0." in seen
    assert "Otherwise start: none." in drawn("boundary", 0.0)[1][1]
    assert "-0.50 before and -0.50 after training" in drawn("compatibility", 0.0)[1][1]


# The kind of experiment


def halves(start: float = 1.0, count: int = 3) -> xr.Dataset:
    """A function of the kind that is measured."""
    return xr.Dataset({"half": ("i", np.asarray(start * jnp.linspace(0.0, (count - 1) / 2, count)))})


def test_an_experiment_keeps_what_its_function_returns():
    experiment = Theory("halves", halves, {"count": 2})
    (part,) = experiment.parts()
    shares = []
    joined = experiment.join([part.run(shares.append)])
    np.testing.assert_array_equal(joined["half"], [0.0, 0.5])
    assert shares == [1.0]
    assert joined.attrs["dtype"] == str(joined["half"].dtype) == "float64"
    assert stale(experiment, joined) == []
    # The usual value given is the usual value; another, or another function, is another result.
    assert stale(Theory("halves", halves, {"count": 2, "start": 1.0}), joined) == []
    assert stale(dataclasses.replace(experiment, settings={"count": 3}), joined) == ["configuration"]
    assert stale(Theory("halves", _others, {"count": 2}), joined) == ["configuration"]


def _others(start: float = 1.0, count: int = 3) -> xr.Dataset:
    return halves(start, count)


def test_it_is_stale_when_sources_change(monkeypatch):
    experiment = Theory("halves", halves)
    stored = xr.Dataset(attrs=experiment.fingerprint())
    monkeypatch.setattr(plan.simulations, "source_hash", lambda: "other")
    assert stale(experiment, stored) == ["sources"]


def test_settings_of_both_profiles_fit_their_functions():
    assert set(THEORY_SMOKE) == {each.name for each in THEORY}
    for each in THEORY:
        each.fingerprint()
        dataclasses.replace(each, settings={**each.settings, **THEORY_SMOKE[each.name]}).fingerprint()
    with pytest.raises(TypeError, match="unexpected keyword argument 'sized'"):
        Theory("modes", THEORY[0].function, {"sized": 1}).fingerprint()
