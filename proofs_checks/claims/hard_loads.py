"""Claims about load losses with hard counts: their minimum, their field, and what they cannot see."""

import fractions
import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array
from sympy import KroneckerDelta

from himoe_theory import GroupedTopK, Partition, objectives

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import GROUP_MASS, NORMALISED, ONE_GROUP, SIZES, B, M, N, T, e, g, generic, h, index, m, p, t
from ..search import search
from ..solvers import reals
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, witness
from .load_gradients import f

F = fractions.Fraction


def lowest(experts: int) -> F:
    """What `HARD_MINIMUM` says is the infimum of the load with hard first choices."""
    return F(7, 8) if experts == 2 else F(experts, (experts + 1) ** 2 // 4)


def _exact_load(rows: Sequence[Sequence[F]]) -> F:
    """N sum h P; the first of a row's largest entries is its choice."""
    choices = [list(row).index(max(row)) for row in rows]
    experts, tokens = len(rows[0]), len(rows)
    share = [F(choices.count(x), tokens) for x in range(experts)]
    return experts * sum(share[x] * sum(row[x] for row in rows) / tokens for x in range(experts))


def _computed_load(rows: Sequence[Sequence[F]]) -> Array:
    logits = jnp.log(jnp.asarray([[float(x) or 1e-30 for x in row] for row in rows]))
    return objectives.load(logits, jax.nn.one_hot(logits.argmax(1), logits.shape[1], dtype=bool))


def _attaining(experts: int) -> list[list[F]]:
    """Probabilities whose hard load is the infimum; ties go to the expert of lower number, which is live."""
    if experts == 2:
        return [[F(1, 2), F(1, 2)]] * 3 + [[F(0), F(1)]]
    live = (experts + 1) // 2
    each = F(1, experts - live + 1)
    return [[each if x == a or x >= live else F(0) for x in range(experts)] for a in range(live)]


def _sympy(value: F) -> sp.Rational:
    return sp.Rational(value.numerator, value.denominator)


def _nine_and_one(effort: Effort) -> Iterator[Finding]:
    rows = [[F(51, 100), F(49, 100)]] * 9 + [[F(0), F(1)]]
    exact = _exact_load(rows)
    yield witness(
        "nine tokens with probabilities (.51, .49) and one with (0, 1)",
        exact,
        ">=",
        1,
        holds_at={"all tokens (1/2, 1/2)": (F(1), F(1)), "ten tokens (0, 1)": (F(2), F(1))},
        code=[(_computed_load(rows), _sympy(exact))],
    )


def _means(experts: int) -> list[list[list[int]]]:
    """For each choice a, the sets that can be best for its tokens: a and the k smallest shares among the others."""
    others = [[x for x in range(experts) if x != a] for a in range(experts)]
    return [[[a, *rest[:k]] for k in range(experts)] for a, rest in enumerate(others)]


def _coefficient(experts: int, a: int, b: int, sets: Sequence[Sequence[int]], bound: F) -> F:
    """Of y_a y_b (b >= a) in the loss less the bound, where h_e = y_0 + ... + y_e; linear in each choice's set."""
    part = sum(
        (F((i >= a) * sum(x >= b for x in chosen) + (i >= b) * sum(x >= a for x in chosen), len(chosen)))
        for i, chosen in enumerate(sets)
    )
    return experts * part - 2 * bound * (experts - a) * (experts - b)


def _visible(experts: int, bound: F) -> bool:
    """Whether every coefficient is non-negative, whichever set each choice uses: each set is minimised by itself."""
    options = _means(experts)

    def least(a: int, b: int) -> F:
        parts = (
            min(F((i >= a) * sum(x >= b for x in o) + (i >= b) * sum(x >= a for x in o), len(o)) for o in options[i])
            for i in range(a, experts)
        )
        return experts * sum(parts) - 2 * bound * (experts - a) * (experts - b)

    return all(least(a, b) >= 0 for a in range(experts) for b in range(a, experts))


def _forms(experts: int) -> Iterator[tuple[int, Sequence[Sequence[int]]]]:
    """Every choice of a set for each expert's tokens."""
    return ((experts, sets) for sets in itertools.product(*_means(experts)))


def _nonnegative(case: tuple[int, Sequence[Sequence[int]]], more: F, effort: Effort) -> bool:
    """Whether one such quadratic form is non-negative for non-negative steps: by its coefficients, else by z3."""
    experts, sets = case
    bound = lowest(experts) + more
    pairs = itertools.combinations_with_replacement(range(experts), 2)
    found = {(a, b): _coefficient(experts, a, b, sets, bound) / (1 + (a == b)) for a, b in pairs}
    if min(found.values()) >= 0:
        return True
    y = reals("y", experts)
    terms = [z3.Q(c.numerator, c.denominator) * y[a] * y[b] for (a, b), c in found.items()]
    solver = z3.Solver()
    solver.set("timeout", int(1000 * effort.seconds))
    solver.add(*[step >= 0 for step in y], z3.Sum(terms) < 0)
    answer = solver.check()
    if answer == z3.unknown:
        raise AssertionError(f"z3 gave up on {sets}")
    return answer == z3.unsat


def _infimum(effort: Effort) -> Iterator[Finding]:
    yield exhaustive(
        "2 to 4 experts: nothing is lower, whichever sets",
        itertools.chain.from_iterable(map(_forms, (2, 3, 4))),
        lambda case: _nonnegative(case, F(0), effort),
        false={"one hundredth more": lambda case: _nonnegative(case, F(1, 100), effort)},
    )
    yield exhaustive(
        "5 to 10 experts: nothing is lower",
        range(5, 11),
        lambda experts: _visible(experts, lowest(experts)),
        false={"one hundredth more": lambda experts: _visible(experts, lowest(experts) + F(1, 100))},
    )
    yield exhaustive(
        "2 to 32 experts: the bound is attained",
        range(2, 33),
        lambda experts: _exact_load(_attaining(experts)) == lowest(experts),
        false={"4/N for all N": lambda experts: _exact_load(_attaining(experts)) == F(4, experts)},
    )
    experts = 4
    np.testing.assert_allclose(_computed_load(_attaining(experts)), float(lowest(experts)), rtol=1e-9)

    def sides(point: Array) -> tuple[Array, Array]:
        share = jax.nn.softmax(point[:experts])
        free = point[experts:].reshape(experts, experts)
        own = jnp.eye(experts, dtype=bool)
        logits = jnp.where(own, free.max(axis=1, keepdims=True), free)  # a token's own choice is a largest
        losses = jax.vmap(lambda row: objectives.load_for_share(row[None], share))(logits)
        return jnp.asarray(float(lowest(experts))), (share * losses).sum()

    yield search(sides, experts + experts**2, effort, false_factor=0.9, what="4 experts; shares and logits")


HARD_MINIMUM = Claim(
    id="load/hard-minimum",
    statement=r"N \sum_e h_e P_e \ge 1",
    words="With hard counts, uniform routing minimises the load loss.",
    source="[switch] eq. (4)",
    recorded=Verdict.CORRECTED,
    check=_nine_and_one,
    assumptions=("every token counts for its most probable expert", "h sums to 1"),
    functions=(objectives.load, objectives.load_for_share),
    correction=Correction(
        statement=r"\min N \sum_e h_e P_e = \frac{N}{\lfloor (N+1)^2/4 \rfloor} \; (N \ge 3), \quad 7/8 \; (N = 2)",
        words="About half of the experts dead, each live expert's tokens sharing their probability with all dead ones.",
        check=_infimum,
    ),
    remark="Given the shares, the loss is linear in each token's probabilities, so that those of choice a do best with "
    "the uniform distribution over a and the smallest shares. With shares in ascending order, written as sums of "
    "non-negative steps, the loss less the bound is a quadratic form in the steps; its coefficients are non-negative "
    "from 5 experts on (a coefficient is at least a multiple of N/((a+1)(N-a)) less the bound, or of (N+1)/(2N) less "
    "the bound, which needs N^2 - 5N + 2 >= 0), and 2 to 4 are decided. It is a minimum where ties go to a live "
    "expert, else an infimum.",
)


def _one_hot(effort: Effort) -> Iterator[Finding]:
    slope, a, b = sp.IndexedBase("slope", real=True), index("a", N), index("b", N)
    chosen = [KroneckerDelta(x, a) for x in (e, b)]
    gradient = N / T * chosen[0] * (f[e] - total(f[b] * chosen[1], b))

    def code(d: Data) -> float:
        logits = jnp.where(jnp.eye(5, dtype=bool), 0.0, -1e4)
        found = objectives.load_for_share_grad(logits, jnp.asarray(d["f"]))
        return np.abs(np.asarray(found) @ d["slope"]).max()

    yield identity(
        total(gradient * slope[e], e),
        sp.S.Zero,
        code=code,
        variants={"normaliser of the softmax forgotten": N / T * f[a] * slope[a]},
        sample=lambda rng: {"f": rng.uniform(1, 2, 5), "slope": rng.normal(size=5)},
        sizes=SIZES,
    )


ONE_HOT = Claim(
    id="load/one-hot",
    statement=r"\pi_t = \delta_a \;\Rightarrow\; \partial(N \sum_e h_e P_e)/\partial s_t = 0",
    words="At one-hot routing the load loss has no gradient, whatever the counts: it cannot revive what has collapsed.",
    source="[himoe-theory] D8",
    recorded=Verdict.PROVED,
    check=_one_hot,
    functions=(objectives.load_for_share_grad,),
    remark="Every component vanishes, since the sum with any weights does; a is any expert.",
)


def _loop(effort: Effort) -> Iterator[Finding]:
    near, far, high, x = sp.symbols("near far high x", positive=True)

    def half(z: sp.Expr) -> sp.Expr:
        return 1 / (1 + sp.exp(-z))

    # Counts h_0 - h_1 of two tokens with gaps x > 0 and y: 1 where y > 0, 0 where y < 0. Force: its product with the
    # derivative of the logistic function. The four sides of the loop, counter-clockwise from below:
    slope = sp.diff(half(x), x)
    sides = [sp.S.Zero]
    sides.append(half(high) - half(sp.S.Zero))  # x = far, y from -high to high: no force below 0
    sides.append(half(near) - half(far))  # y = high, x from far to near
    sides.append(half(sp.S.Zero) - half(high))  # x = near, y back down
    _check_force(slope, x)
    yield equation(
        sum(sides),
        half(near) - half(far),
        variants={"a potential: the loop gives 0": sp.S.Zero},
        why="The force on both gaps is (h_0 - h_1) times the logistic function's derivative.",
    )


def _check_force(slope: sp.Expr, x: sp.Symbol) -> None:
    """The force that the integral uses, against the closed form, on both sides of y = 0."""
    for y, count in ((0.7, 1.0), (-0.7, 0.0)):
        gaps = jnp.asarray([1.3, y])
        logits = jnp.stack([gaps, jnp.zeros(2)], axis=1)
        found = objectives.load_grad(logits, jax.nn.one_hot(logits.argmax(1), 2, dtype=bool))[:, 0]
        mine = [count * float(slope.subs(x, gap)) for gap in (1.3, y)]
        np.testing.assert_allclose(found, mine, rtol=1e-9, atol=1e-12)


NO_POTENTIAL = Claim(
    id="load/no-potential",
    statement=r"\oint \nabla_s (N \sum_e h_e P_e) \cdot ds = \sigma(x_{near}) - \sigma(x_{far}) \ne 0",
    words="The field of the hard count loss has no potential: round a loop across a count's jump it does work.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_loop,
    assumptions=("2 tokens, 2 experts, first choices", "a rectangle of gaps from (near, -high) to (far, high)"),
    functions=(objectives.load_grad,),
    remark="Where no count changes, the field is the gradient of a linear function of P, and its curl is 0: the jumps "
    "alone have the curl. The soft and the frozen form have potentials, N P^2 and half of it.",
)


def _shift(effort: Effort) -> Iterator[Finding]:
    x, y, shift = sp.symbols("x y shift", real=True)
    yield equation(
        (x + shift) - (y + shift),
        x - y,
        variants={"shifts of their own": x - y + shift},
        why="Selection inside a group compares the logits of its members, and each comparison is unchanged.",
    )
    partition, rule = Partition((0, 1, 0, 1, 1)), GroupedTopK((1, 2))
    keys = np.array(list(itertools.product((0.0, 1.0, 2.0), repeat=5)))

    def chosen(by: tuple[float, ...]) -> np.ndarray:
        return np.asarray(rule.choose(jnp.asarray(keys + np.array(by)), partition))

    plain = chosen((0.0,) * 5)
    moved, stray = chosen((5.0, -3.0, 5.0, -3.0, -3.0)), chosen((5.0, -3.0, 5.0, -3.0, 3.0))
    yield exhaustive(
        "2 and 3 experts of 5 in two interleaved groups, all logits in 0, 1, 2",
        range(len(keys)),
        lambda row: bool((plain[row] == moved[row]).all()),
        false={"one expert of a group shifted more": lambda row: bool((plain[row] == stray[row]).all())},
    )


GROUP_SHIFT = Claim(
    id="load/grouped-counts-ignore-group-shift",
    statement=r"s_e \to s_e + a_{g(e)} \text{ changes no selection of grouped top-K}",
    words="Adding a constant to the logits of a group changes no count under grouped selection.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_shift,
    functions=(GroupedTopK.choose,),
    remark="In exact arithmetic: rounding may tie two logits that a large constant is added to.",
)


def _along_shift(effort: Effort) -> Iterator[Finding]:
    j = index("j", N)
    gradient = N / T * p[t, e] * (f[e] - total(f[j] * p[t, j], j))
    inside = total(B[g, j] * f[j] * p[t, j], j) / m[t, g]
    across = total(m[t, h] * (total(B[h, j] * f[j] * p[t, j], j) / m[t, h]), h)

    def code(d: Data) -> np.ndarray:
        found = objectives.load_for_share_grad(jnp.log(jnp.asarray(d["p"])), jnp.asarray(d["f"]))
        return (np.asarray(found) @ d["B"].T).T

    yield identity(
        total(B[g, e] * gradient, e),
        N / T * m[t, g] * (inside - across),
        assumptions=(ONE_GROUP, GROUP_MASS),
        variants={"no gradient along a shift": sp.S.Zero},
        code=code,
        sample=lambda rng: NORMALISED.impose(generic(rng)) | {"f": rng.uniform(0.1, 1, 5)},
    )


ALONG_SHIFT = Claim(
    id="load/gradient-along-group-shift",
    statement=r"\sum_{e \in g} \partial L/\partial s_{te} = \tfrac NT m_g \big( \langle h, q_g \rangle - "
    r"\textstyle\sum_{g'} m_{g'} \langle h, q_{g'} \rangle \big)",
    words="Along a shift of a group the load has a gradient unless the mean share inside is the same in all groups.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_along_shift,
    functions=(objectives.load_for_share_grad,),
    remark="So it vanishes for every group exactly where the mean share is equal over all groups that have mass.",
)


def _blind(effort: Effort) -> Iterator[Finding]:
    share = [F(1, 2), F(1, 4), F(1, 4)]

    def value(masses: Sequence[F]) -> F:
        probs = [masses[0], masses[1] / 2, masses[1] / 2]
        return 3 * sum(s * q for s, q in zip(share, probs, strict=True))

    def computed(masses: Sequence[F]) -> Array:
        probs = jnp.asarray([[float(masses[0]), float(masses[1]) / 2, float(masses[1]) / 2]])
        return objectives.load_for_share(jnp.log(probs), jnp.asarray([float(x) for x in share]))

    one, two = (F(3, 4), F(1, 4)), (F(1, 3), F(2, 3))
    yield witness(
        "groups of one and of two experts, one selected in each, the pair used evenly: h = (1/2, 1/4, 1/4); masses "
        "(3/4, 1/4) against (1/3, 2/3)",
        value(one),
        "=",
        value(two),
        holds_at={"the same masses": (value(one), value(one))},
        code=[(computed(one), _sympy(value(one))), (computed(two), _sympy(value(two)))],
    )


def _blind_equal(effort: Effort) -> Iterator[Finding]:
    K_g = sp.Symbol("K", positive=True)
    # Equal groups used evenly: every expert is selected by K_g / S of the tokens, and the share is the same for all.
    yield identity(
        N * total(K_g * M / N / (K_g * M) * p[t, e], e),
        sp.S.One,
        assumptions=(NORMALISED,),
        code=lambda d: objectives.load_for_share(jnp.log(jnp.asarray(d["p"])), jnp.full(5, 0.2)),
        sample=lambda rng: generic(rng) | {"K": np.asarray(1.0)},
    )


BLIND = Claim(
    id="load/blind-to-group-mass",
    statement=r"h_e \text{ even inside every group} \;\Rightarrow\; N \sum_e h_e P_e \text{ is constant in } m",
    words="Under grouped selection with experts used evenly inside groups, the load loss does not see group mass.",
    source="[himoe-theory] D10",
    recorded=Verdict.CORRECTED,
    check=_blind,
    assumptions=("grouped selection, the same number of experts in every group",),
    functions=(objectives.load_for_share,),
    correction=Correction(
        statement=r"S_g = S \;\Rightarrow\; N \sum_e h_e P_e = 1 \text{ for all } m",
        words="With groups of equal size it does not; with unequal ones it pushes mass toward the larger group.",
        check=_blind_equal,
    ),
)

CLAIMS = (HARD_MINIMUM, ONE_HOT, NO_POTENTIAL, GROUP_SHIFT, ALONG_SHIFT, BLIND)
