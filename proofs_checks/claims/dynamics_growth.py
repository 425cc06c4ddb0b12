r"""Claims about growth near uniform routing (D1): the four rates.

Each rate is the linearisation of a gradient field at uniform routing, for every number of tokens, experts and groups:
logits $\varepsilon v_{te}$ go through the softmax, and the field is differentiated in $\varepsilon$ at 0.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, Softmax, dynamics
from himoe_theory.objectives import inter_group_dense, intra_group_global, load_frozen_grad, p_squared

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import Assumption, B, M, N, T, Values, e, g, h, index, p, t, through_softmax
from ..search import QUICK
from ..sums import Data, Rule, total
from ..symbolic import identity

S = sp.Symbol("S", integer=True, positive=True)
INTRA, INTER, PULL, EPS = sp.symbols("lambda_intra lambda_inter alpha_c epsilon", real=True)
COEFFICIENTS = {"lambda_intra": 0.7, "lambda_inter": 0.4, "alpha_c": 0.3}
"""`alpha_c` is c alpha: alpha for the frozen load, 2 alpha for the full one."""
a, b, c = (sp.IndexedBase(name, real=True) for name in ("a", "b", "gamma"))
u, i = index("u", T), index("i", N)
SIZES = {T: 3, N: 6, M: 3, S: 2}
EQUAL = Partition((0, 1, 2, 1, 0, 2))
"""Interleaved groups of two."""


def _sample(rng: np.random.Generator) -> Values:
    """Unequal groups, and modes that sum to nothing in particular."""
    modes = {"a": rng.normal(size=3), "b": rng.normal(size=6), "gamma": rng.normal(size=3)}
    return modes | {"B": np.eye(3)[:, [0, 1, 2, 0, 0, 2]]} | {k: np.asarray(v) for k, v in COEFFICIENTS.items()}


EQUAL_GROUPS = Assumption(
    "every expert is in exactly one group, and each group has S experts",
    (
        Rule(g, B[g, e], sp.S.One),
        Rule(e, B[g, e], S),
        Rule(e, B[g, e] * B[h, e], S * sp.KroneckerDelta(g, h)),
    ),
    lambda d: d | {"B": EQUAL.indicator().T.astype(float)},
)
"""Impose it before what follows."""
CONTRAST = Assumption(
    "the token mode sums to zero over tokens",
    (Rule(t, a[t], sp.S.Zero),),
    lambda d: d | {"a": d["a"] - d["a"].mean()},
)
WITHIN = Assumption(
    "the expert mode sums to zero in every group",
    (Rule(e, b[e], sp.S.Zero), Rule(e, B[g, e] * b[e], sp.S.Zero)),
    lambda d: d | {"b": d["b"] - d["B"].T @ ((d["B"] @ d["b"]) / d["B"].sum(axis=1))},
)
BETWEEN = Assumption(
    "the group mode sums to zero over groups",
    (Rule(g, c[g], sp.S.Zero),),
    lambda d: d | {"gamma": d["gamma"] - d["gamma"].mean()},
)

Mode = Callable[[sp.Idx, sp.Idx], sp.Expr]
BETWEEN_GROUPS = total(B[g, e] * c[g], g)


def linearised(slope: Callable[[sp.Idx, sp.Idx], sp.Expr], mode: Mode) -> sp.Expr:
    r"""Derivative at uniform routing, along `mode`, of $-\sum_j a_{tj} \pi_j(\delta_{je} - \pi_e)$, a = `slope`.

    To first order the probabilities of logits $\varepsilon v$ are $(1 + \varepsilon v)/N$ for a mode that sums to zero
    over experts, which is the claim `TANGENT`.
    """

    def path(token: sp.Idx, expert: sp.Idx) -> sp.Expr:
        return (1 + EPS * mode(token, expert)) / N

    field = -through_softmax(slope, t, e)
    moved = field.replace(lambda x: isinstance(x, sp.Indexed) and x.base == p, lambda x: path(*x.indices))
    return sp.diff(moved, EPS).subs(EPS, 0)


def _slope(token: sp.Idx, j: sp.Idx) -> sp.Expr:
    """T times the derivative of the whole loss in a probability; the frozen load's is half of the full one's."""
    mass = total(B[g, i] * p[token, i], i)
    regularisers = -2 * INTRA * p[token, j] + 2 * INTER * total(B[g, j] * mass, g)
    return regularisers + PULL * N * total(p[u, j], u) / T


@functools.partial(jax.jit, compiler_options=QUICK)
def _moved(mode: Array, pull_full: Array, pull_frozen: Array) -> Array:
    """What -T times the gradient of himoe_theory's objectives does to a small mode at uniform routing."""

    def field(logits: Array) -> Array:
        def loss(s: Array) -> Array:
            hi_moe = COEFFICIENTS["lambda_intra"] * intra_group_global(s)
            return hi_moe + COEFFICIENTS["lambda_inter"] * inter_group_dense(s, EQUAL) + pull_full / 2 * p_squared(s)

        # Autodiff of `load_frozen` twice would not see that the frozen h moves with the logits; its gradient does.
        return -logits.shape[0] * (jax.grad(loss)(logits) + pull_frozen * load_frozen_grad(logits))

    return jax.jvp(field, (jnp.zeros_like(mode),), (mode,))[1]


