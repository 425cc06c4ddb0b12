"""Bad input is refused by one line that names the argument, the rule and the values."""

import inspect
import math
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import (
    Capacity,
    GroupedTopK,
    KeepAbove,
    KeepRandomly,
    LogitAverage,
    Partition,
    Renormalised,
    Router,
    SelectionBias,
    TopK,
    _checks,
    routers,
)
from himoe_theory import objectives as obj

from .strategies import EXPERTS, LOGITS, OUTPUTS, PARTITIONS, TOKENS

# The annotations would refuse a wrong rank before the library sees it; users have no such hook.
pytestmark = pytest.mark.usefixtures("unchecked")

WRONG_SIZE = Partition.equal(8, 4)


def refuses(call, *, match):
    """`ValueError` with a matching message of a single line."""
    with pytest.raises(ValueError, match=match) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")


# Every public function of arrays in `objectives`, found by introspection; `scopes` reads routings

GOOD = {
    "logits": LOGITS,
    "selected": LOGITS > 0,
    "experts": np.array([[3, 0, 1], [1, 4, 3], [2, 3, 4], [0, 5, 1]], np.int32),
    "partition": PARTITIONS["interleaved"],
    "share": np.linspace(0.1, 0.6, EXPERTS),
    "noise": np.sin(LOGITS),
    "k": 2,
    "routes": 2,
    "noise_std": 1.0,
    "epsilon": 0.1,
    "amounts": np.arange(1.0, 4.0),
    "outputs": OUTPUTS,
    "mask": None,
}
FUNCTIONS = {
    name: value
    for name, value in vars(obj).items()
    if inspect.isfunction(value) and not name.startswith("_") and not value.__module__.endswith(".scopes")
}


def _put(array, value):
    changed = np.array(array, dtype=float)
    changed.flat[4 % changed.size] = value
    return changed


def _finite_floating(name, value):
    """What is wrong with a floating array, whatever it holds."""
    axes = {1: r"\(experts\)", 2: r"\(tokens, experts\)", 3: r"\(tokens, routes, dim\)"}[value.ndim]
    shape = re.escape(str(value.shape[1:]))
    place = re.escape(str(tuple(int(i) for i in np.unravel_index(4 % value.size, value.shape))))
    first_axis = {"logits": "tokens", "noise": "tokens", "outputs": "tokens"}.get(name, "experts")
    return {
        "rank": (value[0], rf"`{name}` must have axes {axes}; got shape {shape}"),
        "empty": (value[:0], rf"`{name}` must have at least one of its {first_axis}; got shape \(0,"),
        "integer": (np.ones(value.shape, np.int32), rf"`{name}` must be floating; got dtype int32"),
        "nan": (_put(value, math.nan), rf"`{name}` must be finite; 1 of {value.size} are not, the first at {place}"),
        "infinite": (_put(value, -math.inf), rf"`{name}` must be finite; 1 of {value.size} are not"),
    }


