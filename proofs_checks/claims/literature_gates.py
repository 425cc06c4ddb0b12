"""Claims about Gaussian mixtures of experts with softmax and Laplace gates (HMoE, FuseMoE)."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import sympy as sp
import z3

from himoe_theory import distance_logits

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..solvers import Problem, decide, everywhere, reals
from ..symbolic import equation
from ..witnesses import witness

x, y, w, omega, a, b, bias = sp.symbols("x y w omega a b beta", real=True)
nu, rest = sp.symbols("nu rho", positive=True)
"""One coordinate of input and gates; `rest` is the part of the linear predictor from the other coordinates."""


def _normal() -> sp.Expr:
    residual = y - (a * x + b + rest)
    return sp.exp(-(residual**2) / (2 * nu)) / sp.sqrt(2 * sp.pi * nu)


def _softmax_gate(weights: sp.Expr) -> sp.Expr:
    return sp.exp(weights * x + bias) * _normal()


def _laplace(gap: sp.Expr) -> sp.Expr:
    """A Laplace factor in one coordinate; the other coordinates' squared distance is `rest` squared."""
    return sp.exp(-sp.sqrt(gap**2 + rest**2))


def _relative(u: sp.Expr, *by: sp.Symbol) -> sp.Expr:
    """A derivative over u itself, in which the exponentials cancel; u is positive."""
    return sp.expand(sp.powsimp(sp.expand(sp.diff(u, *by) / u)))


def _slope(effort: Effort) -> Iterator[Finding]:
    u = _softmax_gate(w)
    laplace = _laplace(w - x) * _normal()
    yield equation(
        _relative(u, w, b),
        _relative(u, a),
        variants={"Laplace gate": _relative(u, a) + _relative(laplace, w, b) - _relative(laplace, a)},
        why="Coordinate by coordinate: both sides are x times the derivative in b.",
    )


SLOPE = Claim(
    id="fusemoe/softmax-interaction",
    statement=r"\frac{\partial^2 u}{\partial w\, \partial b} = \frac{\partial u}{\partial a}, \quad "
    r"u = e^{w \cdot x + \beta}\, \mathcal N(y; a \cdot x + b, \nu)",
    words="With a softmax gate, gate vector and intercept together do what the slope does: the parameters interact.",
    source="[fusemoe] softmax gate; [hmoe]",
    recorded=Verdict.PROVED,
    check=_slope,
    remark="A Laplace gate breaks it; that is one of the false variants.",
)


def _heat(effort: Effort) -> Iterator[Finding]:
    laplace = _laplace(w - x) * _normal()
    for u in (_softmax_gate(w), laplace):
        in_variance = _relative(u, nu)
        yield equation(_relative(u, b, b), 2 * in_variance, variants={"factor lost": in_variance})


HEAT = Claim(
    id="fusemoe/heat",
    statement=r"\frac{\partial^2 u}{\partial b^2} = 2 \frac{\partial u}{\partial \nu}",
    words="Intercept and variance interact through the heat equation, with softmax and Laplace gates alike.",
    source="[fusemoe]; [hmoe]",
    recorded=Verdict.PROVED,
    check=_heat,
)


def _levels(effort: Effort) -> Iterator[Finding]:
    u = _softmax_gate(omega + w)
    yield equation(
        _relative(u, omega),
        _relative(u, w),
        variants={"levels of opposite sign": _relative(_softmax_gate(omega - w), w)},
    )


LEVELS = Claim(
    id="hmoe/softmax-softmax",
    statement=r"\frac{\partial u}{\partial \omega} = \frac{\partial u}{\partial w}, \quad "
    r"u = e^{\omega \cdot x} e^{w \cdot x + \beta}\, \mathcal N",
    words="Two softmax levels are not told apart to first order.",
    source="[hmoe]",
    recorded=Verdict.PROVED,
    check=_levels,
    remark="u is one term of the numerator, which is what the theory of rates expands; normalisers are left out.",
)


def _mixed(effort: Effort) -> Iterator[Finding]:
    u = sp.exp(omega * x) * _laplace(w - x) * _normal()
    yield equation(
        _relative(u, omega, b),
        _relative(u, a),
        variants={"the Laplace level's vector": _relative(u, w, b)},
        why="The first level is a softmax, the second a Laplace gate.",
    )


MIXED = Claim(
    id="hmoe/softmax-laplace",
    statement=r"\frac{\partial^2 u}{\partial \omega\, \partial b} = \frac{\partial u}{\partial a}, \quad "
    r"u = e^{\omega \cdot x} e^{-\|w - x\| + \beta}\, \mathcal N",
    words="One softmax level is enough to keep the interaction of gate vector, intercept and slope.",
    source="[hmoe]",
    recorded=Verdict.PROVED,
    check=_mixed,
)


def _pulls(*centres: tuple[float, ...]) -> jax.Array:
    """Gradients of the Laplace scores of x = 0 in their centres."""
    x = jnp.zeros((1, len(centres[0])))
    return jax.jit(jax.grad(lambda w: distance_logits(x, w).sum()))(jnp.asarray(centres))