def _growth(
    mode: Callable[[Data], np.ndarray], rates: Sequence[float], pulls: Sequence[tuple[float, float]], common: bool
) -> Callable[[Data], np.ndarray]:
    """Rate times mode by the closed forms, once autodiff of the objectives has confirmed it."""

    def code(d: Data) -> np.ndarray:
        v = jnp.asarray(mode(d))
        for rate, (full, frozen) in zip(rates, pulls, strict=True):
            moved = _moved(v, jnp.asarray(full), jnp.asarray(frozen))
            if not np.allclose(moved, rate * v, rtol=0, atol=1e-12):
                raise AssertionError(f"autodiff of the objectives moves the mode by {moved}, not {rate} times {v}")
        # Free indices in the order of their names; a common mode has no t.
        return np.asarray(rates[0] * (v[0] if common else v.T))

    return code


_L, _R, _P = COEFFICIENTS["lambda_intra"], COEFFICIENTS["lambda_inter"], COEFFICIENTS["alpha_c"]
EITHER = ((_P, 0.0), (0.0, _P))
"""The full load alone, the frozen one alone."""
RATE_WITHIN = 2 * INTRA / N**2
RATE_BETWEEN = 2 * (INTRA - S * INTER) / N**2


def _rate(
    mode: Mode,
    rate: sp.Expr,
    assumptions: Sequence[Assumption],
    wrong: sp.Expr,
    numbers: Callable[[Data], np.ndarray],
    rates: Sequence[float],
) -> Finding:
    """The mode is an eigenvector of the linearised field with this rate. `rates`: by full and by frozen load."""
    return identity(
        linearised(_slope, mode),
        rate * mode(t, e),
        assumptions=assumptions,
        variants={"the load where there is none, or its absence": wrong * mode(t, e)},
        code=_growth(numbers, rates, EITHER, not mode(t, e).has(t)),
        sample=_sample,
        sizes=SIZES,
        indicators=(B,),
    )


def _contrast_within(effort: Effort) -> Iterator[Finding]:
    yield _rate(
        lambda token, j: a[token] * b[j],
        RATE_WITHIN,
        (EQUAL_GROUPS, CONTRAST, WITHIN),
        RATE_WITHIN - PULL / N,
        lambda d: np.outer(d["a"], d["b"]),
        [float(dynamics.contrast_within(_L, 6))] * 2,
    )


def _contrast_between(effort: Effort) -> Iterator[Finding]:
    yield _rate(
        lambda token, j: a[token] * BETWEEN_GROUPS.xreplace({e: j}),
        RATE_BETWEEN,
        (EQUAL_GROUPS, CONTRAST, BETWEEN),
        RATE_BETWEEN - PULL / N,
        lambda d: np.outer(d["a"], d["gamma"] @ d["B"]),
        [float(dynamics.contrast_between(_L, _R, 6, 2))] * 2,
    )


