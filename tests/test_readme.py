"""What README.md shows of bringing one's own works as it stands there."""

import json
import sys
from pathlib import Path

import pytest

from simulations.__main__ import main
from simulations.screen import runs
from simulations.store import read_result

from .test_house import ROOT

SHORT = {
    "run": "--seeds 2 --steps 2 --records 1 --batch 16 --set training.test_tokens=16".split(),
    "screen": "--seeds 2 --workers 1 --set training.steps=2 training.records=1 training.test_tokens=16".split(),
}


def test_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Bring your own")[1].split("\n## ")[0]
    (tmp_path / "mine.py").write_text(section.split("```python\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    lines = [line.split() for line in section.splitlines() if line.startswith("    himoe-simulate ")]
    monkeypatch.setattr(runs, "RIVALS", ())
    monkeypatch.setattr(runs, "COEFFICIENTS", {"objective": (0.1,)})
    for _, command, *arguments in lines:
        monkeypatch.setattr(sys, "argv", ["himoe-simulate", command, *arguments, *SHORT[command]])
        main()
    assert (tmp_path / "results" / "screen-peaked.html").stat().st_size > 10_000
    assert sorted(path.name for path in (tmp_path / "results").glob("*.nc")) == ["gshard.nc", "mine.nc"]
    found = read_result(tmp_path / "results" / "gshard.nc")
    assert {each["name"] for each in json.loads(found.attrs["brought"])} == {"Scaled", "peak"}
    assert json.loads(found.attrs["configuration"])["layer"]["expert"]["factor"] == 3
