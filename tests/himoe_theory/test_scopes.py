"""Whose loads a load loss sees: every convention in every scope, against the same loss of the tokens concerned."""

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition, Sigmoid, from_routes, routers
from himoe_theory import objectives as obj
from himoe_theory.objectives import CODE_BASES, OBJECTIVES, Scope, Sequences, View
from himoe_theory.objectives.record import with_variable

from . import strategies as draw
from .evaluate import close
from .strategies import LOGITS, PARTITIONS
from .test_bad_input import refuses

LOADS = [name for name, each in OBJECTIVES.items() if each.convention]
ROWS = np.concatenate([LOGITS, LOGITS[::-1] * 0.7 + 0.1, LOGITS[:2] - 0.4])
IDS = np.array([0, 2, 0, 2, 1, 0, 1, 2, 2, 0], np.int32)
"""Sequences of 4, 2, 4 tokens, mixed; a fourth has none."""
MASK = np.array([True, True, False, True, True, True, True, False, True, True])
SEQUENCES = Sequences(jnp.asarray(IDS), 4)


@pytest.fixture(scope="module")
def layers():
    """Two layers of a router with a sigmoid and a bias, of ten tokens of which two are padding."""
    router, state, mask = draw.ROUTERS["flat, biased"], jnp.asarray(draw.STATE), jnp.asarray(MASK)
    return [router.step(None, sign * state, jnp.asarray(sign * ROWS), mask=mask)[0] for sign in (1, -0.8)]


@pytest.fixture(scope="module")
def routing(layers):
    return layers[0]


def alone(name, routing, mask):
    """Value and gradient of the record for the tokens where `mask` holds."""
    view = View(dataclasses.replace(routing, mask=jnp.asarray(mask)))
    return float(OBJECTIVES[name].value(view)), np.asarray(OBJECTIVES[name].gradient(view))


@pytest.mark.parametrize("name", LOADS)
def test_the_micro_batch_is_the_record_itself(name, routing):
    value, gradient = alone(name, routing, MASK)
    close(obj.load_within(name, routing), value, rtol=1e-13)
    close(obj.load_within_grad(name, routing), gradient)


@pytest.mark.parametrize("name", LOADS)
def test_sequences_are_the_mean_of_their_losses(name, routing):
    parts = [alone(name, routing, MASK & (IDS == i)) for i in range(3)]
    close(
        obj.load_within(name, routing, Scope.SEQUENCE, sequences=SEQUENCES),
        np.mean([value for value, _ in parts]),
        rtol=1e-13,
    )
    gradient = obj.load_within_grad(name, routing, Scope.SEQUENCE, sequences=SEQUENCES)
    close(gradient, np.sum([each for _, each in parts], axis=0) / 3)
    np.testing.assert_array_equal(np.asarray(gradient)[~MASK], 0.0)


@pytest.mark.parametrize("name", LOADS)
def test_all_layers_are_one_batch(name, layers):
    together = obj.pooled(layers)
    value, gradient = alone(name, together, np.tile(MASK, 2))
    close(obj.load_within(name, together, Scope.POOLED), value, rtol=1e-13)
    close(obj.load_within_grad(name, together, Scope.POOLED), gradient)
    apart = np.mean([alone(name, each, MASK)[0] for each in layers])
    assert abs(value - apart) > 1e-4


@pytest.mark.parametrize("name", LOADS)
def test_totals_make_parts_of_a_batch_the_whole(name, routing):
    """Gradients of two micro-batches of four real tokens each, with the h of both, average to the whole batch's."""
    convention = OBJECTIVES[name].convention
    halves = [MASK & (np.cumsum(MASK) <= 4), MASK & (np.cumsum(MASK) > 4)]
    counted = np.asarray(convention.form.counted(routing))
    given = {"totals": jnp.asarray(counted[MASK].sum(axis=0))}
    if convention.form.per_token:
        given["tokens"] = 8.0
    parts = [dataclasses.replace(routing, mask=jnp.asarray(half)) for half in halves]
    value, gradient = alone(name, routing, MASK)
    values = [obj.load_within(name, part, Scope.GLOBAL, **given) for part in parts]
    close(np.mean(values), value, rtol=1e-12)
    close(sum(obj.load_within_grad(name, part, Scope.GLOBAL, **given) for part in parts) / 2, gradient)


