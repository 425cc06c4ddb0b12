"""What a layer starts by, predicted at its symmetric state and measured in training: the phases of D6 with D1."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import _checks, dynamics
from himoe_theory import objectives as obj

from ..data import Clusters

PHASES = ("frozen", "collapse", "redundant", "specialise")
_NAMES = {"frozen": 0, "collapse": 1, "sharpen": 2, "specialise": 3}
"""`Onset.name` -> place in `PHASES`: a router that sharpens alone leaves experts alike."""
LEVEL = 0.1
r"""Routing has decided once $N E\|\pi\|^2 - 1$, the variance of small logits over experts, exceeds this."""
START = 1e-2
"""Standard deviation of router rows and expert deviations at first."""
STEP = 0.5


def phases(
    strengths: tuple[float, ...] = (0.0, 0.4, 0.8, 1.2, 1.6, 2.0),
    intra: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    loads: tuple[float, ...] = (0.0, 2.0),
    mean: float = 1.0,
    experts: int = 4,
    tokens: int = 96,
    dim: int = 6,
    steps: int = 600,
    seed: int = 0,
) -> xr.Dataset:
    r"""Dense layers of linear experts over the strength of their targets, $\lambda_{intra}$ and the full load.

    One batch of three clusters with a common mean and own linear targets; the residual of the shared fit is multiplied
    by a strength, so that A of D6 is, and 0 is a target that one expert fits. Experts start near the shared fit,
    the router near 0, and all take plain steps. *Predicted*: `dynamics.onset`, and `frozen` where the leading mode
    does not bring the logits' variance to `LEVEL` within the steps. *Measured*: what had lowered the loss most when
    routing decided (`started`), and after all steps (`ended`): the task (specialise), the router's terms on the mean
    of probabilities (collapse) or about it (redundant); `frozen` before routing has decided.

    **Arguments:** `loads`: $\alpha N/\lambda_{intra}$; 1 is the D1 edge. **Returns:** places in `PHASES` over
    (load_ratio, intra, strength). **Source:** [himoe-theory] D1, D6.
    """
    _checks.count("steps", steps)
    x, fit, residual = _batch(mean, tokens, dim, seed)
    start = START * np.random.default_rng((seed, 1)).standard_normal((2, experts, dim))
    start -= start.mean(axis=1, keepdims=True)
    start[1] += fit
    logits = float(np.square(start[0] @ x.T).mean())
    predicted = [
        [[_predicted(x, s * residual, a, b, experts, logits, steps) for s in strengths] for a in intra] for b in loads
    ]

    def run(ratio: Array, a: Array, strength: Array) -> tuple[Array, Array]:
        y = jnp.asarray(x @ fit) + strength * jnp.asarray(residual)
        return _outcome(jnp.asarray(start), jnp.asarray(x), y, a, ratio * a / experts, steps)

    over = jax.vmap(jax.vmap(jax.vmap(run, in_axes=(None, None, 0)), in_axes=(None, 0, None)), in_axes=(0, None, None))
    started, ended = jax.jit(over)(jnp.asarray(loads), jnp.asarray(intra), jnp.asarray(strengths))
    axes = ("load_ratio", "intra", "strength")
    return xr.Dataset(
        {
            "predicted": (axes, np.array(predicted)),
            "started": (axes, np.asarray(started)),
            "ended": (axes, np.asarray(ended)),
        },
        {"load_ratio": list(loads), "intra": list(intra), "strength": list(strengths)},
        {"experts": experts, "mean": mean, "steps": steps},
    )


def _batch(
    mean: float, tokens: int, dim: int, seed: int
) -> tuple[Float[np.ndarray, "tokens dim"], Float[np.ndarray, " dim"], Float[np.ndarray, " tokens"]]:
    """Tokens, the shared fit and its residual."""
    data = Clusters(clusters=3, dim=dim, mean=mean)
    batch = data.draw(data.truth(np.random.default_rng(seed)), jax.random.key(seed), tokens)
    x, y = np.asarray(batch.x, np.float64), np.asarray(batch.y[:, 0], np.float64)
    fit, *_ = np.linalg.lstsq(x, y, rcond=None)
    return x, fit, y - x @ fit


def _predicted(
    x: Float[np.ndarray, "tokens dim"],
    residual: Float[np.ndarray, " tokens"],
    intra: float,
    ratio: float,
    experts: int,
    logits: float,
    steps: int,
) -> int:
    """Place of the predicted phase; `logits` is their variance at the start."""
    moment = dynamics.residual_moment(jnp.asarray(x), jnp.asarray(residual))
    lead = dynamics.onset(
        jnp.asarray(x),
        moment,
        jnp.zeros_like(moment),
        experts,
        contrast_rate=float(dynamics.contrast_within(intra, experts)),
        common_rate=float(dynamics.common_within_full(intra, ratio * intra / experts, experts)),
    )
    slow = logits * np.exp(2 * lead.rate * STEP * steps) < LEVEL
    return 0 if slow else _NAMES[lead.name]


def _outcome(
    start: Float[Array, "2 experts dim"],
    x: Float[Array, "tokens dim"],
    y: Float[Array, " tokens"],
    intra: Float[Array, ""],
    alpha: Float[Array, ""],
    steps: int,
) -> tuple[Array, Array]:
    """Places of the measured phases when routing decided and at the end."""
    experts = start.shape[1]

    def parts(state: Array) -> tuple[Array, Array]:
        probs = jax.nn.softmax(x @ state[0].T)
        task = jnp.square((probs * (x @ state[1].T)).sum(axis=1) - y).mean() / 2
        whole, each = jnp.square(probs.mean(axis=0)).sum(), jnp.square(probs).sum(axis=1).mean()
        # -intra E|pi|^2 + alpha N |p|^2, split into what it is on the mean of probabilities and about it.
        return jnp.stack([(alpha * experts - intra) * whole, -intra * (each - whole), task]), experts * each - 1

    def velocity(state: Array) -> Array:
        logits = x @ state[0].T
        slope = jax.grad(lambda s: parts(s)[0][2])(state)
        terms = intra * obj.intra_group_global_grad(logits) + alpha * obj.p_squared_grad(logits)
        return -slope.at[0].add(terms.T @ x)

    first = parts(start)[0]

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        state, started = carry
        state = state + STEP * velocity(state)
        now, sharpness = parts(state)
        place = jnp.where(sharpness > LEVEL, 1 + jnp.argmax(first - now), 0)
        return (state, jnp.where(started > 0, started, place)), None

    (state, started), _ = jax.lax.scan(step, (start, jnp.asarray(0)), length=steps)
    now, sharpness = parts(state)
    return started, jnp.where(sharpness > LEVEL, 1 + jnp.argmax(first - now), 0)
