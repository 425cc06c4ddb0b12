r"""Claims about which objectives agree: angles between their logit gradients, and when both can fall.

A function of the group masses has logit slopes $\pi_e (a_{g(e)} - \langle m, a \rangle)$; a function of the
conditionals has $q_e (b_e - \langle q_{g(e)}, b \rangle)$; a and b are its derivatives, whatever
the function.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase

from himoe_theory import Partition, geometry
from himoe_theory.objectives import entropy, inter_group, intra_group

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import (
    GROUP_OF,
    NORMALISED,
    ONE_GROUP,
    Assumption,
    B,
    Values,
    e,
    g,
    generic,
    h,
    j,
    p,
    t,
)
from ..sums import Data, Rule, total
from ..symbolic import for_sizes, identity
from ..witnesses import witness
from ._gradients import PARTITION, i, q

a, b = IndexedBase("a", real=True), IndexedBase("b", real=True)
m = IndexedBase("m", positive=True)

CONDITIONAL = Assumption(
    "conditionals of a group sum to 1",
    (Rule(e, B[g, e] * q[t, e], sp.S.One),),
    lambda d: d | {"q": d["p"] / (d["p"] @ np.equal.outer(GROUP_OF, GROUP_OF))},
)


def slopes_of_groups(rng: np.random.Generator) -> Values:
    d = ONE_GROUP.impose(NORMALISED.impose(generic(rng)))
    d |= {"a": rng.normal(size=(3, 3)), "b": rng.normal(size=(3, 5)), "q": d["p"]}
    return d | {"m": d["p"] @ d["B"].T}


def _covariance(effort: Effort) -> Iterator[Finding]:
    one, two = IndexedBase("one", real=True), IndexedBase("two", real=True)

    def gradient(slope: IndexedBase, expert: sp.Idx) -> Expr:
        return p[t, expert] * (slope[t, expert] - total(slope[t, i] * p[t, i], i))

    def code(d: Data) -> Array:
        probs = jnp.asarray(d["p"])
        pulled = [
            probs * (x - (probs * x).sum(1, keepdims=True)) for x in (jnp.asarray(d["one"]), jnp.asarray(d["two"]))
        ]
        return geometry.fisher_inner(*pulled, jnp.log(probs))

    product = total(one[t, e] * two[t, e] * p[t, e], e)
    yield identity(
        total(gradient(one, e) * gradient(two, e) / p[t, e], e),
        product - total(one[t, e] * p[t, e], e) * total(two[t, e] * p[t, e], e),
        assumptions=(NORMALISED,),
        variants={"not centred": product},
        code=code,
        sample=lambda rng: generic(rng) | {"one": rng.normal(size=(3, 5)), "two": rng.normal(size=(3, 5))},
    )


COVARIANCE = Claim(
    id="compatibility/fisher-inner",
    statement=r"\langle \nabla F, \nabla G \rangle_F = \sum_e \frac{\partial_{s_e} F\, \partial_{s_e} G}{\pi_e} "
    r"= \mathrm{Cov}_\pi(F', G')",
    words="In the Fisher metric of the softmax, gradients meet as the covariance of their slopes.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_covariance,
    functions=(geometry.fisher_inner,),
    remark="diag(1/pi) is a generalised inverse of the metric diag(pi) - pi pi' on gradients that sum to zero.",
)


def _orthogonal(effort: Effort) -> Iterator[Finding]:
    # Over the experts of a group: what the mass's gradient over pi is there, times the conditional's gradient.
    above = a[t, g] - total(m[t, h] * a[t, h], h)
    inside = q[t, e] * (b[t, e] - total(B[g, j] * q[t, j] * b[t, j], j))
    yield identity(
        total(B[g, e] * above * inside, g, e),
        sp.S.Zero,
        assumptions=(CONDITIONAL,),
        variants={"conditionals not centred": total(B[g, e] * above * q[t, e] * b[t, e], g, e)},
        code=_fisher_of_pairs,
        sample=slopes_of_groups,
    )
    yield for_sizes("groups of 2 and 1; of 2 and 3", _fisher_cases())


def _fisher_of_pairs(d: Data) -> Array:
    """0 if every token's Fisher cosines of the functions of masses and of conditionals are 0 to rounding, else 1."""
    logits = jnp.log(jnp.asarray(d["p"]))
    inside = intra_group.intra_group_conditional_grad(logits, PARTITION)
    masses = [inter_group.inter_group_dense_grad, entropy.group_neg_entropy_grad]
    cosines = jnp.stack([geometry.fisher_cosine(of(logits, PARTITION), inside, logits) for of in masses])
    return jnp.where(jnp.abs(cosines).max() < 1e-9, 0.0, 1.0)


def _fisher_cases() -> Iterator[tuple[Expr, Expr]]:
    """Two named functions, differentiated in the logits: sum of squared masses, and of conditionals."""
    for group_of in ((0, 1, 0), (0, 1, 1, 0, 1)):
        raised = sp.symbols(f"r:{len(group_of)}", positive=True)  # e to the logit, so that d/ds = r d/dr
        whole = sum(raised)
        masses = [sum(r for r, x in zip(raised, group_of, strict=True) if x == y) for y in (0, 1)]
        of_masses = sum((mass / whole) ** 2 for mass in masses)
        of_conditionals = sum((r / masses[x]) ** 2 for r, x in zip(raised, group_of, strict=True))
        inner = sum(r * sp.diff(of_masses, r) * r * sp.diff(of_conditionals, r) * whole / r for r in raised)
        yield inner, sp.S.Zero


