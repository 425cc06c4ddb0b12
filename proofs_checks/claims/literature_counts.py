"""Claims about margins and counts: soft against hard routing, the hard load, the sign rule, devices, mixed batches."""

import math
from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import SelectionBias, Softmax, dynamics, objectives

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import SIZES, N, e, index
from ..search import measured, search
from ..solvers import Problem, decide, everywhere
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import reported, witness
from .hard_minimum import lowest

# Margins and boundaries


def _gap(effort: Effort) -> Iterator[Finding]:
    n, k, low, high, scale = sp.symbols("N K u v beta", positive=True)
    ways = sp.gamma(n + 1) / (sp.gamma(k + 1) * sp.gamma(n - k + 1))
    density = sp.gamma(n + 1) / (sp.gamma(k) * sp.gamma(n - k))
    yield equation(
        sp.gammasimp(-sp.diff(ways * low ** (n - k) * (1 - high) ** k, low, high)),
        density * low ** (n - k - 1) * (1 - high) ** (k - 1),
        variants={"the two not told apart from the others": ways * low ** (n - k - 1) * (1 - high) ** (k - 1)},
        why="For a below b, the K-th largest is above b and the next below a if K logits are above b and the others "
        "below a: C(N, K) u^(N-K) (1-v)^K with u = F(a), v = F(b). Differentiated in both, with du = f(a) da and "
        "dv = f(b) db, this is the joint density; its integral over a = b is the gap's density at 0.",
    )
    yield equation(
        sp.gammasimp(density * sp.gamma(n - k + 1) * sp.gamma(k + 1) / sp.gamma(n + 2) / scale),
        k * (n - k) / ((n + 1) * scale),
        variants={"N in place of N + 1": k * (n - k) / (n * scale)},
        why="Logistic logits: f = u(1-u)/beta, so that the integral over u is a Beta function.",
    )
    orthant = sp.Rational(1, 4) + sp.asin(sp.Rational(1, 3)) / (2 * sp.pi)
    three, four = 3 / (2 * sp.sqrt(sp.pi)), 6 * orthant / sp.sqrt(sp.pi)
    slope = {(n, k): dynamics.count_slope(1.0, n, k) * (n - 1) for n, k in ((2, 1), (3, 1), (4, 1), (8, 2), (64, 8))}
    pair = 1 / sp.sqrt(sp.pi)
    yield witness(
        "normal logits of variance 1, N = 3, K = 1: density of the gap at 0, over that of N = 2",
        three / pair,
        "=",
        sp.Rational(3, 2),
        holds_at={"N = 2": (1, 1)},
        code=[(slope[2, 1], pair), (slope[3, 1], three), (slope[4, 1], four)],
    )
    rng = np.random.default_rng(effort.seed)
    found = []
    for experts, routes, width in ((8, 2, 0.02), (64, 8, 0.004)):
        ranked = np.sort(rng.normal(size=(60_000, experts)), axis=1)
        gap = ranked[:, -routes] - ranked[:, -routes - 1]
        found.append((f"N = {experts}, K = {routes}", slope[experts, routes], float((gap <= width).mean()) / width))
    wrong = {
        "N = 2": [slope[2, 1]] * 2,
        "the slope of one expert's counts": [a / n for (_, a, _), n in zip(found, (8, 64), strict=True)],
    }
    yield measured("60,000 draws, standard errors 2%, means over a width 3%", found, within=0.09, wrong=wrong)


GAP = Claim(
    id="rastegar/gap-density",
    statement=r"\rho_{N,K}(0) = \frac{N!}{(K-1)!\,(N-K-1)!} \int f(s)^2 F(s)^{N-K-1} (1 - F(s))^{K-1} ds",
    words="The density at 0 of the gap between the last selected of N independent logits and the next is this "
    "integral: K(N-K)/((N+1) beta) for logistic logits of scale beta.",
    source="[himoe-theory] on [rastegar]",
    recorded=Verdict.PROVED,
    check=_gap,
    assumptions=("independent logits of one continuous distribution F with density f",),
    functions=(dynamics.count_slope,),
    remark="It is N - 1 times the slope of counts that hard loads answer with. For normal logits it is elementary up "
    "to N = 5, with arcsines from N = 4 on. The mass within a margin w is the density times w to first order.",
)


