r"""Claims about the coefficients of objectives: when two of them oppose each other, and when both can fall."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
import z3
from jaxtyping import Array
from sympy import Expr, IndexedBase

from himoe_theory import Partition, Routing, geometry, objectives, routers
from himoe_theory.objectives import inter_group, intra_group

from ..ledger import Claim, Correction, Effort, Finding, Verdict
from ..notation import NORMALISED, B, M, T, e, g, generic, index, j, k, p, s, t
from ..search import search
from ..solvers import Problem, decide
from ..sums import Data, total
from ..symbolic import identity
from ..witnesses import witness
from ._gradients import PARTITION, i
from .compatibility import dot, fractions, m, rational_gradients, slopes_of_groups


def _opposite(effort: Effort) -> Iterator[Finding]:
    group_of = (0,) * 6 + (1,)
    exact = rational_gradients(fractions("1/10 1/10 1/10 1/10 1/10 1/10 4/10"), group_of)
    sharp = rational_gradients(fractions("4/10 4/10 1/10 1/10"), (0, 0, 1, 1))
    logits = jnp.log(jnp.asarray([[0.1] * 6 + [0.4]]))
    inter = inter_group.inter_group_dense_grad(logits, Partition(group_of))
    computed = geometry.euclidean_inner(inter, intra_group.intra_group_global_grad(logits))[0]
    fisher = geometry.fisher_inner(inter, intra_group.intra_group_global_grad(logits), logits)[0]
    inner = dot(exact["inter"], exact["global"])
    yield witness(
        "six experts of probability 1/10 in one group, one of 4/10 alone in the other: the Euclidean inner product of "
        "the gradients of R_inter (dense) and R_intra",
        inner,
        "<=",
        0,
        holds_at={"probabilities (4, 4, 1, 1)/10 in two groups": (dot(sharp["inter"], sharp["global"]), sp.S.Zero)},
        code=[(computed, inner), (fisher, sp.Rational(36, 625))],
    )


def _equal_purity(effort: Effort) -> Iterator[Finding]:
    r"""Slopes in the masses at fixed conditionals, pushed to the logits: -2 m_g c and 2 m_g."""
    purity = sp.Symbol("c", positive=True)

    x, y = index("x", M), index("y", M)

    def along_masses(value: Expr) -> Expr:
        """Its derivatives in the masses, through the softmax that moves whole groups; `value` binds x."""
        own, mean = sp.diff(value, m[t, g]), total(m[t, y] * sp.diff(value, m[t, y]), y)
        return p[t, e] * (total(B[g, e] * own, g) - mean)

    at_fixed = -total(m[t, x] ** 2 * purity, x)
    spread = total(m[t, x] ** 2, x)
    yield identity(
        along_masses(at_fixed),
        -purity * along_masses(spread),
        variants={"purity left out": -along_masses(spread)},
        more_code=[(along_masses(spread) / T, lambda d: inter_group.inter_group_dense_grad(_logits(d), PARTITION).T)],
        sample=lambda rng: slopes_of_groups(rng) | {"c": np.asarray(0.7)},
    )


def _logits(d: Data) -> Array:
    return jnp.log(jnp.asarray(d["p"]))


OPPOSITE = Claim(
    id="compatibility/global-intra-opposes-inter",
    statement=r"\langle \nabla R_{intra}, \nabla R_{inter} \rangle \le 0",
    words="By Eq. 4 the global intra-group term works against the dense inter-group term.",
    source="[himoe-theory] D4",
    recorded=Verdict.CORRECTED,
    check=_opposite,
    functions=(
        geometry.euclidean_inner,
        geometry.fisher_inner,
        inter_group.inter_group_dense_grad,
        intra_group.intra_group_global_grad,
    ),
    correction=Correction(
        statement=r"\|q_g\|^2 = c \; \forall g \;\Rightarrow\; "
        r"\nabla_m R_{intra}|_q = -c\, \nabla_m R_{inter}",
        words="The group part of R_intra is exactly opposed to R_inter where all groups are equally sharp.",
        check=_equal_purity,
    ),
    remark="The coefficients of the squared masses, lambda_inter and -lambda_intra times the purity, always have "
    "opposite signs, as the notes of this package (D4) say. With unequal purities the gradients need not: a "
    "large group of low purity and a small sharp one are both drawn to the small one.",
)


def _antiparallel(effort: Effort) -> Iterator[Finding]:
    norm = total(p[t, i] ** 2, i)
    inner, outer = sp.symbols("lambda_intra lambda_inter", positive=True)

    def code(d: Data) -> Array:
        everything = jnp.ones((3, 5), dtype=bool)
        selected = inter_group.inter_group_selected_grad(_logits(d), everything)
        sharp = intra_group.intra_group_global_grad(_logits(d))
        return 3 * (0.3 * sharp + 0.8 * selected).T

    yield identity(
        inner * -2 * p[t, e] * (p[t, e] - norm) + outer * 2 * p[t, e] * (p[t, e] - norm),
        (outer - inner) * 2 * p[t, e] * (p[t, e] - norm),
        variants={"sum of the coefficients": (outer + inner) * 2 * p[t, e] * (p[t, e] - norm)},
        code=code,
        sample=lambda rng: (
            NORMALISED.impose(generic(rng)) | {"lambda_intra": np.asarray(0.3), "lambda_inter": np.asarray(0.8)}
        ),
    )


ANTIPARALLEL = Claim(
    id="compatibility/everything-selected",
    statement=r"K = S \;\Rightarrow\; \lambda_{intra} \nabla R_{intra} + \lambda_{inter} \nabla R_{inter} "
    r"= (\lambda_{inter} - \lambda_{intra}) \nabla \|\pi\|^2",
    words="With everything selected and the same probabilities, Eqs. 6 and 7 are one term, and only the difference of "
    "the coefficients matters: no step decreases both.",
    source="[himoe] eqs. (6, 7)",
    recorded=Verdict.PROVED,
    check=_antiparallel,
    functions=(inter_group.inter_group_selected_grad, intra_group.intra_group_global_grad),
)


def _temperature(effort: Effort) -> Iterator[Finding]:
    shift, temperature = IndexedBase("shift", real=True), sp.Symbol("Temp", positive=True)

    def weight(expert: sp.Idx) -> Expr:
        return sp.exp((s[t, expert] - shift[expert]) / temperature) / total(
            sp.exp((s[t, j] - shift[j]) / temperature), j
        )

    yield identity(
        sp.diff(weight(e), s[t, k]),
        weight(e) * (sp.KroneckerDelta(e, k) - weight(k)) / temperature,
        variants={"factor 1/Temp lost": weight(e) * (sp.KroneckerDelta(e, k) - weight(k))},
        sample=lambda rng: generic(rng) | {"shift": rng.normal(size=5), "Temp": np.asarray(0.7)},
    )
    _check_router()


_CORRECTED = {name: each for name, each in objectives.OBJECTIVES.items() if each.of == "selection_logits"}


def _check_router() -> None:
    """Autodiff through the bias-corrected router against the closed forms of its selection logits, over Temp."""
    logits = jnp.asarray(generic(np.random.default_rng(2))["s"])
    router = routers.himoe(PARTITION, 1, tau=0.5, beta=0.9, temperature=0.7)

    def values(x: Array) -> tuple[Array, Routing]:
        routing = router.step(None, router.init(x.dtype), x)[0]
        return jnp.stack([objective.value(objectives.View(routing)) for objective in _CORRECTED.values()]), routing

    through, routing = jax.jit(jax.jacrev(values, has_aux=True))(logits)
    for gradient, (name, objective) in zip(through, _CORRECTED.items(), strict=True):
        np.testing.assert_allclose(
            gradient, objective.gradient(objectives.View(routing)) / 0.7, atol=1e-12, err_msg=name
        )


TEMPERATURE = Claim(
    id="compatibility/temperature",
    statement=r"\pi = \mathrm{softmax}((s - \tau \bar g)/\mathrm{Temp}) \;\Rightarrow\; "
    r"\partial L/\partial s = \tfrac{1}{\mathrm{Temp}}\, \partial L/\partial\big((s - \tau \bar g)/\mathrm{Temp}\big)",
    words="Terms computed on bias-corrected probabilities have their closed-form gradients over the temperature.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_temperature,
    assumptions=("the moving average is a constant",),
    functions=tuple(objective.functions[1] for objective in _CORRECTED.values()),
)


def _joint(effort: Effort) -> Iterator[Finding]:
    one, two, inner, weight, other = z3.Reals("aa bb ab lambda_a lambda_b")
    given = [one > 0, two > 0, inner * inner <= one * two]
    rates = [weight * one + other * inner > 0, weight * inner + other * two > 0]
    positive = [weight > 0, other > 0]
    inside = z3.And(other * two > -inner * weight, -inner * other < weight * one)
    yield decide(
        [
            Problem(
                "the step decreases both exactly inside the interval",
                [*given, *positive],
                z3.And(rates) == inside,
                {"lower end alone": ([*given, *positive], z3.And(rates) == (other * two > -inner * weight))},
            ),
            Problem(
                "no weights where the two are antiparallel",
                [*given, *positive, inner < 0, inner * inner == one * two],
                z3.Not(z3.And(rates)),
                {"not antiparallel": ([*given, *positive, inner < 0], z3.Not(z3.And(rates)))},
            ),
            Problem(
                "else there are some: the roots of the squares, crosswise",
                # lambda_a |a| = lambda_b |b|, squared so that it stays polynomial
                [*given, *positive, inner * inner < one * two, weight * weight * one == other * other * two],
                z3.And(rates),
                {"antiparallel allowed": ([*given, *positive, weight**2 * one == other**2 * two], z3.And(rates))},
            ),
        ],
        effort,
    )
    _check_interval()
    yield search(
        _interval,
        5,
        effort,
        false_factor=0.3,
        what="lower end against the upper end, of opposed gradients of the intra and inter terms; logits of 5 experts",
    )


def _interval(logits: Array) -> tuple[Array, Array]:
    """Ends of the interval where the gradients are opposed; 0 and 1 elsewhere, where there is no upper end."""
    one, two = (
        intra_group.intra_group_global_grad(logits[None]),
        inter_group.inter_group_dense_grad(logits[None], PARTITION),
    )
    inner = geometry.euclidean_inner
    low, high = geometry.joint_descent_ratios(inner(one, two), inner(one, one), inner(two, two))[0]
    opposed = jnp.isfinite(high)
    return jnp.where(opposed, low, 0.0), jnp.where(opposed, high, 1.0)


def _check_interval() -> None:
    """Steps of himoe_theory's gradients just inside and outside of the interval."""
    logits = jnp.asarray(generic(np.random.default_rng(4))["s"])[:1]
    one, two = intra_group.intra_group_global_grad(logits), inter_group.inter_group_dense_grad(logits, PARTITION)
    inner = geometry.euclidean_inner
    products = inner(one, two), inner(one, one), inner(two, two)
    if float(products[0][0]) >= 0:
        raise AssertionError("the example must have opposed gradients")
    low, high = (float(x) for x in geometry.joint_descent_ratios(*products)[0])
    if not bool(geometry.joint_descent_exists(*products)[0]):
        raise AssertionError("the example must have a joint descent direction")
    for ratio, expected in ((low * 0.99, False), (low * 1.01, True), (high * 0.99, True), (high * 1.01, False)):
        step = -(one + ratio * two)
        both = float(inner(one, step)[0]) < 0 and float(inner(two, step)[0]) < 0
        if both != expected:
            raise AssertionError(f"at ratio {ratio} in ({low}, {high}) both decrease: {both}")


JOINT = Claim(
    id="compatibility/joint-descent",
    statement=r"-(\lambda_a a + \lambda_b b) \text{ decreases both} \iff "
    r"\lambda_b \|b\|^2 > -\lambda_a \langle a, b \rangle \wedge \lambda_a \|a\|^2 > -\lambda_b \langle a, b \rangle; "
    r"\text{ possible iff } \cos(a, b) > -1",
    words="For opposed gradients the ratio of coefficients must lie in an interval, which is empty only where they are "
    "antiparallel.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_joint,
    assumptions=("two gradients that are not 0, any inner product",),
    functions=(geometry.joint_descent_ratios, geometry.joint_descent_exists),
    remark="Decided in the three inner products, for all their values, so that no size occurs.",
)

CLAIMS = (OPPOSITE, ANTIPARALLEL, TEMPERATURE, JOINT)
