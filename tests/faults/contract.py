"""Deliberate faults in the contract of objectives and routers: what is wrong would pass.

(file, text that occurs once in it, what replaces the text, what is then wrong, the tests that are enough).
"""

TESTS = [
    "tests/himoe_theory/contract/test_objectives.py",
    "tests/himoe_theory/contract/test_routers.py",
    "tests/himoe_theory/contract/test_measured.py",
]

_OBJECTIVE = "himoe_theory/contract/objective.py"
_ROUTER = "himoe_theory/contract/router.py"
_LOADS = "himoe_theory/contract/loads.py"

FAULTS = [
    (
        _OBJECTIVE,
        "return difference(found.gradient, found.autodiff, allowed=EXACT)",
        "return difference(found.gradient, found.gradient, allowed=EXACT)",
        "a gradient is compared with itself",
        "fails_its_property_alone and purity",
    ),
    (
        _OBJECTIVE,
        "after, before = both(some)\n        added",
        "before, after = both(some)\n        added",
        "values before and after exchanged",
        "fails_its_property_alone and logit",
    ),
    (
        _OBJECTIVE,
        "return np.max([difference(after.value, alone.value, allowed=EXACT), inside, outside], axis=0)",
        "return np.min([difference(after.value, alone.value, allowed=EXACT), inside, outside], axis=0)",
        "the least of three differences counts",
        "fails_its_property_alone and unmasked",
    ),
    (
        "himoe_theory/contract/examine.py",
        "score = np.where(np.isnan(excess), np.inf, excess)",
        "score = np.where(np.isnan(excess), 0, excess)",
        "what is no number passes",
        "no_number",
    ),
    (
        "himoe_theory/contract/measured.py",
        "np.maximum((claim[0] - value) / slack[0], (value - claim[1]) / slack[1])",
        "np.minimum((claim[0] - value) / slack[0], (value - claim[1]) / slack[1])",
        "a bound is exceeded only if both are",
        "fails_its_property_alone and purity",
    ),
    (
        "himoe_theory/contract/rates.py",
        "balance = -coefficient * other",
        "balance = coefficient * other",
        "sign of the critical coefficient",
        "rates",
    ),
    (
        "himoe_theory/contract/rates.py",
        "return -at.shape[0] * objective",
        "return -objective",
        "rates carry 1/T",
        "rates",
    ),
    (
        "himoe_theory/contract/angles.py",
        "(dimension - 1) / 2, 0.95",
        "(dimension - 1) / 2, 0.5",
        "chance is the median",
        "chance",
    ),
    (
        _ROUTER,
        "return run(some), run(some._replace(logits=np.where(stay[:, None], some.logits, other)))",
        "return run(some), run(some)",
        "no other tokens",
        "later_token",
    ),
    (
        _ROUTER,
        "equal & pair & ~chosen[..., :, None] & chosen[..., None, :]",
        "equal & pair & chosen[..., :, None] & ~chosen[..., None, :]",
        "the higher number is wanted first",
        "fails_its_property and ties",
    ),
    (
        _LOADS,
        "bad = [((load < least) | (load > most)).any(axis=1)",
        "bad = [((load < least) & (load > most)).any(axis=1)",
        "no load is wrong",
        "fails_its_property and quotas",
    ),
]
