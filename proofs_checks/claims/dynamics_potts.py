r"""Claims about reinforced scores, $\dot x = \eta\,\mathrm{softmax}(\beta x) - \lambda x$ (D7)."""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import dynamics
from himoe_theory.objectives import load_frozen_grad, p_squared_grad

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import Assumption, N, index
from ..search import QUICK
from ..sums import Data, Rule, total
from ..symbolic import equation, identity
from ..witnesses import reported, witness

GAIN, DECAY, BETA = sp.symbols("eta lambda beta", positive=True)
PULL, EPS = sp.Symbol("alpha_c", real=True), sp.Symbol("epsilon", real=True)
NUMBERS = {"eta": 1.3, "lambda": 0.4, "beta": 0.8, "alpha_c": 0.25}
x, v = (sp.IndexedBase(name, real=True) for name in ("x", "v"))
i, j, k = index("i", N), index("j", N), index("k", N)
SIZES = {N: 4}
CENTRED = Assumption(
    "the deviation sums to zero over experts",
    (Rule(i, v[i], sp.S.Zero),),
    lambda d: d | {"v": d["v"] - d["v"].mean()},
)


def _sample(rng: np.random.Generator) -> dict[str, np.ndarray]:
    numbers = {name: np.asarray(value) for name, value in NUMBERS.items()}
    return numbers | {"x": rng.normal(size=4), "v": rng.normal(size=4)}


PLANT = (NUMBERS["eta"], NUMBERS["lambda"], NUMBERS["beta"])


def _potential(effort: Effort) -> Iterator[Finding]:
    at = x[i] + EPS * v[i]
    value = DECAY / 2 * total(at**2, i) - GAIN / BETA * sp.log(total(sp.exp(BETA * at), i))
    probs = sp.exp(BETA * x[i]) / total(sp.exp(BETA * x[j]), j)
    yield identity(
        sp.diff(value, EPS).subs(EPS, 0),
        -total((GAIN * probs - DECAY * x[i]) * v[i], i),
        variants={"without decay": -total(GAIN * probs * v[i], i)},
        code=lambda d: -(dynamics.reinforcement(jnp.asarray(d["x"]), *PLANT) * d["v"]).sum(),
        more_code=[(value.subs(EPS, 0), lambda d: dynamics.potential(jnp.asarray(d["x"]), *PLANT))],
        sample=_sample,
        sizes=SIZES,
    )


POTENTIAL = Claim(
    id="reinforcement/potential",
    statement=r"\eta\pi - \lambda x = -\nabla V, \quad "
    r"V = \tfrac\lambda2 |x|^2 - \tfrac\eta\beta \ln\sum_i e^{\beta x_i}",
    words="Reinforced scores descend a potential, that of the mean-field Potts model.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_potential,
    functions=(dynamics.reinforcement, dynamics.potential),
)


def _uniform(effort: Effort) -> Iterator[Finding]:
    # To first order softmax(beta epsilon v) is (1 + epsilon beta v)/N: the claim `growth/softmax-tangent`.
    def probs(expert: sp.Idx) -> sp.Expr:
        return (1 + EPS * BETA * v[expert]) / N

    load = PULL * N * BETA * probs(i) * (probs(i) - total(probs(j) ** 2, j))
    field = GAIN * probs(i) - DECAY * EPS * v[i] - load

    def code(d: Data) -> Array:
        along, pull = jnp.asarray(d["v"]), NUMBERS["alpha_c"]
        moved = [
            jax.jvp(lambda s, f=force, a=alpha: _with_load(s, f, a), (jnp.zeros_like(along),), (along,))[1]
            for force, alpha in ((load_frozen_grad, pull), (p_squared_grad, pull / 2))
        ]
        if float(jnp.abs(moved[0] - moved[1]).max()) > 1e-12:
            raise AssertionError("the full load does not pull twice as hard as the frozen one")
        rate = dynamics.uniform_rate(*PLANT, 4, pull)
        if float(jnp.abs(moved[0] - rate * along).max()) > 1e-12:
            raise AssertionError(f"himoe_theory's rate is {rate}, autodiff moves {along} by {moved[0]}")
        return moved[0]

    yield identity(
        sp.diff(field, EPS).subs(EPS, 0),
        (BETA * (GAIN - PULL * BETA) / N - DECAY) * v[i],
        assumptions=(CENTRED,),
        variants={"no load": (BETA * GAIN / N - DECAY) * v[i]},
        code=code,
        sample=_sample,
        sizes=SIZES,
    )


def _with_load(scores: Array, force, alpha: float) -> Array:
    beta = NUMBERS["beta"]
    return dynamics.reinforcement(scores, *PLANT) - alpha * beta * force(beta * scores[None])[0]


