"""The whole contract of an object."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..objectives import OBJECTIVES, Objective
from ..routers import Router
from .angles import Angles, Cosine, cosines
from .cases import SPREADS, drawn, float64
from .finding import Contract, Finding, Outcome, Table, failed, skipped
from .loads import loads_table
from .measured import balance, bounds
from .objective import flat_router, properties
from .ours import named
from .programs import Runner
from .rates import Rate, growth
from .router import routed, router_properties


def check(thing: str | Objective | Router | Any) -> Contract:
    """What an objective or a router claims, tried; and what it was not asked for, measured. Seconds; in float64.

    **Arguments:** `thing`: an `Objective`, a `Router`, what has one as `router` (an arm), or the name of one of
    ours. **Raises:** `ValueError` for anything else.
    """
    if isinstance(thing, str):
        thing = named(thing)
    if isinstance(thing, Objective):
        return _of_objective(thing)
    router = thing if isinstance(thing, Router) else getattr(thing, "router", None)
    if isinstance(router, Router):
        return _of_router(router)
    raise ValueError(f"`thing` must be an Objective or a Router; got {type(thing).__name__}.")


def _of_objective(objective: Objective) -> Contract:
    first = _evaluation(objective)
    if first.outcome is not Outcome.HOLDS:
        return Contract(objective.name, "objective", _about(objective), (first,))
    with float64():
        run = Runner(objective, flat_router())
        findings = [first, *properties(objective)]
        at_balance, values = balance(objective)
        inside, span = bounds(run)
    tables = [values, span]
    if objective.of != "outputs":
        tables += [_angles([cosines(objective, spread) for spread in SPREADS]), _rates(growth(objective))]
    return Contract(objective.name, "objective", _about(objective), (*findings, at_balance, inside), tuple(tables))


def _of_router(router: Router) -> Contract:
    about = _about_router(router)
    with float64():
        first = routed(router)
        if first.outcome is not Outcome.HOLDS:
            return Contract(router.name, "router", about, (first,))
        findings = (first, *router_properties(router))
        return Contract(router.name, "router", about, findings, (loads_table(router),))


def _evaluation(objective: Objective) -> Finding:
    """Whether it gives a scalar, and a gradient of the right shape, on an ordinary batch."""
    name = "evaluation"
    if "parameters" in objective.needs:
        return skipped(name, "it needs `parameters`, which are there in training alone", claimed=True)
    with float64():
        cases, run = drawn(np.random.default_rng(0), [1.0]), Runner(objective, flat_router())
        try:
            found = run(cases)
        except Exception as error:  # whatever a user's code raises
            return failed(name, error)
    wanted = getattr(cases, run.variable).shape[1:]
    if found.gradient.shape[1:] != wanted:
        text = f"the gradient in {objective.of} must have shape {wanted}; got {found.gradient.shape[1:]}"
        return Finding(name, Outcome.FAILS, True, text)
    return Finding(name, Outcome.HOLDS, True, f"a scalar, {found.value[0]:.6g} on the first batch")


def _about(objective: Objective) -> tuple[tuple[str, str], ...]:
    said = {
        "needs": ", ".join(sorted(objective.needs)) or "probabilities alone",
        "gradient": f"{'closed form' if objective.closed_form else 'autodiff'}, in {objective.of}",
        "gauge invariant": _yes(objective.gauge_invariant),
        "mean over tokens": _yes(objective.token_mean),
        "symmetric": _yes(objective.symmetric),
        "uses groups": _yes(objective.uses_groups),
        "bounds": _yes(objective.bounds is not None),
        "load convention": "none" if objective.convention is None else objective.convention.share,
        "source": objective.source or "none given",
    }
    return tuple(said.items())


def _about_router(router: Router) -> tuple[tuple[str, str], ...]:
    said = {
        "experts": f"{router.partition.num_experts} in groups of {', '.join(map(str, router.partition.sizes))}",
        "experts a token": f"at most {router.routes}, {router.average_routes:g} on average",
        "couples tokens": _yes(router.couples_tokens),
        "dense": _yes(router.is_dense),
        "random": _yes(router.is_random),
        "task reaches the gate": _yes(router.task_reaches_gate),
        "state": _yes(router.controller.has_state),
        "source": router.source or "none given",
    }
    return tuple(said.items())


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _angles(found: list[Angles]) -> Table:
    heading = ("objective", *(f"logits {each.spread:g}" for each in found))
    names = [name for name in OBJECTIVES if name in found[0].with_]
    rows = tuple((name, *(_cosine(each.with_[name]) for each in found)) for name in names)
    note = (
        f"Mean over batches, and 95 % of them in brackets; logits are normal with that standard deviation. By chance "
        f"95 % of random directions are within ±{found[0].chance:.2f}."
    )
    return Table("Cosine of its gradient with others", heading, rows, note)


def _cosine(found: Cosine) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _rates(found: Mapping[str, Rate]) -> Table:
    rows = tuple((mode, _rate(each), *_critical(each)) for mode, each in found.items())
    note = (
        "With coefficient 1, 8 experts in 4 groups, 2 a token; positive is growth. The critical coefficient balances "
        "what stands beside it; counts are constants here."
    )
    return Table("Growth of modes at uniform routing", ("mode", "rate", "critical coefficient", "against"), rows, note)


def _rate(found: Rate) -> str:
    one = f"{found.rate:+.5g}"
    spread = found.greatest - found.least
    return one if spread <= 1e-9 * max(1.0, abs(found.rate)) else f"{one} [{found.least:+.5g}, {found.greatest:+.5g}]"


def _critical(found: Rate) -> tuple[str, str]:
    return ("none", "") if found.critical is None else (f"{found.critical:.5g}", found.against)
