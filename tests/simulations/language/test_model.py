"""The model against the same model in NumPy, and what its options promise."""

import dataclasses
import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Capacity, KeepRandomly, Partition, routers
from himoe_theory.objectives import View, pooled
from simulations.arms import Arm, arms
from simulations.language import Model, model
from simulations.language.config import DISPATCHES, Config

from . import naive

PARTITION = Partition.equal(4, 2)
HIMOE = Arm("free", routers.himoe(PARTITION, 1, tau=0.0), {"load_per_token": 0.01, "intra_group_global": 0.1}, "test")
TIGHT = Arm("tight", routers.himoe(PARTITION, 1, tau=0.0, capacity=Capacity(0.75)), {}, "test")
SMALL = Model(3, 2, 8, 6, 11, 5, HIMOE, stride=2, dense_width=7, router_scale=True)
RNG = np.random.default_rng(5)
TOKENS, TARGETS = (jnp.asarray(RNG.integers(0, 11, (2, 6))) for _ in range(2))


def perturbed(m: Model):
    """Parameters with biases, norms and scales off their initial values, large enough to matter."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a * 10 + jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), m.init(0))


@pytest.mark.parametrize(
    "m",
    [
        dataclasses.replace(SMALL, bias=True),
        dataclasses.replace(SMALL, arm=TIGHT),
        dataclasses.replace(SMALL, style="olmoe", router_scale=False),
    ],
    ids=["nanogpt with biases", "tokens dropped", "olmoe"],
)
def test_logits_are_those_of_the_same_model_in_numpy(m):
    parameters = perturbed(m)
    expected = naive.logits(m, jax.tree.map(lambda a: np.asarray(a, np.float64), parameters), np.asarray(TOKENS))
    actual = m.logits(parameters, m.init_state(), TOKENS)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_gradients_of_the_olmoe_style_are_slopes():
    """Central differences of the whole loss in float64: the backward passes of attention, experts and norms."""
    m = dataclasses.replace(SMALL, style="olmoe", router_scale=False)
    parameters = jax.tree.map(lambda a: a.astype(jnp.float64), perturbed(m))
    state = m.init_state().astype(jnp.float64)

    @jax.jit
    def loss(p):
        return m.loss(p, state, TOKENS, TARGETS, compute=jnp.float64)[0]

    gradient = jax.jit(jax.grad(loss))(parameters)
    rng, step = np.random.default_rng(2), 1e-6
    leaves, structure = jax.tree.flatten(gradient)
    for place, leaf in enumerate(leaves):
        way = [
            jnp.asarray(rng.standard_normal(a.shape) if i == place else np.zeros(a.shape)) for i, a in enumerate(leaves)
        ]
        up, down = (
            loss(jax.tree.map(lambda a, b, s=sign: a + s * step * b, parameters, jax.tree.unflatten(structure, way)))
            for sign in (1, -1)
        )
        slope = float((leaf * way[place]).sum())
        np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_a_training_step_is_lowered_for_a_gpu(dispatch):
    """Without one at hand: nothing in the program is of the processor alone. How fast it is there is not known."""
    m = dataclasses.replace(SMALL, dispatch=dispatch, arm=TIGHT)

    def loss(p, state):
        return m.loss(p, state, TOKENS, TARGETS, compute=jnp.bfloat16)[0]

    program = jax.jit(jax.value_and_grad(loss))
    exported = jax.export.export(program, platforms=["cuda"])(m.shapes(), jax.eval_shape(m.init_state))
    assert exported.platforms == ("cuda",)


@functools.cache
def stepped(m: Model, compute="float32", training=True, loads=None, step=0):
    parameters = perturbed(m)
    scope = None if loads is None else jnp.asarray(loads, jnp.float32)

    def loss(p):
        return m.loss(
            p,
            m.init_state(),
            TOKENS,
            TARGETS,
            step=step,
            training=training,
            compute=jnp.dtype(compute),
            loads=scope,
            records=True,
        )

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(parameters)


def test_the_loss_is_the_sum_of_its_parts():
    (loss, aux), _ = stepped(SMALL)
    assert aux.token_losses.shape == (2, 6)
    np.testing.assert_allclose(aux.cross_entropy, aux.token_losses.mean(), rtol=1e-6)
    np.testing.assert_allclose(loss, aux.cross_entropy + sum(aux.terms.values()), rtol=1e-6)
    np.testing.assert_array_equal(aux.counts.sum(axis=1), [24, 24])  # 12 tokens, two experts each
    np.testing.assert_array_equal(aux.dropped, [0, 0])


def test_own_loads_given_from_outside_change_nothing():
    (loss, aux), gradients = stepped(SMALL)
    given = dataclasses.replace(SMALL, load_scope="global")
    (again, _), others = stepped(given, loads=tuple(map(tuple, np.asarray(3 * aux.counts).tolist())))
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), others, gradients)
    (other, moved), _ = stepped(given, loads=((1.0, 0, 0, 0), (1.0, 0, 0, 0)))
    # 4 experts, 2 routes a token: h = (2, 0, 0, 0), so that the term is 0.01 x 4 x 2 x P_0 in each layer.
    first = sum(float(routing.probs[:, 0].mean()) for routing in aux.routing)
    np.testing.assert_allclose(moved.terms["load_per_token"], 0.08 * first, rtol=1e-5)
    assert not np.isclose(other, loss, rtol=1e-6)


def test_loads_of_sequences_and_of_all_layers():
    """The load of each sequence's tokens alone, and that of both layers' tokens as of one batch."""
    load, k = SMALL.arm.objectives["load_per_token"], SMALL.arm.terms["load_per_token"]
    (_, own), _ = stepped(SMALL)
    (_, aux), gradients = stepped(dataclasses.replace(SMALL, load_scope="sequence"))
    halves = [jnp.repeat(jnp.arange(2) == i, 6) for i in range(2)]
    apart = [load.value(View(dataclasses.replace(r, mask=half))) for r in aux.routing for half in halves]
    np.testing.assert_allclose(aux.terms["load_per_token"], k * sum(map(float, apart)) / 2, rtol=1e-5)
    assert abs(float(aux.terms["load_per_token"] - own.terms["load_per_token"])) > 1e-5
    assert all(np.abs(block["moe"]["gate"]).max() > 0 for block in gradients["layers"].values() if "moe" in block)
    (loss, aux), _ = stepped(dataclasses.replace(SMALL, load_scope="pooled"))
    np.testing.assert_allclose(aux.terms["load_per_token"], k * load.value(View(pooled(aux.routing))), rtol=1e-5)
    np.testing.assert_allclose(loss, aux.cross_entropy + sum(aux.terms.values()), rtol=1e-6)


def test_warm_up_scales_the_intra_term_alone():
    (_, full), _ = stepped(SMALL)
    (_, warmed), _ = stepped(dataclasses.replace(SMALL, intra_warmup=8), step=2)
    np.testing.assert_allclose(warmed.terms["intra_group_global"], full.terms["intra_group_global"] / 4, rtol=1e-6)
    np.testing.assert_array_equal(warmed.terms["load_per_token"], full.terms["load_per_token"])


def test_bfloat16_is_near_float32_and_accumulates_in_float32():
    (loss, aux), gradients = stepped(SMALL)
    (rough, rough_aux), rough_gradients = stepped(SMALL, "bfloat16")
    assert rough.dtype == rough_aux.token_losses.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(rough_gradients)} == {np.dtype("float32")}
    assert 1e-6 < abs(float(rough - loss)) / abs(float(loss)) < 0.05
    # The gate's input has been through rounded products, the gate itself has not: most choices are the same.
    assert np.abs(np.asarray(aux.counts - rough_aux.counts)).sum() <= 8
    norms = [float(jnp.linalg.norm(g["layers"]["00"]["moe"]["out"]["weight"])) for g in (gradients, rough_gradients)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=0.2)


def test_state_changes_in_training_alone():
    (_, aux), _ = stepped(SMALL)
    assert np.abs(aux.state).min() > 0
    (_, still), _ = stepped(SMALL, training=False)
    np.testing.assert_array_equal(still.state, 0)


def test_objectives_of_outputs_read_the_experts_of_the_layer():
    plain = dataclasses.replace(SMALL, arm=HIMOE)
    guo = dataclasses.replace(SMALL, arm=HIMOE.with_terms(orthogonality_span=0.5))
    (_, aux), _ = stepped(guo)
    assert aux.terms["orthogonality_span"] > 0
    assert "orthogonality_span" not in stepped(plain)[0][1].terms


def test_equal_models_share_a_program():
    one, other = (model("tiny", arms()["hi-moe"]) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != model("tiny", arms()["moge"])
    assert one.router_scale
    assert not model("tiny", arms()["gshard"]).router_scale


def test_same_seed_same_parameters():
    first, again, other = SMALL.init(0), SMALL.init(0), SMALL.init(1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["embedding"]["token"], other["embedding"]["token"])
    assert first["layers"]["00"]["moe"]["in"]["weight"].shape == (4, 8, 5)
    assert first["layers"]["01"]["mlp"]["in"]["weight"].shape == (8, 7)


def test_one_expert_is_a_plain_network():
    plain = dataclasses.replace(SMALL, arm=Arm("plain", routers.dense(Partition.equal(1, 1)), {}, "plain"), width=10)
    assert plain.moe_layers == ()
    widths = [plain.shapes()["layers"][f"{i:02d}"]["mlp"]["in"]["weight"].shape[1] for i in range(3)]
    assert widths == [10, 7, 10]
    (_, aux), _ = stepped(dataclasses.replace(plain, router_scale=False))
    assert aux.counts.shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "`heads` must divide `dim`; got 3 heads, dim 8"),
        ({"layers": 0}, "`layers` must be at least 1; got 0"),
        ({"style": "llama"}, "`style` must be one of nanogpt, olmoe; got 'llama'"),
        ({"dispatch": "all"}, "`dispatch` must be one of sorted, capacity, dense; got 'all'"),
        ({"dispatch": "capacity"}, "dispatch 'capacity' needs a router with a capacity; hi-moe has none"),
        ({"style": "olmoe", "bias": True}, "`bias` must be false in style olmoe; got True"),
        ({"arm": arms()["planted"]}, "`gate` must do without labels in a language model; got Planted"),
        ({"intra_warmup": -1}, "`intra_warmup` must be at least 0; got -1"),
        (
            {"arm": HIMOE.with_terms(load_selected_weights=0.1), "load_scope": "global"},
            "needs a load with h apart; load_selected_weights has none",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_settings_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_calls_that_do_not_fit():
    parameters, state = SMALL.init(0), SMALL.init_state()
    long = jnp.zeros((1, 7), int)
    with pytest.raises(ValueError, match=r"at most 6 long \(`context`\); got 7"):
        SMALL.logits(parameters, state, long)
    with pytest.raises(ValueError, match="`loads` are for `load_scope` global; this model's is micro"):
        SMALL.loss(parameters, state, TOKENS, TARGETS, loads=jnp.ones((2, 4), jnp.float32))
    random = dataclasses.replace(
        SMALL, arm=Arm("r", routers.st_moe(4, 2, KeepRandomly(), partition=PARTITION), {}, "random"), router_scale=False
    )
    with pytest.raises(ValueError, match="`key` must be given"):
        random.loss(random.init(0), random.init_state(), TOKENS, TARGETS)
    with pytest.raises(ValueError, match="`size` must be one of tiny, small, nanogpt-1b, olmoe-7b; got 'huge'"):
        model("huge", HIMOE)
    with pytest.raises(ValueError, match="has no field 'depth'"):
        model("tiny", HIMOE, depth=3)
    assert issubclass(Model, Config)
