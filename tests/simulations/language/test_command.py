"""`himoe-simulate lm`: a table, a stored result, going on, and one line for every mistake."""

import io
import json
import re
import sys

import numpy as np
import pytest
import tyro
import xarray as xr
from rich.console import Console
from safetensors.numpy import load_file

import simulations
from simulations.__main__ import main
from simulations.data.corpus import Corpus, Part
from simulations.language import checkpoints, plan
from simulations.language.command import command_line, now, table
from simulations.language.options import Lm
from simulations.language.training import Progress, Run
from simulations.language.trajectory import empty

from .small import run

QUICK = "--arm moge --size tiny --context 8 --batch 2 --steps 4 --records 2 --held-out 2 --checkpoint-every 2".split()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("train", 0), ("val", 1)):
        np.random.default_rng(seed).integers(0, 20, 500).astype("<u2").tofile(folder / f"{name}.bin")
    (folder / "meta.json").write_text('{"vocab_size": 20}')
    return str(folder)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["himoe-simulate", *arguments])
    main()


def ends(monkeypatch, capsys, code, *arguments):
    """The one line that a call leaves on standard error."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *arguments)
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert error.startswith("himoe-simulate: ")
    return error


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A finished run, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "out"
    with pytest.MonkeyPatch.context() as patch:
        call(patch, "lm", *QUICK, "--data", data, "--out", str(out))
    return out


def resumed(monkeypatch, capsys, trained, data, *more):
    return ends(monkeypatch, capsys, 2, "lm", *QUICK, "--data", data, "--out", str(trained), *more)


def test_a_run_is_stored_and_shown(monkeypatch, capsys, trained):
    result = simulations.read_result(trained / "result.nc")
    assert list(result["record"].values) == [0, 2, 4]
    assert np.isfinite(result["train_loss"]).all()
    assert checkpoints.steps_of(trained / "checkpoints") == [2, 4]
    call(monkeypatch, "show", str(trained / "result.nc"))
    printed = capsys.readouterr().out
    words = ("moge, step 4, validation", "loss (nats/token)", "perplexity (per token)", "CV per layer", "dropped 0.0%")
    assert all(word in printed for word in words), printed
    assert f"{float(result['validation_loss'][-1]):.4f}" in printed


def test_the_live_lines():
    whole = run()
    record = empty(whole.model, whole.recipe, 2)
    record["counts"][1] = [[4, 4, 0, 8]]
    record["dropped"][1] = 4
    record["effective_groups"][0] = 1.5
    seen = now(Progress(1, 2.5, record), whole, 10.0)
    # 10 steps a second of 4 sequences of 8 tokens; the CV of (4, 4, 0, 8) is 1/sqrt(2).
    assert seen == "320 tokens/s, loss 2.500 nats/byte\nCV 0.707, 1.50 groups, dropped 25.0%"
    assert now(Progress(1, 2.5, record), whole, None).startswith("loss 2.500 nats/byte\n")


def test_a_domain_without_tokens_has_no_loss(trained):
    result = simulations.read_result(trained / "result.nc").load()
    twice = xr.concat([result, result], dim="domain", data_vars="minimal").assign_coords(domain=["here", "empty"])
    loss = twice["loss_by_domain"].values.copy()
    loss[:, 1] = np.nan
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(twice.assign(loss_by_domain=(("record", "domain"), loss))))
    printed = console.export_text()
    assert re.search(r"empty +n/a +n/a", printed), printed
    assert "nan" not in printed


def test_a_finished_run_is_not_overwritten_and_can_be_resumed(monkeypatch, capsys, trained, data):
    before = simulations.read_result(trained / "result.nc")
    error = resumed(monkeypatch, capsys, trained, data)
    assert "must be without checkpoints; it has one of step 4. Go on with `--resume`" in error
    call(monkeypatch, "lm", *QUICK, "--data", data, "--out", str(trained), "--resume", "--from-step", "2")
    assert "moge, step 4, validation" in capsys.readouterr().out
    after = simulations.read_result(trained / "result.nc")
    np.testing.assert_array_equal(after["train_loss"], before["train_loss"])
    np.testing.assert_array_equal(after["hard_load"], before["hard_load"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learning-rate", "0.01"], r"`recipe.learning_rate` must be as in "),
        (["--seed", "1"], "`seed` must be as in "),
        (["--load", "0.5"], "`model.arm.terms.load_per_token` must be as in "),
        (["--from-step", "3"], "00000003` must be a checkpoint; there is none. Steps with one: 2, 4"),
    ],
)
def test_going_on_differently_is_refused(monkeypatch, capsys, trained, data, more, message):
    assert message in resumed(monkeypatch, capsys, trained, data, "--resume", *more)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_offered(monkeypatch, capsys, trained, data):
    path = next((trained / "checkpoints" / "00000004").rglob("manifest.ocdbt"))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    error = resumed(monkeypatch, capsys, trained, data, "--resume")
    path.write_bytes(content)
    assert "00000004` must be as it was written; " in error
    assert "manifest.ocdbt is damaged: resume from the one before with `--from-step 2`" in error


def test_divergence_ends_with_code_1_and_keeps_what_there_was(monkeypatch, capsys, data, tmp_path):
    out = tmp_path / "out"
    rate = ["--learning-rate", "1e38", "--warmup", "0", "--weight-decay", "0"]
    error = ends(monkeypatch, capsys, 1, "lm", *QUICK, *rate, "--data", data, "--out", str(out))
    (kept,) = checkpoints.steps_of(out / "checkpoints")
    assert f"step {kept + 1} is not finite; first is " in error
    assert "the state before it is kept in " in error
    result = simulations.read_result(out / "result.nc")
    assert np.isfinite(result["train_loss"][:kept]).all()
    assert np.isnan(result["train_loss"][kept:]).all()
    call(monkeypatch, "show", str(out / "result.nc"))
    shown = " ".join(capsys.readouterr().out.split())
    assert "stopped: step" in shown
    assert "dropped n/a" in shown
    assert "nan" not in shown


def test_the_plan_allocates_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "lm", "--size", "tiny", "--preset", "olmoe", "--plan", "--vocabulary", "100")
    printed = capsys.readouterr().out
    assert "olmoe, 2 layers, d 32, 2 heads, context 32, vocabulary 100" in printed
    assert "2 mixtures, N 8, M 4, K 1 in each, width 128" in printed
    assert re.search(r"layers\.\*\.moe\.in\.weight +8 × 32 × 256 +2", printed), printed
    assert "activations, batch 8 × 32" in printed
    assert not list(tmp_path.iterdir())


def test_the_plan_of_devices_that_are_not_there(monkeypatch, capsys):
    more = "--devices 4 4 --context 32 --batch 32 --micro-batches 2 --plan".split()
    call(monkeypatch, "lm", "--size", "tiny", *more)
    printed = capsys.readouterr().out
    assert "memory on each of 4 × 4 devices" in printed
    assert "their sum over 2 micro-batches" in printed
    error = ends(monkeypatch, capsys, 2, "lm", "--size", "tiny", *more, "--batch", "8")
    assert "a micro-batch must be a multiple of the number of `devices`, 16; got 4 sequences" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "hi-mo"], "`arm` must be one of dense, gshard"),
        (["--arm", "planted"], "`gate` must do without labels in a language model; got Planted"),
        (["--size", "huge"], "`size` must be one of tiny, small, nanogpt-1b, olmoe-7b; got 'huge'"),
        (["--preset", "gpt"], "`size` must be one of tiny, small, nanogpt-1b, olmoe-7b; got 'gpt'"),
        (["--preset", "olmoe-7b"], "`size` and `preset` must not name two sizes; got tiny and olmoe-7b"),
        (["--dispatch", "capacity"], "dispatch 'capacity' needs a router with a capacity; hi-moe has none"),
        (["--arm", "dense", "--capacity", "1"], "`capacity` is for arms that choose among experts; got 1 for dense"),
        (["--capacity", "-1"], "`factor` must be finite and at least 0; got -1"),
        (["--devices", "2", "4", "--batch", "4"], "`devices`, 2 x 4 = 8; got 4 / 1 = 4 sequences"),
        (["--export", "w.bin"], "a file of weights must end in .safetensors; got w.bin"),
        (["--export", "w.safetensors"], "must have a checkpoint to export; it has none"),
        (["--import", "w.safetensors"], "`import` must be a file of weights; there is no w.safetensors"),
        (["--steps", "0"], "`steps` must be at least 1; got 0"),
        (
            ["--batch", "8", "--micro-batches", "3"],
            "`micro_batches` must divide `batch`; got 3 micro-batches, 8 sequences",
        ),
        (["--context", "99999999999999"], "`context` must be at most 16777216; got 99999999999999"),
        (["--steps", "2147483647"], "what is kept of the steps must fit in memory; got about"),
        (["--batch", "99999999999999999999"], "`batch` must be at most 2147483647"),
        (["--seed", "99999999999999999999"], "`seed` must be at most 2147483647; got 99999999999999999999"),
        (["--coordinator", "x"], "`coordinator` must be HOST:PORT of process 0; got 'x'"),
        (["--coordinator", "x:99999999"], "`coordinator` must be HOST:PORT of process 0; got 'x:99999999'"),
        (["--set", "model.dimension=3"], "`model.dimension` in --set must be a field; got 3, known are model.layers"),
        (["--experts", "0"], "`router.experts` must be at least 1; got 0"),
        (["--tau", "nan"], "`tau` must be finite and at least 0; got nan"),
        (["--vocabulary", "10"], "`vocabulary` is for `data`: text is bytes, 256 of them; got 10 without data"),
        (["--data", "nowhere"], "`data` must be a folder with train.bin and val.bin; there is no nowhere"),
        (["--resume"], "must have a checkpoint to resume; it has none. Leave out `--resume`"),
        (["--from-step", "3"], "`from_step` needs `--resume` or `--export`; got step 3 without"),
        (["--out", "/dev/null/x"], "`/dev/null/x/result.nc` must be a file in a writable folder"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, tmp_path, data, arguments, message):
    monkeypatch.chdir(tmp_path)
    quick = ["--size", "tiny", "--vocabulary", "20", "--data", data]
    given = arguments if {"--data", "--vocabulary"} & {*arguments} else [*quick, *arguments]
    assert message in ends(monkeypatch, capsys, 2, "lm", *given)
    assert not list(tmp_path.iterdir())


def test_a_context_longer_than_the_data_is_refused(monkeypatch, capsys, data, tmp_path):
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, "--context", "500", "--data", data, "--out", str(tmp_path / "x"))
    assert "`train` must have at least 501 tokens, one more than the context; got 500" in error


def test_one_process_at_a_time_writes_a_run(monkeypatch, capsys, data, tmp_path):
    from simulations.sweep.store import locked

    with locked(tmp_path):
        error = ends(monkeypatch, capsys, 2, "lm", *QUICK, "--data", data, "--out", str(tmp_path))
    assert "must have one writer at a time" in error


def test_the_command_that_goes_on_repeats_what_was_given():
    given = Lm(arm="moge", steps=7, bfloat16=True, from_step=4, resume=True, tau=0.5, term=(("z=1",), ("load=2",)))
    written = "himoe-simulate lm --arm moge --term z=1 --term load=2 --steps 7 --bfloat16 --tau 0.5 --resume"
    assert command_line(given) == written


@pytest.mark.parametrize("taken", ["w.safetensors", "w.json"])
def test_an_export_replaces_nothing_unless_told(monkeypatch, capsys, trained, data, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    export = ["lm", *QUICK, "--data", data, "--out", str(trained), "--export", str(tmp_path / "w.safetensors")]
    assert f"{taken}` must be a new file; there is one." in ends(monkeypatch, capsys, 2, *export)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(taken, "mine")]
    if taken == "w.json":
        call(monkeypatch, *export, "--force")
        assert json.loads((tmp_path / "w.json").read_text())["moe_type"] == "moge"


def test_a_result_of_a_model_stays_unless_told(monkeypatch, capsys, data, tmp_path):
    """Before anything is computed."""
    (tmp_path / "result.nc").write_text("mine")
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, "--data", data, "--out", str(tmp_path))
    assert "result.nc` must be a new file; there is one." in error
    assert (tmp_path / "result.nc").read_text() == "mine"


def test_weights_go_out_and_come_in(monkeypatch, capsys, trained, data, tmp_path):
    """Exported, then started from: the first measurement is that of the checkpoint, by another arm's router too."""
    path, out = tmp_path / "w.safetensors", tmp_path / "again"
    call(monkeypatch, "lm", *QUICK, "--data", data, "--out", str(trained), "--export", str(path), "--from-step", "2")
    assert "moge, step 2" in capsys.readouterr().out
    settings = json.loads((tmp_path / "w.json").read_text())
    assert (settings["moe_type"], settings["n_embd"], settings["use_himoe_penalty"]) == ("moge", 32, False)
    assert load_file(path)["transformer.h.0.mlp.router.training_step"] == 2
    more = ["--arm", "hi-moe", "--load-scope", "global", "--import", str(path)]
    call(monkeypatch, "lm", *QUICK, *more, "--data", data, "--out", str(out))
    before, after = (simulations.read_result(folder / "result.nc") for folder in (trained, out))
    np.testing.assert_array_equal(after["validation_loss"][0], before["validation_loss"][1])
    assert float(after["validation_loss"][2]) != float(before["validation_loss"][2])
    (tmp_path / "w.safetensors").write_bytes(b"other weights")
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, *more, "--data", data, "--out", str(out), "--resume")
    assert "w.safetensors` and its settings must be as they were exported, with the SHA-256 that " in error
    (tmp_path / "w.json").unlink()
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, *more, "--data", data, "--out", str(out), "--resume")
    assert "`initial` must be as in " in error


