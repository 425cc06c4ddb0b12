"""When specialisation sets in, under plain steps and under Adam, against the number of experts (D6)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import _checks, dynamics

from .growth import fixed_batch, mixture_field

LEVEL = 0.05
"""Root mean square of the router's entries, about their mean over experts, at which specialisation has set in."""
START = 1e-3
"""Standard deviation of the entries of router and experts about the symmetric state, at first."""


def measured_onset(
    sizes: tuple[int, ...] = (2, 4, 8, 16),
    tokens: int = 256,
    dim: int = 6,
    plain_rate: float = 0.2,
    adam_rate: float = 1e-3,
    steps: int = 1800,
    seed: int = 0,
) -> xr.Dataset:
    r"""Linear experts under a linear softmax router, from a small random start, by plain steps and by Adam.

    Equal learning rates for all N. Plain steps are predicted by the linear solution from the same start, at the rates
    $|\lambda(A)|/N$ of D6; Adam, whose epsilon is far below the gradients, by `adam_growth`, which knows no N.

    **Returns:** over (optimiser, experts): `predicted` and `measured` step at which the router reaches `LEVEL`, NaN
    where it does not; over (experts, step): `amplitude` under Adam in units of its rate, and its `curve` over step.
    **Source:** [himoe-theory] D6, extended to Adam.
    """
    _checks.count("steps", steps)
    x, y = fixed_batch(tokens, dim, seed)
    fit, *_ = np.linalg.lstsq(x, y, rcond=None)
    moment = np.asarray(dynamics.residual_moment(jnp.asarray(x), jnp.asarray(y - x @ fit)))
    optimisers = {"plain": optax.sgd(plain_rate), "Adam": optax.adam(adam_rate, eps=1e-15)}
    short = round(8 * LEVEL / adam_rate)
    curve = dynamics.adam_growth(short, start=START / adam_rate)
    rows: dict[str, list[list[float]]] = {"predicted": [], "measured": []}
    amplitudes = []
    for name, optimiser in optimisers.items():
        predicted, measured = [], []
        for size in sizes:
            start = START * np.random.default_rng((seed, size)).standard_normal((2, size, dim))
            start[1] += fit
            last = steps if name == "plain" else short
            found = _sizes(optimiser, jnp.asarray(start), jnp.asarray(x), jnp.asarray(y), last)
            linear = curve * adam_rate if name == "Adam" else _linear(start, moment, plain_rate, last)
            measured.append(_first(np.asarray(found)))
            predicted.append(_first(linear))
            if name == "Adam":
                amplitudes.append(np.asarray(found) / adam_rate)
        rows["predicted"].append(predicted)
        rows["measured"].append(measured)
    table = {name: (("optimiser", "experts"), np.array(values)) for name, values in rows.items()}
    table |= {"amplitude": (("experts", "step"), np.array(amplitudes)), "curve": ("step", curve)}
    return xr.Dataset(table, {"optimiser": list(optimisers), "experts": list(sizes), "step": np.arange(short + 1)})


def _sizes(optimiser: optax.GradientTransformation, start: Array, x: Array, y: Array, steps: int) -> Array:
    """Root mean square of the router's entries about their mean over experts, after 0, 1, ... steps."""

    def size(state: Array) -> Array:
        return jnp.sqrt(jnp.square(state[0] - state[0].mean(axis=0)).mean())

    def step(carry: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], Array]:
        state, moments = carry
        descent = mixture_field(state, x, y, jnp.ones(state.shape[1], state.dtype))
        change, moments = optimiser.update(-descent, moments, state)
        state = state + change
        return (state, moments), size(state)

    @jax.jit
    def run(start: Array) -> Array:
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its counter with the numbers
            _, sizes = jax.lax.scan(step, (start, optimiser.init(start)), length=steps)
        return jnp.concatenate([size(start)[None], sizes])

    return run(start)


def _linear(
    start: Float[np.ndarray, "2 experts dim"], moment: Float[np.ndarray, "dim dim"], rate: float, steps: int
) -> Float[np.ndarray, " times"]:
    """The same by the linear theory: along each eigenvector of A, w + d and w - d are multiplied at every step."""
    values, vectors = np.linalg.eigh(moment)
    along = (start - start.mean(axis=1, keepdims=True)) @ vectors
    time, pace = np.arange(steps + 1)[:, None, None], rate * values / start.shape[1]
    router = ((along[0] + along[1]) * (1 + pace) ** time + (along[0] - along[1]) * (1 - pace) ** time) / 2
    return np.sqrt(np.square(router).mean(axis=(1, 2)))


def _first(sizes: Float[np.ndarray, " steps"]) -> float:
    """The step, by straight lines between steps, at which a size first reaches `LEVEL`; NaN if it does not."""
    above = np.flatnonzero(sizes >= LEVEL)
    if not len(above) or above[0] == 0:
        return float("nan")
    last = int(above[0])
    return last - float((sizes[last] - LEVEL) / (sizes[last] - sizes[last - 1]))
