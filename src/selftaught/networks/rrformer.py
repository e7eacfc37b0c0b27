"""Networks that take reflections away: RRFormer (arXiv 2308.00265) and ERRNet (arXiv 1904.00637), and their judge.

embedding    hypercolumn -> conv 1x1, ReLU -> conv 3x3, ReLU -> conv 3x3 stride 2, ReLU
body         RRFormer: Swin transformer blocks; ERRNet: residual blocks
decoder      transposed conv 4x4 stride 2, ReLU -> conv 3x3, ReLU -> pyramid pooling -> conv 1x1, ReLU
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.hypercolumn import FoldedEmbedding
from selftaught.networks.swin_restoration import SwinBody
from selftaught.networks.tiling import tiled

__all__ = [
    "PyramidPooling",
    "RRFormer",
    "ReflectionDiscriminator",
    "ReflectionRemover",
    "SqueezedResidualBlock",
]

_POOLS = (4, 8, 16, 32)
_STEP = 32
"""Sides of images and tiles are multiples of this, so that poolings and windows fall alike in both."""
_SEAM = 96


class PyramidPooling(nn.Module):
    """Averages over ever larger squares, each through a 1x1 convolution, beside the map itself.

    A map smaller than a square is averaged as a whole; squares that don't fit wholly are left out.

    Args:
        width: channels of the map and of the result.
        inner: channels of each average; None: a quarter of the width.
        scales: sides of the squares.
    """

    def __init__(self, width: int, inner: int | None = None, scales: Sequence[int] = _POOLS) -> None:
        super().__init__()
        inner = max(1, width // 4) if inner is None else inner
        self.scales = tuple(scales)
        self.stages = nn.ModuleList(nn.Conv2d(width, inner, 1, bias=False) for _ in scales)
        self.bottleneck = nn.Conv2d(width + inner * len(self.scales), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        found = []
        for scale, conv in zip(self.scales, self.stages, strict=True):
            sides = [min(scale, length) for length in x.shape[2:]]
            mean = F.leaky_relu(conv(F.avg_pool2d(x, sides, sides)), 0.2)
            found.append(F.interpolate(mean, size=x.shape[2:], mode="nearest"))
        return F.leaky_relu(self.bottleneck(torch.cat([*found, x], 1)), 0.2)


class SqueezedResidualBlock(nn.Module):
    """ERRNet's block: x + scale * attention(conv(ReLU(conv(x)))), the attention one factor for each channel.

    Args:
        width: channels.
        reduction: how many times narrower the attention's hidden layer is.
        scale: of the branch.
    """

    def __init__(self, width: int = 256, *, reduction: int = 8, scale: float = 0.1) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.scale = scale
        self.convs = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.attention = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        found = self.convs(x)
        weights = self.attention(found.mean((2, 3)))[:, :, None, None]
        return x + self.scale * weights * found


class RRFormer(nn.Module):
    """An image with a reflection to one without, with RRFormer's body or ERRNet's.

    Args:
        channels: of the images.
        levels: channels of the hypercolumn's levels; none: the image alone.
        width: channels of the embedding and the decoder, 256.
        dim: channels of the body, 240; ERRNet 256.
        sfem: the body: "swin", "identity" (what the released code of RRFormer computes: its transformer has no effect)
            or "resblocks" (ERRNet).
        blocks: residual Swin blocks.
        depth: layers of each.
        heads: of their attention.
        window: side of their windows.
        mlp_ratio: of their layers.
        drop_path: of the last layer.
        resblocks: ERRNet's blocks.
        pyramid: pool at four scales before the last convolution.
        final: "relu" (as published), "none", or "residual": the output is added to the image and begins as nothing (not
            in the paper, for short runs).

    Raises:
        UserError: an unknown body or end.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        levels: Sequence[int] = (64, 128, 256, 512, 512),
        width: int = 256,
        dim: int = 240,
        sfem: Literal["swin", "identity", "resblocks"] = "swin",
        blocks: int = 5,
        depth: int = 6,
        heads: int = 6,
        window: int = 8,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
        resblocks: int = 13,
        pyramid: bool = True,
        final: Literal["relu", "none", "residual"] = "relu",
    ) -> None:
        super().__init__()
        if sfem not in ("swin", "identity", "resblocks") or final not in ("relu", "none", "residual"):
            raise UserError(f"sfem={sfem}, final={final}: swin, identity or resblocks; relu, none or residual")
        self.final = final
        self.embedding = FoldedEmbedding(channels, levels, width)
        self.before = nn.Conv2d(width, width, 3, padding=1)
        self.down = nn.Conv2d(width, dim, 3, stride=2, padding=1)
        self.body: nn.Module = nn.Identity()
        if sfem == "swin":
            sizes: dict[str, Any] = {"blocks": blocks, "depth": depth, "heads": heads, "window": window}
            self.body = SwinBody(dim, **sizes, mlp_ratio=mlp_ratio, drop_path=drop_path)
        elif sfem == "resblocks":
            self.body = nn.Sequential(*(SqueezedResidualBlock(dim) for _ in range(resblocks)))
        self.up = nn.ConvTranspose2d(dim, width, 4, stride=2, padding=1)
        self.after = nn.Conv2d(width, width, 3, padding=1)
        self.pyramid = PyramidPooling(width) if pyramid else nn.Identity()
        self.last = nn.Conv2d(width, channels, 1)
        if final == "residual":
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, levels: Sequence[Tensor] = ()) -> Tensor:
        """The transmission, not clipped.

        Args:
            image: (N, C, H, W) in [0, 1]; an odd side is made one pixel longer inside.
            levels: maps of a :class:`Hypercolumn`.

        Returns:
            (N, C, H, W).
        """
        x = F.relu(self.embedding(image, levels))
        x = F.relu(self.before(x))
        x = F.relu(self.down(x))
        x = F.relu(self.up(self.body(x)))
        x = F.relu(self.after(x))[:, :, : image.shape[2], : image.shape[3]]
        found = self.last(self.pyramid(x))
        if self.final == "residual":
            return image + found
        return F.relu(found) if self.final == "relu" else found