@pytest.mark.parametrize("name", ["load", "p_squared", "load_entropy", "load_selected_weights"])
def test_closed_forms_are_derivatives(name, routing):
    at = jax.grad(
        lambda x: obj.load_within(
            name, with_variable(View(routing), "logits", x).routing, Scope.SEQUENCE, sequences=SEQUENCES
        )
    )(routing.logits)
    close(at, obj.load_within_grad(name, routing, Scope.SEQUENCE, sequences=SEQUENCES))


def test_nothing_in_masked_rows_is_seen(routing):
    bad = dataclasses.replace(
        routing,
        logits=jnp.where(MASK[:, None], routing.logits, jnp.nan),
        log_probs=jnp.where(MASK[:, None], routing.log_probs, jnp.nan),
    )
    for name in LOADS:
        for function in (obj.load_within, obj.load_within_grad):
            clean, found = (function(name, r, Scope.SEQUENCE, sequences=SEQUENCES) for r in (routing, bad))
            np.testing.assert_array_equal(clean, found)


def test_sequences_by_hand():
    """Top-1 of two experts: sequences 00 and 01 1; h of each, and over the mean length of 2.5."""
    counted = jnp.array([[True, False], [True, False], [True, False], [False, True], [False, True]])
    sequences = Sequences(jnp.array([0, 0, 1, 1, 1], jnp.int32), 2)
    own = obj.scoped_shares(counted, Scope.SEQUENCE, sequences=sequences)
    np.testing.assert_allclose(own, [[1, 0]] * 2 + [[1 / 3, 2 / 3]] * 3, rtol=1e-15)
    mean = dataclasses.replace(sequences, mean_length=True)
    for per_token in (False, True):
        found = obj.scoped_shares(counted, Scope.SEQUENCE, sequences=mean, per_token=per_token)
        np.testing.assert_allclose(found, [[0.8, 0]] * 2 + [[0.4, 0.8]] * 3, rtol=1e-15)
    np.testing.assert_allclose(obj.scoped_shares(counted), [[0.6, 0.4]], rtol=1e-15)
    np.testing.assert_allclose(
        obj.scoped_shares(counted, Scope.GLOBAL, totals=jnp.array([1, 3])), [[0.25, 0.75]], rtol=1e-15
    )


@pytest.mark.parametrize(("experts", "routes"), [(6, 1), (6, 3), (5, 2)])
def test_code_bases_at_uniform_routing(experts, routes):
    """Equal probabilities, cyclic choices: the number that the record states, in the scope of the code base."""
    chosen = (np.arange(2 * experts)[:, None] + np.arange(routes)) % experts
    logits = jnp.zeros((2 * experts, experts))
    uniform = from_routes(logits, jnp.asarray(chosen, jnp.int32), Partition((0,) * experts))
    stated = {"transformers": routes, "maxtext": routes, "himoe_grouped": routes, "libmoe_entropy": -math.log(experts)}
    for name, theirs in CODE_BASES.items():
        given, routing = {}, uniform
        if theirs.scope is Scope.SEQUENCE:
            halves = obj.equal_sequences(2 * experts, 2)
            given["sequences"] = dataclasses.replace(halves, mean_length=theirs.mean_length)
        if theirs.scope is Scope.GLOBAL:
            given["totals"] = uniform.counts
        if theirs.scope is Scope.POOLED:
            routing = obj.pooled([uniform, uniform])
        expected = theirs.objective.convention.at_uniform(experts, routes)
        assert expected == stated.get(name, 1.0)
        np.testing.assert_allclose(theirs.value(routing, **given), expected, rtol=1e-14)


def test_plain_top_k_is_blind_to_groups_and_bias():
    """The grouped router takes one of each group; plain top-k takes the largest three. For a plain router: `load`."""
    grouped, plain = (
        router.step(None, router.init(jnp.float64), jnp.asarray(LOGITS))[0]
        for router in (routers.moge(PARTITIONS["interleaved"], 1), routers.gshard(6, 3))
    )
    counted = OBJECTIVES["load_top_k"].convention.form.counted(grouped)
    np.testing.assert_array_equal(counted, plain.selected)
    assert (np.asarray(counted) != np.asarray(grouped.selected)).any()
    values = [float(OBJECTIVES[name].value(View(grouped))) for name in ("load", "load_top_k", "load_top_k_per_token")]
    assert abs(values[0] - values[1]) > 1e-2
    np.testing.assert_allclose(values[2], 3 * values[1], rtol=1e-14)
    np.testing.assert_allclose(OBJECTIVES["load"].value(View(plain)), values[1], rtol=1e-14)


