"""Figures show the stored numbers, and captions state them: both change when the data change."""

import matplotlib
import numpy as np
import pytest
from matplotlib.image import AxesImage

from paper_figures import style
from paper_figures.figures import activation, balance, digits, gradients, regimes
from paper_figures.profiles import with_alpha
from simulations import Balance, Clusters, Digits, Regime, arms

from .synthetic import ARMS, audited, set_final, set_names, simulated

ALL = [ARMS[name] for name in ARMS]


def images(figure):
    return [image for axes in figure.axes for image in axes.get_images() if isinstance(image, AxesImage)]


def all_text(figure):
    return [text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts]]


@pytest.fixture(autouse=True)
def _nothing_global_changes():
    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before


# Figure 1


def test_regimes_show_the_assignment_of_the_named_seed():
    result = set_final(simulated([ARMS["hi-moe"], ARMS["gshard"]]), "hi-moe", "test_error", [0.3, 0.1, 0.2])
    result["assignment"].loc[{"arm": "hi-moe", "seed": 2, "step": 40}] = [[0, 0, 1, 1], [1, 1, 0, 0], [1, 0.2, 0, 0.8]]
    figure = regimes.draw(result)
    flat, grouped, untrained = images(figure)  # gshard is shown first
    # Experts in the order 0, 2, 1, 3; clusters 1 and 2 share expert 0, and of the two, 1 selects expert 1 more.
    np.testing.assert_allclose(grouped.get_array(), [[1, 0, 1, 0], [1, 0, 0.2, 0.8], [0, 1, 0, 1]])
    assert [label.get_text() for label in grouped.axes.get_yticklabels()] == ["1", "2", "0"]
    assert flat.get_clim() == grouped.get_clim() == (0, 1)
    assert "specialised 3/3 · seed 2\nuneven 3/3" in all_text(figure)
    # The gate of the grouped arm and that seed before training, with what it tells of clusters.
    start = result.sel(arm="hi-moe", seed=2, step=0)
    drawn = start["assignment"].values[:, [0, 2, 1, 3]]
    np.testing.assert_allclose(untrained.get_array(), drawn[regimes.sort_rows(drawn)])
    assert "untrained (hi-moe, step 0)" in all_text(figure)
    seen = f"G = 0 · label info {float(start['information']):.2f}\nCV {float(start['cv']):.2f} · seed 2"
    assert seen in all_text(figure)
    # A line between groups where groups select, none elsewhere.
    assert [line.get_xdata()[0] for line in grouped.axes.get_lines()] == [1.5]
    assert not flat.axes.get_lines()


def test_regimes_show_the_load():
    result = simulated([ARMS["hi-moe"]], seeds=(3,))
    load = result["hard_load"].sel(arm="hi-moe", seed=3, step=40).values
    (bars,) = [axes for axes in regimes.draw(result).axes if axes.patches and axes.get_ylabel() == "load"]
    np.testing.assert_allclose([bar.get_height() for bar in bars.patches], load[[0, 2, 1, 3]])


def test_regimes_have_a_panel_for_every_arm():
    figure = regimes.draw(simulated(ALL))
    assert len(images(figure)) == len(arms()) + 1  # and an untrained gate
    assert set(arms()) <= set(all_text(figure))


def test_regimes_caption_counts_seeds():
    result = simulated([ARMS["moge"], ARMS["hi-moe"]])
    _, seen = regimes.caption(result)
    assert "Most frequent regime: specialised: moge and hi-moe; seeds do not agree: none." in seen
    assert "Most frequent balance: uneven: moge and hi-moe; seeds do not agree: none." in seen
    changed = set_names(result, "hi-moe", Regime.UNLEARNED, Regime.UNLEARNED, Regime.DIVERGED)
    changed = set_names(changed, "moge", Balance.COLLAPSED, Balance.COLLAPSED, Balance.EVEN)
    drawn, seen = regimes.caption(changed)
    assert "After 40 steps" in drawn
    assert "unlearned: hi-moe; specialised: moge" in seen
    assert "hi-moe (2 unlearned, 1 diverged)" in seen
    assert "moge (1 even, 2 collapsed)" in seen
    assert "1 diverged runs are left out" in seen


@pytest.mark.parametrize("caption", [regimes.caption, digits.caption, balance.caption])
def test_captions_with_names_say_their_rule_and_what_untrained_gates_have(caption):
    chosen = [with_alpha(ARMS[name], alpha) for name in ("moge", "hi-moe") for alpha in (0.0, 0.1)]
    result = simulated(chosen, data=Digits() if caption is digits.caption else Clusters(clusters=3, dim=8))
    drawn, _ = caption(result, result) if caption is balance.caption else caption(result)
    assert "specialised from 0.5" in drawn
    assert "lopsided from 0.5" in drawn
    assert drawn.count("untrained gates: ") == 2
    assert "of 1000" in drawn


def test_rows_are_sorted_by_their_experts():
    matrix = np.array([[0, 1, 0], [1, 0, 0], [0, 0.98, 0.5], [1, 0, 0.6]])
    np.testing.assert_array_equal(regimes.sort_rows(matrix), [3, 1, 2, 0])