def _laplace_levels(effort: Effort) -> Iterator[Finding]:
    line, plane = _pulls((1.0,), (2.0,)), _pulls((3.0, 4.0), (5.0, 12.0))
    yield witness(
        "d = 1, x = 0, centres omega = 1 and w = 2: |du/domega - du/dw| / u",
        abs(sp.sign(-1) - sp.sign(-2)),
        ">=",
        sp.Rational(1, 10**6),
        holds_at={
            "d = 1, x = 0, centres 1 and -2": (2, sp.Rational(1, 10**6)),
            "d = 2, x = 0, centres (3, 4) and (5, 12), first coordinate": (
                abs(sp.Rational(3, 5) - sp.Rational(5, 13)),
                sp.Rational(1, 10**6),
            ),
        },
        code=[
            (line[0, 0], -1),
            (line[1, 0], -1),
            (plane[0, 0], sp.Rational(-3, 5)),
            (plane[1, 0], sp.Rational(-5, 13)),
        ],
    )


def _plane(effort: Effort) -> Iterator[Finding]:
    p, q = reals("p", 2), reals("q", 2)

    def parallel(x0: int, x1: int) -> z3.BoolRef:
        return (p[0] - x0) * (q[1] - x1) == (p[1] - x1) * (q[0] - x0)

    same = z3.And(p[0] == q[0], p[1] == q[1])
    places = [(0, 0), (1, 0), (0, 1)]
    given = [parallel(*place) for place in places]
    scope = (
        "d >= 2, in the plane of the two centres and any third point: unit vectors towards two centres agree at three "
        "points that are not on a line (which shift and scale make 0, (1, 0), (0, 1)) only if the centres agree"
    )
    yield everywhere(decide([Problem(scope, given, same, {"two points": (given[:2], same)})], effort))


LAPLACE = Claim(
    id="hmoe/laplace-laplace",
    statement=r"\frac{\partial u}{\partial \omega} \ne \frac{\partial u}{\partial w} \text{ for } \omega \ne w, \quad "
    r"u = e^{-\|\omega - x\|} e^{-\|w - x\| + \beta}\, \mathcal N",
    words="Two Laplace levels are told apart to first order wherever the input lies.",
    source="[hmoe]",
    recorded=Verdict.CORRECTED,
    check=_laplace_levels,
    functions=(distance_logits,),
    correction=Correction(
        statement=r"d \ge 2: \ \frac{x - \omega}{\|x - \omega\|} = \frac{x - w}{\|x - w\|} \text{ on an open set} "
        r"\implies \omega = w",
        words="In two or more dimensions they are; in one dimension the derivatives are signs, and agree wherever both "
        "centres lie on the same side of x.",
        check=_plane,
    ),
)


def _system(r: int, weights: list, gate: list, spread: list, divide) -> list:
    """Left sides of the polynomial system for orders 1 to r. `divide` makes an exact quotient of integers."""
    found = []
    for order in range(1, r + 1):
        terms = []
        for q3, q1, q2 in zip(weights, gate, spread, strict=True):
            for n2 in range(order // 2 + 1):
                n1 = order - 2 * n2
                coefficient = divide(1, int(sp.factorial(n1) * sp.factorial(n2)))
                terms.append(functools.reduce(lambda u, v: u * v, [q1] * n1 + [q2] * n2, coefficient * q3 * q3))
        found.append(functools.reduce(lambda u, v: u + v, terms))
    return found


def _order(effort: Effort) -> Iterator[Finding]:
    weight, c, d = z3.Reals("p c d")
    scale = z3.Real("q")
    given = [scale > 0, weight == scale * scale]
    left = _system(4, [scale, z3.RealVal(1)], [z3.RealVal(1), -weight], [c, d], z3.Q)
    lower = [equation_ == 0 for equation_ in left[:3]]
    scope = (
        "two components: order 1 makes the second gate difference -p times the first, and weights and differences are "
        "free up to scale, so the first weight squared is p, the second 1 and the first difference 1"
    )
    false = {"orders up to 3 only": ([*given, *lower], z3.BoolVal(False))}
    yield everywhere(decide([Problem(scope, [*given, *lower], left[3] != 0, false)], effort))
    half = sp.Rational(1, 2)
    values = _system(4, [sp.S.One] * 2, [sp.S.One, -sp.S.One], [-half, -half], sp.Rational)
    where = "weights 1 and 1, gate differences 1 and -1, spreads -1/2 and -1/2"
    other = _system(3, [sp.S.One] * 2, [sp.S.One, -sp.S.One], [sp.S.Zero] * 2, sp.Rational)
    yield witness(
        f"{where}, orders 1 to 3: sum of squares of the left sides",
        sum(value**2 for value in values[:3]),
        "<=",
        0,
        holds_at={"no difference at all": (0, 0)},
    )
    yield witness(
        f"{where}, order 4: its absolute value; the same without spreads fails at order 2",
        abs(values[3]),
        ">=",
        sp.Rational(1, 6),
        holds_at={"order 2 without spreads": (abs(other[1]), sp.Rational(1, 6))},
    )


ORDER = Claim(
    id="fusemoe/rbar-2",
    statement=r"\sum_{i=1}^2 \sum_{m_1 + 2 m_2 = s} \frac{q_{3i}^2 q_{1i}^{m_1} q_{2i}^{m_2}}{m_1!\, m_2!} = 0,\ "
    r"s = 1..r: \quad \bar r(2) = 4",
    words="For two fitted components the system has a solution with a gate difference for r = 3 and none for r = 4.",
    source="[fusemoe]; [hmoe]",
    recorded=Verdict.PROVED,
    check=_order,
    assumptions=("all q_3 nonzero, some q_1 nonzero, all real",),
)


CLAIMS = (SLOPE, HEAT, LEVELS, MIXED, LAPLACE, ORDER)
