"""`himoe-simulate lm`: a table, a stored result, going on, and one line for every mistake."""

import sys

import numpy as np
import pytest

import simulations
from simulations.__main__ import main
from simulations.language import checkpoints
from simulations.language.command import Lm, command_line, now
from simulations.language.training import Progress
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
    result = simulations.load(trained / "result.nc")
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


def test_a_finished_run_is_not_overwritten_and_can_be_resumed(monkeypatch, capsys, trained, data):
    before = simulations.load(trained / "result.nc")
    error = resumed(monkeypatch, capsys, trained, data)
    assert "must be without checkpoints; it has one of step 4. Go on with `--resume`" in error
    call(monkeypatch, "lm", *QUICK, "--data", data, "--out", str(trained), "--resume", "--from-step", "2")
    assert "moge, step 4, validation" in capsys.readouterr().out
    after = simulations.load(trained / "result.nc")
    np.testing.assert_array_equal(after["train_loss"], before["train_loss"])
    np.testing.assert_array_equal(after["load"], before["load"])


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
    result = simulations.load(out / "result.nc")
    assert np.isfinite(result["train_loss"][:kept]).all()
    assert np.isnan(result["train_loss"][kept:]).all()
    call(monkeypatch, "show", str(out / "result.nc"))
    assert "stopped: step" in " ".join(capsys.readouterr().out.split())


def test_the_plan_allocates_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "lm", "--size", "tiny", "--preset", "olmoe", "--plan", "--vocabulary", "100")
    printed = capsys.readouterr().out
    assert "olmoe, 2 layers" in printed
    assert "activations, batch 8 × 32" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "hi-mo"], "`arm` must be one of dense, gshard"),
        (["--arm", "planted"], "`arm` must not be planted"),
        (["--size", "huge"], "`size` must be one of tiny, small, nanogpt-1b, olmoe-7b; got 'huge'"),
        (["--preset", "gpt"], "`size` must be one of tiny, small, nanogpt-1b, olmoe-7b; got 'gpt'"),
        (["--steps", "0"], "`steps` must be at least 1; got 0"),
        (
            ["--batch", "8", "--micro-batches", "3"],
            "`micro_batches` must divide `batch`; got 3 micro-batches, 8 sequences",
        ),
        (["--experts", "0"], "`num_experts` must be at least 1; got 0"),
        (["--tau", "nan"], "`tau` must be finite and at least 0; got nan"),
        (["--vocabulary", "10"], "`vocabulary` is for `data`: text is bytes, 256 of them; got 10 without data"),
        (["--data", "nowhere"], "`data` must be a folder with train.bin and val.bin; there is no nowhere"),
        (["--resume"], "must have a checkpoint to resume; it has none. Leave out `--resume`"),
        (["--from-step", "3"], "`from_step` needs `--resume`; got step 3 without it"),
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
    given = Lm(arm="moge", steps=7, bfloat16=True, from_step=4, resume=True, tau=0.5)
    assert command_line(given) == "himoe-simulate lm --arm moge --steps 7 --bfloat16 --tau 0.5 --resume"


def test_recipes_follow_the_size_and_what_is_given():
    tiny = Lm(size="tiny").recipe()
    assert (tiny.steps, tiny.batch, tiny.learning_rate, tiny.warmup) == (200, 8, 3e-3, 20)
    short = Lm(size="tiny", steps=50, batch=4, bfloat16=True, records=60).recipe()
    assert (short.steps, short.batch, short.warmup, short.compute, short.records) == (50, 4, 5, "bfloat16", 50)
    assert Lm(preset="olmoe-7b").chosen_arm().terms["load_per_token"] == 1e-4
    assert Lm(preset="nanogpt-1b").chosen_arm().terms["load_per_token"] == 0.01
    assert Lm(size="tiny", preset="olmoe").model(300).style == "olmoe"
    assert Lm(size="tiny").model(300).vocabulary == 300
