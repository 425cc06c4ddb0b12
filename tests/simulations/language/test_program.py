"""The compiled step and the evaluation, against the same numbers from the model piece by piece."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import Partition
from simulations.arms import arms
from simulations.language.probe import first_not_finite
from simulations.language.program import Program

from .small import arm, corpus, model, recipe


@functools.cache
def program(name="moge", **fields):
    micro = {"micro_batches": fields.pop("micro_batches", 1), "compute": fields.pop("compute", "float32")}
    return Program(model(name, **fields), recipe(**micro))


def state(of, seed=0):
    """Initial parameters, moved so that no gradient is 0 and routing is uneven."""
    begun = of.begin(seed)
    rng = np.random.default_rng(5)

    def moved(p):
        return p + 0.3 * rng.standard_normal(p.shape).astype(np.float32)

    return begun._replace(parameters=jax.tree.map(moved, begun.parameters))


def batch(of, step=0):
    return of.cut(corpus().batch(0, step, of.recipe.batch, of.model.context))


@functools.cache
def gradient(of):
    return jax.jit(of.gradient)(state(of), *batch(of))


def close(a, b, tolerance=2e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * float(np.abs(y).max(initial=0)) + 1e-9)


def test_one_micro_batch_is_the_gradient_of_the_loss():
    of = program()
    now, (tokens, targets) = state(of), batch(of)
    key = of.keys(now)[0]

    def loss(parameters):
        return of.model.loss(parameters, now.router, tokens[0], targets[0], key=key, step=0, training=True)[0]

    value, expected = jax.jit(jax.value_and_grad(loss))(now.parameters)
    found, _, step = gradient(of)
    close(found, expected)
    np.testing.assert_allclose(step.loss, value, rtol=1e-6)
    np.testing.assert_allclose(step.loss, step.cross_entropy + sum(step.terms.values()), rtol=1e-6)
    squares = sum(float(jnp.square(g).sum()) for g in jax.tree.leaves(expected))
    np.testing.assert_allclose(step.gradient_norm, squares**0.5, rtol=1e-5)
    assert step.finite
    tokens_times_routes = of.model.context * of.recipe.batch * 2
    np.testing.assert_array_equal(step.counts.sum(axis=1), [tokens_times_routes])


def test_global_loads_make_micro_batches_equal_to_the_whole_batch():
    """MoGE's other terms are means over tokens; only the load sees the batch (D2)."""
    whole, parts = gradient(program()), gradient(program(micro_batches=4, load_scope="global"))
    close(parts[0], whole[0])
    np.testing.assert_allclose(parts[2].loss, whole[2].loss, rtol=1e-6)
    np.testing.assert_array_equal(parts[2].counts, whole[2].counts)
    # The micro scope is another objective: the test would not pass without the first pass.
    micro = gradient(program(micro_batches=4))
    assert abs(float(micro[2].loss - whole[2].loss)) > 1e-5 * float(whole[2].loss)
    np.testing.assert_allclose(micro[2].cross_entropy, whole[2].cross_entropy, rtol=1e-6)


def test_global_loads_need_no_second_pass_for_one_micro_batch():
    assert program(load_scope="global").loads(state(program()), *batch(program())) is None


@pytest.mark.parametrize("scope", ["micro", "global"])
def test_the_average_of_logits_advances_with_every_micro_batch_once(scope):
    of = program("hi-moe", micro_batches=2, load_scope=scope)
    now, (tokens, targets) = state(of), batch(of)
    router = now.router
    for i, key in enumerate(of.keys(now)):
        _, aux = of.model.loss(now.parameters, router, tokens[i], targets[i], key=key, step=0, training=True)
        router = aux.state
    np.testing.assert_allclose(gradient(of)[1], router, rtol=1e-5, atol=1e-7)
    assert np.abs(router).max() > 0


@pytest.mark.parametrize("scope", ["micro", "global"])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_the_bias_moves_once_a_step_by_the_counts_of_the_whole_batch(parts, scope):
    """Whatever the number of micro-batches, all of which are routed with the same bias."""
    of = program("loss-free", micro_batches=parts, load_scope=scope)
    now = state(of)
    biased = now._replace(router=now.router + jnp.asarray([0.3, 0.0, -0.2, 0.0], jnp.float32))
    for held in (now, biased):
        _, router, step = jax.jit(of.gradient)(held, *batch(of))
        counts = np.asarray(step.counts, int)
        assert counts.sum() == 2 * of.model.context * of.recipe.batch
        assert len(set(counts[0])) == 4  # uneven, so that every part would move it otherwise
        expected = np.asarray(held.router) + 0.001 * np.sign(counts.mean() - counts)
        np.testing.assert_allclose(router, expected, atol=1e-7)


TERMS = {
    "load_per_token": 0.5,
    "intra_group_global": 0.3,
    "inter_group_dense": 0.2,
    "z": 0.1,
    "orthogonality_span": 0.1,
}


def test_padding_behind_the_text_changes_nothing():
    """Loss, gradient, counts and states of two sequences of which one is short, whatever the padding holds."""
    whole = Program(model(arm=dataclasses.replace(arm("hi-moe"), terms=TERMS)), recipe())
    of, now = whole.model, state(whole)
    tokens, targets = (part[0, :2] for part in batch(whole))
    mask = jnp.arange(of.context) < jnp.asarray([of.context, 5])[:, None]

    def loss(parameters, tokens, targets):
        return of.loss(parameters, now.router, tokens, targets, mask=mask)

    differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, aux), gradient = differentiate(now.parameters, tokens, targets)
    other = jnp.where(mask, tokens, 3), jnp.where(mask, targets, 7)
    (again, other_aux), other_gradient = differentiate(now.parameters, *other)
    np.testing.assert_array_equal(value, again)
    np.testing.assert_array_equal(aux.counts.sum(), 2 * (of.context + 5))
    for mine, its in zip(
        jax.tree.leaves((aux.state, aux.counts)), jax.tree.leaves((other_aux.state, other_aux.counts)), strict=True
    ):
        np.testing.assert_array_equal(mine, its)
    close(other_gradient, gradient, 1e-6)
    real = np.asarray(aux.token_losses)[np.asarray(mask)]
    np.testing.assert_allclose(aux.cross_entropy, real.mean(), rtol=1e-6)