UNIFORM = Claim(
    id="reinforcement/uniform",
    statement=r"\mathrm{rate} = \beta(\eta - c\alpha\beta)/N - \lambda; \quad \text{without load } < 0 \iff \kappa < N",
    words="Uniform routing is linearly stable up to kappa = N; the frozen load lowers the gain by alpha beta, the full "
    "one by twice as much.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_uniform,
    functions=(dynamics.uniform_rate, dynamics.uniform_limit, load_frozen_grad, p_squared_grad),
    remark="In this rate only: the load changes where collapsed states exist in another way.",
)

n, u = sp.symbols("N u", positive=True)


def _branch(effort: Effort) -> Iterator[Finding]:
    # Fixed points have x = eta pi/lambda, so that ln(p/q) = beta (x_1 - x_2) = kappa (p - q); and with u = ln(p/q):
    share = sp.exp(u) / (sp.exp(u) + n - 1)
    rest = (1 - share) / (n - 1)
    control = u / (share - rest)
    yield equation(control, u * (sp.exp(u) + n - 1) / (sp.exp(u) - 1))
    # Its derivative has the sign of the function whose root `spinodal` takes.
    slope = sp.exp(u) + n - 2 - (n - 1) * sp.exp(-u) - n * u
    yield equation(sp.diff(control, u), slope * sp.exp(u) / (sp.exp(u) - 1) ** 2)
    for experts, share_of_first in ((3, 0.6), (8, 0.9)):
        at = float(dynamics.collapsed_control(share_of_first, experts))
        rest_of = (1 - share_of_first) / (experts - 1)
        scores = jnp.array([share_of_first] + [rest_of] * (experts - 1))
        if float(jnp.abs(dynamics.reinforcement(scores, 1.0, 1.0, at)).max()) > 1e-12:
            raise AssertionError(f"not a fixed point: p = {share_of_first}, kappa = {at}")


BRANCH = Claim(
    id="reinforcement/collapsed-branch",
    statement=r"\kappa = \frac{\ln(p/q)}{p - q}, \quad q = \frac{1-p}{N-1}; \quad "
    r"\frac{d\kappa}{du} \propto e^u + N - 2 - (N-1)e^{-u} - Nu, \ u = \ln\frac pq",
    words="States with one favoured expert exist from the minimum of this function on.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_branch,
    functions=(dynamics.collapsed_control, dynamics.spinodal),
    remark="The second factor is 0 with its slope at u = 0, falls and then is convex: it has one positive root.",
)

PRINTED = ((8, "4.250", "4.540"), (64, "6.925", "8.420"), (128, "7.75", "9.77"))


def _printed_spinodal(effort: Effort) -> Iterator[Finding]:
    for experts, printed, _ in PRINTED:
        yield reported(f"kappa_s for N = {experts}", sp.Float(dynamics.spinodal(experts), 17), printed)


SPINODAL = Claim(
    id="reinforcement/spinodal",
    statement=r"\kappa_s = 4.250, 6.925, 7.75 \text{ for } N = 8, 64, 128",
    words="The control at which collapsed states appear, for three sizes.",
    source="[himoe-theory] D7",
    recorded=Verdict.SUPPORTED,
    check=_printed_spinodal,
    functions=(dynamics.spinodal,),
)


def _coexistence(effort: Effort) -> Iterator[Finding]:
    share, rest = (n - 1) / n, 1 / (n * (n - 1))
    critical = 2 * (n - 1) * sp.log(n - 1) / (n - 2)

    def depth(square: sp.Expr, control: sp.Expr, first: sp.Expr) -> sp.Expr:
        """V at the fixed point x = eta pi/lambda in the unit eta/beta; ln sum exp(kappa pi) = kappa p - ln p."""
        return control / 2 * square - control * first + sp.log(first)

    collapsed = depth(share**2 + (n - 1) * rest**2, critical, share)
    uniform = depth(1 / n, critical, 1 / n)
    yield equation(sp.expand_log(collapsed - uniform, force=True), sp.S.Zero, why="Both minima are equally deep there.")
    ratio = 2 * sp.log(n - 1) / (share - rest)  # p/q = (N-1)^2
    yield equation(ratio, critical, why="And p = (N-1)/N is a fixed point there.")
    for experts, _, printed in PRINTED:
        yield reported(f"kappa_c for N = {experts}", critical.subs(n, experts), printed)
    for experts in (3, 8):
        at = dynamics.coexistence(experts)
        if not math.isclose(at, float(critical.subs(n, experts)), rel_tol=1e-12):
            raise AssertionError(f"himoe_theory's coexistence of {experts} experts is {at}")
        first = [(experts - 1) / experts] + [1 / (experts * (experts - 1))] * (experts - 1)
        depths = [float(dynamics.potential(jnp.array(s), 1.0, 1.0, at)) for s in (first, [1 / experts] * experts)]
        if not math.isclose(*depths, rel_tol=1e-12):
            raise AssertionError(f"himoe_theory's potential is {depths} at coexistence of {experts} experts")


