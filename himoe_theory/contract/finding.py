"""What a contract says: properties that hold, fail or do not apply, and tables of what was measured."""

import dataclasses
import enum
from typing import Literal


class Outcome(enum.StrEnum):
    """Of one property of one object."""

    HOLDS = "holds"
    FAILS = "fails"
    DOES_NOT_APPLY = "does not apply"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One property. `claimed`: whether the object says that it has it. `text`: what was found, in numbers, or why it
    does not apply. `example`: the smallest case found that fails, in one line."""

    name: str
    outcome: Outcome
    claimed: bool
    text: str
    example: str = ""

    @property
    def broken(self) -> bool:
        """Whether the object claims what it does not have."""
        return self.claimed and self.outcome is Outcome.FAILS

    @property
    def standing(self) -> str:
        """What stands behind it: a claim, a broken one, or nothing."""
        return "BROKEN" if self.broken else "claimed" if self.claimed else "not claimed"


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured numbers, as text. `note`: how to read them."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Contract:
    """All that was found about one object. `about`: what it says of itself, as name and text."""

    name: str
    kind: Literal["objective", "router"]
    about: tuple[tuple[str, str], ...]
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()

    @property
    def broken(self) -> tuple[Finding, ...]:
        """What it claims and does not have."""
        return tuple(each for each in self.findings if each.broken)

    @property
    def verdict(self) -> str:
        """How many hold, fail and do not apply, and what was claimed and fails."""
        counts = [sum(each.outcome is outcome for each in self.findings) for outcome in Outcome]
        told = ", ".join(f"{count} {_plural(outcome, count)}" for outcome, count in zip(Outcome, counts, strict=True))
        broken = ", ".join(each.name for each in self.broken)
        return f"{self.name}: {told}. {f'Claimed and not so: {broken}.' if broken else 'All that it claims holds.'}"

    def __getitem__(self, name: str) -> Finding:
        """The finding of one property. **Raises:** `KeyError` without such a property."""
        for each in self.findings:
            if each.name == name:
                return each
        raise KeyError(f"no property {name!r}; known are {', '.join(each.name for each in self.findings)}")


def skipped(name: str, why: str, *, claimed: bool = False) -> Finding:
    """A property that does not apply."""
    return Finding(name, Outcome.DOES_NOT_APPLY, claimed, why)


def _plural(outcome: Outcome, count: int) -> str:
    if count == 1:
        return str(outcome)
    return {Outcome.HOLDS: "hold", Outcome.FAILS: "fail", Outcome.DOES_NOT_APPLY: "do not apply"}[outcome]


def failed(name: str, error: Exception) -> Finding:
    """What somebody's code raised, in one line."""
    reason = (str(error).splitlines() or [""])[0].rstrip(".")
    return Finding(name, Outcome.FAILS, True, f"{type(error).__name__}: {reason}")