class ReflectionDiscriminator(nn.Module):
    """D: photographs or what a network made of them, one logit each; Kaiming's initialisation.

        conv 3x3 W; [W stride 2, 2W, 2W stride 2, 4W, 4W stride 2, 8W, 8W stride 2, 8W, 8W stride 2] with GroupNorm;
        mean over the places; conv 1x1 16W; conv 1x1 1;       LeakyReLU(0.2) between all

    Args:
        channels: of the images.
        width: W, 64 there.
    """

    def __init__(self, channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for k, times in enumerate((1, 2, 2, 4, 4, 8, 8, 8, 8)):
            after = times * width
            norm = nn.GroupNorm(math.gcd(32, after), after)
            layers += [nn.Conv2d(before, after, 3, stride=2 - k % 2, padding=1), norm, nn.LeakyReLU(0.2)]
            before = after
        self.body = nn.Sequential(*layers)
        self.tail = nn.Sequential(nn.Conv2d(before, 16 * width, 1), nn.LeakyReLU(0.2), nn.Conv2d(16 * width, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0, mode="fan_in")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N,)."""
        return self.tail(self.body(image).mean((2, 3), keepdim=True)).flatten()


class ReflectionRemover(nn.Module):
    """A network between images in [0, 1] of any size, whole or in tiles.

    Images are mirrored to sides that are multiples of 32 and cropped again. Tiles are such multiples too, so that every
    window and pooling falls on the same pixels as in the whole image; they overlap by ``overlap`` pixels.

    Args:
        network: (N, C, H, W), and the maps where there are some, to (N, C, H, W).
        columns: a :class:`Hypercolumn`, or None where the network reads the image alone.
        overlap: context of a tile on each side, rounded up to a multiple of 32.
    """

    def __init__(self, network: nn.Module, columns: nn.Module | None = None, *, overlap: int = _SEAM) -> None:
        super().__init__()
        self.network, self.columns = network, columns
        self.overlap = -(-overlap // _STEP) * _STEP

    def forward(self, image: Tensor, tile: int = 0) -> Tensor:
        """(N, C, H, W) in [0, 1] to the same; ``tile``: largest side of what is seen at once, 0 the whole image."""
        height, width = image.shape[2:]
        whole = _mirrored(image, -height % _STEP, -width % _STEP)
        if tile and max(height, width) > tile:
            side = max(-(-tile // _STEP) * _STEP, 4 * self.overlap)
            found = tiled(self.once, whole, tile=side, overlap=self.overlap)
        else:
            found = self.once(whole)
        return found[:, :, :height, :width]

    def once(self, image: Tensor) -> Tensor:
        """The whole image at once; its sides are multiples of 32."""
        found = self.network(image) if self.columns is None else self.network(image, self.columns(image))
        return found.clamp(0, 1)


def _mirrored(image: Tensor, down: int, right: int) -> Tensor:
    """An image made longer by its mirror image; of one that is too small, by its last row or column."""
    for side, more, pad in ((2, down, (0, 0, 0, down)), (3, right, (0, right, 0, 0))):
        if not torch.compiler.is_exporting() and not more:
            continue  # no copy of a large picture
        image = F.pad(image, pad, mode="reflect" if more < image.shape[side] else "replicate")
    return image
