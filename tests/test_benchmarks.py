"""The profile that benchmarks store: known programs give known shares."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.profile import profile

X = jnp.ones((700, 700), jnp.float32)


@pytest.mark.parametrize(
    ("function", "most"), [(lambda x: x @ x @ x, "matrix products"), (lambda x: jax.lax.erf_inv(x / 2), "erf_inv")]
)
def test_a_profile_names_what_takes_the_time(function, most):
    compiled = jax.jit(function).lower(X).compile()
    found = profile(compiled, lambda: compiled(X).block_until_ready())
    assert sum(found.values()) == pytest.approx(1)
    assert next(iter(found)) == most
    assert found[most] > 0.5
    assert all(share >= 0.01 for name, share in found.items() if name != "rest")
