"""Every public function and class of the library refuses what is no argument by one line that names it.

Found by introspection: a function that is added is met, and must have its arguments in `GOOD` below.
"""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import himoe_theory
from himoe_theory import Partition, bounds, dynamics, geometry, metrics, objectives, routers

from .test_bad_input import refuses

pytestmark = pytest.mark.usefixtures("unchecked")  # users have no annotations that are checked

RNG = np.random.default_rng(2)
GROUPS = Partition((0, 0, 1, 1))
LOGITS = jnp.asarray(RNG.normal(size=(3, 4)))
X = jnp.asarray(RNG.normal(size=(3, 2)))
PICKS = jnp.array([[0, 2], [1, 3], [2, 0]])
FLAGS = jnp.asarray(LOGITS > 0)
FLAT = routers.dense(GROUPS)
TERMS = dynamics.LogitGradient(FLAT, {"p_squared": 1.0})
FIELD = dynamics.FreeLogits(TERMS)
EXPERTS = jnp.asarray(RNG.normal(size=(4, 2, 1)))
TASK = dynamics.RouterAndExperts(FLAT, None, dynamics.linear_expert, X, X[:, :1])
MIXTURE = dynamics.Mixture(jnp.zeros((4, 2)), EXPERTS)

BAD = {
    "none": None,
    "text": "abc",
    "mapping": {"a": {}},
    "ragged": [[1.0], [1.0, 2.0]],
    "objects": np.array([[None, {}]]),
    "masked": np.ma.array([[1.0, 2.0]], mask=[[True, False]]),
    "huge": 10**400,
    "thing": object(),
}
NUMBERS = (
    "alpha beta lambda_intra lambda_inter gain decay rate density expert_control group_control purity mass coupling "
    "load_pull router_term contrast_rate common_rate tau temperature spread u step epsilon start router_rate "
    "expert_rate noise_std span rest tolerance factor threshold width coefficient group_beta"
)
GOOD = {name: 1.0 for name in NUMBERS.split()} | {
    "a": LOGITS, "after": FLAGS, "active": FLAGS, "amounts": jnp.ones(3), "assignments": PICKS[:, 0], "b": LOGITS,
    "before": FLAGS, "beta1": 0.9, "beta2": 0.9, "candidates": 4, "change": LOGITS, "choices": PICKS[:, :2],
    "combine": abs(LOGITS), "count": 2, "counts": np.array([4, 2, 3, 3]), "curvature": jnp.eye(2),
    "displacement": LOGITS, "evaluations": 10, "excess": LOGITS[0], "expert": dynamics.linear_expert, "experts": PICKS,
    "field": FIELD,
    "found": {"x": 1.0}, "gradients": X, "group_size": 2, "inner": X[:, 0], "inputs": X, "k": 2, "kept": FLAGS,
    "labels": PICKS[:, 0], "layers": (X.T, X), "level": 0.9, "live": 2, "load": jnp.ones(4), "logits": LOGITS,
    "mask": jnp.ones(3, bool), "matrix": jnp.eye(3), "mean": jnp.zeros(2), "mode": LOGITS, "moment": jnp.eye(2),
    "moving": True, "noise": LOGITS, "num_experts": 4, "num_groups": 2, "num_labels": 4, "order": 2,
    "outputs": jnp.asarray(RNG.normal(size=(3, 2, 5))), "p": 0.4, "parameters": EXPERTS[0], "partition": GROUPS,
    "per_group": (1, 1), "probs": jax.nn.softmax(LOGITS), "rates": np.ones(2), "residuals": X[:, 0], "root": jnp.eye(2),
    "rounds": 2, "routes": 2, "routing": FLAT.step(None, FLAT.init(LOGITS.dtype), LOGITS)[0], "scores": LOGITS[0],
    "selected": FLAGS, "share": jnp.ones(4) / 4, "sizes": (3, 4), "slopes": X.T, "square_a": abs(X[:, 0]),
    "square_b": abs(X[:, 0]), "state": LOGITS, "steps": 3, "switches": 2, "table": abs(LOGITS), "targets": X[:, :1],
    "times": [0.0, 1.0], "tokens": 8, "weights": abs(LOGITS), "x": X[0],
}  # fmt: skip
BY_FUNCTION = {
    "coupling": {"probs": jnp.ones(3) / 3}, "coupling_bound": {"probs": jnp.ones(3) / 3},
    "silhouette": {"outputs": X}, "shares": {"weights": jnp.ones(3) / 3}, "logit_change": {"mode": X},
    "mixture_shares": {"field": TASK, "state": MIXTURE, "mode": MIXTURE},
    "choice_redundancy": {"choices": PICKS % 3}, "live_upper_end_frozen": {"gain": 3.0, "decay": 0.1},
    "live_coefficient_frozen": {"live": 1}, "bias_walk_floor": {"rate": 0.1}, "settle": {"start": LOGITS},
    "flow": {"start": LOGITS}, "switched_flow": {"start": LOGITS, "field": dynamics.Sliding(FIELD, FIELD, jnp.sum)},
    "collapse_window": {"alpha": 0.1}, "parameter_cosine": {"parameters": X}, "orthogonality_paper": {"epsilon": 0.1},
}  # fmt: skip
CALLED_BY_FIELDS = {"linear_expert", "proportional", "two_layer_expert"}
"""One-line laws that fields call inside compiled programs, on what the fields have checked."""


def public():
    """Functions of arrays and numbers, and the classes that are made of one number, once each."""
    found = {}
    for module in (metrics, dynamics, objectives, bounds, geometry):
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__.startswith(module.__name__)
            own = own and not value.__module__.endswith(".scopes")  # of routings: see test_scopes
            if own and not name.startswith("_") and name not in CALLED_BY_FIELDS:
                found.setdefault(value, name)
    for kind in ("KeepAbove", "KeepRandomly", "Renormalised", "SelectionBias"):
        found[getattr(himoe_theory, kind)] = kind
    return {name: value for value, name in found.items()}


def unused_or_fit(name, argument, kind, default):
    """What is no mistake: None where it is the default, a list of lists as a state, a state that names do not need."""
    if kind == "none" and default is None:
        return True
    if kind == "ragged" and argument in ("start", "state", "parameters", "displacement"):
        return True
    return (name, argument) == ("mode_shares", "state")


@pytest.mark.parametrize(("name", "function"), public().items(), ids=lambda x: x if isinstance(x, str) else "")
def test_what_is_no_argument_is_named(name, function):
    parameters = inspect.signature(function).parameters
    good = {argument: GOOD[argument] for argument in parameters} | BY_FUNCTION.get(name, {})
    for argument, parameter in parameters.items():
        for kind, bad in BAD.items():
            if not unused_or_fit(name, argument, kind, parameter.default):
                refuses(partial(function, **good | {argument: bad}), match=rf"`{argument}[`\[ ]")


def test_the_walk_meets_everything():
    assert len(public()) >= 170
