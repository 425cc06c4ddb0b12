"""Digits: scikit-learn's 1,797 real 8×8 images in 10 classes, inside the package, no download."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from .base import Batch, Truth


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images as 64 numbers in [0, 1] (pixel / 16), not centred; class as the planted label.

    The split into training and test images is drawn once a seed.
    """

    test_images: int = 360
    """Images held out (1,797 in all)."""

    task = "classification"
    dim = 64
    outputs = 10
    num_labels = 10
    in_truth: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if not 1 <= self.test_images <= 1796:
            raise ValueError(f"`test_images` must be in 1..1796; got {self.test_images}.")

    def truth(self, rng: np.random.Generator) -> Truth:
        """All images in the seed's order: the first `test_images` are held out."""
        from sklearn.datasets import load_digits  # scikit-learn takes a second to import and only this needs it

        images, labels = load_digits(return_X_y=True)
        order = rng.permutation(len(labels))
        return {"images": (images / 16).astype(np.float32)[order], "labels": labels.astype(np.int32)[order]}

    def _batch(self, truth: Truth, rows: Int[Array, " tokens"]) -> Batch:
        labels = jnp.asarray(truth["labels"])[rows]
        return Batch(
            jnp.asarray(truth["images"])[rows], jax.nn.one_hot(labels, self.outputs, dtype=jnp.float32), labels
        )

    def draw(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """Training images drawn with replacement."""
        rows = jax.random.randint(key, (tokens,), self.test_images, truth["labels"].shape[0], dtype=jnp.int32)
        return self._batch(truth, rows)

    def test(self, truth: Truth, key: PRNGKeyArray, tokens: int) -> Batch:
        """The held-out images, at most `tokens` of them."""
        return self._batch(truth, jnp.arange(min(tokens, self.test_images), dtype=jnp.int32))
