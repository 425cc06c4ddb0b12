r"""The symbols that claims share, what may be assumed of them, and generic values to evaluate with.

$\pi$ is `p[t, e]`, logits `s[t, e]`, group masses `m[t, g]`; `B[g, e]` is 1 if expert e is in group g and 0 otherwise,
so that groups may be unequal and interleaved; `c[t, e]` is 1 where token t selected expert e.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import sympy as sp
from sympy import Idx, IndexedBase, KroneckerDelta

from .sums import Rule, total

T, N, M = sp.symbols("T N M", integer=True, positive=True)
SIZES = {T: 3, N: 5, M: 3}
"""At which proven expressions are evaluated: an unequal, interleaved partition."""


def index(name: str, size: sp.Expr) -> Idx:
    """An index with the range 0 to size - 1."""
    return Idx(sp.Symbol(name, integer=True), size)


t, t1 = index("t", T), index("t1", T)
e, j, k = index("e", N), index("j", N), index("k", N)
g, h = index("g", M), index("h", M)

p = IndexedBase("p", positive=True)
s = IndexedBase("s", real=True)
m = IndexedBase("m", positive=True)
B = IndexedBase("B", nonnegative=True)
c = IndexedBase("c", nonnegative=True)
INDICATORS = (B, c)

Values = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Assumption:
    """Something assumed of the symbols: in words, as rules for sums, and as a change to generic values."""

    words: str
    rules: tuple[Rule, ...]
    impose: Callable[[Values], Values]


def generic(rng: np.random.Generator) -> Values:
    """Values for the shared symbols without any assumption imposed."""
    sizes = {str(symbol): size for symbol, size in SIZES.items()}
    tokens, experts, groups = sizes["T"], sizes["N"], sizes["M"]
    return {
        "p": rng.uniform(0.1, 1.0, (tokens, experts)),
        "s": rng.normal(size=(tokens, experts)),
        "m": rng.uniform(0.1, 1.0, (tokens, groups)),
        "B": np.array([[1.0, 0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0, 1.0]]),
        "c": np.array([[1.0, 0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0, 1.0]]),
    }


GROUP_OF = np.array([0, 1, 0, 2, 0])
"""The partition that `ONE_GROUP` imposes: groups of three, one and one expert, the first interleaved."""

NORMALISED = Assumption(
    "probabilities of a token sum to 1",
    (Rule(e, p[t, e], sp.S.One),),
    lambda d: d | {"p": d["p"] / d["p"].sum(axis=1, keepdims=True)},
)
ONE_GROUP = Assumption(
    "every expert is in exactly one group",
    (Rule(g, B[g, e], sp.S.One),),
    lambda d: d | {"B": np.eye(len(d["B"]))[:, GROUP_OF]},
)
GROUP_MASS = Assumption(
    "m is the group mass of the probabilities",
    (Rule(e, B[g, e] * p[t, e], m[t, g]),),
    lambda d: d | {"m": d["p"] @ d["B"].T},
)
"""Impose it after the assumptions on p and B."""


def through_softmax(slope: Callable[[Idx, Idx], sp.Expr], token: Idx, expert: Idx) -> sp.Expr:
    r"""The logit gradient of a function of the probabilities, $\sum_j a_{tj} \pi_{tj} (\delta_{je} - \pi_{te})$.

    **Arguments:** `slope`: $a_{tj}$, its derivative in $\pi_{tj}$. The chain rule through the softmax, whose Jacobian
    is a claim of its own.
    """
    inner = index("_inner", N)
    return total(slope(token, inner) * p[token, inner] * (KroneckerDelta(inner, expert) - p[token, expert]), inner)
