"""How checks compute, whatever the session does."""

import contextlib
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


def float64() -> contextlib.AbstractContextManager[None]:
    """float64 inside."""
    return _set("jax_enable_x64", True)


def unoptimised() -> contextlib.AbstractContextManager[None]:
    """Programs compile without optimisation inside: those of checks are small and run once or a few hundred times."""
    return _set("jax_disable_most_optimizations", True)
