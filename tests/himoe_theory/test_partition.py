"""Groups of experts: sums and lookups against loops, and a partition as a static argument."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given

from himoe_theory import Partition

from . import strategies as draw
from .strategies import LOGITS, PARTITIONS, few

every = pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)


@every
def test_description_against_loops(partition):
    groups: dict[int, list[int]] = {}
    for expert, group in enumerate(partition.group_of):
        groups.setdefault(group, []).append(expert)
    assert partition.num_experts == 6
    assert partition.num_groups == len(groups)
    assert partition.sizes == tuple(len(groups[g]) for g in range(len(groups)))
    members, real = partition.table()
    for group in range(len(groups)):
        assert partition.members(group).tolist() == groups[group]
        assert members[group][real[group]].tolist() == groups[group]
        assert set(members[group]) == set(groups[group])  # padding names no other group's expert
    for expert, group in enumerate(partition.group_of):
        assert partition.ids()[expert] == group
        assert partition.indicator()[expert].tolist() == [float(g == group) for g in range(len(groups))]


@every
@few
@given(draw.logits())
@example(LOGITS)
def test_sums_and_largest_against_loops(partition, values):
    groups = range(partition.num_groups)
    member_values = [[[row[e] for e in range(6) if partition.group_of[e] == g] for g in groups] for row in values]
    sums = [[sum(each) for each in row] for row in member_values]
    np.testing.assert_allclose(partition.sum(jnp.asarray(values)), sums, rtol=1e-13, atol=1e-13)
    largest = partition.max(jnp.asarray(values))
    np.testing.assert_array_equal(largest, [[max(each) for each in row] for row in member_values])
    spread = [[row[partition.group_of[e]] for e in range(6)] for row in np.asarray(largest)]
    np.testing.assert_array_equal(partition.spread(largest), spread)


def test_leading_axes_and_types():
    """Any number of leading axes, and the type of the values."""
    partition = PARTITIONS["interleaved"]
    for dtype in (jnp.float32, jnp.bfloat16):
        for shape in ((6,), (2, 3, 6)):
            values = jnp.ones(shape, dtype)
            total = partition.sum(values)
            assert total.dtype == dtype
            np.testing.assert_array_equal(total, np.broadcast_to([2, 3, 1], (*shape[:-1], 3)))
            assert partition.spread(total).shape == shape


def test_equal_groups_are_contiguous():
    assert Partition.equal(6, 2).group_of == (0, 0, 0, 1, 1, 1)
    assert Partition.equal(4, 4).group_of == (0, 1, 2, 3)
    assert Partition.equal(3, 1).group_of == (0, 0, 0)


@pytest.mark.usefixtures("unchecked")
def test_whole_numbers_of_numpy_are_whole_numbers():
    partition = Partition(tuple(np.array([0, 1, 0])))
    assert partition == Partition((0, 1, 0))
    assert all(type(group) is int for group in partition.group_of)


def test_static_under_jit_without_retracing():
    """Equal partitions are one static argument, however they were built."""
    traces = 0

    @partial(jax.jit, static_argnums=1)
    def mass(values, partition):
        nonlocal traces
        traces += 1
        return partition.sum(values)

    values = jnp.asarray(LOGITS)
    for partition in (Partition.equal(6, 3), Partition((0, 0, 1, 1, 2, 2)), PARTITIONS["equal"]):
        mass(values, partition)
    assert traces == 1
    mass(values, PARTITIONS["interleaved"])
    assert traces == 2
    assert jax.tree.leaves(PARTITIONS["equal"]) == [PARTITIONS["equal"]]  # not a pytree: nothing inside is traced


@pytest.mark.parametrize("group_of", [(0, 2), (1, 1), (0, 0, 3, 1)])
def test_groups_leave_no_gap(group_of):
    with pytest.raises(ValueError, match=r"must use each group 0..M-1 at least once; got group_of=\("):
        Partition(group_of)
