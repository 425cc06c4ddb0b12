"""Deliberate faults in the names of runs.

(file, text that occurs once in it, what replaces the text, what is then wrong).
"""

_REGIMES, _PARTNERS = "simulations/regimes.py", "simulations/partners.py"
_RECORD, _TRAINING = "simulations/record.py", "simulations/training.py"
TESTS = (
    "tests/simulations/test_regimes.py",
    "tests/simulations/test_record.py",
    "tests/simulations/sweep/test_plan.py",
)

FAULTS = [
    (_REGIMES, "(frozen - error) / scale", "(frozen - error) / frozen", "gain against no planted gate", "gain"),
    (_REGIMES, "np.maximum(frozen - planted,", "np.minimum(frozen - planted,", "the gap shrinks", "gain"),
    (_REGIMES, "(information >= at.informed)", "(information >= 0)", "labels are not asked for", "thresholds"),
    (_REGIMES, "code[diverged] = Regime.DIVERGED", "pass", "a diverged run is not judged", "thresholds"),
    (_REGIMES, "return router.least_routes ==", "return router.routes ==", "thinned is dense", "thins"),
    (_REGIMES, "lopsided & (taken(before, after)", "lopsided & (taken(0 * before, after)", "as drawn", "balance"),
    (_REGIMES, "redundant & (taken(first", "redundant | (taken(first", "redundant from the start", "balance"),
    (_REGIMES, "_routes(final, router), tokens)", "_routes(final, router), 1)", "floor of one token", "floor"),
    (_PARTNERS, "np.min([of(place)", "np.max([of(place)", "the worse frozen partner", "one_target"),
    (_PARTNERS, "if not _sums_to_one(arm.router)", "if False", "weighing more is learning", "sum_to_one"),
    (_PARTNERS, "    taken.add(name)\n", "", "two partners of one name", "short_names"),
    (
        _RECORD,
        "(hard_table, least_routes)",
        "(hard_table, 1)",
        "a selection could hold as much as one choice",
        "probabilities_can_hold",
    ),
    (
        _RECORD,
        "(soft_table, 1)",
        "(soft_table, least_routes)",
        "probabilities are held to the routes",
        "probabilities_can_hold",
    ),
    (
        _TRAINING,
        "jnp.float32(settings.router.least_routes)",
        "jnp.float32(1)",
        "routes are not counted",
        "routes_can_hold",
    ),
]
