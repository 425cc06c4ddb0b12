"""What the tests of sweeps compare with."""

import pytest

from simulations.sweep import sweep
from tests.simulations.sweep.small import design, in_this_process


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The store of the small design, computed in one go and without other processes."""
    folder = tmp_path_factory.mktemp("whole")
    return sweep(design(folder), folder / "store", executor=in_this_process)