def _soft_to_hard(effort: Effort) -> Iterator[Finding]:
    others, ratio, count = z3.Reals("A x n")
    given = [count >= 1, ratio >= 0, others >= 0, others <= count * ratio]
    scope = "every N: A the sum of the n = N - 1 other ratios exp(-(s_1 - s_j)/tau), each at most x = exp(-margin/tau)"
    false = {"N - 1 left out": (given, others <= ratio * (1 + others))}
    yield everywhere(decide([Problem(scope, given, others <= count * ratio * (1 + others), false)], effort))
    v, n, alpha = sp.symbols("v n alpha", positive=True)
    yield equation(
        -sp.diff(n * sp.uppergamma(alpha + 1, v), v),
        n * v**alpha * sp.exp(-v),
        variants={"Gamma(alpha)": n * v ** (alpha - 1) * sp.exp(-v)},
        why="The mean of min(1, n exp(-margin/tau)) is the integral of P(margin <= w) against minus its slope, which "
        "is 0 up to w = tau ln n: with w = v tau at most c tau^alpha times that of n v^alpha exp(-v) from ln n on.",
    )
    linear = n * sp.expand_func(sp.uppergamma(2, sp.log(n)))
    yield equation(linear, 1 + sp.log(n), variants={"without the logarithm": sp.S.One}, why="alpha = 1.")

    def sides(point: Array) -> tuple[Array, Array]:
        ranked, logits = jnp.sort(Softmax().value(point[None])[0]), jnp.sort(point)
        return ranked[:-1].sum(), 3 * jnp.exp(logits[-2] - logits[-1])

    yield search(sides, 4, effort, false_factor=0.9, what="4 experts; logits over tau")


SOFT_TO_HARD = Claim(
    id="rastegar/boundary-mass-controls",
    statement=r"P(\mathrm{margin} \le w) \le c\, w^\alpha \implies "
    r"E\|y_\tau - y_0\| \le 2 B c\, (N-1)\, \Gamma(\alpha + 1, \ln(N-1))\, \tau^\alpha",
    words="The mass of tokens near the boundary controls how far softmax routing at temperature tau is from the top "
    "choice: of order tau to the power of the mass. With alpha = 1 the factor is 2 B c (1 + ln(N-1)).",
    source="[rastegar], boundary mass",
    recorded=Verdict.PROVED,
    check=_soft_to_hard,
    assumptions=("expert outputs of norm at most B; a loss of Lipschitz constant L changes by L times as much",),
    functions=(Softmax.value,),
    remark="y is the mixture of all experts, which differs from the top one's output by at most 2B(1 - pi_1). The "
    "paper is known to us from a summary; the constant is ours.",
)


# Hard counts and the sign rule


def _every_size(effort: Effort) -> Iterator[Finding]:
    a, b, k, size = z3.Reals("a b k N")
    above = {x: z3.If(k <= x, z3.RealVal(1), 1 + k - x) for x in (a, b)}
    inner = [a >= 1, b >= a, k >= 0]
    pairs = (above[a] + above[b]) * (a + 1) >= 2 * (k + 1)
    first = above[b] * (b + 1) >= k + 1
    even, odd = 8 * size <= (size + 1) * (size + 2), 8 * size**2 <= (size + 1) ** 3
    problems = [
        Problem("every N: steps a, b >= 1", inner, pairs, {"a = 0": ([a >= 0, *inner[1:]], pairs)}),
        Problem("every N: steps 0, b", [b >= 1, k >= 0], first, {"1/b": ([b >= 1, k >= 0], above[b] * b >= k + 1)}),
        Problem("even N >= 6", [size >= 6], even, {"N = 4": ([size >= 4], even)}),
        Problem("odd N >= 5", [size >= 5], odd, {"N = 3": ([size >= 3], odd)}),
    ]
    yield everywhere(decide(problems, effort))
    n, x = sp.symbols("N x", positive=True)
    yield equation(
        (n + 1) ** 2 - 4 * (x + 1) * (n - x),
        (n - 1 - 2 * x) ** 2,
        variants={"N": (n - 2 * x) ** 2},
        why="So (a+1)(N-a), a whole number, is at most floor((N+1)^2/4). With x + 1 = floor((N+1)/2) live experts the "
        "square is 0 or 1: then it is that floor, and the loss N/((x+1)(N-x)) of the routing that attains it.",
    )
    yield reported("the least load of 64 experts", lowest(64), "0.061")
    live, experts = 32, 64
    first_choice = jnp.eye(live, experts, dtype=bool)
    tied = first_choice | (jnp.arange(experts, dtype=jnp.int32) >= live)
    attained = objectives.load(jnp.where(tied, 0.0, -80.0), first_choice)
    np.testing.assert_allclose(attained, float(lowest(experts)), rtol=1e-12)


