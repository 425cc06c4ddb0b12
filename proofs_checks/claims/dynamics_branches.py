r"""Claims about the states of reinforced scores without a load: which are stable, and which is deeper (D7).

Rates are eigenvalues of the flow $\dot x = \eta\,\mathrm{softmax}(\beta x) - \lambda x$ at a state of rest.
"""

import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import dynamics
from himoe_theory.objectives import load_frozen_grad

from ..ledger import Claim, Effort, Finding, Verdict
from ..search import QUICK, measured
from ..symbolic import equation
from ..witnesses import reported

GAIN, DECAY, BETA, KAPPA = sp.symbols("eta lambda beta kappa", positive=True)
n, p, u, E = sp.symbols("N p u E", positive=True)
"""`E` stands for $e^u$ with $u = \\ln(p/q)$, so that the branch is rational in u and E."""
Q = (1 - p) / (n - 1)
SHARE, REST = E / (E + n - 1), 1 / (E + n - 1)
CONTROL = u * (E + n - 1) / (E - 1)
"""Kappa on the branch, by the claim `reinforcement/collapsed-branch`."""
BEYOND = E + n - 2 - (n - 1) / E - n * u
"""Positive beyond the fold; the function whose root `spinodal` takes."""


def along(expr: sp.Expr) -> sp.Expr:
    """Derivative in u."""
    return sp.diff(expr, u) + E * sp.diff(expr, E)


def loaded(load: float | Array, kappa: float | Array) -> dynamics.Reinforcement:
    """Reinforced scores under the frozen load, with a gain and a decay of 1, so that beta is kappa."""
    return dynamics.Reinforcement(1.0, 1.0, kappa, lambda logits: load / kappa * load_frozen_grad(logits))


def state(share: float, experts: int, large: int = 1) -> Array:
    """`large` experts with this probability, the others alike."""
    rest = (1 - large * share) / (experts - large)
    return jnp.array([share] * large + [rest] * (experts - large))


@functools.partial(jax.jit, compiler_options=QUICK)
def rates(scores: Array, kappa: float | Array, load: float | Array) -> Array:
    """Eigenvalues of the flow by autodiff, smallest first, under a load."""
    return jnp.linalg.eigvalsh(jax.jacfwd(loaded(load, kappa))(scores))


def compare(found: object, expected: object, what: str) -> None:
    if not np.allclose(np.asarray(found), np.asarray(expected), rtol=1e-11, atol=1e-12):
        raise AssertionError(f"himoe_theory's {what}: {found}, not {expected}")


def _stability(effort: Effort) -> Iterator[Finding]:
    def moved(own: sp.Expr, entry: sp.Expr, mean: sp.Expr) -> sp.Expr:
        """What the linearised flow makes of a mode's entry; `mean` is that of the mode under the probabilities."""
        return GAIN * BETA * own * (entry - mean) - DECAY * entry

    rate = GAIN * BETA * n * p * Q - DECAY
    mean = p * (n - 1) - (n - 1) * Q
    wrong = {"as between two of the small": (GAIN * BETA * Q - DECAY) * (n - 1)}
    gap = "The mode (N - 1, -1, ..., -1): "
    yield equation(moved(p, n - 1, mean), rate * (n - 1), variants=wrong, why=f"{gap}the large expert.")
    yield equation(moved(Q, sp.Integer(-1), mean), -rate, why=f"{gap}a small one.")
    other = sp.Symbol("v", real=True)
    small = (GAIN * BETA * Q - DECAY) * other
    yield equation(moved(Q, other, sp.S.Zero), small, why="Modes among the small ones that sum to zero.")
    # All scores alike, of rate -lambda, are the last of N modes.
    yield equation(n * p * Q - Q, Q * (n - 1) * (p - Q), why="The first rate exceeds those among the small ones.")
    sign = -E * BEYOND / ((E + n - 1) * (E - 1))
    yield equation(n * CONTROL * SHARE * REST - 1, sign, variants={"on the other side of the fold": -sign})
    yield equation(along(CONTROL), BEYOND * E / (E - 1) ** 2, why="And kappa rises with u beyond the fold.")
    bent = (E - 1) * (E - n + 1) / E
    yield equation(along(BEYOND), bent, why="From 0 at u = 0 it falls until p = 1/2, then rises: one positive root.")
    for experts, share in ((8, 0.5), (8, 0.95)):
        kappa, rest = float(dynamics.collapsed_control(share, experts)), (1 - share) / (experts - 1)
        expected = [-1.0] + [kappa * rest - 1] * (experts - 2) + [kappa * experts * share * rest - 1]
        compare(rates(state(share, experts), kappa, 0.0), np.sort(expected), "rates by autodiff")
        if (expected[-1] < 0) != (share > 0.6):
            raise AssertionError(f"p = {share} lies on the other side of the fold: {expected}")


