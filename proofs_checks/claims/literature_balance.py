"""Claims about balance and collapse: congestion games, dual ascent, phi-balancing, identical experts."""

import fractions
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3

from himoe_theory import (
    Partition,
    SelectionBias,
    Softmax,
    TopK,
    from_dense,
    ranked,
)

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..notation import NORMALISED, c, e, generic, j, p, s, t, through_softmax
from ..search import search
from ..solvers import Problem, decide, everywhere
from ..sums import total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, reported, witness

F = fractions.Fraction
a = sp.IndexedBase("a", real=True)
b, b1 = sp.IndexedBase("b", real=True), sp.IndexedBase("bb", real=True)


def _more(rng: np.random.Generator) -> dict[str, np.ndarray]:
    extra = {"a": (3, 5), "b": (5,), "bb": (5,), "G": (3,)}
    return generic(rng) | {name: rng.normal(size=shape) for name, shape in extra.items()}


def _normalised(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return NORMALISED.impose(_more(rng))


# No spontaneous collapse


def _identical(effort: Effort) -> Iterator[Finding]:
    same = sp.IndexedBase("G", real=True)
    yield identity(
        through_softmax(lambda token, _: same[token], t, e),
        sp.S.Zero,
        assumptions=(NORMALISED,),
        variants={"experts that differ": p[t, e] * (a[t, e] - total(p[t, j] * a[t, j], j))},
        sample=_more,
    )
    yield identity(
        through_softmax(lambda token, inner: a[token, inner], t, e),
        p[t, e] * (a[t, e] - total(p[t, j] * a[t, j], j)),
        variants={"output not subtracted": p[t, e] * a[t, e]},
        code=lambda v: _slope(np.log(v["p"]), v["a"]).T,
        sample=_normalised,
    )


@jax.jit
@jax.grad
def _slope(logits: jax.Array, slopes: jax.Array) -> jax.Array:
    """Logit gradient of a loss whose derivatives in the weights are `slopes`."""
    return (Softmax().value(logits) * slopes).sum()


IDENTICAL = Claim(
    id="himoe-theory/no-spontaneous-collapse",
    statement=r"\frac{\partial L}{\partial s_j} = \pi_j\, g \cdot (f_j - y) = 0 \quad \text{if } f_1 = \dots = f_N",
    words="With identical experts the task exerts no force on a softmax router: collapse needs experts that differ, a "
    "loss on the router, or the noise of a hard selection.",
    source="[himoe-theory]",
    recorded=Verdict.PROVED,
    check=_identical,
    functions=(Softmax.value,),
)


# Loss-free balancing as dual descent


def _counts(choice: tuple[int, ...]) -> list[int]:
    return [choice.count(i) for i in range(3)]


SCORES = ((F(3), F(1), F(0)), (F(2), F(3, 2), F(1)), (F(5, 2), F(0), F(2)))
"""Three tokens, three experts: every token prefers the first."""


def _dual(bias: tuple[F, ...]) -> F:
    """Sum over tokens of the best biased score, less the load of one token an expert times the biases."""
    return sum((max(v + u for v, u in zip(row, bias, strict=True)) for row in SCORES), F(0)) - sum(bias, F(0))


def _dual_descent(effort: Effort) -> Iterator[Finding]:
    yield identity(
        total((s[t, e] + b1[e]) * c[t, e], t, e) - total(b1[e], e),
        total((s[t, e] + b[e]) * c[t, e], t, e) - total(b[e], e) + total((total(c[t, e], t) - 1) * (b1[e] - b[e]), e),
        variants={"load not subtracted": total((s[t, e] + b[e]) * c[t, e], t, e) - total(b[e], e)},
        sample=_more,
    )
    grid = list(itertools.product((F(-1), F(0), F(1, 2), F(1)), repeat=3))

    def chosen(bias: tuple[F, ...]) -> tuple[int, ...]:
        return tuple(max(range(3), key=lambda i: row[i] + bias[i]) for row in SCORES)

    def supports(pair: tuple[tuple[F, ...], tuple[F, ...]], sign: int = 1) -> bool:
        here, there = pair
        slope = [count - 1 for count in _counts(chosen(here))]
        step = sum((g * (v - u) for g, u, v in zip(slope, here, there, strict=True)), F(0))
        return _dual(there) >= _dual(here) + sign * step

    yield exhaustive(
        "3 tokens, 3 experts, biases in {-1, 0, 1/2, 1}^3",
        itertools.product(grid, grid),
        supports,
        false={"sign: load below the mean counted as excess": lambda pair: supports(pair, -1)},
    )
    moved = np.asarray(jax.jit(SelectionBias(0.5).update)(jnp.zeros(3), jnp.asarray([2, 1, 0], jnp.int32)))
    best = max(sum(row[i] for row, i in zip(SCORES, order, strict=True)) for order in itertools.permutations(range(3)))
    yield witness(
        "those scores: least dual value on the grid against the best balanced assignment",
        min(map(_dual, grid)),
        "=",
        best,
        holds_at={"the assignment against itself": (best, best)},
        code=[(moved[0], F(-1, 2)), (moved[1], 0), (moved[2], F(1, 2))],
    )


DUAL = Claim(
    id="loss-free/dual-descent",
    statement=r"D(b') \ge D(b) + \sum_e (n_e - \bar n)(b'_e - b_e), \quad D(b) = \max_x \sum_{te} (s_{te} + b_e) x_{te}"
    r" - \bar n \sum_e b_e",
    words="Loads in excess of the mean are a subgradient of the dual of the balanced assignment problem: the "
    "proportional rule is dual descent, and the sign rule takes the signs of the same subgradient.",
    source="[loss-free] algorithm 1; [himoe-theory]",
    recorded=Verdict.PROVED,
    check=_dual_descent,
    assumptions=("x assigns each token K experts; the identity is for mean load 1, a unit of measure",),
    functions=(SelectionBias.update,),
    remark="The maximum over x at b' is at least the value of the assignment chosen at b, which the identity expands. "
    "The vector of signs is itself no subgradient: it is a descent direction where D is differentiable.",
)


def _preference(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "loads 3, 2, 1 (mean 2); a token of expert 1 whose margin to expert 2 is u/2: load of the expert that gains "
        "it, against the largest load below the mean",
        2,
        "<=",
        1,
        holds_at={"margin u/2 to expert 3 instead": (1, 1)},
    )


def _preference_law(effort: Effort) -> Iterator[Finding]:
    old, new, u, mean = z3.Reals("n_old n_new u mean")
    gap = z3.Real("gap")

    def sign(load: z3.ArithRef) -> z3.ArithRef:
        return z3.If(load < mean, z3.RealVal(1), z3.If(load > mean, z3.RealVal(-1), z3.RealVal(0)))

    moves = gap + u * (sign(old) - sign(new)) < 0
    claim = z3.And(old > new, old >= mean, new <= mean)
    false = {"strictly from above to below the mean": ([u > 0, gap >= 0, moves], z3.And(old > mean, new < mean))}
    scope = "every N and K: one token, its old expert ahead of the new one by gap before the step"
    yield everywhere(decide([Problem(scope, [u > 0, gap >= 0, moves], claim, false)], effort))


PREFERENCE = Claim(
    id="han-zhong/preference-rule",
    statement=r"\text{a token that changes expert goes from } n_i > \bar n \text{ to } n_j < \bar n",
    words="Under the sign rule tokens move from overloaded to underloaded experts only.",
    source="[han-zhong], preference rule",
    recorded=Verdict.CORRECTED,
    check=_preference,
    correction=Correction(
        statement=r"n_i > n_j,\quad n_i \ge \bar n \ge n_j",
        words="They move from a more to a less loaded expert, one of which may be exactly at the mean.",
        check=_preference_law,
    ),
    assumptions=("scores do not change",),
    remark="Known to us from a summary: where no load equals the mean the printed rule and the corrected one agree.",
)


# phi-balancing


def _phi(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "all scores (ln 4, 0), b = -ln P: P = (2/3, 1/3) solves P = softmax(s + b); its first entry against 1/2",
        sp.Rational(2, 3),
        "=",
        sp.Rational(1, 2),
        holds_at={"scores equal": (sp.Rational(1, 2), sp.Rational(1, 2))},
        code=[(Softmax().value(jnp.log(jnp.asarray([[4 / (2 / 3), 1 / (1 / 3)]])))[0, 0], sp.Rational(2, 3))],
    )


def _phi_law(effort: Effort) -> Iterator[Finding]:
    mean, strength = sp.symbols("m lambda", positive=True)
    factor = mean ** (-strength / (1 + strength))
    load = factor * mean
    yield equation(
        sp.powsimp(load**-strength / factor),
        sp.S.One,
        variants={"Sinkhorn's factor": sp.powsimp((mean**-1 * mean) ** -strength * mean)},
        why="v = exp(b) is the column's factor and m the token mean of exp(s)/Z, so P = v m; b = -lambda ln P asks for "
        "v = P^(-lambda), which v = m^(-lambda/(1 + lambda)) fulfils. Sinkhorn asks for P = 1/N, v = 1/(N m).",
    )


PHI = Claim(
    id="phi-balancing/fixed-point-sinkhorn",
    statement=r"b = -\nabla\varphi(P),\ P = \overline{\mathrm{softmax}(s + b)},\ \varphi = \sum_e P_e \ln P_e "
    r"\implies P_e = 1/N",
    words="With negative entropy the fixed point on fixed scores is Sinkhorn's column scaling: exact balance.",
    source="[himoe-theory] on [phi-balancing]",
    recorded=Verdict.CORRECTED,
    check=_phi,
    functions=(Softmax.value,),
    correction=Correction(
        statement=r"e^{b_e} = m_e^{-\lambda/(1 + \lambda)},\quad m_e = \overline{e^{s_e}/Z}, \quad b = -\lambda \ln P",
        words="It is a damped column scaling, that of unbalanced transport; balance is exact only as lambda grows.",
        check=_phi_law,
    ),
    remark="The notes of this package expected Sinkhorn's fixed point. The update is known to us from a summary: a "
    "version that accumulates the bias would balance exactly.",
)


# Congestion


def _linear(effort: Effort) -> Iterator[Finding]:
    def rate(ratio: sp.Expr, gap: sp.Expr, gamma: int) -> sp.Expr:
        return sp.log(ratio) / (sp.log(ratio) + gamma * gap)

    three, two = sp.Rational(3, 2), sp.Integer(2)
    sixth = sp.Rational(1, 6)
    yield witness(
        "loads 1/2, 1/3, 1/6 at gamma = 6: inverse temperature of the first pair against that of the second",
        rate(three, sixth, 6),
        ">=",
        rate(two, sixth, 6),
        holds_at={"no congestion": (rate(three, sixth, 0), rate(two, sixth, 0))},
    )


def _lambert(effort: Effort) -> Iterator[Finding]:
    root, gamma, x = sp.symbols("W gamma x", positive=True)
    load = root / gamma
    yield equation(
        load * sp.exp(gamma * load),
        root * sp.exp(root) / gamma,
        variants={"softmax, without the load's own cost": load},
        why="x = exp(q - gamma x - c) says x exp(gamma x) = z with z = exp(q - c). With x = W/gamma the left side is "
        "W exp(W)/gamma, which is z because W = W(gamma z) solves W exp(W) = gamma z.",
    )
    slope = 1 / sp.diff(sp.log(x) + gamma * x, x) / x  # d ln x / d q
    yield equation(slope, 1 / (1 + gamma * x), variants={"no congestion": sp.S.One})
    for value, printed in ((4, "0.8"), (16, "0.5"), (64, "0.2")):
        at_uniform = slope.subs({gamma: value, x: sp.Rational(1, 16)})
        yield reported(f"inverse temperature at uniform loads, N = 16, gamma = {value}", at_uniform, printed)


CONGESTION = Claim(
    id="mouzouni/temperature-softmax",
    statement=r"x_i \propto e^{q_i - \gamma x_i} \implies x_i \propto e^{\beta q_i} \text{ for one } \beta",
    words="The equilibrium of the congestion game with one type is a softmax with a temperature.",
    source="[mouzouni], single-type equilibrium",
    recorded=Verdict.CORRECTED,
    check=_linear,
    correction=Correction(
        statement=r"x_i = W(\gamma e^{q_i - c})/\gamma, \quad \frac{d \ln x_i}{d q_i} = \frac{1}{1 + \gamma x_i}",
        words="It is Lambert's W; a softmax with beta = 1/(1 + gamma/N) is its linearisation at uniform loads.",
        check=_lambert,
    ),
    remark="The best-fit temperatures .744, .501 and .204 in the notes of this package depend on qualities that were "
    "drawn and not kept; they are not checked here.",
)


# A cross-layer term


@jax.jit
def _joint(*layers: jax.Array) -> jax.Array:
    """The joint mass of the first choices of two layers, given their logits."""

    def first(logits: jax.Array) -> jax.Array:
        return from_dense(Softmax().value(logits), ranked(TopK(1), logits, Partition.equal(4, 1))).sum(axis=1)

    return (first(layers[0]) * first(layers[1])).mean()


def _paths(effort: Effort) -> Iterator[Finding]:
    m, n = z3.Reals("m n")
    given = [m >= 0, m <= 1, n >= 0, n <= 1]
    claim = z3.And(m * n <= 1, z3.Implies(m * n == 1, z3.And(m == 1, n == 1)))
    scope = "every N and K: a token's mass on its first choices in two layers, m and n"
    false = {"masses free": ([m >= 0, n >= 0], claim), "maximum below 1": (given, m * n < 1)}
    yield everywhere(decide([Problem(scope, given, claim, false)], effort))
    yield search(
        lambda point: (_joint(*point.reshape(2, 3, 4)), jnp.asarray(1.0)),
        2 * 3 * 4,
        effort,
        false_factor=0.99,
        what="3 tokens, 4 experts, logits of two layers",
    )
    yield witness(
        "all tokens to one expert in both layers, and four tokens to four experts: the joint mass of each",
        1,
        "=",
        1,
        holds_at={"the balanced routing": (1, 1)},
        code=[(_joint(*[jnp.asarray(60.0 * logits)] * 2), 1) for logits in (np.eye(4)[[0, 0, 0, 0]], np.eye(4))],
    )


PATHS = Claim(
    id="hu/cross-layer-collapse",
    statement=r"J = \frac1T \sum_t \sum_{i \in \mathrm{top}\,p_t} \sum_{j \in \mathrm{top}\,q_t} "
    r"p_{ti} q_{tj} \le 1",
    words="The joint probability of first choices in adjacent layers is greatest when routing is confident, all tokens "
    "on one path included: alone it does not tell collapse from balance.",
    source="[hu], cross-layer coupling",
    recorded=Verdict.PROVED,
    check=_paths,
    functions=(TopK.choose, Softmax.value),
    numbers=Numbers("logits", roundings=8, besides="ties by number"),
    remark="Collapse is a maximiser and not the only one: the notes of this package said that the term is maximised by "
    "collapse. The formula is known to us from a summary.",
)


CLAIMS = (IDENTICAL, DUAL, PREFERENCE, PHI, CONGESTION, PATHS)
