"""Claims about the router of Chen et al. when experts have learned: what the signs average out of its gradient."""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase, KroneckerDelta

from himoe_theory import Softmax, uniform_noise_top1

from ..ledger import Claim, Effort, Finding, Verdict, about
from ..notation import N, Values, e, j
from ..search import QUICK
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import witness


def _descent(gate: Expr, own: Expr, chosen: bool, margin: Expr, along: Expr) -> Expr:
    """Minus the derivative of one sample's logistic loss in a router row, where its patches sum to `along`.

    **Arguments:** `gate`, `own`: probabilities of the chosen expert and of the row's, which are the same if `chosen`.
    `margin`: label times output of the chosen expert, before its gate. The softmax's Jacobian is a claim of its own.
    """
    return margin * gate * (int(chosen) - own) * along / (1 + sp.exp(gate * margin))


def _mean(chosen: bool, noise: bool, centre: Expr) -> Expr:
    """The same, averaged over the signs, along the signal or the noise feature.

    The expert's output is a times the label, plus b times the sign of the noise feature, plus `centre`. The rows have
    no feature components, so that the probabilities depend on the centre alone and not on the signs.
    """
    a, b, alpha, gamma = sp.symbols("a b alpha gamma", real=True)
    own, other = sp.symbols("pi_m pi_j", positive=True)
    terms = (
        _descent(own if chosen else other, own, chosen, a + y * s * b + y * centre, s * gamma if noise else y * alpha)
        for y, s in itertools.product((1, -1), repeat=2)
    )
    return sp.Add(*terms) / 4


def _features(effort: Effort) -> Iterator[Finding]:
    numbers = {"a": 1, "b": 0, "alpha": 1, "pi_m": sp.Rational(1, 2)}
    responds = _mean(True, False, sp.S.One)
    responds = responds.subs({symbol: numbers[symbol.name] for symbol in responds.free_symbols})
    for chosen, noise in itertools.product((True, False), repeat=2):
        found = equation(
            _mean(chosen, noise, sp.S.Zero),
            sp.S.Zero,
            variants={"an expert that responds to the centre": responds},
            why="With both signs flipped, label times output is the same and the feature's patch the opposite.",
        )
        feature, expert = "noise" if noise else "signal", "own" if chosen else "another"
        yield about(f"along the {feature} feature, {expert} expert chosen", found)
    _check_descent()


RESPONSES = np.array([[0.9, 0.3], [-0.4, 0.5], [0.2, -0.7]])
"""Of three experts to the signal and to the noise feature."""
LENGTHS = (1.3, 0.8, 0.6)
"""alpha, beta, gamma."""


@functools.partial(jax.jit, compiler_options=QUICK)
def _slope(rows: Array, responses: Array, constant: Array) -> Array:
    """Minus the gradient of the expected loss on one cluster, in the rows' components along v_k, c_k, v_k'."""
    alpha, beta, gamma = LENGTHS
    signs = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])

    def risk(rows: Array) -> Array:
        inputs = jnp.stack([signs[:, 0] * alpha, jnp.full(4, beta), signs[:, 1] * gamma], axis=1)
        logits = inputs @ rows.T
        choice = jax.lax.stop_gradient(uniform_noise_top1(logits))
        outputs = signs @ responses.T + constant
        loss = jax.nn.softplus(-signs[:, :1] * Softmax().value(logits) * outputs)
        return (choice * loss).sum(axis=1).mean()

    return -jax.grad(risk)(rows)


def _check_descent() -> None:
    """Autodiff of the expected loss, choices weighted by the law of the router's noise."""
    rows = np.zeros((3, 3))
    rows[:, 1] = (0.2, -0.1, 0.4)
    silent, not_silent = (
        np.asarray(_slope(jnp.asarray(rows), jnp.asarray(RESPONSES), jnp.full(3, constant))) for constant in (0.0, 0.5)
    )
    if np.abs(silent[:, [0, 2]]).max() > 1e-15 or np.abs(not_silent[:, 0]).max() < 1e-3:
        raise AssertionError(f"autodiff gives {silent} and, with a response to the centre, {not_silent}")


FEATURES = Claim(
    id="chen/router-gradient-features",
    statement=r"\mathbb{E}_{y, \epsilon} \langle \partial L/\partial \theta_m, v_k \rangle = "
    r"\mathbb{E}_{y, \epsilon} \langle \partial L/\partial \theta_m, v_{k'} \rangle = 0",
    words="On the features the signs average the router's gradient out, exactly, if the experts do not respond to the "
    "centres and the router's rows have no feature components: so they never get any.",
    source="[chen] second stage of training",
    recorded=Verdict.PROVED,
    check=_features,
    assumptions=(
        "experts respond to features alone, oddly, as after the first stage up to small terms",
        "the population's gradient; the choice of expert does not depend on the signs",
    ),
    functions=(Softmax.value, uniform_noise_top1),
    remark="Flipping both signs flips the sample's features and the expert's output, and leaves the loss as it is.",
)


