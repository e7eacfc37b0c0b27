from __future__ import annotations

import numpy as np
import pytest

from selftaught.data import ResumableBatchSampler
from selftaught.errors import UserError


def batches(*args, **options) -> list[list[int]]:
    return list(ResumableBatchSampler(*args, **{"seed": 0, "epoch": 0, **options}))


def flatten(lists) -> list[int]:
    return [i for one in lists for i in one]


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_is_a_permutation(drop_last):
    got = batches(103, 10, drop_last=drop_last)
    flat = flatten(got)
    assert [len(b) for b in got] == [10] * 10 + [3] * (not drop_last)
    assert len(set(flat)) == len(flat)
    assert all(isinstance(i, int) and 0 <= i < 103 for i in flat)
    assert flat != sorted(flat)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    first = batches(50, 8, seed=3, epoch=2)
    np.random.default_rng(0).permutation(50)
    assert batches(50, 8, seed=3, epoch=2) == first
    assert batches(50, 8, seed=3, epoch=3) != first
    assert batches(50, 8, seed=4, epoch=2) != first
    assert flatten(batches(50, 5, seed=3, epoch=2))[:48] == flatten(first)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_side_by_side_are_one_process_with_the_larger_batch(world, drop_last):
    n, b = 131, 6
    alone = batches(n, b * world, drop_last=drop_last, epoch=5)
    ranks = [batches(n, b, drop_last=drop_last, epoch=5, rank=r, world=world) for r in range(world)]
    assert len({len(r) for r in ranks}) == 1
    for k, parts in enumerate(zip(*ranks, strict=True)):
        joined = flatten(parts)
        assert len({len(p) for p in parts}) == 1
        assert joined == alone[k][: len(joined)]
        assert len(alone[k]) - len(joined) < world
        assert len(set(joined)) == len(joined)


@pytest.mark.parametrize("start", [0, 1, 7, 12])
def test_a_stop_and_a_start_lose_nothing(start):
    whole = batches(100, 8, epoch=4)
    sampler = ResumableBatchSampler(100, 8, seed=0, epoch=4, start_batch=start)
    assert list(sampler) == whole[start:]
    assert len(sampler) == len(whole) - start
    assert sampler.batches_per_epoch == len(whole)
    sampler.set_epoch(5)
    assert list(sampler) == batches(100, 8, epoch=5)
    sampler.set_epoch(5, 3)
    assert list(sampler) == batches(100, 8, epoch=5)[3:]


def test_without_shuffling_the_order_is_that_of_the_source():
    assert batches(7, 3, shuffle=False, drop_last=False) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(
    ("args", "options", "said"),
    [
        ((10, 16), {}, "10 samples don't fill one batch of 16; use batch_size=10 or less"),
        ((10, 16), {"world": 2}, "don't fill one batch of 32; use batch_size=5 or less per process"),
        ((1, 4), {"world": 2, "drop_last": False}, "1 samples are too few for 2 processes"),
        ((0, 4), {"drop_last": False}, "0 samples"),
        ((10, 0), {}, "sizes must be at least 1"),
        ((10, 2), {"rank": 2, "world": 2}, "rank below world"),
        ((10, 2), {"start_batch": 6}, "start_batch=6 lies outside an epoch of 5 batches"),
    ],
)
def test_errors(args, options, said):
    with pytest.raises(UserError, match=said):
        batches(*args, **options)
