"""Claims about orthogonality and coherence of experts: ERNIE's and SimBal's losses, overlap statistics, recovery."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array

from himoe_theory import Partition, TopK, metrics, ranked, to_dense

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import Assumption, N, e, index, j
from ..search import measured, search
from ..solvers import Problem, decide, reals
from ..sums import Rule, total
from ..symbolic import certificate, equation, for_sizes, identity
from ..witnesses import reported, witness

D = sp.Symbol("D", integer=True, positive=True)
d, d1 = index("d", D), index("d1", D)
r = sp.IndexedBase("r", real=True)
SIZES = {N: 5, D: 3}
UNIT = Assumption(
    "rows have length 1",
    (Rule(d, r[e, d] ** 2, sp.S.One),),
    lambda v: v | {"r": v["r"] / np.linalg.norm(v["r"], axis=1, keepdims=True)},
)
GRAM = total(r[e, d] * r[j, d], d)


@jax.jit
def _mean_square(rows: Array) -> Array:
    """Mean squared cosine of two different rows."""
    return metrics.mean_off_diagonal(jnp.square(metrics.parameter_cosine(rows)))


def _rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"r": rng.normal(size=(5, 3))}


# ERNIE 4.5


def _form(effort: Effort) -> Iterator[Finding]:
    yield identity(
        total((GRAM - sp.KroneckerDelta(e, j)) ** 2, e, j) / N**2,
        total((1 - sp.KroneckerDelta(e, j)) * GRAM**2, e, j) / N**2,
        assumptions=(UNIT,),
        code=lambda v: float(_mean_square(jnp.asarray(v["r"]))) * (5 * 4) / 5**2,
        sample=_rows,
        sizes=SIZES,
    )


FORM = Claim(
    id="ernie/orthogonality-form",
    statement=r"\mathrm{mean}\big((\hat W^\top \hat W - I)^2\big) = \frac{1}{N^2} \sum_{i \ne j} \cos^2(w_i, w_j)",
    words="The router orthogonality loss is the sum of squared cosines of different rows over the N squared pairs.",
    source="[ernie], the released loss",
    recorded=Verdict.PROVED,
    check=_form,
    assumptions=("rows have length 1",),
    functions=(metrics.parameter_cosine, metrics.mean_off_diagonal),
)


def _welch(effort: Effort) -> Iterator[Finding]:
    frame = total(r[e, d] * r[e, d1], e)
    yield certificate(
        total(GRAM**2, e, j) - N**2 / D,
        total((frame - N / D * sp.KroneckerDelta(d, d1)) ** 2, d, d1),
        assumptions=(UNIT,),
        sample=_rows,
        sizes=SIZES,
    )
    yield witness(
        "3 orthonormal rows in 3 dimensions: the loss",
        0,
        "<=",
        0,
        holds_at={"one row": (0, 0)},
        code=[(_mean_square(jnp.eye(3)), 0)],
    )

    def sides(x: Array) -> tuple[Array, Array]:
        turned = jnp.stack([jnp.cos(x), jnp.sin(x)], axis=1)
        return jnp.full((), 1 / 2 - 1 / 4), _mean_square(turned) * 12 / 16

    yield search(sides, 4, effort, false_factor=0.95, what="4 unit rows in 2 dimensions, by their angles")


WELCH = Claim(
    id="ernie/welch-bound",
    statement=r"\frac{1}{N^2} \sum_{i \ne j} \cos^2(w_i, w_j) \ge \max\Big(0, \frac1d - \frac1N\Big)",
    words="The loss can reach 0 only if there are at least as many dimensions as experts; else 1/d - 1/N is its floor.",
    source="[himoe-theory] on [ernie]; Welch's bound",
    recorded=Verdict.PROVED,
    check=_welch,
    assumptions=("rows have length 1",),
    functions=(metrics.parameter_cosine,),
    remark="The certificate is the squared distance of the frame's matrix from a multiple of the identity: tight "
    "frames attain the bound.",
)


def _scale_free(effort: Effort) -> Iterator[Finding]:
    def cases() -> Iterator[tuple[sp.Expr, sp.Expr]]:
        for dim in (2, 3):
            a, b = sp.symbols(f"a:{dim}", real=True), sp.symbols(f"b:{dim}", real=True)
            inner = sum(u * v for u, v in zip(a, b, strict=True))
            value = inner**2 / (sum(u**2 for u in a) * sum(v**2 for v in b))
            yield sum(u * sp.diff(value, u) for u in a), sp.S.Zero

    yield for_sizes("one pair of rows in 2 and 3 dimensions; the loss is a sum over pairs", cases())


SCALE_FREE = Claim(
    id="ernie/gradient-orthogonal",
    statement=r"w_i \cdot \frac{\partial}{\partial w_i} \sum_{i \ne j} \cos^2(w_i, w_j) = 0",
    words="The loss does not depend on row lengths, so its gradient is orthogonal to each row.",
    source="[himoe-theory] on [ernie]",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_scale_free,
    remark="Under gradient flow rows keep their length; discrete steps along such a gradient lengthen them.",
)


# SimBal


@jax.jit
def _violation(tokens: Array) -> Array:
    """MaxVio of three experts whose rows are the axes."""
    experts = ranked(TopK(1), tokens, Partition.equal(3, 1))
    return metrics.max_violation(metrics.hard_load(to_dense(jnp.ones(experts.shape, dtype=bool), experts, 3)))


def _simbal(effort: Effort) -> Iterator[Finding]:
    wide = [[4.0 * a, b, 2.0 * c] for a in (1, -1) for b in (1, -1) for c in (1, -1)]
    even = [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0], [-3.0, 1.0, 2.0], [2.0, -3.0, 1.0], [1.0, 2.0, -3.0]]
    yield witness(
        "rows e_1, e_2, e_3; the eight tokens (+-4, +-1, +-2), of mean 0; loads 1/2, 1/4, 1/4: MaxVio",
        sp.Rational(1, 2),
        "=",
        0,
        holds_at={"tokens that cyclic exchange of the axes maps to themselves": (0, 0)},
        code=[(_violation(jnp.asarray(wide)), sp.Rational(1, 2)), (_violation(jnp.asarray(even)), 0)],
    )


SIMBAL = Claim(
    id="simbal/orthonormal-rows-balance",
    statement=r"R^\top R = I \implies \mathrm{MaxVio} = 0",
    words="Orthonormal router rows balance load.",
    source="[simbal]",
    recorded=Verdict.REFUTED,
    check=_simbal,
    functions=(metrics.max_violation, TopK.choose),
    remark="They balance tokens whose law does not change when axes are exchanged, such as isotropic ones. One "
    "direction of larger variance is enough to unbalance, even with mean 0.",
)


# Kim: numbers behind a correlation that was not found


def _p_value(correlation: str) -> sp.Expr:
    """Two-sided p of a correlation of 7 pairs: Student's law with 5 degrees of freedom in closed form."""
    c = sp.Rational(correlation)
    tail = sp.asin(c) + c * sp.sqrt(1 - c**2) * (1 + sp.Rational(2, 3) * (1 - c**2))
    return 1 - 2 / sp.pi * tail


