"""Augmentations of sensor series do what they say."""

from __future__ import annotations

import math

import pytest
import torch
import yaml

from selftaught.errors import UserError
from selftaught.views import series
from selftaught.views.series import AUGMENTATIONS, SeriesOp, SeriesPipeline, series_simclr


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(n: int = 64, channels: int = 6, length: int = 100) -> torch.Tensor:
    time = torch.arange(length) / length
    phase = torch.arange(n * channels).reshape(n, channels, 1) * 0.7
    return torch.sin(2 * math.pi * 3 * time + phase)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_shape_dtype_seed_and_input_are_kept(name: str) -> None:
    x = waves()
    before = x.clone()
    first, second, other = (AUGMENTATIONS[name](x, generator=seeded(seed)) for seed in (0, 0, 1))
    assert first.shape == x.shape
    assert first.dtype == x.dtype
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(x, before)
    assert torch.isfinite(first).all()
    assert AUGMENTATIONS[name](x.double(), generator=seeded()).dtype == torch.float64


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_samples_of_a_batch_are_treated_differently(name: str) -> None:
    options = {"p": 0.5} if name == "channel_dropout" else {}
    x = waves(n=1).expand(16, -1, -1)
    out = AUGMENTATIONS[name](x, generator=seeded(), **options)
    assert (out - out[:1]).abs().amax((1, 2)).gt(1e-4).sum() >= 8


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_what_is_no_series_is_refused(name: str) -> None:
    for bad in (torch.zeros(3, 4), torch.zeros(2, 3, 4, dtype=torch.int64), torch.zeros(0, 3, 4)):
        with pytest.raises(UserError, match=rf"{name}: series are floating"):
            AUGMENTATIONS[name](bad)


def test_jitter_adds_white_noise_of_sigma() -> None:
    residual = series.jitter(torch.zeros(50, 4, 200), 0.3, generator=seeded())
    assert abs(residual.std() - 0.3) < 0.005
    assert abs((residual[..., 1:] * residual[..., :-1]).mean()) < 0.002


def test_scaling_is_one_factor_per_channel() -> None:
    x = waves(400) + 3
    factor = series.scaling(x, 0.2, generator=seeded()) / x
    assert factor.std(-1).max() < 1e-5
    assert abs(factor[..., 0].std() - 0.2) < 0.01
    assert abs(factor.mean() - 1) < 0.02


def test_magnitude_warp_is_smooth_and_spreads_as_asked() -> None:
    curve = series.magnitude_warp(torch.ones(500, 2, 120), 0.2, 4, generator=seeded())
    assert abs(curve.mean() - 1) < 0.02
    assert abs(curve[..., 0].std() - 0.2) < 0.02
    assert curve.diff(dim=-1).abs().mean() < 0.02
    torch.testing.assert_close(series.magnitude_warp(waves(), 0.0), waves())


def test_magnitude_warp_goes_through_its_knots_as_a_cubic_spline() -> None:
    from scipy.interpolate import CubicSpline

    values = torch.randn(6, dtype=torch.float64)
    basis = torch.from_numpy(series._spline_basis(4, 51))
    exact = CubicSpline([0, 10, 20, 30, 40, 50], values.numpy())(range(51))
    torch.testing.assert_close(values @ basis, torch.from_numpy(exact))


def test_time_warp_keeps_the_ends_the_order_and_the_range() -> None:
    ramp = torch.linspace(0, 1, 100).expand(64, 3, 100)
    warped = series.time_warp(ramp, 0.5, generator=seeded())
    assert warped[..., 0].abs().max() < 1e-5
    assert (warped[..., -1] - 1).abs().max() < 1e-5
    assert (warped.diff(dim=-1) > 0).all()
    assert (warped - ramp).abs().amax((1, 2)).mean() > 0.02
    assert torch.equal(warped[:, 0], warped[:, 2])
    torch.testing.assert_close(series.time_warp(waves(), 0.0), waves(), atol=1e-4, rtol=0)


def test_permutation_keeps_every_value_and_whole_pieces() -> None:
    x = torch.arange(60.0).expand(200, 2, 60)
    out = series.permutation(x, 5, generator=seeded())
    assert torch.equal(out.sort(-1).values, x)
    assert torch.equal(out[:, 0], out[:, 1])
    breaks = (out[:, 0].diff(dim=-1) != 1).sum(-1)
    assert breaks.max() <= 4
    assert len(set(breaks.tolist())) >= 4
    assert torch.equal(series.permutation(x, 1), x)
    with pytest.raises(UserError, match="segments"):
        series.permutation(x, 61)


