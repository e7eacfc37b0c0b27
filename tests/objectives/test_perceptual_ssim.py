"""Structural similarity against its formula, a library, its limits and its derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError

C1, C2 = 0.01**2, 0.03**2


def pictures(side: int = 24, channels: int = 2, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, channels, side, side, generator=generator, dtype=torch.float64)
    return x, (x + 0.3 * torch.rand(x.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def window(size: int, sigma: float) -> np.ndarray:
    line = [math.exp(-((k - (size - 1) / 2) ** 2) / (2 * sigma**2)) for k in range(size)]
    flat = np.outer(line, line)
    return flat / flat.sum()


def by_hand(x: np.ndarray, y: np.ndarray, size: int = 11, sigma: float = 1.5) -> tuple[np.ndarray, ...]:
    """I, C, S of every window of two planes, as the paper writes them, with loops."""
    w = window(size, sigma)
    shape = (x.shape[0] - size + 1, x.shape[1] - size + 1)
    found = np.zeros((3, *shape))
    for i in range(shape[0]):
        for j in range(shape[1]):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum()
            vab = (w * (a - ma) * (b - mb)).sum()
            sa, sb = math.sqrt(va), math.sqrt(vb)
            found[0, i, j] = (2 * ma * mb + C1) / (ma**2 + mb**2 + C1)
            found[1, i, j] = (2 * sa * sb + C2) / (va + vb + C2)
            found[2, i, j] = (vab + C2 / 2) / (sa * sb + C2 / 2)
    return tuple(found)


def halved(x: np.ndarray) -> np.ndarray:
    h, w = x.shape[0] // 2, x.shape[1] // 2
    return np.array([[x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean() for j in range(w)] for i in range(h)])


# ---- the formulas ----------------------------------------------------------------------------------------------------
def test_components_and_ssim_as_written() -> None:
    x, y = pictures(15)
    found = objectives.ssim_components(x, y)
    total = []
    for b in range(2):
        for c in range(2):
            i, k, s = by_hand(x[b, c].numpy(), y[b, c].numpy())
            np.testing.assert_allclose(found.luminance[b, c], i, rtol=1e-9)
            np.testing.assert_allclose(found.contrast[b, c], k, rtol=1e-9)
            np.testing.assert_allclose(found.structure[b, c], s, rtol=1e-8)
            np.testing.assert_allclose(found.contrast_structure[b, c], k * s, rtol=1e-8)
            total.append((i * k * s).mean())
    assert objectives.ssim(x, y).item() == pytest.approx(np.mean(total), rel=1e-9)


@pytest.mark.parametrize("weights", [(0.3, 0.7), None])
def test_ms_ssim_as_written(weights: Any) -> None:
    x, y = pictures(25)
    powers = weights or (0.0448 / 0.3304, 0.2856 / 0.3304)
    per_image = []
    for b in range(2):
        per_channel = []
        for c in range(2):
            a, d = x[b, c].numpy(), y[b, c].numpy()
            _, k, s = by_hand(a, d)
            i2, k2, s2 = by_hand(halved(a), halved(d))
            per_channel.append((k * s).mean() ** powers[0] * (i2 * k2 * s2).mean() ** powers[1])
        per_image.append(np.mean(per_channel))
    options: dict[str, Any] = {"scales": 2, "weights": weights}
    assert objectives.ms_ssim(x, y, **options).item() == pytest.approx(np.mean(per_image), rel=1e-9)
    np.testing.assert_allclose(objectives.ms_ssim(x, y, reduction="none", **options), per_image, rtol=1e-9)
    loss = objectives.perceptual_ssim(x, y, **options)
    assert loss.item() == pytest.approx(1 - np.mean(per_image), rel=1e-9)


def test_the_pixelwise_form_as_written() -> None:
    x, y = pictures(14, channels=1, batch=1)
    a, b = x[0, 0].numpy(), y[0, 0].numpy()
    _, k, s = by_hand(a, b, 9, 0.5)
    _, k1, s1 = by_hand(a, b, 9, 1.0)
    i2, k2, s2 = by_hand(a, b, 9, 2.0)
    g = objectives.ms_ssim_weights(3)
    expected = (k * s).clip(1e-8) ** g[0] * (k1 * s1).clip(1e-8) ** g[1] * (i2 * k2 * s2).clip(1e-8) ** g[2]
    found = objectives.ms_ssim_map(x, y, scales=3)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-8)
    assert objectives.ms_ssim(x, y, scales=3, reduction="pixel").item() == pytest.approx(expected.mean(), rel=1e-8)
    ones = objectives.ms_ssim_map(x, y, weights=(1.0, 1.0, 1.0))
    expected = (k * s).clip(1e-8) * (k1 * s1).clip(1e-8) * (i2 * k2 * s2).clip(1e-8)
    np.testing.assert_allclose(ones[0, 0], expected, rtol=1e-8)
    assert objectives.ms_ssim_map(x, y, scales=3, border="reflect").shape == x.shape


def test_one_scale_is_the_ssim_of_scikit_image() -> None:
    x, y = pictures(40, channels=3, batch=1)
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, full = structural_similarity(x[0].numpy(), y[0].numpy(), channel_axis=0, full=True, **wang)
    expected = full[:, 5:-5, 5:-5].mean()
    assert objectives.ms_ssim(x, y, weights=(1.0,)).item() == pytest.approx(expected, abs=1e-7)
    assert objectives.ssim(255 * x, 255 * y, data_range=255).item() == pytest.approx(expected, abs=1e-7)


def test_the_other_distances_and_the_mixture() -> None:
    x, y = pictures()
    l1, l2 = (x - y).abs().mean().item(), (x - y).square().mean().item()
    assert objectives.perceptual_ssim(x, y, loss="l1").item() == pytest.approx(l1)
    assert objectives.perceptual_ssim(x, y, loss="l2").item() == pytest.approx(l2)
    similar = objectives.ms_ssim(x, y, scales="auto").item()
    assert objectives.perceptual_ssim(x, y, loss="mix").item() == pytest.approx(0.84 * (1 - similar) + 0.16 * l1)
    whole = objectives.ssim(x, y).item()
    assert objectives.perceptual_ssim(x, y, loss="ssim").item() == pytest.approx(1 - whole)


def test_scales_that_pictures_have_room_for() -> None:
    assert [objectives.ms_ssim_scales(side) for side in (11, 32, 64, 96, 175, 176, 4000)] == [1, 2, 3, 4, 4, 5, 5]
    assert objectives.ms_ssim_scales(32, 7) == 3
    assert objectives.ms_ssim_weights(2) == pytest.approx((0.1356, 0.8644), abs=1e-4)
    assert objectives.ms_ssim_weights(3) == pytest.approx((0.0710, 0.4529, 0.4760), abs=1e-4)
    assert objectives.ms_ssim_weights(5) == objectives.MS_SSIM_WEIGHTS


# ---- limits ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, {"reduction": "pixel"}, {"downsample": "gauss"}, {"colour": "luma"}])
def test_identity_symmetry_and_bound(options: Any) -> None:
    x, y = pictures(48, channels=3)
    same = x.clone().requires_grad_()
    value = objectives.ms_ssim(same, x, scales=2, **options)
    value.backward()
    assert value.item() == pytest.approx(1, abs=1e-9)
    assert same.grad is not None
    assert same.grad.abs().max() < 1e-9
    one, other = (objectives.ms_ssim(*pair, scales=2, **options) for pair in ((x, y), (y, x)))
    assert one.item() == pytest.approx(other.item(), rel=1e-12)
    assert one < 1


def test_constant_images_and_a_constant_shift() -> None:
    a, b = 0.2, 0.7
    flat = torch.ones(1, 1, 30, 30, dtype=torch.float64)
    assert objectives.ssim(a * flat, b * flat).item() == pytest.approx((2 * a * b + C1) / (a * a + b * b + C1))
    assert objectives.ssim_components(a * flat, b * flat).contrast_structure.sub(1).abs().max() < 1e-12
    x, _ = pictures(30)
    parts = objectives.ssim_components(x / 2, x / 2 + 0.25)
    assert parts.contrast_structure.sub(1).abs().max() < 1e-9
    assert parts.luminance.max() < 1


@pytest.mark.parametrize("options", [{}, {"reduction": "pixel"}, {"clamp": "relu"}])
def test_gradients(options: Any) -> None:
    x, y = pictures(12, channels=1, batch=1)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda u: objectives.ms_ssim(u, y, win_size=3, scales=2, **options), (x,))


@pytest.mark.parametrize("clamp", ["eps", "relu"])
@pytest.mark.parametrize("reduction", ["mean", "pixel"])
def test_opposite_black_and_white_pictures_have_finite_gradients(clamp: Any, reduction: Any) -> None:
    checks = (torch.arange(24)[:, None] + torch.arange(24)) % 2
    for target in (checks.float(), torch.zeros(24, 24), torch.ones(24, 24)):
        y = target.expand(1, 1, 24, 24)
        x = (1 - y).clone().requires_grad_()
        loss = objectives.perceptual_ssim(x, y, clamp=clamp, reduction=reduction)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(x.grad).all()  # type: ignore[union-attr]
    parts = objectives.ssim_components(x, y)
    assert all(torch.isfinite(torch.autograd.grad(p.sum(), x, retain_graph=True)[0]).all() for p in parts)


def test_half_precision_is_computed_in_float32() -> None:
    x, y = (image.float() for image in pictures(24))
    low = objectives.ssim(x.bfloat16(), y.bfloat16())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(objectives.ssim(x.bfloat16().float(), y.bfloat16().float()).item())


def test_a_wrong_range_is_said() -> None:
    x, y = pictures()
    with pytest.warns(UserWarning, match="data_range=255"):
        objectives.ssim(x, y, data_range=255)
    with pytest.warns(UserWarning, match="data_range=1"):
        objectives.ssim(255 * x, 255 * y)


def test_what_does_not_fit_is_refused() -> None:
    x, y = pictures(24)
    with pytest.raises(UserError, match="smaller than the window of 11"):
        objectives.ms_ssim(x, y)
    with pytest.raises(UserError, match="one for each scale"):
        objectives.ms_ssim(x, y, scales=2, weights=(1.0,))
    with pytest.raises(UserError, match="have no luma"):
        objectives.ssim(x, y, colour="luma")
    with pytest.raises(UserError, match="loss must be one of"):
        objectives.perceptual_ssim(x, y, loss="l3")  # type: ignore[arg-type]


# ---- the variational loss --------------------------------------------------------------------------------------------
def test_el_vae_as_written() -> None:
    mean, log_variance = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for m, v in zip(mean.tolist(), log_variance.tolist(), strict=True):
        total += 0.5 * sum(a * a + math.exp(b) - 1 - b for a, b in zip(m, v, strict=True))
    kl = objectives.standard_normal_kl(mean, log_variance)
    assert kl.item() == pytest.approx(total / 3, rel=1e-12)
    terms = objectives.el_vae_terms(torch.tensor(0.25, dtype=torch.float64), mean, log_variance, lambda_=40.0)
    assert terms["loss"].item() == pytest.approx(10 + total / 3, rel=1e-12)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    library = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert kl.item() == pytest.approx(library.item(), rel=1e-9)


def test_squared_error_with_its_lambda_is_the_gaussian_vae() -> None:
    x, y = pictures(12, channels=1)
    mean, log_variance = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)
    deviation = 0.1
    distance = objectives.perceptual_ssim(y, x, loss="l2")
    found = objectives.el_vae(distance, mean, log_variance, lambda_=144 / (2 * deviation**2))
    density = torch.distributions.Normal(y, deviation).log_prob(x).sum((1, 2, 3)).mean()
    constant = 144 * math.log(deviation * math.sqrt(2 * math.pi))
    assert found.item() == pytest.approx(-density.item() - constant, rel=1e-9)
