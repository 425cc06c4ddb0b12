"""Files that users name: loaded once for their content, with their neighbours, without a trace in Python's tables."""

import sys
from pathlib import Path

import pytest

from himoe_theory.plumbing.loading import PREFIX, digest, load, loaded_as


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / f"{next(iter(files))}.py"


def others() -> set[str]:
    return {name for name in sys.modules if not name.startswith(PREFIX)}


def test_a_file_is_loaded_once_for_its_content(tmp_path: Path):
    path = write(tmp_path, mine="x = [1]")
    first = load(path)
    assert load(path) is first
    write(tmp_path, mine="x = [2]")  # as long, and within the second: no time or size tells them apart
    second = load(path)
    assert (first.module.x, second.module.x) == ([1], [2])
    assert first.sha256 != second.sha256
    write(tmp_path, mine="x = [1]")
    assert load(path) is first


@pytest.mark.parametrize("how", ["import helper", "from . import helper", "from . import helper; import helper as h"])
def test_neighbours_are_imported_and_hashed(how: str, tmp_path: Path):
    path = write(tmp_path, mine=f"{how}\nx = helper.x", helper="x = 1", other="x = 3")
    first = load(path)
    assert set(first.files) == {"mine.py", "helper.py"}
    write(tmp_path, helper="x = 2")
    second = load(path)
    assert (first.module.x, second.module.x) == (1, 2)
    assert first.module.__name__ != second.module.__name__
    write(tmp_path, other="x = 4")  # nobody imports it
    assert load(path) is second


def test_both_ways_to_import_give_one_module(tmp_path: Path):
    path = write(tmp_path, mine="import helper\nfrom . import helper as again\nsame = helper is again", helper="")
    assert load(path).module.same


def test_packages_beside_a_file(tmp_path: Path):
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "__init__.py").write_text("from .inner import x\n")
    (tmp_path / "losses" / "inner.py").write_text("import helper\nx = helper.x + 1\n")
    path = write(tmp_path, mine="import losses.inner\nfrom losses import x\ny = losses.inner.x", helper="x = 1")
    found = load(path)
    assert (found.module.x, found.module.y) == (2, 2)
    assert set(found.files) == {"mine.py", "helper.py", "losses/__init__.py", "losses/inner.py"}


def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither a name, nor a path, nor a compiled file; what the caller has imported from there stays the caller's."""
    path = write(tmp_path, mine="import helper, notebook", helper="x = 1", notebook="x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__("notebook")
    write(tmp_path, notebook="x = 2")
    before = others(), list(sys.meta_path), list(sys.path)
    found = load(path)
    assert others() == before[0]
    assert (list(sys.meta_path), list(sys.path)) == before[1:]
    assert sys.modules["notebook"] is own
    assert (own.x, found.module.notebook.x) == (1, 2)
    assert not [each for each in tmp_path.rglob("*.pyc") if "helper" in each.name or "mine" in each.name]
    del sys.modules["notebook"]


def test_two_folders_with_neighbours_of_one_name(tmp_path: Path):
    found = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(load(write(folder, mine="import helper", helper=f"x = {number}")).module.helper.x)
    assert found == [1, 2]


def test_a_neighbour_never_stands_in_for_python_or_for_this_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)  # so that it must be looked for
    path = write(
        tmp_path,
        mine="import colorsys, himoe_theory",
        colorsys="raise OSError",
        himoe_theory="raise OSError('not ours')",
    )
    found = load(path)
    assert set(found.files) == {"mine.py"}
    assert found.module.himoe_theory is sys.modules["himoe_theory"]


def test_a_file_with_any_name(tmp_path: Path):
    path = tmp_path / "my-arm 2.py"
    path.write_text("x = 1")
    assert load(path).module.x == 1


def test_content_may_come_from_elsewhere(tmp_path: Path):
    """What a worker does that has no such file."""
    files = {"mine.py": b"import helper\nx = helper.x", "helper.py": b"x = 5"}
    found = load(tmp_path / "mine.py", files)
    assert found.module.x == 5
    assert dict(found.files) == files
    assert not (tmp_path / "mine.py").exists()
    write(tmp_path, mine="import helper\nx = helper.x", helper="x = 5")
    assert load(tmp_path / "mine.py") is found


def test_modules_know_their_file(tmp_path: Path):
    found = load(write(tmp_path, mine="import helper\nclass Mine: ...", helper="class Helper: ..."))
    assert loaded_as(found.module.Mine.__module__) is found
    assert loaded_as(found.module.helper.Helper.__module__) is found
    assert loaded_as("numpy") is None


def test_digest_tells_names_and_contents_apart():
    one = {"a.py": b"b", "c.py": b"d"}
    assert digest(one) == digest(dict(reversed(one.items())))
    others = [{"a.py": b"bc.py", "": b"d"}, {"a.py": b"d", "c.py": b"b"}, {"a.py": b"b"}, {}]
    assert len({digest(each) for each in [one, *others]}) == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = x / 0", r"ZeroDivisionError: division by zero \(line 2\)"),
        ("x = (1\n", r"SyntaxError: '\(' was never closed \(line 1\)"),
        ("import sys\nsys.exit(3)", r"SystemExit: 3 \(line 2\)"),
        ("import nowhere_to_be_found", r"ModuleNotFoundError: No module named 'nowhere_to_be_found' \(line 1\)"),
        ("import helper", r"ValueError: two \(helper.py, line 3\)"),
        ("import broken", r"SyntaxError: invalid syntax \(broken.py, line 1\)"),
        ("import json\n\njson.loads('[')", r"JSONDecodeError: Expecting value: .* \(line 3\)"),
    ],
)
def test_what_a_file_raises_is_one_line_with_its_place(text: str, reason: str, tmp_path: Path):
    path = write(tmp_path, mine=text, helper="\n\nraise ValueError('two\\nlines')", broken="x = = 1")
    before = set(sys.modules)
    with pytest.raises(ValueError, match=rf"`{path}` must load; got {reason}\.$"):
        load(path)
    assert {name for name in sys.modules if name.startswith(PREFIX)} <= before


def test_no_such_file(tmp_path: Path):
    with pytest.raises(ValueError, match=r"nothing\.py` must be a Python file that can be read; there is none"):
        load(tmp_path / "nothing.py")
