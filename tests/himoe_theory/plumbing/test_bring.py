"""Names to objects: ours, those of installed packages, those of files; and what is said when there is none."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from himoe_theory.plumbing.bring import Kind, Place, make, names, resolve
from himoe_theory.plumbing.origin import origin

NUMBER = Kind("number", "a whole number", "himoe.numbers", lambda x: type(x) is int, ("size",))
OURS = {"one": 1, "two": 2}


def write(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def found(text: str, place: Place | None = None, **offered: Any) -> Any:
    thing = resolve(NUMBER, text, OURS, Place() if place is None else place)
    return make(NUMBER, text, thing, offered=offered)


def install(folder: Path, package: str, text: str, *names: str) -> None:
    """What an installer leaves: a module, and the folder that describes the distribution."""
    module = package.replace("-", "_")
    (folder / f"{module}.py").write_text(text)
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    points = "".join(f"{name} = {module}:{name}\n" for name in names)
    (about / "entry_points.txt").write_text(f"[himoe.numbers]\n{points}")


def test_our_own_names():
    assert found("two") == 2
    assert names(NUMBER, OURS) == ["one", "two"]


def test_objects_and_what_gives_one(tmp_path: Path):
    file = write(
        tmp_path,
        "three = 3\n"
        "def four(): return 4\n"
        "def sized(size): return size\n"
        "class Five:\n    def __new__(cls): return 5\n"
        "six = lambda size=6: size\n",
    )
    assert found(f"{file}:three") == 3
    assert found(f"{file}:four", size=9) == 4
    assert found(f"{file}:sized", size=9) == 9
    assert found(f"{file}:Five") == 5
    assert found(f"{file}:six", size=9) == 9


def test_paths_are_relative_to_a_folder_which_may_not_be_there(tmp_path: Path):
    write(tmp_path, "three = 3")
    assert found("mine.py:three", Place(tmp_path)) == 3
    away = Place(tmp_path / "away", {str(tmp_path / "away" / "mine.py"): {"mine.py": b"three = 33"}})
    assert found("mine.py:three", away) == 33


def test_fields_are_arguments_or_those_of_a_dataclass(tmp_path: Path):
    @dataclasses.dataclass(frozen=True)
    class Held:
        n: int = 1

    kind = Kind("held", "a Held", "himoe.held", lambda x: isinstance(x, Held))
    assert make(kind, "x", Held(2)) == Held(2)
    assert make(kind, "x", Held(2), fields={"n": 3}) == Held(3)
    assert make(kind, "x", Held, fields={"n": 3}) == Held(3)
    with pytest.raises(ValueError, match=r"`m` must be a field of x; got 3, known are n\."):
        make(kind, "x", Held(2), fields={"m": 3})
    with pytest.raises(ValueError, match=r"`m` must be a field of x; got 3, known are n\."):
        make(kind, "x", Held, fields={"m": 3})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", r"`\S+mine.py` must hold `absent`; of this kind it holds three, four, fails, wrong\.$"),
        ("", r"`\S+mine.py` must be followed by :NAME of a number; of this kind it holds three, four, fails, wrong\.$"),
        ("text", r"mine.py:text` must be a whole number, or a function of \(size\) that gives one; got str 'x'\.$"),
        ("asks", r"mine.py:asks` must be a whole number, or .*; it asks for width, depth\.$"),
        ("fails", r"mine.py:fails` must give a whole number; got KeyError: 'k'\.$"),
        ("wrong", r"mine.py:wrong` must give a whole number; got float 0\.5\.$"),
    ],
)
def test_one_line_for_what_is_not_there_or_not_right(name: str, message: str, tmp_path: Path):
    file = write(
        tmp_path,
        "from os.path import join\n"
        "three, text = 3, 'x'\n"
        "def asks(size, width, depth): return 1\n"
        "def _hidden(): return 1\n"
        "def four(): return 4\n"
        "def fails(size, x=None): return {}['k']\n"
        "def wrong(size, y=None): return 0.5\n",
    )
    with pytest.raises(ValueError, match=message) as caught:
        found(f"{file}:{name}" if name else file, size=9)
    assert "\n" not in str(caught.value)


def test_a_file_without_any():
    with pytest.raises(ValueError, match=r"must hold `x`; it holds no number\.$"):
        found("empty.py:x", Place(Path("/nowhere"), {"/nowhere/empty.py": {"empty.py": b""}}))


def test_no_such_name():
    with pytest.raises(ValueError, match=r"`number` must be one of one, two, or FILE\.py:NAME; got 'three'\.$"):
        found("three")
    with pytest.raises(ValueError, match=r"`\S+/none\.py` must be a Python file that can be read; there is none\.$"):
        found("none.py:three")


def test_installed_packages_offer_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "their-numbers", "seven = 7\ndef eight(size): return size", "seven", "eight")
    monkeypatch.syspath_prepend(tmp_path)
    assert names(NUMBER, OURS) == ["one", "two", "seven", "eight"]
    assert "their_numbers" not in sys.modules  # naming loads nothing
    assert found("seven") == 7
    assert found("eight", size=8) == 8
    first = origin(resolve(NUMBER, "eight")).sha256
    sys.modules.pop("their_numbers")
    assert first == origin(resolve(NUMBER, "eight")).sha256
    sys.modules.pop("their_numbers")


def test_a_name_that_two_offer_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for number in ("first", "second"):
        install(tmp_path, f"their-{number}", "x = one = 7", "x", "one")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"`number` must be offered once; 'x' is by their-first and their-second\."):
        found("x")
    with pytest.raises(ValueError, match=r"'one' is by himoe-theory and their-first and their-second\."):
        found("one")
    assert found("two") == 2


def test_a_package_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, "their-broken", "raise OSError('no\\nway')", "x")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"`x` of their-broken \(their_broken:x\) must load; got OSError: no\.$"
    with pytest.raises(ValueError, match=message):
        found("x")
