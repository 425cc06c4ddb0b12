r"""Claims about balancers as controllers of reinforced scores: dead experts (D8), the loss-free bias (D9)."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import dynamics, objectives

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import Assumption, index
from ..search import QUICK, measured
from ..sums import Data, Rule, total
from ..symbolic import equation, identity
from ..witnesses import reported

GAIN, DECAY, BETA, ALPHA = sp.symbols("eta lambda beta alpha", positive=True)
EPS, EXPERTS = sp.Symbol("epsilon", real=True), sp.Symbol("N_all", positive=True)
LIVE = sp.Symbol("n", integer=True, positive=True)
v = sp.IndexedBase("v", real=True)
i, j = index("i", LIVE), index("j", LIVE)
NUMBERS = {"eta": 1.3, "lambda": 0.4, "beta": 0.8, "alpha": 0.25, "N_all": 6.0}
CENTRED = Assumption(
    "the deviation sums to zero over the live experts",
    (Rule(i, v[i], sp.S.Zero),),
    lambda d: d | {"v": d["v"] - d["v"].mean()},
)


def _flow(scores: Array, alpha: Array, gain: float, decay: float, beta: float) -> Array:
    """Reinforcement and the gradient of the frozen load, by himoe_theory."""
    load = objectives.load_frozen_grad(beta * scores[None])[0]
    return dynamics.reinforcement(scores, gain, decay, beta) - alpha * beta * load


def _staircase(effort: Effort) -> Iterator[Finding]:
    # Live experts among themselves: softmax(beta epsilon v) is (1 + epsilon beta v)/n to first order, the dead have 0.
    def probs(expert: sp.Idx) -> sp.Expr:
        return (1 + EPS * BETA * v[expert]) / LIVE

    load = ALPHA * EXPERTS * BETA * probs(i) * (probs(i) - total(probs(j) ** 2, j))
    rate = GAIN * BETA / LIVE - DECAY - ALPHA * EXPERTS * BETA**2 / LIVE**2

    def code(d: Data) -> Array:
        # Six experts, of which the last two are beyond reach: their scores are held far below.
        along = jnp.concatenate([jnp.asarray(d["v"]), jnp.zeros(2)])
        at = jnp.array([0.0] * 4 + [-200.0] * 2)
        plant = (NUMBERS["eta"], NUMBERS["lambda"], NUMBERS["beta"])

        def flow(scores: Array) -> Array:
            return _flow(scores, jnp.asarray(NUMBERS["alpha"]), *plant)

        return jax.jit(lambda x, w: jax.jvp(flow, (x,), (w,))[1], compiler_options=QUICK)(at, along)[:4]

    yield identity(
        sp.diff(GAIN * probs(i) - DECAY * EPS * v[i] - load, EPS).subs(EPS, 0),
        rate * v[i],
        assumptions=(CENTRED,),
        variants={"n for N in the load": rate.subs(EXPERTS, LIVE) * v[i]},
        code=code,
        sample=lambda rng: {k: np.asarray(x) for k, x in NUMBERS.items()} | {"v": rng.normal(size=4)},
        sizes={LIVE: 4},
    )
    threshold = (GAIN * BETA * LIVE - DECAY * LIVE**2) / (EXPERTS * BETA**2)
    yield equation(rate, EXPERTS * BETA**2 / LIVE**2 * (threshold - ALPHA), why="Its sign is that of a difference.")
    step = threshold.subs(LIVE, LIVE + 1) - threshold
    yield equation(step, (GAIN * BETA - DECAY * (2 * LIVE + 1)) / (EXPERTS * BETA**2), why="From n to n + 1.")
    found = dynamics.live_threshold_frozen(4, 6, 1.3, 0.4, 0.8), 2 * dynamics.live_threshold_full(4, 6, 1.3, 0.4, 0.8)
    exact = float(threshold.subs({GAIN: 1.3, DECAY: 0.4, BETA: 0.8, EXPERTS: 6, LIVE: 4}))
    if not np.allclose(found, exact, rtol=1e-14):
        raise AssertionError(f"himoe_theory's thresholds are {found}, not {exact}")


STAIRCASE = Claim(
    id="dead-experts/staircase",
    statement=r"\text{stable among } n \text{ live} \iff \alpha > "
    r"\alpha_n = \frac{\eta\beta n - \lambda n^2}{N\beta^2}; "
    r"\quad \alpha_{n+1} > \alpha_n \iff 2n + 1 < \eta\beta/\lambda",
    words="Weakening the frozen load destabilises the largest number of equally live experts first: they die one at a "
    "time.",
    source="[himoe-theory] D8",
    recorded=Verdict.PROVED,
    check=_staircase,
    assumptions=("the dead have probability 0", "n at least 2", "frozen load; the full one needs half the coefficient"),
    functions=(dynamics.live_threshold_frozen, dynamics.live_threshold_full),
    remark="With the dead at exactly 0 the full load needs exactly half. What mass the dead keep lowers the thresholds "
    "of the example by up to 0.6 per cent. The notes of this package (D8) let the staircase end at "
    "n = eta beta/(2 lambda), half a step later than it does.",
)

EXAMPLE = (8, 1.0, 0.05, 1.0)
"""N, eta, lambda, beta."""
STEPS = (".225", ".319", ".400", ".469", ".525", ".569", ".600")
UPPER = ((5, "1.57"), (6, "1.26"), (7, "1.12"))


def _steps(effort: Effort) -> Iterator[Finding]:
    for n, printed in enumerate(STEPS, start=2):
        exact = sp.Rational(n, 8) - sp.Rational(n * n, 160)
        if abs(float(exact) - float(dynamics.live_threshold_frozen(n, *EXAMPLE))) > 1e-15:
            raise AssertionError(f"himoe_theory's threshold for n = {n} is not {exact}")
        yield reported(f"alpha_{n}", exact, printed)


STEP_VALUES = Claim(
    id="dead-experts/values",
    statement=r"\alpha_2, \dots, \alpha_8 = .225, .319, .400, .469, .525, .569, .600 \quad "
    r"(N = 8, \eta = 1, \lambda = .05, \beta = 1)",
    words="The staircase of the example.",
    source="[himoe-theory] D8",
    recorded=Verdict.PROVED,
    check=_steps,
    functions=(dynamics.live_threshold_frozen,),
)


def _upper(effort: Effort) -> Iterator[Finding]:
    for n, printed in UPPER:
        yield reported(f"upper end for n = {n}", sp.Float(dynamics.live_upper_end_frozen(n, *EXAMPLE), 17), printed)
    experts, gain, decay, beta = EXAMPLE
    pairs = []
    for n, share in ((5, 0.195), (6, 0.162), (7, 0.14)):
        rest = (1 - n * share) / (experts - n)
        alpha = float(dynamics.live_coefficient_frozen(share, n, *EXAMPLE))
        probs = np.array([share] * n + [rest] * (experts - n))
        # The scores of a fixed point are its forces over the decay; their softmax must give the probabilities back.
        forces = gain * probs - alpha * experts * beta * probs * (probs - probs @ probs)
        at = jnp.asarray(np.log(probs / probs.sum()) / beta)
        again = np.asarray(_flow(at, jnp.asarray(alpha), gain, decay, beta) + decay * at)
        if not np.allclose(forces, again, atol=1e-12):
            raise AssertionError(f"himoe_theory's forces are {again}, not {forces}")
        pairs.append((f"n = {n}: ln(p/q)", float(np.log(share / rest)), float(beta * (forces[0] - forces[-1]) / decay)))
    yield measured(
        "fixed points on the branch of the coefficient",
        pairs,
        within=1e-9,
        wrong={"half the coefficient": [2 * b for _, b, _ in pairs]},
    )


UPPER_ENDS = Claim(
    id="dead-experts/upper-end",
    statement=r"\max_p \alpha(p) = 1.57, 1.26, 1.12 \text{ for } n = 5, 6, 7 \quad \alpha(p) = "
    r"\frac{\eta - \frac\lambda\beta \frac{\ln(p/q)}{p-q}}{N\beta(p + q - np^2 - (N-n)q^2)}",
    words="A load stronger than this revives the dead experts of the example.",
    source="[himoe-theory] D8",
    recorded=Verdict.SUPPORTED,
    check=_upper,
    assumptions=("n experts of probability p, the others of q", "N = 8, eta = 1, lambda = .05, beta = 1"),
    functions=(dynamics.live_coefficient_frozen, dynamics.live_upper_end_frozen),
    remark="The state merges there with one in which the dead are less dead. For n = 2, 3, 4 the ends are 50.5, 5.85 "
    "and 2.41.",
)


def _one_hot(effort: Effort) -> Iterator[Finding]:
    n, p = sp.symbols("N p", positive=True)
    rest = (1 - p) / (n - 1)
    purity = p**2 + (n - 1) * rest**2
    force = p * (1 - p) * (n * p - 1) / (n - 1)
    yield equation(p * (p - purity), force, variants={"finite at one-hot": force + p})
    yield equation(rest * (rest - purity), -force / (n - 1))
    logits = jnp.log(jnp.array([[0.7, 0.1, 0.1, 0.1]]))
    found = objectives.load_frozen_grad(logits)[0, 0] / 4
    if abs(float(found) - float(force.subs({n: 4, p: 0.7}))) > 1e-14:
        raise AssertionError(f"himoe_theory's force is {found}")


ONE_HOT = Claim(
    id="dead-experts/one-hot",
    statement=r"\pi_1(\pi_1 - \|\pi\|^2) = \frac{p(1-p)(Np - 1)}{N-1} \to 0 \text{ as } p \to 1",
    words="The load's gradient vanishes at one-hot routing, so it cannot revive a collapsed router.",
    source="[himoe-theory] D8",
    recorded=Verdict.PROVED,
    check=_one_hot,
    assumptions=("one expert with probability p, the others equal",),
    functions=(objectives.load_frozen_grad,),
)


def _controller(effort: Effort) -> Iterator[Finding]:
    # On a mode that sums to zero: pi' = beta (x + b)/N, so the rates of (x, b) are this matrix.
    n, u = sp.symbols("N u", positive=True)
    matrix = sp.Matrix([[GAIN * BETA / n - DECAY, GAIN * BETA / n], [-u * BETA / n, -u * BETA / n]])
    trace, determinant = BETA * (GAIN - u) / n - DECAY, DECAY * u * BETA / n
    yield equation(matrix.trace(), trace, variants={"bias outside the softmax": GAIN * BETA / n - u - DECAY})
    yield equation(matrix.det(), determinant)
    threshold = GAIN - DECAY * n / BETA
    yield equation(trace, BETA / n * (threshold - u), why="Stable exactly if the trace is negative.")
    at = {GAIN: 1.3, DECAY: 0.1, BETA: 0.8, n: 6, u: 0.2}
    found = (
        dynamics.bias_trace(0.2, 6, 1.3, 0.1, 0.8),
        dynamics.bias_determinant(0.2, 6, 0.1, 0.8),
        dynamics.bias_threshold(6, 1.3, 0.1, 0.8),
        (2 * math.pi / dynamics.hopf_period(0.2, 6, 0.1, 0.8)) ** 2,
    )
    exact = [float(x.subs(at)) for x in (trace, determinant, threshold, determinant)]
    if not np.allclose(found, exact, rtol=1e-13):
        raise AssertionError(f"himoe_theory computes {found}, not {exact}")
    jacobian = np.asarray(jax.jacfwd(lambda z: _biased(z, 0.2, 6, 1.3, 0.1, 0.8))(jnp.zeros(12)))
    eigenvalues = np.linalg.eigvals(jacobian)
    roots = np.roots([1, -exact[0], exact[1]])
    if max(np.abs(eigenvalues - root).min() for root in roots) > 1e-9:
        raise AssertionError(f"autodiff of the flow has the eigenvalues {eigenvalues}, not {roots}")


def _biased(state: Array, rate: float, experts: int, gain: float, decay: float, beta: float) -> Array:
    """Rates of scores and biases."""
    scores, biases = state[:experts], state[experts:]
    probs = jax.nn.softmax(beta * (scores + biases))
    return jnp.concatenate([gain * probs - decay * scores, -rate * (probs - 1 / experts)])


CONTROLLER = Claim(
    id="loss-free/hopf",
    statement=r"\mathrm{tr} = \beta(\eta - u)/N - \lambda, \ \det = \lambda u\beta/N > 0: \quad "
    r"\text{stable} \iff u > u^* = \eta - \lambda N/\beta, \ \text{period } 2\pi/\sqrt{\lambda u \beta/N}",
    words="A proportional bias holds uniform routing only if it is fast enough; slower ones lose it to an oscillation.",
    source="[himoe-theory] D9",
    recorded=Verdict.PROVED,
    check=_controller,
    assumptions=(r"$\pi = \mathrm{softmax}(\beta(x + b))$, $\dot b = -u(\pi - 1/N)$", "linear stability"),
    functions=(dynamics.bias_trace, dynamics.bias_determinant, dynamics.bias_threshold, dynamics.hopf_period),
)


def _period(effort: Effort) -> Iterator[Finding]:
    from scipy.integrate import solve_ivp

    experts, gain, decay, beta = EXAMPLE
    critical = float(dynamics.bias_threshold(*EXAMPLE))
    pairs = []
    for share in (0.98, 1.02):
        rate = share * critical

        def flow(_: float, z: np.ndarray, rate: float = rate) -> np.ndarray:
            raised = np.exp(beta * (z[:experts] + z[experts:]))
            probs = raised / raised.sum()
            return np.concatenate([gain * probs - decay * z[:experts], -rate * (probs - 1 / experts)])

        def crossing(_: float, z: np.ndarray) -> float:
            return z[0] - z[1]

        crossing.direction = 1.0
        start = np.zeros(2 * experts)
        start[:2] = 1e-3, -1e-3
        solved = solve_ivp(flow, (0, 450), start, events=crossing, rtol=1e-8, atol=1e-12)
        gaps = np.diff(solved.t_events[0][1:])
        pairs.append((f"u = {share} u*", float(dynamics.hopf_period(rate, experts, decay, beta)), float(gaps.mean())))
    yield measured(
        "period of a small oscillation of 8 experts, integrated",
        pairs,
        within=1e-3,
        wrong={"at u* for both": [float(dynamics.hopf_period(critical, experts, decay, beta))] * 2},
    )


PERIOD = Claim(
    id="loss-free/period",
    statement=r"\text{period} = 2\pi/\sqrt{\lambda u\beta/N} \text{ within } 0.1\,\% \text{ at } u = 0.98, 1.02\, u^*",
    words="Close to the threshold the oscillation has the predicted period.",
    source="[himoe-theory] D9",
    recorded=Verdict.SUPPORTED,
    check=_period,
    functions=(dynamics.hopf_period, dynamics.bias_threshold),
)
CLAIMS = (STAIRCASE, STEP_VALUES, UPPER_ENDS, ONE_HOT, CONTROLLER, PERIOD)
