"""Which tensor of a failed step was the first that is not finite: the step again, with everything in between kept."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .program import Program, State


def first_not_finite(
    program: Program,
    state: State,
    tokens: Int[Array, "micro sequences time"],
    targets: Int[Array, "micro sequences time"],
) -> str:
    """Its name and how many of its entries are NaN or infinite, in the order in which a step computes.

    State; then for every micro-batch each layer's gate inputs, logits and weights, the token losses, the terms; then
    gradients from the last layer to the first. Gradients that are finite one by one can have a norm that is not.
    """
    for name, value in _tensors(program, state, tokens, targets):
        bad = int((~jnp.isfinite(value)).sum())  # on the devices: no process may hold the whole of it
        if bad:
            return f"{name} ({bad} of {value.size} entries)"
    return "the norm of the gradient (overflow; every entry is finite)"


def _tensors(program: Program, state: State, tokens: Array, targets: Array) -> Iterator[tuple[str, Array]]:
    yield from _named("parameter", state.parameters)
    for leaf in jax.tree.leaves(state.router):
        yield "state of the routers", leaf
    keys, loads = program.keys(state), program.loads(state, tokens, targets)
    run = jax.jit(lambda state, *now: program.loss(state.parameters, state, *now, loads, records=True))
    now = state
    for i in range(program.recipe.micro_batches):
        place = f" of micro-batch {i}" if program.recipe.micro_batches > 1 else ""
        _, aux = run(now, tokens[i], targets[i], keys[i])
        for row, number in enumerate(program.model.moe_layers):
            yield f"gate input of layer {number}{place}", aux.hidden[row]
            yield f"gate logits of layer {number}{place}", aux.routing[row].logits
            yield f"combine weights of layer {number}{place}", aux.routing[row].combine
        yield f"token losses{place}", aux.token_losses
        for name, value in aux.terms.items():
            yield f"term {name}{place}", value
        now = now._replace(router=aux.state)
    gradient, _, _ = jax.jit(program.gradient)(state, tokens, targets)
    yield from reversed(list(_named("gradient of", gradient)))


def _named(kind: str, tree: dict) -> list[tuple[str, Array]]:
    """Leaves by dotted name, in the order of the forward pass."""
    first, last = f"{kind} embedding.", (f"{kind} norm.", f"{kind} head")
    leaves = [
        (f"{kind} {'.'.join(str(key.key) for key in path)}", leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return sorted(leaves, key=lambda leaf: 0 if leaf[0].startswith(first) else 2 if leaf[0].startswith(last) else 1)
