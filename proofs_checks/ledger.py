"""What a claim is, what counts as evidence for or against it, and how the verdict follows from the evidence.

Nobody types a verdict in. A claim's `check` applies methods; each returns a `Finding`; `judge` derives the verdict. A
finding counts only if its method also answered rightly on every variant of the claim whose answer is known (*controls*:
a constant off, a sign, an assumption left out): a method that cannot fail is no evidence.
"""

import dataclasses
import difflib
import enum
import fnmatch
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from .precision import float64, unoptimised

if TYPE_CHECKING:
    from .attack import Attack


class Verdict(enum.StrEnum):
    """The six answers."""

    PROVED = "proved"
    PROVED_FOR_SIZES = "proved for sizes"
    SUPPORTED = "supported"
    REFUTED = "refuted"
    CORRECTED = "corrected"
    UNVERIFIABLE = "unverifiable"


MEANING = {
    Verdict.PROVED: "Proved symbolically, for all sizes and values that the assumptions allow.",
    Verdict.PROVED_FOR_SIZES: "Decided exactly for the sizes that are named, for all values.",
    Verdict.SUPPORTED: "A search of the stated size found no violation; numbers that agree prove nothing.",
    Verdict.REFUTED: "False, with a witness that anyone can evaluate by hand.",
    Verdict.CORRECTED: "False as printed; the statement given next to it is true and proved.",
    Verdict.UNVERIFIABLE: "Cannot be decided from what is published, for the reason given.",
}


class Outcome(enum.StrEnum):
    """What one method found about one statement."""

    PROVED = "proved"
    PROVED_FOR_SIZES = "proved for sizes"
    NO_VIOLATION = "no violation found"
    VIOLATED = "violated"
    UNVERIFIABLE = "unverifiable"


@dataclasses.dataclass(frozen=True)
class Control:
    """A variant whose answer is known, and whether the method gave that answer."""

    variant: str
    passed: bool


