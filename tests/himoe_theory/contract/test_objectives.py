"""Ours keep their contract; what is wrong fails its own property and no other, in numbers."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from himoe_theory import check
from himoe_theory.contract import Outcome
from himoe_theory.objectives import OBJECTIVES, Objective, View


def purity(view: View) -> jax.Array:
    return view.mean(jnp.square(view.routing.probs).sum(axis=1))


def by_number(view: View) -> jax.Array:
    """Expert 7 counts most: not the same when experts are renamed."""
    return view.mean(view.routing.probs @ jnp.arange(8.0, dtype=view.routing.probs.dtype))


def by_position(view: View) -> jax.Array:
    """The first token counts twice."""
    probs = view.routing.probs
    weight = jnp.where(jnp.arange(len(probs)) == 0, 2, 1).astype(probs.dtype)
    return view.mean(weight * jnp.square(probs).sum(axis=1))


def exponential(view: View) -> jax.Array:
    """Logits within -1..1 are left alone; e^1e4 is infinite, and infinity less infinity is none."""
    gaps = view.routing.logits - view.routing.logits[:, :1]
    return view.mean((jnp.exp(gaps) - jnp.exp(gaps)).sum(axis=1) + jnp.square(view.routing.probs).sum(axis=1))


def unmasked(view: View) -> jax.Array:
    return jnp.square(view.routing.probs).sum(axis=1).mean()


def of_whole_batch(view: View) -> jax.Array:
    probs, mask = view.routing.probs, view.routing.mask
    real = jnp.ones(len(probs), bool) if mask is None else mask
    total = jnp.where(real[:, None], probs, 0).sum(axis=0) / real.sum(dtype=jnp.int32).astype(probs.dtype)
    return jnp.square(total).sum()


def logit(view: View) -> jax.Array:
    """Not of the probabilities alone."""
    return view.mean(jnp.square(view.routing.logits).sum(axis=1))


def grouped(view: View) -> jax.Array:
    return view.mean(jnp.square(view.routing.group_mass).sum(axis=1))


def ratio_two(view: View) -> jax.Array:
    return 2 * Objective("purity", purity).gradient(view)


def narrow(partition, tokens, routes):
    return 1 / 8, 0.9


PURITY = Objective("purity", purity)
WRONG = [
    (
        dataclasses.replace(PURITY, gradient=ratio_two),
        {
            "gradient against autodiff": r"gradient (\S+), autodiff (\S+) at \(\d, \d\), ratio 2$",
            "gradient against differences": r"ratio 0\.5$",
        },
    ),
    (Objective("logit", logit, needs=frozenset({"logits"})), {"gauge": r"value 0, and [\d.]+ with -?[\d.]+, "}),
    (dataclasses.replace(PURITY, bounds=narrow), {"bounds": r"value (0\.9\d*|1) outside of 0\.125 to 0\.9$"}),
    (Objective("exponential", exponential), {"finite at ±1e4": r"^(bfloat16|float32): value nan, gradient nan"}),
    (
        Objective("unmasked", unmasked),
        {"masks": r"value 0\.\d+ with padding, 0\.1\d+ without; real tokens are 0 2 3 6"},
    ),
    (Objective("by_number", by_number), {"names of experts": r"with experts in the order 5 7 0 3 6 2 4 1$"}),
    (
        Objective("by_position", by_position, token_mean=False),
        {"order of tokens": r"with tokens in the order 6 1 4 5 7 2 3 0$"},
    ),
    (Objective("whole", of_whole_batch), {"batch splitting": r"value of the batch 0\.\d+, mean of its halves 0\.\d+$"}),
    (Objective("grouped", grouped), {"no use of groups": r"value 0\.28125 with groups .*, 0\.40625 with"}),
]


@pytest.mark.parametrize(("objective", "wanted"), WRONG[:6], ids=lambda each: getattr(each, "name", ""))
def test_what_is_wrong_fails_its_property_alone(objective, wanted):
    _fails(objective, wanted)


@pytest.mark.deep
@pytest.mark.parametrize(("objective", "wanted"), WRONG[6:], ids=lambda each: getattr(each, "name", ""))
def test_what_else_is_wrong_fails_its_property_alone(objective, wanted):
    _fails(objective, wanted)


def _fails(objective: Objective, wanted: dict[str, str]) -> None:
    broken = {each.name: each for each in check(objective).broken}
    assert broken.keys() == wanted.keys()
    for name, text in wanted.items():
        assert re.search(text, broken[name].text), broken[name].text
        assert broken[name].example.count("(") <= 8
        assert "\n" not in broken[name].text + broken[name].example


def test_a_load_by_hand_is_none_of_ours_that_fails():
    found = check("p_squared")
    assert found.broken == ()
    assert found["value at exact balance"].text == ("1 for one expert a token, 1 for two; its convention says 1 and 1")
    assert found["batch splitting"].outcome is Outcome.FAILS
    assert not found["batch splitting"].claimed


@pytest.mark.deep
@pytest.mark.parametrize("name", OBJECTIVES)
def test_ours_keep_their_contract(name):
    assert check(name).broken == ()
