"""A small generator of variants: images through a noised code, the noise level told to the decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["ConditionalAutoencoder", "level_embedding"]


def level_embedding(level: Tensor, width: int, *, longest: float = 10000.0) -> Tensor:
    """Cosines and sines of a noise level at ``width`` / 2 frequencies from 1 down to 1 / ``longest``.

    Args:
        level: (N,) whole numbers.
        width: even.

    Returns:
        (N, width) float32.

    Raises:
        UserError: an odd width, levels of another shape.
    """
    if width < 2 or width % 2 or level.dim() != 1:
        raise UserError(f"levels need the shape (N,) and an even width, got {tuple(level.shape)} and {width}")
    half = torch.arange(width // 2, device=level.device) / (width // 2)
    angle = level.float()[:, None] * torch.exp(-math.log(longest) * half)
    return torch.cat([angle.cos(), angle.sin()], 1)


class ConditionalAutoencoder(nn.Module):
    """Images to a code c (N, D), and codes with the level of noise in them back to images.

        encoder: 3 convolutions of stride 2 (ReLU) -> tokens (N, P, F) -> linear: c
        decoder: [c, embedding of the level] -> linear, ReLU -> 3 transposed convolutions of stride 2 -> sigmoid

    Args:
        channels: of the images.
        side: of the square images in pixels, a multiple of 8.
        dim: D, width of the code.
        width: channels after the first convolution; F is four times as many.

    Raises:
        UserError: a side that isn't a multiple of 8, widths below 1.
    """

    mean: Tensor
    std: Tensor
    token_mean: Tensor
    token_std: Tensor

    def __init__(self, channels: int, side: int, *, dim: int = 128, width: int = 16) -> None:
        super().__init__()
        if side < 8 or side % 8 or min(channels, dim, width) < 1:
            raise UserError(
                f"side={side} must be a multiple of 8, and channels={channels}, dim={dim}, width={width} >= 1"
            )
        self.channels, self.side, self.dim = channels, side, dim
        self.grid = (side // 8, side // 8)
        widths = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for a, b in zip([channels, *widths], widths, strict=False):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        flat = widths[-1] * (side // 8) ** 2
        self.to_code = nn.Linear(flat, dim)
        self.from_code = nn.Sequential(nn.Linear(2 * dim + dim % 2, flat), nn.ReLU())
        back: list[nn.Module] = []
        for a, b in zip(widths[::-1], [*widths[-2::-1], channels], strict=True):
            back += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU()]
        self.decoder = nn.Sequential(*back[:-1], nn.Sigmoid())
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("token_mean", torch.zeros(widths[-1], 1, 1))
        self.register_buffer("token_std", torch.ones(widths[-1], 1, 1))

    def maps(self, x: Tensor) -> Tensor:
        """(N, F, h, w): the last feature map before its ReLU, each feature standardised over many images.

        Without that all tokens would point in nearly one direction, and cosines tell little apart.
        """
        return (self.features[:-1](self._checked(x)) - self.token_mean) / self.token_std

    def tokens(self, x: Tensor) -> Tensor:
        """(N, P, F): :meth:`maps` in raster order."""
        return self.maps(x).flatten(2).transpose(1, 2)

    def code(self, x: Tensor) -> Tensor:
        """c (N, D) of images (N, C, side, side) in [0, 1]."""
        return self.to_code(self.features(self._checked(x)).flatten(1))

    def decode(self, code: Tensor, level: Tensor) -> Tensor:
        """Images (N, C, side, side) in [0, 1] of codes (N, D) with noise of level l (N,) in them."""
        told = level_embedding(level, self.dim + self.dim % 2)
        h = self.from_code(torch.cat([code, told], 1))
        return self.decoder(h.unflatten(1, (-1, *self.grid)))

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Take mean and deviation of the codes and of the tokens of many images; noise is for standardised codes."""
        code, maps = self.code(x), self.features[:-1](self._checked(x))
        self.token_mean.copy_(maps.mean((0, 2, 3))[:, None, None])
        self.token_std.copy_(maps.std((0, 2, 3), correction=0)[:, None, None].clamp(min=1e-6))
        self.mean.copy_(code.mean(0))
        self.std.copy_(code.std(0, correction=0).clamp(min=1e-6))

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != (self.channels, self.side, self.side):
            raise UserError(f"images need the shape {(self.channels, self.side, self.side)}, got {tuple(x.shape[1:])}")
        return x
