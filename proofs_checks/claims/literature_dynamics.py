"""Claims about how routers move: overlaps and their integrals, pulls on states, sliding hard loads, the z-loss."""

import functools
import itertools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, Router, Softmax, TopK, dynamics, objectives

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, SIZES, Assumption, e, generic, index, j, k, p, s, t
from ..search import measured
from ..sums import Rule, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, reported, witness

D = sp.Symbol("D", integer=True, positive=True)
d, d1 = index("d", D), index("d1", D)
DIM = SIZES | {D: 4}

# Kawata et al.: how long an overlap takes to grow

own, star = sp.IndexedBase("w", real=True), sp.IndexedBase("v", real=True)
UNIT = Assumption(
    "the target direction has length 1",
    (Rule(d, star[d] ** 2, sp.S.One),),
    lambda v: v | {"v": v["v"] / np.linalg.norm(v["v"])},
)


def _escape(effort: Effort) -> Iterator[Finding]:
    overlap = total(own[d1] * star[d1], d1)
    yield identity(
        total(star[d] * (star[d] - overlap * own[d]), d),
        1 - total(own[d] * star[d], d) ** 2,
        assumptions=(UNIT,),
        variants={"not projected": sp.S.One},
        sample=lambda rng: {"w": rng.normal(size=4), "v": rng.normal(size=4)},
        sizes=DIM,
    )
    m, order, size, dim = sp.symbols("m k a d", positive=True)
    speed = order * size * m ** (order - 1) * (1 - m**2)
    law = m ** (2 - order) / (order * (order - 2) * size)
    yield equation(
        sp.powsimp(1 / speed / -sp.diff(law, m)),
        1 / (1 - m**2),
        variants={"without the projection": sp.S.One},
        why="The time from m to some later m' and the law fall with m by 1/speed and by minus the law's slope. Their "
        "ratio is between 1 and 1/(1 - m'^2) on the way, so the time is between these multiples of law(m) - law(m'). "
        "From a small m' on the time does not depend on d, so that the quotient of time and law tends to 1.",
    )
    start = sp.powdenest(law.subs(m, dim ** sp.Rational(-1, 2)), force=True)
    yield equation(start, dim ** (order / 2 - 1) / (order * (order - 2) * size), variants={"k": dim ** (order / 2)})
    third = -1 / m + sp.atanh(m)
    yield equation(sp.diff(third / (3 * size), m), 1 / speed.subs(order, 3), why="k = 3: the exact time.")
    first, last = 0.05, 0.5
    takes = float(third.subs(m, last) - third.subs(m, first)) / 3
    path = dynamics.flow(lambda x: 3 * x**2 * (1 - x**2), jnp.asarray(first), (0.0, takes))
    wrong = {"without the projection": [1 / (1 / first - 3 * takes)]}
    yield measured(
        "flow, k = 3, d = 400", [("overlap at that time", last, float(path.states[-1]))], within=1e-8, wrong=wrong
    )


ESCAPE = Claim(
    id="kawata/escape-time",
    statement=r"\dot m = k a\, m^{k-1} (1 - m^2),\ m_0 = d^{-1/2}: \quad "
    r"T \sim \frac{d^{(k-2)/2}}{k (k-2)\, a} \quad (k > 2)",
    words="The overlap of a neuron with its target escapes after a time of order d to the (k-2)/2, k the information "
    "exponent; inside a cluster a is its Hermite coefficient, pooled it is 0 and there is no escape.",
    source="[kawata] section 4",
    recorded=Verdict.PROVED,
    check=_escape,
    assumptions=("gradient flow on the sphere of the leading correlation a m^k", "typical start, m_0 squared = 1/d"),
    functions=(dynamics.flow,),
    remark="The paper's theorems are known to us from a summary. For k = 2 the time is logarithmic in d.",
)


# Saad and Solla: the other two overlap integrals

COVARIANCE = sp.Matrix(4, 4, lambda a, b: sp.Symbol(f"C{min(a, b) + 1}{max(a, b) + 1}", positive=True))
NORMALS = np.array([[1.0, 0, 0, 0], [0.3, 0.8, 0, 0], [-0.2, 0.4, 0.7, 0], [0.5, 0.1, -0.3, 0.6]])
"""Root of a covariance to measure at."""


