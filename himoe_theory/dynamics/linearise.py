r"""Rates and modes of any field at any state, by autodiff.

Near a state z the field moves a small displacement by its Jacobian J = dF/dz; eigenvectors of J are *modes*, their
eigenvalues $\mu$ *rates* (growth for $\mathrm{Re}\,\mu > 0$, an oscillation for $\mathrm{Im}\,\mu \ne 0$). The closed
forms of D1, D6, D7, D8, D9 and D11 are special cases. J need not be symmetric. Where rates coincide the modes are some
basis of their common space. Hard counts are constant here: what they answer is a jump, see `switching`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Complex, Float

from .. import _checks
from .fields import Field, State, evaluated, leaves, structure
from .modes import largest_share, mode_shares

DENSE_UP_TO = 4000
"""Numbers in a state above which `spectrum` refuses: its matrix has their square."""


@dataclasses.dataclass(frozen=True)
class Spectrum:
    r"""Rates, largest real part first (then largest imaginary part), and their modes as unit columns.

    **Fields:** `residuals`: $|J v - \mu v|$, a certificate for each pair. `drift`: |F| at the state, rounding unless a
    moving state was asked for. `field`, `state`: whose spectrum it is.
    """

    rates: Complex[np.ndarray, " modes"]
    vectors: Complex[np.ndarray, "size modes"]
    residuals: Float[np.ndarray, " modes"]
    drift: float
    field: Field = dataclasses.field(repr=False)
    state: State = dataclasses.field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What each mode mostly is, such as `contrast within` or `router common between`: its largest share.

        **Raises:** `ValueError` as `mode_shares`, for fields without tokens and experts.
        """
        return tuple(largest_share(self.shares(number)) for number in range(self.rates.size))

    def shares(self, number: int) -> dict[str, float]:
        """How much of one mode has each name; `mode_shares`."""
        return mode_shares(self.field, self.state, self.mode(number))

    def mode(self, number: int) -> State:
        """One mode in the structure of the state, as NumPy arrays: real where its rate is."""
        column, unravel = self.vectors[:, number], ravel_pytree(self.state)[1]
        if self.rates[number].imag == 0:
            # A real matrix has a real eigenvector for a real rate; the phase is free.
            turned = column * np.exp(-1j * np.angle(column[np.abs(column).argmax()]))
            return jax.tree.map(np.asarray, unravel(jnp.asarray(np.real(turned))))
        real, imaginary = (unravel(jnp.asarray(part(column))) for part in (np.real, np.imag))
        return jax.tree.map(_complex, real, imaginary)


def jacobian(field: Field, state: State) -> Float[np.ndarray, "size size"]:
    """dF/dz as a matrix, the leaves of the state one after the other. **Arguments:** `state`: finite."""
    _checks.function("field", field)
    state = leaves("state", state)
    _size(state)
    return np.asarray(_jacobian(field, state))


def spectrum(field: Field, state: State, *, moving: bool = False) -> Spectrum:
    """All rates and modes, from the whole Jacobian (`numpy.linalg.eig`; `eigh` where it is symmetric to rounding).

    **Arguments:** `moving`: whether the state may move; then rates are those of small displacements from its own path,
    at first order and for as long as the Jacobian is this one. **Raises:** `ValueError` for a state that is not at rest
    (`_drift` says how far) unless `moving`, or of more than `DENSE_UP_TO` numbers. **Source:** [himoe-theory] D1.
    """
    _checks.function("field", field)
    state = leaves("state", state)
    size = _size(state)
    if size > DENSE_UP_TO:
        raise ValueError(f"`state` must have at most {DENSE_UP_TO} numbers here; got {size}: use `leading_spectrum`.")
    matrix = jacobian(field, state).astype(np.float64)
    drift = _drift(field, state, float(np.linalg.norm(matrix)), moving)
    # Of a symmetric matrix, rounding would give complex pairs and oblique modes wherever rates coincide.
    rounding = size * np.finfo(matrix.dtype).eps * np.abs(matrix).max()
    symmetric = np.abs(matrix - matrix.T).max() <= rounding
    rates, vectors = np.linalg.eigh((matrix + matrix.T) / 2) if symmetric else np.linalg.eig(matrix)
    return _sorted(field, state, drift, rates, vectors, matrix @ vectors)


def leading_spectrum(
    field: Field, state: State, count: int, *, tolerance: float = 1e-10, moving: bool = False
) -> Spectrum:
    """The rates of largest real part and their modes, from products with the Jacobian alone (Arnoldi, SciPy).

    **Arguments:** `count`: at most the numbers in the state less 2. `tolerance`: relative, of the rates. `moving`: as
    for `spectrum`. **Raises:** `ValueError` for a state not at rest; SciPy's `ArpackNoConvergence` if the iteration
    does not settle. **Source:** [himoe-theory] D1.
    """
    # Imported here: closed forms need none of SciPy.
    import scipy.sparse.linalg

    arpack: Any = scipy.sparse.linalg  # it publishes no types
    _checks.function("field", field)
    state = leaves("state", state)
    size = _size(state)
    _checks.positive("tolerance", tolerance)
    _checks.count("count", count, maximum=size - 2, of="the numbers in `state` less 2")

    def moved(vector: np.ndarray) -> np.ndarray:
        return np.asarray(_moved(field, state, jnp.asarray(vector.ravel())), dtype=np.float64)

    operator = arpack.LinearOperator((size, size), matvec=moved, dtype=np.float64)
    # Drawn, so that no symmetry of the problem hides a mode from it; always the same.
    first = np.random.default_rng(0).standard_normal(size)
    drift = _drift(field, state, float(np.linalg.norm(moved(first))), moving)
    rates, vectors = arpack.eigs(operator, k=count, which="LR", v0=first, tol=tolerance)
    columns = [moved(np.real(column)) + 1j * moved(np.imag(column)) for column in vectors.T]
    return _sorted(field, state, drift, rates, vectors, np.stack(columns, axis=1))


