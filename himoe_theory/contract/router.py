"""The properties of a router. What it claims are the answers of its parts: that a selection does not couple tokens,
that every token selects so many of the largest keys in each group, that the task reaches the gate, ..."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..partition import Partition
from ..routers import Router
from .cases import SPREADS, Cases, drawn, hostile, renaming, stacked
from .examine import Property, difference
from .finding import Finding, Outcome, failed, skipped
from .loads import TOKENS, drops, experts_of, loads, none_without, number
from .objective import DTYPES, EXACT
from .routed import Decided, RouterRunner

REAL = np.arange(TOKENS) % 3 != 1
"""A mask of two thirds of the tokens, with padding in between."""
NEAR_ONE = 1e-6
"""Sums of weights have an epsilon in them."""


def routed(router: Router) -> Finding:
    """Whether it routes an ordinary batch."""
    name = "evaluation"
    cases = drawn(np.random.default_rng(0), [1.0], experts=experts_of(router), tokens=TOKENS)
    try:
        found = RouterRunner(router)(cases)
    except Exception as error:  # whatever a user's code raises
        return failed(name, error)
    return Finding(name, Outcome.HOLDS, True, f"{found.selected.sum():.0f} selections of {TOKENS} tokens")


def router_properties(router: Router) -> Iterator[Finding]:
    """All of them. Call it inside `float64()`."""
    rng = np.random.default_rng(0)
    run = RouterRunner(router)
    cases = drawn(rng, [spread for spread in SPREADS for _ in range(10)], experts=experts_of(router), tokens=TOKENS)
    tied = cases._replace(logits=rng.integers(0, 3, cases.logits.shape).astype(float))
    sharp = hostile(rng, 60, experts=experts_of(router), tokens=TOKENS)
    every = stacked(cases, tied, sharp)
    yield _finite(run, sharp)
    yield from _others(run, cases, rng)
    yield _ties(run, tied)
    yield _names(run, cases)
    yield _task(run, cases)
    yield _weights(run, cases)
    yield number(run, every)
    yield loads(run, every)
    yield none_without(run, every)
    yield drops(run, every)
    yield _masks(run, cases, rng)


def _finite(run: RouterRunner, sharp: Cases) -> Finding:
    def in_dtype(dtype: str) -> Finding:
        low = dataclasses.replace(run, dtype=dtype)

        def parts(some: Cases) -> dict[str, np.ndarray]:
            found = low(some)
            return {"weight": found.combine, "log-probability": found.log_probs, "gradient": found.gradient}

        def excess(some: Cases) -> np.ndarray:
            bad = [~np.isfinite(part).reshape(some.number, -1).all(axis=1) for part in parts(some).values()]
            return np.where(np.any(bad, axis=0), np.inf, 0)

        def told(some: Cases) -> str:
            bad = {name: part[~np.isfinite(part)] for name, part in parts(some).items()}
            return f"{dtype}: " + ", ".join(f"{name} {part[0]:g}" for name, part in bad.items() if part.size)

        held = f"weights, log-probabilities and gradient in {', '.join(DTYPES)}"
        return Property("finite at ±1e4", True, excess, told, held).examine(sharp)

    found = [in_dtype(dtype) for dtype in DTYPES]
    return next((each for each in found if each.outcome is Outcome.FAILS), found[-1])


def _others(run: RouterRunner, cases: Cases, rng: np.random.Generator) -> Iterator[Finding]:
    """What other tokens do to a token: all others, those that come later, and later ones while it trains."""
    other = np.round(rng.standard_normal(cases.logits.shape[1:]), 1)
    alone, first = np.arange(TOKENS) % 3 == 1, np.arange(TOKENS) < TOKENS // 2
    apart = not run.router.couples_tokens
    held = apart and run.router.controller.leaves_logits
    training = dataclasses.replace(run, training=True)
    yield _same(run, cases, "batch independence", apart, alone, other, "other tokens")
    yield _same(run, cases, "causality", apart, first, other, "later tokens")
    yield _same(training, cases, "causality in training", held, first, other, "later tokens")


def _same(
    run: RouterRunner, cases: Cases, name: str, claimed: bool, stay: np.ndarray, other: np.ndarray, who: str
) -> Finding:
    """That the tokens that stay are routed as before when the others are exchanged."""

    def both(some: Cases) -> tuple[Decided, Decided]:
        return run(some), run(some._replace(logits=np.where(stay[:, None], some.logits, other)))

    def excess(some: Cases) -> np.ndarray:
        before, after = both(some)
        return _off(before, after, stay)

    def told(some: Cases) -> str:
        return _token_told(*both(some), stay, f"with other {who.removeprefix('other ')}")

    text = f"a token's experts and weights do not change with {who}"
    return Property(name, claimed, excess, told, text, ties=False).examine(cases)


def _off(a: Decided, b: Decided, tokens: np.ndarray) -> np.ndarray:
    """How far some tokens are routed apart."""
    kept = difference(a.kept[:, tokens], b.kept[:, tokens], allowed=0.5)
    chosen = difference(a.selected[:, tokens], b.selected[:, tokens], allowed=0.5)
    return np.max([kept, chosen, difference(a.combine[:, tokens], b.combine[:, tokens], allowed=EXACT)], axis=0)


def _rows(found: Decided, tokens: np.ndarray) -> Decided:
    """What was decided for some of the tokens."""
    parts = {name: part[:, tokens] for name, part in found._asdict().items() if name != "state"}
    return found._replace(**parts)


def _token_told(a: Decided, b: Decided, tokens: np.ndarray, how: str) -> str:
    """The first of the tokens that is routed apart: its experts, or its weights."""
    for token in np.flatnonzero(tokens):
        for part, word in (("selected", "selects"), ("kept", "keeps")):
            before, after = (_set(getattr(each, part)[0, token]) for each in (a, b))
            if before != after:
                return f"token {token} {word} {before}, and {after} {how}"
        off = np.abs(a.combine[0, token] - b.combine[0, token])
        if off.max() > EXACT:
            e = int(off.argmax())
            before, after = (each.combine[0, token, e] for each in (a, b))
            return f"token {token} has weight {before:.6g} of expert {e}, and {after:.6g} {how}"
    return f"routed apart {how}"


def _set(row: np.ndarray) -> str:
    return "{" + ", ".join(str(e) for e in np.flatnonzero(row)) + "}"


def _alike(router: Router) -> tuple[Partition, tuple[int, ...] | None, bool]:
    """Groups inside which experts compete, how many are chosen in each, and whether that is all the router does."""
    rule = router.selection.grouping(router.partition)
    if rule is None:
        return router.partition, router.selection.quotas(router.partition), False
    return *rule, router.controller.leaves_logits and not router.score.couples_tokens


def _ties(run: RouterRunner, tied: Cases) -> Finding:
    groups, _, plain = _alike(run.router)
    ids = groups.ids()
    # [lower, higher]: pairs of one group.
    pair = (ids[:, None] == ids) & (np.arange(ids.size)[:, None] < np.arange(ids.size))

    def wrong(some: Cases) -> np.ndarray:
        s, chosen = some.logits, run(some).selected > 0
        equal = s[..., :, None] == s[..., None, :]
        return equal & pair & ~chosen[..., :, None] & chosen[..., None, :]

    def excess(some: Cases) -> np.ndarray:
        return np.where(wrong(some).any(axis=(1, 2, 3)), np.inf, 0)

    def told(some: Cases) -> str:
        token, low, high = (int(i) for i in np.argwhere(wrong(some)[0])[0])
        return f"token {token} selects expert {high} and not {low}, at equal logits"

    held = "of equal logits in a group the lower number is chosen first"
    return Property("ties", plain and not run.router.policy.thins, excess, told, held).examine(tied)


def _names(run: RouterRunner, cases: Cases) -> Finding:
    router = run.router
    if router.nulls:
        return skipped("names of experts", f"the last {router.nulls} are null experts")
    groups, quotas, plain = _alike(router)
    order = renaming(groups, quotas)

    def both(some: Cases) -> tuple[Decided, Decided]:
        before, after = run(some), run(some.renamed(order))
        turned = {name: getattr(before, name)[..., order] for name in ("selected", "kept", "combine")}
        return before._replace(**turned), after

    def excess(some: Cases) -> np.ndarray:
        return _off(*both(some), np.ones(TOKENS, bool))

    def told(some: Cases) -> str:
        how = f"with experts in the order {' '.join(map(str, order))}"
        return _token_told(*both(some), np.ones(TOKENS, bool), how)

    held = "renamed experts are chosen as before"
    claimed = plain and router.capacity is None
    return Property("names of experts", claimed, excess, told, held, ties=False).examine(cases)


def _task(run: RouterRunner, cases: Cases) -> Finding:
    name, says = "task reaches the gate", run.router.task_reaches_gate
    largest = np.abs(run(cases).gradient).max(axis=(1, 2))
    at = int(largest.argmax())
    text = f"the task's gradient in the logits is up to {largest[at]:.3g}"
    if largest[at] > NEAR_ONE:
        if says:
            return Finding(name, Outcome.HOLDS, True, text)
        return Finding(name, Outcome.FAILS, True, f"{text}, and it says that there is none")
    end = "and it says that there is one" if says else "as it says: one expert's weight is π/π = 1"
    return Finding(name, Outcome.FAILS, says, f"{text}, {end}", "every case")


def _weights(run: RouterRunner, cases: Cases) -> Finding:
    name, router = "weights sum to one", run.router
    if not router.weighting.sums_to_one:
        return skipped(name, "its weighting does not say so")
    whole = router.capacity is None and not router.policy.thins and not router.nulls

    def sums(some: Cases) -> np.ndarray:
        found = run(some)
        return np.where(found.kept.any(axis=2), found.combine.sum(axis=2), 1)

    def excess(some: Cases) -> np.ndarray:
        return np.abs(sums(some) - 1).max(axis=1) / NEAR_ONE

    def told(some: Cases) -> str:
        off = sums(some)[0]
        token = int(np.abs(off - 1).argmax())
        return f"the weights of token {token} sum to {off[token]:.6g}"

    held = f"to {NEAR_ONE:g}, of every token with an expert"
    return Property(name, whole, excess, told, held).examine(cases)


def _masks(run: RouterRunner, cases: Cases, rng: np.random.Generator) -> Finding:
    """Padding selects nothing and changes nothing, in a step of training: routing and state are those without it."""
    run = dataclasses.replace(run, training=True)
    padding = np.round(30 * rng.standard_normal((TOKENS, experts_of(run.router))), 1)
    real = np.flatnonzero(REAL)
    inside = np.ones(real.size, bool)

    def both(some: Cases) -> tuple[Decided, Decided, Decided]:
        after = run(some._replace(logits=np.where(REAL[:, None], some.logits, padding)), REAL)
        # Of another size a random router draws other numbers: there padding is compared with other padding.
        same = run(some, REAL) if run.router.is_random else run(some.tokens(real))
        if run.router.is_random:
            same = _rows(same, REAL)
        return same, _rows(after, REAL), after

    def excess(some: Cases) -> np.ndarray:
        alone, rows, after = both(some)
        outside = np.abs(after.combine[:, ~REAL]).max(axis=(1, 2)) + after.selected[:, ~REAL].max(axis=(1, 2))
        state = difference(alone.state, rows.state, allowed=EXACT)
        return np.max([_off(alone, rows, inside), state, np.where(outside > 0, np.inf, 0)], axis=0)

    def told(some: Cases) -> str:
        alone, rows, after = both(some)
        chosen = np.flatnonzero(after.selected[0][~REAL].any(axis=1))
        if chosen.size:
            return f"padding selects {_set(after.selected[0][~REAL][chosen[0]])}"
        if difference(alone.state, rows.state, allowed=EXACT)[0] > 1:
            return f"the state is off by {np.abs(alone.state - rows.state).max():.3g}"
        return _token_told(alone, rows, inside, "with padding; tokens are counted without it")

    held = "padding selects nothing, and changes neither routing nor state"
    return Property("masks", True, excess, told, held, ties=False).examine(cases)
