"""How checks compute, whatever the session does."""

import contextlib
import os
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def _set(option: str, value: bool) -> Iterator[None]:
    before = jax.config.values[option]
    jax.config.update(option, value)
    try:
        yield
    finally:
        jax.config.update(option, before)


def compile_plainly() -> None:
    """For a process, before it first compiles: a quarter of the time that XLA's fusion emitters take.

    Small programs run as fast. Later calls change nothing.
    """
    plain = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    flags = os.environ.get("XLA_FLAGS", "")
    if plain not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {plain}"


def float64() -> contextlib.AbstractContextManager[None]:
    """float64 inside."""
    return _set("jax_enable_x64", True)


def unoptimised() -> contextlib.AbstractContextManager[None]:
    """Programs compile without optimisation inside: those of checks are small and run once or a few hundred times."""
    return _set("jax_disable_most_optimizations", True)
