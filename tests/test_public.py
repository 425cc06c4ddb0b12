"""What packages publish: `__all__` is what they export, so that `help()` shows it, and a star import brings it."""

import ast
import importlib
import inspect
import pydoc

import pytest

from tests.test_house import PACKAGES, ROOT, name_of

INITS = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("__init__.py"))]


def exported(tree: ast.Module) -> set[str]:
    """Names that are imported as themselves, defined or assigned."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            found |= {each.name for each in node.names if each.asname == each.name}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


@pytest.mark.parametrize("path", INITS, ids=name_of)
def test_all_is_what_is_exported(path):
    module = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    names = exported(ast.parse(path.read_text(encoding="utf-8")))
    listed = getattr(module, "__all__", [])
    assert set(listed) == names
    assert len(set(listed)) == len(listed)
    for name in listed:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", ["himoe_theory", "himoe_theory.objectives", "simulations", "simulations.sweep"])
def test_help_shows_functions_and_classes(package):
    module = importlib.import_module(package)
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    own = [name for name in module.__all__ if inspect.isroutine(getattr(module, name))]
    assert own
    assert all(f"    {name}(" in text for name in own)
