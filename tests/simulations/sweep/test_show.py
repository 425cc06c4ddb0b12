"""What `show` says of a sweep: numbers against hand values, forms that fit, pictures that can be drawn."""

import io
import itertools

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from simulations.regimes import Balance, Regime
from simulations.sweep.picture import plot
from simulations.sweep.show import label, labels, number, view
from simulations.sweep.table import print_table

U, S, P, D = Regime.UNLEARNED, Regime.SPECIALISED, Regime.PARTIAL, Regime.DIVERGED
T_OF_1 = 12.706204736  # 97.5 % quantile of Student's t with one degree of freedom, from a table


def data(dims, axes, error, regime=None):
    """What `read_sweep` returns of runs whose error at the end is given, `[settings..., seed]`; twice that before."""
    error = np.asarray(error, float)
    regime = np.full(error.shape, S) if regime is None else np.asarray(regime)
    coordinates = {name: (dims if len(dims) == 1 else (name,), np.asarray(values)) for name, values in axes.items()}
    return xr.Dataset(
        {
            "test_error": ((*dims, "seed", "record"), np.stack([2 * error, error], -1)),
            "hard_load": ((*dims, "seed", "record", "expert"), np.zeros((*error.shape, 2, 3))),
            "regime": ((*dims, "seed"), regime.astype(np.int8)),
            "balance": ((*dims, "seed"), np.where(regime < 0, -1, Balance.LOPSIDED).astype(np.int8)),
        },
        coordinates | {"seed": ("seed", np.arange(error.shape[-1])), "step": ("record", [0, 10])},
    )


def grid_of(*lengths, seeds=2):
    """Error = 100 i + 10 j + seed at place (i, j) of fields `a` = 0, 1, ... and `b` = 0, 0.5, ..."""
    i, j, s = np.ogrid[: lengths[0], : lengths[1], :seeds]
    return data(("a", "b"), {"a": np.arange(lengths[0]), "b": np.arange(lengths[1]) / 2}, 100 * i + 10 * j + s)


def scattered(points=200, seeds=3):
    rng = np.random.default_rng(0)
    axes = {"a": rng.uniform(0, 4, points), "b": 10 ** rng.uniform(-5, 0, points)}
    error = axes["a"][:, None] + 100 * np.arange(seeds)
    return data(("setting",), axes, error, rng.integers(0, 5, (points, seeds)))


def printed(seen, width=80, height=25, terminal=False):
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=terminal, no_color=True, _environ={})
    print_table(seen, console)
    return out.getvalue()


def test_a_field_is_averaged_over_the_others_and_the_title_says_so():
    seen = view(grid_of(3, 4), "a")
    np.testing.assert_allclose(seen.mean, [15.5, 115.5, 215.5], rtol=1e-14)
    # Two seeds whose means over `b` differ by 1: standard error 0.5.
    np.testing.assert_allclose(seen.half_width, 0.5 * T_OF_1, rtol=1e-9)
    assert seen.runs.tolist() == [8, 8, 8]
    assert seen.title == "test_error at the end, mean over 2 seeds and over b (4 values)"


def test_a_seed_with_some_runs_that_diverged_counts_with_the_others():
    """At a = 0, b = 0, seed 0 diverged: that seed's mean is over b = 0.5 alone, 10; the other's is (1 + 11) / 2."""
    regimes = np.full((2, 2, 2), S)
    regimes[0, 0, 0] = D
    error = grid_of(2, 2)["test_error"].isel(record=1).values
    seen = view(data(("a", "b"), {"a": [0, 1], "b": [0, 0.5]}, error, regimes), "a")
    assert seen.mean.tolist() == [8.0, 105.5]
    np.testing.assert_allclose(seen.half_width, [2 * T_OF_1, 0.5 * T_OF_1], rtol=1e-9)
    assert (seen.diverged.tolist(), seen.runs.tolist()) == ([1, 0], [4, 4])


def test_without_a_choice_the_first_two_fields_with_several_values_are_crossed():
    seen = view(grid_of(3, 4))
    assert seen.fields == ("a", "b")
    assert seen.mean[2, 3] == 230.5
    assert seen.title == "test_error at the end, mean over 2 seeds"
    assert view(grid_of(1, 4)).fields == ("b",)
    assert view(grid_of(3, 1), y="a").fields == ("b", "a")


def test_numbers_rise_and_names_keep_their_order():
    mixed = data(("a", "arm"), {"a": [2.0, 0.5, 1.0], "arm": ["z", "c"]}, np.arange(6).reshape(3, 2, 1))
    seen = view(mixed)
    assert seen.values == ([0.5, 1.0, 2.0], ["z", "c"])
    assert seen.mean.tolist() == [[2, 3], [4, 5], [0, 1]]