STABILITY = Claim(
    id="reinforcement/collapsed-stability",
    statement=r"\text{rates } \lambda(\kappa N p q - 1) > \lambda(\kappa q - 1), \ -\lambda; \quad "
    r"\kappa N p q < 1 \iff \frac{d\kappa}{du} > 0, \ u = \ln\frac pq",
    words="A state with one favoured expert is stable, also against changes among the other experts, exactly beyond "
    "the fold at which it appears.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_stability,
    assumptions=("at rest: one expert with probability p, the others with q < p",),
    functions=(dynamics.reinforcement, dynamics.collapsed_control, dynamics.spinodal),
    remark="With two experts there is no fold, and the branch is stable all along.",
)


def _two_large(effort: Effort) -> Iterator[Finding]:
    # At rest x = eta pi/lambda, so that ln pi - kappa pi is the same for all experts.
    level = sp.log(p) - KAPPA * p
    yield equation(sp.diff(level, p, 2), -1 / p**2, why="Strictly concave: it takes a value at most twice.")
    # Between two large ones the rate is lambda(kappa p - 1), with kappa = u/(p - q) and q = p e^-u.
    excess = u - 1 + sp.exp(-u)
    control = u / (p - p * sp.exp(-u))
    yield equation(control * p - 1, excess / (1 - sp.exp(-u)), variants={"of a small one": excess})
    yield equation(sp.diff(excess, u), 1 - sp.exp(-u), why="The numerator grows with u ...")
    yield equation(excess.subs(u, 0), sp.S.Zero, why="... from 0.")
    for experts, large, share in ((8, 2, 0.3), (8, 3, 0.32)):
        rest = (1 - large * share) / (experts - large)
        kappa = math.log(share / rest) / (share - rest)
        scores = state(share, experts, large)
        compare(dynamics.reinforcement(scores, 1.0, 1.0, kappa), np.zeros(experts), "velocity at rest")
        found = np.asarray(rates(scores, kappa, 0.0))
        if np.abs(found - (kappa * share - 1)).min() > 1e-11 or kappa * share <= 1:
            raise AssertionError(f"no rate of {kappa * share - 1} among {found}")


TWO_LARGE = Claim(
    id="reinforcement/only-one-is-favoured",
    statement=r"\pi_i \in \{p, q\}; \quad \text{between two of the larger: rate } \lambda(\kappa p - 1) = "
    r"\lambda\,\frac{u - 1 + e^{-u}}{1 - e^{-u}} > 0",
    words="At rest there are at most two different probabilities, and states in which several experts share the larger "
    "one are unstable: only uniform routing and one favoured expert can be stable.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_two_large,
    assumptions=("no load",),
    functions=(dynamics.reinforcement,),
    remark="A load makes states with several live experts stable, which is the staircase of D8.",
)


def _bistable(effort: Effort) -> Iterator[Finding]:
    m = sp.Symbol("m", positive=True)
    room = m - 1 / m - 2 * sp.log(m)
    yield equation(sp.diff(room, m), (1 - 1 / m) ** 2, variants={"falls": -((1 - 1 / m) ** 2)}, why="m = N - 1.")
    yield equation(room.subs(m, 1), sp.S.Zero, why="So it is positive for m > 1, that is N > 2.")
    plain = u * (sp.exp(u) + n - 1) / (sp.exp(u) - 1)
    yield equation(sp.limit(plain, u, 0), n, why="From kappa = N at u = 0 the branch falls, if N > 2: kappa_s < N.")
    at_coexistence = BEYOND.subs({E: m**2, u: 2 * sp.log(m), n: m + 1})
    yield equation(
        at_coexistence, (m + 1) * room, why="p/q = (N-1)^2 at kappa_c lies beyond the fold: kappa_s < kappa_c."
    )
    critical = 2 * m * sp.log(m) / (m - 1)
    yield equation(m + 1 - critical, m / (m - 1) * room, variants={"too close": room}, why="And kappa_c < N.")
    for experts in (3, 8, 64):
        order = dynamics.spinodal(experts), dynamics.coexistence(experts), dynamics.uniform_limit(experts)
        compare(order[2] - order[1], float((m / (m - 1) * room).subs(m, experts - 1)), "distance of kappa_c from N")
        if not order[0] < order[1] < order[2]:
            raise AssertionError(f"himoe_theory's thresholds of {experts} experts are {order}")


BISTABLE = Claim(
    id="reinforcement/bistable",
    statement=r"\kappa_s < \kappa_c < N \quad \forall N \ge 3",
    words="For every number of experts from three on there is a range of kappa, from kappa_s to N, in which uniform "
    "routing and a collapsed state are both stable: collapse needs a finite disturbance, and shows hysteresis.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_bistable,
    functions=(dynamics.spinodal, dynamics.coexistence, dynamics.uniform_limit),
    remark="Where the branch falls and rises, and that the states are stable, is in reinforcement/collapsed-stability "
    "and reinforcement/uniform.",
)