BAD = {
    **{name: _finite_floating(name, GOOD[name]) for name in ("logits", "share", "noise", "amounts", "outputs")},
    "selected": {
        "shape": (GOOD["selected"][:, :5], r"`selected` must have the shape of `logits`, \(4, 6\); got \(4, 5\)"),
        "rank": (GOOD["selected"][0], r"`selected` must have the shape of `logits`, \(4, 6\); got \(6,\)"),
        "type": (GOOD["selected"].astype(float), "`selected` must be boolean; got dtype float64"),
    },
    "experts": {
        "rank": (GOOD["experts"][0], r"`experts` must have .*; got (shape )?\(3,\)"),
        "tokens": (GOOD["experts"][:3], r"`experts` must have .*4.*; got (shape )?\(3, 3\)"),
        "type": (GOOD["experts"].astype(float), "`experts` must be whole numbers; got dtype float64"),
    },
    "mask": {},  # see test_objectives_masks
    "partition": {"size": (WRONG_SIZE, "partition has 8 experts, `logits` has 6")},
    "k": {
        "zero": (0, "`k` must be at least 1; got 0"),
        "all": (EXPERTS, r"`k` must be at most 5 \(one less than the experts\); got 6"),
        "fraction": (1.5, "`k` must be a whole number; got 1.5"),
        "bool": (True, "`k` must be a whole number; got True"),
    },
    "routes": {
        "zero": (0, "`routes` must be at least 1; got 0"),
        "too many": (EXPERTS + 1, r"`routes` must be at most 6 \(the experts\); got 7"),
        "fraction": (1.5, "`routes` must be a whole number; got 1.5"),
        "bool": (True, "`routes` must be a whole number; got True"),
    },
    "noise_std": {
        "zero": (0.0, "`noise_std` must be above 0; got 0"),
        "negative": (-2.0, "`noise_std` must be above 0; got -2"),
        "nan": (math.nan, "`noise_std` must be finite and above 0; got nan"),
    },
    "epsilon": {
        "negative": (-1e-3, "`epsilon` must be finite and at least 0; got -0.001"),
        "infinite": (math.inf, "`epsilon` must be finite and at least 0; got inf"),
    },
}
BAD["share"] |= {
    "size": (np.ones(5), "`share` must have one entry an expert; got 5 for 6 experts"),
    "negative": (_put(GOOD["share"], -0.25), r"`share` must be finite and at least 0; got -0.25 at \(4,\)"),
}
BAD["amounts"]["negative"] = (np.array([1.0, -2.0]), r"`amounts` must be finite and at least 0; got -2 at \(1,\)")
BAD["noise"]["shape"] = (np.ones((4, 5)), r"`noise` must have the shape of `logits`, \(4, 6\); got \(4, 5\)")

CASES = [
    pytest.param(function, argument, bad, match, id=f"{name}-{argument}-{kind}")
    for name, function in FUNCTIONS.items()
    for argument in inspect.signature(function).parameters
    for kind, (bad, match) in BAD[argument].items()
]


def _call(function, **changed):
    arguments = {name: GOOD[name] for name in inspect.signature(function).parameters} | changed
    return function(**{k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()})


def test_the_catalogue_is_covered():
    """Every value has its gradient, but for the two that are parts of others; all are finite for good arguments."""
    assert len(FUNCTIONS) >= 45
    found = jax.jit(lambda: {name: _call(function) for name, function in FUNCTIONS.items()})()  # one program: quicker
    for name, value in found.items():
        assert np.isfinite(value).all(), name
    gradients = {name for name in FUNCTIONS if name.endswith("_grad")}
    values = {name.removesuffix("_grad") for name in gradients} | {"cv_squared", "dispatch_share"}
    assert values | gradients == set(FUNCTIONS)


@pytest.mark.parametrize(("function", "argument", "bad", "match"), CASES)
def test_objectives_refuse(function, argument, bad, match):
    refuses(lambda: _call(function, **{argument: bad}), match=match)


def test_first_choices_outside_the_experts():
    for bad, got in ((-1, r"-1\.\.5"), (6, r"0\.\.6")):
        experts = GOOD["experts"].copy()
        experts[2, 2] = bad
        match = rf"`experts` must be in 0\.\.5; got {got}"
        refuses(lambda e=experts: _call(obj.load_first_choice, experts=e), match=match)


def test_variance_across_one_expert():
    for function in (obj.variance_across_experts, obj.variance_across_experts_grad):
        refuses(
            lambda f=function: f(jnp.zeros((3, 1))),
            match="`logits` must have at least 2 experts for a variance across them; got 1",
        )


# Partitions

NOT_GROUPS = [
    ((), r"\(\)"),
    ((0, 2), r"\(0, 2\)"),  # a gap: group 1 is empty
    ((1, 1, 2), r"\(1, 1, 2\)"),
    ((0, -1), r"\(0, -1\)"),
    ((0, 1.0), r"\(0, 1.0\)"),
    ((0, True), r"\(0, True\)"),
    ((False, True), r"\(False, True\)"),
    ((0, "1"), r"\(0, '1'\)"),
    ((0, None), r"\(0, None\)"),
]


