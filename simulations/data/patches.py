r"""Patch classification of Chen et al.: a signal that only the centre patch of its cluster makes readable.

A sample has P patches in $\mathbb{R}^d$, in random order: $y\,\alpha v_k$ (signal), $\beta c_k$ (centre),
$\varepsilon\gamma v_{k'}$ (another cluster's feature with a random sign), and P - 3 of noise $N(0, \sigma_p^2 I/d)$.
The 2K vectors $v_k, c_k$ are orthonormal, $(k, k')$ distinct, $y$ and $\varepsilon$ ±1. Cluster k is kept as label.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from himoe_theory import _checks

from .. import random
from .base import Batch, Truth

Range = tuple[float, float]


class Parts(NamedTuple):
    """Samples by what they are made of: for whatever does not depend on the order of the patches."""

    index: Int[Array, "tokens 3"]
    """Rows of the truth's vectors: feature, centre, the other cluster's feature."""
    length: Float[Array, "tokens 3"]
    """Signed lengths of these patches, scale included."""
    noise: Float[Array, "tokens rest dim"]
    y: Float[Array, "tokens 2"]
    labels: Int[Array, " tokens"]


@dataclasses.dataclass(frozen=True)
class Patches:
    r"""Sizes and ranges of the patch data; α, β and γ are uniform on their ranges.

    No sum of one function over the patches errs on less than 1/8 if α and γ have one law ([chen], Theorem 4.1).
    **Source:** [chen] Definition 3.1 and section 6; [chen-code] for the scale.
    """

    clusters: int = 4
    """K, number of clusters."""
    patch_dim: int = 50
    """d, coordinates of a patch."""
    patches: int = 4
    """P, patches of a sample."""
    signal: Range = (0.5, 2.0)
    """Range of α."""
    centre: Range = (1.0, 2.0)
    """Range of β."""
    distraction: Range = (0.5, 3.0)
    """Range of γ."""
    noise: float = 1.0
    """σ_p, expected length of a noise patch."""
    scale: float = 10.0
    """Factor on every patch."""

    task = "classification"
    outputs = 2
    in_truth: ClassVar[tuple[str, ...]] = ("signal", "centre", "distraction", "noise", "scale")

    def __post_init__(self):
        _checks.count("clusters", self.clusters, minimum=2)
        _checks.count("patches", self.patches, minimum=3)
        _checks.count("patch_dim", self.patch_dim)
        if self.patch_dim < 2 * self.clusters:
            rule = (
                f"`patch_dim` must be at least the {2 * self.clusters} orthonormal vectors of {self.clusters} clusters"
            )
            raise ValueError(f"{rule}; got {self.patch_dim}.")
        for name in ("signal", "centre", "distraction"):
            low, high = getattr(self, name)
            if not 0 < low <= high < np.inf:
                raise ValueError(f"`{name}` must be a range (low, high) with 0 < low <= high; got ({low:g}, {high:g}).")
        _checks.coefficient("noise", self.noise)
        _checks.positive("scale", self.scale)

    @property
    def dim(self) -> int:
        """P d: the patches of a sample one after the other."""
        return self.patches * self.patch_dim

    @property
    def num_labels(self) -> int:
        """K."""
        return self.clusters

    def truth(self, rng: np.random.Generator) -> Truth:
        """Orthonormal vectors `[2 clusters, patch_dim]`, first the features v_k, then the centres c_k; ends of the
        three ranges and standard deviation of the noise, scale included: programs do not depend on lengths."""
        frame, _ = np.linalg.qr(rng.standard_normal((self.patch_dim, 2 * self.clusters)))
        ranges = self.scale * np.asarray([self.signal, self.centre, self.distraction])
        noise = np.asarray(self.scale * self.noise / self.patch_dim**0.5)
        truth = {"vectors": frame.T, "low": ranges[:, 0], "high": ranges[:, 1], "noise": noise}
        return {name: value.astype(np.float32) for name, value in truth.items()}

    def parts(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Parts:
        """What samples are made of, before the patches are written out and permuted."""
        k_shares, k_noise = jax.random.split(key)
        share = random.uniform(k_shares, 7 * tokens).reshape(7, tokens)
        own = (share[0] * self.clusters).astype(jnp.int32)
        other = (own + 1 + (share[1] * (self.clusters - 1)).astype(jnp.int32)) % self.clusters
        label, sign = jnp.where(share[2:4] < 0.5, np.float32(-1), np.float32(1))
        low, high = (jnp.asarray(truth[end])[:, None] for end in ("low", "high"))
        alpha, beta, gamma = low + (high - low) * share[4:]
        rest = self.patches - 3
        noise = random.normal(k_noise, rest * self.patch_dim, tokens).T.reshape(tokens, rest, self.patch_dim)
        return Parts(
            index=jnp.stack([own, self.clusters + own, other], axis=1),
            length=jnp.stack([label * alpha, beta, sign * gamma], axis=1),
            noise=truth["noise"] * noise,
            y=jax.nn.one_hot((label > 0).astype(jnp.int32), 2, dtype=jnp.float32),
            labels=own,
        )

    def draw(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Fresh samples `[tokens, dim]`, one-hot classes (y = -1 is class 0), clusters."""
        k_parts, k_order = jax.random.split(key)
        parts = self.parts(truth, k_parts, tokens)
        planted = parts.length[:, :, None] * jnp.asarray(truth["vectors"])[parts.index]
        order = jnp.argsort(random.uniform(k_order, tokens * self.patches).reshape(tokens, self.patches), axis=1)
        patches = jnp.concatenate([planted, parts.noise], axis=1)
        patches = jnp.take_along_axis(patches, order[:, :, None], axis=1)
        return Batch(patches.reshape(tokens, self.dim), parts.y, parts.labels)

    def test(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Samples that training does not see: fresh ones."""
        return self.draw(truth, key, tokens)


def chen_settings() -> dict[str, Patches]:
    """The four settings of the paper by name, "1" to "4". Only in 3 and 4 have α and γ one law. **Source:** [chen]."""
    wide, equal = (0.5, 3.0), (0.5, 2.0)
    return {
        "1": Patches(distraction=wide, noise=1.0),
        "2": Patches(distraction=wide, noise=2.0),
        "3": Patches(distraction=equal, noise=1.0),
        "4": Patches(distraction=equal, noise=2.0),
    }
