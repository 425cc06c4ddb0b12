"""Claims about gradients of group terms: how far they agree in logit space (D4), and along shifts of groups (D10)."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import sympy as sp
from jaxtyping import Array

from himoe_theory import (
    GroupedTopK,
    Partition,
    geometry,
    objectives,
    ranked,
    to_dense,
)
from himoe_theory.objectives import inter_group, intra_group

from ..ledger import Claim, Effort, Finding, Verdict
from ..search import measured
from ..witnesses import sampled, witness


@functools.partial(jax.jit, static_argnums=1)
def _cosines(logits: Array, groups: int) -> Array:
    partition = Partition.equal(logits.shape[1], groups)
    inside = intra_group.intra_group_conditional_grad(logits, partition)
    return geometry.euclidean_cosine(inter_group.inter_group_dense_grad(logits, partition), inside)


def _nine_tenths(effort: Effort) -> Iterator[Finding]:
    rng = np.random.default_rng(effort.seed)
    logits = jnp.asarray(10 ** rng.uniform(-1, 1, (8000, 1)) * rng.normal(size=(8000, 8)))
    four, two = (float(jnp.quantile(jnp.abs(_cosines(logits, groups)), 0.9)) for groups in (4, 2))
    pairs = [("90% quantile of the absolute cosine", 0.25, four)]
    yield measured("8,000 tokens, 8 experts in 4 groups", pairs, within=0.06, wrong={"in 2 groups": [two]})


NINE_TENTHS = Claim(
    id="compatibility/euclidean-cosine-quantile",
    statement=r"P(|\cos(\nabla_s F(m), \nabla_s G(q))| \le .25) \approx .9",
    words="In logit space 90 per cent of the cosines between the two terms are within a quarter.",
    source="[himoe-theory] D4",
    recorded=Verdict.SUPPORTED,
    check=_nine_tenths,
    assumptions=(
        "F the sum of squared masses, G minus the mean purity; 8 experts in 4 groups",
        "independent normal logits, a token's standard deviation log-uniform from .1 to 10",
    ),
    functions=(geometry.euclidean_cosine,),
    remark="The notes name neither sizes nor a law. It is not general: with 2 groups of 4 experts about 70 per cent "
    "are within a quarter, with 4 groups of 16 about 82.",
)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _shift_shares(batches: Array, groups: int, routes: int) -> Array:
    """Of each batch: the load gradient in offsets of experts, its part along group shifts over its part inside."""
    partition = Partition.equal(batches.shape[-1], groups)

    def one(logits: Array) -> Array:
        chosen = ranked(GroupedTopK(routes), logits, partition)
        selected = to_dense(jnp.ones(chosen.shape, dtype=bool), chosen, logits.shape[1])
        offsets = objectives.load_grad(logits, selected).sum(axis=0).reshape(groups, -1)
        along = jnp.broadcast_to(offsets.mean(axis=1, keepdims=True), offsets.shape)
        return jnp.sqrt(jnp.square(along).sum() / jnp.square(offsets - along).sum())

    return jax.vmap(one)(batches)


def _shift(effort: Effort) -> Iterator[Finding]:
    even = [sp.Rational(3, 8), sp.Rational(1, 8)] * 2
    uneven = [sp.Rational(1, 2), sp.Rational(1, 8), sp.Rational(1, 4), sp.Rational(1, 8)]
    logits = jnp.log(jnp.asarray([[[float(share) for share in shares]] for shares in (uneven, even)]))
    exact = sp.sqrt(sp.Rational(1, 37))
    yield witness(
        "one token, probabilities (4, 1, 2, 1)/8 in groups of two, experts 0 and 2 selected: gradient proportional to "
        "(4, -3, 2, -3), so (1, 1, -1, -1)/2 along shifts and (7, -7, 5, -5)/2 inside: share",
        exact,
        "<=",
        sp.Rational(13, 100),
        holds_at={"(3, 1, 3, 1)/8, with nothing along shifts": (0, sp.Rational(13, 100))},
        code=list(zip(_shift_shares(logits, 2, 1), (exact, sp.S.Zero), strict=True)),
    )
    rng = np.random.default_rng(effort.seed)
    found = []
    for experts, tokens, routes, spread in ((8, 48, 1, 1.0), (16, 64, 2, 2.0)):
        batches = rng.normal(size=(60, tokens, 16)) @ rng.normal(size=(60, 16, experts)) * spread / 4
        found += [(experts, float(x)) for x in _shift_shares(jnp.asarray(batches), 4, routes)]
    yield sampled(
        "60 batches each of a linear router and normal tokens: 8 experts, 48 tokens, K = 1, logits of standard "
        "deviation 1; 16, 64, 2, 2; 4 groups",
        found,
        lambda case: 0.08 <= case[1] <= 0.13,
        false={},
        said=lambda case: f"{case[0]} experts, share {case[1]:.4f}",
    )


SHIFT = Claim(
    id="load/group-shift-share",
    statement=r".08 \le \frac{\|\text{part along group shifts}\|}{\|\text{part inside groups}\|} \le .13",
    words="The load's gradient along shifts of whole groups is 8 to 13 per cent of its part inside groups.",
    source="[himoe-theory] D10",
    recorded=Verdict.REFUTED,
    check=_shift,
    assumptions=("logits drawn with the sizes and spreads of the reference cases, which are not read here",),
    functions=(objectives.load_grad, GroupedTopK.choose),
    remark="Of offsets common to all tokens the medians are .08 and .10, the middle 90 per cent .03 to .15 and .04 to "
    ".23. Token by token the part along shifts is not small: medians .45 and .41.",
)

CLAIMS = (NINE_TENTHS, SHIFT)
