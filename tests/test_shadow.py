"""Commands that are started where a folder of the same name hides ours say so in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def started(folder: Path, package: str) -> subprocess.CompletedProcess[str]:
    """`python -m PACKAGE --help` in a folder, with ours further down the path."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", package, "--help"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("package", "hides", "line"),
    [
        ("paper_figures", "simulations", "/simulations` hides the package simulations: start from another folder"),
        ("paper_figures", "proofs_checks", "/proofs_checks` hides the package proofs_checks: start from another"),
        (
            "simulations",
            "himoe_theory",
            "hides the package himoe_theory",
        ),
        (
            "proofs_checks",
            "himoe_theory",
            "hides the package himoe_theory",
        ),
    ],
)
def test_a_folder_that_hides_ours(tmp_path, package, hides, line):
    (tmp_path / hides).mkdir()
    (tmp_path / hides / "__init__.py").write_text("")
    done = started(tmp_path, package)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