EVERY_SIZE = Claim(
    id="load/hard-minimum-every-size",
    statement=r"N \sum_e h_e P_e \ge \frac{N}{\lfloor (N+1)^2/4 \rfloor} \; (N \ge 5), \quad .061 \text{ at } N = 64",
    words="For every number of experts the least load with hard counts is about 4/N, attained with half of them dead.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_every_size,
    assumptions=("every token counts for its most probable expert", "h sums to 1"),
    functions=(objectives.load,),
    remark="Shares in ascending order are h_i = y_0 + ... + y_i with y >= 0. Tokens of choice i do best with the "
    "uniform distribution over i and the k smallest shares; the coefficient of y_a y_b in the loss adds, over choices "
    "i, the fractions of these whose numbers are at least a, and at least b. Taking only the N - b choices i >= b, the "
    "two sum to at least 2/(a+1), or 1 + 1/(b+1) for a = 0 (the first two problems). So every coefficient of the loss "
    "less the bound is non-negative if the bound is at most N/((a+1)(N-a)), which is the square below, and (N+1)/(2N), "
    "which is the last two problems. Up to 4 experts are part of the claim load/hard-minimum.",
)


def _sign_rule(effort: Effort) -> Iterator[Finding]:
    moved = np.asarray(jax.jit(SelectionBias(1.0).update)(jnp.zeros(3), jnp.asarray([3, 0, 0], jnp.int32)))
    claimed = 3 + sum(-sign * -1 for sign in (-1, 1, 1))
    yield witness(
        "three tokens with scores (1, 0, 0), three experts: loads 3, 0, 0, mean 1; b = 0 and b' = (-1, -1, -1), where "
        "D is 3 as well: D(b') against D(b) + sign(n - mean).(b' - b) = 3 + 1",
        3,
        ">=",
        claimed,
        holds_at={"loads less their mean, (2, -1, -1), in place of their signs": (3, 3 + (-2 + 1 + 1))},
        code=[(moved[0], -1), (moved[1], 1), (moved[2], 1)],
    )


def _steepest(effort: Effort) -> Iterator[Finding]:
    slope, step, u = z3.Reals("g d u")
    sign = z3.If(slope > 0, z3.RealVal(1), z3.If(slope < 0, z3.RealVal(-1), z3.RealVal(0)))
    best = slope * step >= -u * slope * sign
    scope = "every N: one expert, excess load g, its bias changed by d"
    false = {"changes up to 2u": ([u > 0, step <= 2 * u, step >= -2 * u], best)}
    yield everywhere(decide([Problem(scope, [u > 0, step <= u, step >= -u], best, false)], effort))


SIGN_RULE = Claim(
    id="loss-free/sign-rule-subgradient",
    statement=r"D(b') \ge D(b) + \mathrm{sign}(n - \bar n) \cdot (b' - b)",
    words="The sign rule is a subgradient step on the dual of the balanced assignment problem.",
    source="[himoe-theory] on [loss-free] algorithm 1",
    recorded=Verdict.CORRECTED,
    check=_sign_rule,
    functions=(SelectionBias.update,),
    correction=Correction(
        statement=r"-u\,\mathrm{sign}(g) \in \arg\min_{|d_e| \le u} g \cdot d, \quad g = n - \bar n",
        words="It is the steepest step among those that change no bias by more than u; where D has a slope, that slope "
        "is g, the proportional rule's.",
        check=_steepest,
    ),
    remark="D does not change when a constant is added to all biases, so that subgradients sum to 0; the signs do not, "
    "and no positive multiple of them is one. The notes of this package said subgradient.",
)


