"""Deliberate faults in what loads, hashes and remembers that which users bring.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

TESTS = ("tests/himoe_theory/plumbing", "tests/simulations/test_bring.py")

_LOADING = "himoe_theory/plumbing/loading.py"
_ORIGIN = "himoe_theory/plumbing/origin.py"
_BRING = "himoe_theory/plumbing/bring.py"

FAULTS = [
    (
        _LOADING,
        "all(folder.read(name) == content for name, content in found.files.items())",
        "folder.read(path.name) == found.files[path.name]",
        "a neighbour that has changed is not loaded again",
        "neighbours",
    ),
    (
        _LOADING,
        "        sys.modules.update(aside)",
        "        pass",
        "what the caller had imported is lost",
        "stays_behind",
    ),
    (
        _LOADING,
        "if parts[0] in OURS or parts[0] in sys.stdlib_module_names:",
        "if parts[0] in OURS:",
        "a neighbour stands in for Python's own module",
        "stands_in",
    ),
    (
        _ORIGIN,
        "bound = [function.__qualname__, function.__defaults__, function.__kwdefaults__, cells]",
        "bound = [function.__qualname__, function.__defaults__, function.__kwdefaults__]",
        "what a function closes over does not count",
        "redefined and closure",
    ),
    (
        _ORIGIN,
        "return [*bound, function.__code__, {name: function.__globals__[name] for name in names}]",
        "return [*bound, function.__code__]",
        "global names that a function reads do not count",
        "redefined and global",
    ),
    (
        _ORIGIN,
        '*(sorted(hashes) if kind in ("set", "dict") else hashes)',
        "*sorted(hashes)",
        "the order of a tuple does not count",
        "redefined and order",
    ),
    (
        _BRING,
        "    if text in ours or len(offered) > 1:",
        "    if len(offered) > 1:",
        "a package takes the place of one of ours",
        "two_offer",
    ),
    (
        "simulations/sweep/store.py",
        'return {"sources": _sources()} | versions() | design.hashes_brought()',
        'return {"sources": _sources()} | versions()',
        "a store is resumed after what a user brought has changed",
        "sweep_of_what",
    ),
    (
        "simulations/training.py",
        "hashes = (*sorted(of_arms), *brought.key(one.layer))",
        "hashes = ()",
        "what is redefined in place is not compiled anew",
        "compiled_anew",
    ),
    (
        "simulations/provenance.py",
        'found |= {"brought": users} if users else {}',
        "pass",
        "the functions of objectives are not in the configuration",
        "lists_what or language_model",
    ),
    (
        "simulations/fields/command.py",
        "for name, package in offered(OBJECTIVE).items()",
        "for name, package in ()",
        "packages are not listed",
        "packages_offer_is",
    ),
]