def _responding(effort: Effort) -> Iterator[Finding]:
    def exact(constant: int) -> Expr:
        """Two experts at rows 0, both with output y + constant, alpha = 1; along v_k, the first one chosen."""
        half = sp.Rational(1, 2)
        return sum(_descent(half, half, True, sp.Integer(1 + y * constant), sp.Integer(y)) for y in (1, -1)) / 2

    def computed(row: Array, constant: float) -> Array:
        y = jnp.array([1.0, -1.0])
        gate = Softmax().value(jnp.stack([y * row, jnp.zeros(2)], axis=1))[:, 0]
        return jax.nn.softplus(-y * gate * (y + constant)).mean()

    slope = jax.jit(jax.grad(lambda row: -computed(row, 1.0)))(jnp.zeros(()))
    yield witness(
        "2 experts, router at 0, alpha = 1, the chosen expert's output is y + 1 (1 from the centre): descent of its "
        "row along v_k, mean over the label",
        exact(1),
        "=",
        0,
        holds_at={"output y": (exact(0), 0)},
        code=[(slope, exact(1))],
    )


RESPONDING = Claim(
    id="chen/router-gradient-features-any-experts",
    statement=r"\mathbb{E}_{y, \epsilon} \langle \partial L/\partial \theta_m, v_k \rangle = 0 \text{ for any experts}",
    words="The signs average the router's gradient on the features out whatever the experts have learned.",
    source="[himoe-theory], about [chen] second stage of training",
    recorded=Verdict.REFUTED,
    check=_responding,
    functions=(Softmax.value,),
    remark="An expert with a part that does not change sign with the label is better on one label, and the router "
    "learns to send it that one.",
)

psi = IndexedBase("psi", real=True)


def _psi(d: Data) -> np.ndarray:
    """The mean over signs of z/(1 + e^z), z = margin/M, for every expert."""
    margins = d["R"][:, :1] + d["R"][:, 1:] * np.array([1.0, -1.0])
    z = margins / len(d["R"])
    return (z / (1 + np.exp(z))).mean(axis=1)


def _centres(effort: Effort) -> Iterator[Finding]:
    clusters, beta = sp.Symbol("K", integer=True, positive=True), sp.Symbol("beta", positive=True)
    a, b, length = sp.symbols("a b beta", real=True)
    each = 1 / sp.Symbol("M", positive=True)
    # One sample, choice and gate at rows 0: along c_k the patches sum to beta, whatever the signs.
    for chosen in (True, False):
        z = (a + b) * each
        found = equation(
            _descent(each, each, chosen, a + b, length),
            length * z / (1 + sp.exp(z)) * (int(chosen) - each),
            why="The derivative of the loss at gate 1/M against psi.",
        )
        yield about(f"one sample, {'own' if chosen else 'another'} expert chosen", found)

    def sample(rng: np.random.Generator) -> Values:
        d = {"R": rng.normal(size=(5, 2)), "K": np.asarray(4), "beta": np.asarray(LENGTHS[1])}
        return d | {"psi": _psi(d)}

    found = identity(
        beta / clusters * total(psi[j] * (KroneckerDelta(j, e) - 1 / N) / N, j),
        beta / (clusters * N) * (psi[e] - total(psi[j], j) / N),
        variants={"not against the mean": beta / (clusters * N) * psi[e]},
        sample=sample,
        code=lambda d: _slope(jnp.zeros((5, 3)), jnp.asarray(d["R"]), jnp.zeros(5))[:, 1] / 4,
    )
    yield about("mean over choices, equally likely", found)


CENTRES = Claim(
    id="chen/router-gradient-centres",
    statement=r"\Theta = 0: \quad -\langle \partial L/\partial \theta_m, c_k \rangle = \frac{\beta}{K M} "
    r"\Big(\psi_m - \frac1M \sum_j \psi_j\Big), \quad \psi_j = \mathbb{E}\, \frac{z}{1 + e^z},\; z = \frac{y f_j}{M}",
    words="At the start of the router's training, rows gain on a cluster's centre for the experts whose psi there is "
    "above the mean, and lose for the others, at a rate that contains neither the dimension nor the noise: "
    "of order 1 once the experts' outputs are.",
    source="[chen] second stage of training",
    recorded=Verdict.PROVED,
    check=_centres,
    assumptions=("the population's gradient at rows 0, where every expert is equally likely and gated by 1/M",),
    functions=(Softmax.value, uniform_noise_top1),
    remark="For an expert of the cluster's group, the others silent on it, it is beta psi (1 - M_k/M)/(K M) > 0, M_k "
    "the size of the group. z/(1 + e^z) falls again beyond z = 1.28: among experts that are right, one with a very "
    "large margin has a smaller psi than one with a moderate one.",
)

CLAIMS = (FEATURES, RESPONDING, CENTRES)
