"""Claims about load losses with hard counts: their field, and what they cannot see."""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array
from sympy import KroneckerDelta

from himoe_theory import (
    GroupedTopK,
    Partition,
    objectives,
    ranked,
)

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..notation import GROUP_MASS, NORMALISED, ONE_GROUP, SIZES, B, M, N, T, e, g, generic, h, index, m, p, t
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, witness
from .hard_minimum import F, as_sympy
from .load_gradients import f


def _one_hot(effort: Effort) -> Iterator[Finding]:
    slope, a, b = sp.IndexedBase("slope", real=True), index("a", N), index("b", N)
    chosen = [KroneckerDelta(x, a) for x in (e, b)]
    gradient = N / T * chosen[0] * (f[e] - total(f[b] * chosen[1], b))

    def code(d: Data) -> float:
        logits = jnp.where(jnp.eye(5, dtype=bool), 0.0, -1e4)
        found = objectives.load_for_share_grad(logits, jnp.asarray(d["f"]))
        return np.abs(np.asarray(found) @ d["slope"]).max()

    yield identity(
        total(gradient * slope[e], e),
        sp.S.Zero,
        code=code,
        variants={"normaliser of the softmax forgotten": N / T * f[a] * slope[a]},
        sample=lambda rng: {"f": rng.uniform(1, 2, 5), "slope": rng.normal(size=5)},
        sizes=SIZES,
    )


ONE_HOT = Claim(
    id="load/one-hot",
    statement=r"\pi_t = \delta_a \;\Rightarrow\; \partial(N \sum_e h_e P_e)/\partial s_t = 0",
    words="At one-hot routing the load loss has no gradient, whatever the counts: it cannot revive what has collapsed.",
    source="[himoe-theory] D8",
    recorded=Verdict.PROVED,
    check=_one_hot,
    functions=(objectives.load_for_share_grad,),
    remark="Every component vanishes, since the sum with any weights does; a is any expert.",
)


def _loop(effort: Effort) -> Iterator[Finding]:
    near, far, high, x = sp.symbols("near far high x", positive=True)

    def half(z: sp.Expr) -> sp.Expr:
        return 1 / (1 + sp.exp(-z))

    # Counts h_0 - h_1 of two tokens with gaps x > 0 and y: 1 where y > 0, 0 where y < 0. Force: its product with the
    # derivative of the logistic function. The four sides of the loop, counter-clockwise from below:
    slope = sp.diff(half(x), x)
    sides = [sp.S.Zero]
    sides.append(half(high) - half(sp.S.Zero))  # x = far, y from -high to high: no force below 0
    sides.append(half(near) - half(far))  # y = high, x from far to near
    sides.append(half(sp.S.Zero) - half(high))  # x = near, y back down
    _check_force(slope, x)
    yield equation(
        sum(sides),
        half(near) - half(far),
        variants={"a potential: the loop gives 0": sp.S.Zero},
        why="The force on both gaps is (h_0 - h_1) times the logistic function's derivative.",
    )


def _check_force(slope: sp.Expr, x: sp.Symbol) -> None:
    """The force that the integral uses, against the closed form, on both sides of y = 0."""
    for y, count in ((0.7, 1.0), (-0.7, 0.0)):
        gaps = jnp.asarray([1.3, y])
        logits = jnp.stack([gaps, jnp.zeros(2)], axis=1)
        found = objectives.load_grad(logits, jax.nn.one_hot(logits.argmax(1), 2, dtype=bool))[:, 0]
        mine = [count * float(slope.subs(x, gap)) for gap in (1.3, y)]
        np.testing.assert_allclose(found, mine, rtol=1e-9, atol=1e-12)


NO_POTENTIAL = Claim(
    id="load/no-potential",
    statement=r"\oint \nabla_s (N \sum_e h_e P_e) \cdot ds = \sigma(x_{near}) - \sigma(x_{far}) \ne 0",
    words="The field of the hard count loss has no potential: round a loop across a count's jump it does work.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_loop,
    assumptions=("2 tokens, 2 experts, first choices", "a rectangle of gaps from (near, -high) to (far, high)"),
    functions=(objectives.load_grad,),
    remark="Where no count changes, the field is the gradient of a linear function of P, and its curl is 0: the jumps "
    "alone have the curl. The soft and the frozen form have potentials, N P^2 and half of it.",
)


def _shift(effort: Effort) -> Iterator[Finding]:
    x, y, shift = sp.symbols("x y shift", real=True)
    yield equation(
        (x + shift) - (y + shift),
        x - y,
        variants={"shifts of their own": x - y + shift},
        why="Selection inside a group compares the logits of its members, and each comparison is unchanged.",
    )
    partition, rule = Partition((0, 1, 0, 1, 1)), GroupedTopK((1, 2))
    keys = np.array(list(itertools.product((0.0, 1.0, 2.0), repeat=5)))

    def chosen(by: tuple[float, ...]) -> np.ndarray:
        return np.asarray(ranked(rule, jnp.asarray(keys + np.array(by)), partition))

    plain = chosen((0.0,) * 5)
    moved, stray = chosen((5.0, -3.0, 5.0, -3.0, -3.0)), chosen((5.0, -3.0, 5.0, -3.0, 3.0))
    yield exhaustive(
        "2 and 3 experts of 5 in two interleaved groups, all logits in 0, 1, 2",
        range(len(keys)),
        lambda row: bool((plain[row] == moved[row]).all()),
        false={"one expert of a group shifted more": lambda row: bool((plain[row] == stray[row]).all())},
    )