@dataclasses.dataclass(frozen=True)
class Slack:
    """Left and right sides of an inequality left <= right, over the points that a search visited."""

    left: Float[np.ndarray, " points"]
    right: Float[np.ndarray, " points"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one method found."""

    method: str
    outcome: Outcome
    steps: tuple[str, ...]
    """What was done, in order, for a reader who wants to follow."""
    controls: tuple[Control, ...] = ()
    scope: str = ""
    """Sizes of an exact decision, or the extent of a search."""
    witness: str = ""
    tightness: float | None = None
    """Largest ratio of left to right side that was reached; 1 is tight."""
    slack: Slack | None = None
    part: str = ""
    """What part of the statement it is about, where a method decides only one. Findings of a part stand in for each
    other; the verdict is that of the part with the weakest evidence."""

    attack: "Attack | None" = dataclasses.field(default=None, repr=False)
    """How to look for numbers at which what was proved fails; `examine` carries it out."""

    @property
    def counts(self) -> bool:
        """Whether the method showed that it can fail, and did not."""
        if self.outcome is Outcome.UNVERIFIABLE:
            return True
        return bool(self.controls) and all(control.passed for control in self.controls)


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much work the methods do."""

    starts: int = 64
    """Starting points of a directed search."""
    steps: int = 150
    """Of gradient ascent from each."""
    examples: int = 60
    """That Hypothesis tries."""
    seconds: float = 10.0
    """After which a solver gives up."""
    seed: int = 0
    """Of random starts."""


DEEP = Effort(starts=512, steps=1500, examples=2000, seconds=300.0)

Check = Callable[[Effort], Iterable[Finding]]


@dataclasses.dataclass(frozen=True)
class Correction:
    """The true statement next to one that is false as printed."""

    statement: str
    words: str
    check: Check


@dataclasses.dataclass(frozen=True)
class Numbers:
    """For which floating-point numbers a function follows the real one, or a statement holds.

    To within `roundings` units of the result's type, of its largest entry or of 1 if that is less; 0: exactly.
    """

    of: str
    """Arguments that are meant, such as "logits"."""
    largest: float = math.inf
    """Power of ten that the size of entries may reach; infinite: all finite numbers of the type."""
    smallest: float = 0.0
    """Power of ten that it may fall to; 0: any normal number."""
    roundings: int = 0
    types: tuple[str, ...] = ("float32", "bfloat16")
    """In which the function was attacked; none: it is only known in 64 bits, where the claims compute."""
    besides: str = ""
    """What else must hold, or is left out."""

    def __str__(self):
        size = f"all {self.of}" if math.isinf(self.largest) else f"{self.of} up to {self.largest:.0e}"
        size += f" and from {self.smallest:.0e}" if self.smallest else ""
        to = f", to {self.roundings} roundings" if self.roundings else ", exactly"
        kinds = f"{' and '.join(self.types)}: {size}{to}" if self.types else f"64 bits, not attacked: {self.of}"
        return f"{kinds}; {self.besides}" if self.besides else kinds


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement, where it comes from, and how it is checked."""

    id: str
    statement: str
    """LaTeX."""
    words: str
    source: str
    """Key of `SOURCES` in brackets, with the equation's number."""
    recorded: Verdict
    """What the check is known to give; another outcome is an error of the check, of the code or of this record."""
    check: Check
    assumptions: tuple[str, ...] = ()
    functions: tuple[Callable[..., object], ...] = ()
    """The functions of himoe_theory that the statement is about, and that the check compares it with."""
    numbers: Numbers | None = None
    """For which numbers the statement itself holds of its functions, where that is not to rounding, or for fewer
    numbers than `kept.KEPT` has for each of them."""
    correction: Correction | None = None
    remark: str = ""
    """What a reader should know beyond the verdict, such as which notes it contradicts."""


@dataclasses.dataclass(frozen=True)
class Result:
    """A claim with its evidence."""

    claim: Claim
    findings: tuple[Finding, ...]
    corrected: tuple[Finding, ...]
    seconds: float
    failure: str = ""
    """Why the check could not be carried out, if so."""

    @property
    def verdict(self) -> Verdict:
        """Derived from the findings."""
        return judge(self.findings, self.corrected)

    @property
    def sizes(self) -> str:
        """The sizes that the verdict is proved for, if it is restricted to some."""
        if self.verdict is not Verdict.PROVED_FOR_SIZES:
            return ""
        return "; ".join(f.scope for f in self.findings if f.counts and f.outcome is Outcome.PROVED_FOR_SIZES)

    @property
    def tightness(self) -> float | None:
        """The largest ratio that any search of the statement that stands reached."""
        standing = self.corrected if self.verdict is Verdict.CORRECTED else self.findings
        return max((f.tightness for f in standing if f.counts and f.tightness is not None), default=None)

    @property
    def witness(self) -> str:
        """The first witness against the statement as printed."""
        return next((f.witness for f in self.findings if f.counts and f.witness), "")

    @property
    def void(self) -> tuple[Finding, ...]:
        """Findings that do not count, because a control failed or there is none."""
        return tuple(f for f in (*self.findings, *self.corrected) if not f.counts)

    @property
    def as_recorded(self) -> bool:
        """Whether the verdict is the recorded one and every method was able to fail."""
        return not self.failure and not self.void and self.verdict is self.claim.recorded


def judge(findings: Sequence[Finding], corrected: Sequence[Finding] = ()) -> Verdict:
    """The verdict that the findings which count add up to.

    A violation outweighs everything. Otherwise each part of the statement has its strongest evidence, and the whole is
    as strong as its weakest part.
    """
    counted = [f for f in findings if f.counts]
    if any(f.outcome is Outcome.VIOLATED for f in counted):
        proved = judge(corrected) in (Verdict.PROVED, Verdict.PROVED_FOR_SIZES)
        return Verdict.CORRECTED if proved else Verdict.REFUTED
    parts = {f.part for f in findings}
    strongest = [min((_STRENGTH[f.outcome] for f in counted if f.part == part), default=_NOTHING) for part in parts]
    return _VERDICTS[max(strongest, default=_NOTHING)]


_VERDICTS = (Verdict.PROVED, Verdict.PROVED_FOR_SIZES, Verdict.SUPPORTED, Verdict.UNVERIFIABLE)
"""Without a violation, strongest first."""
_NOTHING = len(_VERDICTS) - 1
_STRENGTH = {
    Outcome.PROVED: 0,
    Outcome.PROVED_FOR_SIZES: 1,
    Outcome.NO_VIOLATION: 2,
    Outcome.UNVERIFIABLE: _NOTHING,
}
"""Place in `_VERDICTS`."""


def about(part: str, finding: Finding) -> Finding:
    """The finding as one about a part of the statement."""
    return dataclasses.replace(finding, part=part)


def unverifiable(reason: str) -> tuple[Finding, ...]:
    """The finding that nothing published decides the statement."""
    return (Finding("reading", Outcome.UNVERIFIABLE, (reason,)),)


def examine(claim: Claim, effort: Effort) -> Result:
    """Carries out one claim's checks. An error in them is reported as the result's `failure`."""
    began = time.perf_counter()
    findings: tuple[Finding, ...] = ()
    corrected: tuple[Finding, ...] = ()
    failure = ""
    try:
        with float64(), unoptimised():
            findings = tuple(_attacked(claim.check(effort), effort))
            corrected = tuple(_attacked(claim.correction.check(effort), effort)) if claim.correction else ()
    except Exception as error:  # one claim's mistake must not hide the verdicts of the others
        failure = f"{type(error).__name__}: {error}"
    return Result(claim, findings, corrected, time.perf_counter() - began, failure)


def _attacked(findings: Iterable[Finding], effort: Effort) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        if finding.attack is not None:
            yield dataclasses.replace(finding.attack.carry_out(effort), part=finding.part)


def select(claims: Sequence[Claim], only: Sequence[str], explain: Sequence[str] = ()) -> list[Claim]:
    """Claims whose id matches one of the shell patterns of either option, in order; all of them without patterns.

    **Raises:** `ValueError` if a pattern has none, naming its option and the ids that look like it.
    """
    for option, patterns in (("only", only), ("explain", explain)):
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(claim.id, pattern) for claim in claims):
                raise ValueError(
                    f"`{option}` must match the id of a claim; got {pattern!r}, {_near(claims, pattern)}; "
                    f"`himoe-check --list` prints all {len(claims)}."
                )
    wanted = (*only, *explain)
    return [c for c in claims if any(fnmatch.fnmatchcase(c.id, p) for p in wanted)] if wanted else list(claims)


def _near(claims: Sequence[Claim], pattern: str) -> str:
    """Ids that hold what was asked for, or look like it, or what ids start with."""
    bare = pattern.strip("*")
    holding = [claim.id for claim in claims if bare and bare in claim.id]
    ends = {claim.id.split("/")[-1]: claim.id for claim in claims}
    alike = difflib.get_close_matches(bare, [c.id for c in claims], 4, 0.7)
    alike += [ends[end] for end in difflib.get_close_matches(bare.split("/")[-1], list(ends), 4, 0.7)]
    if near := list(dict.fromkeys(holding or alike)):
        return f"near it are {', '.join(map(repr, near[:5]))}"
    return f"ids start with {', '.join(sorted({claim.id.split('/')[0] for claim in claims}))}"
