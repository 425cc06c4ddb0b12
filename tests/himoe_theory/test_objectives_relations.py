"""How objectives relate to each other, to the size of the batch, and at exact balance."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from himoe_theory import metrics
from himoe_theory import objectives as obj
from himoe_theory.objectives import OBJECTIVES

from . import naive
from . import strategies as draw
from .evaluate import close, evaluate
from .strategies import EXPERTS, LOGITS, PARTITIONS, TOKENS, few


def value(name, routing):
    return evaluate(OBJECTIVES[name], routing).value


def gradient(name, routing):
    return evaluate(OBJECTIVES[name], routing).closed


# How the objectives relate


@few
@given(draw.cases())
def test_variance_across_experts_is_the_intra_group_term(case):
    """D3: (R_intra + 1/N) / (N - 1), so its gradient is R_intra's over N - 1."""
    routing = draw.route(*case)
    intra, variance = (
        evaluate(OBJECTIVES[name], routing) for name in ("intra_group_global", "variance_across_experts")
    )
    close(variance.value, (intra.value + 1 / EXPERTS) / (EXPERTS - 1))
    close(variance.closed, intra.closed / (EXPERTS - 1))


@few
@given(draw.cases())
def test_variance_across_tokens_is_the_gini_gain(case):
    """D3: -T/N times the Gini gain of the renormalised weights."""
    routing = draw.route(*case)
    batch = naive.Batch.of(routing)
    weights = [naive.softmax(row, chosen) for row, chosen in zip(batch.logs, batch.chosen, strict=True)]
    gain = metrics.gini_gain(jnp.asarray(weights))
    close(value("variance_across_tokens", routing), -TOKENS / EXPERTS * gain, rtol=1e-11)


@few
@given(draw.logits())
@example(LOGITS)
def test_purity_splits_into_groups(values):
    """Eq. 4: the squared norm of pi is the sum of squared masses times squared norms inside groups."""
    for name in ("unequal", "interleaved", "singletons"):
        batch = naive.Batch(values.tolist(), values.tolist(), [], [], PARTITIONS[name].group_of, 1)
        total = 0.0
        for row in batch.logits:
            mass = naive.group_sums(batch, naive.softmax(row))
            for g in range(batch.groups):
                inside = naive.softmax(row, {e for e in range(EXPERTS) if batch.group_of[e] == g})
                total += mass[g] ** 2 * sum(q * q for q in inside)
        close(-obj.intra_group_global(jnp.asarray(values)), total / TOKENS)


@few
@given(draw.logits())
def test_inter_group_forms_meet(values):
    """One selected expert a group: sparse is selected. Everything selected: sparse is dense. Singletons: all are."""
    one = draw.route("grouped", values)
    close(value("inter_group_sparse", one), value("inter_group_selected", one), rtol=1e-13)
    close(gradient("inter_group_sparse", one), gradient("inter_group_selected", one), rtol=1e-12)
    s, everything, partition = jnp.asarray(values), jnp.ones(values.shape, bool), PARTITIONS["interleaved"]
    close(obj.inter_group_sparse(s, everything, partition), obj.inter_group_dense(s, partition), rtol=1e-13)
    sparse, dense = obj.inter_group_sparse_grad(s, everything, partition), obj.inter_group_dense_grad(s, partition)
    close(sparse, dense, rtol=1e-12)
    close(obj.inter_group_dense(s, PARTITIONS["singletons"]), obj.inter_group_selected(s, everything), rtol=1e-13)


def test_inter_group_forms_differ():
    """Two selected experts in a group of three: neither special case holds."""
    routing = dataclasses.replace(draw.route("grouped, unequal K", LOGITS))
    forms = [value(f"inter_group_{form}", routing) for form in ("selected", "sparse", "dense")]
    assert np.abs(np.diff(forms)).min() > 0.01


@few
@given(draw.logits())
def test_with_everything_selected_intra_and_inter_are_antiparallel(values):
    s, everything = jnp.asarray(values), jnp.ones(values.shape, bool)
    close(obj.inter_group_selected_grad(s, everything), -obj.intra_group_global_grad(s), rtol=1e-13)
    close(obj.inter_group_selected(s, everything), -obj.intra_group_global(s), rtol=1e-13)
    # And importance over everything is the soft load.
    close(obj.importance_cv_squared(s, everything), obj.p_squared(s) - 1, rtol=1e-10)


def _fisher_inner(probs, first, second):
    """Inner product of two logit gradients in the natural metric: through the pseudo-inverse of diag(p) - p p^T."""
    fisher = np.diag(probs) - np.outer(probs, probs)
    return first @ np.linalg.pinv(fisher, rcond=1e-12) @ second


