"""INFWIDE (Zhang et al., TIP 2023, arXiv 2207.08201): Wiener deconvolution of image and features, merged.

15,742,342 weights for three colours: features 39,712, denoiser 4,254,240, refinement 6,894,467, fusion 4,553,923.
Convolutions are 5 x 5 with a bias unless said otherwise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.wiener import WienerLayer, noise_map

__all__ = [
    "DWDN",
    "INFWIDE",
    "CrossResidualFusion",
    "FeatureExtractor",
    "FeatureRefinement",
    "INFWIDEOutput",
    "ResUNet",
    "XRFUNet",
]


def _conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 5, stride, 2)


def _up(channels: int, width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, width, 3, 2, 1, output_padding=1)


class _Res(nn.Module):
    """conv, ReLU, conv, and the input added; no normalisation."""

    def __init__(self, width: int, kernel: int = 5, *, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=bias)
        self.second = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _residuals(width: int, count: int = 3) -> list[nn.Module]:
    return [_Res(width) for _ in range(count)]


def _in_block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, width), nn.ReLU(), *_residuals(width))


def _passes(conv: nn.Module, pairs: list[tuple[int, int]], share: float = 1.0) -> None:
    """Let a convolution begin with these (output, input) channels handed on as they are, times ``share``."""
    assert isinstance(conv, nn.Conv2d)
    middle = conv.kernel_size[0] // 2
    outputs = sorted({output for output, _ in pairs})
    conv.weight[outputs] = 0
    for output, channel in pairs:
        conv.weight[output, channel, middle, middle] = share
    if conv.bias is not None:
        conv.bias[outputs] = 0


def _sized(x: Tensor, size: torch.Size) -> Tensor:
    """Zeros around, or a crop, both centred, to the height and width of ``size``."""
    down, right = size[-2] - x.shape[-2], size[-1] - x.shape[-1]
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))


class FeatureExtractor(nn.Sequential):
    """conv to 16 features, ReLU, three residual blocks; 39,712 weights for three colours.

    Args:
        channels: of the images.
        width: features.
    """

    def __init__(self, channels: int = 3, width: int = 16) -> None:
        super().__init__(*_in_block(channels, width))


class FeatureRefinement(nn.Module):
    """U-net from deconvolved features to an image; 6,894,467 weights for three colours.

    Args:
        channels: of the images.
        features: channels of what comes in.
        width: of the finest level, doubled at two coarser ones.
    """

    def __init__(self, channels: int = 3, features: int = 16, width: int = 32) -> None:
        super().__init__()
        two, four = 2 * width, 4 * width
        self.entry = _in_block(features, width)
        self.down1 = nn.Sequential(_conv(width, two, 2), nn.ReLU(), *_residuals(two))
        self.down2 = nn.Sequential(_conv(two, four, 2), nn.ReLU(), *_residuals(four))
        self.up2 = nn.Sequential(*_residuals(four), _up(four, two), nn.ReLU())
        self.up1 = nn.Sequential(*_residuals(two), _up(two, width), nn.ReLU())
        self.tail = nn.Sequential(*_residuals(width))
        self.out = nn.Sequential(_Res(width), _conv(width, width), _conv(width, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, features, H, W) to (N, channels, H, W)."""
        x = self.entry(features)
        first = self.down1(x)
        y = self.up2(self.down2(first))
        y = self.up1(_sized(y, first.shape) + first)
        return self.out(self.tail(_sized(y, x.shape) + x))


