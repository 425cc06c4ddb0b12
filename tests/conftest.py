"""Strict numerics and reproducible examples for every test.

The library sets none of this; a test run does. Warnings are errors through `filterwarnings` in pyproject.toml, and
shapes are checked through `--jaxtyping-packages` there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import matplotlib
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Most of a test run is compiling small programs. Without fusion emitters and in one piece that takes a quarter of the
# time, without optimisation half of what is left, and workers and later runs share what one of them compiled. Programs
# that run long enough to need it ask for `optimised`. XLA reads the flags when it first compiles. What is in the
# environment holds for the processes that tests start, too.
_QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}"
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
matplotlib.use("Agg")

# The same examples on every run and machine: no database, no clock, no seed drawn from outside.
_COMMON = {"derandomize": True, "deadline": None, "database": None, "print_blob": True}
hypothesis.settings.register_profile("quick", max_examples=25, **_COMMON)
hypothesis.settings.register_profile("deep", max_examples=500, **_COMMON)
hypothesis.settings.load_profile("deep" if os.environ.get("HIMOE_DEEP") else "quick")


def _while(option: str, value: bool) -> Iterator[None]:
    before = jax.config.values[option]
    jax.config.update(option, value)
    try:
        yield
    finally:
        jax.config.update(option, before)


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs are compiled as users' are."""
    yield from _while("jax_disable_most_optimizations", False)


@pytest.fixture
def no_key_twice() -> Iterator[None]:
    """A random key that is used twice is an error. Checking it nearly doubles the time to compile."""
    yield from _while("jax_debug_key_reuse", True)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape annotations stand aside, so that a call meets the library's own checks, as it does outside the tests."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
