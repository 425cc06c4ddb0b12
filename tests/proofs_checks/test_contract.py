"""`himoe-check NAME` as its users meet it."""

import json
import sys
from pathlib import Path

import pytest

from himoe_theory.contract import Contract, Finding, Outcome, Table
from himoe_theory.contract.names import called
from himoe_theory.contract.page import contract_page
from proofs_checks import __main__ as command

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("## Bring your own")[1]

WRONG = """
import jax.numpy as jnp
from himoe_theory import Choice, Router, Selection, SoftmaxThenMask
from himoe_theory.objectives import Objective


def value(view):
    return view.mean(jnp.square(view.routing.probs).sum(axis=1))


def at_least_half(partition, tokens, routes):
    return 0.5, 1.0


bounded = Objective("bounded", value, bounds=at_least_half)
thrown = Objective("thrown", lambda view: view.routing.nothing)
text = "no objective"


class Later(Selection):
    def choose(self, keys, partition, mask):
        best = (keys.values + keys.values[-1]).argmax(axis=1)
        return Choice(jnp.arange(keys.values.shape[1]) == best[:, None])


def later(partition, per_group):
    return Router("later", partition, Later(), "mine", weighting=SoftmaxThenMask())


def broken(partition):
    return Router("broken", partition, Broken(), "mine")


class Broken(Selection):
    def choose(self, keys, partition, mask):
        raise IndexError("by nothing")
"""


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Runs the command; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text(WRONG)
    Path("mine.py").write_text(README.split("```python\n")[1].split("```")[0])

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["himoe-check", *arguments])
        with pytest.raises(SystemExit) as left:
            command.main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


def test_what_the_readme_shows(check):
    """Its lines, with a file for each form of the result."""
    lines = [line.split()[1:] for line in README.split("\n## ")[0].splitlines() if line.startswith("    himoe-check ")]
    assert lines
    for arguments in lines:
        code, out, err = check(*arguments)
        assert (code, err) == (0, "")
        assert "All that it claims holds." in out
    (found,) = json.loads(Path("peaked.json").read_text(encoding="utf-8"))
    assert (found["name"], found["kind"], found["holds"]) == ("peaked", "objective", True)
    assert {each["property"] for each in found["findings"]} >= {"gauge", "masks", "batch splitting", "names of experts"}
    assert {each["outcome"] for each in found["findings"]} == {"holds", "does not apply"}
    rates = next(table for table in found["tables"] if table["title"].startswith("Growth"))
    assert [row[1] for row in rates["rows"]] == ["-0.03125"] * 4  # minus the purity of `intra_group_global`
    page = Path("peaked.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert "<script" not in page


def test_what_is_claimed_and_not_so_is_exit_code_1(check):
    code, out, _ = check("wrong.py:bounded")
    assert code == 1
    assert "fails          bounds (BROKEN) value 0.125 outside of 0.5 to 1" in out
    assert "smallest example: logits (0, 0, 0, 0, 0, 0, 0, 0) x 8" in out
    assert "bounded: 11 hold, 1 fails, 1 does not apply. Claimed and not so: bounds." in out


def test_a_router_that_looks_ahead_is_exit_code_1(check):
    code, out, _ = check("wrong.py:later")
    assert code == 1
    assert "causality (BROKEN) token 0 selects {0}, and {" in out
    assert "Claimed and not so: batch independence, causality, causality in training" in out


def test_a_router_that_cannot_route_is_said(check):
    code, out, _ = check("wrong.py:broken")
    assert code == 1
    assert "evaluation (BROKEN) IndexError: by nothing" in out


def test_what_cannot_be_evaluated_is_exit_code_1_and_no_traceback(check):
    code, out, err = check("wrong.py:thrown")
    assert code == 1
    assert "evaluation (BROKEN) AttributeError: 'Routing' object has no attribute 'nothing'" in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "`NAME` must be FILE.py:NAME or one of token_entropy, group_neg_entropy,"),
        (("wrong.py:text",), "`wrong.py:text` must be an Objective, a Router or an Arm, or a function of"),
        (
            ("wrong.py",),
            "`wrong.py` must be followed by :NAME of a contract; of this kind it holds bounded, thrown, later, broken.",
        ),
        (("z", "--only", "himoe/*"), "`only` must not be given with a name; it is for claims, z is none."),
        (("z", "--workers", "2"), "`workers` must not be given with a name"),
        (("z", "--json", "missing/z.json"), "`missing/z.json` must be a file in a folder that exists."),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(check, arguments, message):
    code, out, err = check(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("himoe-check: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_names_are_ours_or_from_a_file(check):
    assert called("load").name == "load"
    assert called("hi-moe").partition.num_groups == 4
    assert called("mine.py:mine").router.name == "moge"


ODD = Contract(
    "<b>",
    "objective",
    (("source", "<i>"),),
    (
        Finding("holding", Outcome.HOLDS, True, "1 < 2"),
        Finding("failing", Outcome.FAILS, True, "1 > 2", "logits (<u>)"),
        Finding("unclaimed", Outcome.FAILS, False, "2 > 3"),
        Finding("apart", Outcome.DOES_NOT_APPLY, False, "none"),
    ),
    (Table("<s>", ("<p>", "b"), (("<q>", "2"),), "<r>"),),
)


def test_the_page_escapes_all_that_it_is_given():
    page = contract_page([ODD])
    body = page.split("<body>")[1]
    for tag in ("<b>", "<i>", "<u>", "<s>", "<q>", "<r>"):
        assert tag not in body
        assert tag.replace("<", "&lt;").replace(">", "&gt;") in body
    assert "1 &lt; 2" in body


def test_a_verdict_counts_and_names_what_is_broken():
    assert ODD.verdict == "<b>: 1 holds, 2 fail, 1 does not apply. Claimed and not so: failing."
    assert [each.name for each in ODD.broken] == ["failing"]
    assert ODD["unclaimed"].text == "2 > 3"
    with pytest.raises(KeyError, match="no property 'other'; known are holding, failing, unclaimed, apart"):
        ODD["other"]
