"""Finite batches, hard counts, biases and groups on small versions, within the figure's bounds."""

import numpy as np

from paper_figures.figures import batches as figure
from simulations import theory


def test_batches_follow_the_identity():
    found = theory.batch_load(sizes=(2, 8, 64), experts=4, population=50, draws=200_000)
    assert figure.identity_error(found) <= figure.IDENTITY_BOUND
    # It would be seen if batches had the load of the population: by many standard errors.
    assert float(((found["measured"] - found["limit"]) / found["standard_error"]).min()) > 10
    np.testing.assert_allclose(
        (found["predicted"] - found["limit"]) * found.tokens, found["predicted"][0] * 2 - found["limit"] * 2
    )


def test_the_window_is_where_the_forces_balance():
    found = theory.window(points=5, tokens=20_001, ratios=(0.3, 0.9))
    assert figure.window_error(found) <= figure.WINDOW_BOUND
    assert np.isfinite(found["edge"].sel(ratio=0.3)).all()
    assert np.isnan(found["edge"].sel(ratio=0.9)).all()
    assert np.isnan(found["predicted_edge"].sel(ratio=0.9)).all()


def test_the_floor_of_max_violation():
    found = theory.violation(experts=4, routes=2, tokens=128, rates=(0.001, 0.05), steps=300)
    assert figure.floor_error([found]) <= figure.FLOOR_BOUND
    assert float(found["predicted"][1]) > 1.3 * float(found["predicted"][0])


def test_published_coefficients_lose_groups_and_swapped_ones_keep_them():
    found = theory.effective_groups(tokens=32, steps=200, records=1, rate=12.0, seeds=(3,)).isel(seed=0, step=-1)
    published, swapped = (found.sel(arm=name) for name in ("published", "swapped"))
    assert float(published["groups"]) < 2.5 < 3.8 < float(swapped["groups"]) <= 4
    # Theory's threshold: above it groups collapse.
    assert float(published["purity"]) > float(published["flip"]) == 0.5
    assert float(swapped["purity"]) < float(swapped["flip"]) == 2
    # And the counts of the groups say nothing.
    assert float(published["group_cv"]) < 1e-6
