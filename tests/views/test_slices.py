"""Augmentation of slices: shapes and places, alike for masks, limits, draws by the generator."""

from __future__ import annotations

import math

import pytest
import torch

from selftaught import views
from selftaught.errors import UserError


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crops_are_the_papers_at_its_size_and_shares_of_others() -> None:
    x = torch.rand(3, 1, 192, 192, generator=drawn())
    corners = torch.tensor([[10, 69], [40, 12], [69, 10]])
    found = views.crop_and_resize(x, corners, 100)
    wanted = torch.nn.functional.interpolate(x[1:2, :, 40:140, 12:112], size=192, mode="bilinear")
    torch.testing.assert_close(found[1:2], wanted)
    assert views.random_crops(x, generator=drawn()).shape == x.shape
    assert torch.equal(views.random_crops(x, generator=drawn(3)), views.random_crops(x, generator=drawn(3)))
    ramp = torch.arange(48.0).expand(1, 1, 48, 48)  # 25 of 48 pixels from 2 to 17 on
    seen = [views.random_crops(ramp, generator=drawn(k)) for k in range(60)]
    assert {round(float(s.min())) for s in seen} <= set(range(2, 18))
    assert {round(float(s.max() - s.min())) for s in seen} == {24}
    with pytest.raises(UserError, match="corners"):
        views.crop_and_resize(x, corners + 90, 100)


def test_intensity_has_one_draw_and_keeps_to_its_limits() -> None:
    x = torch.rand(4, 1, 8, 8, generator=drawn())
    torch.testing.assert_close(views.shift_intensity(x, brightness=0, contrast=0), x)
    found = views.shift_intensity(x, brightness=0.2, contrast=0, low=-9, high=9, generator=drawn(1))
    assert (found - x).flatten().std() < 1e-6
    found = views.shift_intensity(x, brightness=0, contrast=0.3, low=-9, high=9, generator=drawn(1))
    ratio = (found - x.mean((2, 3), keepdim=True)) / (x - x.mean((2, 3), keepdim=True))
    assert ratio.flatten().std() < 1e-4
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)))
    far = views.shift_intensity(9 * x - 4)
    assert far.min() == 0
    assert far.max() == 1.5


def test_each_slice_gets_one_of_five_moves() -> None:
    matrices = views.affine_matrices(4000, like=torch.zeros(1), generator=drawn())
    determinant = torch.linalg.det(matrices)
    flips = determinant < 0
    eye = (matrices - torch.eye(2)).abs().amax((1, 2)) < 1e-6
    scaled = ~flips & ((determinant - 1).abs() > 1e-5)
    assert 0.17 < flips.float().mean() < 0.23
    assert 0.17 < scaled.float().mean() < 0.23
    assert 0.2 < eye.float().mean() < 0.25  # nothing, and the eighth of the turns that is none
    angle = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])[~flips & ~scaled & ~eye] * 180 / math.pi
    small = angle.abs() <= 15.001
    assert (angle[~small] / 45).frac().abs().fmod(1).min() < 1e-3
    assert angle[small].abs().max() > 14
    turned = views.warp(torch.arange(16.0).view(1, 1, 4, 4), matrix=torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]))
    assert torch.equal(turned[0, 0], torch.arange(16.0).view(4, 4).rot90(1)) or torch.equal(
        turned[0, 0], torch.arange(16.0).view(4, 4).rot90(-1)
    )


def test_masks_move_with_their_slices() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    mask = (((x - 30) ** 2 + (y - 34) ** 2) < 200).long()[None].expand(12, -1, -1).contiguous()
    pixels = mask[:, None].float() * 0.8
    found, classes = views.augment_labelled(pixels, mask, generator=drawn(2))
    assert ((found[:, 0] > 0.4).long() == classes).float().mean() > 0.99
    same = (found == pixels).flatten(1).all(1).tolist()
    assert same == sorted(same, reverse=True), "the first ones stay as they are"
    assert 0 < sum(same) < 12
    assert classes.dtype == torch.int64
    still, kept = views.augment_labelled(
        pixels, mask, deviation=0.0, degrees=0, scale=0, brightness=0.1, generator=drawn()
    )
    assert still.shape == pixels.shape
    assert kept.shape == mask.shape
    field = views.elastic_field(200, 48, like=pixels, generator=drawn())
    assert field.shape == (200, 48, 48, 2)
    assert 3 < field.std() < 6
    with pytest.raises(UserError, match="masks need the shape"):
        views.augment_labelled(pixels, mask[:3])


def test_mixup_mixes_pixels_and_shares_alike() -> None:
    x, y = torch.rand(5, 1, 4, 4, generator=drawn()), torch.rand(5, 3, 4, 4, generator=drawn())
    a, b = views.mix_up(x, y, share=0.3, generator=drawn(1))
    other = torch.randperm(5, generator=drawn(1))
    torch.testing.assert_close(a, 0.3 * x + 0.7 * x[other])
    torch.testing.assert_close(b, 0.3 * y + 0.7 * y[other])
    assert torch.equal(views.mix_up(x, y, share=1.0)[0], x)
    with pytest.raises(UserError, match="alpha=0"):
        views.mix_up(x, y, 0.0)


def test_pretexts_hide_a_square_or_exchange_some() -> None:
    x = torch.rand(3, 2, 24, 24, generator=drawn()) + 0.1
    painted = views.paint_over(x, generator=drawn(1))
    assert ((painted == 0).flatten(1).sum(1) == 2 * 64).all()
    assert torch.equal(painted[painted != 0], x[painted != 0])
    swapped = views.context_swap(x, generator=drawn(1))
    assert (swapped != x).any()
    torch.testing.assert_close(swapped.flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    with pytest.raises(UserError, match="slices are"):
        views.paint_over(x[0])
