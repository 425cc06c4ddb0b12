"""Claims of Chen et al.: data made of clusters, what a single model can do on them, and noisy routing."""

import fractions
import itertools
from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import Softmax, metrics, uniform_noise_top1
from himoe_theory._numerics import xlogx

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import NORMALISED, N, e, p, t
from ..search import search
from ..solvers import Problem, decide, everywhere
from ..sums import total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, reported, witness

F = fractions.Fraction


# Chen et al.: no sum over patches of one function classifies the clusters

Values = Mapping[tuple[str, int], object]
"""f at the patches: ("+", k) at the feature, ("-", k) at its negative, ("c", k) at the centre."""


def _margins(f: Values, clusters: int) -> Iterator[tuple[tuple[int, int], object]]:
    """For each equally likely (cluster, noise cluster, label, noise sign): the pair, and label times F(x)."""
    for k, noisy in itertools.permutations(range(clusters), 2):
        for label, sign in itertools.product("+-", repeat=2):
            value = f[label, k] + f["c", k] + f[sign, noisy]
            yield (k, noisy), value if label == "+" else -value


def _one_eighth(effort: Effort) -> Iterator[Finding]:
    u, w, c, c1, noise = sp.symbols("u w c c_1 n", real=True)  # u = f(a v) + f(-b v'), w = f(-a v) + f(b v')
    margins = [u + c + noise, -(u + c1 + noise), -(w + c + noise), w + c1 + noise]
    yield equation(
        sp.Add(*margins),
        sp.S.Zero,
        variants={"the second sample keeps the first one's centre": c1 - c},
        why="Pair (k, k') with signs (+, -), alpha = a, gamma = b; with (-, +), a, b; and (k', k) with alpha = b, "
        "gamma = a and either signs. If alpha and gamma have one law the four are equally likely, and they share beta "
        "and the noise patches. The labels times F sum to 0, so one of the four is wrong, whatever f. Such fours "
        "fill the half of the space where the two signs differ: error at least 1/2 times 1/4.",
    )
    f = {(kind, k): z3.Real(f"f{kind}{k}") for kind in "+-c" for k in range(3)}
    problems = []
    for clusters in (2, 3):
        wrong = [margin <= 0 for _, margin in _margins(f, clusters)]
        least = len(wrong) // 8
        false = {"one error more": ([], z3.AtLeast(*wrong, least + 1))}
        problems.append(Problem(f"{clusters} clusters, alpha = gamma = 1", [], z3.AtLeast(*wrong, least), false))
    yield decide(problems, effort)
    best = _attaining(4)

    def sides(point: Array) -> tuple[Array, Array]:
        errors = [margin <= 0 for _, margin in _margins(dict(zip(best, point, strict=True)), 4)]
        return jnp.asarray(0.125), jnp.stack(errors).mean()

    yield search(
        sides,
        len(best),
        effort,
        false_factor=0.9,
        what="4 clusters, f at 12 patches, from values that attain the bound",
        starts=lambda rng: np.array([float(value) for value in best.values()]) + 0.05 * rng.normal(size=len(best)),
    )


ONE_EIGHTH = Claim(
    id="chen/single-model-one-eighth",
    statement=r"P[y F(x) \le 0] \ge \tfrac18 \quad \text{for every } F(x) = \sum_p f(x^{(p)})",
    words="A single model that sums one function over the patches errs on at least one eighth of the data.",
    source="[chen] Thm 4.1",
    recorded=Verdict.PROVED,
    check=_one_eighth,
    assumptions=("alpha and gamma have the same law",),
    remark="The proof here needs neither bounded laws nor the form of the noise patches.",
)


def _attaining(clusters: int) -> Values:
    """f(v) = 2 o, f(-v) = 0, f(c) = -2 o + 1/2 with distinct o = 1, 2, ..."""
    f: dict[tuple[str, int], F] = {}
    for k in range(clusters):
        f |= {("+", k): F(2 * (k + 1)), ("-", k): F(0), ("c", k): F(-2 * (k + 1)) + F(1, 2)}
    return f


def _error(f: Values, clusters: int) -> F:
    wrong = [margin <= 0 for _, margin in _margins(f, clusters)]
    return F(sum(wrong), len(wrong))


