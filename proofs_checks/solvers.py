"""Exact decision of polynomial statements over the reals with z3 (extra `proofs`)."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import z3

from .ledger import Control, Effort, Finding, Outcome


@dataclasses.dataclass(frozen=True)
class Problem:
    """A statement about finitely many reals: whatever fulfils `assumptions` fulfils `claim`."""

    scope: str
    """The sizes."""
    assumptions: Sequence[z3.BoolRef]
    claim: z3.BoolRef
    false: Mapping[str, tuple[Sequence[z3.BoolRef], z3.BoolRef]]
    """Variants (assumptions, claim) known to be false, by what is wrong with them."""


def decide(problems: Iterable[Problem], effort: Effort) -> Finding:
    """Decides each problem: z3 looks for reals that fulfil the assumptions and not the claim.

    Proved for the sizes if there are none. A problem on which z3 gives up makes the finding *no violation found*,
    which supports and does not prove. A false variant counts as refuted only when z3 finds values for it.
    """
    scopes, controls, gave_up = [], [], []
    for problem in problems:
        answer, model = _counterexample(problem.assumptions, problem.claim, effort)
        if answer == z3.sat:
            witness = f"{problem.scope}: {_shown(model)}"
            kept = Control("no assumption, trivial claim", _counterexample((), z3.BoolVal(True), effort)[0] == z3.unsat)
            return Finding("z3", Outcome.VIOLATED, ("z3 found values that violate it.",), (kept,), witness=witness)
        (scopes if answer == z3.unsat else gave_up).append(problem.scope)
        for words, (assumptions, claim) in problem.false.items():
            refuted = _counterexample(assumptions, claim, effort)[0] == z3.sat
            controls.append(Control(f"{problem.scope}: {words}", refuted))
    if gave_up:
        steps = (f"z3 gave up within {effort.seconds:g} s for {', '.join(gave_up)}: no proof there.",)
        return Finding("z3 (gave up)", Outcome.NO_VIOLATION, steps, tuple(controls), "; ".join(scopes + gave_up))
    steps = ("z3: no reals fulfil the assumptions and violate the claim.",)
    return Finding("z3 over the reals", Outcome.PROVED_FOR_SIZES, steps, tuple(controls), "; ".join(scopes))


def everywhere(found: Finding) -> Finding:
    """A decision of a problem to which every size reduces, by the argument in its `scope`, as a proof for all sizes."""
    if found.outcome is not Outcome.PROVED_FOR_SIZES:
        return found
    return dataclasses.replace(found, outcome=Outcome.PROVED)


def reals(name: str, count: int) -> list[z3.ArithRef]:
    """Real variables name0, name1, ..."""
    return [z3.Real(f"{name}{i}") for i in range(count)]


def _counterexample(
    assumptions: Sequence[z3.BoolRef], claim: z3.BoolRef, effort: Effort
) -> tuple[z3.CheckSatResult, z3.ModelRef | None]:
    solver = z3.Solver()
    solver.set("timeout", int(1000 * effort.seconds))
    solver.add(*assumptions, z3.Not(claim))
    answer = solver.check()
    return answer, solver.model() if answer == z3.sat else None


def _shown(model: z3.ModelRef | None) -> str:
    if model is None:
        return ""
    return ", ".join(f"{d.name()} = {model[d]}" for d in sorted(model.decls(), key=lambda d: d.name()))
