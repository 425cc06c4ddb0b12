r"""Claims about reinforced scores under the frozen load: collapsed states, and the last live expert (D7, D8).

The load is measured by $a = \alpha\beta/\eta$.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import dynamics
from himoe_theory.objectives import load_frozen_grad, p_squared

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..search import QUICK, measured
from ..solvers import Problem, decide, everywhere
from ..symbolic import equation
from ..witnesses import reported, witness
from .dynamics_branches import CONTROL, KAPPA, REST, SHARE, E, Q, along, compare, ends, loaded, n, p, rates, state, u

LOAD = sp.Symbol("a", positive=True)
EXPERTS = 8
"""In examples."""


@jax.jit
def _at_rest(probs: Array, load: Array) -> Array:
    """Scores that have these probabilities if they are at rest, with a gain and a decay of 1."""
    return probs - load * load_frozen_grad(jnp.log(probs)[None])[0]


@jax.jit
def _depth(scores: Array, kappa: Array, load: Array) -> Array:
    """The potential with the load, in the unit eta/beta."""
    return kappa * dynamics.potential(scores, 1.0, 1.0, kappa) + load / 2 * p_squared(kappa * scores[None])


@functools.partial(jax.jit, compiler_options=QUICK)
def _forces(probs: Array, kappa: Array, load: Array) -> tuple[Array, Array, Array]:
    """The velocity at rest; and elsewhere, beside the slope of the potential."""
    at, field = _at_rest(probs, load), loaded(load, kappa)
    elsewhere = 1.5 * at + 0.5 * at[::-1]
    return field(at), field(elsewhere), jax.grad(_depth)(elsewhere, kappa, load) / kappa


def _loaded_branch(effort: Effort) -> Iterator[Finding]:
    purity = p**2 + (n - 1) * Q**2
    yield equation(
        p * (p - purity) - Q * (Q - purity),
        (p - Q) * n * p * Q,
        variants={"as at uniform routing": (p - Q) / n},
        why="How much harder the load pushes the favoured expert than another, over alpha N beta.",
    )
    yield equation(p + Q - purity, n * p * Q, why="The same in the notation of the staircase.")
    # ln(p/q) = beta (x_1 - x_2), the forces' difference over the decay, so that kappa = L/(1 - a N^2 p q):
    length = sp.Symbol("L", positive=True)
    control = length / (1 - LOAD * n**2 * p * Q)
    first = sp.diff(control, LOAD).subs(LOAD, 0)
    yield equation(
        first.subs(length, 1 / (n * p * Q)), n, why="At the fold kappa N p q = 1: kappa_s rises at first by N a."
    )
    yield equation(sp.diff(n / (1 - LOAD), LOAD).subs(LOAD, 0), n, why="So does the limit of uniform routing.")
    # V in the unit eta/beta at given logits y is |y|^2/(2 kappa) - lse(y) + a N |pi|^2/2; without load y = kappa pi.
    other, y = sp.symbols("S y", positive=True)
    in_load, in_kappa = n / 2 * (other - 1 / n), sp.diff(y**2 / (2 * KAPPA), KAPPA).subs(y, KAPPA) * (other - 1 / n)
    yield equation(-in_load / in_kappa, n, why="So does kappa_c, where the depths are equal; S = |pi|^2.")
    for experts, share, load in ((EXPERTS, 0.9, 0.2), (EXPERTS, 0.6, 0.1)):
        small = (1 - share) / (experts - 1)
        kappa = float(dynamics.collapsed_control(share, experts)) / (1 - load * experts**2 * share * small)
        alpha = dynamics.live_coefficient_frozen(share, 1, experts, 1.0, 1.0, kappa)
        compare(alpha * kappa, load, "coefficient on the branch")
        at = state(share, experts)
        velocity, force, slope = _forces(at, jnp.asarray(kappa), jnp.asarray(load))
        compare(velocity, np.zeros(experts), "velocity at rest under the load")
        compare(-slope, force, "force of the load")


LOADED_BRANCH = Claim(
    id="reinforcement/loaded-branch",
    statement=r"\kappa = \frac{\ln(p/q)}{(p-q)(1 - aN^2pq)}, \ a = \frac{\alpha\beta}\eta; \quad "
    r"\frac{d\kappa_s}{da} = \frac{d\kappa_c}{da} = \frac{d}{da}\frac N{1-a} = N \text{ at } a = 0",
    words="Under the frozen load every collapsed state needs a larger kappa than without, so that neither kappa_s nor "
    "kappa_c survives; a weak load moves both, and the limit of uniform routing, by the same N alpha beta/eta.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_loaded_branch,
    assumptions=(
        "one expert with probability p, the others with q",
        "derivatives of minima: the envelope theorem",
    ),
    functions=(dynamics.live_coefficient_frozen, dynamics.potential, load_frozen_grad, p_squared),
    remark="To write eta - alpha beta for eta in kappa_s and kappa_c would move them by a kappa_s and a kappa_c "
    "only. Beyond first order the three differ: reinforcement/loaded-thresholds.",
)


def _control(share: float, load: float) -> float:
    """Kappa on the loaded branch, by the claim `reinforcement/loaded-branch`; infinite where there is none."""
    held = 1 - load * EXPERTS**2 * share * (1 - share) / (EXPERTS - 1)
    return float(dynamics.collapsed_control(share, EXPERTS)) / held if held > 0 else np.inf


def _deeper(share: float, load: float) -> float:
    """How much deeper uniform routing is than the state of one favoured expert on the loaded branch, in eta/beta."""
    kappa = _control(share, load)
    starts = [_at_rest(state(each, EXPERTS), jnp.asarray(load)) for each in (share, 1 / EXPERTS)]
    depths = [float(_depth(scores, jnp.asarray(kappa), jnp.asarray(load))) for scores in starts]
    return depths[0] - depths[1]


def _loaded_thresholds(effort: Effort) -> Iterator[Finding]:
    from scipy.optimize import brentq

    load = 0.2
    shares = np.linspace(0.3, 0.999, 700)
    controls = [_control(share, load) for share in shares]
    fold = int(np.argmin(controls))
    spinodal, free = controls[fold], dynamics.spinodal(EXPERTS)
    coexistence = _control(brentq(lambda share: _deeper(share, load), shares[fold], 0.9999), load)
    yield reported("kappa_s", sp.Float(spinodal, 17), "5.58")
    yield reported("kappa_c", sp.Float(coexistence, 17), "6.26")
    factors = (0.98, 1.02)
    kappas = [factor * spinodal for factor in factors] + [1.02 * free, 1.02 * free / (1 - load)]
    found = ends(jnp.stack([state(0.97, EXPERTS)] * 4), jnp.array(kappas), jnp.full(4, load), 1500)
    stays = brentq(lambda share: _control(share, load) - kappas[1], shares[fold], 0.9999)
    names = [f"{factor} kappa_s" for factor in factors] + ["1.02 kappa_s without load", "that over 1 - a"]
    predicted = [1 / EXPERTS, stays, 1 / EXPERTS, 1 / EXPERTS]
    pairs = [(name, a, float(b)) for name, a, b in zip(names, predicted, found, strict=True)]
    wrong = {
        "kappa_s without load": [1 / EXPERTS, stays, stays, stays],
        "eta less alpha beta for eta": [1 / EXPERTS, stays, 1 / EXPERTS, stays],
    }
    yield measured("largest probability from a collapsed start", pairs, within=1e-3, wrong=wrong)


LOADED_THRESHOLDS = Claim(
    id="reinforcement/loaded-thresholds",
    statement=r"N = 8, \ \alpha\beta/\eta = 0.2: \quad \kappa_s = 5.58, \ \kappa_c = 6.26, \ N/(1 - a) = 10",
    words="In an example with a load the thresholds without load, 4.25 and 4.54, fail, and so do these with "
    "eta - alpha beta written for eta, 5.31 and 5.67; the minimum of the loaded branch holds.",
    source="[himoe-theory] D7",
    recorded=Verdict.SUPPORTED,
    check=_loaded_thresholds,
    assumptions=("frozen load",),
    functions=(dynamics.spinodal, dynamics.collapsed_control, dynamics.potential, load_frozen_grad, p_squared),
)


def _last_one(effort: Effort) -> Iterator[Finding]:
    # Two experts, d = p - q: reinforcement less load pulls the logits apart by kappa d (1 - a (1 - d^2)) = 5/2 d^3.
    d = sp.Symbol("d", positive=True)
    bound = 2 * d + sp.Rational(2, 3) * d**3
    growth = 2 * d**4 / (1 - d**2)
    yield equation(sp.diff(2 * sp.atanh(d) - bound, d), growth, why="ln(p/q) = 2 artanh d exceeds 2 d + 2 d^3/3.")
    ratio = sp.Rational(5, 2) * d**3 / bound
    yield equation(sp.diff(ratio, d), 45 * d / (2 * (d**2 + 3) ** 2), why="So the ratio is largest at d = 1.")
    half = jnp.array([0.5, -0.5]) * math.log(3)
    velocity = jax.jit(dynamics.Reinforcement(1.0, 0.4, 1.0, load_frozen_grad), compiler_options=QUICK)(half)
    yield witness(
        "N = 2, kappa = 5/2 above kappa_s = 2, alpha beta/eta = 1: the most that reinforcement less load, 5/2 d^3, is "
        "of 2 d + 2 d^3/3 <= ln(p/q), for d = p - q up to 1; a state at rest needs a ratio of 1",
        ratio.subs(d, 1),
        ">=",
        sp.S.One,
        holds_at={"no load, d = 1/2: 5/2 d and ln 3": (sp.Rational(5, 4), sp.log(3))},
        code=[(velocity[0] - velocity[1], sp.Rational(1, 8) - sp.Rational(2, 5) * sp.log(3))],
    )


def _last_one_ends(effort: Effort) -> Iterator[Finding]:
    a, k, first, rest, top, number, gap = z3.Reals("a kappa p q E N u")
    branch = [gap == k * (first - rest) * (1 - a * number**2 * first * rest), gap > 0, k > 0]
    shares = [first > rest, rest > 0, number >= 2, first + (number - 1) * rest == 1]
    below = a * number**2 * first * rest < 1
    within = [*shares, a >= 0, below, rest * top >= first]
    yield everywhere(
        decide(
            [
                Problem(
                    "any N: u, at most kappa (p - q), is at most kappa",
                    [*branch, *shares, a >= 0],
                    z3.And(below, gap <= k),
                    {"a load of any sign": ([*branch, *shares], gap <= k)},
                ),
                Problem(
                    "any N: then q >= p/E with E = e^kappa, and a < E",
                    within,
                    a < top,
                    {
                        "q of any size": (within[:-1], a < top),
                        "a quarter of it": (within, 4 * a < top),
                    },
                ),
            ],
            effort,
        )
    )
    # Rates over lambda at rest: of all the dead together, where u moves as kappa h(u) - u, and of one against another.
    held = (1 - CONTROL / KAPPA) / (n**2 * SHARE * REST)
    force = KAPPA * (SHARE - REST) * (1 - LOAD * n**2 * SHARE * REST) - u
    revival = along(force).subs(LOAD, held)
    steepness = KAPPA * (SHARE - REST) * n**2 * SHARE * REST * along(held)
    yield equation(revival, steepness, variants={"stable before the maximum": -steepness})
    over, spread = KAPPA - CONTROL, SHARE**2 + (n - 1) * REST**2 - 2 * REST
    inside = REST * CONTROL + over * (REST + spread / (n * SHARE)) - 1
    # A deviation v among the dead moves pi by q v and |pi|^2 not at all.
    yield equation(KAPPA * REST * (1 + LOAD * n * spread).subs(LOAD, held) - 1, inside)
    yield equation(revival, n * SHARE * REST * CONTROL + over * (SHARE - REST) * (2 * SHARE - 1) - 1)
    yield everywhere(decide([_among_the_dead()], effort))
    for share, experts, kappa in ((0.9, 8, 5.0), (0.99, 8, 20.0)):
        odds = share * (experts - 1) / (1 - share)
        at = {n: experts, E: odds, u: math.log(odds), KAPPA: kappa}
        load, *expected = (float(each.subs(at)) for each in (held, steepness, inside))
        compare(kappa * dynamics.live_coefficient_frozen(share, 1, experts, 1.0, 1.0, kappa), load, "coefficient")
        found = rates(_at_rest(state(share, experts), jnp.asarray(load)), kappa, load)
        compare(found, np.sort([-1.0, expected[0], *[expected[1]] * (experts - 2)]), "rates by autodiff")
    for kappa, end, rest in (
        (5.0, 0.0959271, np.geomspace(0.01, 0.5, 2000)),
        (20.0, 139439, np.geomspace(1e-9, 1e-6, 2000)),
    ):
        held = kappa * dynamics.live_coefficient_frozen(jnp.asarray(1 - rest), 1, EXPERTS, 1.0, 1.0, kappa)
        if not math.isclose(float(held.max()), end, rel_tol=1e-5):
            raise AssertionError(f"at kappa = {kappa} the upper end is {held.max()}, not {end}")


def _among_the_dead() -> Problem:
    """The two rates for z3: L is ln(p/q)/(p - q), over = kappa - L, others = N - 1.

    ln r exceeds 3 (r^2 - 1)/(r^2 + 4 r + 1) for r > 1, as its derivative is larger by (r - 1)^4/(r (r^2 + 4 r + 1)^2).
    """
    first, rest, length, over, others = z3.Reals("p q L over others")
    shares = [first > rest, rest > 0, 2 * first >= 1, others >= 2, first + others * rest == 1, over >= 0]
    logarithm = length * (first**2 + 4 * first * rest + rest**2) >= 3 * (first + rest)
    number = others + 1
    together = number * first * rest * length + over * (first - rest) * (2 * first - 1) <= 1
    spread = first**2 + others * rest**2 - 2 * rest
    among = rest * length * number * first + over * (rest * number * first + spread) < number * first
    return Problem(
        "any N of at least 3, p >= 1/2",
        [*shares, logarithm, together],
        among,
        {
            "a logarithm of any size": ([*shares, length > 0, together], among),
            "any load": ([*shares, logarithm], among),
        },
    )


LAST_ONE = Claim(
    id="dead-experts/last-one",
    statement=r"n = 1 \text{ is stable for every } \alpha \text{ once } \kappa > \kappa_s",
    words="A router collapsed onto one expert stays so under a load of any strength.",
    source="[himoe-theory] D8",
    recorded=Verdict.CORRECTED,
    check=_last_one,
    assumptions=("frozen load",),
    functions=(dynamics.Reinforcement, dynamics.live_coefficient_frozen, load_frozen_grad),
    correction=Correction(
        r"\text{at rest with one live expert: } a = \frac{1 - \frac1\kappa\frac{u}{p-q}}{N^2pq} < e^\kappa, \ "
        r"a = \frac{\alpha\beta}\eta; \quad \text{stable} \iff \frac{da}{du} < 0 \ "
        r"(p \ge \tfrac12, N \ge 3)",
        "The state of one live expert has an upper end as well, the maximum over p of the coefficient; it is stable "
        "beyond that maximum, and under a load of e^kappa eta/beta or more there is none.",
        _last_one_ends,
    ),
    remark="The load's gradient vanishes at one-hot routing only, and a softmax of finite scores is never one-hot. In "
    "the example of D8 (kappa = 20) the end is out of reach, alpha near 140,000; at kappa = 5 with eight experts it is "
    "0.096 eta/beta.",
)

CLAIMS = (LOADED_BRANCH, LOADED_THRESHOLDS, LAST_ONE)
