"""Claims that extend D6 to other experts, a load and selections; and, from `dynamics_counts`, D2, D5 and D7."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import GroupedTopK, Partition, Router, TopK, dynamics, routers
from himoe_theory.selection import Selection

from ..ledger import Claim, Effort, Finding, Verdict
from ..search import QUICK, measured
from ..symbolic import equation, for_sizes
from . import dynamics_counts

INTRA = 0.4
RNG = np.random.default_rng(6)
X = RNG.normal(size=(8, 2)) + np.array([0.8, 0.1])
Y = np.stack([np.abs(X[:, 0]), X[:, 0] * X[:, 1]], axis=1)
ALONG = np.array([1.0, 2.0, -3.0])
"""How much each of three experts deviates; sums to zero."""


def _second_order(experts: int) -> tuple[sp.Expr, sp.Expr]:
    """One token, experts of one parameter: both sides of the claim, deviations summing to zero."""
    eps, r, psi, h = sp.symbols("epsilon r psi h", real=True)
    z = sp.symbols(f"z1:{experts + 1}", real=True)
    free = sp.symbols(f"delta1:{experts}", real=True)
    delta = (*free, -sum(free))
    weights = [sp.exp(eps * each) for each in z]
    moved = [psi * eps * d + h * (eps * d) ** 2 / 2 for d in delta]
    missed = r - sum(w * m for w, m in zip(weights, moved, strict=True)) / sum(weights)
    left = sp.diff(missed**2 / 2, eps, 2).subs(eps, 0)
    bilinear = sum(a * d for a, d in zip(z, delta, strict=True))
    return left, -r * (2 * psi * bilinear + h * sum(d**2 for d in delta)) / experts


@functools.partial(jax.jit, static_argnums=1, compiler_options=QUICK)
def _moments(shared: Any, expert: Callable[..., Array], targets: Array) -> tuple[Array, Array]:
    return dynamics.symmetric_moments(expert, shared, jnp.asarray(X), targets)


def _predicted(shared: Any, expert: Callable[..., Array], targets: np.ndarray, alpha: float) -> dynamics.Onset:
    return dynamics.onset(
        jnp.asarray(X),
        *_moments(shared, expert, targets),
        3,
        contrast_rate=float(dynamics.contrast_within(INTRA, 3)),
        common_rate=float(dynamics.common_within_full(INTRA, alpha, 3)),
    )


@functools.partial(jax.jit, static_argnums=1, compiler_options=QUICK)
def _moved(shared: Any, expert: Callable[..., Array], targets: Array, alpha: Array, router: Array, change: Any) -> Any:
    """What the Jacobian of the whole flow of three experts does to a mode of the symmetric state."""
    flat = routers.dense(Partition((0, 0, 0)))
    gradient = dynamics.LogitGradient(flat, {"intra_group_global": INTRA, "p_squared": alpha})
    field = dynamics.RouterAndExperts(flat, gradient, expert, jnp.asarray(X), targets)

    def times(leaf: Array) -> Array:
        return jnp.stack([c * leaf for c in ALONG])

    state = dynamics.Mixture(jnp.zeros((3, 2)), jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), shared))
    mode = dynamics.Mixture(times(router), jax.tree.map(times, change))
    moved = jax.jvp(field, (state,), (mode,))[1]
    return jax.flatten_util.ravel_pytree(mode)[0], jax.flatten_util.ravel_pytree(moved)[0]


def _whole(
    shared: Any, expert: Callable[..., Array], targets: np.ndarray, alpha: float
) -> tuple[dynamics.Onset, float]:
    """The leading mode, and its rate in the whole problem, where it must be a mode."""
    lead = _predicted(shared, expert, targets, alpha)
    leaves, structure = jax.tree.flatten(shared)
    cuts = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [part.reshape(leaf.shape) for part, leaf in zip(np.split(lead.experts, cuts), leaves, strict=True)]
    change = jax.tree.unflatten(structure, parts)
    mode, moved = map(np.asarray, _moved(shared, expert, targets, np.asarray(alpha), lead.router, change))
    rate = float(mode @ moved / (mode @ mode))
    if np.abs(moved - rate * mode).max() > 1e-9:
        raise AssertionError(f"the predicted mode {mode} is none: it moves by {moved}")
    return lead, rate


def _any_experts(effort: Effort) -> Iterator[Finding]:
    yield for_sizes(
        "two and three experts of one parameter, one token",
        [_second_order(2), _second_order(3)],
        variants=lambda right: {"without the curvature of the residual": right.subs(sp.Symbol("h", real=True), 0)},
    )
    shared = (np.array([[0.4, -0.9], [1.1, 0.3]]), np.array([[0.8, 0.2], [-0.5, 1.0]]))
    lead, rate = _whole(shared, dynamics.two_layer_expert, Y, 0.3)
    yield measured(
        "three two-layer experts, 8 tokens, intra term and load: rate in the Jacobian of the whole flow",
        [("leading mode", lead.rate, rate)],
        within=1e-9,
        wrong={"without the curvature of the residual": [lead.rate - lead.curvature], "doubled": [2 * lead.rate]},
    )


ANY_EXPERTS = Claim(
    id="specialisation/any-experts",
    statement=r"\partial^2 L = -\frac{1}{N} \sum_i \left( 2 w_i^\top A\, \delta_i + \delta_i^\top H\, \delta_i "
    r"\right), "
    r"\quad A = E[x\,(r \cdot \partial_\theta f)], \quad H = E[r \cdot \partial_\theta^2 f]",
    words="For experts of any kind the residual's curvature joins the coupling of router and experts; what the squares "
    "of their tangents give drops out.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_any_experts,
    assumptions=("deviations sum to zero over experts", "a zero router, all experts used, half the squared error"),
    functions=(dynamics.symmetric_moments, dynamics.onset, dynamics.RouterAndExperts),
    remark="The notes of this package name the first term alone, which is all there is for linear experts. With the "
    "router's terms its block gains their rates of D1.",
)


def _no_load(effort: Effort) -> Iterator[Finding]:
    rho = sp.Symbol("rho", real=True)
    c = sp.Symbol("c", positive=True)
    mu = (rho + sp.sqrt(rho**2 + 4 * c**2)) / 2
    yield equation(
        mu * (mu - rho),
        c**2,
        variants={"the load subtracts": (c - rho) * c},
        why="The roots of mu (mu - rho) = c^2 have the product -c^2: one is positive, whatever rho.",
    )
    target = Y[:, 1:]
    shared = np.linalg.lstsq(X, target, rcond=None)[0]
    pairs, subtracted = [], []
    for alpha in (0.0, 1.0, 100.0):
        lead, rate = _whole(shared, dynamics.linear_expert, target, alpha)
        pairs.append((f"alpha = {alpha:g}", lead.rate, rate))
        subtracted.append(lead.rate - float(dynamics.load_pull_full(alpha, 3)))
    yield measured(
        "leading mode of three linear experts under the full load, in the Jacobian of the whole flow",
        pairs,
        within=1e-9,
        wrong={"the load subtracts": subtracted},
    )
    numbers = [(f"rho = {r:g}", float(dynamics.slowed_rate(0.3, r)), _top(0.3, r)) for r in (-50.0, -0.2, 0.4)]
    wrong = {"c + rho": [0.3 + r for r in (-50.0, -0.2, 0.4)]}
    yield measured("larger eigenvalue of the block", numbers, within=1e-9, wrong=wrong)


def _top(c: float, rho: float) -> float:
    return float(np.linalg.eigvalsh([[rho, c], [c, 0.0]])[-1])


NO_LOAD = Claim(
    id="specialisation/no-load-stops-it",
    statement=r"\mu = \frac{1}{2}\left(\rho + \sqrt{\rho^2 + 4 c^2}\right) > 0, \quad "
    r"c = \sqrt{\eta_w \eta_v}\,|\lambda(A)|/N",
    words="A load of any strength slows specialisation from the symmetric state and never stops it.",
    source="[himoe-theory] D6",
    recorded=Verdict.PROVED,
    check=_no_load,
    assumptions=(
        "linear experts",
        "an eigenvector of A that the router's terms multiply by the rate rho, positive or negative",
        "to leading order, gradient flow",
    ),
    functions=(dynamics.slowed_rate, dynamics.onset),
    remark="Of the three phases of the linear theory (specialise, collapse, frozen) the frozen one needs A = 0. In "
    "general mu is a lower bound of the leading rate, rho being the router's term along a singular vector of A.",
)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def _velocity(selection: Selection, state: dynamics.Mixture, targets: Array) -> dynamics.Mixture:
    router = Router("top", Partition((0, 0, 1, 1)), selection, "himoe-theory")
    return dynamics.RouterAndExperts(router, None, dynamics.linear_expert, jnp.asarray(X), targets)(state)


def _selection(effort: Effort) -> Iterator[Finding]:
    target = Y[:, 1:]
    rows = np.array([[0.3, 1.0], [0.4, -0.9], [-0.1, 0.1], [0.2, 0.6]])
    shared = np.linalg.lstsq(X, target, rcond=None)[0]
    residuals = jnp.asarray((target - X @ shared)[:, 0])
    pairs, smaller = [], []
    for selection, size in itertools.product((TopK(1), GroupedTopK(1)), (1e-6, 1e-9)):
        state = dynamics.Mixture(jnp.asarray(size * rows), jnp.asarray(np.stack([shared] * 4)))
        found = np.linalg.norm(np.asarray(_velocity(selection, state, jnp.asarray(target)).experts))
        order = np.argsort(-X @ rows.T, axis=1)
        groups = [order[:, :1]] if selection == TopK(1) else [_best(order, (0, 1)), _best(order, (2, 3))]
        combine = sum(np.eye(4)[g[:, 0]] for g in groups) / len(groups)
        drive = dynamics.selection_drive(jnp.asarray(X), residuals, jnp.asarray(combine))
        pairs.append((f"{selection}, rows of size {size:g}", float(np.linalg.norm(np.asarray(drive))), float(found)))
        smaller.append(size * pairs[-1][1])
    yield measured(
        "norm of the experts' velocity where they agree at least squares, 8 tokens, 4 experts",
        pairs,
        within=1e-5,
        wrong={"in proportion to the router's rows": smaller, "none, as with all experts used": [0.0] * 4},
    )


def _best(order: np.ndarray, members: Sequence[int]) -> np.ndarray:
    return np.array([[next(e for e in row if e in members)] for row in order])


SELECTION = Claim(
    id="specialisation/selection",
    statement=r"\dot\delta_i = \eta_v E[w_i\, r\, x], \quad w_i = 1/K \text{ where } i \text{ is selected}, "
    r"\text{ as } W \to 0",
    words="Under top-K, free or grouped, experts that agree separate at once, at a speed that does not depend on how "
    "small the router is; with all experts used they wait for it.",
    source="[himoe-theory] D6",
    recorded=Verdict.SUPPORTED,
    check=_selection,
    assumptions=("weights renormalised over the selection", "the shared expert is the least-squares fit"),
    functions=(dynamics.selection_drive, dynamics.RouterAndExperts),
    remark="So there is no factor of K and N on the rate: growth from selection noise is linear in time at first.",
)


CLAIMS = (ANY_EXPERTS, NO_LOAD, SELECTION, *dynamics_counts.CLAIMS)