GROUP_SHIFT = Claim(
    id="load/grouped-counts-ignore-group-shift",
    statement=r"s_e \to s_e + a_{g(e)} \text{ changes no selection of grouped top-K}",
    words="Adding a constant to the logits of a group changes no count under grouped selection.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_shift,
    functions=(GroupedTopK.choose,),
    numbers=Numbers("logits", besides="whose sums with the shift are exact; rounding makes close ones tie"),
    remark="In exact arithmetic: rounding may tie two logits that a large constant is added to.",
)


def _along_shift(effort: Effort) -> Iterator[Finding]:
    j = index("j", N)
    gradient = N / T * p[t, e] * (f[e] - total(f[j] * p[t, j], j))
    inside = total(B[g, j] * f[j] * p[t, j], j) / m[t, g]
    across = total(m[t, h] * (total(B[h, j] * f[j] * p[t, j], j) / m[t, h]), h)

    def code(d: Data) -> np.ndarray:
        found = objectives.load_for_share_grad(jnp.log(jnp.asarray(d["p"])), jnp.asarray(d["f"]))
        return (np.asarray(found) @ d["B"].T).T

    yield identity(
        total(B[g, e] * gradient, e),
        N / T * m[t, g] * (inside - across),
        assumptions=(ONE_GROUP, GROUP_MASS),
        variants={"no gradient along a shift": sp.S.Zero},
        code=code,
        sample=lambda rng: NORMALISED.impose(generic(rng)) | {"f": rng.uniform(0.1, 1, 5)},
    )


ALONG_SHIFT = Claim(
    id="load/gradient-along-group-shift",
    statement=r"\sum_{e \in g} \partial L/\partial s_{te} = \tfrac NT m_g \big( \langle h, q_g \rangle - "
    r"\textstyle\sum_{g'} m_{g'} \langle h, q_{g'} \rangle \big)",
    words="Along a shift of a group the load has a gradient unless the mean share inside is the same in all groups.",
    source="[himoe-theory] D10",
    recorded=Verdict.PROVED,
    check=_along_shift,
    functions=(objectives.load_for_share_grad,),
    remark="So it vanishes for every group exactly where the mean share is equal over all groups that have mass.",
)


def _blind(effort: Effort) -> Iterator[Finding]:
    share = [F(1, 2), F(1, 4), F(1, 4)]

    def value(masses: Sequence[F]) -> F:
        probs = [masses[0], masses[1] / 2, masses[1] / 2]
        return 3 * sum(s * q for s, q in zip(share, probs, strict=True))

    def computed(masses: Sequence[F]) -> Array:
        probs = jnp.asarray([[float(masses[0]), float(masses[1]) / 2, float(masses[1]) / 2]])
        return objectives.load_for_share(jnp.log(probs), jnp.asarray([float(x) for x in share]))

    one, two = (F(3, 4), F(1, 4)), (F(1, 3), F(2, 3))
    yield witness(
        "groups of one and of two experts, one selected in each, the pair used evenly: h = (1/2, 1/4, 1/4); masses "
        "(3/4, 1/4) against (1/3, 2/3)",
        value(one),
        "=",
        value(two),
        holds_at={"the same masses": (value(one), value(one))},
        code=[(computed(one), as_sympy(value(one))), (computed(two), as_sympy(value(two)))],
    )


def _blind_equal(effort: Effort) -> Iterator[Finding]:
    K_g = sp.Symbol("K", positive=True)
    # Equal groups used evenly: every expert is selected by K_g / S of the tokens, and the share is the same for all.
    yield identity(
        N * total(K_g * M / N / (K_g * M) * p[t, e], e),
        sp.S.One,
        assumptions=(NORMALISED,),
        code=lambda d: objectives.load_for_share(jnp.log(jnp.asarray(d["p"])), jnp.full(5, 0.2)),
        sample=lambda rng: generic(rng) | {"K": np.asarray(1.0)},
    )


BLIND = Claim(
    id="load/blind-to-group-mass",
    statement=r"h_e \text{ even inside every group} \;\Rightarrow\; N \sum_e h_e P_e \text{ is constant in } m",
    words="Under grouped selection with experts used evenly inside groups, the load loss does not see group mass.",
    source="[himoe-theory] D10",
    recorded=Verdict.CORRECTED,
    check=_blind,
    assumptions=("grouped selection, the same number of experts in every group",),
    functions=(objectives.load_for_share,),
    correction=Correction(
        statement=r"S_g = S \;\Rightarrow\; N \sum_e h_e P_e = 1 \text{ for all } m",
        words="With groups of equal size it does not; with unequal ones it pushes mass toward the larger group.",
        check=_blind_equal,
    ),
)

CLAIMS = (ONE_HOT, NO_POTENTIAL, GROUP_SHIFT, ALONG_SHIFT, BLIND)
