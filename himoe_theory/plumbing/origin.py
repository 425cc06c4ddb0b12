"""Where an object comes from, and a hash of all that defines it: what compile keys, fingerprints and manifests hold of
what users bring.

The hash covers, of a function or a class of a file that `loading` has loaded, that file and the neighbours that it
imported; of one made by hand, in a script or a notebook, its compiled code and the values of the global names that the
code reads; of one of this project or of an installed package, its name and its module's file. Beside these it covers
what a function closes over, its defaults, what is bound to it, and of an instance its class and its state.
"""

import dataclasses
import dis
import functools
import hashlib
import sys
import sysconfig
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from .loading import OURS, digest, loaded_as

_MADE_BY_A_CLASS_STATEMENT = 1 << 9  # and not in C: Python's `Py_TPFLAGS_HEAPTYPE`
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented))
# What Python itself writes into a class, or keeps for it.
_OF_CLASSES = {
    "__annotations__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__dict__",
    "__doc__",
    "__firstlineno__",
    "__module__",
    "__static_attributes__",
    "__weakref__",
    "_abc_impl",
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """`name` of an object or of its class, the `file` that defines it (`None` if typed in), and the hash."""

    name: str
    file: str | None
    sha256: str


def origin(thing: Any) -> Origin:
    """Of any object. **Raises:** `ValueError` if it holds what no two processes can compare, such as a lock."""
    made = definition(thing)
    name = getattr(made, "__qualname__", type(made).__qualname__)
    return Origin(name, _file_of(_module_of(made)), _Hash(name).of(thing).hex())


def definition(thing: Any) -> Any:
    """The function or class that an object is, calls, or is an instance of."""
    if isinstance(thing, functools.partial):
        return definition(thing.func)
    if isinstance(thing, MethodType):
        return definition(thing.__func__)
    thing = without_checks(thing)
    wrapped = getattr(thing, "__wrapped__", None)  # by what is written in C, such as `jax.jit`
    if wrapped is not None and not isinstance(thing, type | FunctionType):
        return definition(wrapped)
    return thing if isinstance(thing, type | FunctionType | BuiltinFunctionType) else type(thing)


def without_checks(thing: Any) -> Any:
    """A function itself, where a checker of types stands around it; other decorators are part of what they return."""
    while isinstance(thing, FunctionType) and _module_of(thing).partition(".")[0] in ("jaxtyping", "beartype"):
        inner = getattr(thing, "__wrapped__", None)
        if inner is None:
            break
        thing = inner
    return thing


def is_ours(thing: Any) -> bool:
    """Whether an object's function or class stands in this project or in Python itself."""
    top = _module_of(definition(thing)).partition(".")[0]
    return top in OURS or (top in sys.stdlib_module_names and top != "__main__")


def brings(package: str) -> None:
    """From now on the whole of an installed package, by its import name, defines what comes from it."""
    _brought.setdefault(package, _hash_of_package(package))


_brought: dict[str, str] = {}  # once a process: files that change later are not what it runs


def _hash_of_package(package: str) -> str:
    file = getattr(sys.modules[package], "__file__", None)
    if file is None:
        return "no files"
    path = Path(file)
    if path.name != "__init__.py":
        return digest({path.name: path.read_bytes()})
    files = sorted(path.parent.rglob("*.py"))
    return digest({each.relative_to(path.parent).as_posix(): each.read_bytes() for each in files})


def _module_of(made: Any) -> str:
    """By name; what `exec` has made in a space without a name is as if it had been typed in."""
    if isinstance(made, FunctionType):  # its globals know better than `__module__`, which decorators copy
        where = made.__globals__.get("__name__", "__main__")
    else:
        where = getattr(made, "__module__", None)
        if where == "builtins" and isinstance(made, type) and made.__flags__ & _MADE_BY_A_CLASS_STATEMENT:
            where = "__main__"
    return where if isinstance(where, str) else "builtins"


def _file_of(module: str) -> str | None:
    loaded = loaded_as(module)
    file = str(loaded.path) if loaded is not None else getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) else None


