"""The hash of what defines an object: equal for equal definitions in any process, another for any other."""

import functools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import objectives
from himoe_theory.plumbing.loading import load
from himoe_theory.plumbing.origin import is_ours, origin

_FIELDS = "import dataclasses\n@dataclasses.dataclass\nclass f:\n    c: float = "


def typed_in(text: str, **names: Any) -> Any:
    """`f` of a piece of code, as a notebook would define it: in no file."""
    space = {"__name__": "__main__"} | names
    exec(text, space)
    return space["f"]


def sha(thing: Any) -> str:
    return origin(thing).sha256


PAIRS = {
    "constant": ("f = lambda r: 1 * r", "f = lambda r: 100 * r"),
    "operation": ("f = lambda r: r + r", "f = lambda r: r * r"),
    "attribute": ("f = lambda r: r.probs", "f = lambda r: r.logits"),
    "default": ("def f(r, c=1): return c * r", "def f(r, c=2): return c * r"),
    "keyword": ("def f(r, *, c=1): return c * r", "def f(r, *, c=2): return c * r"),
    "closure": (
        "def g(c):\n    return lambda r: c * r\nf = g(1)",
        "def g(c):\n    return lambda r: c * r\nf = g(2)",
    ),
    "global": ("c = 1\nf = lambda r: c * r", "c = 2\nf = lambda r: c * r"),
    "function called": ("g = lambda r: r\nf = lambda r: g(r)", "g = lambda r: 2 * r\nf = lambda r: g(r)"),
    "global of an inner function": (
        "c = 1\ndef f(r):\n    return [c * x for x in r]",
        "c = 2\ndef f(r):\n    return [c * x for x in r]",
    ),
    "partial": (
        "import functools\nf = functools.partial(lambda r, c: c * r, c=1)",
        "import functools\nf = functools.partial(lambda r, c: c * r, c=2)",
    ),
    "callable class": (
        "class F:\n    def __call__(self, r): return r\nf = F()",
        "class F:\n    def __call__(self, r): return 2 * r\nf = F()",
    ),
    "state": (
        "class F:\n    def __init__(self, c): self.c = c\n    def __call__(self, r): return self.c * r\nf = F(1)",
        "class F:\n    def __init__(self, c): self.c = c\n    def __call__(self, r): return self.c * r\nf = F(2)",
    ),
    "bound method": (
        "class F:\n    c = 1\n    def m(self, r): return self.c * r\nf = F().m",
        "class F:\n    c = 2\n    def m(self, r): return self.c * r\nf = F().m",
    ),
    "property": (
        "class f:\n    @property\n    def c(self): return 1",
        "class f:\n    @property\n    def c(self): return 2",
    ),
    "base": (
        "class A:\n    c = 1\nclass f(A): pass",
        "class A:\n    c = 2\nclass f(A): pass",
    ),
    "default of a field": (f"{_FIELDS}1.0", f"{_FIELDS}2.0"),
    "array": ("import numpy as np\nf = [np.zeros(3)]", "import numpy as np\nf = [np.zeros(3, np.float32)]"),
    "decorated": (
        "import jax\nf = jax.jit(lambda r: r)",
        "import jax\nf = jax.jit(lambda r: 2 * r)",
    ),
    "slots": (
        "class F:\n    __slots__ = ('c',)\nf = F()\nf.c = 1",
        "class F:\n    __slots__ = ('c',)\nf = F()\nf.c = 2",
    ),
    "type": ("f = [1]", "f = [True]"),
    "order": ("f = (1, 2)", "f = (2, 1)"),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_is_redefined_has_another_hash(pair: tuple[str, str]):
    first, again, second = typed_in(pair[0]), typed_in(pair[0]), typed_in(pair[1])
    assert sha(first) == sha(again)
    assert sha(first) != sha(second)


def test_where_it_is_written_does_not_count():
    assert sha(typed_in("f = lambda r: r + 1")) == sha(typed_in("\n\n# a remark\nf = (lambda r:\n    r + 1)"))


def test_two_functions_of_one_line_are_two():
    """Their source, as Python finds it, is one line."""
    first, second = [lambda r: 1 * r, lambda r: 100 * r]
    assert sha(first) != sha(second)


def test_recursion_ends():
    text = "def f(n): return g(n)\ndef g(n): return f(n) + {}"
    one, two = typed_in(text.format(1)), typed_in(text.format(2))
    assert sha(one) != sha(two)
    ring: list[Any] = [1]
    ring.append(ring)
    assert sha(ring) != sha([1, [1]])


def test_unordered_things_have_no_order():
    assert sha({"a": 1, "b": 2}) == sha({"b": 2, "a": 1})
    assert sha({"a": 1, "b": 2}) != sha({"a": 2, "b": 1})
    assert sha({f"{n}" for n in range(50)}) == sha({f"{n}" for n in reversed(range(50))})


def test_equal_parts_may_be_one():
    part = (1, "x")
    assert sha([part, part]) == sha([(1, "x"), tuple([1, "x"])])


@pytest.mark.parametrize("array", [np.arange(3), jnp.arange(3), np.float32(1), np.array(["a", None], object)])
def test_arrays_count_by_their_values(array: Any):
    assert sha(array) == sha(array.copy())
    assert sha(array) != sha(np.asarray(array)[..., None])


def test_a_file_counts_as_a_whole_with_its_neighbours(tmp_path: Path):
    path = tmp_path / "mine.py"
    (tmp_path / "helper.py").write_text("c = 1\nclass H: pass")
    path.write_text("import helper\ndef f(r): return helper.c * r\ndef make(c):\n    return lambda r: c * r")
    first = load(path)
    (tmp_path / "helper.py").write_text("c = 2\nclass H: pass")
    second = load(path)
    assert sha(first.module.f) != sha(second.module.f)
    assert sha(first.module.helper.H()) != sha(second.module.helper.H())
    assert sha(second.module.make(1)) != sha(second.module.make(2))
    found = origin(second.module.f)
    assert (found.name, found.file) == ("f", str(path))
    assert origin(second.module.helper.H()).file == str(path)


def test_hashes_and_names_are_the_same_in_every_process(tmp_path: Path):
    """Whatever Python adds to the hash of a string; and what is typed in has no file."""
    text = 'c = {"a": {"x", "y", "z"}}\nimport numpy as np\nf = lambda r: (np.sum(r), c, frozenset({"p", "q", "s"}))'
    path = tmp_path / "mine.py"
    path.write_text("import helper")
    (tmp_path / "helper.py").write_text("x = 1")
    script = (
        "from himoe_theory.plumbing.loading import load\nfrom himoe_theory.plumbing.origin import origin\n"
        f"exec({text!r})\nloaded = load({str(path)!r})\n"
        "print(origin(f).sha256, origin(f).file, loaded.module.__name__, loaded.sha256)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = load(path)
    assert done.stdout.split() == [sha(typed_in(text)), "None", found.module.__name__, found.sha256]


def test_ours_counts_by_its_name():
    """The project's own sources are hashed as a whole elsewhere."""
    assert is_ours(objectives.load)
    assert is_ours(functools.partial(objectives.load, 1))
    assert is_ours(1.0)
    assert not is_ours(typed_in("f = lambda r: r"))
    assert not is_ours(typed_in("class F: pass\nf = F()"))
    assert not is_ours(jax.jit(lambda r: r))
    nameless: dict[str, Any] = {}
    exec("class F: pass\nf = lambda r: r", nameless)
    assert not is_ours(nameless["F"]())
    assert not is_ours(nameless["f"])
    assert is_ours(type(lambda: None))
    assert sha(objectives.load) != sha(objectives.z)


def test_a_decorator_does_not_hide_the_function():
    """`functools.wraps` gives it the name and module of another."""
    one, two = (functools.wraps(objectives.load)(typed_in(f"f = lambda r: {c} * r")) for c in (1, 2))
    assert not is_ours(one)
    assert sha(one) != sha(two)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"`f` must be made of what can be told apart by its values; got a lock in it"):
        origin(typed_in("def f(r):\n    with lock: return r", lock=threading.Lock()))
