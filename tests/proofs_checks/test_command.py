"""`himoe-check` as its users meet it."""

import dataclasses
import json
import os
import sys
from html import escape
from pathlib import Path

import pytest

from proofs_checks import __main__ as command
from proofs_checks import runner
from proofs_checks.claims import CLAIMS
from proofs_checks.ledger import Claim, Control, Effort, Finding, Outcome, Verdict, examine, unverifiable
from proofs_checks.pages import ledger_page
from proofs_checks.record import record

PROVED = Finding("method", Outcome.PROVED, (r"because $\pi = \pi$",), (Control("variant", True),))
GOOD = Claim("test/good", r"\pi = \pi", "It <is> so.", "[himoe] eq. (1)", Verdict.PROVED, lambda effort: [PROVED])
UNKNOWN = dataclasses.replace(
    GOOD, id="test/unknown", recorded=Verdict.UNVERIFIABLE, check=lambda effort: unverifiable("Nothing was published.")
)


def broken(effort: Effort) -> list[Finding]:
    raise ZeroDivisionError("by nothing")


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Runs the command on a small ledger; returns the exit code and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, claims: tuple[Claim, ...] = (GOOD, UNKNOWN)) -> tuple[int, str, str]:
        monkeypatch.setattr(command, "CLAIMS", claims)
        monkeypatch.setattr(sys, "argv", ["himoe-check", *arguments])
        with pytest.raises(SystemExit) as left:
            command.main()
        said = capsys.readouterr()
        return left.value.code, said.out, said.err

    return run


def test_as_recorded_is_exit_code_0(check):
    code, out, _ = check()
    assert code == 0
    assert "2 claims: 1 proved, 1 unverifiable." in out


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (dataclasses.replace(GOOD, recorded=Verdict.REFUTED), "NOT AS RECORDED (refuted)"),
        (dataclasses.replace(GOOD, check=broken), "ZeroDivisionError: by nothing"),
        (
            dataclasses.replace(
                GOOD, check=lambda e: [PROVED, dataclasses.replace(PROVED, controls=(Control("sign", False),))]
            ),
            "controls answered wrongly: method: sign",
        ),
    ],
)
def test_anything_else_is_exit_code_1(check, claim, reason):
    code, out, _ = check(claims=(claim, UNKNOWN))
    assert code == 1
    assert reason in out
    assert "Not as recorded: test/good." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "nothing/*"), "`only` must match the id of a claim; got 'nothing/*', ids start with test;"),
        (("--explain", "god"), "`explain` must match the id of a claim; got 'god', near it are 'test/good';"),
        (("--explain", "unk*"), "`explain` must match the id of a claim; got 'unk*', near it are 'test/unknown';"),
        (("--only",), "`only` must be followed by at least one word; got none."),
        (("--html", "missing/claims.html"), "`missing/claims.html` must be a file in a folder that exists."),
        (("--json", "a\nb/c"), "`a\\nb/c` must be a file"),
        (("--workers", "0"), "`workers` must be at least 1; got 0."),
        (("--json", "missing/claims.json"), "`missing/claims.json` must be a file in a folder that exists."),
        (("--json", "."), "`.` must be a file"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(check, arguments, message):
    code, out, err = check(*arguments)
    assert code == 2
    assert err.startswith("himoe-check: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert "proved" not in out


def test_json_is_a_list_of_objects(check):
    assert check("--json", "claims.json", "--only", "test/g*")[0] == 0
    (found,) = json.loads(Path("claims.json").read_text(encoding="utf-8"))
    promised = {"id", "source", "statement", "assumptions", "verdict", "methods", "tightness", "witness", "seconds"}
    assert promised <= set(found)
    assert found["verdict"] == "proved"
    assert not list(Path().glob(".*.part"))


def test_the_page_needs_nothing_but_itself(check):
    assert check("--html", "claims.html")[0] == 0
    page = Path("claims.html").read_text(encoding="utf-8")
    assert "It &lt;is&gt; so." in page
    assert "Nothing was published." in page
    assert "<math" in page
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert "src='http" not in page


def test_explain_shows_steps_and_controls(check):
    code, out, _ = check("--explain", "test/good")
    assert code == 0
    assert "because" in out
    assert "control, variant: answered rightly" in out
    assert "verdict:       proved." in out


def test_names_with_markup_are_printed_as_they_are(check):
    odd = dataclasses.replace(GOOD, id="test/[/red]")
    code, out, _ = check("--json", "[red].json", "--only", "test/*", "--only", "test/good", claims=(odd, GOOD))
    assert code == 0
    assert "test/[/red]" in out
    assert "[red].json: written" in out


def test_list_examines_nothing(check):
    code, out, _ = check("--list", claims=(dataclasses.replace(GOOD, check=broken),))
    assert code == 0
    assert out == "test/good: It <is> so.\n"


def test_help_has_examples(check):
    code, out, _ = check("--help")
    assert code == 0
    assert "himoe-check --explain himoe/eq4-mass-purity" in out


def test_processes_come_to_the_same_records():
    """Real claims, as other processes look them up by id."""
    some = [claim for claim in CLAIMS if claim.id.startswith("himoe/")][: runner.ALONE + 1]
    found = {each["id"]: each for each in runner.run(some, Effort(), workers=2)}
    assert set(found) == {claim.id for claim in some}
    first = record(examine(some[0], Effort()))
    assert dict(found[some[0].id], seconds=0) == dict(first, seconds=0)
    assert ledger_page(list(found.values())).count("<section") == len(some) + 1


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{<meta http-equiv='refresh' content='0'/>}",
        r"\text{</mtext></math><img src=x onerror=alert(1)>}",
        r"\href{javascript:alert(1)}{x}",
        r"\text{a < b}",
    ],
)
def test_formulas_bring_no_markup_of_their_own(latex):
    claim = dataclasses.replace(GOOD, statement=latex, words=f"So is ${latex}$.")
    page = ledger_page([record(examine(claim, Effort()))])
    assert page.count(f"<code>{escape(latex)}</code>") == 3
    for markup in ("<script", "<meta http-equiv='refresh'", "<img src=x", 'href="javascript', "a < b"):
        assert markup not in page


def test_formulas_that_are_formulas_stay():
    page = ledger_page([record(examine(dataclasses.replace(GOOD, statement=r"a < \text{all } b"), Effort()))])
    assert "<math" in page
    assert "<code>" not in page.split("<section id='test-good'>")[1].split("<table>")[0]


def test_files_that_are_there_are_replaced_when_told(check, tmp_path):
    (tmp_path / "claims.json").write_text("mine")
    (tmp_path / "claims.html").write_text("mine")
    for option in (("--json", "claims.json"), ("--html", "claims.html")):
        code, _, error = check(*option)
        assert code == 2
        assert "must be a new file; there is one. Replace it with `--force`, or give another name." in error
        assert (tmp_path / f"claims.{option[0][2:]}").read_text() == "mine"
    assert check("--json", "claims.json", "--html", "claims.html", "--force")[0] == 0
    assert len(json.loads((tmp_path / "claims.json").read_text())) == 2
    assert (tmp_path / "claims.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("victim"), os.mkfifo], ids=["link", "pipe"])
def test_outputs_that_are_no_files_are_refused_before_the_work(check, tmp_path, make):
    (tmp_path / "victim").write_text("mine")
    make(tmp_path / "claims.json")
    code, _, error = check("--json", "claims.json", "--force", claims=(dataclasses.replace(GOOD, check=broken),))
    assert (code, error.count("\n")) == (2, 1)
    assert "`claims.json` must be a file; it is a " in error
    assert (tmp_path / "victim").read_text() == "mine"
