"""Alterations of videos: each is undone exactly, none moves between frames, and names that don't exist are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import ALTERATIONS, Alteration, Pipeline, alter, ground_depth, rearranging


def test_cuts_and_tiles_are_bijections() -> None:
    x = torch.arange(2 * 24 * 32.0).view(1, 2, 24, 32)
    for part in (1, 2, 3, 4):
        row = rearranging.cut_row(24, part, unit=2)
        assert torch.equal(rearranging.unswap_parts(rearranging.swap_parts(x, row), row), x)
    rng = np.random.default_rng(0)
    for rows, columns in ((2, 2), (3, 4), (2, 4)):
        order = rng.permutation(rows * columns).tolist()
        made = rearranging.shuffle_tiles(x, order, rows, columns)
        assert torch.equal(rearranging.unshuffle_tiles(made, order, rows, columns), x)
        assert not torch.equal(made, x)
        h, w = 24 // rows, 32 // columns
        first = divmod(order[0], columns)
        assert torch.equal(
            made[..., :h, :w], x[..., first[0] * h : (first[0] + 1) * h, first[1] * w : (first[1] + 1) * w]
        )


def test_every_drawn_change_is_undone_at_every_scale() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(60):
        change = rearranging.draw_rearrangement(rng, 48, 64, always=True, unit=4)
        seen.add((change.kind, change.shrinks))
        for scale in (0, 1, 2):
            x = torch.rand(1, 1, 48 >> scale, 64 >> scale)
            made = rearranging.rearrange(x, change, scale)
            assert made.shape == x.shape
            if change.kind in ("tiling", "vertical"):
                assert torch.equal(rearranging.undo_rearrangement(made, change, scale), x)
    assert seen == {("tiling", False), ("vertical", False), ("erase", False), ("scale", True), ("scale", False)}
    nothing = [rearranging.draw_rearrangement(rng, 48, 64).kind for _ in range(200)]
    assert 60 < nothing.count("none") < 140
    assert rearranging.draw_rearrangement(rng, 48, 64, always=True, kinds=()).kind == "none"


def test_scaling_repeats_the_tail_or_keeps_a_window() -> None:
    x = torch.rand(1, 3, 20, 20)
    assert rearranging.scale_picture(x, (20, 20)) is x
    small = rearranging.scale_picture(x, (16, 16))
    assert torch.equal(small[..., 16:, :16], small[..., 12:16, :16])
    assert torch.equal(small[..., :16, 16:], small[..., :16, 12:16])
    large = rearranging.scale_picture(x, (40, 40), (20, 10))
    assert large.shape == x.shape
    with pytest.raises(UserError, match="corner"):
        rearranging.scale_picture(x, (22, 22), (3, 0))


@pytest.mark.parametrize("kind", ALTERATIONS)
def test_an_alteration_is_fixed_by_its_seed(kind: str) -> None:
    image = (255 * np.random.default_rng(0).random((20, 28, 3))).astype(np.uint8)
    made = [alter(image, kind, 0.6, rng=np.random.default_rng(3)) for _ in range(2)]
    assert (made[0].shape, made[0].dtype) == (image.shape, np.uint8)
    assert np.array_equal(*made)
    assert np.array_equal(made[0], image) == (kind == "clear")
    assert alter(image[..., :1], kind, 0.6).shape == (20, 28, 1)


def test_all_frames_of_a_clip_get_the_same() -> None:
    frame = (255 * np.random.default_rng(0).random((20, 28, 3))).astype(np.uint8)
    pipeline = Pipeline((Alteration(("rain", "snow", "gaussian_noise")),))
    clip = np.stack([frame] * 3)
    recipe = views.Recipe((views.View("altered", "clip", pipeline),))
    made = recipe.render({"clip": clip}, recipe.sample(np.random.default_rng(0), {"clip": clip.shape}))
    assert np.array_equal(made["altered"][0], made["altered"][1])
    assert not np.array_equal(made["altered"][0], frame)


def test_fog_thickens_with_distance() -> None:
    image = np.full((32, 32, 3), 0.2, dtype=np.float32)
    depth = np.where(np.arange(32)[None] < 16, 2.0, 20.0).repeat(32, 0)
    made = alter(image, "fog", 0.5, depth=depth)
    assert made[:, 16:].mean() > made[:, :16].mean() + 0.2
    road = ground_depth(40, 30)
    assert road[0, 0] == 80
    assert (np.diff(road[:, 0]) <= 0).all()


def test_wrong_names_and_strengths_are_refused() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    for call, words in (
        (lambda: alter(image, "rain+hail"), "alteration 'hail'"),
        (lambda: alter(image, "rain", 2.0), "strength 2"),
        (lambda: alter(image, "fog", depth=np.ones((3, 3))), "depth: shape"),
        (lambda: Alteration(("mist",)), "alteration 'mist'"),
        (lambda: rearranging.shuffle_tiles(torch.zeros(1, 1, 5, 8), [0, 1], 2, 1), "don't divide"),
    ):
        with pytest.raises(UserError, match=words):
            call()