@few
@given(draw.logits(largest=2.0))
@example(LOGITS)
def test_functions_of_masses_and_of_conditionals_are_fisher_orthogonal(values):
    """D4: exactly orthogonal in the softmax's own metric, token by token; not in Euclidean logit space."""
    routing = draw.route("grouped", values)
    of_mass = [gradient(name, routing) for name in ("inter_group_dense", "group_neg_entropy")]
    of_inside = gradient("intra_group_conditional", routing)
    for t, row in enumerate(values.tolist()):
        probs = np.array(naive.softmax(row))
        for first in of_mass:
            sizes = [_fisher_inner(probs, each[t], each[t]) for each in (first, of_inside)]
            assert abs(_fisher_inner(probs, first[t], of_inside[t])) <= 1e-9 * math.sqrt(math.prod(sizes)) + 1e-15


def test_they_are_not_orthogonal_in_logit_space_and_the_global_term_is_no_function_of_conditionals():
    routing = draw.route("grouped", LOGITS)
    inter, inside, overall = (
        gradient(name, routing) for name in ("inter_group_dense", "intra_group_conditional", "intra_group_global")
    )
    cosines = (inter * inside).sum(axis=1) / np.linalg.norm(inter, axis=1) / np.linalg.norm(inside, axis=1)
    assert np.abs(cosines).max() > 0.1
    for t, row in enumerate(LOGITS.tolist()):  # by Eq. 4 its group part opposes the inter-group term
        assert _fisher_inner(np.array(naive.softmax(row)), inter[t], overall[t]) < 0


# Batch size (D2)


@pytest.mark.parametrize(("tokens", "batches"), [(2, 20_000), (16, 4_000)])
def test_batch_size_identity(tokens, batches):
    """E N||P||^2 = (1 - 1/T) N||p||^2 + (N/T) E||pi||^2 for independent tokens, and its like for hard counts.

    Tokens are drawn from a pool, so both expectations are known exactly. False alarm below 1e-6 for each of four
    comparisons: 5 standard errors of the mean over batches.
    """
    pool = np.concatenate([LOGITS, LOGITS[:, ::-1] * 1.5, np.roll(LOGITS, 2, axis=1) + 0.3])
    probs = np.array([naive.softmax(row) for row in pool.tolist()])
    first = np.eye(EXPERTS)[pool.argmax(axis=1)]
    drawn = np.random.default_rng(1).integers(len(pool), size=(batches, tokens))
    full, hard = jax.jit(jax.vmap(lambda s, selected: (obj.p_squared(s), obj.load(s, selected))))(
        jnp.asarray(pool[drawn]), jnp.asarray(first[drawn] > 0)
    )

    mean, share = probs.mean(axis=0), first.mean(axis=0)
    purity = np.square(probs).sum(axis=1).mean()
    covariance = (first * probs).mean(axis=0) - share * mean
    # The population's value, and what a batch of T adds to it on average.
    for sample, population, added in (
        (np.asarray(full), EXPERTS * mean @ mean, EXPERTS * (purity - mean @ mean) / tokens),
        (np.asarray(hard), EXPERTS * share @ mean, EXPERTS * covariance.sum() / tokens),
    ):
        error = sample.std(ddof=1) / math.sqrt(batches)
        assert abs(sample.mean() - population - added) <= 5 * error
        assert added > 10 * error  # so that a lost or halved term would be noticed


# Exact balance


@pytest.mark.parametrize("experts", [3, 10])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cv_squared_at_exact_balance(experts, dtype):
    """Exactly 0 in value and gradient, although sums of 0.1 do not round to multiples of it."""
    both = jax.jit(jax.value_and_grad(obj.cv_squared))
    for amount in (0.1, 0.3, 7.7):
        value, slope = both(jnp.full(experts, amount, dtype))
        assert value == 0
        np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("experts", [6, 10])
def test_importance_at_exact_balance(experts):
    """Everything selected with equal weight: the closed form, too, is exactly 0."""
    logits, everything = jnp.zeros((3, experts)), jnp.ones((3, experts), bool)
    assert obj.importance_cv_squared(logits, everything) == 0
    for function in (obj.importance_cv_squared_grad, jax.grad(obj.importance_cv_squared)):
        np.testing.assert_array_equal(function(logits, everything), 0.0)


def test_load_at_exact_balance():
    """Each expert is ahead once and behind equally often: the smooth load is even, its gradient 0."""
    cyclic = np.array([np.roll([2.0, 1.0, 0.5, 0.0, -1.0, -2.0], shift) for shift in range(EXPERTS)])
    s, noise = jnp.asarray(cyclic), jnp.zeros((EXPERTS, EXPERTS))
    assert obj.load_cv_squared(s, noise, k=2, noise_std=1.0) < 1e-30
    np.testing.assert_allclose(obj.load_cv_squared_grad(s, noise, k=2, noise_std=1.0), 0.0, atol=1e-15)
