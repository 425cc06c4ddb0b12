r"""Claims about when the load loss and the variance objectives of Guo et al. pull against each other."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import Expr, IndexedBase, KroneckerDelta

from himoe_theory import geometry
from himoe_theory.objectives import (
    load_frozen_grad,
    load_grad,
    variance_across_experts_grad,
    variance_across_tokens_grad,
)

from ..ledger import Claim, Correction, Effort, Finding, Verdict, about
from ..notation import Assumption, N, T, Values, e, p, t, t1
from ..sums import Data, Rule, total
from ..symbolic import identity
from ..witnesses import witness
from .dynamics_growth import linearised, u

v = IndexedBase("v", real=True)
SHIFTED = Assumption(
    "the logits of a token sum to 0",
    (Rule(e, v[t, e], sp.S.Zero),),
    lambda d: d | {"v": d["v"] - d["v"].mean(axis=1, keepdims=True)},
)


def _field(slope: Callable[[sp.Idx], Expr]) -> Expr:
    """Minus the logit gradient, to first order at uniform routing along v; `slope` is the derivative in p[t, j]."""
    return linearised(lambda token, j: slope(j), lambda token, j: v[token, j])


def _moved(of: Callable[[Array], Array]) -> Callable[[Data], np.ndarray]:
    """Minus what himoe_theory's gradient becomes to first order, over experts and tokens."""
    compute = jax.jit(lambda s: -jax.jvp(of, (jnp.zeros_like(s),), (s,))[1].T)
    return lambda d: np.asarray(compute(jnp.asarray(d["v"])))


def _sample(rng: np.random.Generator) -> Values:
    return {"v": rng.normal(size=(3, 5))}


def _load_moves() -> Finding:
    return about(
        "the load to first order",
        identity(
            _field(lambda j: N * total(p[u, j], u) / T**2),
            -total(v[u, e], u) / (N * T**2) * total(KroneckerDelta(t, t1), t1),  # the same for every token
            assumptions=(SHIFTED,),
            variants={"every token for itself": -v[t, e] / (N * T)},
            sample=_sample,
            code=_moved(load_frozen_grad),
        ),
    )


def _near_uniform(effort: Effort) -> Iterator[Finding]:
    yield _load_moves()
    found = identity(
        _field(lambda j: -2 * p[t, j] / (T * (N - 1))),
        2 * v[t, e] / (T * N**2 * (N - 1)),
        assumptions=(SHIFTED,),
        sample=_sample,
        code=_moved(variance_across_experts_grad),
    )
    yield about("the variance objective to first order", found)
    shared = total(v[u, e], u) / T
    found = identity(
        total(shared * v[t, e], t, e),
        T * total(shared**2, e),
        variants={"every deviation counts": total(v[t, e] ** 2, t, e)},
        sample=_sample,
    )
    yield about("their inner product", found)


def _inner(rows: Sequence[Sequence[Fraction]], share: Sequence[Fraction]) -> Fraction:
    """Inner product of the logit gradients of the load with this share and of the code's variance objective."""
    tokens, experts = len(rows), len(rows[0])
    found = Fraction(0)
    for row in rows:
        mean, norm = sum(x * y for x, y in zip(share, row, strict=True)), sum(x * x for x in row)
        load = [Fraction(experts, tokens) * x * (h - mean) for x, h in zip(row, share, strict=True)]
        variance = [-Fraction(2, tokens * (experts - 1)) * x * (x - norm) for x in row]
        found += sum(x * y for x, y in zip(load, variance, strict=True))
    return found


def _meet(where: str, firsts: Sequence[str], other: Sequence[str], *, hard: bool) -> Finding:
    """Two experts; `firsts` are the tokens' probabilities of the first, `other` those of tokens that do oppose."""

    def exact(chosen: Sequence[str]) -> tuple[list[list[Fraction]], list[Fraction]]:
        rows = [[Fraction(x), 1 - Fraction(x)] for x in chosen]
        counted = [[Fraction(int(x == max(row))) for x in row] if hard else row for row in rows]
        return rows, [sum(column) / len(rows) for column in zip(*counted, strict=True)]

    rows, share = exact(firsts)
    logits = jnp.log(jnp.asarray([[float(x) for x in row] for row in rows]))

    def computed(s: Array) -> Array:
        best = jax.nn.one_hot(s.argmax(axis=1), 2, dtype=bool)
        load = load_grad(s, best) if hard else load_frozen_grad(s)
        return geometry.euclidean_inner(load, variance_across_experts_grad(s)).sum()

    left = _inner(rows, share)
    holds = {f"first probabilities {', '.join(other)}": (_inner(*exact(other)), 0)}
    return witness(where, left, "<=", 0, holds_at=holds, code=[(jax.jit(computed)(logits), left)])


