"""Fields as text: what `--set` and `--term` give, and that options of commands are names of fields."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulations import fields
from simulations.command import FIELD_OF, Run, settings_of
from simulations.fields.assign import value_of
from simulations.fields.known import LANGUAGE, LAYER
from simulations.language.options import FIELD_OF as FIELD_OF_LM
from simulations.language.options import Lm


def test_values_are_toml_and_need_no_quotes():
    texts = ["data.mean=2", "router.policy.kind=threshold", "arms.tau = 1e-3", "layer.learn_scale=true"]
    texts[1] = "router.policy.kind=above"
    assert fields.read([*texts, "data.target='quadratic'", "router.group_of=[0, 0, 1]"]) == {
        "data.mean": 2.0,
        "router.policy.kind": "above",
        "arms.tau": 1e-3,
        "layer.learn_scale": True,
        "data.target": "quadratic",
        "router.group_of": (0, 0, 1),
    }


def test_terms_are_coefficients_of_objectives():
    assert fields.read([], ["z=0.001", "load=2"]) == {"terms.z": 0.001, "terms.load": 2.0}


@given(st.text())
def test_any_text_is_a_value_or_itself(text):
    """No text can bring in another field, end the table or break the reader."""
    value = value_of("data.target", text)
    assert value == text or not isinstance(value, str) or value in text or "\\" in text or "\r" in text


def test_a_second_line_is_no_second_value():
    assert value_of("data.mean", "1\nother = 2") == "1\nother = 2"
    assert value_of("data.mean", "[" * 100_000) == "[" * 100_000


@pytest.mark.parametrize(
    ("sets", "terms", "message"),
    [
        (["data.mean"], [], "`set` must be FIELD=VALUE; got 'data.mean'"),
        (["data.mean=1", "data.mean=2"], [], "`set` must give a name once; got data.mean=1 and data.mean=2"),
        (["data.meen=1"], [], "`data.meen` in --set must be a field; got 1, known are data.kind, data.clusters"),
        (
            ["mean=1"],
            [],
            "got 1, known are arm, gate, gate.*, topology.*, arms.*, terms.*, router.*, data.*, layer.*",
        ),
        (["data.mean=x"], [], "`data.mean` in --set must be a number; got 'x'"),
        (["training.steps=true"], [], "`training.steps` in --set must be a whole number; got True"),
        (["router.policy.kind=median"], [], "must be one of all, first, above, randomly; got 'median'"),
        (["data.signal=[1]"], [], "`data.signal` in --set must be a list of 2 numbers; got [1]"),
        (["model.dim=3"], [], "`model.dim` in --set must be a field; got 3"),
        ([], ["z"], "`term` must be NAME=COEFFICIENT; got 'z'"),
        ([], ["z=much"], "`terms.z` in --term must be a number; got 'much'"),
        ([], ["lode=1"], "`term` must name an objective; got 'lode', known are load"),
        (["terms.z=1"], ["z=2"], "`terms.z` must be given once; got 1.0 and 2"),
    ],
)
def test_a_wrong_assignment_is_one_line(sets, terms, message):
    with pytest.raises(ValueError, match="must") as caught:
        fields.read(sets, terms)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_language_model_has_its_own_fields():
    assert fields.read(["model.dim=64", "training.beta2=0.99", "arms.load=0"], ["z=1"], LANGUAGE) == {
        "model.dim": 64,
        "training.beta2": 0.99,
        "arms.load": 0.0,
        "terms.z": 1.0,
    }
    with pytest.raises(ValueError, match=r"`data.mean` in --set must be a field; got 1, known are arm"):
        fields.read(["data.mean=1"], [], LANGUAGE)


@pytest.mark.parametrize(("command", "names", "scope"), [(Run, FIELD_OF, LAYER), (Lm, FIELD_OF_LM, LANGUAGE)])
def test_every_option_is_a_field_or_about_the_command(command, names, scope):
    """And no field has two options."""
    options = {field.name for field in dataclasses.fields(command)}
    assert set(names) <= options
    assert set(names.values()) <= set(fields.known(scope))
    assert len(set(names.values())) == len(names)


def test_options_of_run_have_the_defaults_of_their_fields():
    """So that leaving one out, and giving its default, are the same run."""
    (setting,) = settings_of(Run())
    assert setting == fields.build({"training.records": 50})
    defaults = {field.name: field.default for field in dataclasses.fields(Run) if field.name in FIELD_OF}
    own = {FIELD_OF[name]: value for name, value in defaults.items() if value is not None}
    assert fields.build({name: fields.check("a test", name, value) for name, value in own.items()}) == setting


def test_options_sets_and_terms_come_together():
    args = Run(
        arm=(("moge", "gshard"), ("hi-moe",)),
        load=0.5,
        clusters=5,
        term=(("z=0.25",),),
        set=(("layer.gate_std=1", "data.noise=0.1"), ("terms.variance_across_tokens=3",)),
    )
    settings = settings_of(args)
    assert [setting.arm.name for setting in settings] == ["moge", "gshard", "hi-moe"]
    for setting in settings:
        assert setting.arm.terms["load_per_token"] == 0.5
        assert setting.arm.terms["z"] == 0.25
        assert setting.arm.terms["variance_across_tokens"] == 3.0
        assert (setting.layer.gate_std, setting.data.noise, setting.data.clusters) == (1.0, 0.1, 5)


def test_a_field_given_twice_or_that_the_data_lacks_is_refused():
    with pytest.raises(ValueError, match=r"`data.mean` must be given once; got 3.0 and --mean 2"):
        settings_of(Run(mean=2.0, set=(("data.mean=3",),)))
    with pytest.raises(ValueError, match="`set` must leave the arm to `--arm`; got arm=moge"):
        settings_of(Run(set=(("arm=moge",),)))
    with pytest.raises(ValueError, match=r"`data.mean` must be a field of 'digits'; got 2.0"):
        settings_of(Run(data="digits", mean=2.0))


def test_options_of_lm_reach_arm_model_and_recipe():
    args = Lm(
        size="tiny",
        arm="gshard",
        steps=50,
        load=0.5,
        term=(("z=0.25",),),
        set=(("router.policy.kind=above", "model.dim=64", "training.beta2=0.99", "router.per_group=2"),),
    )
    arm, recipe, model = args.chosen_arm(), args.recipe(), args.model(None)
    assert arm.terms == {"load_per_token": 0.5, "z": 0.25}
    assert type(arm.router.policy).__name__ == "KeepAbove"
    assert (arm.router.routes, model.dim, recipe.beta2, recipe.steps, recipe.warmup) == (8, 64, 0.99, 50, 5)


def test_the_vocabulary_of_a_model_holds_its_text():
    args = Lm(size="tiny", set=(("model.vocabulary=300",),))
    assert args.model(256).vocabulary == 300
    with pytest.raises(ValueError, match=r"`model.vocabulary` must be at least the 400 tokens of the text; got 300"):
        args.model(400)


def test_unequal_groups_in_a_language_model():
    arm = Lm(size="tiny", set=(("router.group_of=[0,0,0,1,1]", "router.per_group=[2,1]"),)).chosen_arm()
    assert arm.router.partition.sizes == (3, 2)
    assert arm.router.routes == 3