def test_bfloat16_keeps_float32_parameters_and_is_close():
    of, exact = program(compute="bfloat16"), gradient(program())
    with jax.numpy_dtype_promotion("standard"):  # in jax's derivative of a product that sums in float32
        found, router, step = gradient(of)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}
    assert router.dtype == np.float32
    np.testing.assert_allclose(step.cross_entropy, exact[2].cross_entropy, rtol=0.02)
    assert float(step.cross_entropy) != float(exact[2].cross_entropy)


def test_a_step_moves_the_state_and_a_frozen_gate_stays():
    of = program("frozen")
    before = jax.device_get(of.begin(0)._replace(key=None))
    after, _ = of.advance(of.begin(0), *batch(of))
    assert int(after.step) == 1
    for a, b in zip(jax.tree.leaves(before.parameters), jax.tree.leaves(after.parameters), strict=True):
        assert a.dtype == b.dtype == np.float32
    gates = [before.parameters["layers"]["00"]["moe"]["gate"], after.parameters["layers"]["00"]["moe"]["gate"]]
    np.testing.assert_array_equal(*gates)
    assert not np.array_equal(before.parameters["embedding"]["token"], after.parameters["embedding"]["token"])


def spoiled(of, *keys, value):
    """A state with one entry of one parameter set."""
    now = of.begin(0)
    node = now.parameters
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = node[keys[-1]].at[(0,) * node[keys[-1]].ndim].set(value)
    return now


MOE = ("layers", "00", "moe")


@pytest.mark.parametrize(
    ("where", "value", "name"),
    [
        ((*MOE, "in", "weight"), np.nan, r"parameter layers\.00\.moe\.in\.weight \(1 of 256 entries\)"),
        (("embedding", "position"), np.inf, r"parameter embedding\.position"),
        ((*MOE, "norm", "weight"), 3e38, "gate (input|logits) of layer 0"),
        (("norm", "weight"), 3e38, "token losses"),
        (("norm", "weight"), 1e30, "the norm of the gradient"),
        ((*MOE, "gate"), 1e25, "term z"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_and_is_explained(where, value, name):
    of = program("st-moe")
    before = jax.device_get(spoiled(of, *where, value=value)._replace(key=None))
    after, step = of.advance(spoiled(of, *where, value=value), *batch(of))
    assert not step.finite
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after._replace(key=None)), strict=True):
        np.testing.assert_array_equal(a, b)
    found = first_not_finite(of, after, *batch(of))
    assert re.match(name, found), found


def test_validation_losses_by_domain_and_tables():
    of = program(layers=2)
    now, held_out = state(of), corpus().held_out(6, of.model.context)
    found = of.evaluate(now, held_out, 2)
    tokens, targets = held_out.tokens, held_out.targets  # a micro-batch of 4 sequences, and 2 that are left
    scores = np.asarray(of.model.logits(now.parameters, now.router, jnp.asarray(tokens)), np.float64)
    losses = np.log(np.exp(scores).sum(axis=-1)) - np.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    for domain in (0, 1):
        mine = held_out.target_domains == domain
        np.testing.assert_allclose(found["domain_loss"][domain], losses[mine].sum(), rtol=1e-5)
        assert found["domain_tokens"][domain] == mine.sum()
    table = found["assignment"]
    assert table.shape == (2, 2, 4)
    by_domain = np.bincount(held_out.domains.ravel(), minlength=2)
    np.testing.assert_array_equal(table.sum(axis=2), [2 * by_domain] * 2)  # each token selects one expert of each group
    np.testing.assert_array_equal(table[:, :, 3], [by_domain] * 2)  # the only expert of its group
    np.testing.assert_allclose(found["soft_load"].sum(axis=1), 1, rtol=1e-5)
    assert ((found["effective_groups"] >= 1) & (found["effective_groups"] <= 2)).all()
    np.testing.assert_allclose(found["groups_touched"], 2)
    np.testing.assert_allclose(np.exp(found["router_entropy"]), found["effective_experts"], rtol=0.2)


def test_every_cut_of_the_batch_measures_the_same_text():
    """One, two or four micro-batches; six sequences are no multiple of four."""
    held_out = corpus().held_out(6, 8)
    whole, *cuts = (program(micro_batches=parts).evaluate(state(program()), held_out, 2) for parts in (1, 2, 4))
    assert whole["domain_tokens"].sum() == 6 * 8
    for found in cuts:
        np.testing.assert_array_equal(found["domain_tokens"], whole["domain_tokens"])
        np.testing.assert_array_equal(found["assignment"], whole["assignment"])
        np.testing.assert_allclose(found["domain_loss"], whole["domain_loss"], rtol=1e-5)


def test_a_model_without_experts_has_losses_only():
    of = Program(model(arm=arms(Partition((0,)))["dense"].with_terms(), router_scale=False), recipe())
    _, step = of.advance(of.begin(0), *batch(of))
    assert step.counts.shape == (0, 1)
    assert set(of.evaluate(of.begin(0), corpus().held_out(6, 8), 2)) == {"domain_loss", "domain_tokens"}
