"""The figures of the papers' own experiments: ours beside what is printed, never mixed."""

import dataclasses

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from paper_figures.figures import chen, kawata
from paper_figures.plan import stale
from paper_figures.printed import CHEN as PRINTED
from simulations import interval

from .replicated import CHEN, KAWATA, FakeReplication, stored


@pytest.fixture(scope="module")
def patches():
    return stored(CHEN)


@pytest.fixture(scope="module")
def index():
    return stored(KAWATA)


def points(axes):
    """Label → place and height of what has error bars."""
    found = [box for box in axes.containers if isinstance(box, ErrorbarContainer)]
    return {box.get_label(): box[0].get_xydata()[0] for box in found}


def test_chen_plots_our_means_and_the_printed_ones(patches):
    figure = chen.draw(patches)
    panels = dict(
        zip([("accuracy", "linear"), ("accuracy", "cubic"), ("entropy", "linear")], figure.axes, strict=False)
    )
    for (quantity, kind), axes in panels.items():
        for model, setting in (("paper", "1"), ("released", "3")):
            expected = patches[quantity].sel(model=model, activation=kind, setting=setting).mean("seed")
            np.testing.assert_allclose(points(axes)[f"{model} {setting}"][1], expected)
        heights = [box[0].get_ydata()[0] for box in axes.containers if isinstance(box, ErrorbarContainer)]
        for setting in ("1", "3"):
            assert PRINTED[quantity][kind, setting].mean in heights
    assert "single 1" in points(figure.axes[0])
    assert "single 1" not in points(figure.axes[2])  # one expert leaves all of it open
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [
        "printed (± standard deviation)",
        "paper's form",
    ]


def test_chen_table_has_a_row_for_every_setting_and_activation(patches):
    heading, rows = chen.table(patches)
    assert [row[:2] for row in rows] == [("1", "linear"), ("1", "cubic"), ("3", "linear"), ("3", "cubic")]
    assert {len(row) for row in rows} == {len(heading)}
    row = dict(zip(heading, rows[2], strict=True))
    assert row["test accuracy, printed"] == "0.959 ± 0.013"
    ours = interval(patches["entropy"].sel(model="released", activation="linear", setting="3").values)
    assert row["dispatch entropy H (nats), released form"] == str(ours)


def test_chen_caption_counts(patches):
    near = patches.copy(deep=True)
    for (kind, setting), printed in PRINTED["accuracy"].items():
        if setting in ("1", "3"):
            at = {"model": "released", "activation": kind, "setting": setting}
            near["accuracy"].loc[at] = printed.mean + np.array([-1e-3, 0, 1e-3])
    near["entropy"].loc[{"model": "released"}] = 0.9
    near["accuracy"].loc[{"model": "single"}] = 0.5
    near["accuracy"].loc[{"model": "single", "activation": "cubic", "setting": "3", "seed": 1}] = 0.861
    drawn, seen = chen.caption(near)
    assert "8 experts of 8 filters an output, 50 samples, 7 full-batch steps" in drawn
    assert (
        "Released form: the printed mean is inside our interval for test accuracy 4 of 4 and dispatch entropy H (nats) "
        "0 of 4; H > 1 in 0 of 6 runs of linear experts and H < 0.7 in 0 of 6 runs of cubic experts." in seen
    )
    assert "right on 0.861; the bound is 0.875" in seen


def test_some_models_alone_are_drawn():
    alone = stored(dataclasses.replace(CHEN, models=("paper",), activations=("cubic",), seeds=(5,)))
    assert len(chen.draw(alone).axes) == 2
    assert "single" not in chen.caption(alone)[1]
    assert len(chen.table(alone)[1]) == 2


def test_printed_numbers_are_those_of_the_paper():
    assert {name: len(table) for name, table in PRINTED.items()} == {"accuracy": 8, "entropy": 8}
    assert str(PRINTED["accuracy"]["linear", "2"]) == "0.885 ± 0.020"
    assert PRINTED["entropy"]["cubic", "2"].mean == 0.171


def test_kawata_plots_overlaps_moments_and_errors(index):
    left, middle, right = kawata.draw(index).axes
    thick = {line.get_label(): line for line in left.get_lines() if line.get_linewidth() == 1.6}
    for network in ("mixture", "pooled"):
        expected = index["shared_overlap"].sel(network=network).mean("seed")
        np.testing.assert_allclose(thick[network].get_ydata(), expected)
    assert [text.get_text() for text in left.texts] == ["explore", "route", "exploit"]
    assert kawata.stages(index) == (6, 8, 12)
    heights = [box[0].get_ydata()[0] for box in middle.containers]
    np.testing.assert_allclose(heights[:4], index["cluster_moment"].mean("seed"))
    np.testing.assert_allclose(heights[4], index["pooled_moment"].mean("seed"))
    np.testing.assert_allclose([box[0].get_ydata()[0] for box in right.containers], index["test_error"].mean("seed"))


def test_kawata_caption(index):
    drawn, seen = kawata.caption(index)
    assert "4 clusters in dimension 32, information exponent k = 3, 8 experts of 8 neurons, batches of 8" in drawn
    ends = index["shared_overlap"].isel(step=-1)
    assert f"is {interval(ends.sel(network='mixture').values)} in the mixture" in seen


def test_replications_split_into_programs_and_are_current_under_their_own_settings(patches):
    whole = FakeReplication("chen", CHEN)
    assert [part.study.models + part.study.activations for part in whole.parts()] == [
        (model, kind) for model in CHEN.models for kind in CHEN.activations
    ]
    assert list(patches.model.values) == list(CHEN.models)
    assert patches.attrs["seconds"] == 18
    assert stale(whole, patches) == []
    assert stale(FakeReplication("chen", dataclasses.replace(CHEN, steps=8)), patches) == ["configuration"]
