"""Objectives with their coefficients, as fields hold them."""

from collections.abc import Iterator, Mapping

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from ..objectives import OBJECTIVES, Objective
from ..objectives.catalogue import chosen
from ._real import Real


class Terms(eqx.Module):
    """Objectives with their coefficients. These are leaves; the records are static, and with them a program's key.

    **Arguments:** `terms`: objective, by name or as a record -> coefficient. **Raises:** `ValueError` for an unknown
    objective or a coefficient that is negative or not finite.
    """

    objectives: tuple[Objective, ...] = eqx.field(static=True)
    coefficients: tuple[Float[Array, ""], ...]

    def __init__(self, terms: Mapping[str, Real] | Mapping[Objective, Real]):
        self.objectives = tuple(chosen(term) for term in terms)
        for objective, coefficient in zip(self.objectives, terms.values(), strict=True):
            _checks.coefficient(f"terms[{objective.name}]", coefficient)
        self.coefficients = tuple(jnp.asarray(coefficient) for coefficient in terms.values())

    def items(self) -> Iterator[tuple[Objective, Float[Array, ""]]]:
        """Each objective with its coefficient."""
        return zip(self.objectives, self.coefficients, strict=True)


def of_logits(terms: Mapping[str, Real] | Mapping[Objective, Real]) -> Terms:
    """Terms, none of which is of outputs."""
    found = Terms(terms)
    for objective in found.objectives:
        if objective.of == "outputs":
            raise ValueError(
                f"`terms` must be objectives of logits; {objective.name} goes to `output_terms` of `RouterAndExperts`."
            )
    return found


def of_outputs(terms: Mapping[str, Real] | Mapping[Objective, Real]) -> Terms:
    """Terms, all of which are of outputs."""
    found = Terms(terms)
    for objective in found.objectives:
        if objective.of != "outputs":
            known = ", ".join(name for name, each in OBJECTIVES.items() if each.of == "outputs")
            raise ValueError(
                f"`output_terms` must be objectives of outputs; got {objective.name!r}, known are {known}."
            )
    return found
