"""Many tokens against the population: the mean-field field by quadrature is the mean over ever larger batches."""

import jax.numpy as jnp
import numpy as np

from himoe_theory import Partition, dynamics, routers
from simulations.theory.steps import descend

ROUTER = routers.dense(Partition.equal(3, 1))
TERMS = {"intra_group_global": 0.3, "p_squared": 0.2}
MEAN, ROOT = np.array([0.8, 0.0]), np.array([[0.7, 0.0], [0.3, 0.5]])


def on_batch(weights, x):
    return dynamics.LinearRouter(dynamics.LogitGradient(ROUTER, TERMS), x)(weights)


def test_training_on_many_tokens_follows_the_population():
    """Same plain steps on samples of T tokens and on the population: they part by order 1/sqrt(T)."""
    nodes, weights = dynamics.gaussian_nodes(jnp.asarray(MEAN), jnp.asarray(ROOT), 12)
    population = dynamics.LinearRouter(dynamics.PopulationGradient(ROUTER, TERMS, weights), nodes)
    start = jnp.asarray(0.3 * np.random.default_rng(0).standard_normal((3, 2)))
    step, steps = jnp.asarray(0.5), 60
    limit = np.asarray(descend(lambda w: population(w), start, step, 1, steps)[1])
    assert np.linalg.norm(limit - np.asarray(start)) > 0.1
    apart = []
    for tokens in (100, 6400):
        runs = []
        for seed in range(6):
            x = MEAN + np.random.default_rng((seed, tokens)).standard_normal((tokens, 2)) @ ROOT.T
            runs.append(np.asarray(descend(on_batch, start, step, 1, steps, jnp.asarray(x))[1]) - limit)
        apart.append(np.sqrt(np.mean(np.square(runs))))
    # 64 times the tokens, an eighth of the distance; of a root mean square of 6 runs of 4 free numbers each, within 2.
    assert 4 < apart[0] / apart[1] < 16
