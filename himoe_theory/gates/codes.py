"""A code book as a gate: the expert of the nearest code."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..scores import same_space


def code_logits(x: Float[Array, "tokens dim"], codes: Float[Array, "experts dim"]) -> Float[Array, "tokens experts"]:
    r"""$s_{te} = -\|x_t - c_e\|^2$: the largest is that of the nearest code.

    Range $(-\infty, 0]$. As a softmax it is the posterior of equal Gaussians of variance 1/2 around the codes.
    **Arguments:** `codes`: c. **Raises:** `ValueError` if the dimensions differ. **Source:** [vqmoe].
    """
    x, c = same_space(x, codes)
    return -jnp.square(x[:, None, :] - c[None, :, :]).sum(axis=-1)


def quantisation(
    x: Float[Array, "tokens dim"], codes: Float[Array, "experts dim"], *, commitment: float = 0.25
) -> Float[Array, ""]:
    r"""$\frac1T \sum_t \|\bar x_t - c_{e_t}\|^2 + \beta \|x_t - \bar c_{e_t}\|^2$ with the nearest code $e_t$ of each
    token; a bar stops the gradient.

    At least 0, and 0 if every token is a code. The first part moves codes to the mean of their tokens, the second
    tokens to their code. **Arguments:** `codes`: c. `commitment`: beta. **Source:** [vqmoe].
    """
    x, c = same_space(x, codes)
    chosen = c[code_logits(x, c).argmax(axis=-1)]
    stop = jax.lax.stop_gradient
    moves_codes = jnp.square(stop(x) - chosen).sum(axis=-1)
    moves_tokens = jnp.square(x - stop(chosen)).sum(axis=-1)
    return (moves_codes + commitment * moves_tokens).mean()
