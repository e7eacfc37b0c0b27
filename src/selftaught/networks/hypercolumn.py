"""Hypercolumns: an image with a frozen network's maps of every depth behind it, and the convolution that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.frozen import Frozen
from selftaught.networks.vgg import vgg_features

__all__ = ["HYPERCOLUMN_PLACES", "FoldedEmbedding", "Hypercolumn", "hypercolumn", "map_scale"]

HYPERCOLUMN_PLACES = ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1))
"""VGG's first convolution of every block, behind its activation: 64 + 128 + 256 + 512 + 512 channels."""

_WIDTHS = (64, 128, 256, 512, 512)
_CAFFE_SCALE = 1 / (255 * 0.226)


def map_scale(features: Frozen) -> float:
    """What brings a VGG's maps to the size of torchvision's: 1, or 1/58 for weights of Caffe's.

    Caffe's see pixels up to 255, torchvision's see them over 0.226 of the range; a network of convolutions and ReLUs is
    (but for its biases) as many times larger at its end as its input is.
    """
    vgg: Any = features.module
    return _CAFFE_SCALE if vgg.caffe else 1.0


class Hypercolumn(nn.Module):
    """VGG's maps of an image, without a gradient.

    Args:
        levels: how many of the five blocks, from the first on.
        weights: of VGG19, as :func:`vgg_features` takes them; VGG16 stands in where only its weights can be had.
        features: such a network that is there already.
        normalised: the image is brought to ImageNet's mean and deviation first. Off (default) it goes in as it is, in
            [0, 1], as ERRNet and RRFormer do it; Caffe's weights always see their own scale.

    Attributes:
        widths: channels of the maps.

    Raises:
        UserError: other levels than 1 to 5, weights out of reach. ``load_state_dict`` raises it for a state that was
            trained on the maps of other weights.
    """

    code: Tensor

    def __init__(
        self, levels: int = 5, *, weights: Any = "auto", features: Frozen | None = None, normalised: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= levels <= 5:
            raise UserError(f"levels={levels}: VGG has 1 to 5 blocks")
        self.widths = _WIDTHS[:levels]
        self.features = vgg_features(HYPERCOLUMN_PLACES[:levels], weights=weights) if features is None else features
        self.normalised, self.scale = normalised, map_scale(self.features)
        self.register_buffer("code", torch.tensor(list(bytes.fromhex(self.features.hash)), dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Refuse a network that was trained on the maps of other weights."""
        known = state_dict.get(f"{prefix}code")
        if known is not None and known.cpu().tolist() != self.code.cpu().tolist():
            raise UserError(
                f"the network was trained on the maps of other weights than those of {self.features.name}, which is "
                "what can be had here; install or fetch the weights that it was trained with (--vgg-weights)"
            )
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps (N, F, H / 2^k, W / 2^k) of images (N, 3 or 1, H, W) in [0, 1]."""
        vgg: Any = self.features.module
        x = image.detach().expand(-1, 3, -1, -1) if image.shape[1] == 1 else image.detach()
        with torch.no_grad():
            if not self.normalised and not vgg.caffe:
                x = x * vgg.std + vgg.mean
            return [self.scale * level.detach() for level in self.features(2 * x - 1)]


def hypercolumn(image: Tensor, levels: Sequence[Tensor]) -> Tensor:
    """The image and all maps, bilinearly resized to its size, side by side: (N, C + sum F, H, W).

    With VGG19's five levels these are 1475 channels: 49 GB for a 4K picture. See :class:`FoldedEmbedding`.
    """
    size = tuple(image.shape[2:])
    maps = [F.interpolate(level.detach(), size=size, mode="bilinear", align_corners=False) for level in levels]
    return torch.cat([image, *maps], 1)


class FoldedEmbedding(nn.Conv2d):
    """A 1x1 convolution of a hypercolumn, each level of it at the level's own size and then resized.

    Both are linear, so their order doesn't matter: the result is that of ``conv(hypercolumn(image, levels))``, at a
    hundredth of the memory.

    Args:
        channels: of the image.
        widths: channels of the levels; none: the image alone.
        out: channels of the result.
    """

    def __init__(self, channels: int, widths: Sequence[int], out: int) -> None:
        super().__init__(channels + sum(widths), out, 1)
        self.parts = (channels, *widths)

    def forward(self, image: Tensor, levels: Sequence[Tensor] = ()) -> Tensor:
        """(N, out, H, W).

        Raises:
            UserError: other levels than the convolution was made for.
        """
        found = (image.shape[1], *(level.shape[1] for level in levels))
        if found != self.parts:
            raise UserError(f"the embedding reads {self.parts} channels (image, levels), got {found}")
        first, *others = self.weight.split(self.parts, 1)
        whole = F.conv2d(image, first, self.bias)
        for level, weight in zip(levels, others, strict=True):
            part = F.conv2d(level, weight)
            whole = whole + F.interpolate(part, size=image.shape[2:], mode="bilinear", align_corners=False)
        return whole
