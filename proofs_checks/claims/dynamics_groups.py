r"""Claims about when the two regularisers of Hi-MoE collapse groups instead of balancing them (D11)."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, dynamics
from himoe_theory.objectives import inter_group_dense, intra_group_global

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import GROUP_OF, ONE_GROUP, Assumption, B, M, Values, e, g, generic, index, m, p, t
from ..search import search
from ..sums import Data, Rule, total
from ..symbolic import certificate, identity

INTRA, INTER = sp.symbols("lambda_intra lambda_inter", nonnegative=True)
_L, _R = 0.7, 0.4
PARTITION = Partition(tuple(GROUP_OF.tolist()))
PURITY = total(B[g, e] * p[t, e] ** 2 / m[t, g] ** 2, e)
PAIRS = Partition.equal(6, 3)
HALF = sp.Rational(1, 2)


def _sample(rng: np.random.Generator) -> Values:
    """Generic values with the group masses of `PARTITION`."""
    d = generic(rng) | {"lambda_intra": np.asarray(_L), "lambda_inter": np.asarray(_R)}
    return d | {"m": d["p"] @ PARTITION.indicator().astype(float)}


def _pair_of_terms(logits: Array, intra: float, inter: float, partition: Partition) -> Array:
    return inter * inter_group_dense(logits, partition) + intra * intra_group_global(logits)


def _combined(effort: Effort) -> Iterator[Finding]:
    def code(d: Data) -> list[Array]:
        logits = jnp.log(jnp.asarray(d["p"]))
        return [
            _pair_of_terms(row[None], _L, _R, PARTITION) * jnp.exp(row).sum() ** 2  # rows need not sum to 1
            for row in logits
        ]

    yield identity(
        INTER * total(m[t, g] ** 2, g) - INTRA * total(p[t, e] ** 2, e),
        total(m[t, g] ** 2 * (INTER - INTRA * PURITY), g),
        assumptions=(ONE_GROUP,),
        variants={"purity left out": total(m[t, g] ** 2 * (INTER - INTRA), g)},
        code=code,
        sample=_sample,
    )


COMBINED = Claim(
    id="group-collapse/combined",
    statement=r"\lambda_{inter}\sum_g m_g^2 - \lambda_{intra}\|\pi\|^2 = "
    r"\sum_g m_g^2(\lambda_{inter} - \lambda_{intra}\|q_g\|^2)",
    words="Together the two regularisers reward or punish concentration on groups, depending on the purity inside.",
    source="[himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_combined,
    assumptions=("every expert is in exactly one group",),
    functions=(inter_group_dense, intra_group_global, dynamics.group_coefficient),
)

v = sp.IndexedBase("v", real=True)
f = sp.IndexedBase("f", real=True)


def _flip(effort: Effort) -> Iterator[Finding]:
    # With the choices inside groups fixed the pair is quadratic in the masses; k_g is its coefficient.
    purity = sp.IndexedBase("P", positive=True)
    k = INTER - INTRA * purity[g]
    first = 2 * total(k * f[g] * v[g], g)

    def code(d: Data) -> float:
        bends = [float(dynamics.group_coefficient(float(x), _L, _R)) for x in d["P"]]
        return float(np.dot(bends, np.square(d["v"])))

    yield identity(
        total(k * (f[g] + v[g]) ** 2, g) - total(k * f[g] ** 2, g) - first,
        total(k * v[g] ** 2, g),
        variants={"purity of 1": total((INTER - INTRA) * v[g] ** 2, g)},
        code=code,
        sample=lambda rng: {
            "P": rng.uniform(0.2, 1.0, 3),
            "v": rng.normal(size=3),
            "f": rng.normal(size=3),
            "lambda_intra": np.asarray(_L),
            "lambda_inter": np.asarray(_R),
        },
    )
    if abs(float(dynamics.group_coefficient(dynamics.flip_purity(_L, _R), _L, _R))) > 1e-15:
        raise AssertionError("himoe_theory's coefficient does not vanish at its flip purity")


FLIP = Claim(
    id="group-collapse/flip",
    statement=r"R(m + v) = R(m) + \nabla R \cdot v + \sum_g (\lambda_{inter} - \lambda_{intra}\|q_g\|^2)\, v_g^2",
    words="At fixed choices inside groups the pair of terms is convex in the masses, and balances, while every purity "
    "is below lambda_inter/lambda_intra; once all are above, it is concave and least with all mass on one group.",
    source="[himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_flip,
    assumptions=("probabilities inside groups are held fixed",),
    functions=(dynamics.group_coefficient, dynamics.flip_purity),
)

S = sp.Symbol("S", integer=True, positive=True)
q = sp.IndexedBase("q", real=True)
i, j = index("i", S), index("j", S)
ONE = Assumption(
    "probabilities inside the group sum to 1",
    (Rule(i, q[i], sp.S.One),),
    lambda d: d | {"q": d["q"] / d["q"].sum()},
)


def _purity(effort: Effort) -> Iterator[Finding]:
    yield certificate(
        total(q[i] ** 2, i) - 1 / S,
        total((q[i] - q[j]) ** 2, i, j) / (2 * S),
        assumptions=(ONE,),
        sample=lambda rng: {"q": rng.uniform(0.1, 1.0, 3)},
        sizes={S: 3},
    )

    def sides(logits: Array) -> tuple[Array, Array]:
        return jnp.asarray(1 / 4), -intra_group_global(logits[None])

    yield search(sides, 4, effort, false_factor=0.95, what="groups of 4; logits")


LEAST_PURITY = Claim(
    id="group-collapse/least-purity",
    statement=r"\|q_g\|^2 \ge 1/S, \text{ so } \ge \tfrac12 \text{ for groups of two}",
    words="A group of S experts has a purity of at least 1/S.",
    source="[himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_purity,
    assumptions=("probabilities inside the group sum to 1",),
)


def _published_pairs(effort: Effort) -> Iterator[Finding]:
    # q and 1 - q inside each pair: the coefficient of m^2 at 0.1 and 0.05 is minus a square.
    first = sp.IndexedBase("q1", nonnegative=True)
    purity = first[g] ** 2 + (1 - first[g]) ** 2
    coefficient = sp.Rational(5, 100) - sp.Rational(1, 10) * purity
    masses = sp.IndexedBase("m1", nonnegative=True)

    def code(d: Data) -> float:
        inside = np.stack([d["q1"], 1 - d["q1"]], axis=1) * (d["m1"] / d["m1"].sum())[:, None]
        value = _pair_of_terms(jnp.log(jnp.asarray(inside.ravel()))[None], 0.1, 0.05, PAIRS)
        return -float(value) * d["m1"].sum() ** 2

    yield certificate(
        -total(masses[g] ** 2 * coefficient, g),
        total(masses[g] ** 2 * (first[g] - HALF) ** 2, g) / 5,
        code=code,
        variants={"with lambda_inter 0.1": total(masses[g] ** 2 * (first[g] - HALF) ** 2, g) / 5 + HALF},
        sample=lambda rng: {"q1": rng.uniform(0.1, 0.9, 3), "m1": rng.uniform(0.1, 1.0, 3)},
        sizes={M: 3},
    )

    def sides(logits: Array) -> tuple[Array, Array]:
        return 0.05 * inter_group_dense(logits[None], PAIRS), -0.1 * intra_group_global(logits[None])

    yield search(sides, 6, effort, false_factor=0.95, what="6 experts in 3 groups of two; logits")


PUBLISHED_PAIRS = Claim(
    id="group-collapse/published-pairs",
    statement=r"\lambda = (0.1, 0.05),\ S = 2: \quad 0.05 \sum_g m_g^2 - 0.1 \|\pi\|^2 = "
    r"-\tfrac15 \sum_g m_g^2 (q_{1|g} - \tfrac12)^2 \le 0",
    words="At the published coefficients the pair of terms never balances groups of two: every group's coefficient is "
    "negative or zero, whatever the routing.",
    source="[himoe] published settings, nanoGPT; [himoe-theory] D11",
    recorded=Verdict.PROVED,
    check=_published_pairs,
    assumptions=("groups of two", "softmax probabilities, dense group mass"),
    functions=(inter_group_dense, intra_group_global),
    remark="Zero exactly when both experts of every group are equally likely. Larger groups are balanced while their "
    "purity is below one half. How far groups collapse in training is for simulation to measure.",
)


CLAIMS = (COMBINED, FLIP, LEAST_PURITY, PUBLISHED_PAIRS)
