"""Claims about combine weights and corrected logits: gauge, monotone maps, conventions, controllers."""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import (
    GroupedTopK,
    LogitAverage,
    Partition,
    Renormalised,
    SelectionBias,
    Sigmoid,
    Softmax,
    SoftmaxThenMask,
    TopK,
    ranked,
    routers,
)
from himoe_theory._numerics import masked_softmax, xlogx
from himoe_theory.routing import from_dense

from ..ledger import Claim, Effort, Finding, Numbers, Verdict
from ..notation import Assumption, T, Values, c, e, generic, j, p, s, t, t1
from ..search import QUICK, search
from ..sums import Data, Rule, total
from ..symbolic import equation, identity
from ..witnesses import exhaustive, witness

kept = sp.IndexedBase("kept", positive=True)
"""Kept mass of a token, the sum of its probabilities over the selected experts."""
FOUR = Partition((0, 1, 0, 0))
KEPT = Assumption(
    "kept is the mass of the selected experts",
    (Rule(e, c[t, e] * p[t, e], kept[t]),),
    lambda d: d | {"kept": (d["c"] * d["p"]).sum(axis=1)},
)


def _sample(rng: np.random.Generator) -> Values:
    return generic(rng) | {"kept": np.array([0.4, 0.7, 1.1])}


def _log_scores(data: Data) -> tuple[Array, Array]:
    """Log probabilities of the generic values, and the three experts that each token selects."""
    return jnp.log(jnp.asarray(data["p"])), jnp.asarray(data["c"] > 0)


def _conventions(effort: Effort) -> Iterator[Finding]:
    yield identity(
        total(c[t, e] * p[t, e], e),
        kept[t],
        assumptions=(KEPT,),
        variants={"1, as if renormalised": sp.S.One},
        code=lambda d: SoftmaxThenMask().weigh(*_log_scores(d)).sum(axis=1),
        sample=_sample,
    )
    small = sp.Rational(1, 100)
    yield identity(
        total(c[t, e] * p[t, e] / (kept[t] + small), e),
        kept[t] / (kept[t] + small),
        assumptions=(KEPT,),
        variants={"1, without epsilon": sp.S.One},
        code=lambda d: Renormalised(0.01).weigh(*_log_scores(d)).sum(axis=1),
        sample=_sample,
    )


CONVENTIONS = Claim(
    id="weights/conventions",
    statement=r"\sum_r w_r = K \text{ (softmax, then mask)}, \quad \sum_r w_r = \frac{K}{K + \epsilon} "
    r"\text{ (renormalised)}, \quad K = \sum_{e \text{ selected}} \pi_e",
    words="Unnormalised weights sum to the kept mass, renormalised ones to 1 up to epsilon.",
    source="[himoe] eq. (5); [himoe-code]",
    recorded=Verdict.PROVED,
    check=_conventions,
    assumptions=("K is the mass of the selected experts",),
    functions=(SoftmaxThenMask.weigh, Renormalised.weigh),
    remark="Shown with epsilon 1/100, which is large enough to see. The output of a layer differs in scale by the kept "
    "mass: near uniform routing to 8 of 64 experts by a factor of 8.",
)


x = sp.IndexedBase("x", positive=True)
"""Exponentials of logits."""
factor = sp.IndexedBase("factor", positive=True)
"""Exponential of the constant added to a token's logits."""
z = sp.IndexedBase("z", positive=True)
SUM = Assumption(
    "z is the sum of a token's exponentials", (Rule(e, x[t, e], z[t]),), lambda d: d | {"z": d["x"].sum(1)}
)


