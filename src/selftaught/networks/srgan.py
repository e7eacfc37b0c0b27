"""SRGAN's networks (arXiv 1609.04802): the generator SRResNet and the discriminator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.upsampling import BicubicUpsample

__all__ = ["SRDiscriminator", "SRResNet", "icnr_"]


class ResidualBlock(nn.Module):
    """x + BN(conv(PReLU(BN(conv(x))))); nothing follows the sum.

    Args:
        features: channels.
        norm: with BatchNorm.
        skip: with the sum.
        slopes: learnt slopes of the PReLU.
    """

    def __init__(self, features: int, *, norm: bool, skip: bool, slopes: int) -> None:
        super().__init__()
        self.skip = skip
        self.body = nn.Sequential(
            *_convolution(features, features, norm), nn.PReLU(slopes), *_convolution(features, features, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, F, H, W) to the same."""
        return x + self.body(x) if self.skip else self.body(x)


class SRResNet(nn.Module):
    """The generator G: an image in, one ``scale`` times as large out; 1.55 M parameters at the defaults.

        9x9 conv, PReLU -> `blocks` residual blocks -> 3x3 conv, BN, + skip -> log2(scale) times
        [3x3 conv to 4 F, PixelShuffle(2), PReLU] -> 9x9 conv

    Args:
        channels: of the images, any number.
        scale: 2, 4, 8, ...: one shuffle per factor 2.
        blocks: B residual blocks.
        features: F channels inside.
        norm: BatchNorm, or none of it.
        skip: the blocks' and the long skip connection; off is the paper's ablation.
        slopes: "one" slope per PReLU, or one per "channel".
        upsample_skip: add the output to the bicubic enlargement and begin with a last convolution of zeros, so that
            training starts at bicubic quality; not in the paper, for short runs.
        icnr: begin without a checkerboard: the four kernels that a PixelShuffle interleaves start equal.

    Raises:
        UserError: a scale that is no power of two from 2 on, or sizes below 1.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        scale: int = 4,
        blocks: int = 16,
        features: int = 64,
        norm: Literal["bn", "none"] = "bn",
        skip: bool = True,
        slopes: Literal["one", "channel"] = "one",
        upsample_skip: bool = False,
        icnr: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(channels=channels, features=features)
        if scale < 2 or scale & (scale - 1):
            raise UserError(f"scale={scale}: SRResNet enlarges 2, 4, 8, ... times, one shuffle per factor 2")
        if blocks < 0:
            raise UserError(f"blocks={blocks}: SRResNet needs 0 or more")
        self.scale, self.blocks, self.skip = scale, blocks, skip
        count = features if slopes == "channel" else 1
        self.head = nn.Sequential(nn.Conv2d(channels, features, 9, padding=4), nn.PReLU(count))
        self.body = nn.Sequential(
            *(ResidualBlock(features, norm=norm == "bn", skip=skip, slopes=count) for _ in range(blocks)),
            *_convolution(features, features, norm == "bn"),
        )
        self.upsampling = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(count))
                for _ in range(int(math.log2(scale)))
            )
        )
        self.tail = nn.Conv2d(features, channels, 9, padding=4)
        self.bicubic = BicubicUpsample(scale) if upsample_skip else None
        if icnr:
            for step in self.upsampling:
                icnr_(step[0].weight, 2)  # type: ignore[index]
        if upsample_skip:
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, low: Tensor) -> Tensor:
        """Enlarge.

        Args:
            low: (N, C, H, W) in [0, 1].

        Returns:
            (N, C, scale * H, scale * W) in the range [-1, 1] that it is trained on, not clipped to it.
        """
        first = self.head(low)
        body = self.body(first)
        high = self.tail(self.upsampling(first + body if self.skip else body))
        return high if self.bicubic is None else high + 2 * self.bicubic(low) - 1

    def receptive_radius(self) -> int:
        """Input pixels that an output looks away in every direction; what `tiled` needs as overlap."""
        steps = len(self.upsampling)
        fine = 4 / self.scale + sum(2.0**-k for k in range(steps))  # tail, and one 3x3 convolution per resolution
        return 4 + 2 * self.blocks + 1 + math.ceil(fine)


class SRDiscriminator(nn.Module):
    """D: tells photographs from generated images, one logit each; 23.6 M parameters at the defaults.

        3x3 conv, LReLU(0.2), then [3x3 conv, BN, LReLU] with strides 2 1 2 1 2 1 2 and widths
        W, 2W, 2W, 4W, 4W, 8W, 8W -> flatten -> dense 16 W -> LReLU -> dense 1

    The dense layer fixes the size of the images. It is made for `crop`; images of another size are pooled to its grid.

    Args:
        channels: of the images.
        width: W, 64 in the paper.
        crop: side of the images that it is trained on.

    Raises:
        UserError: sizes below 1.
    """

    def __init__(self, channels: int = 3, *, width: int = 64, crop: int = 96) -> None:
        super().__init__()
        _check_sizes(channels=channels, width=width, crop=crop)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for k in range(1, 8):
            after = width * 2 ** (k // 2)
            convolution = nn.Conv2d(before, after, 3, stride=1 + k % 2, padding=1)
            layers += [convolution, nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
            before = after
        self.features = nn.Sequential(*layers)
        side = math.ceil(crop / 16)
        self.pool = nn.AdaptiveAvgPool2d(side)
        dense = 16 * width
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(before * side * side, dense), nn.LeakyReLU(0.2), nn.Linear(dense, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C, H, W) in [-1, 1] to logits (N,): above 0 for photographs."""
        return self.classifier(self.pool(self.features(image))).squeeze(1)


def icnr_(weight: Tensor, scale: int) -> Tensor:
    """Give the ``scale``^2 kernels that one PixelShuffle interleaves the same start (Aitken et al. 2017), in place.

    Its output is then a nearest-neighbour enlargement, without a checkerboard.

    Args:
        weight: (F * scale^2, C, k, k) of the convolution before the shuffle.
        scale: factor of the shuffle.
    """
    with torch.no_grad():
        return weight.copy_(weight[:: scale * scale].repeat_interleave(scale * scale, 0))


def _convolution(before: int, after: int, norm: bool) -> list[nn.Module]:
    """A 3x3 convolution of the same size, and BatchNorm."""
    return [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else [])]


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