def _attained(effort: Effort) -> Iterator[Finding]:
    yield exhaustive(
        "K = 2, 3, 4, 6 clusters",
        (2, 3, 4, 6),
        lambda clusters: _error(_attaining(clusters), clusters) == F(1, 8),
        false={
            "without the centres": lambda k: (
                _error({key: F(0) if key[0] == "c" else value for key, value in _attaining(k).items()}, k) == F(1, 8)
            ),
            "error below one eighth": lambda k: _error(_attaining(k), k) < F(1, 8),
        },
    )
    o, o1, delta = z3.Reals("o o1 delta")
    f = {("+", 0): 2 * o, ("-", 0): 0, ("c", 0): delta - 2 * o, ("+", 1): 2 * o1, ("-", 1): 0, ("c", 1): delta - 2 * o1}
    wrong = [margin <= 0 for _, margin in _margins(f, 2)]
    given = [o > 0, delta > 0, delta < o, delta < o1 - o]
    false = {"equal numbers o": ([o > 0, o1 == o, delta > 0, delta < o], z3.PbEq([(w, 1) for w in wrong], 1))}
    scope = "every K: a margin involves two clusters only, of which this is any pair"
    yield everywhere(decide([Problem(scope, given, z3.PbEq([(w, 1) for w in wrong], 1), false)], effort))


ATTAINED = Claim(
    id="chen/one-eighth-attained",
    statement=r"f(v_k) = 2 o_k,\ f(-v_k) = 0,\ f(c_k) = \delta - 2 o_k \implies P[y F(x) \le 0] = \tfrac18",
    words="With constant alpha = gamma the bound of one eighth is attained, for every number of clusters.",
    source="[himoe-theory] on [chen] Thm 4.1",
    recorded=Verdict.PROVED,
    check=_attained,
    assumptions=("alpha = gamma constant", "o distinct and positive, delta below each o and each difference"),
)


def _settings(effort: Effort) -> Iterator[Finding]:
    def mean(low: str, high: str) -> F:
        return (F(low) + F(high)) / 2

    alpha = mean("1/2", "2")
    holds = {"setting 3": (alpha, mean("1/2", "2")), "setting 4": (alpha, mean("1/2", "2"))}
    where = "settings 1 and 2, mean of alpha ~ U(.5, 2) against mean of gamma ~ U(.5, 3)"
    yield witness(where, alpha, "=", mean("1/2", "3"), holds_at=holds)


SETTINGS = Claim(
    id="chen/settings-satisfy-hypothesis",
    statement=r"\mathrm{law}(\alpha) = \mathrm{law}(\gamma) \text{ in the four synthetic settings}",
    words="The synthetic experiments satisfy the hypothesis under which a single model errs on an eighth.",
    source="[chen] section 6 with Thm 4.1; [chen-code]",
    recorded=Verdict.REFUTED,
    check=_settings,
    remark="Settings 3 and 4 do satisfy it.",
)


def _lipschitz(effort: Effort, least: int, constant: int, factor: float) -> Iterator[Finding]:
    """`least`: the constant at M = 2, the smallest; `constant`: at M = 3, where the search is."""
    v, step = z3.Reals("v step")

    def survives(x: z3.ArithRef) -> z3.ArithRef:  # P(r >= x) for r uniform on (0, 1)
        return z3.If(x <= 0, z3.RealVal(1), z3.If(x >= 1, z3.RealVal(0), 1 - x))

    gain = survives(v - 2 * step) - survives(v)
    scope = (
        "every M >= 2 and every value v that an expert's own noise has to beat: moving all logits by at most step in "
        "either direction lowers v by at most 2 step"
    )
    false = {"half of it": ([step > 0], gain <= step)}
    yield everywhere(decide([Problem(scope, [step >= 0], gain <= least * step, false)], effort))

    def sides(x: Array) -> tuple[Array, Array]:
        change = x[3:] / 100  # small, as the ratio is greatest in the limit
        both = uniform_noise_top1(jnp.stack([x[:3], x[:3] + change]))
        return jnp.abs(both[1] - both[0]).max(), constant * jnp.abs(change).max()

    def near(rng: np.random.Generator) -> np.ndarray:
        return np.concatenate([rng.normal(size=3) * 0.2, rng.normal(size=3)])

    yield search(sides, 6, effort, false_factor=factor, what="3 experts; logits and their change", starts=near)