def _deeper(effort: Effort) -> Iterator[Finding]:
    # V at rest in the unit eta/beta, with ln sum exp(kappa pi) = kappa p - ln p: collapsed less uniform.
    square = SHARE**2 + (n - 1) * REST**2
    depth = CONTROL / 2 * square - CONTROL * SHARE + u - sp.log(E + n - 1) + CONTROL / (2 * n) + sp.log(n)
    spread = (n * SHARE - 1) ** 2 / (n * (n - 1))
    yield equation(square - 1 / n, spread, why="How far from uniform the state is.")
    slope = -spread / 2 * along(CONTROL)
    yield equation(
        along(depth), slope, variants={"not halved": 2 * slope}, why="The envelope theorem, along the branch."
    )
    for experts, share in ((8, 0.95), (8, 0.9), (8, 0.8)):
        kappa = float(dynamics.collapsed_control(share, experts))
        pair = [dynamics.potential(x, 1.0, 1.0, kappa) for x in (state(share, experts), state(1 / experts, experts))]
        odds = share * (experts - 1) / (1 - share)
        compare(kappa * (pair[0] - pair[1]), float(depth.subs({n: experts, E: odds, u: math.log(odds)})), "depth")
        if (pair[0] < pair[1]) != (kappa > dynamics.coexistence(experts)):
            raise AssertionError(f"at kappa = {kappa} the depths are {pair}")


DEEPER = Claim(
    id="reinforcement/deeper-minimum",
    statement=r"\frac{d}{du}(V_{collapsed} - V_{uniform}) = "
    r"-\frac\eta\beta\,\frac{(Np-1)^2}{2N(N-1)}\,\frac{d\kappa}{du}",
    words="Along the stable collapsed branch its depth relative to uniform routing falls strictly as kappa rises: "
    "below kappa_c uniform routing is the deeper minimum, above it the collapsed state.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_deeper,
    assumptions=("in the unit eta/beta as kappa changes", "equal depth at kappa_c: reinforcement/coexistence"),
    functions=(dynamics.potential, dynamics.coexistence, dynamics.collapsed_control),
    remark="Kappa_c lies beyond the fold (reinforcement/bistable), where kappa rises with u.",
)


@functools.partial(jax.jit, static_argnums=3, compiler_options=QUICK)
def ends(starts: Array, kappas: Array, loads: Array, steps: int) -> Array:
    """Largest probability that each start ends with, after steps of 0.2 of the flow with a gain and a decay of 1."""

    def end(scores: Array, kappa: Array, load: Array) -> Array:
        field = loaded(load, kappa)
        last, _ = jax.lax.scan(lambda x, _: (x + 0.2 * field(x), None), scores, length=steps)
        return jax.nn.softmax(kappa * last).max()

    return jax.vmap(end)(starts, kappas, loads)


def _hysteresis(effort: Effort) -> Iterator[Finding]:
    from scipy.optimize import brentq

    def off(share: float) -> float:
        return float(dynamics.collapsed_control(share, 8)) - 6.0

    unstable, collapsed = brentq(off, 0.13, 0.6), brentq(off, 0.8, 0.9999)
    noise = 0.01 * np.random.default_rng(4).standard_normal(8)
    starts = {
        "near uniform": state(1 / 8, 8) + noise,
        "less disturbed than the unstable state": state(0.95 * unstable, 8),
        "more disturbed than it": state(1.05 * unstable, 8),
        "near one-hot": state(0.999, 8) + noise,
    }
    found = ends(jnp.stack(list(starts.values())), jnp.full(4, 6.0), jnp.zeros(4), 400)
    predicted = [1 / 8] * 2 + [collapsed] * 2
    pairs = [(name, a, float(b)) for name, a, b in zip(starts, predicted, found, strict=True)]
    wrong = {"one state for all": [1 / 8] * 4, "any disturbance grows": [1 / 8] + [collapsed] * 3}
    yield measured("largest probability at the end", pairs, within=1e-4, wrong=wrong)
    for place, printed in ((0, "0.125"), (3, "0.981")):
        yield reported(f"largest probability from {pairs[place][0]}", sp.Float(pairs[place][2], 17), printed)


HYSTERESIS = Claim(
    id="reinforcement/hysteresis",
    statement=r"N = 8, \kappa = 6: \ \max_i \pi_i \to .125 \text{ or } .981",
    words="At the same kappa a start near uniform routing ends there and a collapsed start stays collapsed; between "
    "them it decides whether the disturbance exceeds the unstable state of one favoured expert.",
    source="[himoe-theory] D7",
    recorded=Verdict.SUPPORTED,
    check=_hysteresis,
    functions=(dynamics.reinforcement, dynamics.collapsed_control),
)

CLAIMS = (STABILITY, TWO_LARGE, BISTABLE, DEEPER, HYSTERESIS)
