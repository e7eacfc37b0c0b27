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


# ---- tiles that give nothing away ----------------------------------------------------------------------------------
def test_inner_crops_lie_in_their_cells_at_places_drawn_evenly() -> None:
    rows = torch.arange(31.0)[:, None].expand(31, 31)
    x = torch.stack([rows, rows.T]).expand(400, 2, 31, 31)
    tiles = jigsaw.inner_crops(x, 3, 7, generator=torch.Generator().manual_seed(0))
    assert tiles.shape == (400, 9, 2, 7, 7)
    corner = tiles[:, :, :, 0, 0] - torch.tensor([[10.0 * (t // 3), 10.0 * (t % 3)] for t in range(9)])
    assert set(corner.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    for t in range(9):
        count = torch.bincount(corner[:, t, 0].long(), minlength=4)
        assert count.min() > 60  # of 400, 100 are expected
    step = tiles[:, :, 0, 1:] - tiles[:, :, 0, :-1]
    assert torch.equal(step, torch.ones_like(step))
    assert torch.equal(jigsaw.inner_crops(x[:, :, :30, :30], 3, 10), jigsaw.cut(x[:, :, :30, :30], 3, 10))
    with pytest.raises(UserError, match="give 1 to 10"):
        jigsaw.inner_crops(x, 3, 11)


def test_tiles_have_the_papers_size_or_whole_patches() -> None:
    assert jigsaw.tile_side(225) == 64
    assert jigsaw.tile_side(224, 3, 16) == 64
    assert jigsaw.tile_side(32, 3, 4) == 8
    with pytest.raises(UserError, match="smaller patches"):
        jigsaw.tile_side(24, 3, 8)


def test_assembled_tiles_lie_row_by_row() -> None:
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(jigsaw.assemble(jigsaw.cut(x, 3, 4)), x)
    with pytest.raises(UserError, match="8 tiles"):
        jigsaw.assemble(torch.randn(1, 8, 3, 4, 4))


def test_standardised_tiles_forget_brightness_and_contrast() -> None:
    tiles = torch.randn(2, 9, 3, 6, 6, dtype=torch.float64)
    found = jigsaw.standardised(tiles)
    torch.testing.assert_close(found.mean((-2, -1)), torch.zeros(2, 9, 3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(jigsaw.standardised(3 * tiles + 5), found, atol=1e-5, rtol=0)
    assert not jigsaw.standardised(torch.ones(1, 1, 1, 4, 4)).any()


def test_one_channel_of_a_tile_stays() -> None:
    tiles = torch.randn(30, 2, 3, 8, 8)
    found = jigsaw.drop_colours(tiles, generator=torch.Generator().manual_seed(0))
    same = (found == tiles).flatten(3).all(3)
    assert torch.equal(same.sum(2), torch.ones(30, 2, dtype=torch.int64))
    assert (same.sum((0, 1)) > 8).all()
    noise = found[~same].flatten(1).std(1)
    assert 0.005 < noise.mean() < 0.02
    assert torch.equal(jigsaw.drop_colours(tiles[:, :, :1]), tiles[:, :, :1])


def test_the_projection_takes_green_against_magenta_away() -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    found = jigsaw.project_colours(x)
    along = -found[:, 0] + 2 * found[:, 1] - found[:, 2]
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)
    torch.testing.assert_close(jigsaw.project_colours(found), found)
    torch.testing.assert_close(found.sum(1), x.sum(1))
    with pytest.raises(UserError, match="3 channels"):
        jigsaw.project_colours(x[:, :2])
