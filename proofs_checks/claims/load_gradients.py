"""Claims about the logit gradients of load objectives, which see a whole batch. Counts are constants of the batch."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import sympy as sp
from sympy import IndexedBase

from himoe_theory import objectives
from himoe_theory.objectives import importance

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import SIZES, N, T, c, e, generic, p, s, t
from ..sums import Data, evaluate, total
from ..symbolic import equation, identity
from ._gradients import NORMALISED, K, derivative, first, gradient_claim, i, n, routed, u, v, w

_COUNTS = "counts are constants"
f = IndexedBase("f", nonnegative=True)
"""A share h that is held constant while P is differentiated, and then set to P."""


def _mean_of(base: IndexedBase, expert: sp.Idx) -> sp.Expr:
    return total(base[u, expert], u) / T


def _load(share: sp.Expr, probs: IndexedBase = p) -> sp.Expr:
    """N sum_i h_i P_i; `share` is h_i."""
    return N * total(share * total(probs[v, i], v) / T, i)


def _load_closed(share: sp.Expr, probs: IndexedBase = p) -> sp.Expr:
    return N / T * probs[t, e] * (share.xreplace({i: e}) - total(share.xreplace({i: n}) * probs[t, n], n))


_HARD = r"\partial(N \sum_e h_e P_e)/\partial s_{te} = \tfrac NT \pi_{te} (h_e - \langle h, \pi_t \rangle)"
_SHARE = _mean_of(c, i) / K
_THROUGH = {"gradient through h as well": derivative(_load(_mean_of(p, i)))}

HARD = (
    gradient_claim(
        "load",
        _load(_SHARE),
        _load_closed(_SHARE),
        statement=_HARD + r",\; h_e = n_e/(TK)",
        words="Each expert's share against the token's expected share.",
        source="[switch] eq. (4)",
        said=_COUNTS,
        functions=(objectives.load, objectives.load_grad),
        variants=_THROUGH,
    ),
    gradient_claim(
        "load_per_token",
        _load(K * _SHARE),
        _load_closed(K * _SHARE),
        statement=_HARD + r",\; h_e = n_e/T",
        words="The same with counts divided by tokens alone.",
        source="[himoe-code] grouped routers",
        said=_COUNTS,
        functions=(objectives.load_per_token, objectives.load_per_token_grad),
        variants={**_THROUGH, "counts over TK": _load_closed(_SHARE)},
    ),
    gradient_claim(
        "load_selected_weights",
        _load(_SHARE, w),
        _load_closed(_SHARE, w),
        probs=w,
        statement=r"\partial(N \sum_e h_e \bar w_e)/\partial s_{te} = \tfrac NT w_{te} (h_e - \langle h, w_t \rangle)",
        words="The same in the weights renormalised over the selection: nothing reaches experts outside it.",
        source="[himoe-code] flat router",
        said=_COUNTS,
        functions=(objectives.load_selected_weights, objectives.load_selected_weights_grad),
        variants={"probabilities instead of weights": _load_closed(_SHARE)},
    ),
    gradient_claim(
        "load_first_choice",
        _load(_mean_of(first, i)),
        _load_closed(_mean_of(first, i)),
        statement=_HARD + r",\; h_e = \tfrac1T \#\{t : e \text{ is first}\}",
        words="The same where first choices alone count.",
        source="[st-moe] load loss",
        said=_COUNTS,
        functions=(objectives.load_first_choice, objectives.load_first_choice_grad),
        variants={**_THROUGH, "all choices counted": _load_closed(_SHARE)},
    ),
)


def _held(expr: sp.Expr) -> sp.Expr:
    """The share, once P has been differentiated, is P."""
    return expr.replace(lambda x: isinstance(x, sp.Indexed) and x.base == f, lambda x: _mean_of(p, x.indices[0]))


_FULL = _load(_mean_of(p, i))
SOFT = (
    gradient_claim(
        "load_frozen",
        _FULL,
        _load_closed(_mean_of(p, i)),
        slopes=_held(derivative(_load(f[i]))),
        statement=r"\partial(N \sum_e \mathrm{sg}(P_e) P_e)/\partial s_{te} = "
        r"\tfrac NT \pi_{te} (P_e - \langle P, \pi_t \rangle)",
        words="Soft load with the share held: the hard form with P for h.",
        source="[himoe-theory] D1",
        functions=(objectives.load_frozen, objectives.load_frozen_grad),
        variants=_THROUGH,
    ),
    gradient_claim(
        "p_squared",
        _FULL,
        2 * _load_closed(_mean_of(p, i)),
        statement=r"\partial(N \sum_e P_e^2)/\partial s_{te} = \tfrac{2N}{T} \pi_{te} (P_e - \langle P, \pi_t \rangle)",
        words="Through both factors: exactly twice the frozen gradient, for every batch.",
        source="[dsc] E sum P^2",
        functions=(objectives.p_squared, objectives.p_squared_grad),
        variants={"the share held": _load_closed(_mean_of(p, i))},
    ),
    gradient_claim(
        "load_entropy",
        total(_mean_of(p, i) * sp.log(_mean_of(p, i)), i),
        _load_closed(sp.log(_mean_of(p, i))) / N,
        statement=r"\partial(\sum_e P_e \ln P_e)/\partial s_{te} = "
        r"\tfrac1T \pi_{te} (\ln P_e - \sum_j \pi_{tj} \ln P_j)",
        words="The logarithm of P in place of the share.",
        source="[libmoe] entropy form",
        assumptions=(NORMALISED,),
        functions=(objectives.load_entropy, objectives.load_entropy_grad),
        variants={"P in place of its logarithm": _load_closed(_mean_of(p, i)) / N},
    ),
)


a = IndexedBase("a", real=True)
"""Slopes of CV^2 in the amounts, held while the amounts are differentiated (the chain rule)."""
amount = IndexedBase("amount", positive=True)
_SQUARE, _WHOLE = total(amount[n] ** 2, n), total(amount[n], n)
_CV_SQUARED = N * _SQUARE / _WHOLE**2 - 1
_SLOPE = 2 * N / _WHOLE**2 * (amount[e] - _SQUARE / _WHOLE)


def _with_amounts(d: dict[str, np.ndarray], amounts: np.ndarray) -> dict[str, np.ndarray]:
    """The data with these amounts and, by the closed form that is proved first, the slopes of their CV^2."""
    data = {"amount": amounts}
    return d | data | {"a": evaluate(_SLOPE, data, SIZES)}


def _through_cv(slope: sp.Expr, closed: sp.Expr, **more: object) -> Iterator[Finding]:
    """Gradient of the CV^2 of amounts: first in the amounts, then the amounts' own (`slope`, with `a` held)."""
    yield identity(
        sp.diff(_CV_SQUARED.xreplace({e: i}), amount[e]),
        _SLOPE,
        variants={"sum of amounts held constant": 2 * N / _WHOLE**2 * amount[e]},
        sample=lambda rng: {"amount": rng.uniform(1, 2, 5)},
        more_code=[(_CV_SQUARED, lambda d: importance.cv_squared(jnp.asarray(d["amount"])))],
    )
    yield identity(slope, closed, **more)


