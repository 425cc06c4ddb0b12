"""Results on disk: netCDF, written to a temporary name and renamed, checked when read."""

import os
import tempfile
from pathlib import Path

import xarray as xr

FORMAT = "himoe-theory result 1"


def save(result: xr.Dataset, path: Path) -> None:
    """Writes a result file whole or not at all. **Raises:** `ValueError` if the folder cannot be written."""
    packed = {name: {"zlib": True, "complevel": 4} for name, v in result.data_vars.items() if v.ndim >= 3}
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        result.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
        temporary.replace(path)
    except OSError as error:
        raise ValueError(f"`{path}` must be a file in a writable folder; got {_short(error)}.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def load(path: Path) -> xr.Dataset:
    """Reads a result file into memory. **Raises:** `ValueError` if it is missing, damaged or not of this format."""
    if not path.is_file():
        raise ValueError(f"`{path}` must be a result file; there is none.")
    try:
        result = xr.load_dataset(path, engine="h5netcdf")
    except Exception as error:  # whatever the libraries below raise for a damaged file
        raise ValueError(f"`{path}` must be a readable result file; got {_short(error)}.") from error
    if result.attrs.get("format") != FORMAT:
        raise ValueError(f"`{path}` must have format {FORMAT!r}; got {result.attrs.get('format')!r}.")
    return result


def writable(path: Path) -> None:
    """`ValueError` now rather than after the work, if a file could not be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"`{path}` must be a file in a writable folder; got {_short(error)}.") from error
    if path.is_dir():
        raise ValueError(f"`{path}` must be a file; it is a folder.")


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