COEXISTENCE = Claim(
    id="reinforcement/coexistence",
    statement=r"\kappa_c = \frac{2(N-1)\ln(N-1)}{N-2}: \quad V_{collapsed} = V_{uniform}, \ p = \frac{N-1}{N}",
    words="At this control the collapsed state and uniform routing are equally deep: 4.540, 8.420 and 9.77 for 8, 64 "
    "and 128 experts.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_coexistence,
    functions=(dynamics.coexistence, dynamics.potential),
    remark="Above this control the collapsed state is the deeper one: reinforcement/deeper-minimum.",
)


def _first_order(effort: Effort) -> Iterator[Finding]:
    moments = sp.symbols("s:4")
    series = sum(moments[m] * EPS**m / sp.factorial(m) for m in range(4))
    third = -GAIN / BETA * sp.diff(sp.log(series), EPS, 3).subs(EPS, 0).subs(moments[0], N)
    sums = {s: total((BETA * v[i]) ** m, i) for m, s in enumerate(moments)}

    def code(d: Data) -> Array:
        def value(scale: Array) -> Array:
            return dynamics.potential(scale * jnp.asarray(d["v"]), *PLANT)

        third_derivative = jax.jacfwd(jax.jacfwd(jax.jacfwd(value)))
        return jax.jit(third_derivative, compiler_options=QUICK)(jnp.zeros(()))

    yield identity(
        sp.expand(third.xreplace(sums)),
        -GAIN * BETA**2 * total(v[i] ** 3, i) / N,
        assumptions=(CENTRED,),
        code=code,
        sample=_sample,
        sizes=SIZES,
    )
    one = sp.Symbol("v_1", real=True)
    yield equation(one**3 + (-one) ** 3, sp.S.Zero, why="N = 2: deviations are opposite, the cubic term vanishes.")
    yield witness(
        "N = 3, v = (2, -1, -1), eta = beta = 1: third derivative of V",
        sp.Rational(-(8 - 1 - 1), 3),
        "<=",
        sp.Integer(-2),
        holds_at={"half as large": (sp.Integer(-2), sp.Integer(-1))},
    )


FIRST_ORDER = Claim(
    id="reinforcement/first-order",
    statement=r"\partial^3_v V = -\frac{\eta\beta^2}{N}\sum_i v_i^3 \text{ at } x = \text{uniform}",
    words="For three or more experts the potential has a cubic term at uniform routing, so collapse is a transition of "
    "first order; for two experts the cubic term vanishes.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_first_order,
    functions=(dynamics.potential,),
)


def _pair(effort: Effort) -> Iterator[Finding]:
    # u = beta (x_1 - x_2)/2 is stationary where u = g tanh u + H; states merge where the slopes of both sides agree.
    g = sp.cosh(u) ** 2
    advantage = u - sp.sinh(u) * sp.cosh(u)
    yield equation(g * sp.tanh(u) + advantage, u, why="The fold is a state.")
    yield equation(g * sp.diff(sp.tanh(u), u), sp.S.One, why="The slopes agree.")
    squared = sp.series(advantage, u, 0, 6).removeO() ** 2 / sp.series(g - 1, u, 0, 6).removeO() ** 3
    yield equation(sp.limit(squared, u, 0), sp.Rational(4, 9), why="Near the cusp.")
    # Without advantage: u = g tanh u = g (u - u^3/3), which has u^2 = 3 (g - 1)/g for g > 1 alone: a pitchfork.
    cubic = sp.series(sp.tanh(u), u, 0, 5).removeO()
    yield equation(cubic, u - u**3 / 3, why="The cubic term holds the two new states back: the fork is supercritical.")
    found = dynamics.pair_folds(0.7)
    exact = [float(e.subs(u, 0.7)) for e in (g, advantage)]
    if not np.allclose(found, exact, rtol=1e-13):
        raise AssertionError(f"himoe_theory's fold is {found}, not {exact}")
    # The state of `reinforcement` for two experts that the fold's g belongs to, H being a constant push on x.
    probs = jax.nn.softmax(jnp.array([0.7, -0.7]))
    push = dynamics.reinforcement(jnp.array([0.7, -0.7]), 2 * exact[0], 1.0, 1.0)
    if abs(float((push[0] - push[1]) / 2) + exact[1]) > 1e-12 or float(probs[0]) < 0.5:
        raise AssertionError("the fold of two experts is not a state of the reinforcement with that push")


PAIR = Claim(
    id="reinforcement/two-experts",
    statement=r"u = g\tanh u + H: \ \text{folds } g = \cosh^2 u,\ H = u - \sinh u\cosh u; \ \text{cusp } (1, 0), \ "
    r"H^2 \simeq \tfrac49 (g-1)^3",
    words="Two experts bifurcate in a supercritical pitchfork at kappa = 2, which an advantage of one unfolds into a "
    "cusp.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED,
    check=_pair,
    assumptions=(r"$u = \beta(x_1 - x_2)/2$, $g = \kappa/2$",),
    functions=(dynamics.pair_folds,),
)

CLAIMS = (POTENTIAL, UNIFORM, BRANCH, SPINODAL, COEXISTENCE, FIRST_ORDER, PAIR)
