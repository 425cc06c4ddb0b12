"""Figures of language models: what they plot and say is what is stored."""

import dataclasses

import numpy as np
import pytest

from paper_figures import compute, style
from paper_figures.catalogue import FIGURES
from paper_figures.figures import language, language_activation, language_depth, language_guo, language_loads
from paper_figures.plan import Replication, stale
from paper_figures.profiles import LANGUAGE
from simulations import interval, store
from simulations.language.study import Study, compared, loaded

from .spoken import ABLATED, COMPARED, spoken, timed


@pytest.fixture(scope="module")
def arms():
    return spoken(COMPARED)


def test_dots_are_means_over_seeds_and_layers(arms):
    figure = language.draw(arms)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(arms.arm.values)
    for axes, quantity in zip(figure.axes, language.PANELS, strict=True):
        drawn = {round(float(y)): x for box in axes.containers for x, y in box[0].get_xydata()}
        for row, name in enumerate(names):
            expected = language.final(arms, name, quantity).mean()
            if name == "plain" and quantity != "validation_loss":
                assert row not in drawn  # no experts, no dot
            else:
                np.testing.assert_allclose(drawn[row], expected)


def test_differences_are_paired_by_seed(arms):
    shifted = arms.copy(deep=True)
    loss = shifted["validation_loss"]
    base = loss.sel(arm="moge").values
    loss.loc[{"arm": "hi-moe"}] = base - 0.25  # the same advantage at every seed
    assert language.against(shifted, "hi-moe").mean == pytest.approx(-0.25)
    assert language.against(shifted, "hi-moe").half_width == pytest.approx(0, abs=1e-12)
    seen = language.caption(shifted)[1]
    assert "hi-moe -0.2500 ± 0.0000" in seen.split("CV of the expert loads:")[0]
    shifted["cv"].loc[{"arm": "gshard"}] = shifted["cv"].sel(arm="moge").values + 0.5
    assert "gshard +0.5000 ± 0.0000" in language.caption(shifted)[1].split("CV of the expert loads:")[1]


def test_information_is_shown_beside_its_chance_level(arms):
    named = arms.copy(deep=True)
    level = language.chance(named, "moge")
    # Two domains of 500 tokens, 4 of 8 experts: (2 - 1) (8 - 4) / (2 * 4 * 999) nats of at most ln 2.
    expected = 4 / (8 * 999)
    tables = named["assignment"].sel(arm="moge").isel(record=-1).sum("expert") / 4000
    entropy = -(tables * np.log(tables)).sum("domain")
    assert level == pytest.approx(float((expected / np.minimum(entropy, np.log(2))).mean()))
    named["information"].loc[{"arm": "moge"}] = level / 2
    named["information"].loc[{"arm": [str(name) for name in named.arm.values if name not in ("moge", "plain")]}] = 0.9
    assert "above chance in 10 of 11 arms" in language.caption(named)[1]
    marks = [line for line in language.draw(named).axes[3].lines if line.get_color() == style.ACCENT]
    assert level in list(marks[0].get_xdata())


def test_table_has_a_row_for_every_arm_and_blanks_where_nothing_is(arms):
    heading, rows = language.table(arms)
    assert {len(row) for row in rows} == {len(heading)}
    cells = {row[0]: dict(zip(heading, row, strict=True)) for row in rows}
    assert set(cells) == set(arms.arm.values)
    assert cells["plain"]["CV, layer 0"] == ""
    assert cells["moge"]["minus moge (paired)"] == ""
    expected = interval(arms["cv"].sel(arm="gshard", layer=2).isel(record=-1).values)
    assert cells["gshard"]["CV, layer 2"] == str(expected)


def least_and_most(arms, name):
    load = arms["train_load"].sel(arm=name).isel(record=-1).values.reshape(-1, 8)
    return f"{load.min(axis=1).mean():.2f} to {load.max(axis=1).mean():.2f}"


