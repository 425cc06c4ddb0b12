"""Compiled functions, with options of XLA that suit many small arrays on a processor; other devices ignore them."""

import functools
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

import equinox as eqx
import jax

Given = ParamSpec("Given")
Found = TypeVar("Found")
Options = Mapping[str, bool | int | str]

OWN_SUMS: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Sums and products as XLA's own code, not as calls of YNNPACK, which take as long as all the rest of a small layer's
training step."""

QUICK: Options = {"xla_cpu_use_fusion_emitters": False}
"""Without fusion emitters: half the time to compile, and no slower to run but for drawing batches."""

WIDE: Options = {"xla_cpu_prefer_vector_width": 512}
"""Vectors as wide as the processor has them, not the 256 bits that LLVM prefers."""


def compiled(*options: Options) -> Callable[[Callable[Given, Found]], Callable[Given, Found]]:
    """`eqx.filter_jit` with those of the options that the installed version of XLA knows: they come and go."""

    def decorate(function: Callable[Given, Found]) -> Callable[Given, Found]:
        @functools.cache  # not before the first call: importing starts no backend
        def program() -> Callable[Given, Found]:
            return eqx.filter_jit(function, compiler_options=known(*options))

        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Found:
            return program()(*args, **kwargs)

        return call

    return decorate


def known(*options: Options) -> dict[str, bool | int | str]:
    """Those that the installed version of XLA has, as `jax.jit` takes them."""
    return {name: value for each in options for name, value in each.items() if _knows(name, value)}


@functools.cache
def _knows(name: str, value: bool | int | str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True