class ResUNet(nn.Module):
    """Denoiser without biases: U-net of 3 x 3 convolutions with residual blocks; 4,254,240 weights for three colours.

    The image and its noise map come in; borders are repeated to a multiple of 8; no global residual.

    Args:
        channels: of the images.
        widths: of the four levels.
        blocks: residual blocks per level.
    """

    def __init__(self, channels: int = 3, widths: tuple[int, ...] = (32, 64, 128, 256), blocks: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(2 * channels, widths[0], 3, padding=1, bias=False)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for a, b in pairwise(widths):
            self.downs.append(nn.Sequential(*self._blocks(a, blocks), nn.Conv2d(a, b, 2, 2, bias=False)))
            self.ups.append(nn.Sequential(nn.ConvTranspose2d(b, a, 2, 2, bias=False), *self._blocks(a, blocks)))
        self.body = nn.Sequential(*self._blocks(widths[-1], blocks))
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1, bias=False)
        self.multiple = 2 ** (len(widths) - 1)

    @staticmethod
    def _blocks(width: int, count: int) -> list[nn.Module]:
        return [_Res(width, 3, bias=False) for _ in range(count)]

    def forward(self, y: Tensor) -> Tensor:
        """(N, C, H, W) to the same; the noise map is made here."""
        height, width = y.shape[-2:]
        x = torch.cat([y, noise_map(y)], 1)
        x = F.pad(x, (0, (-width) % self.multiple, 0, (-height) % self.multiple), mode="replicate")
        skips = [self.head(x)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        x = self.body(skips[-1])
        for up, skip in zip(reversed(self.ups), reversed(skips), strict=False):
            x = up(x + skip)
        return self.tail(x + skips[0])[..., :height, :width]

    @torch.no_grad()
    def begin_with_input(self) -> None:
        """Set weights so that what comes out begins as what comes in.

        Raises:
            UserError: a finest level with fewer channels than the image.
        """
        channels = self.tail.out_channels
        if self.head.out_channels < channels:
            raise UserError(f"a width of {self.head.out_channels}: the image has {channels} channels")
        for conv in (self.head, self.tail):
            _passes(conv, [(c, c) for c in range(channels)])
        finest: Any = self.ups[0]
        nn.init.zeros_(finest[0].weight)


class _Exchange(nn.Module):
    """One level of two streams: each learns its residual to the mean of both, then changes its size.

    m = (p + q) / 2,   p' = ReLU( resize( ReLU( A(p) + m ) ) ),   A: conv, ReLU, conv
    """

    def __init__(self, channels: int, width: int, *, up: bool) -> None:
        super().__init__()

        def part() -> nn.Sequential:
            return nn.Sequential(_conv(channels, channels), nn.ReLU(), _conv(channels, channels))

        def change() -> nn.Module:
            return _up(channels, width) if up else _conv(channels, width, 2)

        self.parts, self.changes = nn.ModuleList([part(), part()]), nn.ModuleList([change(), change()])

    def forward(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        mean = (p + q) / 2
        first, second = (
            F.relu(change(F.relu(part(x) + mean)))
            for part, change, x in zip(self.parts, self.changes, (p, q), strict=True)
        )
        return first, second


class XRFUNet(nn.Module):
    """Two streams through a U-net whose levels exchange what they have in common (cross-residual fusion).

    Args:
        width: channels of each stream; doubled at two coarser levels.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.down1, self.down2 = _Exchange(width, 2 * width, up=False), _Exchange(2 * width, 4 * width, up=False)
        self.up2, self.up1 = _Exchange(4 * width, 2 * width, up=True), _Exchange(2 * width, width, up=True)

    def forward(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Two (N, width, H, W) to the same."""
        p1, q1 = self.down1(p, q)
        p2, q2 = self.up2(*self.down2(p1, q1))
        p2, q2 = self.up1(_sized(p2, p1.shape) + p1, _sized(q2, q1.shape) + q1)
        return p + _sized(p2, p.shape), q + _sized(q2, q.shape)


class CrossResidualFusion(nn.Module):
    """Two estimates of one image merged at half and at full size; 4,553,923 weights for three colours.

    The U-net, the residual blocks and the output block serve both sizes.

    Args:
        channels: of the images.
        width: channels of each stream.
    """

    def __init__(self, channels: int = 3, width: int = 32) -> None:
        super().__init__()
        self.entry_half = nn.ModuleList(_in_block(channels, width) for _ in range(2))
        self.entry_full = nn.ModuleList(_in_block(channels + width, width) for _ in range(2))
        self.exchange = XRFUNet(width)
        self.tails = nn.ModuleList(nn.Sequential(*_residuals(width)) for _ in range(2))
        self.out = nn.Sequential(_Res(2 * width), _conv(2 * width, 2 * width), _conv(2 * width, channels))

    def _merged(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p, q = self.exchange(p, q)
        p, q = self.tails[0](p), self.tails[1](q)
        return p, q, self.out(torch.cat([p, q], 1))

    def forward(self, z_image: Tensor, z_features: Tensor) -> list[Tensor]:
        """Two (N, C, H, W) to the image at half size and at full size."""
        full = (z_image, z_features)
        small = [F.interpolate(z, scale_factor=0.5, mode="bilinear", align_corners=False) for z in full]
        p, q, half = self._merged(self.entry_half[0](small[0]), self.entry_half[1](small[1]))
        size = z_image.shape[-2:]
        p, q = (F.interpolate(s, size=size, mode="bilinear", align_corners=False) for s in (p, q))
        entries = (self.entry_full[0](torch.cat([p, z_image], 1)), self.entry_full[1](torch.cat([q, z_features], 1)))
        return [half, self._merged(*entries)[2]]

    @torch.no_grad()
    def begin_with_mean(self) -> None:
        """Set weights so that what comes out begins near the mean of both estimates, where residuals begin with 0."""
        last: Any = self.out[2]
        channels, width = last.out_channels, last.in_channels // 2
        entry: Any
        for entry in self.entry_half:
            _passes(entry[0], [(c, c) for c in range(channels)])
        for entry in self.entry_full:
            _passes(entry[0], [(c, width + c) for c in range(channels)])
        _passes(self.out[1], [(c, c) for c in range(2 * width)])
        _passes(last, [(c, c + side) for c in range(channels) for side in (0, width)], 0.5)
        change: Any
        for change in self.exchange.up1.changes:
            change.weight.mul_(0.1)
            change.bias.mul_(0.1)


class INFWIDEOutput(NamedTuple):
    """What the network gives.

    Attributes:
        images: at half size and at full size; the full size alone where there is one branch.
        denoised: the blurred image without noise; the input where nothing denoises.
    """

    images: list[Tensor]
    denoised: Tensor


class INFWIDE(nn.Module):
    """Both branches and their fusion, or one branch.

    Args:
        channels: of the images.
        branches: "both", "image" (denoise, deconvolve), or "feature" (deconvolve features, refine).
        denoise: whether the image branch denoises first; else d = y.
        features: features that are deconvolved.
        width: channels of the finest level of refinement and fusion.
        denoiser: widths of the denoiser's levels.
        nsr: "official", or a number.
        pad: "replicate" or "circular".

    Raises:
        UserError: other branches.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        branches: Literal["both", "image", "feature"] = "both",
        denoise: bool = True,
        features: int = 16,
        width: int = 32,
        denoiser: tuple[int, ...] = (32, 64, 128, 256),
        nsr: float | str = "official",
        pad: str = "replicate",
    ) -> None:
        super().__init__()
        if branches not in ("both", "image", "feature"):
            raise UserError(f"branches={branches!r}: it may be both, image or feature")
        self.branches = branches
        self.wiener = WienerLayer(nsr, pad)
        none: Any = None
        of_image, of_features = branches != "feature", branches != "image"
        self.denoiser = ResUNet(channels, denoiser) if of_image and denoise else none
        self.extractor = FeatureExtractor(channels, features) if of_features else none
        self.refinement = FeatureRefinement(channels, features, width) if of_features else none
        self.fusion = CrossResidualFusion(channels, width) if branches == "both" else none

    def forward(self, y: Tensor, kernel: Tensor) -> INFWIDEOutput:
        """Noisy blurred images (N, C, H, W) and kernels (N, 1, h, w)."""
        denoised = self.denoiser(y) if self.denoiser is not None else y
        by_image = self.wiener(denoised, kernel) if self.branches != "feature" else None
        if self.branches == "image":
            assert by_image is not None
            return INFWIDEOutput([by_image], denoised)
        by_features = self.refinement(self.wiener(self.extractor(y), kernel))
        if by_image is None:
            return INFWIDEOutput([by_features], denoised)
        return INFWIDEOutput(self.fusion(by_image, by_features), denoised)

    @torch.no_grad()
    def begin_with_wiener(self) -> None:
        """Set weights so that what comes out begins near the Wiener filter of the image as it is.

        No sum leads around this network: from random weights it learns shapes first and colours last. Here every
        layer first hands the image's channels on, every residual is 0, and what coarser levels add is a tenth.

        Raises:
            UserError: fewer features, or a smaller width, than the image has channels.
        """
        if self.denoiser is not None:
            self.denoiser.begin_with_input()
        for module in (self.extractor, self.refinement, self.fusion):
            for part in module.modules() if module is not None else ():
                if isinstance(part, _Res):
                    nn.init.zeros_(part.second.weight)
                    if part.second.bias is not None:
                        nn.init.zeros_(part.second.bias)
        if self.refinement is not None:
            self._begin_with_features()
        if self.fusion is not None:
            self.fusion.begin_with_mean()

    def _begin_with_features(self) -> None:
        refinement: Any = self.refinement
        extract: Any = self.extractor[0]
        channels, width = extract.in_channels, refinement.entry[0].out_channels
        if min(extract.out_channels, width) < channels:
            raise UserError(f"the image's {channels} channels need as many features, and a width of as many")
        same = [(c, c) for c in range(channels)]
        for conv in (extract, refinement.entry[0], refinement.out[2]):
            _passes(conv, same)
        _passes(refinement.out[1], [(c, c) for c in range(width)])
        refinement.up1[-2].weight.mul_(0.1)
        refinement.up1[-2].bias.mul_(0.1)


class DWDN(nn.Module):
    """Deep Wiener deconvolution (Dong et al., NeurIPS 2020) as the baseline: features, Wiener, U-net; one scale.

    Args:
        channels: of the images.
        features: features that are deconvolved.
        width: of the U-net's finest level.
        nsr: "official", or a number.
        pad: "replicate" or "circular".
    """

    def __init__(
        self, channels: int = 3, *, features: int = 16, width: int = 32, nsr: float | str = "official",
        pad: str = "replicate",
    ) -> None:  # fmt: skip
        super().__init__()
        self.net = INFWIDE(channels, branches="feature", features=features, width=width, nsr=nsr, pad=pad)

    def forward(self, y: Tensor, kernel: Tensor) -> INFWIDEOutput:
        """Blurred images (N, C, H, W) and kernels (N, 1, h, w)."""
        return self.net(y, kernel)

    def begin_with_wiener(self) -> None:
        """As :meth:`INFWIDE.begin_with_wiener`."""
        self.net.begin_with_wiener()
