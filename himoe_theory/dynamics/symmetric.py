r"""How fast experts specialise from the symmetric state (D6).

N linear experts $v_i \cdot x$, all used, mixed by the softmax of linear logits $w_i \cdot x$, half the squared error.
At w = 0 and equal experts with residual r, the loss in the directions that sum to zero over experts is
$L_0 - \frac1N \sum_i w_i^\top A\, \delta_i$ up to higher order, with $A = E[r\, x x^\top]$.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._numerics import accumulate
from ._real import Real


def residual_moment(inputs: Float[Array, "tokens dim"], residuals: Float[Array, " tokens"]) -> Float[Array, "dim dim"]:
    r"""$A = \frac1T \sum_t r_t x_t x_t^\top$, symmetric; 0 if every residual is.

    **Arguments:** `inputs`: x. `residuals`: target less the prediction of the shared expert, one a token.
    **Source:** [himoe-theory] D6.
    """
    inputs = accumulate(_checks.matrix("inputs", inputs, ("tokens", "dim")))
    residuals = accumulate(_checks.matrix("residuals", residuals, ("tokens",)))
    if residuals.shape[0] != inputs.shape[0]:
        raise ValueError(f"`residuals` has {residuals.shape[0]} tokens, `inputs` has {inputs.shape[0]}.")
    moment = jnp.einsum("t,ta,tb->ab", residuals, inputs, inputs, precision="highest") / inputs.shape[0]
    return (moment + moment.T) / 2  # rounding depends on the order of the factors


def specialisation_rates(
    moment: Float[Array, "dim dim"], num_experts: int, router_rate: Real, expert_rate: Real
) -> Float[Array, " dim"]:
    r"""$|\lambda(A)| \sqrt{\eta_w \eta_v}/N$ for every eigenvalue of A, largest first; each at least 0.

    Router row and expert deviation grow together along the eigenvector, with
    $\|w_i\|^2/\eta_w - \|\delta_i\|^2/\eta_v$ constant to leading order.

    **Arguments:** `moment`: A, symmetric. `num_experts`: at least 2. `router_rate`, `expert_rate`:
    learning rates of the gradient flow.
    **Source:** [himoe-theory] D6.
    """
    moment = _checks.matrix("moment", moment, ("dim", "dim"))
    if moment.shape[0] != moment.shape[1]:
        raise ValueError(f"`moment` must be square; got shape {moment.shape}.")
    _checks.count("num_experts", num_experts, minimum=2)
    _checks.coefficient("router_rate", router_rate)
    _checks.coefficient("expert_rate", expert_rate)
    sizes = jnp.sort(jnp.abs(jnp.linalg.eigvalsh(moment)), descending=True)
    return sizes * jnp.sqrt(jnp.asarray(router_rate * expert_rate, moment.dtype)) / num_experts


def smallest_curvature(moment: Float[Array, "dim dim"], num_experts: int) -> Float[Array, ""]:
    r"""$-\max|\lambda(A)|/N$, the smallest eigenvalue of the Hessian at the symmetric state; never positive."""
    return -specialisation_rates(moment, num_experts, 1.0, 1.0)[0]
