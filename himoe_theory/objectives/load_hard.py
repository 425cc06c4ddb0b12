r"""Load-balancing objectives with hard counts: $L = N \sum_e h_e P_e$ in the forms that go by that name.

h is the share of dispatches an expert receives, P the batch mean of its probability. Three versions of the gradient
exist and behave differently (D1, D10): *hard* (h counts selections and has no derivative), *frozen* (h = P as a value,
no gradient through it) and *full* (h = P, gradient through both factors): the last two are in `load_soft`. The records'
`convention` says who divides by what. All are dimensionless, averaged over tokens and to be minimised.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .. import _checks
from .._numerics import masked_softmax, safe_divide
from ..partition import Partition
from ..routing import Routing
from ..selection.ranking import rank
from ._softmax import Mask, blanked, checked_logits, checked_selection, per_token, pull_back, token_mean, tokens_of
from .record import LoadConvention, LoadForm, of_arrays


def _counts(selected: Bool[Array, "tokens experts"], like: Array) -> Float[Array, " experts"]:
    """Whole numbers before any division: exact in every type."""
    return selected.sum(axis=0, dtype=jnp.int32).astype(like.dtype)


def dispatch_share(
    selected: Bool[Array, "tokens experts"], logits: Float[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, " experts"]:
    r"""Canonical $h_e = n_e / \sum_j n_j$, $n_e$ the tokens that selected e; sums to 1, or is 0 if nothing is
    selected. **Arguments:** `logits`: read for their shape and type alone."""
    logits = checked_logits(logits, mask=mask)
    counts = _counts(checked_selection(selected, logits, mask), logits)
    return safe_divide(counts, counts.sum(), otherwise=0.0)


def load_for_share(
    logits: Float[Array, "tokens experts"], share: Float[Array, " experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""$N \sum_e h_e P_e$ for a share h given from outside (another batch, all devices); no gradient through h.

    **Arguments:** `logits`: s, with P the token mean of softmax(s). `share`: h, non-negative, normalised as the caller
    chose. **Returns:** scalar $\ge 0$. **Source:** [gshard] eq. (4) of its algorithm 1; [himoe] eq. (2).
    """
    logits = checked_logits(logits, mask=mask)
    share = jax.lax.stop_gradient(_share_like(share, logits))
    return logits.shape[1] * (share * token_mean(jax.nn.softmax(logits), mask)).sum()


