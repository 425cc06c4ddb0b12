"""Closed forms against autodiff: the largest error of every objective's gradient over random routings.

Each case is a batch of random tokens, routed by a bias-corrected grouped router with unequal, interleaved groups, so
that raw and selection logits differ and no symmetry hides a sign or an index.
"""

import functools
import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import Partition, Routing, _checks, routers
from himoe_theory.objectives import OBJECTIVES, Objective, View
from himoe_theory.objectives.record import variable, with_variable

from .precision import float64

PARTITION = Partition((0, 1, 0, 2, 1, 0, 2, 2))
PER_GROUP = (1, 1, 2)
TOKENS = 12
OUTPUT_DIM = 8
BOUND = 1e-12
"""Largest error of a right closed form; float64 rounding leaves about 3e-15, a wrong factor leaves 1e-2 and more."""

Gradients = Mapping[str, tuple[Array, Array]]
"""Objective → (closed form, autodiff)."""


def _route(logits: Float[Array, "tokens experts"]) -> Routing:
    router = routers.himoe(PARTITION, PER_GROUP, tau=0.5, beta=0.9, temperature=0.7)
    return router.step(None, router.init(logits.dtype), logits)[0]


def both_gradients(logits: Float[Array, "tokens experts"], outputs: Float[Array, "tokens routes dim"]) -> Gradients:
    """Closed form and autodiff of every objective, in the variable that its closed form is in."""
    view = View(_route(logits), outputs)
    found: dict[str, tuple[Array, Array]] = {}
    for name, objective in OBJECTIVES.items():

        def value(at: Array, objective: Objective = objective) -> Array:
            return objective.value(with_variable(view, objective.of, at))

        found[name] = objective.gradient(view), jax.grad(value)(variable(view, objective.of))
    return found


def error(closed: Array, autodiff: Array) -> Float[Array, ""]:
    r"""Largest error of the per-token gradient, $T\,|c - a| / \max(1, T\,|a|_{\max})$: absolute below 1, relative
    above.

    Not relative throughout: at one-hot routing the gradients themselves vanish, and the rounding of any way to compute
    them is all that a ratio would show.
    """
    tokens = closed.shape[0]
    return tokens * jnp.abs(closed - autodiff).max() / jnp.maximum(1, tokens * jnp.abs(autodiff).max())


# The cases are few and the program is large: compiling without optimisation is what saves time.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def _errors(logits: Array, outputs: Array) -> dict[str, Array]:
    def one(s: Array, x: Array) -> dict[str, Array]:
        return {n: error(*pair) for n, pair in both_gradients(s, x).items()}

    return jax.vmap(jax.vmap(one))(logits, outputs)


def audit(concentrations: Sequence[float], samples: int = 16, seed: int = 0) -> xr.Dataset:
    """Largest error of every closed-form gradient, over `samples` random cases at each concentration.

    Computed in float64 whatever the session's precision. **Arguments:** `concentrations`: standard deviations of the
    logits (for L_o: of the outputs), above 0. `samples`: cases each. `seed`: of the random cases.
    **Returns:** `max_error` over (objective, concentration), NaN if any case gave NaN.
    """
    for c in concentrations:
        _checks.positive("concentrations", c)
    _checks.count("number of concentrations", len(concentrations))
    _checks.count("samples", samples)
    _checks.count("seed", seed, minimum=0)
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    scale = np.asarray(concentrations, dtype=np.float64)[:, None, None, None]
    routes = sum(PER_GROUP)
    logits = scale * rng.standard_normal((1, samples, TOKENS, PARTITION.num_experts))
    outputs = scale[..., None] * rng.standard_normal((1, samples, TOKENS, routes, OUTPUT_DIM))
    with float64():
        errors = jax.device_get(_errors(jnp.asarray(logits), jnp.asarray(outputs)))
    names = list(OBJECTIVES)
    worst = np.stack([errors[name].max(axis=1) for name in names])
    packages = ("jax", "jaxlib", "numpy", "himoe-theory")
    return xr.Dataset(
        {"max_error": (("objective", "concentration"), worst)},
        {"objective": names, "concentration": list(concentrations)},
        {
            "dtype": "float64",
            "eps": float(np.finfo(np.float64).eps),
            "samples": samples,
            "seed": seed,
            "seconds": time.perf_counter() - began,
            "versions": json.dumps({p: importlib.metadata.version(p) for p in packages}, sort_keys=True),
        },
    )