LIPSCHITZ = Claim(
    id="chen/lemma-5.1",
    statement=r"\|p - p'\|_\infty \le M^2 \|h - h'\|_\infty",
    words="The probabilities of a first choice under uniform noise change by at most M squared times the change of the "
    "logits.",
    source="[chen] Lemma 5.1",
    recorded=Verdict.PROVED,
    check=lambda effort: _lipschitz(effort, 4, 9, 0.2),
    assumptions=("M = 3 in the search; M >= 2",),
    functions=(uniform_noise_top1,),
    remark="Loose: the constant 2 suffices for every M, which is a claim of its own.",
)

TIGHT = Claim(
    id="chen/lemma-5.1-tight",
    statement=r"\|p - p'\|_\infty \le 2 \|h - h'\|_\infty",
    words="The constant of the Lipschitz bound is 2, whatever the number of experts, and no smaller one will do.",
    source="[himoe-theory] on [chen] Lemma 5.1",
    recorded=Verdict.PROVED,
    check=lambda effort: _lipschitz(effort, 2, 2, 0.95),
    assumptions=("M >= 2",),
    functions=(uniform_noise_top1,),
    remark="Given the other experts' noise, an expert wins if its own uniform noise exceeds a number; density 1 does "
    "the rest. The notes of this package left the tight value open.",
)


# What the released code measures


def _floor(effort: Effort) -> Iterator[Finding]:
    q, q1 = z3.Reals("q q1")
    false = {"first output only non-negative": ([q >= 0, q1 >= 0], q - q1 <= 1)}
    scope = "both outputs: their difference is at most 1, and ln(1 + exp(-difference)) falls in it"
    yield everywhere(decide([Problem(scope, [q >= 0, q1 >= 0, q + q1 == 1], q - q1 <= 1, false)], effort))
    yield reported("ln(1 + 1/e)", sp.log(1 + sp.exp(-1)), "0.3133")

    def sides(x: Array) -> tuple[Array, Array]:
        return jnp.log1p(jnp.exp(-jnp.ones(()))), -Softmax().log(Softmax().value(x[None]))[0, 0]

    yield search(sides, 2, effort, false_factor=0.99, what="2 classes; logits of the model")


FLOOR = Claim(
    id="chen/cross-entropy-floor",
    statement=r"-\ln \mathrm{softmax}(q)_y \ge \ln(1 + e^{-1}) = .3133, \quad q \in \Delta_2",
    words="Cross-entropy applied to outputs that already went through a softmax cannot fall below .3133; training "
    "stops at .314, which is that floor.",
    source="[chen-code]",
    recorded=Verdict.PROVED,
    check=_floor,
    functions=(Softmax.value, Softmax.log),
)


def _dispatch(effort: Effort) -> Iterator[Finding]:
    x = sp.Symbol("x", positive=True)
    phi = x * sp.log(x) - x + 1
    yield identity(
        total(p[t, e] * sp.log(p[t, e]), e) + sp.log(N),
        total(p[t, e] * sp.log(p[t, e]) + p[t, e] * sp.log(N) - p[t, e] + 1 / N, e),
        assumptions=(NORMALISED,),
    )
    why = "Each summand is phi(N p)/N with phi(x) = x ln x - x + 1, whose derivative ln x is negative below 1 and "
    yield equation(sp.diff(phi, x), sp.log(x), why=f"{why}positive above, and phi(1) = 0: so phi is nowhere negative.")
    yield reported("ln 4", sp.log(4), "1.386")

    def sides(x: Array) -> tuple[Array, Array]:
        table = Softmax().value(x.reshape(1, 12)).reshape(4, 3)
        clusters = table.sum(axis=1)
        entropy = -xlogx(clusters).sum() - metrics.mutual_information(table)
        return entropy, jnp.log(jnp.full((), 4.0))

    yield search(
        sides,
        12,
        effort,
        false_factor=0.99,
        what="4 clusters by 3 experts; logits of the joint law",
        starts=lambda rng: rng.normal(size=12),
    )


DISPATCH = Claim(
    id="chen/dispatch-entropy",
    statement=r"H = -\sum_m \frac{n_m}{n} \sum_k p(k|m) \ln p(k|m) \le \ln K, \quad \ln 4 = 1.386",
    words="The dispatch entropy, that of the cluster given the expert, is at most the logarithm of the number of "
    "clusters.",
    source="[chen] section 6",
    recorded=Verdict.PROVED,
    check=_dispatch,
    assumptions=("p(k|m) sums to 1 over k; N stands for K in the proof",),
    functions=(metrics.mutual_information,),
)


CLAIMS = (ONE_EIGHTH, ATTAINED, SETTINGS, LIPSCHITZ, TIGHT, FLOOR, DISPATCH)
