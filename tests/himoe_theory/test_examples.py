"""The parts that docstrings show, as a user's file would have them: each works in a router."""

import dataclasses
import importlib
import inspect
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import himoe_theory
from himoe_theory import Capacity, Partition, Router, Sigmoid, TopK, _numerics

from .strategies import EXPERTS, LOGITS, TOKENS

WHOLE = Partition((0,) * EXPERTS)


def shown(module: str) -> type:
    """The class that the module's docstring defines, in a file that imports what such files import."""
    text = inspect.getdoc(importlib.import_module(f"himoe_theory.{module}"))
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(("    class ", "    @dataclasses")))
    block = []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        block.append(line)
    names = {name: getattr(himoe_theory, name) for name in himoe_theory.__all__}
    names |= {"dataclasses": dataclasses, "jax": jax, "jnp": jnp, "masked_softmax": _numerics.masked_softmax}
    before = set(names)
    exec(textwrap.dedent("\n".join(block)), names)
    (new,) = {name for name in set(names) - before if not name.startswith("__")}
    return names[new]


def route(state=None, **parts):
    router = Router("mine", WHOLE, parts.pop("selection", TopK(3)), "himoe-theory", **parts)
    return router.step(None, router.init() if state is None else state, jnp.asarray(LOGITS))


def test_a_score():
    routing, _ = route(score=shown("scores")())
    sigma = 1 / (1 + np.exp(-LOGITS))
    expected = sigma**2 / (sigma**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(routing.probs, expected, rtol=1e-12)


def test_a_selection():
    routing, _ = route(selection=shown("selection.base")(0.5), score=Sigmoid())
    sigma = 1 / (1 + np.exp(-LOGITS))
    np.testing.assert_array_equal(routing.selected, sigma >= 0.5 * sigma.max(axis=1, keepdims=True))
    assert set(np.asarray(routing.selected).sum(axis=1)) != {1}


def test_a_policy():
    routing, _ = route(policy=shown("selection.policies")())
    gates = np.sort(np.exp(LOGITS))[:, ::-1][:, :3]
    np.testing.assert_array_equal(np.asarray(routing.selected).sum(axis=1), (gates >= gates[:, :1] / 2).sum(axis=1))


def test_a_weighting():
    routing, _ = route(weighting=shown("weights")())
    np.testing.assert_allclose(np.asarray(routing.combine).sum(axis=1), 0.5, rtol=1e-12)


def test_a_capacity_order():
    logits, capacity = jnp.zeros((TOKENS, 2)), Capacity(0.5, 1, False, shown("selection.capacity")())
    routing, _ = Router("mine", Partition((0, 0)), TopK(1), "himoe-theory", capacity=capacity).step(None, (), logits)
    np.testing.assert_array_equal(routing.kept[:, 0], np.arange(TOKENS) == TOKENS - 1)


def test_a_controller():
    routing, state = route(controller=shown("controllers")(0.1), score=Sigmoid())
    counts = np.asarray(routing.counts)
    np.testing.assert_allclose(state, 0.1 * (counts.mean() - counts), atol=1e-7)
    again, _ = route(state=jnp.where(jnp.arange(EXPERTS) == 0, 9.0, 0.0), controller=shown("controllers")(0.1))
    assert np.asarray(again.selected)[:, 0].all()


@pytest.mark.parametrize("module", ["scores", "selection.base", "selection.capacity", "weights"])
def test_static_parts_are_hashable(module):
    part = shown(module)
    given = (0.5,) if module == "selection.base" else ()
    assert hash(part(*given)) == hash(part(*given))
