r"""Growth near symmetric states: a linear router's four modes at uniform routing (D1), and the specialisation of
linear experts (D6).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from himoe_theory import Partition, _checks, dynamics
from himoe_theory import objectives as obj

from ..data import Clusters
from .steps import descend, fitted_rate, stepped

MODES = ("contrast, within", "contrast, between", "common, within", "common, between")
LOADS = ("full", "frozen")
FOLDS = 3.0
"""Factors of e by which the fastest mode of a setting grows."""
GROWTH = 17.5
"""The same for specialisation, which goes on from 1e-7 until it is no longer small."""


SIZES = ((2, 1), (2, 2), (4, 2), (8, 2), (16, 4))
"""Experts and experts of a group. Two experts have modes within one group or between two, not both."""


def modes(
    sizes: tuple[tuple[int, int], ...] = SIZES, draws: int = 4, steps: int = 60, records: int = 12, seed: int = 0
) -> xr.Dataset:
    r"""Plain gradient steps of a linear router from small perturbations of uniform routing, against D1.

    Four tokens $x_t = (\mu, \pm\sigma)$, so that the tokens' mean and one contrast are the eigenvectors of their Gram
    matrix, with eigenvalues $\mu^2$ and $\sigma^2$. Coefficients and lengths are drawn at random, once a setting.

    **Arguments:** `sizes`: as `SIZES`. `draws`: settings of each. `steps`: steps in which the fastest mode grows or
    decays by e³; `records` divides it. **Returns:** `predicted` (flow), `corrected` (for the step size) and `measured`
    rates over (layer, draw, load_kind, mode), with `size` over records at `time`; `exists` over (layer, mode): modes
    within groups of one expert, or between groups of which there is one, are none, and their numbers NaN.
    **Source:** [himoe-theory] D1.
    """
    _checks.count("draws", draws)
    _checks.count("records", records, maximum=steps, of="steps")
    names = [f"N = {experts}, S = {size}" for experts, size in sizes]
    found = [_modes_of(experts, size, draws, steps, records, seed) for experts, size in sizes]
    return xr.concat(found, dim="layer").assign_coords(layer=names, experts=("layer", [n for n, _ in sizes]))


def _modes_of(experts: int, group_size: int, draws: int, steps: int, records: int, seed: int) -> xr.Dataset:
    """`modes` for one number of experts and one size of groups."""
    rng = np.random.default_rng(seed)
    exists = np.array([group_size > 1, experts > group_size] * 2)
    numbers = {
        "intra": rng.uniform(0.1, 1.0, draws),
        "inter": rng.uniform(0.0, 1.5, draws) / group_size,
        "alpha": rng.uniform(0.02, 0.3, draws),
        "mean": rng.uniform(0.7, 1.5, draws),
        "contrast": rng.uniform(0.7, 1.5, draws),
    }
    rates = _mode_rates(numbers, experts, group_size)
    step = FOLDS / np.abs(rates[:, :, exists]).max(axis=(1, 2)) / steps
    rates = np.where(exists, rates, np.nan)
    starts = 1e-6 * _starts(experts, group_size, rng)[exists]
    partition = Partition.equal(experts, experts // group_size)
    stride = steps // records
    sizes = np.stack([_mode_sizes(load, partition, starts, step, numbers, records, stride) for load in LOADS], axis=1)
    times = step[:, None] * stride * np.arange(records + 1)
    slopes = [[[fitted_rate(t, size) for size in row] for row in own] for t, own in zip(times, sizes, strict=True)]
    measured, all_sizes = np.full(rates.shape, np.nan), np.full((*rates.shape, records + 1), np.nan)
    measured[:, :, exists], all_sizes[:, :, exists] = np.array(slopes), sizes / sizes[..., :1]
    axes = ("draw", "load_kind", "mode")
    return xr.Dataset(
        {
            "predicted": (axes, rates),
            "corrected": (axes, stepped(rates, step[:, None, None])),
            "measured": (axes, measured),
            "size": ((*axes, "record"), all_sizes),
            "time": (("draw", "record"), times),
            "exists": ("mode", exists),
        },
        {"load_kind": list(LOADS), "mode": list(MODES)},
    )


def _mode_rates(
    numbers: dict[str, Float[np.ndarray, " draws"]], experts: int, group_size: int
) -> Float[np.ndarray, "draws 2 4"]:
    intra, inter, alpha = (jnp.asarray(numbers[name]) for name in ("intra", "inter", "alpha"))
    several, none = experts > group_size, jnp.full_like(intra, jnp.nan)
    within = dynamics.contrast_within(intra, experts)
    between = dynamics.contrast_between(intra, inter, experts, group_size) if several else none
    full = (
        dynamics.common_within_full(intra, alpha, experts),
        dynamics.common_between_full(intra, inter, alpha, experts, group_size) if several else none,
    )
    frozen = (
        dynamics.common_within_frozen(intra, alpha, experts),
        dynamics.common_between_frozen(intra, inter, alpha, experts, group_size) if several else none,
    )
    gram = (numbers["contrast"] ** 2, numbers["contrast"] ** 2, numbers["mean"] ** 2, numbers["mean"] ** 2)
    every = [
        [k * np.asarray(rate) for k, rate in zip(gram, (within, between, *common), strict=True)]
        for common in (full, frozen)
    ]
    return np.moveaxis(np.array(every), -1, 0)


def _starts(experts: int, group_size: int, rng: np.random.Generator) -> Float[np.ndarray, "4 experts 2"]:
    """Unit directions of the weights `[experts, (mean, contrast)]`, in the order of `MODES`; 0 for those that are
    none."""
    inside = rng.standard_normal((experts // group_size, group_size))
    inside = (inside - inside.mean(axis=1, keepdims=True)).ravel()
    across = rng.standard_normal(experts // group_size)
    across = np.repeat(across - across.mean(), group_size)
    starts = np.zeros((4, experts, 2))
    for mode, (token, expert) in enumerate(((1, inside), (1, across), (0, inside), (0, across))):
        length = np.linalg.norm(expert)
        starts[mode, :, token] = expert / length if length > 0 else 0.0
    return starts


def _mode_sizes(
    load: str,
    partition: Partition,
    starts: Float[np.ndarray, "modes experts 2"],
    step: Float[np.ndarray, " draws"],
    numbers: dict[str, Float[np.ndarray, " draws"]],
    records: int,
    stride: int,
) -> Float[np.ndarray, "draws modes records"]:
    """How far the weights reach along their own start, over time."""
    load_grad = {"full": obj.p_squared_grad, "frozen": obj.load_frozen_grad}[load]

    def field(weight: Array, n: dict[str, Array]) -> Array:
        tokens = jnp.stack([n["mean"] * jnp.ones(4), n["contrast"] * jnp.array([1.0, -1.0, 1.0, -1.0])], axis=1)
        logits = tokens @ weight.T
        push = n["intra"] * obj.intra_group_global_grad(logits)
        push += n["inter"] * obj.inter_group_dense_grad(logits, partition) + n["alpha"] * load_grad(logits)
        return -push.T @ tokens

    def run(start: Array, eta: Array, n: dict[str, Array]) -> Array:
        weights = descend(field, start, eta, records, stride, n)
        return jnp.einsum("rei,ei->r", weights, start) / jnp.square(start).sum()

    over_modes = jax.vmap(run, in_axes=(0, None, None))
    found = jax.vmap(over_modes, in_axes=(None, 0, 0))(
        jnp.asarray(starts), jnp.asarray(step), jax.tree.map(jnp.asarray, numbers)
    )
    return np.asarray(found)


def specialisation(
    sizes: tuple[int, ...] = (2, 4, 8, 16), tokens: int = 256, dim: int = 6, share: float = 0.025, seed: int = 0
) -> xr.Dataset:
    r"""Linear experts under a linear softmax router, leaving the symmetric state from a small random start, against D6.

    One fixed batch of clusters, each with its own linear target; experts start at the least-squares fit. Plain steps of
    size $\eta \propto N$ on router and experts, so that every N takes the same number of steps.

    **Arguments:** `sizes`: numbers of experts. `share`: the predicted growth in one step. **Returns:** over experts
    `predicted`, `corrected` and `measured` rates along the eigenvector of the largest |eigenvalue|, and the norms of
    router rows and expert deviations along it over `record` at `time`. **Source:** [himoe-theory] D6.
    """
    _checks.positive("share", share)
    x, y = fixed_batch(tokens, dim, seed)
    fit, *_ = np.linalg.lstsq(x, y, rcond=None)
    moment = dynamics.residual_moment(jnp.asarray(x), jnp.asarray(y - x @ fit))
    values, vectors = np.linalg.eigh(np.asarray(moment))
    fastest = jnp.asarray(vectors[:, np.abs(values).argmax()])
    flow = np.array([float(dynamics.specialisation_rates(moment, n, 1.0, 1.0)[0]) for n in sizes])
    step, stride, widest = share / flow, max(1, round(0.25 / share)), max(sizes)
    records = math.ceil(GROWTH / (share * stride))
    rng = np.random.default_rng((seed, 1))
    starts, there = [], 1.0 * (np.arange(widest) < np.array(sizes)[:, None])
    for mask in there:
        noise = 1e-7 * rng.standard_normal((2, widest, dim)) * mask[:, None]
        starts.append(np.stack([noise[0], noise[1] + fit * mask[:, None]]))

    def run(start: Array, eta: Array, mask: Array) -> Array:
        states = descend(mixture_field, start, eta, records, stride, jnp.asarray(x), jnp.asarray(y), mask)
        along = (states @ fastest) * mask
        mean = along.sum(axis=2, keepdims=True) / mask.sum()
        return jnp.sqrt(jnp.square((along - mean) * mask).sum(axis=2))

    norms = np.asarray(jax.vmap(run)(jnp.asarray(np.stack(starts)), jnp.asarray(step), jnp.asarray(there)))
    times = step[:, None] * stride * np.arange(norms.shape[1])
    measured = [_rate_between(t, norm[:, 0], 1e-4, 1e-2) for t, norm in zip(times, norms, strict=True)]
    return xr.Dataset(
        {
            "predicted": ("experts", flow),
            "corrected": ("experts", stepped(flow, step)),
            "measured": ("experts", np.array(measured)),
            "norm": (("experts", "record", "part"), norms),
            "time": (("experts", "record"), times),
        },
        {"experts": list(sizes), "part": ["router", "experts"]},
    )


def fixed_batch(
    tokens: int, dim: int, seed: int
) -> tuple[Float[np.ndarray, "tokens dim"], Float[np.ndarray, " tokens"]]:
    """Tokens of three clusters, each with its own linear target, without a common mean."""
    data = Clusters(clusters=3, dim=dim, mean=0.0)
    batch = data.draw(data.truth(np.random.default_rng(seed)), jax.random.key(seed), tokens)
    dtype = jnp.zeros(0).dtype
    return np.asarray(batch.x, dtype), np.asarray(batch.y[:, 0], dtype)


def mixture_field(
    state: Float[Array, "2 experts dim"],
    x: Float[Array, "tokens dim"],
    y: Float[Array, " tokens"],
    mask: Float[Array, " experts"],
) -> Float[Array, "2 experts dim"]:
    """Descent of half the mean squared error of all experts, mixed by their softmax; experts of mask 0 do not exist."""

    def loss(state: Array) -> Array:
        mixture = jax.nn.softmax(jnp.where(mask > 0, x @ state[0].T, -jnp.inf))
        return jnp.square((mixture * (x @ state[1].T)).sum(axis=1) - y).mean() / 2

    return -jax.grad(loss)(state)


def _rate_between(
    times: Float[np.ndarray, " records"], sizes: Float[np.ndarray, " records"], low: float, high: float
) -> float:
    """Rate of growth while the size is between two bounds; NaN if it is not for long enough."""
    inside = (sizes > low) & (sizes < high)
    return fitted_rate(times[inside], sizes[inside]) if inside.sum() >= 3 else float("nan")