def _common_within(effort: Effort) -> Iterator[Finding]:
    yield _rate(
        lambda _, j: b[j],
        RATE_WITHIN - PULL / N,
        (EQUAL_GROUPS, WITHIN),
        RATE_WITHIN,
        lambda d: np.tile(d["b"], (3, 1)),
        [
            float(dynamics.common_within_full(_L, _P / 2, 6)),
            float(dynamics.common_within_frozen(_L, _P, 6)),
        ],
    )


def _common_between(effort: Effort) -> Iterator[Finding]:
    yield _rate(
        lambda _, j: BETWEEN_GROUPS.xreplace({e: j}),
        RATE_BETWEEN - PULL / N,
        (EQUAL_GROUPS, BETWEEN),
        RATE_BETWEEN,
        lambda d: np.tile(d["gamma"] @ d["B"], (3, 1)),
        [
            float(dynamics.common_between_full(_L, _R, _P / 2, 6, 2)),
            float(dynamics.common_between_frozen(_L, _R, _P, 6, 2)),
        ],
    )


FLOW = r"\dot s = -T\,\partial L/\partial s"
EQUAL_WORDS = ("equal groups of S experts", "exactly uniform routing, to first order", f"gradient flow ${FLOW}$")
HARD_REMARK = (
    "For the soft load, full or frozen; hard counts answer differently. For unequal groups uniform routing is no fixed "
    "point of the inter-group term."
)


def _rate_claim(name: str, rate: str, words: str, check: Callable[[Effort], Iterator[Finding]], *functions) -> Claim:
    return Claim(
        id=f"growth/{name}",
        statement=rate,
        words=words,
        source="[himoe-theory] D1",
        recorded=Verdict.PROVED,
        check=check,
        assumptions=EQUAL_WORDS,
        functions=(intra_group_global, inter_group_dense, p_squared, load_frozen_grad, *functions),
        remark=HARD_REMARK,
    )


RATES = (
    _rate_claim(
        "contrast-within",
        r"2\lambda_{intra}/N^2",
        "Contrasts between tokens within groups grow at a rate that neither the load nor the inter-group term changes.",
        _contrast_within,
        dynamics.contrast_within,
    ),
    _rate_claim(
        "contrast-between",
        r"2(\lambda_{intra} - S\lambda_{inter})/N^2",
        "Contrasts between tokens between groups are slowed by S times the weight of the inter-group term.",
        _contrast_between,
        dynamics.contrast_between,
    ),
    _rate_claim(
        "common-within",
        r"2\lambda_{intra}/N^2 - c\alpha/N, \quad c = 2 \text{ (full)}, 1 \text{ (frozen)}",
        "What all tokens share within groups is slowed by the load, the frozen one half as much as the full one.",
        _common_within,
        dynamics.common_within_full,
        dynamics.common_within_frozen,
    ),
    _rate_claim(
        "common-between",
        r"2(\lambda_{intra} - S\lambda_{inter})/N^2 - c\alpha/N",
        "What all tokens share between groups is slowed by the load and by the inter-group term.",
        _common_between,
        dynamics.common_between_full,
        dynamics.common_between_frozen,
    ),
)


def _tangent(effort: Effort) -> Iterator[Finding]:
    path = sp.exp(EPS * b[e]) / total(sp.exp(EPS * b[i]), i)

    def code(d: Data) -> Array:
        v = jnp.asarray(d["b"])[None]
        return jax.jvp(Softmax().value, (jnp.zeros_like(v),), (v,))[1][0]

    yield identity(
        sp.diff(path, EPS).subs(EPS, 0),
        (b[e] - total(b[i], i) / N) / N,
        variants={"not normalised": b[e] / N},
        code=code,
        sample=_sample,
        sizes=SIZES,
    )


TANGENT = Claim(
    id="growth/softmax-tangent",
    statement=r"\partial_\varepsilon\, \mathrm{softmax}(\varepsilon v)_e \big|_0 = (v_e - \bar v)/N",
    words="Near uniform routing a probability moves by the logit's deviation from the mean, divided by N.",
    source="[himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_tangent,
    functions=(Softmax.value,),
)

CLAIMS = (TANGENT, *RATES)
