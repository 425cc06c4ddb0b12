"""Results on disk: netCDF, whole or absent, and followed by the SHA-256 of all its bytes, which is checked when read.

HDF5, and so every reader of netCDF, takes no notice of what follows the content that it wrote.
"""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from himoe_theory.plumbing import files

FORMAT = "himoe-theory result 2"
_SEAL = "\nhimoe-theory sha256 {}\n"
_SEALED = re.compile(rb"\nhimoe-theory sha256 ([0-9a-f]{64})\n\Z")
_LENGTH = len(_SEAL.format("0" * 64))


def save(result: xr.Dataset, path: Path, *, replace: bool = True) -> None:
    """Writes a result file whole or not at all. **Raises:** `ValueError` if the folder cannot be written, or what has
    the name is no regular file; if not `replace`, if anything has it."""
    import h5netcdf  # here, as most commands store nothing
    from xarray.backends import H5NetCDFStore

    packed = {name: {"zlib": True, "complevel": 4} for name, v in result.data_vars.items() if v.ndim >= 3}
    target = io.BytesIO()
    with h5netcdf.File(target, "w") as file:
        result.dump_to_store(H5NetCDFStore(file), encoding=packed)
    content = target.getvalue()
    files.write(path, content + _SEAL.format(hashlib.sha256(content).hexdigest()).encode(), replace=replace)


def read_result(path: Path) -> xr.Dataset:
    """Reads a result file into memory.

    **Raises:** `ValueError` if it is missing, not what was written, or not of this format.
    """
    if not os.path.lexists(path):
        raise ValueError(f"`{path}` must be a result file; there is none.")
    content = files.read(path)
    found = _SEALED.search(content, max(0, len(content) - _LENGTH))
    if found is None:
        rule = "must be a readable result file; got one that does not end in its SHA-256"
        raise ValueError(f"`{path}` {rule}: it is damaged, of an older version or none. Compute it again.")
    content = content[: found.start()]
    if hashlib.sha256(content).hexdigest().encode() != found[1]:
        rule = "must be a readable result file; got one that is not what was written, by its SHA-256"
        raise ValueError(f"`{path}` {rule}. Compute it again.")
    try:
        result = xr.load_dataset(io.BytesIO(content), engine="h5netcdf")
    except Exception as error:  # whatever the libraries below raise
        raise ValueError(f"`{path}` must be a readable result file; got {files.reason(error)}.") from error
    if result.attrs.get("format") != FORMAT:
        raise ValueError(f"`{path}` must have format {FORMAT!r}; got {result.attrs.get('format')!r}.")
    return result


def check_holds(result: xr.Dataset, path: Path, needed: Sequence[str]) -> None:
    """`ValueError` naming the first variable or attribute that a result must have to be shown, and lacks."""
    for name in needed:
        if name not in result.variables and name not in result.attrs:
            raise ValueError(f"`{path}` must be a result of `run` or `lm` to be shown; it has no {name}.")
        if name in result.dims and not result.sizes[name]:
            raise ValueError(f"`{path}` must have at least one {name} to be shown; it has none.")
