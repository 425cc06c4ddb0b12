"""Citations resolve, every public name is documented, and documented arguments exist."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import pytest

import himoe_theory
from himoe_theory import SOURCES, routers
from himoe_theory.objectives import CODE_BASES, OBJECTIVES
from proofs_checks.claims import CLAIMS
from simulations import arms


def modules() -> Iterator[object]:
    yield himoe_theory
    for found in pkgutil.walk_packages(himoe_theory.__path__, "himoe_theory."):
        yield importlib.import_module(found.name)


def public() -> list[tuple[str, object]]:
    """Public functions and classes where they are defined, and public methods of the classes."""
    found = []
    for module in modules():
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__
            if name.startswith("_") or not own or not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            found.append((f"{module.__name__}.{name}", value))
            if inspect.isclass(value):
                methods = ((m, f) for m, f in vars(value).items() if inspect.isfunction(f) and not m.startswith("_"))
                found.extend((f"{module.__name__}.{name}.{m}", f) for m, f in methods)
    return found


PUBLIC = public()


def documentation() -> list[str]:
    texts = [inspect.getdoc(value) or "" for _, value in PUBLIC]
    texts += [inspect.getdoc(module) or "" for module in modules()]
    return texts + [claim.source for claim in CLAIMS]


def keys_in(text: str) -> set[str]:
    """Keys in square brackets, outside indented examples of code, where a comment may name the axes of an array."""
    prose = re.sub(r"^ {4}.*$", "", text, flags=re.M)
    return set(re.findall(r"(?<![\w`])\[([a-z][a-z0-9-]+)\]", prose))


def cited() -> set[str]:
    keys = {key for text in documentation() for key in keys_in(text)}
    keys |= {each.source for each in (*OBJECTIVES.values(), *CODE_BASES.values())}
    return (
        keys
        | {arm.router.source for arm in arms().values()}
        | {routers.himoe_paper(himoe_theory.Partition((0,)), 1).source}
    )


def test_the_surface_was_found():
    names = {name for name, _ in PUBLIC}
    assert {"himoe_theory.objectives.z.z_loss", "himoe_theory.routers.Router.step"} <= names
    assert len(names) > 100


def test_keys_are_read_in_prose_alone():
    assert keys_in("From [one].\n\n    def f(x):  # [two]\n\n- [three-b]; x[four] and `[five]`") == {"one", "three-b"}


def test_every_citation_resolves():
    assert cited() - set(SOURCES) == set()


def test_every_source_is_cited():
    assert set(SOURCES) - cited() == set()


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_names_are_documented(name, value):
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    assert not text.startswith(f"{value.__name__}("), f"{name} has only a generated docstring"
    section = re.search(r"\*\*Arguments:\*\*(.*?)(\*\*(Returns|Raises|Source|Claims):|$)", text, re.S)
    if section and inspect.isfunction(value):
        documented = re.findall(r"`(\w+)`:", section[1])
        assert documented, f"{name} documents arguments without naming one"
        assert set(documented) <= set(inspect.signature(value).parameters), name
