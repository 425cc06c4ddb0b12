"""The list of deliberate faults still fits the sources; `make faults` plants them all."""

from collections import Counter
from pathlib import Path

import pytest

from . import plant_faults

OBJECTIVES = (
    "load_hard",
    "load_soft",
    "inter_group",
    "intra_group",
    "entropy",
    "z",
    "variance",
    "outputs",
    "importance",
    "scopes",
)


@pytest.mark.parametrize("family", plant_faults.families())
def test_faults_occur_once_and_have_tests(family):
    found = plant_faults.faults(family)
    assert found
    for fault in found:
        compile((plant_faults.ROOT / fault.file).read_text().replace(fault.old, fault.new), fault.file, "exec")
        assert all((plant_faults.ROOT / test).exists() for test in fault.tests)


def test_every_objective_module_has_five():
    found = [fault for family in ("objectives", "loads", "scopes") for fault in plant_faults.faults(family)]
    counts = Counter(Path(fault.file).stem for fault in found)
    modules = {p.stem for p in (plant_faults.ROOT / "himoe_theory/objectives").glob("[a-z]*.py")} - {
        "catalogue",
        "record",
    }
    assert modules == set(OBJECTIVES)
    assert all(counts[name] >= 5 for name in OBJECTIVES), counts


@pytest.mark.parametrize(("replacement", "outcome"), [("2 / logits.shape[0] * total", False), ("2.5 * total", True)])
def test_a_planted_fault_is_noticed_and_its_absence_too(tmp_path, replacement, outcome):
    (tmp_path / "package.py").write_text("def f(x):\n    return x + 1  # here\n")
    (tmp_path / "test_it.py").write_text("from package import f\n\ndef test():\n    assert f(1) == 2\n")
    new = "return x + 2" if outcome else "return 1 + x"
    fault = plant_faults.Fault("toy", "package.py", "return x + 1", new, replacement, ("test_it.py",))
    assert plant_faults.caught(fault, tmp_path) is outcome
    assert "return x + 1  # here" in (tmp_path / "package.py").read_text()


def test_a_run_that_tests_nothing_is_no_catch(tmp_path):
    (tmp_path / "test_it.py").write_text("")
    with pytest.raises(RuntimeError, match="pytest ended with 5"):
        plant_faults.fails(tmp_path, ("test_it.py",))


@pytest.mark.deep
@pytest.mark.parametrize("family", plant_faults.families())
def test_a_fault_of_every_family_is_caught(tmp_path, family):
    assert plant_faults.caught(plant_faults.faults(family)[0], plant_faults.copy_tree(tmp_path))
