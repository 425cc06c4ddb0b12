"""Deliberate faults in how files are written and read, and in what commands say.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

TESTS = ("tests/himoe_theory/plumbing/test_files.py", "tests/simulations/test_store.py")

_FILES = "himoe_theory/plumbing/files.py"
_COMMANDS = "himoe_theory/plumbing/commands.py"
_STORE = "simulations/store.py"

FAULTS = [
    (_FILES, "_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW |", "_NEW = os.O_CREAT |", "a taken name", "taken"),
    (_FILES, "mode = os.lstat(path).st_mode", "mode = os.stat(path).st_mode", "links are followed", "links"),
    (
        _FILES,
        "    if not stat.S_ISREG(mode):\n        raise",
        "    if stat.S_ISLNK(mode):\n        raise",
        "a device is written to",
        "no_regular_file",
    ),
    (
        _FILES,
        "            check(path, replace=replace)  # others may have written meanwhile",
        "            pass",
        "what came meanwhile is replaced",
        "while_a_file",
    ),
    (_FILES, "        os.fchmod(handle, mode)", "        pass", "the mode of a library's own file", "modes"),
    (_FILES, "    if not replace:\n", "    if False:\n", "a file that is there is replaced", "replacing"),
    (
        _FILES,
        "            if not stat.S_ISREG(mode):",
        "            if stat.S_ISDIR(mode):",
        "a device is read",
        "never_end",
    ),
    (_FILES, "if _LEFT.fullmatch(name):", "if _LEFT.search(name):", "others' files are removed", "killed_writers"),
    (_FILES, "c if c.isprintable() else", "c if True else", "names of files break the line", "end_with_one_line"),
    (_COMMANDS, 'first += f"; perhaps', 'first = f"; perhaps', "what was wrong is not said", "at_length"),
    (_COMMANDS, "        raise\n    return found", "    return found", "help goes on", "left_alone"),
    (
        _STORE,
        "if hashlib.sha256(content).hexdigest().encode() != found[1]:",
        "if False:",
        "no hash is compared",
        "flipped",
    ),
]
