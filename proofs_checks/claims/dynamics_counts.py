"""Claims that extend D2 to a token's own hard count, D5 to the floor of the sign update, D7 to groups."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, Router, SelectionBias, Sigmoid, TopK, dynamics, metrics

from ..ledger import Claim, Effort, Finding, Verdict
from ..search import QUICK, measured
from ..symbolic import equation, for_sizes


def _nucleus(effort: Effort) -> Iterator[Finding]:
    p, n, tokens = sp.symbols("p N T", positive=True)
    intra, alpha = sp.symbols("lambda alpha", positive=True)
    q = (1 - p) / (n - 1)
    purity = p**2 + (n - 1) * q**2
    own = alpha * n / tokens
    first = p * (2 * intra * (p - purity) - own * (1 - p))
    other = q * (2 * intra * (q - purity) + own * p)
    yield equation(
        first - other,
        p * (1 - p + q) * (2 * intra * (p - q) - own),
        variants={"the full load's threshold": p * (1 - p + q) * (intra * (p - q) - own)},
        why="Velocities of the first logit and of another: of the counts only the token's own matters, as even ones "
        "push no logit.",
    )
    experts, router = 3, Router("top", Partition((0, 0, 0)), TopK(1), "himoe-theory")
    field = dynamics.FreeLogits(dynamics.LogitGradient(router, {"intra_group_global": 0.2, "load": 0.1}))
    pairs, soft = [], []
    for gap in (0.3, 2.0):
        logits = [jnp.zeros((2, 3)).at[0, 0].set(gap).at[1, other].set(0.5) for other in range(experts)]
        moved = np.mean([np.asarray(dynamics.velocity(field, each))[0] for each in logits], axis=0)
        share = float(np.exp(gap) / (np.exp(gap) + 2))
        predicted = float(dynamics.hard_sharpening(share, 0.2, 0.1, experts, 2))
        pairs.append((f"gap {gap:g}", predicted, float(moved[0] - moved[1:].mean())))
        soft.append(float(dynamics.hard_sharpening(share, 0.2, 0.0, experts, 2)))
    yield measured("two tokens, mean over the other's choice", pairs, within=1e-9, wrong={"no own count": soft})


NUCLEUS = Claim(
    id="batch/hard-nucleus",
    statement=r"\dot s_1 - \dot s_e = p(1 - p + q)\left[2\lambda_{intra}(p - q) - \alpha N/T\right]",
    words="Under hard counts a token sharpens only with a lead p - q above alpha N/(2 lambda T), because the batch's "
    "load contains its own choice; below alpha N/(2 lambda) tokens no lead is enough.",
    source="[himoe-theory] D2",
    recorded=Verdict.PROVED,
    check=_nucleus,
    assumptions=(
        "K = 1, the others of the token's probabilities equal",
        "other tokens select independently of it, evenly in the mean",
    ),
    functions=(dynamics.hard_sharpening,),
    remark="Soft loads have a critical batch size and no such lead; the size is that of the frozen load.",
)


@functools.partial(jax.jit, compiler_options=QUICK)
def _violations(logits: Array, rate: Array) -> Array:
    """MaxVio after each of 40 updates of the loss-free bias on one repeated batch."""
    controller, whole = SelectionBias(rate), Partition((0, 0))

    def step(bias: Array, _: None) -> tuple[Array, Array]:
        bias, _, keys = controller.prepare(bias, logits, Sigmoid(), mask=None, training=True)
        counts = TopK(1).choose(keys, whole, None).selected.sum(axis=0, dtype=jnp.int32)
        return controller.update(bias, counts), metrics.max_violation(counts)

    return jax.lax.scan(step, jnp.zeros(2), None, length=40)[1]


def _floor(effort: Effort) -> Iterator[Finding]:
    u, phi, off = sp.symbols("u phi c", positive=True)
    # The cycle's values are off by c and by 2u - c, of opposite signs; MaxVio is twice the share's deviation.
    yield equation(
        (2 * phi * off + 2 * phi * (2 * u - off)) / 2,
        2 * phi * u,
        variants={"depends on where the cycle lies": 2 * phi * off},
    )
    pairs = []
    for shift in (0.124, 0.137):
        difference = np.linspace(-0.4, 0.4, 4001) + shift
        scores = 0.5 + np.outer(difference / 2, [1.0, -1.0])
        found = np.asarray(_violations(jnp.asarray(np.log(scores / (1 - scores))), jnp.asarray(0.01)))[-20:]
        pairs.append((f"shift {shift:g}", float(dynamics.sign_bias_floor(0.01, 1 / 0.8)), float(found.mean())))
    yield measured(
        "mean MaxVio of the last 20 of 40 steps, 4,001 even tokens",
        pairs,
        within=0.02,
        wrong={"half": [a / 2 for _, a, _ in pairs], "density left out": [0.02, 0.02]},
    )


FLOOR = Claim(
    id="loss-free/pair-floor",
    statement=r"\langle \mathrm{MaxVio} \rangle = 2 \phi u",
    words="With two experts the sign update leaves a mean MaxVio of twice its step times the density of score "
    "differences at the boundary, wherever the cycle lies.",
    source="[himoe-theory] D5",
    recorded=Verdict.PROVED,
    check=_floor,
    assumptions=(
        "N = 2, K = 1, many tokens",
        "constant density over a width of 2u",
        "the cycle of loss-free/limit-cycle",
    ),
    functions=(dynamics.sign_bias_floor,),
)


def _level_case(groups: int, size: int, inside: bool) -> tuple[sp.Expr, sp.Expr]:
    """The velocity of logits u = beta x + gamma y, linearised at uniform routing, along a mode; one entry of it."""
    eps, eta, decay, beta, gamma = sp.symbols("epsilon eta lambda beta gamma", positive=True)
    mode = [(-1) ** (e % size) if e < 2 else 0 for e in range(groups * size)]
    if not inside:
        mode = [(1 if e < size else -1 if e < 2 * size else 0) for e in range(groups * size)]
    raised = [sp.exp(eps * v) for v in mode]
    mass = sum(raised[:size])
    moved = eta * (beta * raised[0] + gamma * mass) / sum(raised) - decay * eps * mode[0]
    kappa, chi = beta * eta / decay, gamma * eta / decay
    rate = kappa / (groups * size) - 1 if inside else (kappa / size + chi) / groups - 1
    return sp.simplify(sp.diff(moved, eps).subs(eps, 0)), decay * rate * mode[0]


def _levels(effort: Effort) -> Iterator[Finding]:
    cases = [_level_case(*sizes, inside) for sizes in ((2, 2), (3, 2), (2, 3)) for inside in (True, False)]
    yield for_sizes("2 or 3 groups of 2 or 3 experts", cases)
    field = dynamics.GroupedReinforcement(1.0, 0.5, 1.4, 0.7, Partition((0, 1, 0, 1, 0, 1)))
    rest = dynamics.Levels(jnp.full(6, 2.0 / 6), jnp.full(2, 1.0))
    found = dynamics.spectrum(field, rest).rates.real / 0.5
    pairs = [
        ("between", float(dynamics.between_rate(2.8, 1.4, 2, 3)), float(found[0])),
        ("inside", float(dynamics.inside_rate(2.8, 0.5, 3)), float(found[1])),
    ]
    wrong = {"one level": [pairs[1][1]] * 2, "groups swapped": [pairs[1][1], pairs[0][1]]}
    yield measured("rates by autodiff, in units of the decay", pairs, within=1e-9, wrong=wrong)


LEVELS = Claim(
    id="reinforcement/two-levels",
    statement=r"\mu_{between} = \lambda\left[(\kappa/S + \chi)/M - 1\right], \quad "
    r"\mu_{inside} = \lambda[\kappa/N - 1]",
    words="With scores for groups as well as experts there are two transitions: groups lose stability first, experts "
    "inside them later.",
    source="[himoe-theory] D7",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_levels,
    assumptions=("equal groups, uniform routing, to first order",),
    functions=(dynamics.between_rate, dynamics.inside_rate, dynamics.spectrum),
    remark="On states that are equal inside groups the flow is that of M experts with the control kappa/S + chi, so "
    "that the spinodal and the coexistence of D7 hold for groups.",
)

CLAIMS = (NUCLEUS, FLOOR, LEVELS)
