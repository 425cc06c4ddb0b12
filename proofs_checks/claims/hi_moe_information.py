"""Claims of Hi-MoE about specialisation: gradient coupling (Thm 4.2) and collision information (Thm 4.3, Cor 4.4)."""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import IndexedBase, KroneckerDelta

from himoe_theory import bounds, metrics
from himoe_theory.objectives import intra_group, p_squared

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import NORMALISED, Assumption, N, T, Values, e, generic, index, j, p, t, t1
from ..search import search
from ..sums import Data, Rule, total
from ..symbolic import certificate, equation, identity
from ..witnesses import witness

D = sp.Symbol("D", integer=True, positive=True)
G = sp.Symbol("G", positive=True)
i = index("i", D)
v = IndexedBase("v", real=True)
a = IndexedBase("a", nonnegative=True)

BOUNDED = Assumption(
    "no gradient is longer than G; a is what its square falls short of G²",
    (Rule(i, v[e, i] ** 2, G**2 - a[e]),),
    lambda x: x | {"G": _longest(x), "a": _longest(x) ** 2 - np.square(x["v"]).sum(axis=1)},
)


def _longest(x: Values) -> np.float64:
    return np.sqrt(np.square(x["v"]).sum(axis=1).max())


def _gradients(rng: np.random.Generator) -> Values:
    return generic(rng) | {"v": rng.normal(size=(5, 2)), "G": np.float64(1.5), "a": rng.uniform(size=5)}


def _thm_4_2(effort: Effort) -> Iterator[Finding]:
    apart = (1 - KroneckerDelta(e, j)) ** 2  # squared, so that its form shows it is not negative
    coupling = total(apart * p[t, e] * p[t, j] * total(v[e, i] * v[j, i], i), e, j)
    distance = total((v[e, i] - v[j, i]) ** 2, i)

    def gap(x: Data) -> list[Array]:
        probs, gradients = jnp.asarray(x["p"]), jnp.asarray(x["v"])
        return [bounds.coupling_bound(row, gradients) - bounds.coupling(row, gradients) for row in probs]

    yield certificate(
        G**2 * (1 - total(p[t, e] ** 2, e)) - coupling,
        total(apart * p[t, e] * p[t, j] * (distance + a[e] + a[j]), e, j) / 2,
        assumptions=(NORMALISED, BOUNDED),
        sample=_gradients,
        sizes={T: 3, N: 5, D: 2},
        code=gap,
    )

    def sides(point: Array) -> tuple[Array, Array]:
        probs, gradients = jax.nn.softmax(point[:3]), point[3:].reshape(3, 2)
        return jnp.maximum(bounds.coupling(probs, gradients), 0), bounds.coupling_bound(probs, gradients)

    yield search(sides, 9, effort, false_factor=0.9, what="3 experts with gradients in the plane; logits and gradients")


THM_4_2 = Claim(
    id="himoe/thm4.2-coupling",
    statement=r"\sum_{i \ne j} \langle \pi_i g_i, \pi_j g_j \rangle \le G^2 (1 - \|\pi\|^2), \quad \|g_i\| \le G",
    words="The coupling of the experts' gradients is at most their largest squared norm times the probability that two "
    "drawn experts differ.",
    source="[himoe] Thm 4.2",
    recorded=Verdict.PROVED,
    check=_thm_4_2,
    assumptions=("the probabilities of a token sum to 1", "no gradient is longer than G"),
    functions=(bounds.coupling, bounds.coupling_bound),
    remark="The inner products are of gradients of different parameter vectors, which meet in no update.",
)


def _reading(effort: Effort) -> Iterator[Finding]:
    def exact(probs: Sequence[Fraction], gradients: Sequence[int]) -> Fraction:
        pairs = ((x, y) for x in range(3) for y in range(3) if x != y)
        return sum((probs[x] * probs[y] * gradients[x] * gradients[y] for x, y in pairs), Fraction(0))

    third, half = Fraction(1, 3), Fraction(1, 2)
    even, sharp = (third,) * 3, (half, half, Fraction(0))
    opposed, equal = (1, 1, -1), (1, 1, 1)
    vectors = jnp.asarray(opposed, float)[:, None]
    computed = [(bounds.coupling(jnp.asarray(probs, float), vectors), exact(probs, opposed)) for probs in (even, sharp)]
    yield witness(
        "unit gradients g1 = g2 = -g3, probabilities from (1/3, 1/3, 1/3) to (1/2, 1/2, 0), so that the squared norm "
        "rises from 1/3 to 1/2; coupling after against before",
        exact(sharp, opposed),
        "<=",
        exact(even, opposed),
        holds_at={"equal gradients": (exact(sharp, equal), exact(even, equal))},
        code=computed,
    )