def _gauge(effort: Effort) -> Iterator[Finding]:
    yield identity(
        factor[t] * x[t, e] / total(factor[t] * x[t, j], j),
        x[t, e] / z[t],
        assumptions=(SUM,),
        variants={"the factor only above the line": factor[t] * x[t, e] / z[t]},
        code=lambda d: Softmax().value(jnp.log(d["x"]) + jnp.log(d["factor"])[:, None]).T,
        sample=lambda rng: {"x": rng.uniform(0.1, 2, (3, 5)), "factor": np.array([0.5, 3.0, 7.0]), "z": np.ones(3)},
    )
    keys = np.array(list(itertools.product(range(4), repeat=4)), dtype=float)
    shifts = (-7.0, 0.0, 5.0)
    select = jax.jit(lambda k: (ranked(TopK(2), k, FOUR), ranked(GroupedTopK((2, 1)), k, FOUR)), compiler_options=QUICK)
    flat, grouped = jax.device_get(select(jnp.asarray(np.concatenate([keys + shift for shift in shifts] + [-keys]))))
    size = len(keys)

    def same(row: int, block: int) -> bool:
        other = block * size + row
        return bool((flat[row] == flat[other]).all() and (grouped[row] == grouped[other]).all())

    yield exhaustive(
        "every order of 4 keys, shifted by 5 and by 12; top-2, and 2 of 3 and 1 of 1",
        itertools.product(range(size), range(len(shifts))),
        lambda case: same(*case),
        false={"negated instead of shifted": lambda case: same(case[0], len(shifts))},
    )
    # In float32: the spacing at 4096 is 2^-11.
    floats = {apart: jnp.asarray(keys * 2.0**-apart, jnp.float32) for apart in (10, 20)}
    rows = {
        apart: (ranked(TopK(2), x, FOUR), ranked(TopK(2), x + jnp.float32(4096), FOUR)) for apart, x in floats.items()
    }
    kept_by = {apart: np.asarray((before == after).all(axis=1)) for apart, (before, after) in rows.items()}
    yield exhaustive(
        "every order of 4 keys that are 2^-10 apart, shifted by 4096 in float32; top-2",
        range(size),
        lambda row: bool(kept_by[10][row]),
        false={"keys 2^-20 apart, which the sum makes equal": lambda row: bool(kept_by[20][row])},
    )


GAUGE = Claim(
    id="weights/gauge",
    statement=r"\mathrm{softmax}(s + a\mathbf 1) = \mathrm{softmax}(s)",
    words="Adding a constant to a token's logits changes neither what a softmax router selects nor its weights.",
    source="[himoe-theory] gauge",
    recorded=Verdict.PROVED,
    check=_gauge,
    functions=(Softmax.value, TopK.choose, GroupedTopK.choose),
    numbers=Numbers("logits", besides="whose sums with the constant are exact; rounding makes close ones tie"),
    remark="In exact arithmetic; rounding can make keys tie that differ by less than the spacing at the shifted value.",
)


def _sigmoid_gauge(effort: Effort) -> Iterator[Finding]:
    router = routers.loss_free(2, 2, epsilon=0.0)
    weight = jax.jit(lambda odds: router.step(None, jnp.zeros(2), jnp.log(odds)[None])[0].combine[0, 0])
    yield witness(
        "2 experts, both selected, logits (0, ln 3): weight of the first, left, and after adding ln 2 to both logits, "
        "right; sigmoids 1/2, 3/4 become 2/3, 6/7",
        sp.Rational(2, 5),
        "=",
        sp.Rational(7, 16),
        holds_at={"logits (0, 0): sigmoids 1/2 and 2/3": (sp.Rational(1, 2), sp.Rational(1, 2))},
        code=[(weight(jnp.array([1.0, 3.0])), sp.Rational(2, 5)), (weight(jnp.array([2.0, 6.0])), sp.Rational(7, 16))],
    )


SIGMOID_GAUGE = Claim(
    id="weights/gauge-of-sigmoids",
    statement=r"w(s + a\mathbf 1) = w(s) \text{ for sigmoid scores}",
    words="Adding a constant to a token's logits leaves the weights of a router with sigmoid scores unchanged.",
    source="[loss-free] eq. (1)",
    recorded=Verdict.REFUTED,
    check=_sigmoid_gauge,
    functions=(Sigmoid.value, routers.loss_free),
    remark="Hence a loss of these scores does not conserve the sum of the router's rows.",
)