@pytest.mark.parametrize(("entries", "shown"), NOT_GROUPS, ids=str)
def test_partition_refuses(entries, shown):
    refuses(
        lambda: Partition(entries),
        match=rf"`group_of` must use each group 0\.\.M-1 at least once; got group_of={shown}",
    )


@pytest.mark.parametrize(
    ("experts", "groups", "match"),
    [
        (0, 1, "`num_experts` must be at least 1; got 0"),
        (6, 0, "`num_groups` must be at least 1; got 0"),
        (6, 8, r"`num_groups` must be at most 6 \(num_experts\); got 8"),
        (6, 4, "`num_groups` must divide `num_experts`; got 6 experts, 4 groups"),
        (6.0, 2, "`num_experts` must be a whole number; got 6.0"),
        (6, True, "`num_groups` must be a whole number; got True"),
    ],
)
def test_equal_partition_refuses(experts, groups, match):
    refuses(lambda: Partition.equal(experts, groups), match=match)


@pytest.mark.parametrize(("method", "of"), [("sum", "6 experts"), ("max", "6 experts"), ("spread", "3 groups")])
def test_partition_refuses_values_of_another_size(method, of):
    function = getattr(PARTITIONS["equal"], method)
    refuses(lambda: function(jnp.ones((2, 5))), match=f"partition has {of}, `values` has 5")
    refuses(lambda: function(jnp.ones(())), match=r"`values` must have at least one axis; got shape \(\)")


# Selection, capacity, policies, weights, controllers: refused when built

GROUPS = Partition((0, 0, 0, 1, 1, 2))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: routers.gshard(6, 7), r"`k` must be at most 6 \(the number of experts\); got 7"),
        (lambda: routers.gshard(6, 0), "`k` must be at least 1; got 0"),
        (lambda: routers.gshard(6, 2.0), "`k` must be a whole number; got 2.0"),
        (lambda: routers.gshard(0, 1), "`num_experts` must be at least 1; got 0"),
        (lambda: routers.gshard(8, 2, partition=GROUPS), "`num_experts` must be that of `partition`, 6; got 8"),
        (lambda: routers.loss_free(8, 2, partition=GROUPS), "`num_experts` must be that of `partition`, 6; got 8"),
        (lambda: routers.moge(GROUPS, 2), r"`per_group\[2\]` must be at most 1 \(the group's size\); got 2"),
        (lambda: routers.moge(GROUPS, (1, 3, 1)), r"`per_group\[1\]` must be at most 2 \(the group's size\); got 3"),
        (lambda: routers.moge(GROUPS, (1, 0, 1)), r"`per_group\[1\]` must be at least 1; got 0"),
        (lambda: routers.moge(GROUPS, (1, 1)), "`per_group` must have one entry a group; got 2 for 3"),
        (lambda: routers.moge(GROUPS, [1, 1, 1]), r"`per_group\[0\]` must be a whole number; got \[1, 1, 1\]"),
        (lambda: Router("x", GROUPS, GroupedTopK(True), "himoe"), r"`per_group\[0\]` must be a whole number; got True"),
        (lambda: Router("x", GROUPS, TopK(-1), "himoe"), "`k` must be at least 1; got -1"),
        (lambda: Capacity(-0.5), "`factor` must be finite and at least 0; got -0.5"),
        (lambda: Capacity(math.nan), "`factor` must be finite and at least 0; got nan"),
        (lambda: Capacity(1.0, minimum=0), "`minimum` must be at least 1; got 0"),
        (lambda: KeepAbove(1.5), r"`threshold` must be finite and in \[0, 1\]; got 1.5"),
        (lambda: KeepRandomly(-0.1), "`threshold` must be above 0; got -0.1"),
        (lambda: KeepRandomly(0.0), "`threshold` must be above 0; got 0"),
        (lambda: Renormalised(-1e-9), "`epsilon` must be finite and at least 0; got -1e-09"),
        (lambda: LogitAverage(-0.1, 0.9), "`tau` must be finite and at least 0; got -0.1"),
        (lambda: LogitAverage(math.inf, 0.9), "`tau` must be finite and at least 0; got inf"),
        (lambda: LogitAverage(0.1, 1.01), r"`beta` must be finite and in \[0, 1\]; got 1.01"),
        (lambda: LogitAverage(0.1, 0.9, 0.0), "`temperature` must be above 0; got 0"),
        (lambda: LogitAverage(0.1, 0.9, -1.0), "`temperature` must be above 0; got -1"),
        (lambda: LogitAverage(jnp.array([0.1, -0.2]), 0.9), r"`tau` must be finite and at least 0; got -0.2 at \(1,\)"),
        (lambda: SelectionBias(-0.001), "`rate` must be finite and at least 0; got -0.001"),
        (lambda: SelectionBias(math.nan), "`rate` must be finite and at least 0; got nan"),
    ],
)
def test_parts_of_a_router_refuse(build, match):
    refuses(build, match=match)


