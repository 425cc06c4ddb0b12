"""The test run is as strict as it claims, and importing the packages changes nothing."""

import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import settings

from himoe_theory import Partition
from paper_figures.figures.regimes import sort_rows
from proofs_checks.gradients import both_gradients
from simulations.experts import Linear

from .test_house import MODULES, PACKAGES, ROOT

# For each package, one call whose argument has a rank or size that its annotation forbids.
CANARIES: dict[str, Callable[[], object]] = {
    "himoe_theory": lambda: Partition((0, 0, 1)).sum(jnp.zeros(())),
    "simulations": lambda: Linear().apply({"weight": jnp.zeros((2, 1))}, jnp.zeros((3, 2))),
    "proofs_checks": lambda: both_gradients(jnp.zeros(8), jnp.zeros((1, 1, 1))),
    "paper_figures": lambda: sort_rows(np.zeros(3)),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wrong_shape_is_caught_in_every_package(package: str):
    assert package in CANARIES, f"`CANARIES` has no call for {package}: nothing shows that its shapes are checked."
    with pytest.raises(jaxtyping.TypeCheckError):
        CANARIES[package]()


@pytest.mark.usefixtures("unchecked")
def test_unchecked_lets_a_wrong_shape_reach_the_library():
    with pytest.raises(ValueError, match="partition has 3 experts, `values` has 2"):
        Partition((0, 0, 1)).sum(jnp.zeros((1, 2), int))


def test_shapes_are_checked_again_after_unchecked():
    assert not jaxtyping.config.jaxtyping_disable


def test_float64_is_on():
    assert jnp.zeros(()).dtype == np.float64


def test_mixed_dtypes_are_refused():
    with pytest.raises(ValueError, match="promotion"):
        _ = jnp.zeros(2) * jnp.zeros(2, jnp.int32)


def test_a_key_used_twice_is_refused(no_key_twice):
    key = jax.random.key(0)
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.normal(key)


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="a canary"):
        warnings.warn("a canary", stacklevel=1)


def test_hypothesis_draws_the_same_examples_every_time():
    assert settings.default.derandomize
    assert settings.default.database is None
    assert settings.default.deadline is None


def test_no_tracer_leaks():
    partition = Partition((0, 1, 0, 2))

    @jax.jit
    def loss(probs):
        return jnp.square(partition.sum(probs)).sum()

    with jax.checking_leaks():
        grad = jax.grad(loss)(jnp.full((3, 4), 0.25))
    np.testing.assert_allclose(grad, np.tile([1.0, 0.5, 1.0, 0.5], (3, 1)))


# Every module of the packages named, one at a time, each followed by a comparison with the state before it.
IMPORTER = textwrap.dedent(
    """
    import importlib, logging, os, pkgutil, random, sys, warnings
    import jax, matplotlib.pyplot, numpy

    def state():
        return {
            "jax.config": dict(jax.config.values),
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "warning filters": list(warnings.filters),
            "random": random.getstate(),
            "numpy.random": repr(numpy.random.get_state()),
            "numpy errors": numpy.geterr(),
            "numpy printing": repr(numpy.get_printoptions()),
            "logging": (logging.root.level, list(logging.root.handlers)),
            "sys.path": list(sys.path),
            # Through dict: reading rcParams["backend"] the usual way would choose a backend.
            "matplotlib": dict(dict.items(matplotlib.rcParams)),
            "figures": matplotlib.pyplot.get_fignums(),
            "arrays": len(jax.live_arrays()),
        }

    before = state()
    assert before["arrays"] == 0
    queue, seen = list(sys.argv[1:]), 0
    while queue:
        name = queue.pop(0)
        module = importlib.import_module(name)
        seen += 1
        if hasattr(module, "__path__"):
            queue += [f"{name}.{child.name}" for child in pkgutil.iter_modules(module.__path__)]
        after = state()
        changed = [part for part in before if before[part] != after[part]]
        assert not changed, f"importing {name} changed: {', '.join(changed)}"
    print(seen)
    """
)

# What others set up when they are imported is not ours: they come first.
THIRD_PARTY = """
import equinox, h5netcdf, jax.experimental, optax, rich.progress, scipy.optimize, scipy.stats, tyro, xarray
import sklearn.cluster, sklearn.datasets, sklearn.metrics, sympy
"""


def run_importer(code: str, *modules: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *modules]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_importing_sets_no_state_and_allocates_nothing():
    done = run_importer(THIRD_PARTY + IMPORTER, *PACKAGES, folder=ROOT)
    assert done.returncode == 0, done.stderr
    # Every file was visited, those in folders without `__init__` included.
    assert int(done.stdout) == len(MODULES)


def test_the_import_check_bites(tmp_path: Path):
    guilty = """
        import os, jax, jax.numpy as jnp, matplotlib, numpy
        os.environ["GUILTY"] = "1"
        jax.config.update("jax_enable_x64", True)
        matplotlib.rcParams["figure.dpi"] = 50
        numpy.random.seed(1)
        ZERO = jnp.zeros(3)
    """
    (tmp_path / "guilty.py").write_text(textwrap.dedent(guilty))
    done = run_importer(IMPORTER, "guilty", folder=tmp_path)
    assert done.returncode != 0
    assert "importing guilty changed: jax.config, environment, numpy.random, matplotlib, arrays" in done.stderr
