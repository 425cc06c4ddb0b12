"""The picture of a language model: its lines and maps are the numbers of the result."""

import numpy as np
import pytest

from simulations.language.picture import plot_model

from .small import model, run


@pytest.fixture(scope="module")
def result():
    whole = run(model=model(layers=2))
    return whole.train(whole.start())


def test_lines_and_maps_are_what_is_stored(result, tmp_path):
    figure = plot_model(result, tmp_path / "m.png")
    assert (tmp_path / "m.png").stat().st_size > 10_000
    above, below = figure.subfigs
    losses, cv, information = above.axes
    assert np.allclose(losses.lines[0].get_ydata(), result["train_loss"])
    assert np.allclose(losses.lines[1].get_ydata(), result["validation_loss"])
    assert np.allclose(losses.lines[1].get_xdata(), result["record"])
    for axes, name in ((cv, "cv"), (information, "information")):
        assert np.allclose([line.get_ydata() for line in axes.lines], result[name].values.T)
    maps = [axes for axes in below.axes if axes.get_label() != "<colorbar>"]
    share = result["assignment"][-1].values / result["domain_tokens"][-1].values[:, None]
    for layer in range(2):
        assert np.allclose(maps[layer].collections[0].get_array(), result["hard_load"].values[:, layer].T)
        assert np.allclose(maps[2 + layer].collections[0].get_array(), share[layer])
    assert [text.get_text() for text in maps[2].get_yticklabels()] == ["low", "high"]


def test_a_model_without_mixtures_has_losses_alone(result, tmp_path):
    plain = result.isel(layer=[])
    above, below = plot_model(plain, tmp_path / "p.png").subfigs
    assert len(above.axes) == 1
    assert not below.axes


def test_a_run_that_stopped_is_drawn_as_far_as_it_came(result, tmp_path):
    stopped = result.copy(deep=True)
    stopped.attrs["stopped"] = "the loss is not finite"
    for name in ("validation_loss", "hard_load", "assignment", "cv", "information"):
        stopped[name][2:] = np.nan
    figure = plot_model(stopped, tmp_path / "s.png")
    assert "stopped: the loss is not finite" in figure.get_suptitle()
    maps = [axes for axes in figure.subfigs[1].axes if axes.get_label() != "<colorbar>"]
    assert maps[0].collections[0].get_array().mask.any()
    assert not maps[2].collections[0].get_array().mask.any()