def test_many_bad_entries_are_one_line():
    """NumPy would break a long array over lines."""
    bad = jnp.asarray(np.linspace(-1.23456789e-5, -9.87654321e5, 40).reshape(4, 10))
    refuses(lambda: SelectionBias(bad), match=r"`rate` must be finite and at least 0; got -1.23457e-05 at \(0, 0\)")


# What is no number


@pytest.mark.parametrize("bad", ["0.1", b"1", None, True, np.array([True]), {}, [1.0, [2.0]], 1j, object(), len])
@pytest.mark.parametrize("check", [_checks.coefficient, _checks.positive, _checks.finite])
def test_coefficients_are_real_numbers(check, bad):
    refuses(lambda: check("rate", bad), match="`rate` must be a real number or an array of them; got ")


def test_real_numbers_of_every_kind_are_coefficients():
    for good in (1, 0.5, np.float32(0.5), np.int64(2), Fraction(1, 3), jnp.bfloat16(0.5), [0.5, 1], jnp.ones((2, 2))):
        _checks.coefficient("rate", good)
    for masked in (np.ma.array([1.0]), np.ma.array([1.0], mask=[True])):
        refuses(lambda x=masked: _checks.coefficient("rate", x), match="got masked array of float64")
    refuses(lambda: _checks.positive("rate", 10**400), match="`rate` .*; got a whole number of 1329 bits")
    refuses(lambda: _checks.count("k", 10**5000), match=f"at most {2**63 - 1}; got a whole number of 16610 bits")
    refuses(lambda: Capacity("1.25"), match="`factor` must be a real number or an array of them; got '1.25'")
    refuses(lambda: SelectionBias("0.1"), match="`rate` must be a real number or an array of them; got '0.1'")


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (None, "None"),
        ("abc", "'abc'"),
        ({}, r"\{\}, of type dict"),
        ([[1.0, 2.0], [3.0]], r"\[\[1.0, 2.0\], \[3.0\]\]"),
        (np.array([[None]]), "ndarray of object"),
        (np.array([["1"]]), "ndarray of <U1"),
        (np.ma.array([[1.0]], mask=[[True]]), "masked array of float64"),
        (10**400, "a whole number of 1329 bits"),
        ([[10**5000]], "an object of type list"),
        (len, "<built-in function len>, of type builtin_function_or_method"),
    ],
)
def test_what_is_no_array_is_named(bad, got):
    for check in (_checks.matrix, lambda n, x: _checks.same_shape(n, x, "y", jnp.ones(2))):
        refuses(lambda c=check: c("x", bad), match=f"`x` must be an array of numbers, full and not masked; got {got}")
    refuses(lambda: _checks.chosen("x", bad, 1, 4), match="`x` must be an array of numbers")


def test_picks_are_distinct():
    _checks.chosen("experts", jnp.array([[3, 0], [0, 3]]), 2, 4)
    refuses(
        lambda: _checks.chosen("experts", jnp.array([[0, 3, 1], [3, 0, 3]]), 2, 4),
        match="`experts` must be distinct in each row; row 1 has 3 twice",
    )
    refuses(lambda: _checks.chosen("experts", jnp.array([[3, 9]]), 1, 4), match=r"must be in 0\.\.3; got 3\.\.9")


