"""INFWIDE's losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from selftaught import objectives
from selftaught.errors import UserError
from selftaught.networks.wiener import circular_blur


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tv(x: np.ndarray) -> float:
    b, c, h, w = x.shape
    down = ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum() / (c * (h - 1) * w)
    right = ((x[:, :, :, 1:] - x[:, :, :, :-1]) ** 2).sum() / (c * h * (w - 1))
    return 2 / b * (down + right)


def blurred(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """True convolution with wrap-around, by its definition."""
    out = np.zeros_like(x)
    for (i, j), weight in np.ndenumerate(k):
        down, right = i - (k.shape[0]) // 2, j - (k.shape[1]) // 2
        out += weight * np.roll(x, (down, right), (-2, -1))
    return out


def test_the_losses_as_written() -> None:
    x, b, d, out = (draw(2, 3, 24, 26, seed=s) for s in range(4))
    half = draw(2, 3, 12, 13, seed=5)
    kernel = draw(2, 1, 5, 3, seed=6)
    main = 0.0
    small = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    for one, wanted in ((half, small), (out, x)):
        e = (one - wanted).numpy()
        similar = objectives.ssim(one, wanted).item()
        main += 0.4 * np.abs(e).mean() + 0.2 * (e**2).mean() + 0.2 * (1 - similar) + 0.2 * tv(one.numpy())
    assert objectives.infwide_main([half, out], x).item() == pytest.approx(main, rel=1e-10)
    e = (d - b).numpy()
    denoise = 0.5 * np.abs(e).mean() + 0.3 * (e**2).mean() + 0.2 * tv(d.numpy())
    assert objectives.infwide_denoise(d, b).item() == pytest.approx(denoise, rel=1e-12)
    again = np.stack([blurred(out[n].numpy(), kernel[n, 0].numpy()) for n in range(2)])
    reblur = np.abs(again - b.numpy()).mean()
    assert objectives.infwide_reblur(out, kernel, b).item() == pytest.approx(reblur, rel=1e-10)
    whole = objectives.infwide([half, out], d, x, b, kernel)
    assert whole.item() == pytest.approx(main + 0.5 * denoise + 0.5 * reblur, rel=1e-10)
    terms = objectives.infwide_terms([half, out], d, x, b, kernel, denoise=0, reblur=0)
    assert set(terms) == {"loss", "main"}


def test_blurring_the_sharp_image_again_costs_nothing() -> None:
    x, kernel = draw(1, 3, 20, 22), draw(1, 1, 7, 5, seed=1)
    kernel = kernel / kernel.sum()
    b = circular_blur(x, kernel)
    torch.testing.assert_close(objectives.reblurred(x, kernel), b)
    assert objectives.infwide_reblur(x, kernel, b) < 1e-6
    assert objectives.infwide_reblur(x, kernel.flip(2, 3), b) > 1e-3


def test_gradients_and_what_is_refused() -> None:
    x, b = draw(1, 1, 12, 12), draw(1, 1, 12, 12, seed=1)
    kernel = draw(1, 1, 3, 3, seed=2)
    out = draw(1, 1, 12, 12, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: objectives.infwide([o], o, x, b, kernel), (out,))
    with pytest.raises(UserError, match="half its size"):
        objectives.infwide_main([x[..., :8, :8]], x)
    with pytest.raises(UserError, match="larger than the image"):
        objectives.reblurred(x, draw(1, 1, 13, 3))