# Devices


def _spread(tokens: int) -> float:
    """What the law of large batches says for 8 of 64 experts on 8 devices."""
    return 2 * dynamics.expected_maximum(8) * math.sqrt(8 / 9 / tokens)


def _drawn(rng: np.random.Generator, tokens: int, draws: int) -> np.ndarray:
    """Imbalance scores of tokens that choose 8 of 64 experts on 8 devices."""
    counts = rng.multivariate_hypergeometric([8] * 8, 8, size=(draws, tokens)).sum(axis=1)
    return np.ptp(counts, axis=1) / tokens


def _range(effort: Effort) -> Iterator[Finding]:
    scores = _drawn(np.random.default_rng(effort.seed), 16, 8000)
    found = np.quantile(scores, [0.05, 0.95], method="inverted_cdf")
    pairs = [("5%", 0.375, float(found[0])), ("95%", 1.0, float(found[1]))]
    wrong = {"lower end a token off": [0.4375, 1.0], "upper end a token off": [0.375, 0.9375]}
    yield measured("8,000 batches of 16 tokens", pairs, within=1e-9, wrong=wrong)


RANGE = Claim(
    id="moge/imbalance-range",
    statement=r"P(.375 \le \mathrm{IS} \le 1) \ge .9, \quad N = 64, K = M = 8, |X| = 16",
    words="The 5 and 95 per cent quantiles of the imbalance of 16 tokens over 8 devices are .375 and 1.",
    source="[himoe-theory] on [moge] imbalance score",
    recorded=Verdict.SUPPORTED,
    check=_range,
    assumptions=("every set of K experts is equally likely",),
)


def _printed(effort: Effort) -> Iterator[Finding]:
    for tokens, printed in ((16, "0.672"), (64, "0.336"), (256, "0.168"), (1024, "0.0839")):
        yield reported(f"R_8 sqrt(8/9/{tokens})", sp.Float(_spread(tokens), 15), printed)


PRINTED = Claim(
    id="moge/imbalance-large-batch-values",
    statement=r"R_8 \sqrt{8 / (9 |X|)} = .672, .336, .168, .0839, \quad |X| = 16, 64, 256, 1024",
    words="The law of large batches gives these mean imbalances.",
    source="[himoe-theory] on [moge] imbalance score",
    recorded=Verdict.REFUTED,
    check=_printed,
    functions=(dynamics.expected_maximum,),
    remark="The first is .671, with R_8 = 2.847 from any table of ranges of normal samples; the others are right.",
)


def _thousand(effort: Effort) -> Iterator[Finding]:
    mean = float(_drawn(np.random.default_rng(effort.seed), 1024, 700).mean())
    pairs = [("mean imbalance of 1024 tokens", _spread(1024), mean)]
    wrong = {"one quarter of the tokens": [_spread(256)], "falling as 1/|X|": [_spread(16) / 64]}
    yield measured("700 batches, standard error 1.1%", pairs, within=0.05, wrong=wrong)


THOUSAND = Claim(
    id="moge/imbalance-1024-tokens",
    statement=r"\mathrm E[\mathrm{IS}] \approx .0839, \quad |X| = 1024",
    words="A thousand tokens still leave a device 8 per cent of a token's share behind another.",
    source="[himoe-theory] on [moge] imbalance score",
    recorded=Verdict.SUPPORTED,
    check=_thousand,
    assumptions=("every set of K experts is equally likely",),
    functions=(dynamics.expected_maximum,),
)


# Batches of mixed domains

DOMAINS = sp.Symbol("D", integer=True, positive=True)
d1, d2 = index("d1", DOMAINS), index("d2", DOMAINS)
P = sp.IndexedBase("P", nonnegative=True)
purity, load, sharp = sp.symbols("q alpha lambda", positive=True)