def test_heat_maps_show_the_first_seed(arms):
    figure = language_loads.draw(arms)
    names = language_loads.shown(arms)
    images = [axes.images[0] for axes in figure.axes if axes.images and axes.get_title() in names]
    assert len(images) == len(names)
    expected = arms["train_load"].sel(arm=names[0], layer=0).isel(seed=0).transpose("expert", "record")[:, 1:]
    np.testing.assert_allclose(images[0].get_array(), expected)
    drawn, seen = language_loads.caption(arms)
    assert all(name in seen for name in names)
    soft = arms["soft_load"].sel(arm="hi-moe").isel(record=-1).values.reshape(-1, 4, 2).sum(axis=2)  # pairs are groups
    assert f"hi-moe: {least_and_most(arms, 'hi-moe')}, largest group mass {soft.max(axis=1).mean():.2f}" in seen
    assert "first seed" in drawn


def test_traffic_of_every_arm(arms):
    heading, rows = language_loads.table(arms)
    assert [row[0] for row in rows] == language_loads.shown(arms)
    assert {len(row) for row in rows} == {len(heading)}
    cells = {row[0]: dict(zip(heading, row, strict=True)) for row in rows}
    # 1000 tokens, four routes each, on four devices: 1000 rows; a free choice may bring both experts of a group.
    assert cells["gshard"]["rows a device, mean"] == cells["moge"]["rows a device, mean"] == "1000"
    assert (cells["gshard"]["buffer / rows"], cells["moge"]["buffer / rows"]) == ("2.00", "1.00")
    touched = arms["groups_touched"].sel(arm="hi-moe").isel(record=-1).mean().item()
    assert cells["hi-moe"]["groups touched a token"] == f"{touched:.2f}"


def test_ablation_draws_every_arm_and_says_their_ends():
    result = spoken(ABLATED)
    figure = language_guo.draw(result)
    for axes, quantity in zip(figure.axes, language_guo.PANELS, strict=True):
        lines = {line.get_label(): line.get_ydata() for line in axes.lines if not line.get_label().startswith("_")}
        for name in result.arm.values:
            np.testing.assert_allclose(lines[name], result[quantity].sel(arm=name).mean(("layer", "seed")))
    seen = language_guo.caption(result)[1]
    assert str(language_guo.at_end(result, "guo-aux-lo-span", "expert_overlap")) in seen


def test_shipped_results_are_drawn_whatever_the_sources_but_not_of_another_study(tmp_path, monkeypatch):
    shipped = Replication("language", COMPARED, shipped=True)
    monkeypatch.setattr(compute, "SHIPPED", tmp_path / "with the package")
    path = compute.path_of(shipped, tmp_path)
    assert path == tmp_path / "with the package" / "language.nc"
    assert compute.look(shipped, tmp_path) == ""  # nothing there: it would be computed
    result = spoken(COMPARED).assign_attrs(format=store.FORMAT, sources="others", versions="others")
    store.save(result, path)
    assert stale(shipped, result) == []
    assert isinstance(compute.look(shipped, tmp_path), compute.Stored)
    other = dataclasses.replace(shipped, study=dataclasses.replace(COMPARED, seeds=(0, 1)))
    assert stale(other, result) == ["configuration"]
    assert "language.nc` is out of date: configuration changed." in compute.look(other, tmp_path)


def test_the_package_ships_what_its_figures_need():
    for each in LANGUAGE:
        result = compute.look(each, compute.SHIPPED)
        assert isinstance(result, compute.Stored), result
        assert [str(name) for name in result.result.arm.values] == [arm.name for arm in each.study.arms]
    drawn = {entry.name for entry in FIGURES}
    assert {"language", "language-loads", "language-guo", "language-load", "language-quick"} <= drawn


def test_a_plain_network_has_as_many_active_parameters():
    study = Study(compared())
    plain, moge = (study.model(next(arm for arm in study.arms if arm.name == name)) for name in ("plain", "moge"))
    assert plain.moe_layers == ()
    assert plain.hidden(0) == 4 * moge.hidden(0)
    assert plain.hidden(1) == moge.hidden(1)


