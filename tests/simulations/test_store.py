"""Result files come back as they went, are whole or absent, and damaged ones are refused by name."""

import json

import numpy as np
import pytest
import xarray as xr

from himoe_theory.plumbing import files
from paper_figures.compute import SHIPPED
from simulations import Clusters, Layer, Training, arms, read_result, record, save, simulate
from simulations.language import trajectory
from simulations.regimes import NAMES
from simulations.store import FORMAT

TINY = Training(steps=2, batch=8, records=1, test_tokens=16)


@pytest.fixture(scope="module")
def result():
    return simulate([arms()["moge"]], Clusters(), Layer(), TINY, [0, 5])


def test_round_trip_with_provenance(result, tmp_path):
    path = tmp_path / "deep" / "folder" / "r.nc"
    save(result, path)
    back = read_result(path)
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
        read_result(path)
    assert "\n" not in str(caught.value)


def test_flipped_bits_are_refused_wherever_they_are(tmp_path):
    """Numbers, names, attributes, what HDF5 keeps for itself, and the hash: no byte may change unnoticed."""
    variables = {"cv": (("arm", "seed"), np.array([[0.5, 1.0]], np.float32)), "regime": ("arm", np.int8([3]))}
    small = xr.Dataset(variables, {"arm": ["moge"]}, {"format": FORMAT, "seconds": 1.5})
    path = tmp_path / "r.nc"
    save(small, path)
    whole = path.read_bytes()
    xr.testing.assert_identical(xr.load_dataset(path, engine="h5netcdf"), small)  # other readers do not mind the hash
    rng = np.random.default_rng(0)
    for place in [*range(0, len(whole), 11), *range(len(whole) - 90, len(whole))]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.integers(8)]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"r\.nc` must be a readable result file; got one that "):
            read_result(path)
    for content in (whole[:-1], whole + b"\n", whole[1:], b"\n" + whole, b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a readable result file; got one that "):
            read_result(path)
    path.write_bytes(whole)
    xr.testing.assert_identical(read_result(path), small)


@pytest.mark.parametrize("shipped", sorted(SHIPPED.glob("*.nc")), ids=lambda path: path.stem)
def test_shipped_results_are_sealed(shipped, tmp_path):
    content = bytearray(shipped.read_bytes())
    assert read_result(shipped).attrs["format"] == FORMAT
    path = tmp_path / "r.nc"
    for place in np.random.default_rng(1).integers(len(content), size=5):
        content[place] ^= 16
        path.write_bytes(content)
        content[place] ^= 16
        with pytest.raises(ValueError, match="must be a readable result file; got one that "):
            read_result(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.nc` must be a result file; there is none"):
        read_result(tmp_path / "absent.nc")
    (tmp_path / "text.nc").write_text("no netCDF")
    with pytest.raises(ValueError, match=r"text\.nc` must be a readable result file"):
        read_result(tmp_path / "text.nc")
    save(xr.Dataset({"a": 1}), tmp_path / "other.nc")
    with pytest.raises(ValueError, match="must have format 'himoe-theory result 2'; got None"):
        read_result(tmp_path / "other.nc")


def test_an_unwritable_folder_is_refused_and_nothing_is_left(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"r\.nc` must be a file in a writable folder"):
        save(result, tmp_path / "file" / "r.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(result, tmp_path, monkeypatch):
    path = tmp_path / "r.nc"
    save(result, path)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ValueError, match="No space left on device"):
        save(result, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.nc"]


def test_dead_values_survive(tmp_path):
    values = xr.Dataset({"x": ("seed", np.array([1.0, np.nan, np.inf], np.float32))}, attrs={"format": FORMAT})
    save(values, tmp_path / "v.nc")
    np.testing.assert_array_equal(read_result(tmp_path / "v.nc")["x"], values["x"])


def test_what_results_hold_is_read_by_its_name():
    """Attributes of a data set come first: a measurement that has the name of a method is not seen."""
    names = {*record.DESCRIPTIONS, *trajectory.DESCRIPTIONS, *NAMES, "term_z"}
    assert not [name for name in sorted(names) if hasattr(xr.Dataset, name)]
