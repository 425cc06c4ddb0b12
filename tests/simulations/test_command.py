"""The command: a table, a stored file, and one line with exit code 2 for every mistake."""

import sys

import pytest

from simulations import read_result
from simulations.__main__ import main

QUICK = ["--steps", "4", "--batch", "16", "--records", "2", "--seeds", "2"]


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["himoe-simulate", *arguments])
    main()


def refused(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


def test_run_prints_a_table_and_stores(monkeypatch, capsys, tmp_path):
    path = tmp_path / "out.nc"
    call(monkeypatch, "run", "--arm", "hi-moe", "--data", "clusters", "--out", str(path), *QUICK)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("hi-moe", "±", "2 seeds"))
    stored = read_result(path)
    assert stored.sizes["seed"] == 2
    assert list(stored.step.values) == [0, 2, 4]
    call(monkeypatch, "show", str(path))
    assert "hi-moe" in capsys.readouterr().out


def test_arms_lists_all(monkeypatch, capsys):
    call(monkeypatch, "arms")
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("guo-aux-lv", "planted"))


@pytest.mark.parametrize("arguments", [(), ("run",)])
def test_help_shows_examples(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments, "--help")
    assert stop.value.code == 0
    assert "himoe-simulate run --arm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arm", "hi-mo"), "`arm` must be one of dense, gshard"),
        (("--seeds", "0"), "`seeds` must be at least 1; got 0"),
        (("--load", "-0.1"), "`terms[load_per_token]` must be finite and at least 0; got -0.1"),
        (("--tau", "nan"), "`tau` must be finite and at least 0; got nan"),
        (("--per-group", "3"), "`per_group[0]` must be at most 2 (the group's size); got 3"),
        (("--groups", "3"), "`num_groups` must divide `num_experts`; got 8 experts, 3 groups"),
        (("--arm",), "`arm` must be followed by at least one word; got none"),
        (
            ("--data", "cluster"),
            "`data` must be one of clusters, digits, patches, single-index, streams; got 'cluster'",
        ),
        (("--set", "data.mean=far"), "`data.mean` in --set must be a number; got 'far'"),
        (("--term", "lode=1"), "`term` must name an objective; got 'lode', known are load"),
        (("--outputs", "1000000000"), "8 runs must fit in memory; got about 8.06e+06 GiB"),
        (("--batch", "1000000000", "--seeds", "1"), "1 runs must fit in memory; got about"),
        (("--steps", "2147483647", "--records", "1"), "8 runs must fit in memory; got about"),
        (("--seeds", "99999999999999999999"), "`seeds` must be at most 2147483648; got 99999999999999999999"),
        (("--first-seed", "99999999999999999999"), "`first_seed` must be at most 2147483640 (2^31 - seeds); got 99999"),
        (("--arm", "[/red]"), "got '[/red]'"),
        (("--arm", "a\nb"), "got 'a\\nb'"),
        (("--records", "7"), "`records` must divide `steps`; got 7 records, 1500 steps"),
        (("--expert", "deep"), "`expert` must be one of linear, two-layer, cubic; got 'deep'"),
        (("--out", "/dev/null/x/y.nc"), "`/dev/null/x/y.nc` must be a file in a writable folder"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, "run", *arguments)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_damaged_file_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "r.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    assert "must be a readable result file" in refused(monkeypatch, capsys, "show", str(tmp_path / "r.nc"))


def test_arms_given_together_or_one_by_one_all_run(monkeypatch, capsys, tmp_path):
    """In a folder whose name is markup, which is printed as it is."""
    folder = tmp_path / "[red] and [x"
    folder.mkdir()
    monkeypatch.chdir(folder)
    sets = ("--data", "streams", "--clusters", "3", "--set", "layer.gate_std=1", "--term", "z=0.5")
    call(monkeypatch, "run", "--arm", "moge", "moge-intra", "--arm", "hi-moe", *sets, *QUICK, "--out", "[/red].nc")
    printed = capsys.readouterr().out
    assert "[/red].nc" in printed
    stored = read_result(folder / "[/red].nc")
    assert list(stored.arm.values) == ["moge", "moge-intra", "hi-moe"]
    assert stored.sizes["label"] == 3
    assert '"z": 0.5' in stored.attrs["configuration"]
