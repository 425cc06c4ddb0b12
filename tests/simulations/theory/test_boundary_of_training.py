"""The predicted boundary of trained layers against forces summed over tokens, and what one training leaves."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import objectives as obj
from simulations import Clusters, arms, theory

DATA = Clusters(mean=1.5)
ARM = arms()["hi-moe"]


def test_falls_by_hand():
    places = np.array([0.0, 1.0, 3.0])
    assert theory.fall(places, np.array([0.9, 0.7, 0.1]), 0.4) == pytest.approx(2.0)
    assert theory.fall(places, np.array([0.3, 0.9, 0.1]), 0.4) == 0.0
    assert math.isnan(theory.fall(places, np.array([0.9, 0.8, 0.5]), 0.4))


def slopes(spread: float, alpha: float) -> tuple[float, float]:
    """How fast a gate's rows grow along the tokens' mean and along one centre, by sums over tokens, spread logits."""
    rng, tokens = np.random.default_rng(3), 60_000
    truth = DATA.truth(np.random.default_rng(0))
    x = truth["centres"][rng.integers(DATA.clusters, size=tokens)] + truth["mean"]
    within = np.tile([1.0, -1.0], 4)
    # What contrasts between clusters leave of a row along one centre: it is orthogonal to the mean over clusters.
    centre = truth["centres"][0] - truth["centres"].mean(axis=0)
    found = []
    for direction in (truth["mean"] + truth["centres"].mean(axis=0), centre):
        unit = direction / np.linalg.norm(direction)
        total = 0.0
        noise = spread * rng.standard_normal((tokens, 8))
        for sign in (1, -1):
            logits = noise + sign * 0.05 * spread * np.outer(x @ unit, within)
            selected = logits > logits.reshape(-1, 4, 2)[:, :, ::-1].reshape(-1, 8)
            push = 0.1 * obj.intra_group_global_grad(jnp.asarray(logits))
            push = push + alpha * obj.load_per_token_grad(jnp.asarray(logits), jnp.asarray(selected))
            total += sign * float(((x @ unit) * -(np.asarray(push) @ within)).sum())
        found.append(total / (2 * 0.05 * spread * 8))
    return found[0], found[1]


def test_the_mean_leads_up_to_the_predicted_load():
    predicted = theory.hard_edge(DATA, ARM)
    spread = 1.75  # where the load is needed most
    for factor, leads in ((0.85, True), (1.15, False)):
        mean, contrast = slopes(spread, factor * predicted)
        assert (mean > contrast) == leads
    # At another spread it is stopped by less.
    assert np.diff(slopes(0.5, 0.85 * predicted))[0] > 0


def test_no_load_is_needed_without_a_mean():
    edges = [theory.hard_edge(dataclasses.replace(DATA, mean=m), ARM) for m in (0.0, 1.0, 2.0, 8.0)]
    assert edges[0] == 0
    assert np.all(np.diff(edges) > 0)
    # Eight centres of length 2: the squared length of their mean, and the variance along their contrasts, are 1/2.
    assert edges[2] / edges[1] == pytest.approx((4 / 4.5) / (1 / 1.5), rel=1e-12)
    doubled = ARM.with_terms(intra_group_global=0.2)
    assert theory.hard_edge(DATA, doubled) == pytest.approx(2 * theory.hard_edge(DATA, ARM), rel=1e-12)


def test_trained_layers_keep_more_experts_under_more_load():
    found = theory.trained(means=(4.0,), alphas=(0.0, 0.005, 0.1), steps=120, seeds=(0,))
    cv = found["cv"].values[0, :, 0]
    assert np.all(np.diff(cv) < 0)
    assert cv[0] > 0.5 > cv[2]
    assert 0 < float(found["edge"][0, 0]) < 0.1
    assert found.attrs["largest"] == pytest.approx(1.0)
