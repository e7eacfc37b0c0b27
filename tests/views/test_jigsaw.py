"""Jigsaw puzzles: orders far apart, tiles cut without leaks."""

from __future__ import annotations

from itertools import permutations as every_order

import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.views import jigsaw


def test_orders_are_permutations_far_from_one_another() -> None:
    orders = jigsaw.permutations(35)
    assert orders.shape == (35, 9)
    assert orders.dtype == torch.int64
    assert torch.equal(orders[0], torch.arange(9))
    assert torch.equal(orders.sort(1).values, torch.arange(9).expand(35, 9))
    distance = (orders[:, None] != orders[None]).sum(2)
    off = distance[~torch.eye(35, dtype=torch.bool)]
    assert off.min() >= 7  # 35 random ones come as near as 5 or 6
    assert off.double().mean() > 7.9  # the mean of random ones is 8
    assert torch.equal(jigsaw.permutations(35), orders)
    assert torch.equal(jigsaw.permutations(10), orders[:10])


def test_the_choice_is_greedy() -> None:
    orders = [tuple(row) for row in jigsaw.permutations(6, tiles=4).tolist()]
    for count in range(1, 6):
        gap = lambda one, count=count: min(sum(a != b for a, b in zip(one, o, strict=True)) for o in orders[:count])  # noqa: E731
        assert gap(orders[count]) == max(gap(one) for one in every_order(range(4)))


def test_tiles_are_the_image_and_come_back_in_order() -> None:
    x = torch.arange(2 * 3 * 12 * 12, dtype=torch.float32).view(2, 3, 12, 12)
    tiles = jigsaw.cut(x, 3, 4)
    assert tiles.shape == (2, 9, 3, 4, 4)
    for t in range(9):
        top, left = 4 * (t // 3), 4 * (t % 3)
        assert torch.equal(tiles[:, t], x[:, :, top : top + 4, left : left + 4])
    assert jigsaw.cut(x[:, :, :11, :11]).shape == (2, 9, 3, 11, 11)


def test_an_enlarged_tile_knows_nothing_of_its_neighbours() -> None:
    x = torch.zeros(1, 1, 30, 30)
    x[:, :, 10:20, 10:20] = 1
    tiles = jigsaw.cut(x, 3, 32)
    assert torch.equal(tiles[:, 4], torch.ones(1, 1, 32, 32))
    assert tiles.sum() == 32 * 32


def test_shuffle_puts_every_tile_where_it_was_told() -> None:
    tiles = torch.arange(2 * 9).view(2, 9, 1)
    order = torch.from_numpy(np.stack([np.random.default_rng(k).permutation(9) for k in range(2)]))
    found = jigsaw.shuffle(tiles, order)
    for n in range(2):
        assert [int(v) for v in found[n]] == [9 * n + int(p) for p in order[n]]


def test_wrong_options_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="24"):
        jigsaw.permutations(25, tiles=4)
    with pytest.raises(UserError, match="2 to 9"):
        jigsaw.permutations(35, tiles=16)
    with pytest.raises(UserError, match="larger"):
        jigsaw.cut(torch.rand(1, 1, 2, 2))
