"""Costs of models, computed without arrays."""

import dataclasses
import io
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from simulations.arms import arms
from simulations.language import Model, model
from simulations.language.available import plain, plain_widths
from simulations.language.plan import measures, plan, shapes_table, table
from simulations.language.sizes import SIZES, partition_of

REFERENCE = Model(6, 8, 256, 256, 256, 1024, arms()["hi-moe"], stride=2)


PLAIN = {"arm": plain(), **plain_widths(512, 4)}


def published(size: str, **overrides) -> Model:
    partition, k = partition_of(size)
    arm = overrides.pop("arm", arms(partition, k)["hi-moe"])
    return model(size, arm, **overrides)


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
    console.print(shapes_table(published(size)))
    assert len(jax.live_arrays()) == before
    text = console.export_text()
    assert f"{plan(published(size), context=8).total:,}" in text
    assert "operations a token" in text
    rows = re.findall(r"^ +[\w.*]+ +(\d[\d ×]*?) {2,}(\d+) *$", text, re.MULTILINE)
    sizes = sum(int(times) * math.prod(map(int, shape.split("×"))) for shape, times in rows)
    assert sizes == plan(published(size), context=8).total


def test_measures_of_a_model():
    free, none = published("small", arm=arms()["gshard"]), published("small", **PLAIN)
    text = "\n".join(measures(of) for of in (published("nanogpt-1b"), free, none))
    assert "nanogpt, 24 layers, d 1024, 16 heads, context 1,024, vocabulary 50,304" in text
    assert "12 mixtures, N 8, M 4, K 1 in each, width 4,096" in text
    assert "2 mixtures, N 8, M 4, K 4 in all, width 512" in text
    assert "no mixtures, width 512 and 2,048" in text


def test_memory_on_each_of_several_devices():
    """By hand: of the experts' parameters a group of four devices holds a quarter each, of all others everything."""
    whole = published("small")
    experts = 2 * 8 * 2 * whole.dim * whole.width
    one, many = plan(whole, 16), plan(dataclasses.replace(whole, devices=(2, 4)), 16)
    assert many.parameters == 4 * (one.total - experts * 3 // 4)
    assert many.gradients == many.parameters == many.optimizer // 2
    assert (many.total, many.active, many.flops_per_token) == (one.total, one.active, one.flops_per_token)
    # An eighth each, and what tokens take that come from the other devices of a group.
    assert one.activations / 8 < many.activations < one.activations / 4
    with pytest.raises(ValueError, match=r"a micro-batch must be .* `devices`, 8; got 4 sequences"):
        plan(dataclasses.replace(whole, devices=(2, 4)), 4)


def test_gradients_that_are_summed_are_there_twice():
    one, parts = plan(REFERENCE, 2), plan(REFERENCE, 2, micro_batches=3)
    assert (one.accumulated, parts.accumulated) == (0, 4 * one.total)
    assert parts.memory - one.memory == 4 * one.total


def test_counts_agree_with_the_arrays():
    tiny = published("tiny")
    assert plan(tiny).total == sum(np.asarray(leaf).size for leaf in jax.tree.leaves(tiny.init(0)))


def test_errors():
    with pytest.raises(ValueError, match="`batch` must be at least 1; got 0"):
        plan(REFERENCE, 0)
    with pytest.raises(ValueError, match=r"`context` must be at most 256 \(the model's context\); got 512"):
        plan(REFERENCE, context=512)
