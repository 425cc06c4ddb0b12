"""The picture of a run: its lines, bands and maps are the numbers of the result."""

import numpy as np
import pytest

from simulations import Clusters, Layer, Training, arms, simulate
from simulations.picture import MOST_MAPS, TRAJECTORIES, cells, picture_of, plot_runs
from simulations.run import interval

SHORT = Training(steps=6, batch=32, records=3, test_tokens=64)


@pytest.fixture(scope="module")
def result():
    return simulate([arms()["moge"], arms()["moge-intra"]], Clusters(clusters=5), Layer(), SHORT, [3, 4])


def parts(figure):
    above, below = figure.subfigs
    return above.axes, [axes for axes in below.axes if axes.get_label() != "<colorbar>"]


def test_lines_are_means_and_bands_are_intervals(result, tmp_path):
    above, _ = parts(plot_runs(result, tmp_path / "r.png"))
    for axes, name in zip(above, TRAJECTORIES, strict=True):
        assert [line.get_label() for line in axes.lines] == ["moge", "moge-intra"]
        for line, arm in zip(axes.lines, result.arm.values, strict=True):
            values = result[name].sel(arm=arm).values
            assert np.allclose(line.get_xdata(), [0, 2, 4, 6])
            assert np.allclose(line.get_ydata(), values.mean(axis=0))
        (band, _) = axes.collections
        upper = [interval(column).mean + interval(column).half_width for column in result[name][0].values.T]
        assert np.isclose(band.get_paths()[0].vertices[:, 1].max(), max(upper))


def test_maps_are_loads_and_assignments_of_the_first_seed(result, tmp_path):
    _, below = parts(plot_runs(result, tmp_path / "r.png"))
    loads, maps = below[:2], below[2:]
    for place, arm in enumerate(result.arm.values):
        one = result.sel(arm=arm, seed=3)
        (image,), (assigned,) = loads[place].collections, maps[place].collections
        assert np.allclose(image.get_array(), one["hard_load"].values.T)
        assert np.allclose(assigned.get_array(), one["assignment"].isel(step=-1).values)
        assert assigned.get_array().shape == (5, 8)
        assert image.get_clim() == loads[0].collections[0].get_clim()


def test_what_is_unknown_is_masked_and_leaves_the_rest(result, tmp_path):
    broken = result.copy(deep=True)
    broken["hard_load"][0, 0, -1] = np.nan
    broken["assignment"][0, 0, -1] = np.nan
    broken["test_error"][0, 0, 2:] = np.nan
    above, below = parts(plot_runs(broken, tmp_path / "r.png"))
    assert np.allclose(above[0].lines[0].get_ydata()[2:], broken["test_error"].values[0, 1, 2:])
    assert below[0].collections[0].get_array().mask.sum() == 8
    assert below[2].collections[0].get_array().mask.all()


def test_many_arms_have_lines_and_the_first_have_maps(result, tmp_path):
    import xarray as xr

    many = xr.concat([result.isel(arm=[0]).assign_coords(arm=[f"[red]$a_{i}"]) for i in range(11)], dim="arm")
    above, below = parts(plot_runs(many.isel(seed=[0]), tmp_path / "r.png"))
    assert [len(axes.lines) for axes in above] == [11, 11, 11]
    assert len(below) == 2 * MOST_MAPS


def test_cells_lie_around_their_steps():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    image = cells(axes, np.zeros((2, 3)), 1.0, np.asarray([0, 10, 30]))
    assert np.allclose(image.get_coordinates()[0, :, 0], [-5, 5, 20, 40])
    assert np.allclose(image.get_coordinates()[:, 0, 1], [-0.5, 0.5, 1.5])
    one = cells(axes, np.zeros((1, 1)), 1.0)
    assert np.allclose(one.get_coordinates()[0, :, 0], [-0.5, 0.5])


def test_a_picture_lies_beside_its_file_and_replaces_only_pictures(result, tmp_path):
    assert picture_of(tmp_path / "a.b.nc") == tmp_path / "a.b.png"
    assert picture_of(tmp_path / "result") == tmp_path / "result.png"
    plot_runs(result, tmp_path / "r.png")
    plot_runs(result, tmp_path / "r.png")
    (tmp_path / "mine.png").write_bytes(b"a photograph")
    with pytest.raises(ValueError, match=r"must be a new file or a picture that was drawn here; it is another"):
        plot_runs(result, tmp_path / "mine.png")
    assert (tmp_path / "mine.png").read_bytes() == b"a photograph"
