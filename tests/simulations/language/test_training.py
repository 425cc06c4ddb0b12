"""Runs: the trajectory that comes out, resuming, stopping, failing."""

import json
import signal

import jax
import numpy as np
import pytest
import xarray as xr

import simulations
from simulations.arms import arms
from simulations.language import checkpoints, trajectory
from simulations.language.program import Step
from simulations.language.training import Diverged, Interrupted, Position, stop_requests

from .small import corpus, model, recipe, run


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    whole = run(tmp_path_factory.mktemp("unbroken"))
    reports = []
    return whole, whole.train(whole.start(), report=reports.append), reports


def trained_state(whole):
    """What the last checkpoint of a run holds."""
    return checkpoints.restore(whole.folder, whole.recipe.steps, whole.start().tree())


def test_the_result_has_every_measurement_with_names_and_units(unbroken):
    whole, result, reports = unbroken
    assert [progress.done for progress in reports] == [1, 2, 3, 4, 5, 6]
    assert list(result["record"].values) == [0, 2, 4, 6]
    assert result.sizes == {"step": 6, "record": 4, "domain": 2, "layer": 1, "expert": 4}
    for name, variable in result.data_vars.items():
        assert variable.attrs["description"]
        taken = variable.isel(record=slice(1, None)) if "record" in variable.dims else variable
        assert np.isfinite(taken).all(), name
    assert result["train_loss"].attrs["units"] == result["loss_by_domain"].attrs["units"] == "nats/byte"
    assert result["perplexity"].attrs["units"] == "per byte"
    np.testing.assert_allclose(result["perplexity"], np.exp(result["validation_loss"]), rtol=1e-6)
    weights = result["domain_tokens"] / result["domain_tokens"].sum("domain")
    np.testing.assert_allclose((weights * result["loss_by_domain"]).sum("domain"), result["validation_loss"], rtol=1e-6)
    terms = sum(result[f"term_{name}"] for name in whole.model.arm.terms)
    np.testing.assert_allclose(result["total_loss"], result["train_loss"] + terms, rtol=1e-5)
    np.testing.assert_allclose(result["train_load"][1:].sum("expert"), 2, rtol=1e-6)
    np.testing.assert_allclose(result["hard_load"].sum("expert"), 2, rtol=1e-6)
    load = result["hard_load"]
    np.testing.assert_allclose(result["cv"], load.std("expert") / load.mean("expert"), atol=1e-6)
    assert (result["drop_rate"][1:] == 0).all()
    assert float(result["validation_loss"][-1]) < float(result["validation_loss"][0])


def test_the_result_is_stored_with_its_provenance(unbroken, tmp_path):
    whole, result, _ = unbroken
    simulations.save(result, tmp_path / "r.nc")
    back = simulations.read_result(tmp_path / "r.nc")
    xr.testing.assert_identical(back, result)
    configuration = json.loads(back.attrs["configuration"])
    assert configuration["recipe"]["steps"] == 6
    assert configuration["model"]["arm"]["terms"] == whole.model.arm.terms
    assert json.loads(back.attrs["manifest"]) == {"sha256": "none", "files": []}
    assert (back.attrs["unit"], back.attrs["dtype"], back.attrs["arm"]) == ("byte", "float32", "hi-moe")


