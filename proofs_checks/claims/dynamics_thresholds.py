r"""Claims about what the growth rates at uniform routing imply (D1): linear routers, thresholds, bias correction."""

import fractions
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import LogitAverage, Softmax, dynamics

from ..ledger import Claim, Effort, Finding, Verdict
from ..notation import N, T, e, index, t
from ..sums import Data, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive

INTRA = sp.Symbol("lambda_intra", real=True)
SIZES = {T: 3, N: 6}
u = index("u", T)


def _gram(effort: Effort) -> Iterator[Finding]:
    dim = sp.Symbol("D", integer=True, positive=True)
    x, force = sp.IndexedBase("x", real=True), sp.IndexedBase("f", real=True)
    r = index("r", dim)
    # The flow of W_er is the mean over tokens of force times input; the logits are its product with the inputs.
    flow = total(force[u, e] * x[u, r], u) / T
    gram = total(x[t, r] * x[u, r], r) / T

    def code(d: Data) -> Array:
        inputs, pushed = jnp.asarray(d["x"]), jnp.asarray(d["f"])
        loss = jax.grad(lambda w: -(pushed * (inputs @ w.T)).sum() / 3)
        return -(inputs @ loss(jnp.zeros((6, 4))).T).T

    yield identity(
        total(flow * x[t, r], r),
        total(gram * force[u, e], u),
        code=code,
        variants={"the tokens do not mix": total(x[t, r] ** 2, r) * force[t, e] / T},
        sample=lambda rng: {"x": rng.normal(size=(3, 4)), "f": rng.normal(size=(3, 6))},
        sizes=SIZES | {dim: 4},
    )


GRAM = Claim(
    id="growth/linear-router",
    statement=r"s = W x: \quad \dot s_{te} = \sum_{t'} \frac{x_t \cdot x_{t'}}{T} f_{t'e}, "
    r"\quad f = -T\,\partial L/\partial s",
    words="A linear router mixes the forces on tokens by their Gram matrix, so each of its eigenvalues multiplies the "
    "rates of its token mode.",
    source="[himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_gram,
)


def _thresholds(effort: Effort) -> Iterator[Finding]:
    number = sp.Symbol("N", positive=True)
    for pull, critical in ((2, dynamics.critical_load_full), (1, dynamics.critical_load_frozen)):
        threshold = 2 * INTRA / (pull * number)
        if abs(critical(0.7, 6) - float(threshold.subs({INTRA: 0.7, number: 6}))) > 1e-15:
            raise AssertionError(f"himoe_theory's critical load for c = {pull} is not {threshold}")
        alpha = sp.Symbol("alpha", real=True)
        rate = 2 * INTRA / number**2 - pull * alpha / number
        # Rate and distance to the threshold differ by a positive factor, so they have the same sign.
        yield equation(rate, pull / number * (threshold - alpha), variants={"no N": pull * (threshold - alpha)})


THRESHOLDS = Claim(
    id="growth/critical-load",
    statement=r"2\lambda_{intra}/N^2 - c\alpha/N > 0 \iff \alpha < 2\lambda_{intra}/(cN)",
    words="The load stops the common mode within groups exactly if it exceeds this coefficient.",
    source="[himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_thresholds,
    functions=(dynamics.critical_load_full, dynamics.critical_load_frozen),
)

SETTINGS = (("nanoGPT", 8, 2, 0), ("Swin", 64, 16, -1), ("OLMoE", 64, 16, -1))
"""Experts, group size, sign of the rate of contrasts between groups."""


def _published_ratio(effort: Effort) -> Iterator[Finding]:
    inter = fractions.Fraction(5, 100)

    def sign(case: tuple[str, int, int, int], ratio: fractions.Fraction) -> bool:
        _, experts, size, expected = case
        exact = 2 * (ratio * inter - size * inter) / experts**2
        if ratio == 2 and abs(float(exact) - float(dynamics.contrast_between(0.1, 0.05, experts, size))) > 1e-17:
            raise AssertionError(f"himoe_theory's rate is not {exact}")
        return (exact > 0) - (exact < 0) == expected

    yield exhaustive(
        "the three published settings",
        SETTINGS,
        lambda case: sign(case, fractions.Fraction(2)),
        false={"lambda_intra one hundredth larger": lambda case: sign(case, fractions.Fraction(202, 100))},
    )


