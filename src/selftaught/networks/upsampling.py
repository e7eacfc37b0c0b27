"""Enlarging images by a whole factor without learning: bicubic interpolation as one fixed convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError

__all__ = ["BicubicUpsample", "cubic"]

_REACH = 2  # pixels that an output looks away


def cubic(t: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic kernel of support [-2, 2]; a = -0.5 is MATLAB's and Pillow's, -0.75 is OpenCV's.

    Args:
        t: distances in pixels, any shape.
        a: slope at distance 1.
    """
    t = t.abs()
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


class BicubicUpsample(nn.Module):
    """Bicubic enlargement as MATLAB's ``imresize`` does it: Keys' kernel with a = -0.5, borders mirrored.

    Output pixel k lies at (k + 1/2) / scale - 1/2 of the input. No parameters; linear, so gradients pass.

    Args:
        scale: whole factor, at least 1.

    Raises:
        UserError: a factor below 1.
    """

    kernel: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        if scale < 1:
            raise UserError(f"scale={scale}: images are enlarged by a whole factor of at least 1")
        self.scale = scale
        phase = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
        taps = cubic(phase[:, None] - torch.arange(-_REACH, _REACH + 1, dtype=torch.float64))
        kernel = torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)[:, None]
        self.register_buffer("kernel", kernel, persistent=False)  # (scale^2, 1, 5, 5), exact in float64 until cast

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, scale * H, scale * W)."""
        channels = x.shape[1]
        planes = _mirrored(_mirrored(x, 2), 3).flatten(0, 1)[:, None]
        phases = F.conv2d(planes, self.kernel.to(x.dtype))
        return F.pixel_shuffle(phases, self.scale).unflatten(0, (-1, channels)).squeeze(2)


def _mirrored(x: Tensor, dim: int) -> Tensor:
    """Two pixels more on either side: the image mirrored at its edge, edge pixels twice."""
    if x.shape[dim] == 1:
        return torch.cat([x] * (2 * _REACH + 1), dim)
    first, last = x.narrow(dim, 0, _REACH).flip(dim), x.narrow(dim, x.shape[dim] - _REACH, _REACH).flip(dim)
    return torch.cat([first, x, last], dim)
