r"""What the claims about gradients share: the derivative, consistent data, the comparison with the catalogue.

A value is written in the probabilities `p` (or in the weights `w` renormalised over the selection, or in the
conditionals `q` of the groups), differentiated by SymPy, and pulled through that softmax. Selections `c` and first
choices `first` are constants.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
import sympy as sp
from sympy import Expr, IndexedBase, KroneckerDelta

from himoe_theory import (
    Partition,
    Routing,
    from_routes,
)
from himoe_theory.objectives import OBJECTIVES, View

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import GROUP_OF, ONE_GROUP, SIZES, Assumption, B, N, T, Values, e, g, generic, index, p, t
from ..sums import Data, Rule, total
from ..symbolic import identity

PARTITION = Partition(tuple(GROUP_OF.tolist()))
K = sp.Symbol("K", integer=True, positive=True)
WITH_K = SIZES | {K: 3}
"""The generic selection has three experts a token."""

w = IndexedBase("w", nonnegative=True)
q = IndexedBase("q", positive=True)
first = IndexedBase("first", nonnegative=True)
u, v = index("u", T), index("v", T)
"""Tokens that are summed over, never t: a value that is differentiated at token t must not also bind t."""
i, n = index("i", N), index("n", N)
"""Experts that are summed over, besides e."""


def _rows_sum_to_one(values: np.ndarray) -> np.ndarray:
    return values / values.sum(axis=1, keepdims=True)


NORMALISED = Assumption(
    "probabilities of a token sum to 1",
    (Rule(e, p[t, e], sp.S.One),),
    lambda d: d | {"p": _rows_sum_to_one(d["p"])},
)
SELECTED = Assumption(
    "weights of a token sum to 1",
    (Rule(e, w[t, e], sp.S.One),),
    lambda d: d | {"w": _rows_sum_to_one(d["w"])},
)


def mean(body: Expr) -> Expr:
    """Over tokens u."""
    return total(body, u) / T


def derivative(value: Expr, probs: IndexedBase = p) -> Expr:
    r"""$\partial/\partial s_{te}$ of a value written in `probs`: its slopes through the softmax that `probs` is.

    The softmax's Jacobian is $\pi_j (\delta_{je} - \pi_e)$; the one over a selection has the same form in its weights;
    conditionals depend on each other inside a group alone. Both Jacobians are claims of their own.
    """
    inner = index("_inner", N)
    same = total(B[g, inner] * B[g, e], g) if probs == q else sp.S.One
    slope = sp.diff(value, probs[t, inner]) * probs[t, inner]
    return total(slope * (KroneckerDelta(inner, e) - same * probs[t, e]), inner)


def uncentred(value: Expr, probs: IndexedBase = p) -> Expr:
    """The same with the softmax's normaliser forgotten: a false variant."""
    return sp.diff(value, probs[t, e]) * probs[t, e]


def routed(rng: np.random.Generator, left_open: Sequence[Assumption] = ()) -> Values:
    """Generic values that belong together, as in one routing. What is in `left_open` is for `identity` to impose."""
    d = generic(rng)
    same = np.equal.outer(GROUP_OF, GROUP_OF).astype(float)
    d |= {"w": d["p"] * d["c"], "q": d["p"] / (d["p"] @ same), "first": np.eye(5)[[3, 1, 4]]}
    return functools.reduce(lambda v, a: v if a in left_open else a.impose(v), (ONE_GROUP, NORMALISED, SELECTED), d)


def routing(d: Data, *, in_logits: bool = False) -> Routing:
    """The routing whose probabilities (or logits), selection, first choices and groups are those of the data."""
    s = jnp.asarray(d["s"] if in_logits else np.log(d["p"]))
    order = np.argsort(-d["c"] - d["first"], axis=1, kind="stable")
    chosen = jnp.asarray(order[:, : int(d["c"][0].sum())].astype(np.int32))
    return from_routes(s, chosen, PARTITION)


def gradient_claim(
    name: str,
    value: Expr,
    closed: Expr,
    *,
    statement: str,
    words: str,
    source: str,
    functions: Sequence[Callable[..., object]],
    probs: IndexedBase = p,
    assumptions: Sequence[Assumption] = (),
    slopes: Expr | None = None,
    in_logits: bool = False,
    variants: Mapping[str, Expr] | None = None,
    said: str = "",
    remark: str = "",
) -> Claim:
    """The claim that an objective of the catalogue has its closed-form gradient, for all sizes.

    **Arguments:** `name`: in the catalogue. `value`, `closed`: in `probs`, the second with free indices t, e. `slopes`:
    its derivative where `value` is not to be differentiated as it stands. `in_logits`: whether both are written in the
    logits. `said`: assumptions in words, besides those in symbols.
    """
    objective = OBJECTIVES[name]

    def check(effort: Effort) -> Iterator[Finding]:
        left = derivative(value, probs) if slopes is None else slopes
        false = {"normaliser of the softmax forgotten": uncentred(value, probs)} if slopes is None else {}

        record = functools.partial(routing, in_logits=in_logits)
        yield identity(
            left,
            closed,
            assumptions=assumptions,
            variants=false | dict(variants or {}),
            code=lambda d: np.asarray(objective.gradient(View(record(d)))).T,
            more_code=[(value, lambda d: objective.value(View(record(d))))],
            sample=lambda rng: routed(rng, assumptions),
            sizes=WITH_K,
        )

    return Claim(
        f"gradient/{name}",
        statement,
        words,
        source,
        Verdict.PROVED,
        check,
        assumptions=(*(a.words for a in assumptions), *filter(None, [said])),
        functions=tuple(functions),
        remark=remark,
    )
