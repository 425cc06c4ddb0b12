"""Claims about what statements of Hi-MoE need and give: duality (Eq. 10), two heads."""

from collections.abc import Iterator
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array
from sympy import IndexedBase, KroneckerDelta

from himoe_theory import Partition
from himoe_theory.objectives import inter_group_dense, intra_group_conditional, intra_group_global

from ..ledger import Claim, Correction, Effort, Finding, Verdict, about
from ..notation import GROUP_OF, Assumption, B, Values, e, g, generic, h, j, k, t
from ..solvers import Problem, decide, everywhere
from ..sums import Rule, total
from ..symbolic import identity
from ..witnesses import witness

PARTITION = Partition(tuple(GROUP_OF.tolist()))


# Eq. 10


def _dual_gap(effort: Effort) -> Iterator[Finding]:
    """Two experts, one token; outputs 1 and -1, target 0, absolute error |pi_1 - pi_2|; coupling at most 3/8.

    The squared norm is at least 5/8, so that the error is at least 1/2. The Lagrangian with multiplier x is at most
    x/8 at (1/2, 1/2) and 1 - 3x/8 at (1, 0); at x = 2 it is 1/4 + d(1 - d) with d = |pi_1 - pi_2|, so at least 1/4.
    """
    corners = [(Fraction(3, 4), Fraction(3, 8)), (Fraction(1, 2), Fraction(1, 2))]
    coupling = jax.jit(lambda first: 1 + intra_group_global(jnp.log(jnp.stack([first, 1 - first]))[None]))
    code = [(coupling(jnp.asarray(float(first))), exact) for first, exact in corners]
    yield witness(
        "2 experts with outputs 1 and -1, target 0, absolute error |pi_1 - pi_2|, coupling 2 pi_1 pi_2 at most 3/8: "
        "largest minimum of the Lagrangian over its multiplier (reached at 2), and least error allowed (at (3/4, 1/4))",
        Fraction(1, 4),
        "=",
        Fraction(1, 2),
        holds_at={"squared error (pi_1 - pi_2)^2": (Fraction(1, 4), Fraction(1, 4))},
        code=code,
    )
    share, multiplier, d = z3.Reals("pi_1 x d")
    loss, tied = z3.If(2 * share >= 1, 2 * share - 1, 1 - 2 * share), 2 * share * (1 - share)
    inside = [share >= 0, share <= 1]
    quarter, half = z3.Q(1, 4), z3.Q(1, 2)
    budget = z3.Q(3, 8)
    yield decide(
        [
            Problem(
                "least error allowed",
                [*inside, tied <= budget],
                loss >= half,
                {"budget 1/2": ([*inside, tied <= half], loss >= half)},
            ),
            Problem(
                "no multiplier gives more than 1/4",
                [multiplier >= 0],
                z3.Or(multiplier / 8 <= quarter, 1 - 3 * multiplier / 8 <= quarter),
                {"1/5": ([multiplier >= 0], z3.Or(multiplier / 8 <= z3.Q(1, 5), 1 - 3 * multiplier / 8 <= z3.Q(1, 5)))},
            ),
            Problem(
                "multiplier 2 gives 1/4; the coupling is (1 - d^2)/2",
                [d >= 0, d <= 1],
                d + 2 * ((1 - d * d) / 2 - budget) >= quarter,
                {"multiplier 3": ([d >= 0, d <= 1], d + 3 * ((1 - d * d) / 2 - budget) >= quarter)},
            ),
        ],
        effort,
    )


def _weak(effort: Effort) -> Iterator[Finding]:
    task, excess, least, x = z3.Reals("task excess least x")
    given = [x >= 0, excess <= 0, least <= task + x * excess]
    problem = Problem(
        "every problem: any admissible point, any multiplier x >= 0, least the minimum of the Lagrangian",
        given,
        least <= task,
        {"multipliers of any sign": (given[1:], least <= task), "inadmissible points": (given[::2], least <= task)},
    )
    yield about("no multiplier exceeds the least error allowed", everywhere(decide([problem], effort)))
    other, moved = z3.Reals("other excess_of_other")
    slack = [x >= 0, moved <= 0, x * excess == 0, task + x * excess <= other + x * moved]
    problem = Problem(
        "every problem: a minimiser of the Lagrangian with x times its excess 0, any other admissible point",
        slack,
        task <= other,
        {"excess not 0": ([*slack[:2], slack[3]], task <= other)},
    )
    yield about("a minimiser that meets the constraint solves it", everywhere(decide([problem], effort)))