def test_what_cannot_be_exported_is_named(monkeypatch, capsys, trained, data, tmp_path):
    path = str(tmp_path / "w.safetensors")
    export = ["--data", data, "--out", str(trained), "--export", path]
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, "--arm", "dense", *export)
    assert "the router must be one that the released code has, gshard, " in error
    assert "got dense" in error
    error = ends(monkeypatch, capsys, 2, "lm", *QUICK, *export, "--seed", "3")
    assert "`seed` must be as in " in error
    assert not list(tmp_path.iterdir())


def test_objectives_without_settings_are_named(monkeypatch, capsys, data, tmp_path):
    out = ["--data", data, "--out", str(tmp_path / "out")]
    call(monkeypatch, "lm", *QUICK, "--arm", "gshard", *out)
    call(monkeypatch, "lm", *QUICK, "--arm", "gshard", *out, "--export", str(tmp_path / "w.safetensors"))
    assert "has no settings for: 0.01 load_per_token" in capsys.readouterr().out


def test_drops_of_a_capacity_are_shown(monkeypatch, capsys, data, tmp_path):
    """Factor 0 leaves each of 8 experts the minimum, 4 places, for 16 tokens that select 4 of them: half at least."""
    form = ["--capacity", "0", "--dispatch", "capacity"]
    call(monkeypatch, "lm", *QUICK, *form, "--data", data, "--out", str(tmp_path / "out"))
    dropped = simulations.read_result(tmp_path / "out" / "result.nc")["drop_rate"][-1]
    assert (dropped >= 0.5).all()
    assert f"dropped {float(dropped.mean()):.1%}" in " ".join(capsys.readouterr().out.split())