def growth_rate(field: Field, state: State, displacement: State, *, moving: bool = False) -> tuple[float, float]:
    r"""$\mu = v^\top J v/|v|^2$ of a displacement v and the residual $|Jv - \mu v|/|v|$, 0 for a mode.

    A single product with the Jacobian: how a predicted mode is checked in a state of any size. **Arguments:**
    `moving`: as for `spectrum`. **Raises:** `ValueError` as `spectrum`.
    """
    _checks.function("field", field)
    state, displacement = leaves("state", state), leaves("displacement", displacement)
    vector = np.asarray(ravel_pytree(displacement)[0], dtype=np.float64)
    if vector.size != _size(state) or not vector.any():
        raise ValueError(f"`displacement` must have {_size(state)} numbers, not all 0; got {vector.size}.")
    if structure(displacement) != structure(state):
        found = structure(displacement)
        raise ValueError(f"`displacement` must have the state's structure, {structure(state)}; got {found}.")
    _drift(field, state, _jacobian_norm(field, state), moving)
    vector = vector / np.linalg.norm(vector)
    moved = np.asarray(_moved(field, state, jnp.asarray(vector)), dtype=np.float64)
    rate = float(vector @ moved)
    return rate, float(np.linalg.norm(moved - rate * vector))


def _jacobian_norm(field: Field, state: State) -> float:
    """Frobenius norm, to a factor of order 1: the length of its product with a vector of independent normals."""
    drawn = np.random.default_rng(0).standard_normal(_size(state))
    return float(np.linalg.norm(np.asarray(_moved(field, state, jnp.asarray(drawn)), dtype=np.float64)))


def _drift(field: Field, state: State, norm: float, moving: bool) -> float:
    """|F| at the state. **Raises:** `ValueError` if that is no rounding, unless a moving state is asked for.

    A state at distance d from rest has a drift of about d times the norm of the Jacobian; rest is a d below the root of
    the precision, beside the size of the state (or 1).
    """
    _checks.kind("moving", moving, bool)
    flat, moved = (np.asarray(ravel_pytree(part)[0]) for part in (state, velocity(field, state)))
    drift, size = float(np.linalg.norm(moved.astype(np.float64))), float(np.linalg.norm(flat.astype(np.float64)))
    if not (np.isfinite(drift) and np.isfinite(norm)):
        raise ValueError(f"the field must be finite with its derivative at the state; |F| = {drift:g}, |J| = {norm:g}.")
    if not moving and drift > float(np.finfo(flat.dtype).eps) ** 0.5 * norm * max(size, 1.0):
        raise ValueError(f"`state` must be at rest; it moves at speed {drift:.3g}: `settle` it, or give `moving=True`.")
    return drift


def _complex(real: Array, imaginary: Array) -> np.ndarray:
    return np.asarray(real) + 1j * np.asarray(imaginary)


def _size(state: State) -> int:
    flat = np.asarray(ravel_pytree(state)[0])
    if flat.size == 0 or not np.issubdtype(flat.dtype, np.floating) or not np.isfinite(flat).all():
        raise ValueError(f"`state` must be finite floating numbers, at least one; got {flat.size} of {flat.dtype}.")
    return int(flat.size)


def _flat(field: Field, state: State) -> tuple[Callable[[Array], Array], Array]:
    flat, unravel = ravel_pytree(state)
    return lambda vector: ravel_pytree(evaluated(field, unravel(vector)))[0], flat


@eqx.filter_jit
def velocity(field: Field, state: State) -> State:
    """F at the state, compiled once for each structure of field and state."""
    return evaluated(field, state)


@eqx.filter_jit
def _jacobian(field: Field, state: State) -> Array:
    return jax.jacfwd(_flat(field, state)[0])(ravel_pytree(state)[0])


@eqx.filter_jit
def _moved(field: Field, state: State, vector: Array) -> Array:
    function, flat = _flat(field, state)
    return jax.jvp(function, (flat,), (vector.astype(flat.dtype),))[1]


def _sorted(
    field: Field, state: State, drift: float, rates: np.ndarray, vectors: np.ndarray, moved: np.ndarray
) -> Spectrum:
    order = np.lexsort((-np.imag(rates), -np.real(rates)))
    rates, vectors, moved = rates[order].astype(complex), vectors[:, order].astype(complex), moved[:, order]
    residuals = np.linalg.norm(moved - rates * vectors, axis=0)
    return Spectrum(rates, vectors, residuals, drift, field, state)