def load_for_share_grad(
    logits: Float[Array, "tokens experts"], share: Float[Array, " experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\partial L/\partial s_{te} = \frac{N}{T} \pi_e (h_e - \sum_j h_j \pi_j)$."""
    logits = checked_logits(logits, mask=mask)
    return logits.shape[1] * per_token(pull_back(jax.nn.softmax(logits), _share_like(share, logits)), mask)


def _share_like(share: Float[Array, " experts"], logits: Float[Array, "tokens experts"]) -> Float[Array, " experts"]:
    share = _checks.per_expert("share", share, logits.shape[1]).astype(logits.dtype)
    _checks.coefficient("share", share)
    return share


def load(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Canonical load balance: hard counts, $h_e = n_e/(TK)$ so that $\sum_e h_e = 1$; gradient hard (none through h).

    Range $[0, N]$; 1 at uniform probabilities or at uniform counts, but uniform routing is not its minimum (D10).
    **Source:** [gshard], [switch] eq. (4), with the normalisation of [megatron].
    """
    logits = checked_logits(logits, mask=mask)
    return load_for_share(logits, dispatch_share(selected, logits, mask=mask), mask=mask)


def load_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (h_e - \langle h, \pi \rangle)$ with $h_e = n_e/(TK)$."""
    logits = checked_logits(logits, mask=mask)
    return load_for_share_grad(logits, dispatch_share(selected, logits, mask=mask), mask=mask)


def _per_token_share(
    selected: Bool[Array, "tokens experts"], logits: Float[Array, "tokens experts"], mask: Mask
) -> Float[Array, " experts"]:
    return _counts(checked_selection(selected, logits, mask), logits) / tokens_of(logits, mask)


def load_per_token(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Load with $h_e = n_e/T$, so that $\sum_e h_e = K$, the number of experts a token selects; gradient hard.

    K times `load`; value K at uniform routing. **Source:** [himoe-code] grouped routers (Switch form), [maxtext].
    """
    logits = checked_logits(logits, mask=mask)
    return load_for_share(logits, _per_token_share(selected, logits, mask), mask=mask)


def load_per_token_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (h_e - \langle h, \pi \rangle)$ with $h_e = n_e/T$."""
    logits = checked_logits(logits, mask=mask)
    return load_for_share_grad(logits, _per_token_share(selected, logits, mask), mask=mask)


def load_selected_weights(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""The released flat router's load: $N \sum_e h_e \bar w_e$, $h_e = n_e/(TK)$ and $\bar w_e$ the batch mean of the
    *selected, renormalised* weights $w_{te} = \pi_e 1_{sel} / \sum_{sel} \pi$; gradient hard in h, through w.

    Value 1 at uniform routing. **Source:** [himoe-code] flat (vanilla) router.
    """
    logits = checked_logits(logits, mask=mask)
    selected = checked_selection(selected, logits, mask)
    share = dispatch_share(selected, logits, mask=mask)
    return logits.shape[1] * (share * token_mean(masked_softmax(logits, selected), mask)).sum()


def load_selected_weights_grad(
    logits: Float[Array, "tokens experts"], selected: Bool[Array, "tokens experts"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} w_e (h_e - \langle h, w \rangle)$: zero outside the selection."""
    logits = checked_logits(logits, mask=mask)
    selected = checked_selection(selected, logits, mask)
    share = dispatch_share(selected, logits, mask=mask)
    return logits.shape[1] * per_token(pull_back(masked_softmax(logits, selected), share), mask)


def _first_choice_share(experts: Int[Array, "tokens routes"], logits: Array, mask: Mask) -> Float[Array, " experts"]:
    experts = _checks.chosen("experts", experts, *logits.shape)
    first = jax.nn.one_hot(experts[:, 0], logits.shape[1], dtype=jnp.bool_)
    return _per_token_share(first, logits, mask)


def load_first_choice(
    logits: Float[Array, "tokens experts"], experts: Int[Array, "tokens routes"], *, mask: Mask = None
) -> Float[Array, ""]:
    r"""Load in which only first choices count: $h_e = $ share of tokens whose best expert is e, $\sum_e h_e = 1$; hard.

    **Arguments:** `experts`: the expert of each route, best first. Value 1 at uniform routing.
    **Source:** [st-moe], V-MoE and Tutel; [himoe-code] ST-MoE router.
    """
    logits = checked_logits(logits, mask=mask)
    return load_for_share(logits, _first_choice_share(experts, logits, mask), mask=mask)


def load_first_choice_grad(
    logits: Float[Array, "tokens experts"], experts: Int[Array, "tokens routes"], *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (h_e - \langle h, \pi \rangle)$ with the first choices' h."""
    logits = checked_logits(logits, mask=mask)
    return load_for_share_grad(logits, _first_choice_share(experts, logits, mask), mask=mask)


def plain_top_k(logits: Float[Array, "tokens experts"], routes: int) -> Bool[Array, "tokens experts"]:
    """The largest of each token's logits, or log-probabilities: no bias, groups, policy or capacity. Of equal ones the
    first. **Arguments:** `routes`: K, how many."""
    logits = checked_logits(logits)
    _checks.count("routes", routes, maximum=logits.shape[1], of="the experts")
    return rank((jax.lax.stop_gradient(logits),)) < routes


def load_top_k(logits: Float[Array, "tokens experts"], routes: int, *, mask: Mask = None) -> Float[Array, ""]:
    r"""Load of the selection that plain top-k of the probabilities would make, $h_e = n_e/(TK)$; gradient hard.

    What Megatron computes: with groups or a bias it counts another selection than the dispatched one. Equal to `load`
    for plain top-k routers. **Arguments:** `routes`: K. Value 1 at uniform routing. **Source:** [megatron].
    """
    blank = blanked("logits", logits, mask)
    return load(logits, plain_top_k(blank, routes), mask=mask)


def load_top_k_grad(
    logits: Float[Array, "tokens experts"], routes: int, *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (h_e - \langle h, \pi \rangle)$ with the h of plain top-k."""
    blank = blanked("logits", logits, mask)
    return load_grad(logits, plain_top_k(blank, routes), mask=mask)


def load_top_k_per_token(logits: Float[Array, "tokens experts"], routes: int, *, mask: Mask = None) -> Float[Array, ""]:
    r"""The same with $h_e = n_e/T$, so that $\sum_e h_e = K$: K times `load_top_k`, and K at uniform routing.

    Transformers computes it with h and P pooled over layers. **Arguments:** `routes`: K. **Source:** [transformers].
    """
    return routes * load_top_k(logits, routes, mask=mask)


def load_top_k_per_token_grad(
    logits: Float[Array, "tokens experts"], routes: int, *, mask: Mask = None
) -> Float[Array, "tokens experts"]:
    r"""$\frac{N}{T} \pi_e (h_e - \langle h, \pi \rangle)$ with $h_e = n_e/T$ of plain top-k."""
    return routes * load_top_k_grad(logits, routes, mask=mask)


def _selected(routing: Routing) -> Bool[Array, "tokens experts"]:
    return routing.selected


def _top_k(routing: Routing) -> Bool[Array, "tokens experts"]:
    return plain_top_k(blanked("log_probs", routing.log_probs, routing.mask), routing.num_routes)


def _first(routing: Routing) -> Bool[Array, "tokens experts"]:
    return jax.nn.one_hot(routing.experts[:, 0], routing.logits.shape[1], dtype=jnp.bool_)


def _selected_weights(routing: Routing) -> Float[Array, "tokens experts"]:
    return masked_softmax(routing.log_probs, routing.selected)


def _up_to_experts(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, float(partition.num_experts)


def _up_to_routes(partition: Partition, tokens: int, routes: int) -> tuple[float, float]:
    return 0.0, float(partition.num_experts * routes)


def _one(experts: int, routes: int) -> float:
    return 1.0


def _routes(experts: int, routes: int) -> float:
    return float(routes)


_SELECTION = ("routing.log_probs", "routing.selected")

RECORDS = (
    of_arrays(
        "load",
        load,
        load_grad,
        *_SELECTION,
        source="switch",
        label="load (hard)",
        needs=frozenset({"selection"}),
        bounds=_up_to_experts,
        convention=LoadConvention(
            "counts/(TK)", "mean softmax", "hard", "OLMo-core, DeepSeek; canonical", _one, LoadForm(_selected)
        ),
        token_mean=False,
    ),
    of_arrays(
        "load_per_token",
        load_per_token,
        load_per_token_grad,
        *_SELECTION,
        source="himoe-code",
        label="load",
        needs=frozenset({"selection"}),
        bounds=_up_to_routes,
        convention=LoadConvention(
            "counts/T", "mean softmax", "hard", "Hi-MoE grouped, MaxText", _routes, LoadForm(_selected, per_token=True)
        ),
        token_mean=False,
    ),
    of_arrays(
        "load_selected_weights",
        load_selected_weights,
        load_selected_weights_grad,
        *_SELECTION,
        source="himoe-code",
        label="load (selected p)",
        needs=frozenset({"selection"}),
        bounds=_up_to_experts,
        convention=LoadConvention(
            "counts/(TK)",
            "mean of selected, renormalised weights",
            "hard in h, through w",
            "Hi-MoE flat",
            _one,
            LoadForm(_selected, weights=_selected_weights),
        ),
        token_mean=False,
    ),
    of_arrays(
        "load_first_choice",
        load_first_choice,
        load_first_choice_grad,
        "routing.log_probs",
        "routing.experts",
        source="st-moe",
        label="load (1st choice)",
        needs=frozenset({"selection"}),
        bounds=_up_to_experts,
        convention=LoadConvention(
            "first choices/T", "mean softmax", "hard", "ST-MoE, Tutel, V-MoE", _one, LoadForm(_first, per_token=True)
        ),
        token_mean=False,
    ),
    of_arrays(
        "load_top_k",
        load_top_k,
        load_top_k_grad,
        "routing.log_probs",
        "routing.num_routes",
        source="megatron",
        label="load (plain top-k)",
        bounds=_up_to_experts,
        convention=LoadConvention("plain top-k/(TK)", "mean softmax", "hard", "Megatron", _one, LoadForm(_top_k)),
        token_mean=False,
    ),
    of_arrays(
        "load_top_k_per_token",
        load_top_k_per_token,
        load_top_k_per_token_grad,
        "routing.log_probs",
        "routing.num_routes",
        source="transformers",
        label="load (plain top-k, K)",
        bounds=_up_to_routes,
        convention=LoadConvention(
            "plain top-k/T", "mean softmax", "hard", "Transformers", _routes, LoadForm(_top_k, per_token=True)
        ),
        token_mean=False,
    ),
)