def test_transformers_read_a_softmax_of_whatever_router():
    routing = draw.route("flat, biased", LOGITS)
    assert isinstance(routing.score, Sigmoid)
    expected = obj.load_top_k_per_token(jnp.asarray(LOGITS), 3)
    np.testing.assert_allclose(CODE_BASES["transformers"].value(routing), expected, rtol=1e-14)
    close(CODE_BASES["transformers"].gradient(routing), obj.load_top_k_per_token_grad(jnp.asarray(LOGITS), 3))


@pytest.mark.usefixtures("unchecked")
def test_what_a_scope_needs():
    counted, sequences = jnp.ones((4, 3), bool), obj.equal_sequences(4, 2)
    for scope, given, match in (
        (Scope.SEQUENCE, {}, "`sequences` must be given for the scope sequence; got None"),
        (Scope.GLOBAL, {}, "`totals` must be given for the scope global; got None"),
        (Scope.GLOBAL, {"totals": counted.sum(0), "per_token": True}, "`tokens` must be given for the scope global"),
        (Scope.MICRO, {"sequences": sequences}, "`sequences` must not be given for the scope micro"),
        (Scope.POOLED, {"totals": counted.sum(0)}, "`totals` must not be given for the scope pooled"),
        (Scope.SEQUENCE, {"sequences": 3}, "`sequences` must be a `Sequences`; got 3"),
        (
            Scope.SEQUENCE,
            {"sequences": obj.equal_sequences(6, 2)},
            "`sequences` must name one of each token; got 6 for 4",
        ),
        (Scope.GLOBAL, {"totals": jnp.ones(2)}, r"`totals` must have one entry an expert; got shape \(2,\) for 3"),
        ("micro", {}, "`scope` must be a `Scope`; got 'micro'"),
    ):
        refuses(lambda scope=scope, given=given: obj.scoped_shares(counted, scope, **given), match=match)
    for counted, match in (
        ("abc", "`counted` must be an array of numbers"),
        (jnp.ones(3), r"`counted` must have axes"),
    ):
        refuses(lambda counted=counted: obj.scoped_shares(counted), match=match)
    refuses(lambda: obj.equal_sequences(10, 0), match="`count` must be at least 1; got 0")
    refuses(lambda: obj.equal_sequences(10, 3), match="`count` must divide the 10 tokens; got 3 sequences")
    refuses(lambda: obj.load_within("z", draw.route("grouped", LOGITS)), match="`term` must be a load loss, .* got z")
    two = [draw.route(name, LOGITS) for name in ("grouped", "flat, biased")]
    refuses(lambda: obj.pooled(two), match="`routings` must be of layers alike, at least one; got 2")
    refuses(lambda: obj.pooled([]), match="`routings` must be of layers alike, at least one; got 0")


def test_a_scope_is_compiled_once():
    traces = 0

    @jax.jit
    def value(routing, sequences):
        nonlocal traces
        traces += 1
        return obj.load_within("load", routing, Scope.SEQUENCE, sequences=sequences)

    for ids in ([0, 0, 1, 1], [0, 1, 0, 1]):
        value(draw.route("grouped", LOGITS), Sequences(jnp.array(ids, jnp.int32), 2))
    assert traces == 1


def test_routers_notice_probabilities():
    """Once, by name; not for real logits, one row of which may sum to 1, nor in a compiled program."""
    probs = jax.nn.softmax(jnp.asarray(LOGITS))
    router = routers.gshard(6, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        router.step(None, (), probs)
        router.step(None, (), jnp.asarray(LOGITS).at[0].set(probs[0]))
        jax.jit(lambda x: router.step(None, (), x)[0].combine)(probs)
    (one,) = caught
    assert str(one.message).startswith("`logits` look like probabilities: all 4 rows are non-negative and sum to 1")
    assert "himoe_theory/routers" not in one.filename
    with pytest.warns(UserWarning, match="all 2 rows"):
        router.step(None, (), probs.at[2:].set(7.0), mask=jnp.array([True, True, False, False]))