def _importance(effort: Effort) -> Iterator[Finding]:
    def sample(rng: np.random.Generator) -> dict[str, np.ndarray]:
        d = routed(rng)
        return _with_amounts(d, d["w"].sum(axis=0))

    def arguments(d: Data) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(np.log(d["p"])), jnp.asarray(d["c"] > 0)

    importances = total(w[u, i], u)
    yield from _through_cv(
        derivative(total(a[i] * importances, i), w),
        w[t, e] * (a[e] - total(a[n] * w[t, n], n)),
        variants={"normaliser forgotten": w[t, e] * a[e]},
        code=lambda d: importance.importance_cv_squared_grad(*arguments(d)).T,
        more_code=[(_CV_SQUARED, lambda d: importance.importance_cv_squared(*arguments(d)))],
        sample=sample,
    )


R = IndexedBase("R", nonnegative=True)
"""R[t, e, j] is 1 where the threshold of expert e on token t is the noisy logit of expert j."""
noise = IndexedBase("noise", real=True)
b = IndexedBase("b", real=True)
"""Slopes of CV^2 in the scores z, held while z is differentiated."""
x, sigma = sp.Symbol("x", real=True), sp.Symbol("sigma", positive=True)
_RANK, _SPREAD = 2, 0.7
_SCORE = (s[u, i] - total(R[u, i, n] * (s[u, n] + noise[u, n]), n)) / sigma