READING = Claim(
    id="himoe/thm4.2-reading",
    statement=r"\|\pi'\|^2 > \|\pi\|^2 \;\Rightarrow\; \sum_{i \ne j} \langle \pi'_i g_i, \pi'_j g_j \rangle \le "
    r"\sum_{i \ne j} \langle \pi_i g_i, \pi_j g_j \rangle",
    words="The discussion's reading of Theorem 4.2: a sharper softmax lowers the coupling itself.",
    source="[himoe] discussion of Thm 4.2",
    recorded=Verdict.REFUTED,
    check=_reading,
    functions=(bounds.coupling,),
    remark="What falls is the bound. The coupling changes sign where opposed gradients lose their weight.",
)


# Collision information

SAME = total(p[t, e] ** 2, t, e) / T
r"""$\mathbb{E}\|\pi\|^2$: two experts drawn for one token agree."""
ANY = total((total(p[t, e], t) / T) ** 2, e)
r"""$\|\mathbb{E}\pi\|^2$: two experts drawn for two independent tokens agree."""


def balanced(p: np.ndarray) -> np.ndarray:
    """Rows that sum to 1 and columns that sum to T/N, by alternate scaling."""
    for _ in range(200):
        p = p / p.sum(axis=0) * len(p) / p.shape[1]
        p = p / p.sum(axis=1, keepdims=True)
    return p


BALANCED = Assumption(
    "every expert is used equally",
    (Rule(t, p[t, e], T / N),),
    lambda x: x | {"p": balanced(x["p"])},
)


def probabilities(rng: np.random.Generator) -> Values:
    """Generic values whose probabilities sum to 1."""
    return NORMALISED.impose(generic(rng))


def _information(x: Data) -> Array:
    return jax.jit(metrics.collision_information)(jnp.asarray(x["p"]))


def _thm_4_3(effort: Effort) -> Iterator[Finding]:
    renyi = -sp.log(ANY) + sp.log(SAME)
    shannon_like = {"ratio inverted": sp.log(ANY / SAME), "ratio without the logarithm": SAME / ANY}
    yield identity(renyi, sp.log(SAME / ANY), variants=shannon_like, sample=probabilities, code=_information)
    yield identity(renyi, sp.log(N * SAME), assumptions=(BALANCED,), sample=probabilities, code=_information)


THM_4_3 = Claim(
    id="himoe/thm4.3-collision-information",
    statement=r"I_2 = H_2(E) - H_2(E|X) = \ln \frac{\mathbb{E}\|\pi\|^2}{\|\mathbb{E}\pi\|^2} = \ln(N\, "
    r"\mathbb{E}\|\pi\|^2) \text{ when balanced}",
    words="Collision information is the log-ratio of the mean squared norm to the squared norm of the mean; with equal "
    "usage of the experts the latter is 1/N.",
    source="[himoe] Thm 4.3",
    recorded=Verdict.PROVED,
    check=_thm_4_3,
    assumptions=("H₂(E|X) is minus the logarithm of the mean collision probability, as in the paper",),
    functions=(metrics.collision_information,),
)


def pairs_of_tokens() -> sp.Expr:
    """Half the mean squared distance of two tokens' probabilities."""
    return total((p[t, e] - p[t1, e]) ** 2, t, t1, e) / (2 * T**2)


def _i2_nonnegative(effort: Effort) -> Iterator[Finding]:
    gain = jax.jit(metrics.gini_gain)
    yield certificate(SAME - ANY, pairs_of_tokens(), sample=probabilities, code=lambda x: gain(jnp.asarray(x["p"])))

    def sides(point: Array) -> tuple[Array, Array]:
        logits = point.reshape(2, 3)
        return p_squared(logits) / 3, -intra_group.intra_group_global(logits)

    yield search(sides, 6, effort, false_factor=0.9, what="2 tokens, 3 experts, logits")