def _average(of: sp.Expr, predicted: sp.Expr, count: int, order: int, wrong: sp.Expr) -> Finding:
    """Gauss-Hermite quadrature of a function of the first `count` normals x1, x2, ... beside what is predicted."""
    root = NORMALS[:count, :count]
    nodes, weights = dynamics.gaussian_nodes(jnp.zeros(count), jnp.asarray(root), order)
    compute = sp.lambdify(sp.symbols("x1:5", real=True)[:count], of, "scipy")
    full = NORMALS @ NORMALS.T
    at = {COVARIANCE[a, b]: full[a, b] for a, b in itertools.combinations_with_replacement(range(4), 2)}
    values = [float(sp.N(each.subs(at))) for each in (predicted, wrong)]
    found = float(np.asarray(weights) @ compute(*np.asarray(nodes).T))
    pairs = [(f"mean over {count} normals", values[0], found)]
    return measured(f"quadrature, {order}^{count} nodes", pairs, within=1e-4, wrong={"a sign": [values[1]]})


def _units() -> tuple[list[sp.Symbol], list[sp.Expr], list[sp.Expr]]:
    """x, g(x) and g'(x)."""
    x = list(sp.symbols("x1:5", real=True))
    return x, [sp.erf(y / sp.sqrt(2)) for y in x], [sp.sqrt(2 / sp.pi) * sp.exp(-(y**2) / 2) for y in x]


def _third(effort: Effort) -> Iterator[Finding]:
    c = COVARIANCE
    bend, both = sp.symbols("A J", real=True)
    bent = sp.solve(sp.Eq(bend, -c[0, 0] * bend + c[0, 2] * both), bend)[0]
    yield equation(
        -c[0, 1] * bent + c[1, 2] * both,
        both * (c[1, 2] * (1 + c[0, 0]) - c[0, 1] * c[0, 2]) / (1 + c[0, 0]),
        variants={"covariances added": both * (c[1, 2] * (1 + c[0, 0]) + c[0, 1] * c[0, 2]) / (1 + c[0, 0])},
        why="Stein: E g'(x1) x2 g(x3) = C12 E g''(x1) g(x3) + C23 J with J = E g'(x1) g'(x3); g'' = -x g', so the "
        "first mean is -A, A = E x1 g'(x1) g(x3), and again by Stein A = -C11 A + C13 J.",
    )
    small = c.extract([0, 2], [0, 2])
    third = (1 + c[0, 0]) * (1 + c[2, 2]) - c[0, 2] ** 2
    yield equation(
        (sp.eye(2) + small).det(), third, variants={"without the 1": small.det()}, why="J as in the claim on I2."
    )
    predicted = 2 / sp.pi / sp.sqrt(third) * (c[1, 2] - c[0, 1] * c[0, 2] / (1 + c[0, 0]))
    x, g, slope = _units()
    wrong = 2 / sp.pi / sp.sqrt(third) * (c[1, 2] + c[0, 1] * c[0, 2] / (1 + c[0, 0]))
    yield _average(slope[0] * x[1] * g[2], predicted, 3, 16, wrong)


THIRD = Claim(
    id="saad-solla/i3",
    statement=r"E[g'(x_1)\, x_2\, g(x_3)] = \frac2\pi \frac{1}{\sqrt{L_3}} "
    r"\frac{C_{23}(1 + C_{11}) - C_{12} C_{13}}{1 + C_{11}}, \quad L_3 = (1 + C_{11})(1 + C_{33}) - C_{13}^2",
    words="The integral that drives the overlaps in the flow of soft committee machines.",
    source="[saad-solla]",
    recorded=Verdict.PROVED,
    check=_third,
    assumptions=("x normal with mean 0 and covariance C; g(x) = erf(x/sqrt 2)",),
    functions=(dynamics.gaussian_nodes,),
)


