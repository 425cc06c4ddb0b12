"""The command: a table, a stored file, and one line with exit code 2 for every mistake."""

import sys

import numpy as np
import pytest
import xarray as xr

from simulations import read_result, save
from simulations.__main__ import main
from simulations.store import FORMAT

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
    picture = (tmp_path / "out.png").read_bytes()
    (tmp_path / "out.png").unlink()
    call(monkeypatch, "show", str(path))
    shown = capsys.readouterr().out
    assert "hi-moe" in shown
    legend = "hard CV: coefficient of variation of the hard load over experts; 0 even, sqrt(N/K - 1) when all tokens"
    assert legend in " ".join(shown.split())
    assert (tmp_path / "out.png").read_bytes() == picture


def test_a_gate_that_nothing_trains_is_said_to_be_that(monkeypatch, capsys, tmp_path):
    """One expert a token, weights renormalised: the weight is 1 whatever the logits."""
    path = tmp_path / "out.nc"
    shape = ("--groups", "1", "--per-group", "1", "--experts", "4", "--mean", "0")
    call(monkeypatch, "run", "--arm", "guo-none", "frozen", *shape, "--out", str(path), *QUICK)
    printed = capsys.readouterr().out
    warning = "warning: the task gives the gate of guo-none no gradient: the one weight of a token is 1"
    assert warning in printed
    assert [line.split("(")[0].split()[-1] for line in printed.splitlines() if "(2/2)" in line][:2] == ["unlearned"] * 2
    assert "specialised (" not in printed
    call(monkeypatch, "show", str(path))
    assert warning in capsys.readouterr().out


def test_without_partners_no_regime_is_judged(monkeypatch, capsys, tmp_path):
    path = tmp_path / "out.nc"
    call(monkeypatch, "run", "--arm", "hi-moe", "--no-partners", "--out", str(path), *QUICK)
    printed = capsys.readouterr().out
    assert "not judged (2/2)" in printed
    assert "not judged without partners" in printed
    assert "no gradient" not in printed
    assert read_result(path)["gain"].isnull().all()


def test_arms_lists_all(monkeypatch, capsys):
    call(monkeypatch, "arms")
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("guo-aux-lv", "planted"))


@pytest.mark.parametrize(
    "arguments", [(), ("run",), ("lm",), ("arms",), ("fields",), ("sweep",), ("resume",), ("show",)]
)
def test_help_shows_examples(monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments, "--help")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert f"examples: himoe-simulate {(*arguments, 'run')[0]}" in " ".join(printed.replace("│", " ").split())


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
            "`data` must be one of clusters, digits, patches, single-index, streams, or FILE.py:NAME; got 'cluster'",
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
        (("--expert", "deep"), "`expert` must be one of linear, two-layer, cubic, or FILE.py:NAME; got 'deep'"),
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


def stored(path, **changes):
    """A result as `run` stores it, changed."""
    names = ("test_error", "cv", "collision_information", "information", "effective_groups")
    shape = (("arm", "seed", "step"), np.ones((1, 2, 1), np.float32))
    of_runs = ("regime", "balance", "gain", "cv_floor")
    codes = dict.fromkeys(of_runs, (("arm", "seed"), np.ones((1, 2), np.int8)))
    variables = dict.fromkeys(names, shape) | codes | changes
    coordinates = {"arm": ["moge"], "seed": [0, 1], "step": [4]}
    kept = {name: value for name, value in variables.items() if value is not None}
    save(xr.Dataset(kept, coordinates, {"format": FORMAT}), path)
    return str(path)


def of_lm(path, loss, **changes):
    """A result as `lm` stores it, with these losses."""
    losses = np.asarray(loss, np.float64)
    by_domain = (("record", "domain"), np.repeat(losses[:, None], 2, axis=1))
    variables = {"validation_loss": ("record", losses), "loss_by_domain": by_domain} | changes
    coordinates = {"record": np.arange(len(losses)), "domain": ["a", "b"]}
    kept = {name: value for name, value in variables.items() if value is not None}
    save(xr.Dataset(kept, coordinates, {"format": FORMAT, "arm": "plain", "unit": "byte"}), path)
    return str(path)


@pytest.mark.parametrize("missing", ["cv", "effective_groups", "test_error", "balance", "gain"])
def test_a_result_that_lacks_a_variable_is_one_line(monkeypatch, capsys, tmp_path, missing):
    path = stored(tmp_path / "r.nc", **{missing: None})
    message = f"r.nc` must be a result of `run` or `lm` to be shown; it has no {missing}."
    assert message in refused(monkeypatch, capsys, "show", path)
    path = of_lm(tmp_path / "l.nc", [1.0], validation_loss=None)
    assert "to be shown; it has no validation_loss." in refused(monkeypatch, capsys, "show", path)


def test_results_that_are_odd_are_shown(monkeypatch, capsys, tmp_path):
    nothing = (("arm", "seed", "step"), np.full((1, 2, 1), np.nan, np.float32))
    call(monkeypatch, "show", stored(tmp_path / "r.nc", test_error=nothing))
    assert "n/a" in capsys.readouterr().out
    call(monkeypatch, "show", of_lm(tmp_path / "l.nc", [np.nan, np.nan]))
    printed = capsys.readouterr().out
    assert "step 0" in printed
    assert "n/a" in printed
    assert "nan" not in printed
    for loss, perplexity in ((709.7, "16549840276802644"), (709.8, "inf"), (1e300, "inf")):
        call(monkeypatch, "show", of_lm(tmp_path / f"{loss}.nc", [loss]))
        assert perplexity in capsys.readouterr().out


def test_a_result_of_the_same_name_stays_unless_told(monkeypatch, capsys, tmp_path):
    path = stored(tmp_path / "r.nc")
    before = (tmp_path / "r.nc").read_bytes()
    error = refused(monkeypatch, capsys, "run", "--out", path, *QUICK)
    assert "r.nc` must be a new file; there is one. Replace it with `--force`, or give another name." in error
    assert (tmp_path / "r.nc").read_bytes() == before
    call(monkeypatch, "run", "--arm", "moge", "--out", path, "--force", *QUICK)
    assert read_result(tmp_path / "r.nc").sizes["step"] == 3


@pytest.mark.parametrize("name", ["a" * 300, "new\nline", "\udcff"])
def test_names_of_files_make_one_line(monkeypatch, capsys, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    for arguments in (("show", name), ("sweep", name), ("resume", name), ("lm", "--data", name)):
        assert "himoe-simulate: " in refused(monkeypatch, capsys, *arguments)


def test_here_is_no_store_and_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for place in (".", "..", "/"):
        assert "must be a store; it has no manifest.json." in refused(monkeypatch, capsys, "show", place)


def test_deep_nesting_is_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "deep.toml").write_text("seeds = " + "[" * 100_000)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    assert "must be a readable TOML file; got" in refused(monkeypatch, capsys, "sweep", str(tmp_path / "deep.toml"))
    assert "must be as it was written; it is damaged" in refused(monkeypatch, capsys, "resume", str(tmp_path))
    (tmp_path / "w.json").write_text("[" * 100_000)
    (tmp_path / "w.safetensors").write_bytes(b"")
    error = refused(monkeypatch, capsys, "lm", "--import", str(tmp_path / "w.safetensors"))
    assert "w.json` must be settings as JSON; it cannot be read." in error
