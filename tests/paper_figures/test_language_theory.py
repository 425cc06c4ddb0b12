"""Figures that lay theory over language models: what they predict and judge follows from what is stored."""

import numpy as np
import pytest
from scipy import stats

from himoe_theory import dynamics
from paper_figures import printed
from paper_figures.chance import chance_information
from paper_figures.figures import language_ablation, language_boundary, language_load, language_scope
from simulations import Interval

from .spoken import BOUNDED, COMPARED, LOADED, SCOPED, spoken


def test_chance_is_what_permuted_labels_give():
    """Oracle: mutual information, by its definition, of permuted labels with choices that hang together."""
    rng, tokens, experts, routes = np.random.default_rng(0), 2000, 6, 2
    first = rng.integers(0, experts, tokens)
    chosen = np.zeros((tokens, experts))
    chosen[np.arange(tokens), first] = chosen[np.arange(tokens), (first + 1) % experts] = 1  # never independent
    labels = rng.choice(3, tokens, p=[0.6, 0.3, 0.1])
    found = []
    for _ in range(400):
        rng.shuffle(labels)
        joint = np.stack([chosen[labels == label].sum(axis=0) for label in range(3)]) / (routes * tokens)
        product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
        bound = min(stats.entropy(joint.sum(axis=1)), np.log(experts / routes))
        found.append((joint * np.log(joint / product)).sum() / bound)
    table = joint * routes * tokens
    error = np.std(found) / len(found) ** 0.5
    assert chance_information(table, tokens, routes) == pytest.approx(np.mean(found), abs=4 * error)
    assert error < 0.05 * np.mean(found)


@pytest.fixture
def arms():
    return spoken(COMPARED)


def set_difference(result, arm, quantity, value, base="moge"):
    """The same difference at every seed."""
    result[quantity].loc[{"arm": arm}] = result[quantity].sel(arm=base).values + value


def test_printed_differences_are_the_paper_s():
    assert language_ablation.printed_difference("quality", "hi-moe") == pytest.approx(-0.03)
    assert language_ablation.printed_difference("cv", "moge-inter") == pytest.approx(-0.04)
    assert np.isnan(language_ablation.printed_difference("cv", "hi-moe-swapped"))
    assert set(printed.HIMOE_TABLE3["cv"]) == set(printed.HIMOE_TABLE3["quality"])


@pytest.mark.parametrize(
    ("found", "expected", "verdict"),
    [
        (Interval(-0.2, 0.1), -0.03, "the same"),
        (Interval(0.2, 0.1), -0.03, "opposite"),
        (Interval(-0.2, 0.3), -0.03, "undecided"),
        (Interval(-0.2, float("nan")), -0.03, "undecided"),
        (Interval(-0.2, 0.1), 0.0, "undecided"),
    ],
)
def test_signs_are_compared_where_they_are_clear(found, expected, verdict):
    assert language_ablation.verdict(found, expected) == verdict


def test_the_rows_are_judged_by_what_is_stored(arms):
    for name in language_ablation.rows(arms):
        set_difference(arms, name, "validation_loss", 0.1)
        set_difference(arms, name, "cv", 0.1 if name == "moge-intra" else -0.1)
        set_difference(arms, name, "effective_groups", -0.5)
    seen = language_ablation.caption(arms)[1]
    assert "0 the same, 5 opposite, 0 undecided of 5" in seen  # all printed losses are below MoGE's
    assert "4 the same, 0 opposite, 1 undecided of 5" in seen  # the printed CV of the bias row is MoGE's
    assert "as predicted in 3 of 6 arms" in seen
    for name in ("moge-inter", "moge-bias", "hi-moe-swapped"):
        set_difference(arms, name, "effective_groups", 0.2)
    seen = language_ablation.caption(arms)[1]
    assert "as predicted in 6 of 6 arms" in seen
    assert "the use of the groups returns" in seen
    assert "effective groups +0.700 ± 0.000 (the interval excludes 0)" in seen


def test_the_groups_that_theory_expects(arms):
    expected = {
        "moge-intra": True,
        "moge-inter": False,
        "moge-bias": False,
        "moge-intra-inter": True,
        "hi-moe": True,
        "hi-moe-swapped": False,
    }
    assert {name: language_ablation.collapses(arms, name) for name in language_ablation.rows(arms)} == expected


def test_the_ablation_draws_both_differences(arms):
    figure = language_ablation.draw(arms)
    names = language_ablation.rows(arms)
    diamonds = next(line for line in figure.axes[1].lines if line.get_marker() == "D")
    expected = [language_ablation.printed_difference("cv", name) for name in names]
    np.testing.assert_allclose(diamonds.get_xdata(), expected)
    heading, rows = language_ablation.table(arms)
    assert {len(row) for row in rows} == {len(heading)}
    assert dict(zip(heading, rows[0], strict=True))["loss, printed"] == "-0.017"


@pytest.fixture
def bounded():
    """Balanced from alpha 0.01 on; gates that see the same everywhere."""
    result = spoken(BOUNDED)
    result["common_power"][:] = 8.0
    result["contrast_power"][:] = 2.0
    result["hard_load"][:] = 0.5
    result["collision_information"][:] = 0.4
    for arm in result.arm.values:
        result["cv"].loc[{"arm": arm}] = 0.9 if float(str(arm).split("α=")[1]) < 0.01 else 0.1
    return result


