"""Claims about the logit gradients of per-token objectives: the softmax, Hi-MoE's terms, entropies, z, variance."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import KroneckerDelta

from himoe_theory import Softmax
from himoe_theory._numerics import masked_softmax
from himoe_theory.objectives import entropy, inter_group, intra_group, variance, z
from himoe_theory.objectives._softmax import pull_back

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import ONE_GROUP, B, M, N, T, c, e, g, h, j, k, p, s, t
from ..sums import total
from ..symbolic import identity
from ._gradients import NORMALISED, gradient_claim, i, mean, n, q, routed, u, v, w

CONSTANT = "the selection is a constant"


def _jacobian(effort: Effort) -> Iterator[Finding]:
    weight = sp.exp(s[t, e]) / total(sp.exp(s[t, j]), j)
    other = sp.exp(s[t, k]) / total(sp.exp(s[t, j]), j)

    def pulled(d: dict[str, np.ndarray]) -> jax.Array:
        probs = Softmax().value(jnp.asarray(d["s"]))
        units = jnp.eye(probs.shape[1])
        return jnp.stack([pull_back(probs, jnp.broadcast_to(unit, probs.shape)).T for unit in units])

    yield identity(
        sp.diff(weight, s[t, k]),
        weight * (KroneckerDelta(e, k) - other),
        variants={"normaliser forgotten": weight * KroneckerDelta(e, k)},
        code=pulled,
        more_code=[(weight, lambda d: Softmax().value(jnp.asarray(d["s"])).T)],
    )


def _masked_jacobian(effort: Effort) -> Iterator[Finding]:
    weight = c[t, e] * sp.exp(s[t, e]) / total(c[t, j] * sp.exp(s[t, j]), j)
    other = c[t, k] * sp.exp(s[t, k]) / total(c[t, j] * sp.exp(s[t, j]), j)

    def code(d: dict[str, np.ndarray]) -> jax.Array:
        return masked_softmax(jnp.asarray(d["s"]), jnp.asarray(d["c"] > 0)).T

    yield identity(
        sp.diff(weight, s[t, k]),
        weight * (KroneckerDelta(e, k) - other),
        variants={"mask of the other expert forgotten": weight * (KroneckerDelta(e, k) - other / c[t, k])},
        more_code=[(weight, code)],
        sample=lambda rng: routed(rng) | {"c": np.tile([1.0, 1.0, 0.0, 1.0, 1.0], (3, 1))},
    )


JACOBIAN = Claim(
    id="gradient/softmax-jacobian",
    statement=r"\partial \pi_e / \partial s_k = \pi_e (\delta_{ek} - \pi_k)",
    words="The Jacobian of the softmax.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_jacobian,
    functions=(Softmax.value, pull_back),
)
MASKED_JACOBIAN = Claim(
    id="gradient/masked-softmax-jacobian",
    statement=r"w_e = \frac{c_e e^{s_e}}{\sum_j c_j e^{s_j}} \;\Rightarrow\; "
    r"\partial w_e / \partial s_k = w_e (\delta_{ek} - w_k)",
    words="Over a selection, and inside a group, the softmax has the same Jacobian in its own weights.",
    source="[himoe-theory] D4",
    recorded=Verdict.PROVED,
    check=_masked_jacobian,
    assumptions=(CONSTANT,),
    functions=(masked_softmax,),
    remark="With the experts of a group for selection, w is the conditional distribution inside the group.",
)


def _squares(token: sp.Idx) -> sp.Expr:
    return total(p[token, i] ** 2, i)


def _mass(token: sp.Idx, group: sp.Idx) -> sp.Expr:
    return total(B[group, i] * p[token, i], i)


def _kept_mass(token: sp.Idx, group: sp.Idx) -> sp.Expr:
    return total(B[group, i] * c[token, i] * p[token, i], i)


def _purity(token: sp.Idx, group: sp.Idx) -> sp.Expr:
    return total(B[group, i] * q[token, i] ** 2, i)


_INTRA = -mean(_squares(u))
_INTRA_CLOSED = -2 / T * p[t, e] * (p[t, e] - _squares(t))
_CONDITIONAL = -mean(total(_purity(u, g), g)) / M
_CONDITIONAL_CLOSED = -2 / (T * M) * q[t, e] * (q[t, e] - total(B[g, e] * _purity(t, g), g))
_GLOBAL = {
    "statement": r"\partial(-\|\pi\|^2)/\partial s_e = -2 \pi_e (\pi_e - \|\pi\|^2)",
    "functions": (intra_group.intra_group_global, intra_group.intra_group_global_grad),
}
_INSIDE = {
    "statement": r"\partial(-\tfrac1M \sum_g \|q_g\|^2)/\partial s_e = -\tfrac2M q_e (q_e - \|q_{g(e)}\|^2)",
    "functions": (intra_group.intra_group_conditional, intra_group.intra_group_conditional_grad),
    "probs": q,
    "assumptions": (ONE_GROUP,),
    "variants": {"purities of all groups together": -2 / (T * M) * q[t, e] * (q[t, e] - total(_purity(t, g), g))},
}
_BIASED = "In the bias-corrected logits; the raw logits take a further factor 1/Temp, which is a claim of its own."

INTRA = (
    gradient_claim(
        "intra_group_global",
        _INTRA,
        _INTRA_CLOSED,
        words="Each expert's probability against the squared norm.",
        source="[himoe] eq. (7)",
        **_GLOBAL,
    ),
    gradient_claim(
        "intra_group_global_selection",
        _INTRA,
        _INTRA_CLOSED,
        words="The same on the probabilities that selection uses.",
        source="[himoe-code] eq. (7), source `selection`",
        remark=_BIASED,
        **_GLOBAL,
    ),
    gradient_claim(
        "intra_group_conditional",
        _CONDITIONAL,
        _CONDITIONAL_CLOSED,
        words="Inside each group alone: groups do not see each other.",
        source="[himoe-code] mode `group_conditional`",
        **_INSIDE,
    ),
    gradient_claim(
        "intra_group_conditional_selection",
        _CONDITIONAL,
        _CONDITIONAL_CLOSED,
        words="The same on the probabilities that selection uses.",
        source="[himoe-code] mode `group_conditional`, source `selection`",
        remark=_BIASED,
        **_INSIDE,
    ),
)

INTER = (
    gradient_claim(
        "inter_group_dense",
        mean(total(_mass(u, g) ** 2, g)),
        2 / T * p[t, e] * (total(B[g, e] * _mass(t, g), g) - total(_mass(t, h) ** 2, h)),
        statement=r"\partial(\sum_g m_g^2)/\partial s_e = 2 \pi_e (m_{g(e)} - \sum_h m_h^2)",
        words="Each group's mass against the sum of squared masses, the same per probability within a group.",
        source="[himoe-code] mode `dense_group_mass`",
        functions=(inter_group.inter_group_dense, inter_group.inter_group_dense_grad),
    ),
    gradient_claim(
        "inter_group_sparse",
        mean(total(_kept_mass(u, g) ** 2, g)),
        2 / T * p[t, e] * (c[t, e] * total(B[g, e] * _kept_mass(t, g), g) - total(_kept_mass(t, h) ** 2, h)),
        statement=r"\partial(\sum_g \tilde m_g^2)/\partial s_e = "
        r"2 \pi_e (1_{sel} \tilde m_{g(e)} - \sum_h \tilde m_h^2)",
        words="As for dense masses, on the selected experts' part; experts that are not selected are pushed up.",
        source="[himoe-code] mode `sparse_group_mass`",
        said=CONSTANT,
        functions=(inter_group.inter_group_sparse, inter_group.inter_group_sparse_grad),
        variants={
            "indicator of the selection left out": 2
            / T
            * p[t, e]
            * (total(B[g, e] * _kept_mass(t, g), g) - total(_kept_mass(t, h) ** 2, h))
        },
        remark=_BIASED,
    ),
    gradient_claim(
        "inter_group_selected",
        mean(total(c[u, i] * p[u, i] ** 2, i)),
        2 / T * p[t, e] * (c[t, e] * p[t, e] - total(c[t, i] * p[t, i] ** 2, i)),
        statement=r"\partial \|\tilde\pi\|^2/\partial s_e = 2 \pi_e (1_{sel} \pi_e - \|\tilde\pi\|^2)",
        words="Selected experts are pushed down where they exceed the squared norm, the others up.",
        source="[himoe] eq. (6)",
        said=CONSTANT,
        functions=(inter_group.inter_group_selected, inter_group.inter_group_selected_grad),
        variants={
            "indicator of the selection left out": 2 / T * p[t, e] * (p[t, e] - total(c[t, i] * p[t, i] ** 2, i))
        },
        remark=_BIASED,
    ),
)

ENTROPIES = (
    gradient_claim(
        "token_entropy",
        -mean(total(p[u, i] * sp.log(p[u, i]), i)),
        -p[t, e] * (sp.log(p[t, e]) - total(p[t, n] * sp.log(p[t, n]), n)) / T,
        statement=r"\partial H(\pi)/\partial s_e = -\pi_e (\ln \pi_e + H(\pi))",
        words="The gradient of a token's entropy.",
        source="[himoe-code] mode `shannon`",
        assumptions=(NORMALISED,),
        functions=(entropy.token_entropy, entropy.token_entropy_grad),
        remark="Stated without the released 1e-10 inside the logarithm.",
    ),
    gradient_claim(
        "group_neg_entropy",
        mean(total(_mass(u, g) * sp.log(_mass(u, g)), g)),
        p[t, e] * (total(B[g, e] * sp.log(_mass(t, g)), g) - total(_mass(t, h) * sp.log(_mass(t, h)), h)) / T,
        statement=r"\partial(-H(m))/\partial s_e = \pi_e (\ln m_{g(e)} + H(m))",
        words="The gradient of the negative entropy of a token's group masses.",
        source="[himoe-code] mode `shannon`",
        assumptions=(ONE_GROUP, NORMALISED),
        functions=(entropy.group_neg_entropy, entropy.group_neg_entropy_grad),
        remark="Stated without the released 1e-10 inside the logarithm.",
    ),
)

_LSE = sp.log(total(sp.exp(s[u, i]), i))
_Z_CLOSED = sp.log(total(sp.exp(s[t, i]), i)) * sp.exp(s[t, e]) / total(sp.exp(s[t, i]), i)

Z = gradient_claim(
    "z",
    mean(_LSE**2),
    2 / T * _Z_CLOSED,
    slopes=sp.diff(mean(_LSE**2), s[t, e]),
    in_logits=True,
    statement=r"\partial (\mathrm{logsumexp}\, s)^2/\partial s_e = 2\, \mathrm{logsumexp}(s)\, \pi_e",
    words="The z-loss pushes all logits of a token the same way, in proportion to their probabilities.",
    source="[st-moe] eq. (5)",
    functions=(z.z_loss, z.z_loss_grad),
    variants={"factor 2 lost": _Z_CLOSED / T},
)


def _deviation(expert: sp.Idx) -> sp.Expr:
    return w[t, expert] - total(w[u, expert], u) / T


_ACROSS_TOKENS = -2 / N * w[t, e] * (_deviation(e) - total(w[t, n] * _deviation(n), n))

VARIANCE = (
    gradient_claim(
        "variance_across_tokens",
        -total((w[u, i] - total(w[v, i], v) / T) ** 2, u, i) / N,
        _ACROSS_TOKENS,
        probs=w,
        statement=r"\partial L_v/\partial s_{te} = -\tfrac2N w_{te} \big(w_{te} - \bar w_e - "
        r"\sum_j w_{tj}(w_{tj} - \bar w_j)\big)",
        words="Each weight's deviation from the token mean, pulled back through the softmax over the selection.",
        source="[guo] eq. (5)",
        said=CONSTANT,
        functions=(variance.variance_across_tokens, variance.variance_across_tokens_grad),
        variants={"factor (T-1)/T": (T - 1) / T * _ACROSS_TOKENS},
        remark="The factor (T-1)/T printed in [guo] eqs. (9, 10) is one of the false variants: deviations from a mean "
        "sum to zero.",
    ),
    gradient_claim(
        "variance_across_experts",
        -mean(total((p[u, i] - 1 / N) ** 2, i)) / (N - 1),
        -2 / (T * (N - 1)) * p[t, e] * (p[t, e] - _squares(t)),
        statement=r"\partial L_v/\partial s_e = -\tfrac{2}{N-1} \pi_e (\pi_e - \|\pi\|^2)",
        words="The gradient of Hi-MoE's global intra-group term, divided by N - 1.",
        source="[guo-code] L_v",
        assumptions=(NORMALISED,),
        functions=(variance.variance_across_experts, variance.variance_across_experts_grad),
    ),
)

CLAIMS = (JACOBIAN, MASKED_JACOBIAN, *INTRA, *INTER, *ENTROPIES, Z, *VARIANCE)
