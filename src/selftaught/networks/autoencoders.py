"""Autoencoders of small pictures: fully connected, convolutional, variational (Snell et al., ICIP 2017, 1511.06409)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["BlockReconstructor", "ConvAutoencoder", "FCAutoencoder", "Reconstruction", "blocks_of", "joined_blocks"]


class Reconstruction(NamedTuple):
    """What an autoencoder makes of a batch.

    Attributes:
        image: (N, C, S, S) in (0, 1).
        code: (N, D) that was decoded.
        mean: (N, D) of the code's distribution; the code itself where it has none.
        log_variance: (N, D), or None without a distribution.
    """

    image: Tensor
    code: Tensor
    mean: Tensor
    log_variance: Tensor | None


class _Autoencoder(nn.Module):
    """Encoder to a code, decoder back to a picture, a sigmoid at its end.

    Attributes:
        side: S of the pictures.
        channels: C of the pictures.
        dim: D, width of the code.
        variational: whether the code is drawn from a normal distribution that the encoder gives.
        centred: whether :meth:`centre` was called.
    """

    channels: int
    side: int
    dim: int
    variational: bool
    encoder: nn.Module
    decoder: nn.Sequential
    centred: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centred", torch.zeros((), dtype=torch.bool))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, C, S, S) in [0, 1] to the code (N, D), or to its mean and log-variance.

        Raises:
            UserError: pictures of another size.
        """
        if tuple(x.shape[1:]) != (self.channels, self.side, self.side):
            wanted = f"({self.channels}, {self.side}, {self.side})"
            raise UserError(f"the autoencoder takes pictures {wanted}, got {tuple(x.shape[1:])}")
        found = self.encoder(x)
        if not self.variational:
            return found, None
        mean, log_variance = found.chunk(2, 1)
        return mean, log_variance

    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, D) to pictures (N, C, S, S)."""
        return self.decoder(code).reshape(-1, self.channels, self.side, self.side).sigmoid()

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Reconstruction:
        """Encode and decode; a variational code is mu + s * noise, with noise (N, D), or mu without it."""
        mean, log_variance = self.encode(x)
        code = mean
        if noise is not None and log_variance is not None:
            code = mean + (0.5 * log_variance).exp() * noise
        return Reconstruction(self.decode(code), code, mean, log_variance)

    @torch.no_grad()
    def centre(self, images: Tensor) -> None:
        """Set the last bias so that the decoder begins at the mean picture, where the sigmoid isn't saturated.

        Args:
            images: (N, C, S, S) in [0, 1].
        """
        last = self.decoder[-1]
        bias = last.bias
        assert isinstance(bias, Tensor)
        mean = images.double().mean(0)
        mean = mean.flatten() if len(bias) == mean.numel() else mean.mean((1, 2))
        bias.copy_(torch.logit(mean, eps=1e-2))
        self.centred.fill_(True)


class FCAutoencoder(_Autoencoder):
    """Dense layers with ReLU to the code, and the same backwards: 1024 - 512 - 256 - 512 - 1024 for 32 x 32 grey.

    Args:
        channels: C.
        side: S in pixels.
        hidden: widths between picture and code.
        code: D.
        variational: whether the encoder gives the mean and log-variance of a normal code.
    """

    def __init__(
        self,
        channels: int = 1,
        side: int = 32,
        *,
        hidden: Sequence[int] = (512,),
        code: int = 256,
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.side, self.dim, self.variational = channels, side, code, variational
        widths = (channels * side * side, *hidden, code)
        down: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(widths[:-1]):
            down += [nn.Linear(a, b), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Linear(widths[-2], (2 if variational else 1) * code))
        up: list[nn.Module] = []
        for a, b in pairwise(widths[:0:-1]):
            up += [nn.Linear(a, b), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.Linear(widths[1], widths[0]))


class ConvAutoencoder(_Autoencoder):
    """Convolutions of stride 2 with ReLU, a dense code, and the same backwards with transposed convolutions.

    Args:
        channels: C.
        side: S in pixels, a multiple of 2 to the number of convolutions.
        widths: channels of the convolutions.
        kernel: side of their kernels, at least 2.
        code: D.
        variational: whether the encoder gives the mean and log-variance of a normal code (the EL-VAE).

    Raises:
        UserError: a side that doesn't halve so often, a kernel of one pixel.
    """

    def __init__(
        self,
        channels: int = 1,
        side: int = 96,
        *,
        widths: Sequence[int] = (64, 128, 256),
        kernel: int = 5,
        code: int = 512,
        variational: bool = False,
    ) -> None:
        super().__init__()
        small = side // 2 ** len(widths)
        if small < 1 or small * 2 ** len(widths) != side or kernel < 2:
            raise UserError(
                f"side {side}, {len(widths)} convolutions, kernel {kernel}: the side must be a multiple of "
                f"{2 ** len(widths)}, the kernel 2 or more"
            )
        self.channels, self.side, self.dim, self.variational = channels, side, code, variational
        padding, extra = (kernel - 1) // 2, kernel % 2
        down: list[nn.Module] = []
        for a, b in pairwise((channels, *widths)):
            down += [nn.Conv2d(a, b, kernel, 2, padding), nn.ReLU()]
        cells = widths[-1] * small * small
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(cells, (2 if variational else 1) * code))
        up: list[nn.Module] = [nn.Linear(code, cells), nn.ReLU(), nn.Unflatten(1, (widths[-1], small, small))]
        backwards = (*reversed(widths), channels)
        for number, (a, b) in enumerate(pairwise(backwards)):
            up.append(nn.ConvTranspose2d(a, b, kernel, 2, padding, output_padding=extra))
            up += [nn.ReLU()] if number < len(widths) - 1 else []
        self.decoder = nn.Sequential(*up)


def blocks_of(x: Tensor, side: int) -> Tensor:
    """Pictures (N, C, H, W) cut into blocks (N h w, C, side, side), row by row; the last ones repeat the border."""
    height, width = x.shape[-2:]
    x = nn.functional.pad(x, (0, (-width) % side, 0, (-height) % side), mode="replicate")
    n, c, tall, wide = x.shape
    cells = x.reshape(n, c, tall // side, side, wide // side, side)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, side, side)


def joined_blocks(blocks: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`blocks_of`: pictures (N, C, height, width) of their blocks."""
    _, c, side, _ = blocks.shape
    down, right = math.ceil(size[0] / side), math.ceil(size[1] / side)
    cells = blocks.reshape(-1, down, right, c, side, side).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(-1, c, down * side, right * side)[..., : size[0], : size[1]]


class BlockReconstructor(nn.Module):
    """An autoencoder of small pictures applied to pictures of any size, block by block.

    Args:
        autoencoder: with ``side``; images in [0, 1].
    """

    def __init__(self, autoencoder: _Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: Tensor, tile: int = 0) -> Tensor:
        """(N, C, H, W) to the same; ``tile`` bounds what goes through at once to tile x tile pixels, 0 for no bound."""
        side = self.autoencoder.side
        blocks = blocks_of(image, side)
        at_once = max(1, (tile // side) ** 2) if tile else 0
        if not at_once or len(blocks) <= at_once:
            made = self.autoencoder(blocks).image
        else:
            made = torch.empty_like(blocks)
            for start in range(0, len(blocks), at_once):
                made[start : start + at_once] = self.autoencoder(blocks[start : start + at_once]).image
        return joined_blocks(made, (image.shape[-2], image.shape[-1]))