def _fourth(effort: Effort) -> Iterator[Finding]:
    c = COVARIANCE
    part, rest = sp.eye(2) + c[:2, :2], c[2:, :2]
    whole = sp.expand(part.det())
    tilted = c[2:, 2:] - rest * part.adjugate() * rest.T / whole
    one, two, across = c[0, 0], c[1, 1], c[0, 1]

    def bilinear(a: int, b: int) -> sp.Expr:
        mixed = across * (c[0, a] * c[1, b] + c[0, b] * c[1, a])
        return -c[1, a] * c[1, b] * (1 + one) - c[0, a] * c[0, b] * (1 + two) + mixed

    top = whole * c[2, 3] + bilinear(2, 3)
    sides = [whole * (1 + c[a, a]) + bilinear(a, a) for a in (2, 3)]
    why = "g'(x1) g'(x2) is (2/pi) exp(-(x1^2 + x2^2)/2), which tilts the law: mass det(I + C_12)^(-1/2), covariance "
    yield equation(
        whole * tilted[0, 1],
        top,
        variants={"sign of the mixed products": 2 * whole * c[2, 3] - top},
        why=f"{why}C' = C - C_.12 (I + C_12)^-1 C_12. (Woodbury). What is left is I2 of C', claimed elsewhere.",
    )
    yield equation(whole * (1 + tilted[0, 0]), sides[0], variants={"without the 1": whole * tilted[0, 0]})
    yield equation(whole * (1 + tilted[1, 1]), sides[1], variants={"without the 1": whole * tilted[1, 1]})
    predicted = (2 / sp.pi) ** 2 / sp.sqrt(whole) * sp.asin(top / sp.sqrt(sides[0] * sides[1]))
    _, g, slope = _units()
    yield _average(slope[0] * slope[1] * g[2] * g[3], predicted, 4, 12, -predicted)


FOURTH = Claim(
    id="saad-solla/i4",
    statement=r"E[g'(x_1) g'(x_2) g(x_3) g(x_4)] = \frac{4}{\pi^2} \frac{1}{\sqrt{L_4}} "
    r"\arcsin \frac{L_0}{\sqrt{L_1 L_2}}, \quad L_4 = (1 + C_{11})(1 + C_{22}) - C_{12}^2",
    words="The integral of the noise term, of order the squared rate, in the flow of soft committee machines.",
    source="[saad-solla]",
    recorded=Verdict.PROVED,
    check=_fourth,
    assumptions=("x normal with mean 0 and covariance C; g(x) = erf(x/sqrt 2)",),
    functions=(dynamics.gaussian_nodes,),
    remark="$L_0 = L_4 C_{34} - C_{23} C_{24} (1 + C_{11}) - C_{13} C_{14} (1 + C_{22}) + C_{12} (C_{13} C_{24} + "
    "C_{14} C_{23})$; $L_1$ and $L_2$ are the same with 33 or 44 for 34, plus $L_4$.",
)


# X-MoE


def _harmful(effort: Effort) -> Iterator[Finding]:
    rows = jnp.eye(2)

    def harm(h: Array) -> Array:
        return Softmax().value((rows @ h)[None])[0, 0]

    moved = -jax.jit(jax.grad(harm))(jnp.zeros(2))
    quarter = sp.Rational(1, 4)
    yield witness(
        "embeddings (1, 0) and (0, 1), h = 0, the first expert selected, output times gradient 1: h moves by "
        "(-1/4, 1/4); its product with e_1 less the mean embedding, (1/2, -1/2)",
        -quarter,
        ">=",
        0,
        holds_at={"output times gradient -1": (quarter, 0)},
        code=[(moved[0], -quarter), (moved[1], quarter)],
    )


def _attraction(effort: Effort) -> Iterator[Finding]:
    rows, gain = sp.IndexedBase("r", real=True), sp.Symbol("phi", real=True)
    apart = rows[k, d] - total(p[t, e] * rows[e, d], e)
    push = total(p[t, k] * (sp.KroneckerDelta(k, e) - p[t, e]) * rows[e, d], e)
    yield identity(
        total(apart * -gain * push, d),
        -gain * p[t, k] * total(apart**2, d),
        variants={"towards it in any case": p[t, k] * total(apart**2, d)},
        sample=lambda rng: NORMALISED.impose(generic(rng)) | {"r": rng.normal(size=(5, 4)), "phi": np.asarray(0.7)},
        sizes=DIM,
    )