def test_rotation_keeps_lengths_and_angles_of_each_sensor() -> None:
    x = torch.randn(300, 6, 40, generator=seeded(5))
    out = series.rotation(x, generator=seeded())
    before, after = (y.reshape(300, 2, 3, 40) for y in (x, out))
    torch.testing.assert_close(after.norm(dim=2), before.norm(dim=2), atol=1e-5, rtol=1e-5)
    gram = [torch.einsum("ngct,ngcs->ngts", y, y) for y in (before, after)]
    torch.testing.assert_close(*gram, atol=1e-4, rtol=1e-4)
    determinant = torch.linalg.det(after[..., :3]) / torch.linalg.det(before[..., :3])
    torch.testing.assert_close(determinant, torch.ones_like(determinant), atol=1e-2, rtol=1e-2)
    up = series.rotation(torch.tensor([0.0, 0.0, 1.0])[None, :, None].expand(20000, 3, 1), generator=seeded())
    assert up.mean(0).abs().max() < 0.02  # even over the sphere
    assert (up.squeeze(-1).T @ up.squeeze(-1) / 20000 - torch.eye(3) / 3).abs().max() < 0.02


def test_rotation_of_other_channels_draws_signs() -> None:
    x = torch.ones(500, 4, 8)
    out = series.rotation(x, generator=seeded())
    assert set(out.unique().tolist()) == {-1.0, 1.0}
    assert out.std(-1).max() == 0
    assert abs(out.mean()) < 0.05
    assert set(series.rotation(torch.ones(50, 3, 2), axes=1, generator=seeded()).unique().tolist()) == {-1.0, 1.0}


def test_channel_dropout_drops_whole_channels_but_never_all() -> None:
    x = torch.ones(4000, 5, 3)
    kept = series.channel_dropout(x, 0.3, generator=seeded())
    assert kept.std(-1).max() == 0
    assert abs(1 - kept.mean() - 0.3) < 0.01
    assert (series.channel_dropout(x, 1.0, generator=seeded())[..., 0].sum(1) == 1).all()
    assert torch.equal(series.channel_dropout(x, 0.0), x)


def test_crop_resize_reads_a_straight_stretch() -> None:
    ramp = torch.linspace(0, 1, 101).expand(2000, 2, 101)
    out = series.crop_resize(ramp, (0.4, 0.8), generator=seeded())[:, 0]
    span = out[:, -1] - out[:, 0]
    assert 0.4 - 1e-4 <= span.min() < 0.42
    assert 0.78 < span.max() <= 0.8 + 1e-4
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out.diff(dim=-1) - span[:, None] / 100).abs().max() < 1e-4
    torch.testing.assert_close(series.crop_resize(waves(), (1.0, 1.0)), waves(), atol=1e-4, rtol=0)


def test_a_pipeline_applies_each_op_with_its_probability() -> None:
    x = torch.ones(4000, 3, 4)
    flip = SeriesPipeline((SeriesOp("scaling", 0.3, {"sigma": 0.5}),))
    changed = (flip(x, seeded()) != x).any(-1).any(-1).float().mean()
    assert abs(changed - 0.3) < 0.03
    assert torch.equal(SeriesPipeline((SeriesOp("jitter", 0.0),))(x, seeded()), x)


def test_the_contrastive_set_gives_different_repeatable_views() -> None:
    two = series_simclr()
    x = waves()
    a1, a2 = two(x, generator=seeded(1))
    b1, b2 = two(x, generator=1)
    assert a1.shape == x.shape
    assert not torch.equal(a1, a2)
    assert torch.equal(a1, b1)
    assert torch.equal(a2, b2)
    assert len(series_simclr(views=3)) == 3
    assert all(op.name != "rotation" for pipeline in series_simclr(rotate=False) for op in pipeline.ops)


def test_series_descriptions_round_trip_and_refuse_what_they_do_not_know() -> None:
    for pipeline in series_simclr():
        assert SeriesPipeline.from_dict(yaml.safe_load(yaml.safe_dump(pipeline.to_dict()))) == pipeline
    with pytest.raises(UserError, match="no augmentation 'wobble'"):
        SeriesOp("wobble")
    with pytest.raises(UserError, match=r"no option 'sigmas'.*sigma"):
        SeriesOp("jitter", options={"sigmas": 1})
    with pytest.raises(UserError, match="probability"):
        SeriesOp("jitter", 2.0)