def examples():
    """The commands in the help."""
    lines = Lm.__doc__.split("examples:")[1].replace("\n        --", " --").splitlines()
    return [line.split("(")[0].split() for line in lines if line.strip()]


@pytest.mark.parametrize("words", examples(), ids=" ".join)
def test_examples_in_the_help_can_run(words, monkeypatch, tmp_path):
    """Each is parsed, and its run built: sizes, batches and devices fit each other, without the devices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moge.safetensors").touch()
    assert words[:2] == ["himoe-simulate", "lm"]
    args = tyro.cli(Lm, args=words[2:])
    args.check()
    part = Part(np.zeros(70_000, np.uint16))
    corpus = Corpus(part, part, args.vocabulary or 256, "token", ("text",), {})
    lm = args.model(None if args.plan else corpus.vocabulary)
    whole = Run(lm, args.recipe(), corpus, args.seed)
    assert whole.recipe.micro_batch % np.prod(lm.devices) == 0


def test_several_hosts_are_among_the_examples():
    (args,) = (tyro.cli(Lm, args=words[2:]) for words in examples() if "--coordinator" in words)
    assert (args.data is None, args.processes, args.devices) == (False, 4, (4, 4))


def test_the_plain_network_is_active_in_as_many_parameters():
    """But for gates and scales."""
    one, other = (plan.count(Lm(arm=arm, size="small").model(256))[1] for arm in ("plain", "moge"))
    assert other - one == 2 * (8 * 128 + 8)
    lm = Lm(arm="plain", size="small").model(256)
    assert [lm.hidden(layer) for layer in range(4)] == [2048, 512, 2048, 512]


def test_recipes_follow_the_size_and_what_is_given():
    tiny = Lm(size="tiny").recipe()
    assert (tiny.steps, tiny.batch, tiny.learning_rate, tiny.warmup) == (200, 8, 3e-3, 20)
    short = Lm(size="tiny", steps=50, batch=4, bfloat16=True, records=60).recipe()
    assert (short.steps, short.batch, short.warmup, short.compute, short.records) == (50, 4, 5, "bfloat16", 50)
    assert Lm(preset="olmoe-7b").chosen_arm().terms["load_per_token"] == 1e-4
    assert Lm(preset="nanogpt-1b").chosen_arm().terms["load_per_token"] == 0.01
    assert Lm(size="tiny", preset="olmoe").model(300).style == "olmoe"
    assert Lm(size="tiny").model(300).vocabulary == 300
