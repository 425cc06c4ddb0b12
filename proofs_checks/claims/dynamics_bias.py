r"""Claims about the loss-free bias under its sign update: where it ends on a repeated batch (D5)."""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import Partition, SelectionBias, Sigmoid, TopK

from ..ledger import Claim, Correction, Effort, Finding, Numbers, Verdict
from ..search import QUICK
from ..witnesses import exhaustive, sampled, witness


@functools.partial(jax.jit, static_argnums=(2, 3), compiler_options=QUICK)
def _biases(logits: Array, rate: Array, k: int, steps: int) -> Array:
    """Biases of the loss-free controller after each step on one repeated batch."""
    experts = logits.shape[1]
    controller, selection, whole = SelectionBias(rate), TopK(k), Partition((0,) * experts)

    def step(bias: Array, _: None) -> tuple[Array, Array]:
        bias, _, keys = controller.prepare(bias, logits, Sigmoid(), mask=None, training=True)
        chosen = selection.choose(keys, whole, None).selected
        bias = controller.update(bias, chosen.sum(axis=0, dtype=jnp.int32))
        return bias, bias

    return jax.lax.scan(step, jnp.zeros(experts), None, length=steps)[1]


def _rests(effort: Effort) -> Iterator[Finding]:
    cases = [
        (experts, counts)
        for experts in (2, 3, 4)
        for total in (3, 4, 5, 6)
        for counts in itertools.product(range(total + 1), repeat=experts)
        if sum(counts) == total
    ]

    def rests(counts: tuple[int, ...]) -> bool:
        update = np.sign(np.mean(counts) - np.array(counts))
        return not update.any()

    for counts in ((1, 2, 3), (2, 2), (0, 1, 1, 1)):
        found = SelectionBias(0.5).update(jnp.zeros(len(counts)), jnp.array(counts, jnp.int32))
        if bool((found == 0).all()) != rests(counts):
            raise AssertionError(f"himoe_theory's update for {counts} is {found}")
    yield exhaustive(
        "2 to 4 experts, 3 to 6 routes",
        cases,
        lambda case: not rests(case[1]) or sum(case[1]) % case[0] == 0,
        false={"it never rests": lambda case: not rests(case[1])},
    )


RESTS = Claim(
    id="loss-free/rests",
    statement=r"\mathrm{sign}(\bar n - n_e) = 0\ \forall e \implies N \mid KT",
    words="The sign update can rest only if the routes of a batch can be shared out equally.",
    source="[loss-free] algorithm 1; [himoe-theory] D5",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_rests,
    functions=(SelectionBias.update,),
    remark="For any size: all loads are then the mean, which must be a whole number.",
)


def _one_token(effort: Effort) -> Iterator[Finding]:
    # One token, three experts: the chosen one loses u and each other gains u, so the sum gains u at every step.
    after = _biases(jnp.array([[0.3, 0.1, -0.2]]), jnp.asarray(0.01), 1, 300)[-1]
    yield witness(
        "one repeated token, three experts, K = 1: mean bias after 300 steps, in units of u",
        sp.Integer(100),
        "<=",
        sp.Integer(10),
        holds_at={"after 3 steps": (sp.Integer(1), sp.Integer(10))},
        code=[(after.sum() / 3 / 0.01, sp.Integer(100))],
    )


def _cycle(margins: tuple[int, ...]) -> set[int]:
    """The values between which the difference of two biases ends, in units of u; margins and values are whole."""
    difference = 0
    seen = []
    for _ in range(60):
        first = sum(margin + difference > 0 for margin in margins)
        difference += 2 * ((2 * first < len(margins)) - (2 * first > len(margins)))
        seen.append(difference)
    return set(seen[-8:])


def _two_experts(effort: Effort) -> Iterator[Finding]:
    odd = (-9, -5, -3, -1, 1, 3, 5, 9)  # never a tie with an even difference of biases
    margins = (-5, 1, 1, 3, 9)
    rate = 1 / 64
    scores = 0.5 + np.outer(np.array(margins) * rate / 2, [1, -1])
    logits = jnp.asarray(np.log(scores / (1 - scores)))
    last = np.asarray(_biases(logits, jnp.asarray(rate), 1, 60))[-8:]
    if {round(float(x)) for x in (last[:, 0] - last[:, 1]) / rate} != _cycle(margins):
        raise AssertionError(f"himoe_theory's biases end at {last}, not in the cycle {_cycle(margins)}")

    def swings(case: tuple[int, ...], by: int) -> bool:
        values = _cycle(case)
        return len(values) == 2 and max(values) - min(values) == by

    yield exhaustive(
        "two experts, K = 1, all batches of 1, 3 or 5 tokens with score margins among 8 values",
        [case for size in (1, 3, 5) for case in itertools.combinations_with_replacement(odd, size)],
        lambda case: swings(case, 2),
        false={"a swing of u": lambda case: swings(case, 1), "it rests": lambda case: len(_cycle(case)) == 1},
    )


CYCLE = Claim(
    id="loss-free/limit-cycle",
    statement=r"\max_t b_e - \min_t b_e = O(u)",
    words="On a repeated batch the biases of the sign update oscillate with an amplitude of order u.",
    source="[himoe-theory] D5",
    recorded=Verdict.CORRECTED,
    check=_one_token,
    functions=(SelectionBias.prepare, SelectionBias.update),
    numbers=Numbers("biases", besides="in at least float32, up to 2^24 times the rate: beyond, a step is lost"),
    correction=Correction(
        r"\text{two experts, odd } T: \ b_1 - b_2 \text{ ends in a cycle of two values, } 2u \text{ apart}",
        "Differences of biases oscillate with an amplitude of order u; their mean can drift without bound, which no "
        "selection notices.",
        _two_experts,
    ),
    remark="The notes of this package (D5) speak of the biases themselves. The signs of an update need not cancel; "
    "the steps of a proportional update do.",
)


def _relative_swing(effort: Effort) -> Iterator[Finding]:
    def swing(case: tuple[float, int]) -> float:
        rate, seed = case
        logits = jnp.asarray(np.random.default_rng(seed).normal(size=(63, 8)))
        last = np.asarray(_biases(logits, jnp.asarray(rate), 2, 3000))[-200:]
        relative = last - last.mean(axis=1, keepdims=True)
        return float((relative.max(axis=0) - relative.min(axis=0)).max() / rate)

    yield sampled(
        "8 experts, K = 2, 63 repeated tokens, u = .02, .005, 3 batches each, steps 2,800 to 3,000",
        list(itertools.product((0.02, 0.005), range(3))),
        lambda case: 0 < swing(case) <= 6,
        false={"at most u/2": lambda case: swing(case) <= 0.5},
        said=lambda case: f"u, seed = {case}: swing {swing(case):.3g} u",
    )


SWING = Claim(
    id="loss-free/swing",
    statement=r"\max_t (b_e - \bar b) - \min_t (b_e - \bar b) \le 6u",
    words="With eight experts, too, biases relative to their mean end in oscillations of a few u.",
    source="[himoe-theory] D5",
    recorded=Verdict.SUPPORTED,
    check=_relative_swing,
    assumptions=("scores differ by much more than u, and the biases have had time to catch up",),
    functions=(SelectionBias.prepare, SelectionBias.update),
    numbers=Numbers("biases", besides="in at least float32, up to 2^24 times the rate: beyond, a step is lost"),
)

CLAIMS = (RESTS, CYCLE, SWING)