def test_stopping_writes_a_checkpoint_from_which_the_rest_is_the_same(unbroken, tmp_path):
    whole, result, _ = unbroken
    broken = run(tmp_path, every=100)
    done = []
    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        broken.train(broken.start(), report=lambda p: done.append(p.done), stopped=lambda: len(done) == 3)
    assert checkpoints.steps_of(tmp_path) == [3]
    again = broken.train(broken.start(3))
    xr.testing.assert_identical(again.drop_attrs(), result.drop_attrs())
    for a, b in zip(jax.tree.leaves(trained_state(broken)), jax.tree.leaves(trained_state(whole)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    xr.testing.assert_identical(broken.train(broken.start(6)).drop_attrs(), result.drop_attrs())  # nothing left to do


def test_another_configuration_is_refused(unbroken):
    whole, _, _ = unbroken
    for fields, message in (
        ({"seed": 1}, "`seed` .*, 0; got 1"),
        ({"recipe": recipe(learning_rate=0.02)}, r"`recipe\.learning_rate` .*, 0\.01; got 0\.02"),
        ({"model": model("moge")}, r"`model\.arm\."),
    ):
        with pytest.raises(ValueError, match=message):
            run(whole.folder, **fields).start(6)
    with pytest.raises(ValueError, match="`from_step` needs a folder of checkpoints; got 6 and no folder"):
        run().start(6)


def test_a_run_that_diverges_keeps_the_last_good_state_and_names_the_tensor(tmp_path):
    # A learning rate that is too large by far: parameters overflow within a few steps.
    failing = run(tmp_path, recipe=recipe(learning_rate=1e38, warmup=0, weight_decay=0.0), every=100)
    done = []
    with pytest.raises(Diverged, match=r"step \d is not finite; first is .* \(\d+ of \d+ entries\)") as caught:
        failing.train(failing.start(), report=lambda p: done.append(p.done))
    (kept,) = checkpoints.steps_of(tmp_path)
    assert f"step {kept + 1} is" in str(caught.value)
    assert done == list(range(1, kept + 1))
    restored = Position.of(checkpoints.restore(tmp_path, kept, failing.start().tree()))
    assert int(restored.state.step) == kept
    assert np.isfinite(restored.trajectory["train_loss"][:kept]).all()
    result = failing.result(restored.trajectory, 1.0)
    assert np.isnan(result["train_loss"][kept:]).all()
    assert np.isnan(result["validation_loss"][-1])
    assert np.isnan(result["train_load"][-1]).all()


def test_model_and_data_must_fit():
    with pytest.raises(ValueError, match="`vocabulary` must be at least that of the data, 16; got 8"):
        run(model=model(vocabulary=8))
    with pytest.raises(
        ValueError, match="`validation` must have at least 513 tokens, one more than the context; got 400"
    ):
        run(model=model(context=512))


def test_counts_go_to_the_record_that_ends_their_stretch():
    """Steps 1 and 2 belong to the record at 2; loads and drop rates are per token and per route."""
    given, domains = recipe(), corpus().domains
    record = trajectory.empty(model(), given, len(domains))
    for index, counts in enumerate([[10, 20, 2, 32], [20, 10, 2, 32], [32, 0, 0, 32]]):
        zero, drops = np.float32(0), np.array([8.0, 0, 4])[index : index + 1]
        terms = dict.fromkeys(model().arm.terms, zero)
        step = Step(zero, zero, zero, np.True_, terms, np.array([counts], np.float32), drops)
        trajectory.add_step(record, given, index, step)
    np.testing.assert_array_equal(record["counts"][:, 0], [[0] * 4, [30, 30, 4, 64], [32, 0, 0, 32], [0] * 4])
    for done in (0, 2):
        measured = {
            "soft_load": np.full((1, 4), 0.25),
            "assignment": np.array([[[4.0, 0, 0, 4], [0, 4, 0, 4]]]),
            "domain_tokens": np.array([4, 4]),
            "domain_loss": np.array([8.0, 4.0]),
        }
        trajectory.add_record(record, given, done, measured)
    result = trajectory.dataset(record, model(), given, corpus())
    np.testing.assert_allclose(result["train_load"].sel(record=2)[0], np.array([30, 30, 4, 64]) / 64)
    assert np.isnan(result["train_load"].sel(record=[0, 4, 6])).all()
    np.testing.assert_allclose(result["drop_rate"].sel(record=2), 8 / 128)
    np.testing.assert_allclose(result["hard_load"].sel(record=2)[0], [0.5, 0.5, 0, 1])
    np.testing.assert_allclose(result["train_group_cv"].sel(record=2), 0)
    np.testing.assert_allclose(result["max_violation"].sel(record=2), 1)
    # H(E) - ln 2 with the label deciding between the first two: (ln 2) / 2 of at most ln 2.
    np.testing.assert_allclose(result["information"].sel(record=2), 0.5, rtol=1e-5)
    np.testing.assert_allclose(result["loss_by_domain"].sel(record=2), [2.0, 1.0])
    np.testing.assert_allclose(result["perplexity"].sel(record=2), np.exp(1.5))
    assert np.isnan(result["validation_loss"].sel(record=4))


def test_the_first_ctrl_c_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"batch": 4, "held_out": 8},
            r"`batch` over `micro_batches` must be .* `devices`, 2 x 4 = 8; got 4 / 1 = 4 sequences",
        ),
        (
            {"batch": 24, "micro_batches": 2, "held_out": 24},
            r"`batch` over `micro_batches` must be .*, 2 x 4 = 8; got 24 / 2 = 12 sequences",
        ),
        (
            {"batch": 8, "held_out": 9},
            r"`held_out` must leave .* 2 x 4 = 8 `devices` can share; got 1 x 7 tokens after parts of 8 sequences",
        ),
    ],
)
def test_what_cannot_be_divided_over_devices_is_refused(fields, message):
    spread = model(arm=arms()["moge"], dispatch="sorted", devices=(2, 4), context=7)
    with pytest.raises(ValueError, match=message) as error:
        run(model=spread, recipe=recipe(**fields))
    assert "\n" not in str(error.value)
    run(model=spread, recipe=recipe(batch=16, micro_batches=2, held_out=16))
