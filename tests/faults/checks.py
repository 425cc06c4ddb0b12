"""Deliberate faults in the checks at the boundary.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

TESTS = ["tests/himoe_theory/test_bad_input.py"]

_CHECKS = "himoe_theory/_checks.py"

FAULTS = [
    (
        _CHECKS,
        "bad = ~np.isfinite(np.asarray(x, dtype=np.float64))",
        "bad = np.isnan(np.asarray(x, dtype=np.float64))",
        "infinite logits accepted",
    ),
    (
        _CHECKS,
        "np.argwhere(bad)[0])\n            raise",
        "np.argwhere(~bad)[0])\n            raise",
        "the wrong place named",
    ),
    (_CHECKS, "if size == 0:", "if size < 0:", "no tokens accepted"),
    (
        _CHECKS,
        "np.isfinite(entries) & (entries >= minimum)",
        "(entries >= minimum)",
        "an infinite coefficient accepted",
    ),
    (
        _CHECKS,
        "good = np.isfinite(entries) & (entries > 0)",
        "good = np.isfinite(entries) & (entries >= 0)",
        "a temperature of 0 accepted",
    ),
    (_CHECKS, "if isinstance(value, bool) or not isinstance", "if not isinstance", "True counted as 1"),
    (
        _CHECKS,
        "    if value > maximum:",
        "    if value > maximum + 1:",
        "K one too large",
    ),
    (_CHECKS, "if x.shape != reference.shape:", "if x.ndim != reference.ndim:", "a mask of another size accepted"),
    (_CHECKS, "not isinstance(value, bool):  # fractions", "value is not None:  # fractions", "True as a rate"),
    (_CHECKS, "np.ma.MaskedArray | str | bytes | bool) and value", "str | bytes | bool) and value", "masked rates"),
    (_CHECKS, "ordered[:, 1:] == ordered[:, :-1]", "ordered[:, 1:] > ordered[:, 1:]", "an expert picked twice"),
    (_CHECKS, "maximum = LARGEST if maximum is None", "maximum = value if maximum is None", "any size is a count"),
    (
        "himoe_theory/partition.py",
        "whole = all(isinstance(g, (int, np.integer)) and not isinstance(g, bool) for g in entries)",
        "whole = all(isinstance(g, (int, np.integer)) for g in entries)",
        "bool partition entries accepted",
    ),
]