@functools.cache
def _installed() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@functools.cache
def _hash_of_file(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "no file"


def _fixed_source(module: str) -> str | None:
    """What stands for all that a module defines, or `None` where its code itself is looked at."""
    top = module.partition(".")[0]
    if top in OURS or top in sys.builtin_module_names:
        return module
    loaded = loaded_as(module)
    if loaded is not None:
        return loaded.sha256
    if top in _brought:
        return f"{module} {_brought[top]}"
    file = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not isinstance(file, str):
        return None
    return f"{module} {_hash_of_file(file)}" if file.startswith(_installed()) else None


class _Hash:
    """Hashes of objects, taken apart until only plain values are left. `name` is what messages call the whole."""

    def __init__(self, name: str):
        self._name = name
        self._done: dict[int, bytes] = {}
        self._above: list[int] = []  # objects that are being taken apart, outermost first
        self._alive: list[Any] = []  # so that no number is given to two

    def of(self, thing: Any) -> bytes:
        """SHA-256."""
        if type(thing) in _PLAIN:
            return _sum("plain", type(thing).__name__.encode(), repr(thing).encode())
        key = id(thing)
        if key in self._done:
            return self._done[key]
        if key in self._above:
            return _sum("above", str(self._above.index(key)).encode())
        self._above.append(key)
        kind, parts = self._apart(thing)
        hashes = [self.of(part) for part in parts]
        self._above.pop()
        self._alive.append(thing)
        self._done[key] = _sum(kind, *(sorted(hashes) if kind in ("set", "dict") else hashes))
        return self._done[key]

    def _apart(self, thing: Any) -> tuple[str, Iterable[Any]]:
        """What an object is, and what it is made of."""
        thing = without_checks(thing)
        if type(thing) in (tuple, list):
            return type(thing).__name__, thing
        if type(thing) in (set, frozenset):
            return "set", thing
        if type(thing) is dict:
            return "dict", [tuple(item) for item in thing.items()]
        if isinstance(thing, ModuleType):
            return "module", [thing.__name__, _hash_of_file(getattr(thing, "__file__", None) or "")]
        if isinstance(thing, CodeType):
            return "code", _code(thing)
        if isinstance(thing, FunctionType):
            return "function", _function(thing)
        if isinstance(thing, type):
            return "class", _class(thing)
        if isinstance(thing, functools.partial):
            return "partial", [thing.func, thing.args, thing.keywords]
        if isinstance(thing, MethodType | classmethod | staticmethod):
            return "method", [thing.__func__, getattr(thing, "__self__", None)]
        if isinstance(thing, property):
            return "property", [thing.fget, thing.fset, thing.fdel]
        if isinstance(thing, BuiltinFunctionType):
            bound = thing.__self__
            return "built in", [thing.__qualname__, None if isinstance(bound, ModuleType) else bound, thing.__module__]
        if isinstance(thing, weakref.ReferenceType):
            return "reference", [thing()]
        wrapped = getattr(thing, "__wrapped__", None)
        if wrapped is not None and callable(thing):
            return "wrapped", [type(thing).__name__, wrapped]
        if hasattr(thing, "__array__") and hasattr(thing, "dtype"):
            values = np.asarray(thing)
            held = values.tolist() if values.dtype.hasobject else values.tobytes()
            return "array", [values.dtype.str, values.shape, held]
        return "instance", self._instance(thing)

    def _instance(self, thing: Any) -> list[Any]:
        """Its class and what copying it would take along."""
        try:
            taken = thing.__reduce_ex__(4)
        except Exception as error:
            held = getattr(thing, "__dict__", None)
            if held is None:
                raise ValueError(
                    f"`{self._name}` must be made of what can be told apart by its values; got a "
                    f"{type(thing).__qualname__} in it. Make it where it is needed, inside a function."
                ) from error
            return [type(thing), held]
        if isinstance(taken, str):
            return [type(thing), taken]
        return [type(thing), *(list(part) if isinstance(part, Iterator) else part for part in taken)]


def _sum(kind: str, *parts: bytes) -> bytes:
    found = hashlib.sha256(kind.encode() + b"\0")
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()


def _code(code: CodeType) -> list[Any]:
    """All but where it stands."""
    names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
    counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
    return [code.co_code, code.co_consts, *names, *counts]


def _function(function: FunctionType) -> list[Any]:
    cells = [cell_content(cell) for cell in function.__closure__ or ()]
    bound = [function.__qualname__, function.__defaults__, function.__kwdefaults__, cells]
    source = _fixed_source(_module_of(function))
    if source is not None:
        return [*bound, source]
    names = sorted(set(_globals_read(function.__code__)) & set(function.__globals__))
    return [*bound, function.__code__, {name: function.__globals__[name] for name in names}]


def cell_content(cell: Any) -> Any:
    """What a function closes over in one of its cells."""
    try:
        return cell.cell_contents
    except ValueError:  # still empty: a function that refers to itself
        return "empty"


def _globals_read(code: CodeType) -> Iterator[str]:
    """Global names that code reads, and the functions within it."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_read(constant)


def _class(cls: type) -> list[Any]:
    source = _fixed_source(_module_of(cls))
    if source is not None:
        return [cls.__qualname__, source]
    own = {name: value for name, value in vars(cls).items() if name not in _OF_CLASSES}
    return [cls.__qualname__, cls.__bases__, own]