def _bias_free(effort: Effort) -> Iterator[Finding]:
    router = routers.loss_free(3, 2, epsilon=0.0)
    logits = np.array(list(itertools.product((-1.0, 0.0, 2.0), repeat=3)))
    biases = np.array(list(itertools.product((-1.0, 0.0, 0.4), repeat=3)))

    def decided(bias: Array, logits: Array) -> tuple[Array, Array]:
        routing, _ = router.step(None, bias, logits, training=False)
        return routing.experts, routing.weights

    step = jax.jit(jax.vmap(decided, in_axes=(0, None)), compiler_options=QUICK)
    experts, weights = jax.device_get(step(jnp.asarray(biases), jnp.asarray(logits)))
    sigmoid = 1 / (1 + np.exp(-logits))

    def holds(case: tuple[int, int], of_bias: float) -> bool:
        bias, row = case
        scores = sigmoid[row] + of_bias * biases[bias]
        chosen = experts[bias, row]
        best = sorted(range(3), key=lambda i: (-(sigmoid[row] + biases[bias])[i], i))[:2]
        gates = scores[chosen] / scores[chosen].sum() if scores[chosen].sum() else np.full(2, np.nan)
        return chosen.tolist() == best and bool(np.abs(weights[bias, row] - gates).max() < 1e-12)

    yield exhaustive(
        "3 experts, k = 2, logits and biases from 3 values each",
        itertools.product(range(len(biases)), range(len(logits))),
        lambda case: holds(case, 0.0),
        false={"gates from the biased scores": lambda case: holds(case, 1.0)},
    )


BIAS_FREE = Claim(
    id="loss-free/bias-not-in-gate",
    statement=r"w_e = \sigma(s_e) / \sum_{j \text{ selected}} \sigma(s_j), \quad \text{selected by } \sigma(s) + b",
    words="The bias decides which experts are selected and never enters the value of their weights.",
    source="[loss-free] algorithm 1",
    recorded=Verdict.PROVED_FOR_SIZES,
    check=_bias_free,
    functions=(SelectionBias.prepare, routers.loss_free),
    numbers=Numbers("logits", roundings=8, besides="selected by the rounded score plus bias, ties by logits"),
)


def _update_first(effort: Effort) -> Iterator[Finding]:
    average = sp.IndexedBase("average", real=True)
    tau, beta = sp.Rational(7, 10), sp.Rational(3, 5)
    batch_mean = total(s[t1, e], t1) / T
    average_of = LogitAverage(0.7, 0.6)
    corrected = jax.jit(lambda g, x: average_of.prepare(g, x, Softmax(), mask=None, training=True).logits.T)
    yield identity(
        s[t, e] - tau * (beta * average[e] + (1 - beta) * batch_mean),
        s[t, e] - tau * average[e] + tau * (1 - beta) * total(average[e] - s[t1, e], t1) / T,
        variants={"used before it is updated": s[t, e] - tau * average[e]},
        code=lambda d: corrected(jnp.asarray(d["average"]), jnp.asarray(d["s"])),
        sample=lambda rng: generic(rng) | {"average": rng.normal(size=5)},
    )
    n = sp.Symbol("n", integer=True, nonnegative=True)
    b, mean = sp.Symbol("beta", positive=True), sp.Symbol("mean", real=True)
    after = (1 - b**n) * mean
    yield equation(
        b * after + (1 - b) * mean,
        after.subs(n, n + 1),
        variants={"one batch late": after},
        why="By induction on n from 0: the average that the n-th batch of mean logits is corrected with.",
    )


UPDATE_FIRST = Claim(
    id="himoe/correction-order",
    statement=r"\bar g_n = \beta \bar g_{n-1} + (1-\beta) \bar s_n, \quad "
    r"\text{batch } n \text{ sees } s - \tau \bar g_n; \ \bar s_n = \bar s \Rightarrow \bar g_n = (1-\beta^n) \bar s",
    words="The average is updated by a batch first and then corrects the same batch, so the first batch is corrected "
    "already, and a token takes part in its own correction.",
    source="[himoe-code] bias correction",
    recorded=Verdict.PROVED,
    check=_update_first,
    functions=(LogitAverage.prepare,),
    remark="Shown with tau 0.7 and beta 0.6. In training the logits of every token of a batch therefore enter the "
    "selection of every other token, with weight tau (1 - beta)/T.",
)


