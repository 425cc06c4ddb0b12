"""Time of routers against a forward pass: what is stored."""

import os
import platform

import numpy as np
import pytest

from simulations.arms import arms
from simulations.language.timing import CLOCKS, PARTS, RouterTime
from simulations.provenance import processor

SHAPE = {"layers": 3, "heads": 2, "dim": 8, "context": 8, "vocabulary": 16, "width": 16, "stride": 2}


def test_every_turn_of_every_arm_is_kept():
    chosen, told = (arms()["hi-moe"], arms()["gshard"]), []
    found = RouterTime(chosen, SHAPE, batch=2, rounds=3).simulate(told.append)
    assert found["time"].dims == ("arm", "part", "clock", "round")
    assert found["time"].shape == (2, len(PARTS), len(CLOCKS), 3)
    assert list(found.arm.values) == ["hi-moe", "gshard"]
    assert (found["time"].sel(clock="seconds") > 0).all()
    assert (found["layers"] == 2).all()  # blocks 0 and 2
    assert told[-1] == 1.0
    assert found.attrs["dtype"] == "float32"
    assert found.attrs["processor"] == processor()
    assert found.attrs["cores"] == os.cpu_count()


def test_the_processor_is_named_as_the_system_lists_it(tmp_path):
    assert processor(tmp_path) == (platform.processor() or platform.machine())
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Abacus: 7 rods\nmodel name\t: other\n")
    assert processor(tmp_path) == "Abacus: 7 rods"


def test_it_is_one_piece():
    study = RouterTime((arms()["moge"],), SHAPE, batch=2, rounds=1)
    assert study.pieces() == [study]
    found = study.simulate(lambda share: None)
    np.testing.assert_array_equal(study.combine([found])["time"], found["time"])


def test_errors_name_rule_and_values():
    with pytest.raises(ValueError, match="`rounds` must be at least 1; got 0"):
        RouterTime((arms()["moge"],), SHAPE, rounds=0)
    with pytest.raises(ValueError, match="`number of arms` must be at least 1; got 0"):
        RouterTime(())