I2_NONNEGATIVE = Claim(
    id="himoe/thm4.3-nonnegative",
    statement=r"\|\mathbb{E}\pi\|^2 \le \mathbb{E}\|\pi\|^2, \quad \text{hence } I_2 \ge 0",
    words="Collision information is never negative, and 0 exactly when all tokens have the same probabilities.",
    source="[himoe-theory], about [himoe] Thm 4.3",
    recorded=Verdict.PROVED,
    check=_i2_nonnegative,
    functions=(metrics.gini_gain, p_squared, intra_group.intra_group_global),
    remark="The gap is half the mean squared distance of the probabilities of two tokens.",
)


def _cor_4_4(effort: Effort) -> Iterator[Finding]:
    yield identity(
        -sp.log(ANY) + sp.log(SAME), sp.log(N * SAME), assumptions=(BALANCED,), sample=probabilities, code=_information
    )
    old, rise, experts = sp.symbols("x y N", positive=True)
    grown = sp.log(experts * (old + rise)) - sp.log(experts * old)
    yield equation(
        grown,
        sp.log(1 + rise / old),
        why="At balanced usage I₂ = ln(N x), x the mean squared norm. A rise by y > 0 raises it by ln(1 + y/x) > 0.",
    )


COR_4_4 = Claim(
    id="himoe/cor4.4-monotone",
    statement=r"\mathbb{E}\|\pi'\|^2 > \mathbb{E}\|\pi\|^2 \;\Rightarrow\; I_2' > I_2 \quad (\mathbb{E}\pi = "
    r"\mathbb{E}\pi' = 1/N)",
    words="Between two balanced routings, the one with the larger mean squared norm has more collision information.",
    source="[himoe] Cor. 4.4",
    recorded=Verdict.PROVED,
    check=_cor_4_4,
    assumptions=("both routings use every expert equally",),
    functions=(metrics.collision_information,),
)


def _drift(shares: Sequence[Fraction]) -> Fraction:
    r"""$\mathrm{d}P_1/\mathrm{d}t$ under $\dot s = -\partial R_{\mathrm{intra}}/\partial s$ for two experts.

    Exact, from the tokens' first probabilities.
    """
    rate = Fraction(0)
    for first in shares:
        probs = (first, 1 - first)
        norm = sum(x * x for x in probs)
        push = [Fraction(2, len(shares)) * x * (x - norm) for x in probs]
        rate += first * (push[0] - sum(x * y for x, y in zip(probs, push, strict=True))) / len(shares)
    return rate


def _keeps_balance(effort: Effort) -> Iterator[Finding]:
    skewed = (Fraction(3, 4), Fraction(3, 8), Fraction(3, 8))
    even = (Fraction(3, 4), Fraction(1, 4))
    first = jnp.asarray([float(x) for x in skewed])
    logits = jnp.stack([jnp.log(first), jnp.log(1 - first)], axis=1)

    def usage(s: Array) -> Array:
        return metrics.soft_load(jax.nn.softmax(s))[0]

    rate = jax.jvp(usage, (logits,), (-intra_group.intra_group_global_grad(logits),))[1]
    yield witness(
        "2 experts, 3 tokens with probabilities (3/4, 1/4), (3/8, 5/8), (3/8, 5/8), so that each is used 1/2; rate of "
        "change of the first expert's usage under gradient descent on the intra-group term",
        _drift(skewed),
        "=",
        0,
        holds_at={"2 tokens (3/4, 1/4), (1/4, 3/4)": (_drift(even), 0)},
        code=[(rate, _drift(skewed)), (usage(logits), Fraction(1, 2))],
    )


KEEPS_BALANCE = Claim(
    id="himoe/cor4.4-gradient-keeps-balance",
    statement=r"\mathbb{E}\pi = 1/N \;\Rightarrow\; \tfrac{\mathrm{d}}{\mathrm{d}t}\, \mathbb{E}\pi = 0 \text{ under } "
    r"\dot s = -\partial R_{\mathrm{intra}} / \partial s",
    words="Descending the intra-group term, to which Corollary 4.4 is applied, keeps usage balanced.",
    source="[himoe] use of Cor. 4.4",
    recorded=Verdict.REFUTED,
    check=_keeps_balance,
    functions=(intra_group.intra_group_global_grad, metrics.soft_load),
    remark="So the corollary's assumption is lost along the flow that the objective prescribes; the load loss or the "
    "inter-group term has to restore it.",
)


CLAIMS = (THM_4_2, READING, THM_4_3, I2_NONNEGATIVE, COR_4_4, KEEPS_BALANCE)