def test_boundaries_follow_from_what_was_measured(bounded):
    found = {rule: at.values for rule, at in language_boundary.predicted(bounded).items()}
    common = 2 * 0.1 / (8 * 4)  # lambda = .1, N = 8, K = 4, frozen counts
    np.testing.assert_allclose(found["frozen counts"], common)
    np.testing.assert_allclose(found["frozen counts, race"], common * 3 / 4, rtol=1e-6)
    # Oracle: logits drawn at the spread that gives this I_2, on which hard counts answer as the library says.
    z = np.random.default_rng(0).standard_normal((200_000, 8))
    (hard,) = np.unique(found["hard counts"].round(7))
    spreads = np.linspace(0.5, 3, 26)
    critical = [dynamics.critical_load_hard(spread, 0.1, 8, 1, 2) / 4 for spread in spreads]
    spread = np.interp(hard, critical[: int(np.argmax(critical))], spreads[: int(np.argmax(critical))])
    raised = np.exp(spread * z)
    share = raised / raised.sum(axis=1, keepdims=True)
    assert np.log(8 * np.square(share).sum(axis=1).mean()) == pytest.approx(0.4, rel=0.02)
    np.testing.assert_allclose(found["hard counts, race"], hard * 3 / 4, rtol=1e-4)


def test_the_place_where_a_function_falls_for_good():
    grid = np.array([0.0, 1.0, 2.0, 4.0])
    assert language_boundary.edge(grid, np.array([3.0, 1.0, -1.0, -2.0])) == pytest.approx(1.5)
    assert language_boundary.edge(grid, np.array([-1.0, 1.0, 3.0, -1.0])) == pytest.approx(3.5)
    assert np.isnan(language_boundary.edge(grid, np.array([-1.0, -1.0, -1.0, -1.0])))
    assert np.isnan(language_boundary.edge(grid, np.array([-1.0, -1.0, -1.0, 1.0])))


def test_predictions_are_judged_run_by_run(bounded):
    # Collapse below .01: between .002 and .01 the CV falls from .9 to .1 and passes .5 at the middle.
    np.testing.assert_allclose(language_boundary.observed_edges(bounded), 0.006)
    np.testing.assert_allclose(language_boundary.predicted_edges(bounded)["frozen counts"], 0.00625)
    assert language_boundary.errors(bounded)["frozen counts"].mean == pytest.approx(np.log(0.00625 / 0.006))
    assert language_boundary.hits(bounded)["frozen counts"] == 1.0
    bounded["cv"].loc[{"arm": "hi-moe α=0.002"}] = 0.1  # one of four loads is now on the wrong side
    assert language_boundary.hits(bounded)["frozen counts"] == 0.75
    heading, rows = language_boundary.table(bounded)
    assert {len(row) for row in rows} == {len(heading)}
    assert dict(zip(heading, rows[0], strict=True))["layers of runs right"] == "75%"


def test_the_figure_of_the_boundary_shows_and_says_it(bounded):
    others = spoken(LOADED)
    figure = language_load.draw(bounded, others)
    lines = {float(line.get_xdata()[0]) for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1}
    for places in language_boundary.predicted_edges(bounded).values():
        assert any(np.isclose(sorted(lines), places.mean()))
    drawn, seen = language_load.caption(bounded, others)
    error = language_boundary.errors(bounded)["hard counts"]
    assert f"predicted over observed {language_boundary.factor(error)} (the interval excludes 1)" in seen
    assert "100% of 24 layers of runs" in seen
    assert "the race from 0.0047 before training to 0.0047 at the end" in seen
    bounded["cv"][:] = 0.1  # no collapse anywhere: no edge to compare with
    assert "no edge" in language_load.caption(bounded, others)[1]
    assert "3 seeds (2 without)" in drawn


def test_a_factor_is_the_exponential_of_an_interval():
    assert language_boundary.factor(Interval(np.log(2), np.log(3))) == "2.00 (0.67 to 6.00)"
    assert language_boundary.factor(Interval(float("nan"), float("nan"))) == "no edge"


def test_the_scope_of_the_load_is_judged_by_paired_differences():
    micro, whole = spoken(SCOPED), spoken(SCOPED)
    for result in (micro, whole):
        result["hard_load"][:] = 0.5
    # Two micro-batches of one sequence of 64; alpha .4: .4 * 4 * 8 / 2 / .1 = 64 tokens.
    assert language_scope.taken(micro, "hi-moe α=0.4") == pytest.approx((1.0, 0.5))
    for arm, shift in {"hi-moe α=0.1": 0.25, "hi-moe α=0.4": -0.25}.items():
        set_to = micro["collision_information"].sel(arm=arm).values + shift
        whole["collision_information"].loc[{"arm": arm}] = set_to
    found = language_scope.difference(micro, whole, "hi-moe α=0.1", "collision_information")
    assert found.mean == pytest.approx(0.25)
    seen = language_scope.caption(micro, whole)[1]
    assert "as predicted: hi-moe α=0.1; clearly lower: hi-moe α=0.4; undecided: none" in seen
    figure = language_scope.draw(micro, whole)
    drawn = figure.axes[0].containers[1][0].get_ydata()
    expected = whole["collision_information"].sel(arm="hi-moe α=0.1").mean(("seed", "layer"))
    np.testing.assert_allclose(drawn.astype(float), expected)
