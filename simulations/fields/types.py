"""Types of fields: what a value must be to stand in one, what that is called, and what is said of the field."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
from typing import Any, Literal, Union, get_args, get_origin

from himoe_theory.plumbing.bring import Kind, names, names_file

Value = bool | int | float | str | tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Named:
    """The type of a field that names one of ours, or what a user brings."""

    kind: Kind
    ours: tuple[str, ...] = ()

    def brings(self, value: Any) -> bool:
        """Whether it names what is not ours. Nothing is loaded."""
        return isinstance(value, str) and (names_file(value) or value in names(self.kind)) and value not in self.ours


def free(value: Any) -> Value:
    """A value of a field that we do not know. **Raises:** `TypeError` if no field can hold it."""
    if isinstance(value, (list, tuple)):
        return tuple(free(one) for one in value)
    if type(value) in (bool, int, float, str):
        return value
    raise TypeError


def convert(hint: Any, value: Any) -> Value:
    """`TypeError` if the value is not of this type; whole numbers pass for numbers, lists for tuples."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, Named):
        if hint.brings(value) or (isinstance(value, str) and value in hint.ours):
            return value
    elif origin in (Union, types.UnionType):
        for one in arguments:
            try:
                return convert(one, value)
            except TypeError:
                continue
    elif origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            of = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
            if len(of) == len(value):
                return tuple(convert(one, item) for one, item in zip(of, value, strict=True))
    elif hint is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond the largest float
            raise TypeError from None
    elif hint in (int, bool, str) and type(value) is hint:
        return value
    raise TypeError


def words(hint: Any) -> str:
    """What a value of the type is called in a message."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, Named):
        known = ", ".join(names(hint.kind, dict.fromkeys(hint.ours)))
        return f"one of {known}, or FILE.py:NAME" if known else "FILE.py:NAME"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(one) for one in arguments if one is not types.NoneType))
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if origin is tuple:
        number = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"a list of {number}{'whole ' if arguments[0] is int else ''}numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}[hint]


@functools.cache
def meanings(cls: type) -> dict[str, str]:
    """What a class says of each of its fields: the string below the field, else what the class says of itself."""
    of_class = one_line((inspect.getdoc(cls) or "").split("\n\n")[0].split("**")[0])
    found = {field.name: of_class for field in dataclasses.fields(cls)}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= {name: said for name, said in _below_fields(base).items() if name in found}
    return found


def _below_fields(cls: type) -> dict[str, str]:
    """Docstrings of fields, which Python itself does not keep."""
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # a class without a file
        return {}
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        said = below.value if isinstance(below, ast.Expr) else None
        named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if named and isinstance(said, ast.Constant) and isinstance(said.value, str):
            found[field.target.id] = one_line(said.value)
    return found


def one_line(text: str) -> str:
    """A docstring's paragraph as one line without its full stop."""
    return " ".join(text.split()).strip(". ")