# Figure 2


def sweep(mean, alphas=(0.0, 0.1)):
    known = {name: ARMS[name] for name in ("moge", "hi-moe")}
    chosen = [with_alpha(arm, alpha) for arm in known.values() for alpha in alphas]
    return simulated(chosen, data=Clusters(clusters=3, dim=8, mean=mean))


def test_balance_plots_means_and_intervals():
    high, low = sweep(4.0), sweep(0.0)
    high = set_final(high, "hi-moe α=0", "test_error", [0.2, 0.3, 0.4])
    high = set_final(high, "hi-moe α=0", "cv", [0.8, 0.9, 1.0])
    figure = balance.draw(high, low)
    assert [axes.get_title() for axes in figure.axes] == [f"common mean of the tokens μ = {mean}" for mean in (4, 0)]
    points = {box.get_label(): box for box in figure.axes[0].containers}
    assert set(points) == set(high.arm.values)
    line, _, (across, along) = points["hi-moe α=0"]
    np.testing.assert_allclose(line.get_xydata(), [[0.9, 0.3]])
    half = 4.302653 * 0.1 / 3**0.5  # t(0.975; 2)
    np.testing.assert_allclose(across.get_segments()[0][:, 0], [0.9 - half, 0.9 + half], rtol=1e-6)
    np.testing.assert_allclose(along.get_segments()[0][:, 1], [0.3 - half, 0.3 + half], rtol=1e-6)


def test_balance_tells_arms_and_coefficients_apart_without_colour():
    figure = balance.draw(sweep(4.0), sweep(0.0))
    points = {box.get_label(): box[0] for box in figure.axes[0].containers}
    markers = {name: line.get_marker() for name, line in points.items()}
    assert markers["moge α=0"] == markers["hi-moe α=0"] != markers["hi-moe α=0.1"]
    assert points["moge α=0"].get_markerfacecolor() != points["hi-moe α=0"].get_markerfacecolor()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["moge", "hi-moe", "α = 0", "α = 0.1"]


@pytest.mark.parametrize(
    ("at_high", "at_low", "outcome"),
    [
        (3, 0, "with the common mean and not without it"),
        (2, 2, "with the common mean and without it"),
        (1, 1, "neither with the common mean nor without it"),
        (0, 2, "without the common mean and not with it"),
    ],
)
def test_balance_verdict_follows_the_counts(at_high, at_low, outcome):
    def collapse(result, count):
        names = [Balance.COLLAPSED, Balance.LOPSIDED, Balance.LOPSIDED][:count] + [Balance.EVEN] * (3 - count)
        return set_names(result, "hi-moe α=0", *names)

    results = collapse(sweep(4.0), at_high), collapse(sweep(0.0), at_low)
    made = f"{min(at_high, 1)} of them made so by training"
    said = f"hi-moe: {at_high} of 3 seeds end lopsided at μ = 4, {made}, {at_low} of 3 at μ = 0 ({outcome})"
    assert said in balance.caption(*results)[1]
    assert said in balance.caption(*reversed(results))[1]
    assert "moge: 0 of 3 seeds end lopsided at μ = 4, 0 of them" in balance.caption(*results)[1]


def test_balance_caption_names_the_lowest_error():
    high, low = sweep(4.0), sweep(0.0)
    high = set_final(high, "moge α=0.1", "test_error", [0.01, 0.01, 0.01])
    assert "Lowest error: moge α=0.1 at μ = 4 (0.010 ± 0.000)" in balance.caption(high, low)[1]


def test_balance_is_drawn_when_everything_diverged():
    high = low = sweep(0.0)
    for arm in high.arm.values:
        high = set_names(high, arm, *[Regime.DIVERGED] * 3)
    figure = balance.draw(high, low)
    assert len(figure.axes) == 2
    balance.draw(high, high)
    assert "unknown at μ = 0" in balance.caption(high, low)[1]
    assert "12 diverged runs" in balance.caption(high, low)[1]


def test_largest_cv_is_where_all_tokens_agree():
    assert balance.largest_cv(sweep(0.0)) == pytest.approx((4 / 2 - 1) ** 0.5)


# Figure 3


def test_activation_shows_the_load_on_one_scale():
    result = simulated([ARMS["hi-moe"], ARMS["gshard"]], seeds=(9,))
    figure = activation.draw(result)
    flat, grouped = images(figure)
    load = result["hard_load"].sel(seed=9)
    np.testing.assert_allclose(grouped.get_array(), load.sel(arm="hi-moe").values.T[[0, 2, 1, 3]])
    np.testing.assert_allclose(flat.get_array(), load.sel(arm="gshard").values.T[[0, 2, 1, 3]])
    assert flat.get_clim() == grouped.get_clim() == (0, 1)
    # Step 40 is the middle of the last column, expert 0 of the first row.
    assert grouped.get_extent() == [-5, 45, 3.5, -0.5]
    assert [line.get_ydata()[0] for line in grouped.axes.get_lines()] == [1.5]