def test_seed_is_an_axis_without_intervals():
    seen = view(grid_of(3, 4, seeds=5), "seed", "a")
    np.testing.assert_allclose(seen.mean, 15 + np.arange(5)[:, None] + 100 * np.arange(3), rtol=1e-14)
    assert np.isnan(seen.half_width).all()
    assert seen.title == "test_error at the end, mean over b (4 values)"
    assert "±" not in printed(seen)


@pytest.mark.parametrize("value", ["0.5", 0.5, "0.50", "5e-1"])
def test_a_slice_has_the_runs_of_one_value(value):
    seen = view(grid_of(3, 4), at={"b": value, "seed": 1})
    assert seen.fields == ("a",)
    assert seen.mean.tolist() == [11, 111, 211]
    assert seen.title == "test_error at the end, mean over 1 seed; b = 0.5; seed = 1"


def test_a_slice_takes_values_as_they_are_printed():
    thirds = data(("a",), {"a": [1 / 3, 2 / 3]}, [[1.0], [2.0]])
    assert view(thirds, at={"a": "0.6667"}).mean.tolist() == [2]


def test_diverged_and_missing_runs_are_counted_and_left_out():
    nan = np.nan
    runs = data(
        ("a",), {"a": [0, 1, 2]}, [[1, 3, 1e9], [nan, nan, nan], [nan, nan, nan]], [[S, S, D], [D, D, D], [-1, -1, -1]]
    )
    seen = view(runs)
    assert seen.mean[0] == 2
    assert seen.half_width[0] == pytest.approx(T_OF_1)
    assert (seen.diverged.tolist(), seen.runs.tolist()) == ([1, 3, 0], [3, 3, 0])
    text = printed(seen)
    assert "2 ± 13 (1 div.)" in text
    assert "all 3 div." in text
    assert [line.split()[1:] for line in text.splitlines() if line.startswith(" 2")] == [["-", "0"]]


def test_regimes_are_those_of_most_runs():
    found = view(
        data(("a",), {"a": [0, 1, 2]}, np.zeros((3, 4)), [[U, P, P, D], [S, S, U, U], [-1, -1, -1, -1]]),
        measurement="regime",
    )
    assert found.mean[:2].tolist() == [P, S]  # the later on a tie
    assert np.isnan(found.mean[2])
    assert found.agreeing.tolist() == [2, 2, 0]
    assert found.title == "regime at the end, the most frequent over 4 seeds"
    assert "partial 2/4" in printed(found)


@pytest.mark.parametrize(("name", "rule"), [("regime", "specialised from 0.5"), ("balance", "lopsided from 0.5")])
def test_names_stand_with_their_rule_and_what_untrained_gates_have(name, rule, tmp_path):
    seen = view(grid_of(3, 4), measurement=name)
    text, figure = printed(seen), plot(seen, tmp_path / "picture.png")
    for whole in (text, figure.get_supxlabel()):
        assert rule in " ".join(whole.split())
        assert "of 1000" in " ".join(whole.split()).partition("untrained gates: ")[2]


def test_balance_is_shown_like_regimes(tmp_path):
    codes = [[U, U], [D, S], [-1, -1]]
    seen = view(data(("a",), {"a": [0, 1, 2]}, np.zeros((3, 2)), codes), measurement="balance")
    assert seen.mean[:2].tolist() == [Balance.LOPSIDED] * 2
    assert seen.runs.tolist() == [2, 2, 0]
    assert "lopsided 2/2" in printed(seen)
    assert [text.get_text() for text in drawn(seen, tmp_path).get_yticklabels()] == [name.label for name in Balance]


def test_points_of_a_list_are_sorted_and_stay_apart():
    seen = view(scattered(), "a", "b")
    assert seen.scattered
    assert len(seen.mean) == 200
    assert seen.values[0] == sorted(seen.values[0])
    at = np.isfinite(seen.mean)
    # Error is `a` plus 100 times the seed, so that a point's own `a` can be read off.
    np.testing.assert_allclose(seen.mean[at] % 50, np.asarray(seen.values[0])[at], rtol=1e-9)
    assert view(scattered(5), "seed").values[0] == [0] * 5 + [1] * 5 + [2] * 5
    assert "each point is a setting; settings also differ in b" in view(scattered(), "a").title


def test_rows_that_do_not_fit_a_terminal_are_counted():
    text = printed(view(scattered()), height=30, terminal=True)
    assert "180 of 200 rows left out" in text
    assert len(text.splitlines()) < 30
    assert "left out, evenly" not in printed(view(scattered()))


