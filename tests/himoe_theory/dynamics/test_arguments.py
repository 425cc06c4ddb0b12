"""What the dynamics take: whole numbers as numbers, only arguments that fit each other, and errors of one line."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from himoe_theory import KeepRandomly, Partition, bounds, dynamics, geometry, routers

from ..test_bad_input import refuses

pytestmark = pytest.mark.usefixtures("unchecked")  # users have no annotations that are checked

FLAT = routers.dense(Partition.equal(3, 1))
RANDOM = routers.st_moe(3, 2, KeepRandomly())
RNG = np.random.default_rng(4)
X, Y = jnp.asarray(RNG.normal(size=(5, 2))), jnp.asarray(RNG.normal(size=(5, 2)))
TERMS = dynamics.LogitGradient(FLAT, {"p_squared": 1.0})
MIXTURE = dynamics.Mixture(jnp.asarray(RNG.normal(size=(3, 2))), jnp.asarray(RNG.normal(size=(3, 2, 2))))

# Whole numbers as numbers

FIXED = {
    "num_experts": 8, "group_size": 2, "num_groups": 4, "tokens": 16, "routes": 1, "live": 3, "candidates": 4,
    "steps": 3, "scores": jnp.asarray([0.5, -1.0, 2.0]), "moment": jnp.asarray([[0.5, 0.1], [0.1, -1.0]]),
    "inputs": X, "curvature": jnp.eye(2), "rates": np.array([0.5, -1.0]), "count": 5,
    "moving": True,
}  # fmt: skip
WHOLE = {
    "spread": 2, "lambda_intra": 2, "lambda_inter": 1, "alpha": 1, "gain": 3, "decay": 1, "beta": 2, "rate": 1,
    "temperature": 2, "tau": 1, "purity": 1, "density": 2, "expert_control": 4, "group_control": 2, "mass": 1,
    "coupling": 1, "router_term": -3, "load_pull": 1, "u": 2, "router_rate": 3, "expert_rate": 2, "step": 1,
    "epsilon": 2, "start": 1, "contrast_rate": 1, "common_rate": -2, "beta1": 0, "beta2": 0,
}  # fmt: skip
OTHERWISE = {
    "hard_sharpening": {"p": 1},
    "growth_rate": {"field": dynamics.FreeLogits(TERMS), "state": Y @ jnp.ones((2, 3)), "displacement": np.eye(5, 3)},
}
NO_WHOLE_NUMBER = {"collapsed_control", "live_coefficient_frozen", "bias_walk_floor"}  # between 0 and 1
OF_ARRAYS = {
    "flow", "gaussian_nodes", "jacobian", "largest_share", "leading_spectrum", "linear_expert", "logit_change",
    "mixture_shares", "proportional", "residual_moment", "selection_drive", "settle", "shares", "spectrum",
    "mode_shares", "switched_flow", "symmetric_moments", "two_layer_expert", "velocity",
}  # fmt: skip
FUNCTIONS = {
    name: value
    for name, value in vars(dynamics).items()
    if callable(value) and not inspect.isclass(value) and hasattr(value, "__module__") and name not in ("Field",)
}
OF_NUMBERS = {n: f for n, f in FUNCTIONS.items() if n not in OF_ARRAYS | NO_WHOLE_NUMBER and "dynamics" in f.__module__}


def test_every_function_of_numbers_is_met():
    assert len(OF_NUMBERS) >= 40
    met = set().union(*(inspect.signature(f).parameters for f in OF_NUMBERS.values()))
    assert met <= set(FIXED) | set(WHOLE) | set().union(*OTHERWISE.values())


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_a_whole_number_is_the_number(name):
    function = OF_NUMBERS[name]
    given = FIXED | WHOLE | OTHERWISE.get(name, {})
    arguments = {k: given[k] for k in inspect.signature(function).parameters}
    numbers = {k: v for k, v in arguments.items() if k in WHOLE or k == "p"}
    expected = function(**arguments | {k: float(v) for k, v in numbers.items()})
    for whole in (int, np.int64):
        with jax.numpy_dtype_promotion("standard"):  # as users have it
            found = function(**arguments | {k: whole(v) for k, v in numbers.items()})
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(expected))


def test_the_window_of_collapse_by_a_whole_number():
    assert float(dynamics.collapse_ratio(2)) == pytest.approx(0.376172, rel=1e-5)
    np.testing.assert_array_equal(
        dynamics.collapse_ratio(np.array([1, 2])), dynamics.collapse_ratio(jnp.array([1.0, 2.0]))
    )


@pytest.mark.parametrize(
    ("build", "state"),
    [
        (lambda c: dynamics.LinearRouter(TERMS, X, c(2)), MIXTURE.router),
        (lambda c: dynamics.FreeLogits(dynamics.LogitGradient(FLAT, {"p_squared": c(2)})), X @ MIXTURE.router.T),
        (lambda c: dynamics.RouterAndExperts(FLAT, TERMS, dynamics.linear_expert, X, Y, c(2), c(3)), MIXTURE),
        (lambda c: dynamics.Normalised(dynamics.LinearRouter(TERMS, X), c(2), c(1)), MIXTURE.router),
        (lambda c: dynamics.Reinforcement(c(3), c(1), c(2)), X[:3, 0]),
        (
            lambda c: dynamics.BiasedReinforcement(c(3), c(1), c(2), c(1), dynamics.SmoothSign(c(2))),
            dynamics.Biased(X[:3, 0], X[:3, 1]),
        ),
        (
            lambda c: dynamics.GroupedReinforcement(c(3), c(1), c(2), c(1), Partition.equal(4, 2)),
            dynamics.Levels(X[:4, 0], X[:2, 1]),
        ),
        (lambda c: dynamics.FreeLogits(dynamics.SmoothedLoad(c(2), 1, c(3))), X @ MIXTURE.router.T),
    ],
)
def test_fields_with_whole_numbers(build, state):
    one, other = build(int)(state), build(float)(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), one, other)


@pytest.mark.parametrize("module", [bounds, geometry])
def test_arrays_of_whole_numbers_are_refused_or_equal(module):
    """Functions of arrays say what they need; none computes in whole numbers."""
    given = {
        "weights": np.array([[2, 1, 0, 3], [1, 0, 0, 1]]), "partition": Partition.equal(4, 2), "per_group": (1, 2),
        "probs": np.array([0, 1]), "gradients": np.array([[1, 2], [3, 4]]), "a": np.array([[1, -1, 0]]),
        "b": np.array([[2, 0, -2]]), "logits": np.array([[1, 2, 3]]), "inner": np.array([1]),
        "square_a": np.array([2]), "square_b": np.array([3]),
    }  # fmt: skip
    functions = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    public = [f for f in functions if not f.__name__.startswith("_")]
    assert len(public) >= 7
    for function in public:
        arguments = {k: given[k] for k in inspect.signature(function).parameters}
        if any(isinstance(value, np.ndarray) for value in arguments.values()):
            refuses(lambda f=function, kw=arguments: f(**kw), match=r"must be floating; got dtype int64")
        floats = {k: jnp.asarray(v, float) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        assert np.isfinite(np.asarray(jax.tree.leaves(function(**floats))[0], float)).any()


# Arguments that do not fit


def _task(targets=Y, **changed):
    return dynamics.RouterAndExperts(FLAT, None, dynamics.linear_expert, X, targets, **changed)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda y: _task(targets=y), r"got shape \(5,\)"),
        (lambda y: _task(targets=y[:1, None]), "has 1 tokens, `inputs` has 5"),
        (lambda y: dynamics.LinearRouter(TERMS, X, math.nan), "`rate` must be finite and at least 0; got nan"),
        (lambda y: dynamics.LinearRouter(TERMS, X[0]), r"`inputs` must have axes \(tokens, dim\); got shape \(2,\)"),
        (lambda y: _task(router_rate=-1.0), "`router_rate` .* got -1"),
        (lambda y: _task(expert_rate=-2.0), "`expert_rate` .* got -2"),
        (lambda y: dynamics.SmoothSign(0.0), "`width` must be above 0; got 0"),
        (lambda y: dynamics.Normalised(TERMS, 1.0, 0), "`epsilon` must be above 0; got 0"),
        (lambda y: dynamics.Normalised(TERMS, -1.0, 1.0), "`rate` must be finite and at least 0; got -1"),
        (lambda y: dynamics.Reinforcement(1.0, -3.0, 1.0), "`decay` must be finite and at least 0; got -3"),
        (lambda y: dynamics.Reinforcement(1.0, 1.0, math.inf), "`beta` must be finite and above 0; got inf"),
        (lambda y: dynamics.BiasedReinforcement(1.0, 1.0, 1.0, -4.0), "`rate` must be finite and at least 0; got -4"),
        (lambda y: dynamics.GroupedReinforcement(math.nan, 1.0, 1.0, 1.0, Partition.equal(4, 2)), "`gain` .* got nan"),
        (lambda y: dynamics.GroupedReinforcement(1.0, 1.0, 1.0, -1.0, Partition.equal(4, 2)), "`group_beta` .* got -1"),
        (lambda y: dynamics.SmoothedLoad(1.0, 1, -2.0), "`width` must be above 0; got -2"),
        (lambda y: dynamics.gaussian_nodes(jnp.zeros(3), jnp.eye(2), 2), r"size of `mean`, 3; got shape \(2, 2\)"),
        (lambda y: dynamics.gaussian_nodes(jnp.zeros(7), jnp.eye(7), 10), r"at most 1000000 nodes; got 10\^7"),
        (
            lambda y: dynamics.PopulationGradient(FLAT, {"z": 1.0}, jnp.ones(1))(jnp.zeros((3, 3))),
            "`weights` has 1 nodes, `logits` has 3",
        ),
    ],
)  # fmt: skip
def test_fields_refuse(build, match):
    refuses(lambda: build(Y[:, 0]), match=match)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: dynamics.symmetric_moments(dynamics.linear_expert, jnp.eye(2), X, Y[:, :1]),
            r"`targets` must have the shape of `expert\(inputs\)`, \(5, 2\); got \(5, 1\)",
        ),
        (
            lambda: dynamics.symmetric_moments(dynamics.linear_expert, jnp.eye(2, dtype=int), X, Y),
            "`parameters` must be floating; got dtype int64",
        ),
        (
            lambda: dynamics.selection_drive(X, Y[:, 0], jnp.ones((1, 3))),
            "`inputs`, `residuals` and `combine` must have the same tokens; got 5, 5 and 1",
        ),
        (lambda: dynamics.selection_drive(X, Y[:1, 0], jnp.ones((5, 3))), "the same tokens; got 5, 1 and 5"),
        (lambda: dynamics.slowed_rate(1.0, math.nan), "`router_term` must be finite; got nan"),
        (lambda: dynamics.contrast_within(0.1, 1), "`num_experts` must be at least 2; got 1"),
        (lambda: dynamics.load_pull_full(0.1, 1), "`num_experts` must be at least 2; got 1"),
        (
            lambda: dynamics.contrast_between(0.1, 0.05, 8, 8),
            r"`group_size` must be at most 4 \(half of `num_experts`, two groups\); got 8",
        ),
        (lambda: dynamics.common_between_full(0.1, 0.05, 0.1, 1, 1), "`num_experts` must be at least 2; got 1"),
        (lambda: dynamics.inside_rate(1.0, 0.5, 1), "`group_size` must be at least 2; got 1"),
        (lambda: dynamics.specialisation_rates(jnp.eye(2), 1, 1.0, 1.0), "`num_experts` must be at least 2; got 1"),
        (lambda: _onset(moment=jnp.full((2, 2), math.nan)), r"`moment` must be finite; 4 of 4 are not"),
        (lambda: _onset(inputs=X[0]), r"`inputs` must have axes \(tokens, dim\); got shape \(2,\)"),
        (lambda: _onset(curvature=jnp.ones(2)), r"`curvature` must have axes .*; got shape \(2,\)"),
        (lambda: _onset(common_rate=math.inf), "`common_rate` must be finite; got inf"),
        (lambda: dynamics.shares(np.zeros(3), Partition.equal(3, 1)), r"axes \(tokens, experts, .*; got shape \(3,\)"),
        (lambda: dynamics.shares(np.full((2, 3), math.nan), FLAT.partition), "`change` must be finite; 6 of 6 are not"),
        (lambda: dynamics.shares(X, Partition.equal(2, 1), np.array([2.0, -1.0, 0, 0, 0])), "`weights` .* got -1 at"),
        (lambda: dynamics.shares(X, Partition.equal(2, 1), np.full(5, 0.5)), "one a token, 5, .*; got 5 with sum 2.5"),
        (lambda: dynamics.shares(X, Partition.equal(2, 1), np.full(4, 0.25)), "a token, 5, .*; got 4 with sum 1"),
        (lambda: dynamics.shares(X, (0, 0)), r"`partition` must be a `Partition`; got \(0, 0\)"),
        (lambda: dynamics.pair_folds(math.nan), "`u` must be finite; got nan"),
        (lambda: dynamics.largest_share({}), "`found` must map names to shares, at least one; got"),
        (lambda: dynamics.mixture_shares(TASK, MIXTURE, X), "`mode` must be a `Mixture` .*; got Array"),
        (lambda: dynamics.mixture_shares(_task(router_rate=0), MIXTURE, MIXTURE), "`router_rate` must be above 0"),
        (
            lambda: dynamics.mode_shares(dynamics.Reinforcement(1.0, 1.0, 1.0), X[0], X[0]),
            "`field` must be one of .* for modes to have names; got a Reinforcement",
        ),
        (
            lambda: dynamics.growth_rate(TASK, MIXTURE, jnp.ones(18)),
            r"structure, Mixture\(router=\(3, 2\), experts=\(3, 2, 2\)\); got \(18,\)",
        ),
        (
            lambda: dynamics.LogitGradient(FLAT, {"orthogonality_span": 1.0}),
            "objectives of logits; orthogonality_span goes to `output_terms` of `RouterAndExperts`",
        ),
        (lambda: _task(output_terms={"load": 1.0}), "got 'load', known are orthogonality_paper, "),
        (lambda: _task(output_terms={"orthogonality_span": -1.0}), r"`terms\[orthogonality_span\]` .* got -1"),
        (lambda: dynamics.LogitGradient(RANDOM, {"load": 1.0})(jnp.zeros((2, 3))), "`key` must be given .*; got None"),
        (
            lambda: dynamics.PopulationGradient(RANDOM, {"load": 1.0}, jnp.ones(1)),
            r"no random policy in a population; st-moe has KeepRandomly",
        ),
        (lambda: dynamics.logit_change(jnp.zeros((3, 4)), X), r"got \(3, 4\), \(5, 2\)"),
    ],
)  # fmt: skip
def test_functions_refuse(call, match):
    refuses(call, match=match)


def _onset(**changed):
    good = {"inputs": X, "moment": jnp.eye(2), "curvature": jnp.eye(2), "num_experts": 3}
    return dynamics.onset(**good | {"contrast_rate": 0.0, "common_rate": 0.0} | changed)


TASK = _task()
LOGITS = dynamics.FreeLogits(TERMS)


@pytest.mark.parametrize(
    ("field", "start", "match"),
    [
        (TASK, MIXTURE.router, r"must take the state, \(3, 2\); it fails with: .* attribute router"),
        (TASK, MIXTURE._replace(experts=MIXTURE.experts[:1]), r"= \(5, 3, 2\), outputs as `targets`; got \(5, 1, 2\)"),
        (TASK, MIXTURE._replace(experts=MIXTURE.experts[..., :1]), r"outputs as `targets`; got \(5, 3, 1\)"),
        (LOGITS, MIXTURE, r"must take the state, Mixture\(router=\(3, 2\), experts=\(3, 2, 2\)\); it fails with: "),
        (LOGITS, jnp.zeros((5, 4)), "partition has 3 experts, `logits` has 4"),
        (dynamics.LinearRouter(TERMS, X), jnp.zeros((2, 3)), r"must take the state, \(2, 3\); .* dot_general"),
        (lambda s: s.sum(), jnp.ones(2), r"must give the state's structure, \(2,\); got \(\)"),
        (
            dynamics.BiasedReinforcement(1.0, 1.0, 1.0, 1.0),
            dynamics.Biased(jnp.zeros(2), jnp.zeros(1)),
            r"structure, Biased\(scores=\(2,\), bias=\(1,\)\); got Biased\(scores=\(2,\), bias=\(2,\)\)",
        ),
    ],
)  # fmt: skip
def test_a_state_of_another_structure_is_refused(field, start, match):
    refuses(lambda: dynamics.flow(field, start, (0.0, 1.0)), match=match)
    refuses(lambda: dynamics.jacobian(field, start), match=match)


# Values at the edge


def test_nothing_grows_without_coupling_and_load():
    assert float(dynamics.slowed_rate(0.0, 0.0)) == 0.0
    np.testing.assert_array_equal(dynamics.slowed_rate(jnp.zeros(3), jnp.array([-2.0, 0.0, 3.0])), [0.0, 0.0, 3.0])
    assert float(dynamics.slowed_rate(1e-200, 0.0)) == pytest.approx(1e-200, rel=1e-12)  # c^2 underflows
