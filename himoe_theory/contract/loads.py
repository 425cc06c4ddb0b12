"""How many: experts of a token, tokens of an expert, tokens without any, drops."""

from collections.abc import Iterator

import numpy as np

from ..routers import Router
from .cases import SPREADS, Cases, drawn, hostile
from .examine import Property
from .finding import Finding, Table, skipped
from .routed import Decided, RouterRunner

TOKENS = 16
"""Of a case: enough for places to run out."""


def experts_of(router: Router) -> int:
    """N."""
    return router.partition.num_experts


def number(run: RouterRunner, cases: Cases) -> Finding:
    """At most `routes`; exactly so many where the selection says so."""
    router = run.router
    exact = router.least_routes == router.routes
    least = router.routes if exact else 0

    def excess(some: Cases) -> np.ndarray:
        chosen = run(some).selected.sum(axis=2)
        return np.where(((chosen < least) | (chosen > router.routes)).any(axis=1), np.inf, 0)

    def told(some: Cases) -> str:
        chosen = run(some).selected[0].sum(axis=1)
        token = int(np.maximum(least - chosen, chosen - router.routes).argmax())
        return f"token {token} selects {chosen[token]:.0f}, {'not' if exact else 'more than'} {router.routes}"

    held = f"every token selects {'' if exact else 'at most '}{router.routes}"
    return Property("experts a token", True, excess, told, held).examine(cases)


def loads(run: RouterRunner, cases: Cases) -> Finding:
    """What every expert and every group may get: places, quotas, or everything."""
    router, name = run.router, "load bounds"
    quotas = None if router.policy.thins else router.selection.quotas(router.partition)
    rule = router.capacity
    places = None if rule is None else rule.slots(router.average_routes, TOKENS, experts_of(router))
    groups = router.partition.indicator()
    said = {
        f"an expert keeps at most {places}": places is not None,
        "groups have their quotas": quotas is not None,
        "every expert has every token": router.is_dense,
    }
    if not any(said.values()):
        kept = run(cases).kept.sum(axis=1)
        found = f"{kept.min():.0f} to {kept.max():.0f} tokens an expert found, of {TOKENS}"
        return skipped(name, f"it claims none; {found}")

    def rules(some: Cases) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
        """Words, loads, the least and the most that they may be."""
        found = run(some)
        chosen, kept = found.selected.sum(axis=1), found.kept.sum(axis=1)
        if places is not None:
            yield "expert {} keeps {:.0f} tokens, more than {:.0f}", kept, 0 * kept, 0 * kept + places
        if quotas is not None:
            every = np.broadcast_to(TOKENS * np.asarray(quotas, float), (some.number, len(quotas)))
            yield "group {} is selected {:.0f} times, not {:.0f}", chosen @ groups, every, every
        if router.is_dense:
            yield "expert {} is selected {:.0f} times, not {:.0f}", chosen, 0 * chosen + TOKENS, 0 * chosen + TOKENS

    def excess(some: Cases) -> np.ndarray:
        bad = [((load < least) | (load > most)).any(axis=1) for _, load, least, most in rules(some)]
        return np.where(np.any(bad, axis=0), np.inf, 0)

    def told(some: Cases) -> str:
        wrong = (
            words.format(e, load[0, e], most[0, e])
            for words, load, least, most in rules(some)
            for e in np.flatnonzero((load[0] < least[0]) | (load[0] > most[0]))
        )
        return next(wrong)

    held = "; ".join(words for words, claimed in said.items() if claimed)
    return Property(name, True, excess, told, held).examine(cases)


def none_without(run: RouterRunner, cases: Cases) -> Finding:
    """Claimed where a selection fixes how many a token gets, and nothing takes them away."""
    router = run.router
    sure = router.selection.average(router.partition) is not None and not router.couples_tokens and not router.nulls

    def without(some: Cases) -> np.ndarray:
        return run(some).kept.sum(axis=2) == 0

    def excess(some: Cases) -> np.ndarray:
        return np.where(without(some).any(axis=1), without(some).mean(axis=1) + 1, 0)

    def told(some: Cases) -> str:
        return f"{without(some).sum()} of {TOKENS} tokens, the first is token {int(without(some)[0].argmax())}"

    return Property("no token without an expert", sure, excess, told, "every token keeps one").examine(cases)


def drops(run: RouterRunner, cases: Cases) -> Finding:
    """Claimed where there is room for all, and no null expert."""

    def lost(some: Cases) -> np.ndarray:
        found = run(some)
        return (found.selected - found.kept).sum(axis=(1, 2))

    def told(some: Cases) -> str:
        return f"{lost(some)[0]:.0f} of {run(some).selected.sum():.0f} selections are dropped"

    claimed = run.router.capacity is None and not run.router.nulls
    held = "all that is selected is kept"
    return Property("no drops", claimed, lambda some: 2 * lost(some), told, held).examine(cases)


def loads_table(router: Router) -> Table:
    """Loads, tokens without an expert and drops, for random logits and for the worst that is known."""
    rng = np.random.default_rng(5)
    run, size = RouterRunner(router), {"experts": experts_of(router), "tokens": TOKENS}
    rows = [(f"random, spread {spread:g}", drawn(rng, [spread] * 60, **size)) for spread in SPREADS]
    same = drawn(rng, [1.0] * 60, **size)
    rows.append(("all tokens alike", same._replace(logits=np.repeat(same.logits[:, :1], TOKENS, axis=1))))
    rows.append(("entries of ±1e4", hostile(rng, 60, **size)))
    heading = ("logits", "least load", "greatest load", "tokens without an expert", "drops")
    note = (
        f"Loads are tokens that an expert keeps, over the mean; {TOKENS} tokens, {experts_of(router)} experts, 60 "
        "batches of each kind, from the router's first state."
    )
    return Table("Loads found", heading, tuple((name, *_load_row(run(cases))) for name, cases in rows), note)


def _load_row(found: Decided) -> tuple[str, ...]:
    load = found.kept.sum(axis=1)
    relative = load / np.maximum(load.mean(axis=1, keepdims=True), 1e-12)
    chosen = found.selected.sum()
    lost = (chosen - found.kept.sum()) / max(chosen, 1)
    shares = (~found.kept.any(axis=2)).mean(), lost
    return f"{relative.min():.3g}", f"{relative.max():.3g}", *(f"{100 * share:.1f} %" for share in shares)