def _everywhere(effort: Effort) -> Iterator[Finding]:
    where = (
        "2 experts, 3 tokens with probabilities (99/100, 1/100) twice and (2/5, 3/5): inner product of the logit "
        "gradients of the soft load and of the code's L_v"
    )
    yield _meet(where, ("99/100", "99/100", "2/5"), ("3/5", "3/5", "1/2"), hard=False)


AGAINST = Claim(
    id="guo/load-against-variance",
    statement=r"\langle \nabla_s L_{\mathrm{aux}}, \nabla_s L_v^{\mathrm{code}} \rangle \le 0",
    words="The load loss and the variance objective of the released code pull against each other.",
    source="[himoe-theory], about [guo-code]",
    recorded=Verdict.CORRECTED,
    check=_everywhere,
    functions=(load_frozen_grad, variance_across_experts_grad, geometry.euclidean_inner),
    correction=Correction(
        r"s = \varepsilon v: \quad \langle \nabla_s L_{\mathrm{aux}}, \nabla_s L_v^{\mathrm{code}} \rangle = "
        r"-\frac{2\varepsilon^2}{T N^3 (N-1)} \sum_e \bar v_e^2 + O(\varepsilon^3)",
        "Near uniform routing they do, by the square of what all tokens share, and are orthogonal on contrasts between "
        "tokens. The load is soft, its share held; through the share as well it is twice that.",
        _near_uniform,
    ),
    remark="Further out they agree on a token that moves to the expert that is used less, and the tokens that sit on "
    "the busy one have hardly any gradient left.",
)


def _hard_counts(effort: Effort) -> Iterator[Finding]:
    for near, far in (("51/100", "9/20"), ("5001/10000", "999/2000")):
        where = (
            f"2 experts, 3 tokens with first probability {near} twice and {far}, counted for their best expert: inner "
            "product of the logit gradients of the load and of the code's L_v"
        )
        yield _meet(where, (near, near, far), (near, near, "1/2"), hard=True)


HARD = Claim(
    id="guo/load-against-variance-hard",
    statement=r"\langle \nabla_s L_{\mathrm{aux}}, \nabla_s L_v^{\mathrm{code}} \rangle \le 0 \text{ near uniform "
    r"routing, } h \text{ hard counts}",
    words="With hard counts, as both papers use, the two oppose each other at least near uniform routing.",
    source="[himoe-theory], about [guo-code]",
    recorded=Verdict.REFUTED,
    check=_hard_counts,
    functions=(load_grad, variance_across_experts_grad, geometry.euclidean_inner),
    remark="The product shrinks with the distance from uniform and keeps its sign. Counts and mean probabilities may "
    "lean to different experts however near routing is to uniform: many slight preferences for one, a few stronger "
    "ones for the other. The notes of this package say that they oppose, which holds for the soft load.",
)


def _printed_form(effort: Effort) -> Iterator[Finding]:
    yield _load_moves()
    everything = np.ones((3, 5), dtype=bool)
    field = _field(lambda j: -2 * (p[t, j] - total(p[u, j], u) / T) / N)
    moved = _moved(lambda s: variance_across_tokens_grad(s, jnp.asarray(everything)))
    found = identity(
        field,
        2 * (v[t, e] - total(v[u, e], u) / T) / N**3,
        assumptions=(SHIFTED,),
        sample=_sample,
        code=moved,
    )
    yield about("the variance objective to first order", found)
    found = identity(
        total(v[t, e] - total(v[u, e], u) / T, t),
        sp.S.Zero,
        variants={"deviations not from the mean": total(v[t, e], t)},
        sample=_sample,
    )
    yield about("it sums to 0 over tokens, while the load is the same for all", found)


PRINTED = Claim(
    id="guo/load-and-printed-variance",
    statement=r"s = \varepsilon v: \quad \langle \nabla_s L_{\mathrm{aux}}, \nabla_s L_v \rangle = O(\varepsilon^3)",
    words="The variance objective as printed, across tokens, is orthogonal to the soft load near uniform routing: it "
    "moves contrasts between tokens alone, the load what they share.",
    source="[himoe-theory], about [guo] eq. (5)",
    recorded=Verdict.PROVED,
    check=_printed_form,
    assumptions=("every expert is selected",),
    functions=(load_frozen_grad, variance_across_tokens_grad),
    remark="Here the printed and the released form differ most: the released one meets the load head on.",
)

CLAIMS = (AGAINST, HARD, PRINTED)