FISHER = Claim(
    id="compatibility/masses-and-conditionals-fisher",
    statement=r"\langle \nabla F(m), \nabla G(q) \rangle_F = 0",
    words="Whatever is a function of group masses and whatever is a function of the conditionals have orthogonal "
    "gradients in the Fisher metric of the softmax.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_orthogonal,
    functions=(
        geometry.fisher_inner,
        inter_group.inter_group_dense_grad,
        entropy.group_neg_entropy_grad,
        intra_group.intra_group_conditional_grad,
    ),
    remark="In a router with separate group and expert logits the two depend on different parameters, and are "
    "orthogonal in the Euclidean metric as well.",
)


def rational_gradients(probs: list[sp.Rational], group_of: tuple[int, ...]) -> dict[str, list[sp.Expr]]:
    """Exact logit gradients of the dense inter-group term and of both intra-group terms."""
    groups = range(max(group_of) + 1)
    masses = [sum(x for x, y in zip(probs, group_of, strict=True) if y == at) for at in groups]
    inside = [x / masses[y] for x, y in zip(probs, group_of, strict=True)]
    purity = [sum(x**2 for x, y in zip(inside, group_of, strict=True) if y == at) for at in groups]
    spread, norm = sum(x**2 for x in masses), sum(x**2 for x in probs)
    return {
        "inter": [2 * x * (masses[y] - spread) for x, y in zip(probs, group_of, strict=True)],
        "conditional": [
            -sp.Rational(2, len(masses)) * x * (x - purity[y]) for x, y in zip(inside, group_of, strict=True)
        ],
        "global": [-2 * x * (x - norm) for x in probs],
    }


def dot(one: list[sp.Expr], two: list[sp.Expr]) -> sp.Expr:
    return sum(x * y for x, y in zip(one, two, strict=True))


def fractions(text: str) -> list[sp.Rational]:
    return [sp.Rational(x) for x in text.split()]


def _euclidean(effort: Effort) -> Iterator[Finding]:
    group_of = (0, 0, 1)
    exact = rational_gradients(fractions("1/2 1/4 1/4"), group_of)
    even = rational_gradients(fractions("3/8 3/8 1/4"), group_of)
    logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]]))
    computed = geometry.euclidean_inner(
        inter_group.inter_group_dense_grad(logits, Partition(group_of)),
        intra_group.intra_group_conditional_grad(logits, Partition(group_of)),
    )
    inner = dot(exact["inter"], exact["conditional"])
    yield witness(
        "probabilities (1/2, 1/4, 1/4), groups {0, 1} and {2}: the inner product of the gradients of the sum of "
        "squared masses and of minus the mean purity",
        inner,
        "=",
        0,
        holds_at={"(3/8, 3/8, 1/4)": (dot(even["inter"], even["conditional"]), sp.S.Zero)},
        code=[(computed[0], inner)],
    )


EUCLIDEAN = Claim(
    id="compatibility/masses-and-conditionals-euclidean",
    statement=r"\langle \nabla_s F(m), \nabla_s G(q) \rangle = 0",
    words="They are orthogonal in the space of logits, too.",
    source="[himoe-theory] D4",
    recorded=Verdict.REFUTED,
    check=_euclidean,
    functions=(
        geometry.euclidean_inner,
        inter_group.inter_group_dense_grad,
        intra_group.intra_group_conditional_grad,
    ),
)


def _squared_cosine(probs: list[sp.Rational], group_of: tuple[int, ...]) -> sp.Expr:
    found = rational_gradients(probs, group_of)
    one, two = found["inter"], found["conditional"]
    return dot(one, two) ** 2 / (dot(one, one) * dot(two, two))


def _cosine_bound(effort: Effort) -> Iterator[Finding]:
    group_of = (0, 0, 0, 0, 1, 1, 1, 1)
    far = fractions("48/83 1/83 1/83 1/83 8/83 8/83 8/83 8/83")
    logits = jnp.log(jnp.asarray([[float(x) for x in far]]))
    partition = Partition(group_of)
    cosine = geometry.euclidean_cosine(
        inter_group.inter_group_dense_grad(logits, partition),
        intra_group.intra_group_conditional_grad(logits, partition),
    )
    small = _squared_cosine(fractions("1/2 1/4 1/4"), (0, 0, 1))
    yield witness(
        "eight experts in two groups of four, probabilities (48, 1, 1, 1, 8, 8, 8, 8)/83: the squared cosine",
        _squared_cosine(far, group_of),
        "<=",
        sp.Rational(36, 100),
        holds_at={"probabilities (1/2, 1/4, 1/4), groups {0, 1} and {2}": (small, sp.Rational(36, 100))},
        code=[(cosine[0] ** 2, _squared_cosine(far, group_of))],
    )


COSINE_BOUND = Claim(
    id="compatibility/euclidean-cosine-bound",
    statement=r"|\cos(\nabla_s F(m), \nabla_s G(q))| \le .6",
    words="The angle in logit space stays within a cosine of .6.",
    source="[himoe-theory] D4",
    recorded=Verdict.REFUTED,
    check=_cosine_bound,
    functions=(geometry.euclidean_cosine,),
    remark="The notes of this package (D4) give .6 as what was seen, not as a bound. With one group of S experts "
    "nearly one-hot and the other of S' uniform, the squared cosine tends to (1 - 1/S)/(1 + 1/S'): .6 "
    "for two groups of four.",
)

CLAIMS = (COVARIANCE, FISHER, EUCLIDEAN, COSINE_BOUND)
