"""Where a compiled program's time goes: what its threads do, by primitive, from jax's own profiler."""

import collections
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*? ([a-z\-]+)\((.*)$", re.MULTILINE)
_PRODUCT = re.compile(r"(dot|__\w+_fusion)$")
"""Opcodes, or kinds of library calls."""


def profile(compiled: Any, run: Callable[[], object], least: float = 0.01) -> dict[str, float]:
    """Shares of the threads' time in one `run`, largest first: matrix products, other primitives, and the rest.

    **Arguments:** `least`: smaller shares are added up as `rest`.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        planes = jax.profiler.ProfileData.from_file(str(file)).planes
        own = _own_time(line.events for plane in planes for line in plane.lines)
    names, total = _names(compiled.as_text()), sum(own.values())
    found: collections.Counter[str] = collections.Counter()
    for instruction, time in own.items():
        found[names.get(instruction, "rest")] += time / total
    shown = {name: share for name, share in found.most_common() if share >= least and name != "rest"}
    return shown | {"rest": 1 - sum(shown.values())}


def _own_time(threads: Iterable[Any]) -> collections.Counter[str]:
    """Nanoseconds of every instruction, without those of the instructions inside it."""
    found: collections.Counter[str] = collections.Counter()
    for events in threads:
        timed = sorted((e for e in events if e.duration_ns > 0), key=lambda e: (e.start_ns, -e.duration_ns))
        open_: list[tuple[float, str]] = []
        for event in timed:
            while open_ and open_[-1][0] <= event.start_ns:
                open_.pop()
            if open_ and open_[-1][1]:
                found[open_[-1][1]] -= event.duration_ns
            instruction = event.name if any(name == "hlo_op" for name, _ in event.stats) else ""
            if instruction:
                found[instruction] += event.duration_ns
            open_.append((event.start_ns + event.duration_ns, instruction))
    return found


def _names(program: str) -> dict[str, str]:
    """Of every instruction of a compiled program: the primitive that it comes from, or that it is a product."""
    found = {}
    for name, opcode, rest in _INSTRUCTION.findall(program):
        library, source = re.search(r'"kind":"(\w+)"', rest), re.search(r'op_name="([^"]*)"', rest)
        primitive = source.group(1).split("/")[-1] if source else ""
        kind = library.group(1) if library else opcode
        product = _PRODUCT.match(kind) and not primitive.startswith("reduce")
        found[name] = "matrix products" if product else primitive or opcode
    return found
