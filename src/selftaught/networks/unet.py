"""A 2-D U-Net whose encoder and first decoder blocks can learn before the rest (Chaitanya et al. 2020).

Encoder: levels of two 3x3 convolutions with batch norm, halved by 2x2 maxima. Decoder block: nearest neighbour x2, a
2x2 convolution, the encoder's map of that size beside it, two 3x3 convolutions (one in the last block). Heads for the
contrast of whole slices and of local regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["ConvNorm", "DecoderBlock", "GlobalHead", "LocalHead", "UNet", "UNetEncoder"]

WIDTHS = (16, 32, 64, 128, 128, 128)
MOMENTUM = 0.01
"""What a batch gives to the norms' moving averages: a decay of 0.99."""


class ConvNorm(nn.Sequential):
    """Convolution that keeps the size, batch norm (epsilon 1e-3, decay 0.99), ReLU; Xavier weights, biases 0.

    An even kernel sees one place more to the right and below, as TensorFlow pads.
    """

    def __init__(self, into: int, out: int, kernel: int = 3, bias: bool = True, momentum: float = MOMENTUM) -> None:
        low, high = (kernel - 1) // 2, kernel // 2
        conv = nn.Conv2d(into, out, kernel, bias=bias)
        nn.init.xavier_uniform_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norm = nn.BatchNorm2d(out, eps=1e-3, momentum=momentum)
        super().__init__(nn.ZeroPad2d((low, high, low, high)), conv, norm, nn.ReLU())


class UNetEncoder(nn.Module):
    """Maps of all levels, the finest first.

    Args:
        channels: of the input.
        widths: of the levels.
        momentum: of the norms.
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] = WIDTHS, momentum: float = MOMENTUM) -> None:
        super().__init__()
        before = [channels, *widths[:-1]]
        self.levels = nn.ModuleList(
            nn.Sequential(ConvNorm(i, o, momentum=momentum), ConvNorm(o, o, momentum=momentum))
            for i, o in zip(before, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, S, S) -> maps of sides S, S/2 ...

        Raises:
            UserError: a side that the levels can't halve so often.
        """
        times = 1 << (len(self.levels) - 1)
        if x.dim() != 4 or x.shape[2] % times or x.shape[3] % times:
            raise UserError(f"{len(self.levels)} levels need (N, C, H, W) with sides of {times}, got {tuple(x.shape)}")
        found = []
        for number, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if number else x)
            found.append(x)
        return found


class DecoderBlock(nn.Module):
    """x2, a 2x2 convolution to ``out``, the encoder's map beside it, ``convs`` 3x3 convolutions."""

    def __init__(self, into: int, skip: int, out: int, convs: int = 2, momentum: float = MOMENTUM) -> None:
        super().__init__()
        self.up = ConvNorm(into, out, 2, momentum=momentum)
        before = [out + skip, *[out] * (convs - 1)]
        self.mix = nn.Sequential(*(ConvNorm(width, out, momentum=momentum) for width in before))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, into, h, w), (N, skip, 2h, 2w) -> (N, out, 2h, 2w)."""
        found: Tensor = self.mix(torch.cat([self.up(F.interpolate(x, scale_factor=2.0)), skip], dim=1))
        return found


class UNet(nn.Module):
    """Segments slices: (N, C, S, S) -> logits (N, classes, S, S).

    Args:
        channels: of the input.
        classes: background included.
        widths: of the encoder's levels; the decoder has them backwards.
        momentum: of the norms.

    Raises:
        UserError: fewer than two levels or classes.
    """

    def __init__(
        self, channels: int = 1, classes: int = 4, widths: Sequence[int] = WIDTHS, momentum: float = MOMENTUM
    ) -> None:
        super().__init__()
        widths = tuple(widths)
        if len(widths) < 2 or classes < 2:
            raise UserError(f"a U-Net of {len(widths)} levels and {classes} classes: both must be at least 2")
        self.encoder = UNetEncoder(channels, widths, momentum)
        back, before = widths[-2::-1], widths[:0:-1]
        last = len(back) - 1
        self.blocks = nn.ModuleList(
            DecoderBlock(i, o, o, 1 if k == last else 2, momentum)
            for k, (i, o) in enumerate(zip(before, back, strict=True))
        )
        self.last = nn.Sequential(*(ConvNorm(widths[0], widths[0], momentum=momentum) for _ in range(2)))
        self.classify = nn.Conv2d(widths[0], classes, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(self.classify.weight)
        self.spec: dict[str, Any] = {
            "name": "unet", "channels": channels, "classes": classes, "widths": list(widths),
        }  # fmt: skip

    def width(self, blocks: int) -> int:
        """Channels of the map after so many decoder blocks; 0: of the encoder's last map."""
        own: Sequence[int] = self.spec["widths"]
        return own[len(own) - 1 - blocks]

    def decode(self, maps: list[Tensor], blocks: int | None = None) -> Tensor:
        """The map after ``blocks`` decoder blocks, None: all; 0: the encoder's last map."""
        x = maps[-1]
        for number, block in enumerate(self.blocks[: len(self.blocks) if blocks is None else blocks]):
            x = block(x, maps[-2 - number])
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every pixel."""
        found: Tensor = self.classify(self.last(self.decode(self.encoder(x))))
        return found


class GlobalHead(nn.Sequential):
    """g1: the encoder's last map, flattened, to ``hidden``, ReLU, to ``out``; no bias."""

    def __init__(self, width: int, side: int, hidden: int = 1024, out: int = 128) -> None:
        layers = (nn.Linear(width * side * side, hidden, bias=False), nn.Linear(hidden, out, bias=False))
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        super().__init__(nn.Flatten(), layers[0], nn.ReLU(), layers[1])


class LocalHead(nn.Module):
    """g2: two 1x1 convolutions on a decoder map, and the linear map of flattened regions (``weight``, or None).

    Args:
        width: channels of the map.
        size: side of a region.
        out: width of a region's features; 0 leaves regions as they are.
    """

    def __init__(self, width: int, size: int = 3, out: int = 128) -> None:
        super().__init__()
        second = nn.Conv2d(width, width, 1, bias=False)
        nn.init.xavier_uniform_(second.weight)
        self.layers = nn.Sequential(ConvNorm(width, width, 1, bias=False), second)
        self.weight = nn.Parameter(torch.empty(out, size * size * width)) if out else None
        if self.weight is not None:
            nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) -> the same shape."""
        found: Tensor = self.layers(x)
        return found
