r"""Single-index clusters of Kawata et al.: a direction that is visible inside clusters and cancels over all of them.

$x \mid c \sim N(\rho v_c, I_d)$ and $y = f(w_c \cdot x) + s_c\, g(w_g \cdot x) + \zeta\nu$ with $\sum_c s_c = 0$ and
$f = \sum_i b_i \mathrm{He}_{k+i}/\sqrt{(k+i)!}$, g alike: the lowest exponent k is the information exponent. All the
vectors $v_c, w_c, w_g$ are orthonormal, but for the planted `leak`.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.polynomial import hermite_e, polynomial

from himoe_theory import _checks

from .. import random
from .base import Batch, Truth


def hermite(coefficients: tuple[float, ...], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    r"""$\sum_i a_i \mathrm{He}_i(x)/\sqrt{i!}$, orthonormal under the standard normal law; a_0 comes first."""
    scaled = [a / math.sqrt(math.factorial(i)) for i, a in enumerate(coefficients)]
    powers = hermite_e.herme2poly(scaled)
    value = jnp.full_like(x, powers[-1])
    for power in powers[-2::-1]:
        value = value * x + np.asarray(power, x.dtype)
    return value


@dataclasses.dataclass(frozen=True)
class SingleIndex:
    r"""Sizes and strengths of the single-index clusters; the signs are +1 for the first half of the clusters, then -1.

    **Source:** [kawata], their data with unit $|s_c|$ and equal f; `leak` is ours: it marks where the theorem ends.
    """

    clusters: int = 4
    """C, an even number."""
    dim: int = 32
    """d, coordinates of a token."""
    radius: float = 4.0
    """ρ, length of a centre."""
    noise: float = 0.1
    """ζ, standard deviation of the noise of y."""
    exponent: int = 3
    """k, the information exponent."""
    local: tuple[float, ...] = (1.0,)
    """b: weights of the orthonormal Hermite polynomials k, k + 1, ... in f."""
    shared: tuple[float, ...] = (1.0,)
    """The same in g."""
    leak: float = 0.0
    """Inner product of w_g with the directions of the centres of sign +1, in [0, 1)."""

    task = "regression"
    outputs = 1
    in_truth: ClassVar[tuple[str, ...]] = ("radius", "noise", "leak")

    def __post_init__(self):
        _checks.count("clusters", self.clusters, minimum=2)
        if self.clusters % 2:
            raise ValueError(f"`clusters` must be even, for signs that sum to 0; got {self.clusters}.")
        _checks.count("dim", self.dim)
        if self.dim < 2 * self.clusters + 1:
            raise ValueError(f"`dim` must be at least the {2 * self.clusters + 1} planted directions; got {self.dim}.")
        _checks.coefficient("radius", self.radius)
        _checks.coefficient("noise", self.noise)
        _checks.count("exponent", self.exponent)
        for name in ("local", "shared"):
            weights = np.asarray(getattr(self, name))
            if not weights.size or not np.isfinite(weights).all() or weights[0] == 0:
                raise ValueError(f"`{name}` must be finite weights, the first not 0; got {getattr(self, name)}.")
        # Centres of sign +1 share their part along w_g, and stay of unit length.
        _checks.coefficient("leak", self.leak, maximum=1.0 - 1e-6)

    @property
    def num_labels(self) -> int:
        """C."""
        return self.clusters

    @property
    def signs(self) -> tuple[float, ...]:
        """s_c; their sum is 0."""
        half = self.clusters // 2
        return (1.0,) * half + (-1.0,) * half

    def truth(self, rng: np.random.Generator) -> Truth:
        """Centres and local directions `[clusters, dim]`, shared direction `[dim]`, signs `[clusters]`, noise."""
        frame, _ = np.linalg.qr(rng.standard_normal((self.dim, 2 * self.clusters + 1)))
        directions, local, shared = frame.T[: self.clusters], frame.T[self.clusters : -1], frame[:, -1]
        signs = np.asarray(self.signs)
        along = np.where(signs > 0, self.leak, 0.0)[:, None]
        directions = np.sqrt(1 - along**2) * directions + along * shared
        truth = {"centres": self.radius * directions, "local": local, "shared": shared, "signs": signs}
        truth["noise"] = np.asarray(self.noise)
        return {name: value.astype(np.float32) for name, value in truth.items()}

    def draw(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Fresh tokens with their targets and cluster numbers."""
        k_label, k_x, k_y = jax.random.split(key, 3)
        labels = (random.uniform(k_label, tokens) * self.clusters).astype(jnp.int32)
        x = jnp.asarray(truth["centres"])[labels] + random.normal(k_x, self.dim, tokens).T
        own = jnp.einsum("td,td->t", x, jnp.asarray(truth["local"])[labels])
        clean = self.local_target(own) + jnp.asarray(truth["signs"])[labels] * self.shared_target(x @ truth["shared"])
        y = clean + truth["noise"] * random.normal(k_y, 1, tokens)[0]
        return Batch(x, y[:, None], labels)

    def test(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Tokens that training does not see: fresh ones."""
        return self.draw(truth, key, tokens)

    def local_target(self, index: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """f of an index."""
        return hermite((0.0,) * self.exponent + self.local, index)

    def shared_target(self, index: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """g of an index."""
        return hermite((0.0,) * self.exponent + self.shared, index)

    def moments(self) -> Float[np.ndarray, " clusters"]:
        r"""Exact $E[y\,\mathrm{He}_k(w_g \cdot x)/\sqrt{k!}]$ in every cluster; their mean is the pooled one.

        $s_c b_k$ without a leak, so that the mean is 0. With one, $w_g \cdot x \sim N(m, 1)$, $m = \rho\,$`leak`, where
        $s_c > 0$ and the clusters no longer cancel. **Source:** [kawata] for the first, [himoe-theory] for the second.
        """
        k = self.exponent
        scaled = [0.0] * k + [b / math.sqrt(math.factorial(k + i)) for i, b in enumerate(self.shared)]
        probe = hermite_e.herme2poly([0.0] * k + [1 / math.sqrt(math.factorial(k))])
        product = polynomial.polymul(hermite_e.herme2poly(scaled), probe)
        shifts = [self.radius * self.leak if sign > 0 else 0.0 for sign in self.signs]
        # E p(z + m) is the Hermite coefficient of order 0 of the shifted polynomial.
        at = [hermite_e.poly2herme(_shifted(product, shift))[0] for shift in shifts]
        return np.asarray(self.signs) * np.asarray(at)


def _shifted(powers: Float[np.ndarray, " order"], shift: float) -> Float[np.ndarray, " order"]:
    """Coefficients of p(z + shift)."""
    value = np.polynomial.Polynomial(powers)(np.polynomial.Polynomial([shift, 1.0]))
    return np.pad(value.coef, (0, len(powers) - len(value.coef)))