ATTRACTION = Claim(
    id="xmoe/attraction",
    statement=r"(e_k - \bar e) \cdot \dot h \ge 0 \quad \text{under the routing half of the gradient}",
    words="Routing pulls a token towards the embedding of the expert it is sent to.",
    source="[xmoe], analysis of representation collapse",
    recorded=Verdict.CORRECTED,
    check=_harmful,
    functions=(Softmax.value,),
    correction=Correction(
        statement=r"(e_k - \bar e) \cdot \dot h = -S_k\, (f_k \cdot g)\, \|e_k - \bar e\|^2, \quad "
        r"g = \partial L/\partial h'",
        words="It does where the expert's output lowers the loss; an expert that harms repels its tokens.",
        check=_attraction,
    ),
    remark="The routing half is that of the claim on the Jacobian; the mean embedding is weighted by the gate.",
)


# Hard counts slide; the z-loss keeps differences


def _sliding(effort: Effort) -> Iterator[Finding]:
    pi, alpha, n, routes, force, theta = sp.symbols("pi alpha N K g theta", positive=True)
    up, down = force - alpha * n * pi / routes, force + alpha * n * pi / routes
    found = sp.solve(sp.Eq(theta * up + (1 - theta) * down, 0), theta)[0]
    share = sp.Rational(1, 2) + force * routes / (2 * alpha * n * pi)
    yield equation(found, share, variants={"an even share whatever the force": sp.Rational(1, 2)})

    def field(counts: tuple[float, float, float], x: Array) -> Array:
        push = jnp.asarray([[0.01, -0.01, 0.0]])
        return -0.1 * objectives.load_for_share_grad(x, jnp.asarray(counts)) + push

    first, second = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    sliding = dynamics.Sliding(lambda x: field(first, x), lambda x: field(second, x), lambda x: x[0, 0] - x[0, 1])
    state = jnp.log(jnp.asarray([[0.4, 0.4, 0.2]]))
    speeds = sliding.approach(state)
    numbers = {pi: sp.Rational(2, 5), alpha: sp.Rational(1, 10), n: 3, routes: 1, force: sp.Rational(1, 50)}
    exact = [expr.subs(numbers) for expr in (up, down, share)]
    yield witness(
        "probabilities (2, 2, 1)/5, alpha = 1/10, force 1/50 on the gap: velocities -1/10 and 7/50, share 7/12",
        exact[2],
        "=",
        sp.Rational(7, 12),
        holds_at={"no force": (share.subs(force, 0), sp.Rational(1, 2))},
        code=[(speeds[0], exact[0]), (speeds[1], exact[1]), (sliding.share(state), exact[2])],
    )


SLIDING = Claim(
    id="hard-load/sliding",
    statement=r"\dot\Delta^\pm = g \mp \frac{\alpha N \pi}{K}; \quad |g| < \frac{\alpha N \pi}{K} \implies "
    r"\dot\Delta = 0,\ \theta = \frac12 + \frac{g K}{2 \alpha N \pi}",
    words="At a tie for the last place the load's velocity jumps, and both sides point at the tie: tokens slide along "
    "it and give the place to either expert for such a share of the time that counts balance every other force g.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_sliding,
    assumptions=("all tokens alike, free logits; g the force on the gap of the two logits without the load",),
    functions=(dynamics.Sliding, objectives.load_for_share_grad),
    remark="With both probabilities pi, the mean in the load's gradient cancels from the gap, which moves by alpha N "
    "pi times the difference of the two counts, 1/K on either side. The notes call the surface f = K/N: the two share "
    "evenly only where g = 0.",
)


@functools.cache
def _at_rest(start: tuple[int, ...]) -> np.ndarray:
    """Logits of one token where the z-loss leaves them; there are two starts, one of them for two checks."""
    router = Router("z", Partition((0,) * len(start)), TopK(1), "himoe-theory")
    field = dynamics.FreeLogits(dynamics.LogitGradient(router, {"z": 1.0}))
    return dynamics.flow(field, jnp.asarray([start], dtype=float), (0.0, 30.0)).states[-1, 0]


