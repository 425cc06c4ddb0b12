"""Costs of models, computed without arrays."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from simulations.arms import arms
from simulations.language import Model, model
from simulations.language.plan import plan, table
from simulations.language.sizes import SIZES, partition_of

REFERENCE = Model(6, 8, 256, 256, 256, 1024, arms()["hi-moe"], stride=2)


def published(size: str, **overrides) -> Model:
    partition, k = partition_of(size)
    return model(size, arms(partition, k)["hi-moe"], **overrides)


def test_olmoe_has_the_published_numbers():
    """6.9 billion, 1.3 billion of them active: 6,919,161,856 parameters in the released weights."""
    found = plan(published("olmoe-7b", router_scale=False), context=8)
    assert found.total == 6_919_161_856
    assert found.active == 1_282_017_280
    assert found.optimizer == 2 * found.parameters == 2 * found.gradients == 8 * found.total


def test_nanogpt_1b_by_hand():
    """24 layers of 4 d² attention, 12 of them with 8 experts of 8 d², 12 plain networks of 8 d²; norms, embeddings."""
    d = 1024
    total = 24 * 4 * d**2 + 12 * 8 * 8 * d**2 + 12 * 8 * d**2 + 12 * 8 * d + 49 * d + (50_304 + 1024) * d + 12 * 8
    found = plan(published("nanogpt-1b"), context=8)
    assert found.total == total == 1_059_341_408
    assert found.active == total - 12 * 4 * 8 * d**2


def test_operations_of_the_benchmark():
    """126.5 billion for 8 sequences of 256 tokens."""
    found = plan(REFERENCE, 8)
    assert round(found.flops_per_token * 8 * 256 / 1e9, 1) == 126.5


@pytest.mark.parametrize("compute", [jnp.float32, jnp.bfloat16])
def test_activations_are_what_reverse_mode_keeps(compute):
    """More than the residual stream of every layer, less with bfloat16, and proportional to the batch."""
    one, two = (plan(REFERENCE, batch, compute=compute).activations for batch in (4, 8))
    stream = 4 * 4 * 256 * 256 * 6
    assert one > 5 * stream
    assert 1.8 < two / one < 2.05
    assert plan(REFERENCE, 4, compute=jnp.bfloat16).activations <= plan(REFERENCE, 4).activations


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_allocated_and_the_table_can_be_read(size):
    before = len(jax.live_arrays())
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table(published(size)))
    assert len(jax.live_arrays()) == before
    text = console.export_text()
    assert f"{plan(published(size), context=8).total:,}" in text
    assert "operations a token" in text


def test_counts_agree_with_the_arrays():
    tiny = published("tiny")
    assert plan(tiny).total == sum(np.asarray(leaf).size for leaf in jax.tree.leaves(tiny.init(0)))


def test_errors():
    with pytest.raises(ValueError, match="`batch` must be at least 1; got 0"):
        plan(REFERENCE, 0)
    with pytest.raises(ValueError, match=r"`context` must be at most 256 \(the model's context\); got 512"):
        plan(REFERENCE, context=512)
