"""Claims about directions that inputs share: tubes around jumps, similar states, aligned rows, common means."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array
from scipy import integrate, stats

from himoe_theory import (
    Partition,
    Router,
    Softmax,
    TopK,
    dynamics,
    metrics,
    ranked,
    to_dense,
)

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..notation import NORMALISED, e, j, p, t
from ..search import measured, search
from ..solvers import Problem, decide, everywhere
from ..sums import total
from ..symbolic import certificate, equation
from ..witnesses import reported, witness


def _tube(effort: Effort) -> Iterator[Finding]:
    along, off, radius, width = z3.Reals("u v R eps")
    given = [along >= 0, off >= 0, radius > 0, width > 0, off <= width, along**2 + off**2 <= radius**2]
    scope = "every D and n: u and v the lengths of the parts along a subspace and off it"
    false = {"ball not used": (given[:-1], along <= radius)}
    yield everywhere(decide([Problem(scope, given, z3.And(along <= radius, off <= width), false)], effort))
    r, big, eps = sp.symbols("r R epsilon", positive=True)
    for size, codim, expected in ((3, 1, 1 - eps**2 / (3 * big**2)), (4, 2, 1 - eps**2 / (2 * big**2))):
        sphere, disc = {1: 2, 2: 2 * sp.pi * r}[codim], sp.pi * (big**2 - r**2)
        bound = {1: 2 * eps, 2: sp.pi * eps**2}[codim] * sp.pi * big**2
        yield equation(
            sp.integrate(sp.expand(sphere * disc), (r, 0, eps)) / bound,
            expected,
            variants={"the bound itself": sp.S.One},
            why=f"D = {size}, n = {codim}: volume over bound, which tends to 1 for thin tubes.",
        )


TUBE = Claim(
    id="tran-huu/tube-volume",
    statement=r"\mathrm{vol}\{|x| \le R,\ \mathrm{dist}(x, \bigcup_i V_i) \le \epsilon\} \le "
    r"c\, \omega_n \omega_{D-n}\, \epsilon^n R^{D-n}, \quad \mathrm{codim}\, V_i = n",
    words="Inputs within epsilon of where a linear top-k router jumps between n + 1 tied experts fill a volume of "
    "order epsilon to the n.",
    source="[himoe-theory] on arXiv:2606.19036",
    recorded=Verdict.PROVED,
    check=_tube,
    assumptions=("c subspaces V; rows of a linear router in general position, so that n + 1 equal logits are one V",),
    remark="The tube lies in the product of a ball of the subspace and one across it, whose volumes multiply; tubes of "
    "several subspaces may overlap. The paper's count c is not known to us: there are at most C(N, n+1).",
)


def _similarity(effort: Effort) -> Iterator[Finding]:
    rows = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])
    usage = Softmax().value(jnp.asarray([[1.0, 50.0], [1.0, -50.0]]) @ rows.T)
    yield witness(
        "rows (1, 0) and (-1, 0), tokens (1, 50) and (1, -50): distance of the tokens against that of their usages",
        100,
        "<=",
        0,
        holds_at={"both tokens (1, 50)": (0, 0)},
        code=[(jnp.abs(usage[0] - usage[1]).max(), 0)],
    )


def _lipschitz(effort: Effort) -> Iterator[Finding]:
    step = sp.IndexedBase("s", real=True)
    variance = total(p[t, e] * step[t, e] ** 2, e) - total(p[t, e] * step[t, e], e) ** 2
    apart = (1 - sp.KroneckerDelta(e, j)) ** 2
    yield certificate(
        total(step[t, e] ** 2, e) / 2 - variance,
        total(step[t, e] ** 2 * (1 - 2 * p[t, e]) ** 2, e) / 2
        + total(p[t, e] * p[t, j] * apart * (step[t, e] + step[t, j]) ** 2, e, j) / 2,
        assumptions=(NORMALISED,),
    )

    def sides(point: Array) -> tuple[Array, Array]:
        usage = Softmax().value(point.reshape(2, 3))
        gap = point[:3] - point[3:]
        return jnp.square(usage[0] - usage[1]).sum(), jnp.square(gap).sum() / 4

    def near(rng: np.random.Generator) -> np.ndarray:
        centre = np.array([0.0, 0.0, -6.0])
        return np.concatenate([centre + 0.1 * rng.normal(size=3), centre + 0.1 * rng.normal(size=3)])

    yield search(sides, 6, effort, false_factor=0.9, what="2 tokens, 3 experts; logits", starts=near)


SIMILARITY = Claim(
    id="wang-hayou/similarity",
    statement=r"\|x - x'\| \text{ small} \iff \|\pi(x) - \pi(x')\| \text{ small}, \quad \pi = \mathrm{softmax}(W x)",
    words="Under a linear router, hidden states are similar just where the usage of experts is.",
    source="[himoe-theory] on arXiv:2604.09780",
    recorded=Verdict.CORRECTED,
    check=_similarity,
    functions=(Softmax.value,),
    correction=Correction(
        statement=r"\|\pi(x) - \pi(x')\| \le \tfrac12 \|W (x - x')\|",
        words="Similar states are used similarly. The converse holds only for differences of states that the router "
        "sees: not those in the kernel of W, nor those that shift all logits alike.",
        check=_lipschitz,
    ),
    remark="The certificate bounds the softmax's Jacobian by 1/2. The paper is known to us from a summary, which may "
    "have left conditions out.",
)


def _aligned(effort: Effort) -> Iterator[Finding]:
    def load(experts: int, spread: float) -> float:
        def density(z: float) -> float:
            return stats.norm.pdf(z) * stats.norm.cdf(spread * z) ** (experts - 1)

        return experts * integrate.quad(density, -10, 10)[0]

    yield reported("load of the row along the wide direction, 8 experts", sp.Float(load(8, 4.0), 15), "2.95")
    tokens = np.random.default_rng(effort.seed).normal(size=(40_000, 8)) * np.array([4.0] + [1.0] * 7)
    chosen = ranked(TopK(1), jnp.asarray(tokens), Partition.equal(8, 1))
    found = metrics.hard_load(to_dense(jnp.ones(chosen.shape, dtype=bool), chosen, 8))
    pairs = [("MaxVio, 8 experts", load(8, 4.0) - 1, float(metrics.max_violation(found)))]
    yield measured(
        "40,000 tokens, rows the axes", pairs, within=0.03, wrong={"isotropic": [load(8, 1.0)], "32": [load(32, 4.0)]}
    )


ALIGNED = Claim(
    id="simbal/aligned-row",
    statement=r"8\, P(4 z_1 > \max_{2 \le j \le 8} z_j) = 2.95",
    words="With 8 orthonormal rows, the row along a direction of standard deviation 4 gets 2.95 times its share.",
    source="[himoe-theory] on [simbal]",
    recorded=Verdict.SUPPORTED,
    check=_aligned,
    assumptions=("normal tokens, standard deviation 1 in the other directions",),
    functions=(TopK.choose, metrics.max_violation),
    numbers=Numbers("logits", besides="random ones, of which next to none tie"),
    remark="The notes print 2.96, a simulation with a standard error of .01, and do not name the number of experts, "
    "which is inferred from it. Their MaxVio .82 and 1.78, for a wide direction and a shifted mean not along a row, "
    "depend on that direction, which is not kept: along the sum of the rows logits are exchangeable and loads equal.",
)


def _gradient(centre: float, residuals: tuple[float, float]) -> np.ndarray:
    """What one linear expert descends along, for tokens (centre, 1) and (centre, -1) with these targets."""
    router = Router("all", Partition((0,)), TopK(1), "himoe-theory")
    inputs, targets = jnp.asarray([[centre, 1.0], [centre, -1.0]]), jnp.asarray(residuals)[:, None]
    field = dynamics.RouterAndExperts(router, None, dynamics.linear_expert, inputs, targets)
    state = dynamics.Mixture(jnp.zeros((1, 2)), jnp.zeros((1, 2, 1)))
    return np.asarray(dynamics.velocity(field, state).experts)[0, :, 0]


def _mean_direction(effort: Effort) -> Iterator[Finding]:
    yield witness(
        "tokens (10, 1) and (10, -1), mean (10, 0), residuals 1 and -1: the gradient (0, 1), its component along the "
        "mean against the one across it",
        0,
        ">=",
        1,
        holds_at={"residuals 1 and 1": (10, 0)},
        code=[
            (_gradient(10.0, (1.0, -1.0))[0], 0),
            (_gradient(10.0, (1.0, -1.0))[1], 1),
            (_gradient(10.0, (1.0, 1.0))[0], 10),
        ],
    )


def _mean_law(effort: Effort) -> Iterator[Finding]:
    along, noise, cosine, top = z3.Reals("am b c top")
    given = [along >= 0, noise >= 0, top <= along * cosine + noise, top >= along - noise]
    scope = "every size: G = a mu' + B, am = |a||mu|, b = |B|; top singular value between |G mu/|mu|| and am c + b"
    false = {"one b": (given, along * (1 - cosine) <= noise)}
    yield everywhere(decide([Problem(scope, given, along * (1 - cosine) <= 2 * noise, false)], effort))


MEAN_DIRECTION = Claim(
    id="sd-moe/top-direction-is-the-mean",
    statement=r"x = \mu + z,\ |\mu| \text{ large} \implies v_1(G_i) \parallel \mu, \quad G_i = E[w_i r x^\top]",
    words="If tokens have a large common mean, it is the top singular direction of every expert's gradient.",
    source="[himoe-theory] on SD-MoE, arXiv:2602.12556",
    recorded=Verdict.CORRECTED,
    check=_mean_direction,
    functions=(dynamics.RouterAndExperts,),
    correction=Correction(
        statement=r"1 - |\cos(v_1, \mu)| \le \frac{2 \|B_i\|}{|a_i| |\mu|}, \quad a_i = E[w_i r],\ "
        r"B_i = E[w_i r z^\top]",
        words="It is, in the limit, for experts whose mean weighted residual is not 0; least squares with a large mean "
        "soon removes that residual, and with it the common direction.",
        check=_mean_law,
    ),
    remark="Taking mu out leaves B_i without its part along mu, whatever the size of mu: gradients then share nothing "
    "through it.",
)


def _three_components(effort: Effort) -> Iterator[Finding]:
    spread = sp.Symbol("b", real=True)
    weight = -((1 + 2 * spread) ** 2) / (2 * (spread**2 + spread + sp.Rational(1, 12)))
    middle = -(1 + 2 * spread) / weight

    def order(s: int) -> sp.Expr:
        def term(a: sp.Expr, b: sp.Expr) -> sp.Expr:
            powers = ((s - 2 * m, m) for m in range(s // 2 + 1))
            return sum(a**m1 * b**m2 / (sp.factorial(m1) * sp.factorial(m2)) for m1, m2 in powers)

        return term(sp.S.One, spread) + term(-sp.S.One, spread) + weight * term(sp.S.Zero, middle)

    for s in range(1, 6):
        yield equation(order(s), sp.S.Zero, variants={"order 6": order(6)}, why=f"Order {s}.")
    b = z3.Real("b")
    inside = [b > z3.Q(-2, 5), b < z3.Q(-1, 10)]
    positive = z3.And(b * b + b + z3.Q(1, 12) < 0, 1 + 2 * b > 0)
    scope = "every b between -2/5 and -1/10: the middle weight is positive"
    yield everywhere(
        decide([Problem(scope, inside, positive, {"up to 0": ([b > z3.Q(-2, 5), b < 0], positive)})], effort)
    )


THREE = Claim(
    id="fusemoe/rbar-3-at-least-6",
    statement=r"\sum_{i=1}^3 \sum_{m_1 + 2 m_2 = s} \frac{q_{3i}^2 q_{1i}^{m_1} q_{2i}^{m_2}}{m_1!\, m_2!} = 0,\ "
    r"s = 1..5 \text{ is solvable}: \quad \bar r(3) \ge 6",
    words="For three fitted components the system has solutions with gate differences up to order 5.",
    source="[fusemoe]; [hmoe]",
    recorded=Verdict.PROVED,
    check=_three_components,
    remark="Gate differences 1, -1, 0, spreads b, b and -(1+2b)/c, squared weights 1, 1, c. With b = -1/4, c = 6/5 and "
    "the middle spread -5/12. That order 6 excludes all solutions, so that r(3) = 6 as stated, is not decided here.",
)

CLAIMS = (TUBE, SIMILARITY, ALIGNED, MEAN_DIRECTION, THREE)