q = sp.IndexedBase("q", positive=True)
"""A distribution over the selected experts."""
lp, lq, lk = (sp.IndexedBase(name, real=True) for name in ("lp", "lq", "lk"))
"""Logarithms of the probabilities, of q and of the kept mass."""
Q_NORMALISED = Assumption(
    "q sums to 1 over the selected experts",
    (Rule(e, c[t, e] * q[t, e], sp.S.One),),
    lambda d: d | {"q": d["q"] / (d["c"] * d["q"]).sum(axis=1, keepdims=True)},
)
PAIRS = np.array(list(itertools.combinations(range(4), 2)))


def _sparse_posterior(effort: Effort) -> Iterator[Finding]:
    found = identity(
        total(c[t, e] * q[t, e] * (lq[t, e] - lp[t, e]), e),
        total(c[t, e] * q[t, e] * (lq[t, e] - (lp[t, e] - lk[t])), e) - lk[t],
        assumptions=(Q_NORMALISED,),
        variants={"kept mass left out": total(c[t, e] * q[t, e] * (lq[t, e] - (lp[t, e] - lk[t])), e)},
        sample=lambda rng: (
            generic(rng)
            | {name: rng.uniform(0.2, 1, (3, 5)) for name in ("q", "lp", "lq")}
            | {"lk": np.array([0.3, 0.9, 1.4])}
        ),
    )
    why = (
        "The sum on the right is the divergence of q from the probabilities renormalised over the same experts: at "
        "least 0, with equality there (Gibbs).",
        "What is left, minus the logarithm of the kept mass, is least for the k experts of largest probability.",
    )
    yield dataclasses.replace(found, steps=(*found.steps, *why))
    keys = np.array(list(itertools.product(range(1, 5), repeat=4)))
    chosen = np.asarray(ranked(TopK(2), jnp.asarray(keys, float), Partition((0,) * 4)))
    yield exhaustive(
        "2 of 4 probabilities in every order",
        range(len(keys)),
        lambda row: keys[row][chosen[row]].sum() == keys[row][PAIRS].sum(axis=1).max(),
        false={"the 2 of largest number": lambda row: keys[row][2:].sum() == keys[row][PAIRS].sum(axis=1).max()},
    )
    masks = jnp.asarray((PAIRS[:, :, None] == np.arange(4)).any(axis=1))

    def sides(point: Array) -> tuple[Array, Array]:
        log_p = jax.nn.log_softmax(point[:4])
        sparse = masked_softmax(jnp.broadcast_to(point[4:], masks.shape), masks)
        divergence = (xlogx(sparse) - sparse * log_p).sum(axis=1).min()
        best = ranked(TopK(2), log_p[None], Partition((0,) * 4))
        return -jax.nn.logsumexp(from_dense(log_p[None], best)[0]), divergence

    yield search(sides, 8, effort, false_factor=0.95, what="4 experts, k = 2: logits of the probabilities and of q")


SPARSE_POSTERIOR = Claim(
    id="routing/top-k-sparse-posterior",
    statement=r"\min_{q\ k\text{-sparse}} \mathrm{KL}(q \,\|\, \pi) = -\ln \sum_{e \in \text{top-}k} \pi_e",
    words="Among distributions over at most k experts, the renormalised top-k is closest to the probabilities; the "
    "divergence is minus the logarithm of the kept mass.",
    source="[variational-moe] top-k as a sparse posterior",
    recorded=Verdict.PROVED,
    check=_sparse_posterior,
    assumptions=("q sums to 1 over the selected experts",),
    functions=(TopK.choose, Renormalised.weigh),
    numbers=Numbers("logits", roundings=16, besides="ranked by logits, as probabilities underflow and tie"),
)

CLAIMS = (CONVENTIONS, GAUGE, SIGMOID_GAUGE, BIAS_FREE, UPDATE_FIRST, SPARSE_POSTERIOR)
