"""A gate with a memory: one recurrent cell that all layers share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Cell(NamedTuple):
    """A gated recurrent unit of H states, its three parts (reset, update, candidate) below each other.

    `bias_state` is added to the candidate's recurrent part alone.
    """

    inputs: Float[Array, "three_states inputs"]
    states: Float[Array, "three_states states"]
    bias: Float[Array, " three_states"]
    bias_state: Float[Array, " states"]


def recur(
    cell: Cell, inputs: Float[Array, "tokens inputs"], memory: Float[Array, "tokens states"]
) -> Float[Array, "tokens states"]:
    r"""The next memory $h' = (1 - z)\,n + z\,h$ of every token.

    $r = \sigma(U_r u + V_r h + b_r)$, $z = \sigma(U_z u + V_z h + b_z)$, $n = \tanh(U_n u + b_n + r (V_n h + c))$;
    products entry by entry. Stays in (-1, 1) if it starts there. **Arguments:** `inputs`: u, what a layer's tokens are
    mapped to. `memory`: h, of the layer before; zeros at the first. **Source:** [rmoe].
    """
    from_inputs = jnp.matmul(inputs, cell.inputs.T, precision="highest") + cell.bias
    from_states = jnp.matmul(memory, cell.states.T, precision="highest")
    u_reset, u_update, u_new = jnp.split(from_inputs, 3, axis=-1)
    h_reset, h_update, h_new = jnp.split(from_states, 3, axis=-1)
    reset, update = jax.nn.sigmoid(u_reset + h_reset), jax.nn.sigmoid(u_update + h_update)
    new = jnp.tanh(u_new + reset * (h_new + cell.bias_state))
    return (1 - update) * new + update * memory
