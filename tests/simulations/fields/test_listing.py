"""`himoe-simulate fields`: every field is there, with a meaning, and what it says of a field is so."""

import dataclasses
import io
import json
from typing import get_type_hints

import pytest

from simulations import fields
from simulations.data import KINDS, Streams
from simulations.experts import EXPERTS
from simulations.fields.command import Fields, entry, facts, matching, run_fields
from simulations.fields.known import LANGUAGE, LAYER, every
from simulations.fields.parts import PARTS
from simulations.fields.types import convert, meanings, one_line, words
from simulations.language.config import Config
from simulations.language.recipe import Recipe
from simulations.layer import Layer
from simulations.terminal import terminal
from simulations.training import Training


def test_every_field_is_listed_with_a_meaning():
    listed = every()
    assert {field.name for field in listed} == set(fields.known(LAYER)) | set(fields.known(LANGUAGE))
    assert all(field.meaning.strip() and "\n" not in field.meaning for field in listed)


OF_ROUTERS = [cls for kinds in PARTS.values() for cls in kinds.values()]


@pytest.mark.parametrize("cls", [*KINDS.values(), *EXPERTS.values(), Layer, Training, Recipe, Config, *OF_ROUTERS])
def test_what_is_trained_says_what_each_field_is(cls):
    """Below the field itself: no two say the same."""
    said = meanings(cls)
    assert list(said) == [field.name for field in dataclasses.fields(cls)]
    assert len(set(said.values())) == len(said)
    assert not any(one_line(cls.__doc__ or "").startswith(each) for each in said.values())


def test_a_field_of_a_base_class_keeps_its_meaning():
    assert meanings(Streams)["mean"] == "μ, length of the common mean"
    assert meanings(Streams)["dwell"].startswith("D, mean number of tokens")


def test_defaults_are_of_the_type_and_are_what_is_built():
    for field in every():
        if not isinstance(field.default, str) and field.default is not None:
            assert convert(field.hint, field.default) == field.default
    given = {f.name: f.default for f in every() if f.scope == LAYER and not f.kinds and f.default is not None}
    given["training.records"] = 1
    assert fields.build(given) == fields.build({})
    assert all(f"data.{name}" in fields.known() for name in get_type_hints(Streams) if name in meanings(Streams))


def test_a_list_of_fields_replaces_nothing_unless_told(tmp_path):
    path = tmp_path / "fields.json"
    path.write_text("mine")
    console = terminal()
    with pytest.raises(ValueError, match=r"fields\.json` must be a new file; there is one"):
        run_fields(Fields(("data.mean",), path), console)
    assert path.read_text() == "mine"
    run_fields(Fields(("data.mean",), path, force=True), console)
    assert [each["name"] for each in json.loads(path.read_text())] == ["data.mean"]


def test_fields_are_found_by_how_they_begin():
    assert [field.name for field in matching(("data.me", "training.wa"))] == ["data.mean", "training.warmup"]
    with pytest.raises(
        ValueError, match="`prefix` must begin a field; got 'date', fields begin with arm, gate, topology"
    ):
        matching(("data", "date"))


def test_the_list_is_printed_and_written(tmp_path):
    out = io.StringIO()
    run_fields(Fields(("data.mean", "layer.learn_scale")), terminal(file=out, width=60))
    printed = out.getvalue()
    assert "data.mean: a number; default 4.0; of clusters, streams\n    μ, length of the common mean" in printed
    assert "layer.learn_scale: true or false; default false" in printed
    run_fields(Fields(json=tmp_path / "f.json"), terminal(file=out))
    stored = json.loads((tmp_path / "f.json").read_text())
    assert [each["name"] for each in stored] == [field.name for field in every()]
    assert {"name": "training.clip", "type": "a number", "default": 1.0, "kinds": [], "of": LANGUAGE} in [
        {name: value for name, value in each.items() if name != "meaning"} for each in stored
    ]


def test_facts_of_what_has_no_default():
    (field,) = matching(("data.priors",))
    assert facts(field) == "a list of numbers; no default; of clusters, streams"
    assert entry(field)["default"] is None
    assert words(field.hint) == "a list of numbers"
