"""What an objective's values are: at exactly uniform routing, and the range that a search finds."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..objectives import OBJECTIVES, Objective, View
from ..partition import Partition
from ..routers import from_routes
from ..routing import Routing
from .cases import DIM, EXPERTS, PARTITION, ROUTES, SPREADS, TOKENS, Cases, balanced, drawn, hostile, stacked
from .examine import Property
from .finding import Finding, Outcome, Table, skipped
from .programs import Runner, given

ROUNDS = 25
"""Of the search for the range, 64 cases each."""


def even_routes(k: int, tokens: int = TOKENS, experts: int = EXPERTS) -> Int[np.ndarray, "tokens routes"]:
    """Token t goes to experts t, t + 1, ..., so that counts are equal."""
    return ((np.arange(tokens)[:, None] + np.arange(k)) % experts).astype(np.int32)


def evenly(logits: Array, k: int, partition: Partition) -> Routing:
    """The record of such routes, with these logits."""
    routes = even_routes(k, logits.shape[0], partition.num_experts)
    return from_routes(logits, jnp.asarray(routes), partition)


def even_view(objective: Objective, logits: Array, k: int, partition: Partition) -> View:
    """The same as a view. Outputs of the experts are equal; the layer above routes evenly too."""
    tokens = logits.shape[0]
    ones = jnp.ones((tokens, k, DIM), logits.dtype)
    above, costs = evenly(jnp.zeros_like(logits), k, partition), jnp.ones(partition.num_experts, logits.dtype)
    return given(objective, View(evenly(logits, k, partition), ones, ones[:, 0], None, above, costs))


@eqx.filter_jit
def _even_values(objective: Objective, logits: Array) -> list[Array]:
    return [objective.value(even_view(objective, logits, k, PARTITION)) for k in (1, 2)]


def balance(objective: Objective) -> tuple[Finding, Table]:
    """The values at exactly uniform routing of eight experts, one and two a token, and whose convention they are."""
    name = "value at exact balance"
    found = [float(value) for value in _even_values(objective, jnp.zeros((TOKENS, EXPERTS)))]
    alike = [
        f"{each.name} ({each.convention.used_by})"
        for each in OBJECTIVES.values()
        if each.convention is not None and _near(found, each)
    ]
    told = f"{found[0]:.6g} for one expert a token, {found[1]:.6g} for two"
    rows = tuple((str(k), f"{value:.6g}") for k, value in zip((1, 2), found, strict=True))
    note = f"The same as by the conventions of {'; '.join(alike)}." if alike else "No load convention has these values."
    table = Table("Value at exactly uniform routing, 8 experts", ("experts a token", "value"), rows, note)
    if objective.convention is None:
        return skipped(name, f"it claims no load convention; the value is {told}"), table
    wanted = [objective.convention.at_uniform(EXPERTS, k) for k in (1, 2)]
    holds = _near(found, objective)
    told += f"; its convention says {wanted[0]:.6g} and {wanted[1]:.6g}"
    outcome = Outcome.HOLDS if holds else Outcome.FAILS
    return Finding(name, outcome, True, told, "" if holds else "logits (0, 0, 0, 0, 0, 0, 0, 0) x 8"), table


def _near(values: list[float], objective: Objective) -> bool:
    if objective.convention is None:
        return False
    wanted = [objective.convention.at_uniform(EXPERTS, k) for k in (1, 2)]
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(values, wanted, strict=True))


def bounds(run: Runner) -> tuple[Finding, Table]:
    """The range that a directed search finds, and whether it stays inside the claimed one."""
    objective = run.objective
    rng = np.random.default_rng(1)
    start = stacked(
        drawn(rng, [spread for spread in (*SPREADS, 30.0) for _ in range(12)]), hostile(rng, 12), balanced(rng)
    )
    ends = [_furthest(run, start, sign, rng) for sign in (-1, 1)]
    low, high = (float(run(end).value[0]) for end in ends)
    claim = None if objective.bounds is None else objective.bounds(PARTITION, TOKENS, ROUTES)
    rows = [("found", f"{low:.6g}", f"{high:.6g}")]
    if claim is not None:
        rows.append(("claimed", f"{claim[0]:.6g}", f"{claim[1]:.6g}"))
    size = f"{TOKENS} tokens, {EXPERTS} experts in groups of {', '.join(map(str, PARTITION.sizes))}, {ROUTES} a token"
    table = Table("Range of the value", ("", "least", "greatest"), tuple(rows), f"{size}; found by a directed search.")
    if claim is None:
        return skipped("bounds", f"it claims none; the search found {low:.6g} to {high:.6g}"), table
    slack = [1e-9 * max(1.0, abs(end)) if math.isfinite(end) else 1.0 for end in claim]

    def excess(some: Cases) -> np.ndarray:
        value = run(some).value
        # A whole range away from the bound counts 1 or more; a value inside counts at most 1.
        return np.maximum((claim[0] - value) / slack[0], (value - claim[1]) / slack[1])

    def told(some: Cases) -> str:
        return f"value {run(some).value[0]:.6g} outside of {claim[0]:.6g} to {claim[1]:.6g}"

    held = f"{low:.6g} to {high:.6g} found, {claim[0]:.6g} to {claim[1]:.6g} claimed"
    rule = Property("bounds", True, excess, told, held, variable=run.variable)
    return rule.examine(stacked(start, *ends)), table


def _furthest(run: Runner, start: Cases, sign: int, rng: np.random.Generator) -> Cases:
    """The case of greatest sign · value that a search finds: half along the gradient, half by chance."""
    variable, best = run.variable, start
    for _ in range(ROUNDS):
        found = run(best)
        score = np.where(np.isfinite(found.value), sign * found.value, -np.inf)
        order = np.argsort(-score, kind="stable")[:8]
        best = best.take(order)
        at, slope = getattr(best, variable), sign * found.autodiff[order]
        length = np.abs(slope).reshape(len(at), -1).max(axis=1).reshape(-1, *[1] * (at.ndim - 1))
        along = np.where(np.isfinite(slope), slope, 0) / np.where(np.isfinite(length) & (length > 0), length, 1)
        moves = [at + step * along for step in (0.3, 3.0, 30.0)]
        moves += [at + step * rng.standard_normal(at.shape) for step in (0.1, 1.0)]
        moves.append(at * 3)
        moves.append(
            np.where(rng.random(at.shape[:2]).reshape(*at.shape[:2], *[1] * (at.ndim - 2)) < 0.3, at[:, :1], at)
        )
        tried = np.clip(np.concatenate([at, *moves]), -1e4, 1e4)
        best = best.take(np.tile(np.arange(best.number), len(moves) + 1))._replace(**{variable: tried})
    value = sign * run(best).value
    return best.take([int(np.where(np.isfinite(value), value, -np.inf).argmax())])
