"""Python files that a user names, each loaded once for its content, together with the modules beside it that it
imports.

A file is loaded into a package of its own, `himoe_brought_<hash>`: two versions of it, or two files of one name, never
meet in `sys.modules`. While it loads, what stands beside it can be imported, as `import helper` or `from . import
helper`; both give one module of that package. The bytes that are compiled are the bytes that are hashed; nothing is
written, and no compiled file of Python's is read. Imports stand at the top of the file: later ones find no neighbours.
"""

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType

PREFIX = "himoe_brought_"
OURS = ("himoe_theory", "simulations", "proofs_checks", "paper_figures")
"""Packages of this project: never a file's neighbours, even where it stands in the folder that holds them."""

_lock = threading.RLock()  # loading changes the tables of Python's import system
_loaded: list["Loaded"] = []


class Loaded:
    """A file that has been loaded. `files`: its content and that of the neighbours that it imported, by name in its
    folder; the first is the file itself."""

    def __init__(self, path: Path, module: ModuleType, files: Mapping[str, bytes]):
        self.path, self.module = path, module
        self.files = MappingProxyType(dict(files))

    @property
    def sha256(self) -> str:
        """Of all the files, with their names."""
        return digest(self.files)


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in the order of names."""
    found = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()


def load(path: Path, files: Mapping[str, bytes] | None = None) -> Loaded:
    """The file's module; the same one as long as neither the file nor an imported neighbour has changed.

    **Arguments:** `files`: the content, as `Loaded.files` has it, where the file itself is not at hand.
    **Raises:** `ValueError` in one line: no such file, or what it raised and in which line.
    """
    path = Path(os.path.abspath(path))
    folder = _Folder(path.parent, files)
    if folder.read(path.name) is None:
        raise ValueError(f"`{path}` must be a Python file that can be read; there is none.")
    with _lock:
        for found in reversed(_loaded):
            if found.path == path and all(folder.read(name) == content for name, content in found.files.items()):
                return found
        found = _load(path, folder)
        _loaded.append(found)
        return found


def loaded_as(module: str) -> Loaded | None:
    """The file that a module, named as Python names it, was loaded from or for; `None` if it was not loaded here."""
    package = module.partition(".")[0]
    if not package.startswith(PREFIX):
        return None
    return next((each for each in _loaded if each.module.__name__.partition(".")[0] == package), None)


class _Folder:
    """The files of a folder: those on the disk, or those given."""

    def __init__(self, path: Path, given: Mapping[str, bytes] | None):
        self.path, self._given = path, given

    def read(self, name: str) -> bytes | None:
        """`None` if there is no such file."""
        if self._given is not None:
            return self._given.get(name)
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def file_of(self, module: str) -> str | None:
        """The file of a module, named as an import names it; `None` if it is not in this folder."""
        parts = module.split(".")
        if parts[0] in OURS or parts[0] in sys.stdlib_module_names:
            return None
        for name in ("/".join([*parts, "__init__.py"]), "/".join(parts) + ".py"):
            if name in self._given if self._given is not None else (self.path / name).is_file():
                return name
        return None


class _Loader(importlib.abc.Loader):
    """Runs a file's content, and remembers it."""

    def __init__(self, folder: _Folder, name: str, read: dict[str, bytes]):
        self._folder, self._name, self._read = folder, name, read

    def exec_module(self, module: ModuleType) -> None:
        content = self._folder.read(self._name)
        if content is None:
            raise ImportError(f"{self._name} is gone")
        self._read[self._name] = content
        code: CodeType = compile(content, str(self._folder.path / self._name), "exec", dont_inherit=True)
        exec(code, module.__dict__)


class _SecondName(importlib.abc.Loader):
    """Gives `helper` the module that the package holds under its full name."""

    def __init__(self, full: str):
        self._full = full

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._full)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # which the import system has replaced by that of the second name


class _Finder(importlib.abc.MetaPathFinder):
    """Finds a file and its neighbours while the file loads."""

    def __init__(self, package: str, main: str, folder: _Folder):
        self._package, self._main, self._folder = package, main, folder
        self.read: dict[str, bytes] = {}
        self.second_names: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        inside = fullname.startswith(f"{self._package}.")
        name = fullname.removeprefix(f"{self._package}.")
        # The file's own name need not be one that can be imported.
        file = self._main if name == module_name(self._main) else self._folder.file_of(name)
        if file is None:
            return None
        is_package = file.endswith("/__init__.py")
        if not inside:
            self.second_names.append(fullname)
            full = f"{self._package}.{name}"
            return importlib.util.spec_from_loader(fullname, _SecondName(full), is_package=is_package)
        return importlib.util.spec_from_file_location(
            fullname,
            self._folder.path / file,
            loader=_Loader(self._folder, file, self.read),
            submodule_search_locations=[] if is_package else None,
        )


def module_name(file: str) -> str:
    """The last part of the module's name: the file's, with what Python does not allow in names replaced."""
    return re.sub(r"\W", "_", Path(file).stem)


def _load(path: Path, folder: _Folder) -> Loaded:
    package = _new_package(path, folder)
    finder = _Finder(package.__name__, path.name, folder)
    try:
        with _neighbours_first(finder, folder.path):
            module = importlib.import_module(f"{package.__name__}.{module_name(path.name)}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also of `sys.exit()`
        for name in [name for name in sys.modules if name.partition(".")[0] == package.__name__]:
            del sys.modules[name]
        raise ValueError(f"`{path}` must load; got {_in_one_line(error, path, finder.read)}.") from error
    return Loaded(path, module, {path.name: finder.read.pop(path.name), **finder.read})


def _new_package(path: Path, folder: _Folder) -> ModuleType:
    """Empty, named for the content of the file; a second one if a neighbour alone has changed."""
    content = folder.read(path.name) or b""
    first = PREFIX + digest({str(path): content})[:12]
    name, number = first, 1
    while name in sys.modules:
        number += 1
        name = f"{first}_{number}"
    package = ModuleType(name, f"What {path} was loaded into.")
    package.__path__ = []
    sys.modules[name] = package
    return package


@contextlib.contextmanager
def _neighbours_first(finder: _Finder, folder: Path) -> Generator[None]:
    """Within, `finder` is asked first, and neighbours that were imported by others are set aside."""
    aside = {name: module for name, module in sys.modules.items() if _stands_in(name, folder)}
    for name in aside:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.second_names:
            sys.modules.pop(name, None)
        sys.modules.update(aside)


def _stands_in(module: str, folder: Path) -> bool:
    """Whether the module, or the package that it belongs to, is a file of this folder."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None)
    if top in OURS or top in sys.stdlib_module_names or not isinstance(file, str):
        return False
    return os.path.abspath(file) in {str(folder / f"{top}.py"), str(folder / top / "__init__.py")}


def _in_one_line(error: BaseException, main: Path, read: Mapping[str, bytes]) -> str:
    """What a file raised, and in which line of it or of a neighbour."""
    text = (str(error).splitlines() or [""])[0]
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        text = error.msg
        frames.append((error.filename, error.lineno))
    names = {str(main.parent / name): name for name in read}
    places = [(names[file], line) for file, line in frames if file in names]
    at = ""
    if places:
        file, line = places[-1]
        at = f" (line {line})" if file == main.name else f" ({file}, line {line})"
    return f"{type(error).__name__}{f': {text}' if text else ''}{at}"