def _ends_as_printed(effort: Effort) -> Iterator[Finding]:
    shares = np.exp(_at_rest((-3, -4, -5)))
    yield reported("entropy at rest, from (-3, -4, -5)", sp.Float(-(shares * np.log(shares)).sum(), 15), "0.174")


def _ends_near(case: tuple[tuple[int, ...], float, str], printed: str = "") -> bool:
    """Whether the end of the path is within 1e-6 of this shift, and its entropy rounds to the digits; exactly."""
    start, near, digits = case
    values = [sp.exp(-v) for v in start]
    low, high = (sp.Rational(near) + sign * sp.Rational(1, 10**6) for sign in (-1, 1))
    lower, upper = ([1 / (value - shift) for value in values] for shift in (low, high))
    inside = bool(high < min(values)) and bool(sum(lower) < 1) and bool(sum(upper) > 1)
    ends = [sorted(-share * sp.log(share) for share in pair) for pair in zip(lower, upper, strict=True)]
    peaks = [bool(a < sp.exp(-1)) and bool(b > sp.exp(-1)) for a, b in zip(lower, upper, strict=True)]
    most = sum(sp.exp(-1) if peak else pair[1] for peak, pair in zip(peaks, ends, strict=True))
    off = (abs(entropy - sp.Rational(printed or digits)) for entropy in (sum(pair[0] for pair in ends), most))
    return inside and all(bool(each <= sp.Rational(1, 2000)) for each in off)


def _ends(effort: Effort) -> Iterator[Finding]:
    whole = total(sp.exp(s[t, j]), j)
    speed = {x: -sp.diff(sp.log(whole) ** 2, s[t, x]) for x in (e, k)}

    def code(data: Mapping[str, np.ndarray]) -> float:
        logits = np.asarray(data["s"])
        rate = np.exp(-logits) * len(logits) * np.asarray(objectives.z_loss_grad(jnp.asarray(logits)))
        return float(np.ptp(rate, axis=1).max())

    yield identity(sp.exp(-s[t, e]) * speed[e] - sp.exp(-s[t, k]) * speed[k], sp.S.Zero, code=code)
    starts = {(3, 2, 1): "1.098", (-3, -4, -5): "0.173"}
    cases = [
        (start, float(np.exp(-start[0]) - np.exp(-_at_rest(start)[0])), printed) for start, printed in starts.items()
    ]
    yield exhaustive(
        "starts (3, 2, 1) and (-3, -4, -5); the shift tau where the shares 1/(exp(-s_i(0)) - tau) sum to 1, bracketed",
        cases,
        _ends_near,
        false={"as printed": lambda case: _ends_near(case, "0.174")},
    )


ENDS = Claim(
    id="z/where-it-ends",
    statement=r"H: .832 \to 1.098 \text{ from } s = (3, 2, 1), \quad .832 \to .174 \text{ from } s = (-3, -4, -5)",
    words="From one softmax the z-loss goes to nearly uniform routing if logsumexp is positive at first, and to nearly "
    "one-hot routing if it is negative.",
    source="[himoe-theory] D10",
    recorded=Verdict.CORRECTED,
    check=_ends_as_printed,
    assumptions=("gradient flow on the free logits of one token",),
    functions=(objectives.z_loss_grad, dynamics.flow),
    correction=Correction(
        statement=r"\tfrac{d}{dt}\left(e^{-s_i} - e^{-s_j}\right) = 0; \quad .832 \to 1.098, \; .832 \to .173",
        words="All exp(-s) move alike, so that the end has shares 1/(exp(-s_i) - tau) with the one tau for which they "
        "sum to 1; the second entropy is .173.",
        check=_ends,
    ),
    remark="The shares increase with tau below the smallest exp(-s), so there is one such tau; that logsumexp tends to "
    "0 is the claim on its rate. The notes' .174 is a path that was stopped early.",
)

CLAIMS = (ESCAPE, THIRD, FOURTH, ATTRACTION, SLIDING, ENDS)
