"""Result files come back as they went, are whole or absent, and damaged ones are refused by name."""

import json

import numpy as np
import pytest
import xarray as xr

from simulations import Clusters, Layer, Training, arms, load, save, simulate

TINY = Training(steps=2, batch=8, records=1, test_tokens=16)


@pytest.fixture(scope="module")
def result():
    return simulate([arms()["moge"]], Clusters(), Layer(), TINY, [0, 5])


def test_round_trip_with_provenance(result, tmp_path):
    path = tmp_path / "deep" / "folder" / "r.nc"
    save(result, path)
    back = load(path)
    xr.testing.assert_identical(back, result)
    configuration = json.loads(back.attrs["configuration"])
    assert configuration["seeds"] == [0, 5]
    assert configuration["training"]["steps"] == 2
    assert configuration["data"] == {"kind": "Clusters"} | configuration["data"]
    assert configuration["arms"][0]["terms"] == {"load_per_token": 0.01}
    assert set(json.loads(back.attrs["versions"])) >= {"python", "jax", "numpy", "optax", "himoe-theory"}
    assert back.attrs["dtype"] == "float32"
    assert len(back.attrs["sources"]) == 64
    assert back.attrs["seconds"] > 0
    assert all(back.attrs[name] for name in ("device", "commit"))
    assert [p.name for p in path.parent.iterdir()] == ["r.nc"]


def test_a_truncated_file_is_refused(result, tmp_path):
    path = tmp_path / "r.nc"
    save(result, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"r\.nc` must be a readable result file; got ") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.nc` must be a result file; there is none"):
        load(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(ValueError, match=r"text\.nc` must be a readable result file"):
        load(tmp_path / "text.nc")
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="must have format 'himoe-theory result 1'; got None"):
        load(tmp_path / "other.nc")


def test_an_unwritable_folder_is_refused_and_nothing_is_left(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"r\.nc` must be a file in a writable folder"):
        save(result, tmp_path / "file" / "r.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(result, tmp_path, monkeypatch):
    path = tmp_path / "r.nc"
    save(result, path)
    before = path.read_bytes()

    def full(self, target, **_):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(ValueError, match="No space left on device"):
        save(result, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.nc"]


def test_dead_values_survive(tmp_path):
    values = xr.Dataset(
        {"x": ("seed", np.array([1.0, np.nan, np.inf], np.float32))}, attrs={"format": "himoe-theory result 1"}
    )
    save(values, tmp_path / "v.nc")
    np.testing.assert_array_equal(load(tmp_path / "v.nc")["x"], values["x"])