def test_arms_over_the_load_have_its_coefficient():
    (arm,) = loaded((0.003,), ("hi-moe",))
    assert arm.name == "hi-moe α=0.003"
    assert arm.terms["load_per_token"] == 0.003


def test_a_study_of_several_arms_does_not_carry_the_name_of_one():
    study = Study(loaded((0.0, 0.1), ("moge",)), recipe=COMPARED.recipe)
    pieces = [spoken(piece).assign_attrs(arm=piece.arms[0].name) for piece in study.pieces()]
    joined = study.combine(pieces)
    assert "arm" not in joined.attrs
    assert joined.attrs["seconds"] == 2.0


def test_groups_by_selections_and_by_probability(arms):
    one = arms.copy(deep=True)
    one["hard_load"].loc[{"arm": "hi-moe", "layer": 2}] = 0.5
    soft = np.array([0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    one["soft_load"].loc[{"arm": "hi-moe", "layer": 2}] = soft
    selected, probable = (language_activation.of_groups(one, "hi-moe", 2, kind) for kind in ("hard_load", "soft_load"))
    np.testing.assert_allclose(selected, np.full((3, 4), 0.25))
    np.testing.assert_allclose(probable, np.tile([0.4, 0.2, 0.2, 0.2], (3, 1)), rtol=1e-6)
    names = language_activation.shown(one)
    figure = language_activation.draw(one)
    place = 2 * len(names) + names.index("hi-moe")  # layer 2: third row
    bars = [bar.get_height() for bar in figure.axes[place].patches]
    np.testing.assert_allclose(bars, [0.5] * 8)
    drawn = figure.axes[place + len(names)].lines[1].get_ydata()
    np.testing.assert_allclose(drawn, [0.4, 0.2, 0.2, 0.2] * 3, rtol=1e-6)
    one["hard_load"].loc[{"arm": "hi-moe", "layer": 0}] = 0.5
    one["soft_load"].loc[{"arm": "hi-moe", "layer": 0}] = soft
    said = "hi-moe: experts take 0.50 to 0.50 of the tokens, the fullest group 0.25 of the selections and 0.40"
    assert said in language_activation.caption(one)[1]


def test_depth_is_shown_by_layer(arms):
    found = language_depth.by_layer(arms, "hi-moe", "cv")
    last = arms["cv"].sel(arm="hi-moe").isel(record=-1)
    assert [one.mean for one in found] == pytest.approx([last.sel(layer=layer).values.mean() for layer in (0, 2)])
    rates = language_depth.by_layer(arms, "moge", "rates")
    one = arms.sel(arm="moge", layer=2).isel(record=-1)
    assert rates[1].mean == pytest.approx(float((one["common_power"] / one["contrast_power"]).mean()))
    some = arms.sel(arm=["gshard", "moge", "hi-moe"])
    figure = language_depth.draw(some, timed())
    assert [len(axes.containers) for axes in figure.axes] == [3] * len(language_depth.PANELS)
    drawn = figure.axes[0].containers[2][0].get_xydata()[:, 1]  # arms in the order of the figures
    np.testing.assert_allclose(drawn, [one.mean for one in language_depth.by_layer(some, "hi-moe", "cv")])


def test_time_of_routers():
    times = timed()
    # 3 of 30, 1 of 20 and 8 of 40: the middle one.
    assert language_depth.share(times, "moge") == pytest.approx(0.1)
    heading, rows = language_depth.table(spoken(COMPARED), times)
    assert {len(row) for row in rows} == {len(heading)}
    cells = dict(zip(heading, rows[0], strict=True))
    assert cells["router, core ms a layer"] == "1500.00"  # median 3 s over two layers
    assert cells["share of core time"] == "10.0%"
    drawn, seen = language_depth.caption(spoken(COMPARED).sel(arm=["moge"]), times)
    assert "moge 10.0%" in seen
    assert "on a processor" in drawn
