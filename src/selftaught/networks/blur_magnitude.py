"""The blur magnitude estimator of DADeblur (He et al., ECCV 2024): how far each pixel moved during the exposure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, pad

__all__ = ["BlurMagnitude"]

_LEVELS = ((0, 1, 2), (0, 1, 2), (1, 2, 3), (2, 3, 4), (2, 3, 4))
_SLOPE = 0.2


class _Small(nn.Module):
    """Five strided convolutions, for a laptop, on the local contrast and its steps along both sides.

    How long a blur is shows in how small these steps are beside the contrast around them.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        ins = (3, *widths[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in zip(ins, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = _contrast(x), []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found


def _contrast(image: Tensor, window: int = 15) -> Tensor:
    """(N, C, H, W) to (N, 3, H, W): brightness in units of its deviation nearby, and half its steps over two pixels."""
    grey = image.mean(1, keepdim=True)
    mean, square = (avg_pool2d(part, window, 1, window // 2, count_include_pad=False) for part in (grey, grey.square()))
    z = (grey - mean) / ((square - mean.square()).clamp_min(0).sqrt() + 0.01)
    wide = pad(z, (1, 1, 1, 1), mode="replicate")
    across, down = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2], wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return torch.cat((z, across.abs() / 2, down.abs() / 2), 1)


class _Residual(nn.Module):
    """x + conv3-BN-LeakyReLU-conv3-BN-LeakyReLU(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Fusion(nn.Module):
    """Each level out of three neighbouring ones, all brought to its size by the nearest pixel."""

    def __init__(self, channels: Sequence[int], each: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(n, each, 3, padding=1) for n in channels)
        self.mix = nn.ModuleList(nn.Conv2d(3 * each, 3 * each, 1) for _ in channels)
        self.out = nn.ModuleList(nn.Conv2d(3 * each, width, 3, padding=1) for width in widths)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        narrow = [layer(x) for layer, x in zip(self.narrow, maps, strict=True)]
        found = []
        for level, parts in enumerate(_LEVELS):
            size = narrow[level].shape[2:]
            seen = [narrow[k] if k == level else interpolate(narrow[k], size=size) for k in parts]
            found.append(self.out[level](self.mix[level](torch.cat(seen, 1))))
        return found


class _Merge(nn.Module):
    """A coarser level enlarged, set beside the finer one, and mixed."""

    def __init__(self, coarse: int, fine: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(coarse, coarse, 4, 2, 1)
        self.mix = nn.Conv2d(coarse + fine, out, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return leaky_relu(self.mix(torch.cat((self.up(coarse), fine), 1)), _SLOPE)


class BlurMagnitude(nn.Module):
    """Pictures (N, C, H, W) in [0, 1] to the length of their blur (N, 1, H, W), a share of the longest in training.

    Features of a ResNet at 1/2 to 1/32 of the size; each level is fused with its neighbours (64 channels each, the
    finest level 32), and a decoder goes from the coarsest to the finest, residual blocks on each. The output is linear;
    who uses it clips it to [0, 1]. Any size: pictures are padded to multiples of 32 and the result is cropped.

    Args:
        channels: C; the authors give BGR, which is a matter of the trained weights alone.
        encoder: "resnet50" (the paper), another ResNet of timm, or "small".
        each: channels of each level while it is fused.
        widths: channels of the five fused levels, the finest first.
        blocks: residual blocks of each level of the decoder.
        pretrained: ImageNet's weights for the ResNet.
    """

    def __init__(
        self,
        channels: int = 3,
        encoder: str = "resnet50",
        *,
        each: int = 64,
        widths: Sequence[int] = (32, 64, 64, 64, 64),
        blocks: int = 5,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, found = _encoder(encoder, channels, pretrained)
        self.fusion = _Fusion(found, each, widths)
        outs = [widths[0], widths[0], *widths[2:]]  # the level above the finest leaves with the finest one's width
        self.decoders = nn.ModuleList(nn.Sequential(*[_Residual(n) for _ in range(blocks)]) for n in outs)
        self.merges = nn.ModuleList(_Merge(outs[k + 1], widths[k], outs[k]) for k in range(4))
        self.up = nn.ConvTranspose2d(widths[0], widths[0], 4, 2, 1)
        self.out = nn.Conv2d(widths[0], 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 1, H, W)."""
        height, width = image.shape[2:]
        padded = pad(image, (0, -width % 32, 0, -height % 32), mode="replicate")
        fused = self.fusion(list(self.encoder(padded)))
        x = self.decoders[4](fused[4])
        for level in (3, 2, 1, 0):
            x = self.decoders[level](self.merges[level](x, fused[level]))
        return self.out(self.up(x))[..., :height, :width]


def _encoder(name: str, channels: int, pretrained: bool) -> tuple[Any, list[int]]:
    if name == "small":
        widths = [16, 24, 32, 48, 64]
        return _Small(widths), widths
    import timm

    net = timm.create_model(name, features_only=True, in_chans=channels, pretrained=pretrained)
    info: Any = net.feature_info
    return net, list(info.channels())