def _p(effort: Effort) -> Iterator[Finding]:
    yield reported("two-sided p of r = -.2933, which rounds to -.293, with n = 7", _p_value("0.2933"), "0.523")


P_VALUE = Claim(
    id="kim/p-value",
    statement=r"r \approx -.293,\ n = 7: \quad p \approx .523",
    words="The reported correlation over seven strengths agrees with the reported p value, up to rounding of both.",
    source="[kim], abstract",
    recorded=Verdict.PROVED,
    check=_p,
    remark="At r = -.293 exactly p is .5237, which would be printed as .524.",
)


def _interval(effort: Effort) -> Iterator[Finding]:
    half = sp.sqrt(2) * sp.erfinv(sp.Rational(95, 100)) / sp.sqrt(7 - 3)
    for name, sign, printed in (("lower", -1, "-0.857"), ("upper", 1, "0.590")):
        end = sp.tanh(sp.atanh(sp.Rational("-0.293")) + sign * half)
        yield reported(f"{name} end of the 95 % interval", end, printed)


INTERVAL = Claim(
    id="kim/interval",
    statement=r"r = -.293,\ n = 7: \quad 95\,\% \text{ interval } (-.857, .590)",
    words="Seven points do not establish that there is no correlation: the interval reaches from -.857 to .590.",
    source="[himoe-theory] on [kim]",
    recorded=Verdict.PROVED,
    check=_interval,
    assumptions=("Fisher's transformation, normal pairs",),
)