DUALITY = Claim(
    id="himoe/eq10-strong-duality",
    statement=r"\max_{\lambda \ge 0} \min_\pi \big(L + \lambda (\textstyle\sum_{i \ne j} \pi_i \pi_j - b)\big) = "
    r"\min_\pi \big\{ L : \textstyle\sum_{i \ne j} \pi_i \pi_j \le b \big\}",
    words="Some coefficient lambda_intra makes the objective of Eq. 8 solve the problem with a bounded coupling, of "
    "which Eq. 10 is the Lagrangian.",
    source="[himoe] eq. (10), read as strong duality",
    recorded=Verdict.CORRECTED,
    check=_dual_gap,
    functions=(intra_group_global,),
    correction=Correction(
        r"\min_\pi \big(L + \lambda (\textstyle\sum_{i \ne j} \pi_i \pi_j - b)\big) \le "
        r"\min_\pi \big\{ L : \textstyle\sum_{i \ne j} \pi_i \pi_j \le b \big\} \quad (\lambda \ge 0)",
        "Weak duality holds, with equality for a minimiser that meets the constraint exactly where lambda is positive; "
        "for a coupling, which is concave, there need not be one.",
        _weak,
    ),
    remark="The paper does not claim it. In the witness the Lagrangian jumps from (1/2, 1/2) to one-hot as lambda "
    "passes 2, and no lambda makes it choose (3/4, 1/4), which the constraint asks for.",
)


# Two heads

m, q = IndexedBase("m", positive=True), IndexedBase("q", positive=True)
SAME = np.equal.outer(GROUP_OF, GROUP_OF)
CONDITIONAL = Assumption(
    "every expert is in exactly one group, and the conditionals of a group sum to 1",
    (
        Rule(g, B[g, e], sp.S.One),
        Rule(e, B[g, e] * q[t, e], sp.S.One),
        Rule(e, B[g, e] * B[h, e] * q[t, e], KroneckerDelta(g, h)),
    ),
    lambda d: d | {"B": PARTITION.indicator().T.astype(float), "q": d["p"] / (d["p"] @ SAME)},
)


def _heads(rng: np.random.Generator) -> Values:
    d = generic(rng)
    return d | {"q": d["p"]}


def _two_heads(effort: Effort) -> Iterator[Finding]:
    # Slope of an expert's conditional in the logit of expert k: the softmax of its group alone.
    slope = q[t, e] * (KroneckerDelta(e, k) - total(B[h, e] * B[h, k], h) * q[t, k])
    found = identity(
        total(B[g, e] * m[t, g] * slope, e),
        sp.S.Zero,
        assumptions=(CONDITIONAL,),
        variants={"the groups' normaliser forgotten": B[g, k] * m[t, g] * q[t, k]},
        sample=_heads,
    )
    yield about("no mass moves with an expert logit", found)
    found = identity(
        total(B[g, e] * m[t, g] * q[t, e] / total(B[g, j] * m[t, g] * q[t, j], j), g),
        q[t, e],
        assumptions=(CONDITIONAL,),
        sample=_heads,
    )
    yield about("what conditionals are of the probabilities contains no mass, so no group logit", found)
    _check_heads()


def _check_heads() -> None:
    """Autodiff of himoe_theory's terms through the two heads: their gradients share no parameter."""

    def logits(heads: tuple[Array, Array]) -> Array:
        groups, experts = heads
        inside = jnp.log(PARTITION.spread(PARTITION.sum(jnp.exp(experts))))
        return PARTITION.spread(groups) + experts - inside

    @jax.jit
    def slopes(heads: tuple[Array, Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        masses = jax.grad(lambda x: inter_group_dense(logits(x), PARTITION))(heads)
        return masses, jax.grad(lambda x: intra_group_conditional(logits(x), PARTITION))(heads)

    rng = np.random.default_rng(3)
    masses, inside = slopes((jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=(2, 5)))))
    if max(float(jnp.abs(masses[1]).max()), float(jnp.abs(inside[0]).max())) > 1e-12:
        raise AssertionError(f"the two terms share parameters: {masses[1]}, {inside[0]}")


TWO_HEADS = Claim(
    id="compatibility/two-heads",
    statement=r"\pi_e = \mathrm{softmax}(u)_{g(e)}\, \mathrm{softmax}_{g(e)}(v)_e \;\Rightarrow\; "
    r"\langle \nabla_{u,v} F(m), \nabla_{u,v} G(q) \rangle = 0",
    words="In a router with separate logits for groups and for experts, functions of the masses and of the "
    "conditionals have orthogonal gradients in the Euclidean metric: they move different parameters.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_two_heads,
    functions=(inter_group_dense, intra_group_conditional),
    remark="The global intra-group term is a function of both, so it still meets the inter-group term in the group "
    "logits.",
)


CLAIMS = (DUALITY, TWO_HEADS)
