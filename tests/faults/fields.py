"""Deliberate faults in the fields of designs and commands, and in what is shown of sweeps.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

TESTS = ("tests/simulations/fields", "tests/simulations/sweep/test_show.py")

_TYPES = "simulations/fields/types.py"
_KNOWN = "simulations/fields/known.py"
_BUILD = "simulations/fields/build.py"
_ASSIGN = "simulations/fields/assign.py"
_PARTS = "simulations/fields/parts.py"
_SHOW = "simulations/sweep/show.py"

FAULTS = [
    (
        _KNOWN,
        '    return typed(f"`{name}` in {where}", fields[name], value)\n',
        "    return value\n",
        "no type is asked for",
        "wrong_assignment or do_not_fit",
    ),
    (
        _TYPES,
        "elif hint in (int, bool, str) and type(value) is hint:",
        "elif hint in (int, bool, str):",
        "true is a whole number",
        "wrong_assignment",
    ),
    (
        _TYPES,
        "            if len(of) == len(value):\n",
        "            if True:\n",
        "a list of any length",
        "wrong_assignment",
    ),
    (
        _TYPES,
        "if isinstance(value, str) and value in arguments:",
        "if isinstance(value, str):",
        "any kind of part",
        "wrong_assignment",
    ),
    (_BUILD, "        if field not in own:\n", "        if False:\n", "a field of another kind of data", "data_lacks"),
    (
        _BUILD,
        'found[each] = typed(f"`{field}` of {name!r}", own[field], value)',
        "found[each] = value",
        "a value that another kind takes",
        "do_not_fit",
    ),
    (
        _ASSIGN,
        "    if len(read) != 1:  # of several lines",
        "    if False:",
        "a second line is a field",
        "second_line or any_text",
    ),
    (_ASSIGN, "        if field in sets:\n", "        if False:\n", "a field is given twice", "given_twice"),
    (_ASSIGN, '    if "arm" in sets:\n', "    if False:\n", "an arm by --set is lost", "given_twice"),
    (_PARTS, "        if field not in fields:\n", "        if False:\n", "a number that the part lacks", "do_not_fit"),
    (_PARTS, "    if lacking:\n", "    if False:\n", "a part without its number", "do_not_fit"),
    (
        _SHOW,
        "in zip(values, good, strict=True) if kept.any()]",
        "in zip(values, good, strict=True) if kept.all()]",
        "a seed of which one run diverged does not count",
        "some_runs",
    ),
    (_SHOW, "good = stored & (codes != Regime.DIVERGED)", "good = stored", "diverged runs are averaged", "diverged"),
]
