"""`himoe-figures`: one line and exit code 2 on bad input, nothing half-written, and a second call that only reads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paper_figures import __main__ as command
from paper_figures import catalogue, compute, profiles

from .fakes import FIGURES, fake_profile

STEMS = [entry.stem for entry in FIGURES]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder on experiments that take no time; exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "FIGURES", FIGURES)
    monkeypatch.setattr(command, "FIGURES", FIGURES)
    monkeypatch.setattr(profiles, "PROFILES", {"full": fake_profile, "smoke": fake_profile})
    monkeypatch.setattr(
        compute,
        "run_all",
        lambda parts, workers, report: ((i, part.run(lambda share: None)) for i, part in enumerate(parts)),
    )

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["himoe-figures", *map(str, arguments)])
        code = 0
        try:
            command.main()
        except SystemExit as done:
            code = done.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def modified(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix != ".html"}


def test_everything_is_there_and_a_second_call_changes_nothing(run, tmp_path):
    code, out, err = run()
    assert (code, err) == (0, "")
    results = sorted(f"results/full/{each.name}.nc" for each in fake_profile())
    drawn = [f"figures/full/{stem}.{kind}" for stem in STEMS for kind in ("pdf", "png")]
    assert files(tmp_path) == ["figures/full/.drawn.json", *drawn, "figures/full/report.html", *results]
    last = out.strip().splitlines()[-1]
    assert re.match(
        r"figures/full/report.html shows figures 1, 2, 3, 4, 5; drawn now: 5 of them; results \d+\.\d s", last
    )
    before, page = modified(tmp_path), (tmp_path / "figures/full/report.html").read_text()
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "drawn now: 0 of them" in out
    assert modified(tmp_path) == before
    assert (tmp_path / "figures/full/report.html").read_text() == page


def test_only_some_figures(run, tmp_path):
    assert run("--only", "4")[0] == 0
    assert files(tmp_path / "results") == ["full/gradients.nc"]
    page = (tmp_path / "figures/full/report.html").read_text()
    assert [stem in page for stem in STEMS] == [False, False, False, True, False]
    # The next call adds to the report.
    code, out, _ = run("--only", "digits")
    assert code == 0
    assert "figures 4, 5; drawn now: 1 of them" in out
    page = (tmp_path / "figures/full/report.html").read_text()
    assert [f"id='{stem}'" in page for stem in STEMS] == [False, False, False, True, True]


def test_other_folders(run, tmp_path):
    code, *_ = run("--profile", "smoke", "--only", "4", "--results", tmp_path / "r", "--out", tmp_path / "o")
    assert code == 0
    assert files(tmp_path / "r") == ["gradients.nc"]
    page = (tmp_path / "o/report.html").read_text()
    assert f"himoe-figures --profile smoke --results {tmp_path}/r --out {tmp_path}/o --only 4" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "tiny"], "`profile` must be one of full, smoke; got 'tiny'."),
        (["--only"], "`only` must be followed by at least one word; got none."),
        (
            ["--only", "6"],
            "`only` must be among 1 (regimes), 2 (balance), 3 (activation), 4 (gradients), 5 (digits); got '6'.",
        ),
        (["--out", "file/x"], "`file/x/report.html` must be a file in a writable folder; got "),
        (["--results", "file/x"], "`file/x/regimes.nc` must be a file in a writable folder; got "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith(f"himoe-figures: {message}")
    assert len(err.splitlines()) == 1
    assert files(tmp_path) == ["file"]


def test_a_damaged_result_is_named_and_computed_again(run, tmp_path):
    run("--only", "4")
    path = tmp_path / "results/full/gradients.nc"
    path.write_bytes(path.read_bytes()[:1000])
    code, out, err = run("--only", "4")
    assert (code, err) == (0, "")
    assert out.startswith("`results/full/gradients.nc` must be a readable result file; got ")
    assert out.splitlines()[0].endswith("It is computed again.")


def test_ctrl_c_is_one_line_and_keeps_what_is_stored(run, tmp_path, monkeypatch):
    assert run("--only", "4")[0] == 0

    def interrupted(parts, workers, report):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(compute, "run_all", interrupted)
    code, _, err = run()
    assert code == 130
    assert err == "himoe-figures: interrupted; what is stored is kept, and the next call goes on there.\n"
    assert files(tmp_path / "results") == ["full/gradients.nc"]


def test_help_shows_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert "himoe-figures --profile smoke" in out
    assert "--only" in out


def test_the_module_is_the_same_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "paper_figures", "--profile", "tiny"],
        cwd=Path(command.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "himoe-figures: `profile` must be one of full, smoke; got 'tiny'.\n"


@pytest.mark.deep
def test_the_small_profile_from_simulation_to_page(tmp_path):
    """What .ci/run does after the tests, with a second call that must change nothing."""
    call = [sys.executable, "-m", "paper_figures", "--profile", "smoke"]
    folders = ["--results", str(tmp_path / "r"), "--out", str(tmp_path / "f")]
    for drawn in ("drawn now: 5 of", "drawn now: 0 of"):
        done = subprocess.run(
            [*call, *folders],
            cwd=Path(command.__file__).parents[1],
            env=os.environ | {"PYTHONWARNINGS": "default"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert drawn in done.stdout
    assert [f"id='{stem}'" in (tmp_path / "f/report.html").read_text() for stem in STEMS] == [True] * 5