def test_picks_of_the_released_orthogonality():
    """It knows no number of experts; what can be no pick of any is refused."""
    for function in (obj.orthogonality_released, obj.orthogonality_released_grad):
        repeated, negative = jnp.array([[3, 3, 0]] * TOKENS), jnp.array([[3, -1, 0]] * TOKENS)
        refuses(
            lambda f=function, e=repeated: f(jnp.asarray(OUTPUTS), e), match="distinct in each row; row 0 has 3 twice"
        )
        refuses(lambda f=function, e=negative: f(jnp.asarray(OUTPUTS), e), match="experts, from 0 on; got -1")


def test_partitions_of_another_type():
    refuses(
        lambda: obj.inter_group_dense(jnp.asarray(LOGITS), (0, 0, 1)),
        match=r"`partition` must be a `Partition`; got \(0, 0, 1\)",
    )
    refuses(lambda: Partition(None), match="`group_of` must be the group of each expert; got None")
    refuses(lambda: Partition(3), match="`group_of` must be the group of each expert; got 3")


# A step

ROUTER = routers.himoe(GROUPS, 1)
STATE = np.zeros(EXPERTS)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"logits": LOGITS[0]}, r"`logits` must have axes \(tokens, experts\); got shape \(6,\)"),
        ({"logits": LOGITS[None]}, r"`logits` must have axes \(tokens, experts\); got shape \(1, 4, 6\)"),
        ({"logits": LOGITS[:0]}, r"`logits` must have at least one of its tokens; got shape \(0, 6\)"),
        ({"logits": LOGITS[:, :5]}, "partition has 6 experts, `logits` has 5"),
        ({"logits": _put(LOGITS, math.nan)}, r"`logits` must be finite; 1 of 24 are not, the first at \(0, 4\)"),
        ({"logits": _put(LOGITS, math.inf)}, r"`logits` must be finite; 1 of 24 are not, the first at \(0, 4\)"),
        ({"logits": LOGITS.astype(int)}, "`logits` must be floating; got dtype int64"),
        ({"logits": LOGITS > 0}, "`logits` must be floating; got dtype bool"),
        ({"state": STATE[:5]}, "`state` must have one entry an expert; got 5 for 6 experts"),
        ({"state": STATE[None]}, r"`state` must have axes \(experts\); got shape \(1, 6\)"),
        ({"state": _put(STATE, math.nan)}, r"`state` must be finite; 1 of 6 are not, the first at \(4,\)"),
        ({"scale": np.ones(7)}, "`scale` must have one entry an expert; got 7 for 6 experts"),
        ({"scale": _put(np.ones(6), math.inf)}, r"`scale` must be finite; 1 of 6 are not, the first at \(4,\)"),
        ({"scale": np.ones(6, int)}, "`scale` must be floating; got dtype int64"),
    ],
)
def test_a_step_refuses(changed, match):
    arguments = {"state": STATE, "logits": LOGITS, "scale": np.ones(6)} | changed
    arrays = {name: jnp.asarray(value) for name, value in arguments.items()}
    refuses(lambda: ROUTER.step(None, arrays["state"], arrays["logits"], scale=arrays["scale"]), match=match)


def test_a_random_policy_without_a_key():
    router = routers.st_moe(EXPERTS, 2, KeepRandomly())
    refuses(
        lambda: router.step(None, jnp.asarray(STATE), jnp.asarray(LOGITS)),
        match="`key` must be given to a router with the random policy; got None",
    )


def test_good_input_is_accepted():
    """The arguments above are refused for the change made to them and for nothing else."""
    routing, _ = ROUTER.step(None, jnp.asarray(STATE), jnp.asarray(LOGITS), scale=jnp.ones(6))
    assert routing.experts.shape == (TOKENS, 3)
