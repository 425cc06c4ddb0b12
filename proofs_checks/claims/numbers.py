"""Claims about floating point: for which numbers the functions that other claims name are those of real numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..floats import attacked
from ..kept import BOUNDS, GRADIENTS, METRICS, ROUTING, THEORY, VALUES, Kept
from ..ledger import Claim, Effort, Finding, Verdict


def _claim(name: str, what: str, kept: Mapping[Callable[..., Any], Kept]) -> Claim:
    def check(effort: Effort) -> Iterator[Finding]:
        for function, each in kept.items():
            if each.call is not None:
                yield from attacked(function.__qualname__, each.call, each.numbers)

    return Claim(
        id=f"numbers/{name}",
        statement=r"|\mathrm{fl}(f)(x) - f(x)| \le r\, \epsilon \max(1, |f(x)|_{\max})",
        words=f"For the numbers that are stated for each, {what} of floating-point numbers are those of real numbers, "
        "to the stated roundings, at saturated rows, ties, near ties and zeros of both signs too; "
        "just outside they are not.",
        source="[himoe-theory] numbers",
        recorded=Verdict.SUPPORTED,
        check=check,
        functions=tuple(kept),
        remark="Computed in 32 and 16 bits and compared with 64 bits at every power of ten that the type has. Denormal "
        "numbers are left out: a device may count them as 0. Where a range ends with the type, nothing outside of it "
        "can be shown.",
    )


CLAIMS = (
    _claim("routing", "scores, selections, weights and controllers", ROUTING),
    _claim("metrics", "metrics", METRICS),
    _claim("bounds", "bounds and inner products", BOUNDS),
    _claim("objectives", "objectives", VALUES),
    _claim("gradients", "closed-form gradients", GRADIENTS),
    _claim("theory", "growth rates, thresholds and potentials", THEORY),
)
