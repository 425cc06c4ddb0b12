r"""How alike the experts of each layer are, and what their tokens have in common, on a few validation tokens.

The gate of a layer is $s = Wx$: to first order the tokens' common part drives all routing at the rate
$\kappa_0 = \|\bar x\|^2$, and contrasts between tokens at most at $\kappa_c$, the largest eigenvalue of their
covariance. **Source:** [himoe-theory] D1.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from himoe_theory import Routing, metrics

from .blocks import Parameters
from .dispatch import Experts
from .model import Model
from .parameters import layer_name

TOKENS = 512
"""Compared at most: every expert computes on every one of them."""

MEASURED = (
    "output_similarity",
    "output_cka",
    "parameter_similarity",
    "expert_overlap",
    "routing_variance",
    "common_power",
    "contrast_power",
)


def compare(
    model: Model,
    parameters: Parameters,
    routing: tuple[Routing, ...],
    hidden: tuple[Float[Array, "tokens dim"], ...],
    compute: DTypeLike,
) -> tuple[dict[str, Float[Array, " moe_layers"]], Float[Array, "moe_layers tokens dim"]]:
    """`MEASURED`, by layer, and what each token's first expert makes of it."""
    found = [
        _layer(Experts(model, parameters["layers"][layer_name(number)]["moe"], compute), one, x[:TOKENS])
        for number, one, x in zip(model.moe_layers, routing, hidden, strict=True)
    ]
    return {name: jnp.stack([each[name] for each, _ in found]) for name in MEASURED}, jnp.stack([y for _, y in found])


def _layer(
    experts: Experts, routing: Routing, x: Float[Array, "tokens dim"]
) -> tuple[dict[str, Float[Array, ""]], Float[Array, "tokens dim"]]:
    n, chosen = experts.config.experts, routing.experts[:TOKENS]
    outputs = experts.apply(jnp.broadcast_to(x, (n, *x.shape))).swapaxes(0, 1)
    routes = jnp.take_along_axis(outputs, chosen[:, :, None], axis=1)
    weights = [experts.parameters[name]["weight"].reshape(n, -1) for name in ("in", "out")]
    centred = x - x.mean(axis=0)
    return {
        "output_similarity": metrics.mean_off_diagonal(metrics.output_cosine(outputs)),
        "output_cka": metrics.mean_off_diagonal(metrics.linear_cka(outputs)),
        "parameter_similarity": metrics.mean_off_diagonal(metrics.parameter_cosine(jnp.concatenate(weights, axis=1))),
        "expert_overlap": metrics.expert_overlap(routes),
        "routing_variance": metrics.routing_variance(routing.probs[:TOKENS]),
        "common_power": jnp.square(x.mean(axis=0)).sum(),
        "contrast_power": jnp.linalg.eigvalsh(centred.T @ centred / len(x))[-1],
    }, routes[:, 0]


def silhouettes(
    outputs: Float[np.ndarray, "moe_layers tokens dim"], selected: np.ndarray
) -> Float[np.ndarray, " moe_layers"]:
    """Of the outputs of first experts, grouped by expert; one number a layer."""
    return np.asarray([metrics.silhouette(y, first) for y, first in zip(outputs, selected, strict=True)], np.float32)