def _with_thresholds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    d = generic(rng)
    d |= {"noise": rng.normal(size=d["s"].shape), "sigma": np.asarray(_SPREAD)}
    noisy = d["s"] + d["noise"]
    d["R"] = np.zeros((*noisy.shape, noisy.shape[1]))
    for token, row in enumerate(noisy):
        for expert in range(row.size):
            others = [j for j in np.argsort(-row) if j != expert]
            d["R"][token, expert, others[_RANK - 1]] = 1.0
    z = evaluate(_SCORE, d, SIZES).T
    d = _with_amounts(d, scipy.stats.norm.cdf(z).sum(axis=0))
    return d | {"b": scipy.stats.norm.pdf(z) * d["a"]}


def _smooth_load(effort: Effort) -> Iterator[Finding]:
    yield equation(
        sp.diff((1 + sp.erf(x / sp.sqrt(2))) / 2, x),
        sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi),
        why="The normal distribution's derivative is its density, so that b = density times a.",
    )

    def arguments(d: Data) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray(d["s"]), jnp.asarray(d["noise"])

    yield from _through_cv(
        sp.diff(total(b[u, i] * _SCORE, u, i), s[t, e]),
        (b[t, e] - total(R[t, i, e] * b[t, i], i)) / sigma,
        variants={"threshold held constant": b[t, e] / sigma},
        code=lambda d: importance.load_cv_squared_grad(*arguments(d), k=_RANK, noise_std=_SPREAD).T,
        more_code=[(_CV_SQUARED, lambda d: importance.load_cv_squared(*arguments(d), k=_RANK, noise_std=_SPREAD))],
        sample=_with_thresholds,
    )


_SLOPES = r"a_e = \tfrac{2N}{A^2} (I_e - \|I\|^2/A),\; A = \textstyle\sum_e I_e"
CV_SQUARED = (
    Claim(
        id="gradient/importance_cv_squared",
        statement=r"\partial \mathrm{CV}^2(I)/\partial s_{te} = w_{te} (a_e - \langle a, w_t \rangle),\; " + _SLOPES,
        words="Importance above its weighted mean is pushed down, through the softmax over the selection.",
        source="[shazeer] eqs. (6, 7)",
        recorded=Verdict.PROVED,
        check=_importance,
        assumptions=("the selection is a constant",),
        functions=(importance.importance_cv_squared, importance.importance_cv_squared_grad),
    ),
    Claim(
        id="gradient/load_cv_squared",
        statement=r"\partial \mathrm{CV}^2(I)/\partial s_{te} = "
        r"\tfrac1\sigma \big( b_{te} - \textstyle\sum_{j} R_{tje} b_{tj} \big),\; "
        r"b_{te} = \varphi\big(\tfrac{s_{te} - \theta_{te}}{\sigma}\big) a_e,\; " + _SLOPES,
        words="Each expert's own push, less the pushes of the experts whose threshold its logit is (R marks them).",
        source="[shazeer] eqs. (8-11)",
        recorded=Verdict.PROVED,
        check=_smooth_load,
        assumptions=("which expert sets a threshold does not change", "noise is a constant"),
        functions=(importance.load_cv_squared, importance.load_cv_squared_grad),
        remark=r"I is the smooth load $\sum_t \Phi((s_{te} - \theta_{te})/\sigma)$.",
    ),
)

CLAIMS = (*HARD, *SOFT, *CV_SQUARED)