@pytest.mark.parametrize(("columns", "width"), [(2, 80), (12, 80), (12, 200), (40, 80)])
@pytest.mark.parametrize("measurement", ["test_error", "regime"])
def test_tables_fit_and_lose_no_cell(columns, width, measurement):
    seen = view(grid_of(12, columns), measurement=measurement)
    text = printed(seen, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    rows = [line for line in text.splitlines() if line.startswith(" 11 ")]
    cells = " ".join(row.removeprefix(" 11 ") for row in rows)
    if measurement == "test_error" and columns > 2 and width == 80:
        shown = [float(word) for word in cells.split()]
        np.testing.assert_allclose(shown, seen.mean[11], rtol=0.005)
        assert "intervals: in a wider terminal" in text
    elif measurement == "test_error":
        assert cells.count("±") == columns
    else:
        assert cells.count("2/2") == columns


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.00051, 2, "5.1e-4"), (0.0051, 2, "0.0051"), (1e-5, 4, "1e-5"), (12345.6, 3, "12346"), (1.5e9, 3, "1.5e9")],
)
def test_numbers_are_short(value, digits, text):
    assert number(value, digits) == text


def test_labels_tell_levels_apart():
    assert labels([1.0, 1.00001]) == ["1", "1.00001"]
    assert labels([1 / 3, 1.0], 2) == ["0.33", "1"]
    assert label(10**6) == "1000000"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": "c"}, "`x` must be an axis of the sweep, one of a, b, seed; got 'c'"),
        ({"x": "a", "y": "a"}, "`x` and `y` must be different fields; got 'a' twice"),
        ({"x": "a", "at": {"a": 0}}, "`x` must be a field that `at` does not fix; got 'a' in both"),
        ({"at": {"c": 0}}, "`at` must name an axis of the sweep, one of a, b, seed; got 'c'"),
        ({"at": {"b": "7"}}, "`at` b must be one of its 4 values 0, 0.5, 1, 1.5; got '7'"),
        ({"measurement": "hard_load"}, "`value` must be one of balance, regime, test_error; got 'hard_load'"),
    ],
)
def test_errors_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        view(grid_of(3, 4), **arguments)
    assert "\n" not in str(caught.value)


def drawn(seen, tmp_path):
    """The axes of its picture."""
    figure = plot(seen, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    return figure.axes[0]


@pytest.mark.parametrize("measurement", ["test_error", "regime"])
@pytest.mark.parametrize("columns", [2, 12, 40])
def test_labels_of_a_map_do_not_touch(columns, measurement, tmp_path):
    axes = drawn(view(grid_of(columns, 3), measurement=measurement), tmp_path)
    boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert axes.get_title(loc="left") == view(grid_of(columns, 3), measurement=measurement).title


def test_a_list_is_drawn_as_points(tmp_path):
    seen = view(scattered(), "a", "b")
    axes = drawn(seen, tmp_path)
    assert not axes.images
    known = np.isfinite(seen.mean)
    np.testing.assert_array_equal(axes.collections[0].get_offsets()[:, 1], np.asarray(seen.values[1])[known])
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    legend = drawn(view(scattered(), "a", "b", "regime"), tmp_path).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [regime.label for regime in Regime]


@pytest.mark.parametrize("measurement", ["test_error", "regime"])
def test_one_field_is_drawn_at_its_values(measurement, tmp_path):
    logarithmic = data(("a",), {"a": [0.0, 1e-3, 1e-2, 1e-1, 1.0]}, np.ones((5, 2)))
    axes = drawn(view(logarithmic, measurement=measurement), tmp_path)
    assert axes.get_xscale() == "symlog"
    assert axes.lines[0].get_xdata().tolist() == [0, 1e-3, 1e-2, 1e-1, 1]
    names = data(("arm",), {"arm": ["moge", "gshard"]}, np.ones((2, 2)))
    axes = drawn(view(names, measurement=measurement), tmp_path)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["moge", "gshard"]


def test_a_map_of_nothing_but_diverged_runs_is_crossed(tmp_path):
    lost = data(("a", "b"), {"a": [0, 1], "b": [0, 1]}, np.full((2, 2, 2), np.nan), np.full((2, 2, 2), D))
    axes = drawn(view(lost), tmp_path)
    assert [text.get_text() for text in axes.texts] == ["×"] * 4


def test_a_map_of_regimes_has_their_letters_and_who_agrees(tmp_path):
    codes = [[[U, U], [P, S]], [[D, D], [-1, -1]]]
    seen = view(data(("a", "b"), {"a": [0, 1], "b": [0, 1]}, np.zeros((2, 2, 2)), codes), measurement="regime")
    assert [text.get_text() for text in drawn(seen, tmp_path).texts] == ["U", "S\n1/2", "D"]
