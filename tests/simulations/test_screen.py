"""Screening: the contract, the runs and the page of what a user brings, on a few steps."""

import dataclasses
import json
import re

import numpy as np
import pytest

from himoe_theory.contract.names import called
from simulations import arms
from simulations.__main__ import main
from simulations.screen import runs, screen
from simulations.screen.card import kind_of
from simulations.screen.page import html, plain

MINE = """
import jax.numpy as jnp
from himoe_theory import Partition, Router, SoftmaxThenMask, TopK
from himoe_theory.objectives import Objective

def squares(view):
    return view.mean(jnp.square(view.routing.probs).sum(axis=1))

peaked = Objective("peaked", squares)
number = 3

def router():
    return Router("mine", Partition.equal(8, 4), TopK(2), "himoe-theory", weighting=SoftmaxThenMask())
"""


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """One rival, two coefficients, a few steps; a file of a user's in the folder."""
    monkeypatch.setattr(runs, "RIVALS", ("gshard",))
    monkeypatch.setattr(runs, "COEFFICIENTS", dict.fromkeys(runs.COEFFICIENTS, (0.0, 0.5)))
    monkeypatch.setattr(runs, "FIELDS", {"training.steps": 6, "training.records": 2, "training.test_tokens": 64})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_an_objective_of_a_users_file(quick, monkeypatch, capsys):
    options = ["--seeds", "2", "--workers", "1", "--json", "card.json", "--set", "layer.gate_std=0.5"]
    monkeypatch.setattr("sys.argv", ["himoe-simulate", "screen", "mine.py:peaked", *options])
    main()
    said = capsys.readouterr().out
    assert "results/screen-peaked.html" in said
    card = json.loads((quick / "card.json").read_text())
    assert [line["arm"] for line in card["lines"]] == 2 * ["peaked 0", "peaked 0.5", "gshard", "untrained gate"]
    assert [line["mean"] for line in card["lines"]] == [0.0] * 4 + [4.0] * 4
    assert card["kind"] == "objective"
    assert len(card["source"]["sha256"]) == 64
    for line in card["lines"]:
        assert sum(line["names"]["regime"].values()) == 2
        assert all(np.isfinite(value) for value, _ in line["quantities"].values())
    null = card["lines"][3]
    assert null["quantities"]["gain"][0] == 0.0  # the untrained gate is its own partner
    assert null["names"]["regime"] == {"unlearned": 2}
    page = (quick / "results/screen-peaked.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Growth of modes at uniform routing" in page
    assert not re.search(r"(src|href)='(?!data:|#)", page)


def test_what_can_be_screened(quick):
    kinds = {"mine.py:peaked": "objective", "mine.py:router": "router", "z": "objective"}
    assert {name: kind_of(called(name)) for name in kinds} == kinds
    assert kind_of(arms()["hi-moe"]) == "arm"
    with pytest.raises(ValueError, match=r"`mine.py:number` must be an Objective, a Router or an Arm, .*; got int"):
        screen("mine.py:number")
    with pytest.raises(ValueError, match=r"`NAME` must be FILE.py:NAME or one of .*; got 'nothing'"):
        screen("nothing")


def test_rows_of_each_kind():
    fields = {kind: runs.rows("f.py:x", kind, {"layer.gate_std": 1.0})[1].fields for kind in runs.COEFFICIENTS}
    assert fields["objective"]["terms.f.py:x"] == 0.003
    assert fields["router"]["router.kind"] == "f.py:x"
    assert fields["router"]["terms.load_per_token"] == fields["arm"]["terms.load_per_token"] == 0.001
    assert fields["arm"]["arm"] == "f.py:x"
    assert all(each["layer.gate_std"] == 1.0 and each["training.steps"] == 600 for each in fields.values())


def test_markup_in_a_card_is_text(quick):
    card = screen("mine.py:peaked", seeds=2, workers=1)
    assert plain(card)["contract"]["name"] == "peaked"
    odd = dataclasses.replace(card, name="<script>x</script>")
    assert "<script>" not in html(odd)


def test_the_compared_mean_cannot_be_set(quick, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["himoe-simulate", "screen", "z", "--set", "data.mean=2"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "`data.mean` is what a screening compares, 0 and 4; got it set." in capsys.readouterr().err
