"""Weights under nanoGPT's names: out, in, and files that are not what they should be."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simulations.language import weights
from simulations.language.released import from_settings

from ...himoe_theory import golden

CASES = golden.cases("nanogpt")
SHAPE = {"block_size": 4, "vocab_size": 6, "n_layer": 3, "n_head": 1, "n_embd": 4, "n_exp": 4, "n_groups": 2}
BIASED = from_settings({**SHAPE, "moe_type": "moge", "top_k": 1, "stride": 2, "bias": True, "use_himoe_penalty": True})


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("case", CASES)
def test_names_and_values_are_those_of_the_released_code(case):
    settings, arrays = CASES[case]
    stored = {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}
    model = from_settings(settings)
    parameters, state = weights.from_released(model, stored)
    written = weights.to_released(model, parameters, state)
    assert set(written) == set(stored)
    for name, value in stored.items():
        np.testing.assert_array_equal(written[name], value)
        assert written[name].dtype == value.dtype == np.float32
        assert written[name].flags.c_contiguous


def test_through_a_file_and_back(tmp_path):
    parameters = jax.tree.map(lambda a: a + jnp.float32(0.5), BIASED.init(3))
    state = jnp.arange(8, dtype=jnp.float32).reshape(2, 4)
    weights.save(tmp_path / "w.safetensors", BIASED, parameters, state, step=7)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    again, state_again = weights.load(tmp_path / "w.safetensors", BIASED)
    equal(again, parameters)
    equal(state_again, state)
    tensors = load_file(tmp_path / "w.safetensors")
    # A plain block beside a mixture of experts: the names of nanoGPT's, with biases.
    assert tensors["transformer.h.1.mlp.c_fc.weight"].shape == (16, 4)
    assert tensors["transformer.h.0.mlp.experts.fc_bias"].shape == (4, 1, 16)
    assert tensors["transformer.h.2.mlp.router.training_step"] == 7


def test_names_of_compiled_models_and_tied_heads_are_understood():
    parameters, state = BIASED.init(0), BIASED.init_state()
    tensors = weights.to_released(BIASED, parameters, state)
    compiled = {f"_orig_mod.{name}": value for name, value in tensors.items()}
    equal(weights.from_released(BIASED, compiled)[0], parameters)
    for missing in ("lm_head.weight", "transformer.wte.weight"):
        rest = {name: value for name, value in tensors.items() if name != missing}
        equal(weights.from_released(BIASED, rest)[0], parameters)
    rest = {name: value for name, value in tensors.items() if "avg_logits" not in name}
    equal(weights.from_released(BIASED, rest)[1], state)


FC = "transformer.h.0.mlp.experts.c_fc"
BAD = {
    "missing": (lambda t: t.pop(FC), rf"tensor `{FC}` of shape \(4, 4, 16\) is missing"),
    "shape": (lambda t: t.update({FC: t[FC][:3]}), rf"tensor `{FC}` must have shape \(4, 4, 16\); got \(3, 4, 16\)"),
    "nan": (lambda t: t.update({FC: t[FC] * np.float32(np.nan)}), rf"tensor `{FC}` must be finite; 256 of 256 are not"),
    "strange": (lambda t: t.update({"extra": t[FC]}), r"tensor `extra` of shape \(4, 4, 16\) is no part of this model"),
    "untied": (lambda t: t.update({"lm_head.weight": 2 * t["lm_head.weight"]}), "they are tied\\); the two differ"),
}


@pytest.mark.parametrize("fault", BAD)
def test_wrong_tensors_are_named(fault, tmp_path):
    tensors = weights.to_released(BIASED, BIASED.init(0), BIASED.init_state())
    change, message = BAD[fault]
    change(tensors)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=message) as error:
        weights.load(path, BIASED)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match="there is no file"):
        weights.load(path, BIASED)
    weights.save(path, BIASED, BIASED.init(0))
    whole = path.read_bytes()
    for part in (whole[:-1], whole[: len(whole) // 2], b"", b"not weights"):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"is not a whole safetensors file: .+") as error:
            weights.load(path, BIASED)
        assert "\n" not in str(error.value)


def test_a_type_that_numpy_has_not_is_one_line(tmp_path):
    """8-bit numbers, as released weights have them."""
    path = tmp_path / "w.safetensors"
    head = json.dumps({"lm_head.weight": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    with pytest.raises(
        ValueError, match=r"w\.safetensors must hold numbers of types that NumPy has; got .+\.$"
    ) as error:
        weights.load(path, BIASED)
    assert "\n" not in str(error.value)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    path = tmp_path / "w.safetensors"
    weights.save(path, BIASED, BIASED.init(0))
    before = path.read_bytes()
    monkeypatch.setattr("safetensors.numpy.save_file", fail)
    with pytest.raises(ValueError, match=r"w\.safetensors` must be a file in a writable folder; got disk full"):
        weights.save(path, BIASED, BIASED.init(1))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert path.read_bytes() == before


def test_another_style_has_no_such_names():
    olmoe = from_settings({**SHAPE, "bias": False, "n_exp": 1, "n_head": 2}, style="olmoe")
    with pytest.raises(ValueError, match="need style nanogpt; got 'olmoe'"):
        weights.to_released(olmoe, olmoe.init(0))