PUBLISHED_RATIO = Claim(
    id="growth/published-ratio",
    statement=r"\lambda_{intra} - S\lambda_{inter} = 0 \text{ at } (0.1, 0.05), S = 2; \quad < 0 \text{ at } S = 16",
    words="At uniform routing contrasts between groups neither grow nor shrink in the published nanoGPT setting, and "
    "shrink in the Swin and OLMoE settings.",
    source="[himoe] published settings; [himoe-theory] D1",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_published_ratio,
    functions=(dynamics.contrast_between, dynamics.critical_group_ratio),
    remark="To first order at uniform routing; further from it the sign of the group part flips (D11).",
)


def _corrected(effort: Effort) -> Iterator[Finding]:
    temp, tau, raw, mean = sp.symbols("Temp tau sigma sigma_bar", positive=True)
    rate = sp.Symbol("rate", real=True)
    # A term of z = (s - tau s_bar)/Temp, s_bar frozen, pushes s by (rate z)/Temp.
    pushed = rate * (raw - tau * mean) / temp / temp
    numbers = {temp: 0.7, tau: 0.4}
    common, contrast = (1 - tau) / temp**2, 1 / temp**2
    for factor, function in (
        (common, dynamics.corrected_common(0.4, 0.7)),
        (contrast, dynamics.corrected_contrast(0.7)),
    ):
        if abs(float(factor.subs(numbers)) - float(function)) > 1e-14:
            raise AssertionError(f"himoe_theory's factor is {function}, not {factor}")
    yield equation(pushed.subs(mean, raw), common * rate * raw, variants={"one Temp": common * temp * rate * raw})
    yield equation(pushed.subs(mean, 0), contrast * rate * raw, variants={"tau acts": common * rate * raw})


CORRECTED = Claim(
    id="growth/bias-correction",
    statement=r"\text{rates of terms of } (s - \tau \bar g)/\mathrm{Temp}: \ "
    r"\times 1/\mathrm{Temp}^2 \text{ (contrast)}, \ \times (1-\tau)/\mathrm{Temp}^2 \text{ (common)}",
    words="Bias correction slows what all tokens share by the share tau, 1 per cent as published, and contrasts not.",
    source="[himoe] section 3.3; [himoe-theory] D1",
    recorded=Verdict.PROVED,
    check=_corrected,
    assumptions=("the running mean has caught up with the logits", "no gradient flows through it"),
    functions=(dynamics.corrected_common, dynamics.corrected_contrast),
    remark="By default the released code computes neither regulariser on these probabilities: only selection and "
    "weights see the correction.",
)


def _centring(effort: Effort) -> Iterator[Finding]:
    dim, tau = sp.Symbol("D", integer=True, positive=True), sp.Symbol("tau", positive=True)
    x, weight = sp.IndexedBase("x", real=True), sp.IndexedBase("W", real=True)
    r = index("r", dim)
    centre = total(x[u, r], u) / T
    logits = total(weight[e, r] * x[t, r], r)
    running = total(total(weight[e, r] * x[u, r], r), u) / T

    def code(d: Data) -> Array:
        s = jnp.asarray(d["x"] @ d["W"].T)
        controller = LogitAverage(tau=float(d["tau"]), beta=0.5)
        state = jnp.zeros(6)
        for _ in range(60):  # 2^-60 from its equilibrium
            state, corrected, _ = controller.prepare(state, s, Softmax(), mask=None, training=True)
        return corrected.T

    yield identity(
        logits - tau * running,
        total(weight[e, r] * (x[t, r] - tau * centre), r),
        variants={"full centring": total(weight[e, r] * (x[t, r] - centre), r)},
        code=code,
        sample=lambda rng: {"x": rng.normal(size=(3, 4)), "W": rng.normal(size=(6, 4)), "tau": np.asarray(0.3)},
        sizes=SIZES | {dim: 4},
    )


CENTRING = Claim(
    id="growth/partial-centring",
    statement=r"s = Wx: \quad s_t - \tau \bar g = W(x_t - \tau \bar x) \text{ at } \bar g = \bar s",
    words="For a linear router, bias correction is centring the tokens by the share tau of their mean: 1 per cent.",
    source="[himoe] section 3.3",
    recorded=Verdict.PROVED,
    check=_centring,
    assumptions=("the running mean has caught up with the logits",),
    functions=(LogitAverage.prepare,),
)

CLAIMS = (GRAM, THRESHOLDS, PUBLISHED_RATIO, CORRECTED, CENTRING)