def _mean(expert: sp.Idx) -> sp.Expr:
    return total(P[d2, expert], d2) / DOMAINS


def _profiles(rng: np.random.Generator) -> dict[str, np.ndarray]:
    rows = rng.uniform(0.1, 1, (4, 5))
    numbers = {"q": 0.3, "alpha": 0.7, "lambda": 0.4}
    return {"P": rows / rows.sum(axis=1, keepdims=True)} | {key: np.asarray(x) for key, x in numbers.items()}


def _linear_tax(effort: Effort) -> Iterator[Finding]:
    half, mixed = Fraction(1, 2), [Fraction(3, 4), Fraction(1, 4)]
    micro = 2 * sum(share**2 for share in mixed)
    code = objectives.p_squared(jnp.log(jnp.asarray([[0.75, 0.25]])))
    yield witness(
        "two domains, each on its own expert; batches half of one domain and half of the whole: probabilities 3/4 and "
        "1/4, load 5/4: the tax, load less 1, against (D - 1) q",
        micro - 1,
        "=",
        half,
        holds_at={"pure batches": (2 - 1, 1), "batches of the whole": (0, 0)},
        code=[(code, micro)],
    )


def _square_tax(effort: Effort) -> Iterator[Finding]:
    mixed = purity * P[d1, e] + (1 - purity) * _mean(e)

    def code(data: Data) -> float:
        profile, q = np.asarray(data["P"]), float(data["q"])
        batch = jnp.log(jnp.asarray(q * profile + (1 - q) * profile.mean(axis=0)))
        loads = jax.vmap(lambda row: objectives.p_squared(row[None]))(batch).mean()
        within = objectives.intra_group_global(jnp.log(jnp.asarray(profile)))
        return float(data["alpha"]) * float(loads) + float(data["lambda"]) * float(within)

    spread = total((P[d1, e] - _mean(e)) ** 2, d1, e) / DOMAINS
    whole = (load * N - sharp) * total(_mean(e) ** 2, e)
    yield identity(
        load * N * total(mixed**2, d1, e) / DOMAINS - sharp * total(P[d1, e] ** 2, d1, e) / DOMAINS,
        whole + (load * N * purity**2 - sharp) * spread,
        variants={"linear": whole + (load * N * purity - sharp) * spread},
        code=code,
        sample=_profiles,
        sizes=SIZES | {DOMAINS: 4},
    )


PURITY = Claim(
    id="batch/mixed-domains",
    statement=r"\overline L_{micro} - L_{global} = q (D - 1)",
    words="The tax on specialisation, and with it the threshold of specialisation, is linear in the purity q of the "
    "batches: the share of tokens from their own domain, the rest being from all domains.",
    source="[himoe-theory] on global-batch balancing, arXiv:2501.11873",
    recorded=Verdict.CORRECTED,
    check=_linear_tax,
    functions=(objectives.p_squared, objectives.intra_group_global),
    correction=Correction(
        statement=r"\overline L_{micro} - L_{global} = q^2 N \sum_e \mathrm{Var}_d(P_{de}) = q^2 (D - 1) "
        r"\text{ for blocks}; \quad \lambda_{intra}^* = \alpha N q^2",
        words="It is quadratic: both factors of the load see the domain through the batch.",
        check=_square_tax,
    ),
    assumptions=("soft load h = P; batches of equal size", "threshold: tokens of a domain alike, lambda times R_intra"),
    remark="What is proved is the sum of alpha times the load and lambda times R_intra, which is minus the mean "
    "squared norm where tokens of a domain agree; lambda = 0 gives the tax, the sign of the variance's coefficient the "
    "threshold. Pure blocks have the tax D - 1, a claim of its own. If instead a share q of the batches is "
    "pure and the others are mixed, the tax is linear in q: the notes did not say which.",
)

CLAIMS = (GAP, SOFT_TO_HARD, EVERY_SIZE, SIGN_RULE, RANGE, PRINTED, THOUSAND, PURITY)