def _baseline(effort: Effort) -> Iterator[Finding]:
    size = sp.Symbol("D", positive=True)
    half = sp.Rational(1, 2)

    def beta(a: sp.Expr, b: sp.Expr) -> sp.Expr:
        return sp.gamma(a) * sp.gamma(b) / sp.gamma(a + b)

    mean = beta(3 * half, (size - 1) / 2) / beta(half, (size - 1) / 2)
    yield equation(
        sp.gammasimp(mean),
        1 / size,
        variants={"cosine not squared": 1 / sp.sqrt(size)},
        why="cos^2 of a fixed and a uniformly random direction has density t^(-1/2) (1 - t)^((D-3)/2) / B; its mean is "
        "a quotient of Beta functions.",
    )
    rows = np.random.default_rng(1).normal(size=(200, 50))
    pairs = [("200 random rows in 50 dimensions", 1 / 50, float(_mean_square(jnp.asarray(rows))))]
    yield measured("19900 pairs", pairs, within=0.05, wrong={"1/(D-3)": [1 / 47]})


BASELINE = Claim(
    id="kim/random-overlap",
    statement=r"E[\cos^2(u, v)] = 1/D",
    words="Random experts of D parameters overlap by 1/D: a weight overlap of 1e-4 is that of ten thousand parameters.",
    source="[himoe-theory] on [kim]",
    recorded=Verdict.PROVED,
    check=_baseline,
    assumptions=("one direction uniform on the sphere, D >= 2",),
    functions=(metrics.parameter_cosine,),
    remark="An overlap that starts at this floor has nowhere to fall; doubling it changes nothing that matters.",
)


# Recovery by correlation


def _correlations(point: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest correlation outside S of size 2, and the smallest inside; where mu < 1/3 fails, nothing is said."""
    vectors = point.reshape(6, 8)
    length = jnp.sqrt(jnp.square(vectors).sum(axis=1, keepdims=True) + 1e-12)
    unit = vectors / length
    products = unit @ unit.T
    coherence = jnp.abs(products - jnp.diag(jnp.diag(products))).max()
    correlation = jnp.abs(unit @ (unit[0] + unit[1]))
    allowed = (coherence < 1 / 3) & (length.min() > 1e-3)
    return jnp.where(allowed, correlation[2:].max(), 0.0), correlation[:2].min()


def _recovery(effort: Effort) -> Iterator[Finding]:
    problems = []
    for size in (1, 2, 3, 4):
        mu = z3.Real("mu")
        inside, outside = reals("g", size - 1), reals("o", size)
        bounded = [z3.And(-mu <= product, product <= mu) for product in (*inside, *outside)]
        right, wrong = z3.Sum([z3.RealVal(1), *inside]), z3.Sum([z3.RealVal(0), *outside])
        apart = z3.And(right > wrong, right > -wrong)
        exact = [*bounded, mu * (2 * size - 1) < 1]
        false = {"equality allowed": ([*bounded, mu * (2 * size - 1) <= 1], apart)}
        problems.append(Problem(f"k = {size}", exact, apart, false))
    yield decide(problems, effort)
    yield search(
        _correlations,
        6 * 8,
        effort,
        false_factor=0.5,
        what="6 unit vectors in 8 dimensions near orthogonal, k = 2, whatever their mu",
        starts=lambda rng: (np.eye(6, 8) + 0.3 * rng.normal(size=(6, 8))).ravel(),
    )
    third = sp.Rational(1, 3)
    gram = sp.Matrix([[1, -third, third], [-third, 1, third], [third, third, 1]])
    yield witness(
        "k = 2, unit vectors of products -1/3, 1/3, 1/3 (mu = 1/3 = bound): correlation inside less outside",
        (1 - third) - 2 * third,
        "<=",
        0,
        holds_at={"the Gram matrix is positive definite: minus its determinant": (-gram.det(), 0)},
    )


RECOVERY = Claim(
    id="su-liu/coherence-recovery",
    statement=r"\mu < \frac{1}{2k - 1} \implies \text{the } k \text{ largest } |\langle \sum_{i \in S} \phi_i, "
    r"\phi_j\rangle| \text{ are those of } S",
    words="The k largest correlations recover a sum of k unit vectors if their coherence is below 1/(2k - 1).",
    source="[su-liu]; classical",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_recovery,
    assumptions=("equal coefficients", "unit vectors"),
    remark="At mu = 1/(2k - 1) three vectors tie, so the bound is sharp; it is far from necessary for random vectors. "
    "It speaks of correlations with the target, which routers do not see.",
)


CLAIMS = (FORM, WELCH, SCALE_FREE, SIMBAL, P_VALUE, INTERVAL, BASELINE, RECOVERY)