def test_activation_caption_counts_idle_experts():
    result = simulated([ARMS["hi-moe"], ARMS["gshard"]])
    assert "idle (selected by less than 1% of the tokens): none." in activation.caption(result)[1]
    changed = result.copy(deep=True)
    changed["hard_load"].loc[{"arm": "hi-moe", "seed": 1, "step": 40}] = [0.0, 1.0, 0.0, 1.0]
    seen = activation.caption(changed)[1]
    assert "hi-moe (0.7); 0 in all others" in seen
    largest = changed["hard_load"].isel(step=-1).max("expert").mean("seed").sel(arm="hi-moe").item()
    assert f"{largest:.2f}, in hi-moe" in seen


# Figure 4


def test_gradients_write_every_exponent():
    errors = np.array([[1e-15, 2e-3], [0.0, np.nan]])
    result = audited(errors, [0.1, 10.0], ["load", "z"])
    figure = gradients.draw(result)
    (image,) = images(figure)
    eps = np.finfo(float).eps
    np.testing.assert_allclose(image.get_array().filled(np.nan), [[-15, np.log10(2e-3)], [np.log10(eps / 2), np.nan]])
    assert [text.get_text() for text in image.axes.texts] == ["−15.0", "−2.7", "−16.0", "NaN"]
    assert [label.get_text() for label in image.axes.get_yticklabels()] == ["load", "z"]


def test_gradients_caption_names_the_worst_and_what_disagrees():
    errors = np.array([[1e-15, 2e-14], [3e-15, 1e-16]])
    drawn, seen = gradients.caption(audited(errors, [0.1, 10.0], ["load", "z"]))
    assert "7 random batches" in drawn
    assert "The largest of all is 2.0e-14, 90 eps: load at 10." in seen
    assert "2 of 2 objectives stay within 1e-12; above it or undefined: none." in seen
    errors[1] = [np.nan, 1e-16]
    assert (
        "1 of 2 objectives stay within 1e-12; above it or undefined: z."
        in (gradients.caption(audited(errors, [0.1, 10.0], ["load", "z"]))[1])
    )
    errors[0, 0] = 1e-9
    seen = gradients.caption(audited(errors, [0.1, 10.0], ["load", "z"]))[1]
    assert "0 of 2 objectives" in seen
    assert "load and z." in seen
    assert gradients.caption(audited(np.full((1, 1), np.nan), [1.0], ["z"]))[1].startswith("0 of 1")


# Figure 5


def test_digits_plot_means_of_the_seeds():
    result = simulated([ARMS["hi-moe"], ARMS["gshard"]], data=Digits())
    result = set_final(result, "hi-moe", "test_error", [0.1, 0.2, 0.3])
    figure = digits.draw(result)
    accuracy = figure.axes[0].containers[0]
    np.testing.assert_allclose(accuracy[0].get_ydata(), [0, 1])  # gshard above hi-moe
    assert accuracy[0].get_xdata()[1] == pytest.approx(0.8)
    half = 4.302653 * 0.1 / 3**0.5
    np.testing.assert_allclose(accuracy[2][0].get_segments()[1][:, 0], [0.8 - half, 0.8 + half], rtol=1e-6)
    ticks = [
        line for line in figure.axes[0].get_lines() if line.get_marker() == "|" and line.get_color() == style.MIDDLE
    ]
    np.testing.assert_allclose(np.sort(ticks[-1].get_xdata()), [0.7, 0.8, 0.9])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"{name}  (specialised 3/3, uneven 3/3)" for name in ("gshard", "hi-moe")]
    # Open dots: the untrained gate.
    frozen = 1 - result["frozen_error"].sel(arm="hi-moe").mean()
    (hollow,) = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow.get_xdata()[1] == pytest.approx(float(frozen))


def test_digits_caption_states_extremes():
    result = simulated([ARMS["hi-moe"], ARMS["planted"]], data=Digits())
    result = set_final(result, "hi-moe", "test_error", [0.25, 0.25, 0.25])
    result = set_final(result, "planted", "test_error", [0.125, 0.125, 0.125])
    drawn, seen = digits.caption(result)
    assert "10 classes, 360 held-out images" in drawn
    assert "planted control" in drawn
    assert "Accuracy from 0.750 ± 0.000 (hi-moe) to 0.875 ± 0.000 (planted)" in seen
    assert "collapsed seeds: none" in seen
    seen = digits.caption(set_names(result, "hi-moe", Balance.COLLAPSED, *[Balance.EVEN] * 2))[1]
    assert "collapsed seeds: hi-moe." in seen


def test_digits_leave_diverged_runs_out():
    result = simulated([ARMS["hi-moe"], ARMS["gshard"]], data=Digits())
    for arm in ("hi-moe", "gshard"):
        result = set_names(result, arm, *[Regime.DIVERGED] * 3)
    digits.draw(result)
    assert "Accuracy unknown" in digits.caption(result)[1]
