"""Claims about what load losses are at uniform routing, and about the minimum of the soft ones."""

import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase

from himoe_theory import metrics, objectives
from himoe_theory.objectives import OBJECTIVES, Objective

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import NORMALISED, SIZES, Assumption, N, T, c, e, index, p, t
from ..search import search
from ..sums import Data, Rule, total
from ..symbolic import certificate, identity
from ..witnesses import reported
from ._gradients import K, first, i, u, v

_MIXED = np.array([[1, 0, 0, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [0, 0, 1, 1, 1]], dtype=float)
ROUTES = Assumption("every token selects K experts", (Rule(e, c[t, e], K),), lambda d: d | {"c": _MIXED})
EVEN = Assumption(
    "every expert is selected equally often",
    (Rule(t, c[t, e], T * K / N),),
    lambda d: d | {"c": np.stack([np.roll([1.0, 1.0, 1.0, 0.0, 0.0], k) for k in range(5)])},
)
FIRST = Assumption(
    "one choice of a token is its first", (Rule(e, first[t, e], sp.S.One),), lambda d: d | {"first": np.eye(5)[[3] * 5]}
)


def _everything(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Selections that fulfil none of the three."""
    return {"c": np.maximum(np.triu(np.ones((5, 5))), np.eye(5)[::-1]), "first": np.ones((5, 5))}


def _at_uniform(name: str) -> tuple[Expr, tuple[Assumption, ...], str]:
    """Value of a convention where all probabilities are equal, and what else must be even for its constant."""
    share = total(c[u, i], u) / (T * K)
    mean = total(1 / N, v) / T
    return {
        "load": (N * total(share * mean, i), (ROUTES,), "1"),
        "load_per_token": (N * total(K * share * mean, i), (ROUTES,), "K"),
        "load_top_k": (N * total(share * mean, i), (ROUTES,), "1"),
        "load_top_k_per_token": (N * total(K * share * mean, i), (ROUTES,), "K"),
        # Renormalised over the selection, equal probabilities become weights 1/K.
        "load_selected_weights": (N * total(share * total(c[v, i] / K, v) / T, i), (EVEN,), "1"),
        "load_first_choice": (N * total(total(first[u, i], u) / T * mean, i), (FIRST,), "1"),
        "load_frozen": (N * total(mean * mean, i), (), "1"),
        "p_squared": (N * total(mean**2, i), (), "1"),
        "load_entropy": (total(mean * sp.log(mean), i), (), r"-\ln N"),
    }[name]


def _constant(objective: Objective) -> Claim:
    convention = objective.convention
    assert convention is not None
    value, assumptions, printed = _at_uniform(objective.name)
    answer = {"1": sp.S.One, "K": K, r"-\ln N": -sp.log(N)}[printed]

    def code(d: Data) -> float:
        logits = jnp.zeros((5, 5))
        arguments: dict[str, tuple[Array | int, ...]] = {
            "load_first_choice": (jnp.asarray(d["first"]).argmax(1)[:, None],),
            "load_top_k": (3,),
            "load_top_k_per_token": (3,),
        }
        selected = () if not assumptions else arguments.get(objective.name, (jnp.asarray(d["c"] > 0),))
        found = float(objective.functions[0](logits, *selected))
        stated = convention.at_uniform(5, 3)
        if abs(found - stated) > 1e-12:
            raise AssertionError(f"{objective.name} is listed with {stated} at uniform routing, and computes {found}")
        return found

    def check(effort: Effort) -> Iterator[Finding]:
        yield identity(
            value,
            answer,
            assumptions=assumptions,
            code=code,
            sample=_everything,
            sizes=SIZES | {T: 5, N: 5, K: 3},
        )

    remark = ""
    if objective.name == "load_selected_weights":
        remark = "Unlike the others, it is not enough that the probabilities are equal: with unequal counts its value "
        remark += "is 1 plus the squared coefficient of variation of the counts."
    return Claim(
        f"load/uniform-{objective.name.replace('_', '-')}",
        rf"L = {printed} \text{{ at uniform routing, h: {convention.share}}}",
        f"What {convention.used_by} call the load loss is {printed} at uniform routing, for all N, T, K.",
        "[himoe-theory] D10",
        Verdict.PROVED,
        check,
        assumptions=("all probabilities are equal", *(a.words for a in assumptions)),
        functions=objective.functions[:1],
        remark=remark,
    )


def _unequal_counts(effort: Effort) -> Iterator[Finding]:
    share = total(c[u, i], u) / (T * K)
    yield identity(
        N * total(share * total(c[v, i] / K, v) / T, i),
        1 + N * total((share - 1 / N) ** 2, i),
        assumptions=(ROUTES,),
        variants={"always 1": sp.S.One},
        code=lambda d: objectives.load_selected_weights(jnp.zeros((5, 5)), jnp.asarray(d["c"] > 0)),
        sample=_everything,
        sizes=SIZES | {T: 5, N: 5, K: 3},
    )


FLAT_COUNTS = Claim(
    id="load/selected-weights-equal-logits",
    statement=r"\pi = 1/N \;\Rightarrow\; N \sum_e h_e \bar w_e = 1 + \mathrm{CV}(h)^2",
    words="With weights renormalised over the selection, equal probabilities give 1 only where counts are equal too.",
    source="[himoe-code] flat router",
    recorded=Verdict.PROVED,
    check=_unequal_counts,
    assumptions=("all probabilities are equal", ROUTES.words),
    functions=(objectives.load_selected_weights,),
)


def _soft_minimum(effort: Effort) -> Iterator[Finding]:
    mean = total(p[u, i], u) / T
    yield certificate(
        N * total(mean**2, i) - 1,
        N * total((mean - 1 / N) ** 2, i),
        assumptions=(NORMALISED,),
        code=lambda d: objectives.p_squared(jnp.log(jnp.asarray(d["p"]))) - 1,
        variants={"constant 1/N": N * total((mean - 1 / N) ** 2, i) + 1 - 1 / N},
    )

    def sides(point: Array) -> tuple[Array, Array]:
        return jnp.ones(()), objectives.p_squared(point.reshape(2, 4))

    yield search(sides, 8, effort, false_factor=0.95, what="2 tokens, 4 experts; logits")


SOFT_MINIMUM = Claim(
    id="load/soft-minimum",
    statement=r"N \sum_e P_e^2 \ge 1, \text{ equality iff } P = 1/N",
    words="With h = P, uniform mean probabilities minimise the load loss: Cauchy-Schwarz.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_soft_minimum,
    assumptions=(NORMALISED.words,),
    functions=(objectives.p_squared, objectives.load_frozen),
    remark="The mean must be uniform, not the tokens: one-hot routing spread evenly is a minimum as well.",
)

R = sp.Symbol("R", integer=True, positive=True)
"""The number of experts other than the busiest."""
x, y, z = IndexedBase("x", nonnegative=True), IndexedBase("y", nonnegative=True), IndexedBase("z", real=True)
r, r1 = index("r", R), index("r1", R)


def _loads(point: Array) -> Array:
    """Non-negative loads, with zeros among them."""
    return jnp.maximum(point, 0) + 1e-12


def _lower(effort: Effort) -> Iterator[Finding]:
    busiest = -total(z[r], r)
    yield certificate(
        R * (total(z[r] ** 2, r) + busiest**2) - (R + 1) * busiest**2,
        total((z[r] - z[r1]) ** 2, r, r1) / 2,
        sample=lambda rng: {"z": rng.normal(size=3)},
        sizes={R: 3},
        variants={"N in place of N - 1": total((z[r] - z[r1]) ** 2, r, r1) / 2 + total(z[r] ** 2, r) + busiest**2},
    )

    def sides(point: Array) -> tuple[Array, Array]:
        load = _loads(point)
        return metrics.max_violation(load) / math.sqrt(load.size - 1), metrics.coefficient_of_variation(load)

    yield search(sides, 5, effort, false_factor=0.95, what="5 experts; loads", starts=lambda rng: rng.uniform(0, 1, 5))


def _upper(effort: Effort) -> Iterator[Finding]:
    highest, among = x[e] + y[e], x[i] + y[i]
    yield certificate(
        total(x[e] * highest, e) - total(x[e] ** 2, e),
        total(x[i] * y[i], i),
        sample=lambda rng: {"x": (load := rng.uniform(0, 1, 5)), "y": load.max() - load},
        variants={"without the load": total(y[i] * among, i)},
        more_code=[(total(x[i] * y[i], i) * N / total(x[i], i) ** 2, _excess_of_violation)],
    )

    def sides(point: Array) -> tuple[Array, Array]:
        load = _loads(point)
        return jnp.square(metrics.coefficient_of_variation(load)), metrics.max_violation(load)

    yield search(sides, 5, effort, false_factor=0.95, what="5 experts; loads", starts=lambda rng: rng.uniform(0, 1, 5))


def _excess_of_violation(d: Data) -> Array:
    load = jnp.asarray(d["x"])
    return metrics.max_violation(load) - jnp.square(metrics.coefficient_of_variation(load))


def _example(effort: Effort) -> Iterator[Finding]:
    violation = sp.Rational(72, 100)
    yield reported("the least CV at N = 64 and MaxVio = .72", violation / sp.sqrt(63), "0.091")
    yield reported("the largest", sp.sqrt(violation), "0.849")


_FUNCTIONS = (metrics.max_violation, metrics.coefficient_of_variation)
VIOLATION = (
    Claim(
        id="load/maxvio-below-cv",
        statement=r"\mathrm{MaxVio} \le \sqrt{N-1}\, \mathrm{CV}",
        words="The busiest expert's excess is at most the square root of N - 1 times the coefficient of variation.",
        source="[loss-free] MaxVio",
        recorded=Verdict.PROVED,
        check=_lower,
        assumptions=("loads with positive sum; z is a load over the mean, less 1, of the experts but the busiest",),
        functions=_FUNCTIONS,
        remark="Loads need not be non-negative. Equality where all other loads are equal.",
    ),
    Claim(
        id="load/cv-below-root-maxvio",
        statement=r"\mathrm{CV}^2 \le \mathrm{MaxVio}",
        words="The coefficient of variation is at most the square root of the busiest expert's excess.",
        source="[loss-free] MaxVio",
        recorded=Verdict.PROVED,
        check=_upper,
        assumptions=("non-negative loads x with positive sum; y is the distance to the largest load",),
        functions=_FUNCTIONS,
        remark="MaxVio - CV^2 is N sum xy over the squared sum. Equality where every load is 0 or the largest.",
    ),
    Claim(
        id="load/maxvio-cv-example",
        statement=r"N = 64,\; \mathrm{MaxVio} = .72 \;\Rightarrow\; \mathrm{CV} \in [.091, .849]",
        words="What a table with MaxVio .72 for 64 experts says about the coefficient of variation.",
        source="[himoe-theory] D10",
        recorded=Verdict.PROVED,
        check=_example,
        functions=_FUNCTIONS,
    ),
)

CLAIMS = (*(_constant(each) for each in OBJECTIVES.values() if each.convention), FLAT_COUNTS, SOFT_MINIMUM, *VIOLATION)
