"""Files for the released code and from it: settings and weights go out and come back the same."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from himoe_theory import Capacity, KeepAbove, Partition, routers
from simulations.arms import Arm
from simulations.language import exchange, weights
from simulations.language.available import available, plain, plain_widths
from simulations.language.model import Model
from simulations.language.options import Lm
from simulations.language.released import DEFAULTS, from_settings, to_settings

from ...himoe_theory import golden

CASES = golden.cases("nanogpt")
ARMS = available()
SHAPE = {"layers": 2, "heads": 2, "dim": 8, "context": 8, "vocabulary": 11, "width": 32}
UNCORRECTED = ("moge", "moge-intra", "moge-inter", "moge-intra-inter", "frozen")


def small(name, **fields):
    arm = ARMS[name]
    return Model(**{"arm": arm, "router_scale": arm.router.name == "hi-moe", "stride": 1, **SHAPE, **fields})


def stored(case):
    arrays = CASES[case][1]
    return {name.removeprefix("param/"): value for name, value in arrays.items() if name.startswith("param/")}


@pytest.mark.parametrize("case", CASES)
def test_settings_of_the_released_code_come_back(case):
    model = from_settings(CASES[case][0])
    settings, left = to_settings(model)
    assert not left
    assert from_settings(settings) == model
    assert to_settings(from_settings(settings)) == (settings, {})
    assert set(settings) == set(DEFAULTS)
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (
            {"moe_type": "stmoe", "second_policy_eval": "threshold", "second_threshold_eval": 0.5},
            "second_threshold_eval",
            0.5,
        ),
        ({"moe_type": "stmoe", "second_policy_train": "none"}, "second_policy_train", "none"),
        ({"moe_type": "lossfree", "bias_update_rate": 0.5, "min_capacity": 7}, "bias_update_rate", 0.5),
        ({"moe_type": "moge", "top_k": 1, "eval_capacity": 0.5, "use_router_scale": False}, "eval_capacity", 0.5),
        (
            {"moe_type": "moge", "top_k": 1, "use_aux_loss": True, "use_himoe_regularization": True}
            | {"himoe_entropy_mode": "shannon", "himoe_lambda1": 0.3, "himoe_warmup_iters": 5},
            "himoe_entropy_mode",
            "shannon",
        ),
        (
            {"moe_type": "moge", "top_k": 1, "use_himoe_penalty": True, "himoe_tau": 0.0, "himoe_temperature": 2.0},
            "himoe_temperature",
            2.0,
        ),
    ],
)
def test_settings_that_no_case_has_come_back(settings, name, value):
    model = from_settings({"n_exp": 8, **settings})
    found, left = to_settings(model)
    assert (found[name], left) == (value, {})
    assert from_settings(found) == model


@pytest.mark.parametrize(("case", "names"), [("moge", UNCORRECTED), ("himoe", ("moge-bias", "hi-moe"))])
def test_arms_have_the_tensors_of_the_released_code(case, names):
    """Strict loading there takes all of these names and no other; MoGE has no average of logits."""
    expected = {name: value.shape for name, value in stored(case).items()}
    assert any("avg_logits" in name for name in expected) == (case == "himoe")
    for name in names:
        arm = from_settings(CASES[case][0])
        model = Model(**{**arm.__dict__, "arm": ARMS[name]})
        written = weights.to_released(model, model.init(0), model.init_state())
        assert {key: value.shape for key, value in written.items()} == expected


@pytest.mark.parametrize("name", [*UNCORRECTED, "hi-moe", "gshard", "st-moe", "loss-free", "guo-all"])
def test_an_arm_and_its_settings_compute_the_same(name, tmp_path):
    """Written, described by its settings alone, and read: equal logits, in a batch where a capacity could overflow."""
    model, path, key = small(name), tmp_path / "w.safetensors", jax.random.key(1)
    parameters = jax.tree.map(lambda p: 3 * p, model.init(4))
    state = 0.1 * jnp.arange(16, dtype=jnp.float32).reshape(2, 8)
    left = exchange.write(path, model, parameters, state, step=3)
    again = exchange.described(path)
    values, states = weights.load(path, again)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 3, (3, 8)), jnp.int32)
    expected = jax.jit(lambda p, s: model.logits(p, s, tokens, key=key, training=True))(parameters, state)
    found = jax.jit(lambda p, s: again.logits(p, s, tokens, key=key, training=True))(values, states)
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(expected) > 0.1
    said = {term: c for term, c in again.arm.terms.items() if c}
    assert {**said, **left} == dict(model.arm.terms)
    assert set(left) == {term for term in model.arm.terms if name.startswith(("guo", "gshard"))}


ARM_OF = {"dense": "plain", "vanilla": "gshard", "lossfree": "loss-free", "moge": "moge"}
FLAT = {"vanilla": 1, "lossfree": 1}
"""Their two experts of a token cannot come from the four groups that sizes have."""


@pytest.mark.parametrize("case", CASES)
def test_a_case_that_comes_in_as_files_has_its_logits(case, tmp_path):
    """As the command reads them: shapes from the settings, the router from the arm."""
    settings, arrays = CASES[case]
    path = tmp_path / "w.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in stored(case).items()}, path)
    (tmp_path / "w.json").write_text(json.dumps(settings))
    args = Lm(arm=ARM_OF.get(case, "hi-moe"), initial=path, size="tiny", groups=FLAT.get(case))
    if settings["n_exp"] > 1:
        args = dataclasses.replace(args, capacity=settings["train_capacity"])
    tokens = jnp.asarray(arrays["idx"])
    for model in (exchange.described(path), args.model(256)):
        parameters, state = weights.load(path, model)
        logits = jax.jit(lambda p, s, of=model: of.logits(p, s, tokens, training=True))(parameters, state)
        np.testing.assert_allclose(logits, arrays["logits"], rtol=1e-4, atol=1e-5 * np.abs(arrays["logits"]).max())


def odd(router, **fields):
    return Model(arm=Arm("odd", router, {}, ""), stride=1, **{**SHAPE, **fields})


EIGHT, FIVE = Partition.equal(8, 4), Capacity(1.0, 5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small("dense"), "must be one that the released code has, gshard, .*; got dense"),
        (small("hi-moe-paper"), "must be one that the released code has, gshard, .*; got hi-moe-paper"),
        (small("moge", width=16), "`width` must be 4 `dim` to have settings of .*, 32; got 16 in layer 0"),
        (small("moge", stride=2, dense_width=9), "code, 32; got 9 in layer 1"),
        (Model(arm=plain(), **{**SHAPE, **plain_widths(32, 4)}), "code, 32; got 128 in layer 0"),
        (small("moge", style="olmoe"), "`style` must be nanogpt .* got 'olmoe'"),
        (small("moge", norm_epsilon=1e-6), "`norm_epsilon` must be 1e-5, as in the released code; got 1e-06"),
        (small("gshard", router_scale=True), "`router_scale` must be false for gshard, .*; got True"),
        (odd(routers.loss_free(8, 4, capacity=FIVE)), "`even` must be False in a capacity of loss-free; got True"),
        (odd(routers.moge(EIGHT, 1, epsilon=0.5)), "router moge must be as the released code builds it; got .*0.5"),
        (odd(routers.moge(Partition((0, 0, 0, 1)), 1)), "must be as the released code builds it; got .*0, 0, 0, 1"),
        (odd(routers.moge(EIGHT, (1, 1, 1, 2))), "must be as the released code builds it; got .*1, 1, 1, 2"),
        (
            odd(routers.gshard(8, 4, capacity=FIVE), evaluation=routers.gshard(8, 4, capacity=Capacity(1.0, 6))),
            "`minimum` must be the same capacity in training and outside; got 5 and 6",
        ),
        (odd(routers.st_moe(8, 4, KeepAbove(0.1), epsilon=0.5)), "router st-moe must be as the released code builds"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(model, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        exchange.write(tmp_path / "w.safetensors", model, model.init(0), model.init_state(), step=0)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written_or_read(tmp_path):
    model, path = small("moge"), tmp_path / "w.safetensors"
    with pytest.raises(ValueError, match=r"a file of weights must end in \.safetensors; got .*w\.bin"):
        exchange.write(tmp_path / "w.bin", model, model.init(0), model.init_state(), step=0)
    with pytest.raises(ValueError, match=r"`/dev/null/w\.safetensors` must be a file in a writable folder; got "):
        exchange.write(exchange.Path("/dev/null/w.safetensors"), model, model.init(0), model.init_state(), step=0)
    assert exchange.described(path) is None
    with pytest.raises(ValueError, match="must be a file of weights; got No such file"):
        exchange.digest(path)
    for content, message in (
        ("{", "must be settings as JSON; it cannot be read"),
        ("[1]", "must be settings as JSON, names and values; got list"),
        ('{"n_head": 5, "n_exp": 1}', r"w\.json: `heads` must divide `dim`; got 5 heads, dim 768"),
    ):
        (tmp_path / "w.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            exchange.described(path)
