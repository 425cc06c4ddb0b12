r"""Claims about conventions of released code: what bias correction reaches, GShard's own normalisation, causality."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import LogitAverage, Partition, Router, routers
from himoe_theory.objectives import OBJECTIVES, View, load_first_choice

from ..ledger import Claim, Effort, Finding, Numbers, Verdict, about
from ..notation import GROUP_OF, SIZES, Assumption, N, T, e, p, t
from ..search import QUICK
from ..sums import Rule, total
from ..symbolic import identity
from ..witnesses import sampled, witness
from ._gradients import first, i, u, v

PARTITION = Partition(tuple(GROUP_OF.tolist()))


# What bias correction reaches


DEFAULT = ("intra_group_global", "inter_group_dense")
OTHERS = ("intra_group_global_selection", "inter_group_selected", "inter_group_sparse")
GRID = [(tau, temperature) for tau in (0.0, 0.01, 0.5, 2.0) for temperature in (0.5, 1.0, 1.5)]


@functools.partial(jax.jit, compiler_options=QUICK)
def _over_grid(tau: Array, temperature: Array, logits: Array) -> dict[str, tuple[Array, Array]]:
    """Value and gradient of each term, and the weights, for every pair of tau and temperature."""

    def one(tau: Array, temperature: Array) -> dict[str, tuple[Array, Array]]:
        controller = LogitAverage(tau, 0.9, temperature)
        router = dataclasses.replace(routers.himoe(PARTITION, 1), controller=controller)
        routing, _ = router.step(None, jnp.array([0.3, -0.2, 0.05, 0.4, 0.0]), logits)
        terms, view = {name: OBJECTIVES[name] for name in (*DEFAULT, *OTHERS)}, View(routing)
        found = {name: (term.value(view), term.gradient(view)) for name, term in terms.items()}
        return found | {"selection": (routing.experts, routing.weights)}

    return jax.vmap(one)(tau, temperature)


def _reaches(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(effort.seed)
    tau, temperature = (jnp.asarray(column) for column in np.array(GRID).T)
    found = [jax.device_get(_over_grid(tau, temperature, jnp.asarray(rng.normal(size=(4, 5))))) for _ in range(8)]

    def same(case: tuple[int, int], *names: str) -> bool:
        batch, place = case
        leaves = (leaf for name in names for leaf in found[batch][name])
        return all(np.array_equal(leaf[place], leaf[0]) for leaf in leaves)

    yield sampled(
        "8 batches of 4 tokens and 5 experts, 12 pairs of tau up to 2 and Temp from 1/2 to 3/2; bit for bit",
        [(batch, place) for batch in range(8) for place in range(len(GRID))],
        lambda case: same(case, *DEFAULT),
        false={name: functools.partial(lambda name, case: same(case, name), name) for name in (*OTHERS, "selection")},
    )


REACHES = Claim(
    id="growth/default-modes-uncorrected",
    statement=r"\partial_\tau R_{\mathrm{intra}} = \partial_\tau R_{\mathrm{inter}} = 0, \quad "
    r"\partial_{\mathrm{Temp}} R_{\mathrm{intra}} = \partial_{\mathrm{Temp}} R_{\mathrm{inter}} = 0",
    words="In the released default modes, raw probabilities and dense group mass, bias correction changes neither "
    "regulariser nor their gradients, only selection and weights.",
    source="[himoe-code] default modes",
    recorded=Verdict.SUPPORTED,
    check=_reaches,
    functions=(Router.step, LogitAverage.prepare, *(OBJECTIVES[name].functions[0] for name in DEFAULT)),
    numbers=Numbers("logits", besides="the regularisers do not see the correction at all"),
    remark="By construction: both are functions of the raw logits. The modes that read the selection do change, as the "
    "controls show.",
)


# Other codes

FIRST = Assumption(
    "one choice of a token is its first",
    (Rule(e, first[t, e], sp.S.One),),
    lambda d: d | {"first": np.eye(5)[[3, 1, 3]]},
)


def _gshard(effort: Effort) -> Iterator[Finding]:
    def value(of: Callable[[sp.Idx], sp.Expr]) -> sp.Expr:
        return total(total(first[u, i], u) / T * total(of(i), v) / T, i) / N

    choices = jnp.array([[3], [1], [3]])

    def own(logits: Array) -> Array:
        return load_first_choice(logits, choices) / 25

    found = identity(
        value(lambda _: 1 / N),
        1 / N**2,
        assumptions=(FIRST,),
        variants={"1, as with the canonical form": sp.S.One},
        sample=lambda rng: {"first": np.ones((3, 5))},
        sizes=SIZES,
        code=lambda d: own(jnp.zeros((3, 5))),
    )
    yield about("value at uniform probabilities", found)
    canonical = N * total(total(first[u, i], u) / T * total(p[v, i], v) / T, i)
    found = identity(
        value(lambda expert: p[v, expert]),
        canonical / N**2,
        variants={"over N": canonical / N},
        sample=lambda rng: {
            "first": np.eye(5)[[3, 1, 3]],
            "p": (raised := rng.uniform(0.1, 1, (3, 5))) / raised.sum(axis=1, keepdims=True),
        },
        sizes=SIZES,
        code=lambda d: own(jnp.log(jnp.asarray(d["p"]))),
    )
    yield about("against the canonical form", found)


GSHARD = Claim(
    id="load/uniform-gshard",
    statement=r"\frac1N \sum_e \frac{c_e}{T}\, \bar m_e = \frac{1}{N^2} \text{ at uniform probabilities}",
    words="GShard's own form of the load loss, with first choices counted, is 1/N² at uniform probabilities, whatever "
    "the counts: the form with N in front over N².",
    source="[gshard] algorithm 1",
    recorded=Verdict.PROVED,
    check=_gshard,
    assumptions=("all probabilities are equal (first part)",),
    functions=(load_first_choice,),
    remark="So its coefficient is N² times smaller in effect than that of the form that is canonical here; with K "
    "choices counted it is K/N².",
)


def _not_causal(effort: Effort) -> Iterator[Finding]:
    router = routers.himoe(Partition((0, 0)), 1)  # tau = 0.01, beta = 0.9 as published

    @jax.jit
    def weight(second: Array) -> tuple[Array, Array]:
        logits = jnp.stack([jnp.array([0.001, 0.0]), second])
        return tuple(router.step(None, jnp.zeros(2), logits, training=mode)[0].combine[0, 0] for mode in (True, False))

    beside = [weight(jnp.array(second)) for second in ([4.0, 0.0], [0.0, 4.0])]
    yield witness(
        "2 experts in one group, k = 1, tau = 0.01, beta = 0.9, Temp = 1, first batch of a training: the first token "
        "has logits (.001, 0), the second (4, 0) or (0, 4), so that the average is (.20005, 0) or (.00005, .2): weight "
        "of the first token at expert 0, left beside the first choice, right beside the second",
        0,
        "=",
        1,
        holds_at={"in evaluation, where the average is given": (1, 1)},
        code=[(beside[0][0], 0), (beside[1][0], 1), (beside[0][1], 1), (beside[1][1], 1)],
    )


NOT_CAUSAL = Claim(
    id="routing/himoe-training-causal",
    statement=r"w_t = w(s_1, \dots, s_t; \text{state}) \quad \text{for Hi-MoE in training}",
    words="In training, a later token does not change what an earlier one gets from Hi-MoE.",
    source="[himoe-code] bias correction",
    recorded=Verdict.REFUTED,
    check=_not_causal,
    functions=(Router.step, LogitAverage.prepare),
    remark="The average is updated by the whole batch before it is used. In evaluation it is given, and routing is "
    "token by token.",
)

CLAIMS = (REACHES, GSHARD, NOT_CAUSAL)
