"""EraseNet and its discriminators: text off a picture in two steps, with a mask of where it was (arXiv 2204.12743)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from selftaught.errors import UserError

__all__ = ["EraseNet", "Erased", "ErasureDiscriminator", "TextMaskDiscriminator", "surroundings"]

_SPREAD = 0.02
_SLOPE = 0.2


class Erased(NamedTuple):
    """What `EraseNet` makes of pictures (N, C, H, W); w is its width.

    Attributes:
        bottleneck: (N, 16 w, H/32, W/32).
        quarter: o1, (N, C, H/4, W/4).
        half: o2, (N, C, H/2, W/2).
        coarse: o3, (N, C, H, W).
        image: the refined result, of any value.
        mask: logits of text, (N, C, H, W).
        mask_features: (N, 8 w, H/16, W/16).
    """

    bottleneck: Tensor
    quarter: Tensor
    half: Tensor
    coarse: Tensor
    image: Tensor
    mask: Tensor
    mask_features: Tensor


class _Layers:
    """Convolutions, with weights of a normal distribution: spectral norm 1 and N(0, 0.02), or Kaiming's without."""

    def __init__(self, spectral: bool = True) -> None:
        self.spectral = spectral

    def started(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
        if self.spectral:
            nn.init.normal_(layer.weight, 0.0, _SPREAD)
        else:
            nn.init.kaiming_normal_(layer.weight, _SLOPE, nonlinearity="leaky_relu")
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
        return layer

    def plain(self, channels: int, out: int, kernel: int, stride: int = 1) -> nn.Module:
        """Without normalisation and activation."""
        return self.started(nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2))

    def conv(
        self, channels: int, out: int, kernel: int = 3, stride: int = 1, *, dilation: int = 1, last: bool = False
    ) -> nn.Module:
        """With LeakyReLU, unless it is the last; sizes divide by the stride."""
        around = 1 if stride == 2 else dilation * (kernel - 1) // 2
        layer = self._normed(self.started(nn.Conv2d(channels, out, kernel, stride, around, dilation)))
        return layer if last else nn.Sequential(layer, nn.LeakyReLU(_SLOPE))

    def up(self, channels: int, out: int) -> nn.Module:
        """Transposed, which doubles the size, with LeakyReLU."""
        layer = nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1)
        return nn.Sequential(self._normed(self.started(layer)), nn.LeakyReLU(_SLOPE))

    def bridge(self, channels: int) -> nn.Module:
        """A lateral connection: four convolutions without activation."""
        wide = 2 * channels
        widths = ((channels, channels, 1), (channels, wide, 3), (wide, wide, 3), (wide, channels, 1))
        return nn.Sequential(*(self.plain(*one) for one in widths))

    def _normed(self, layer: nn.Module) -> nn.Module:
        return spectral_norm(layer) if self.spectral else layer


class _Residual(nn.Module):
    """conv3-ReLU-conv3, plus the input (through a 1x1 convolution where the shape changes), BatchNorm, ReLU."""

    def __init__(self, layers: _Layers, channels: int, out: int) -> None:
        super().__init__()
        stride = 1 if out == channels else 2
        self.first, self.second = layers.plain(channels, channels, 3, stride), layers.plain(channels, out, 3)
        self.short = nn.Identity() if out == channels else layers.plain(channels, out, 1, stride)
        self.norm = nn.BatchNorm2d(out)
        nn.init.normal_(self.norm.weight, 1.0, _SPREAD)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.second(F.relu(self.first(x))) + self.short(x))
        return F.relu(found)


def sure(text: Tensor) -> Tensor:
    """Probabilities of text as shares of a picture to be replaced: all from 3/4 on, nothing up to 1/4.

    A mask that is right but unsure (0.8 on text, 0.05 beside it) would leave a fifth of the text where it was, and
    spread more of it over the fill.
    """
    return (2 * text - 0.5).clamp(0, 1)


def surroundings(image: Tensor, text: Tensor, *, sides: tuple[int, ...] = (65, 25, 9)) -> Tensor:
    """Pictures whose text is replaced by means of what lies around, of the nearest surroundings that have some.

    Args:
        image: (N, C, H, W).
        text: (N, 1, H, W), probability of text; where it is 0 the picture stays.
        sides: of the squares that are averaged over, the widest first.
    """
    kept = 1 - text
    found = image.mean((2, 3), keepdim=True).expand_as(image)
    for side in sides:
        mean = partial(F.avg_pool2d, kernel_size=side, stride=1, padding=side // 2, count_include_pad=False)
        weight = mean(kept)
        found = (mean(image * kept) + 0.02 * found) / (weight + 0.02)
    return kept * image + text * found


class EraseNet(nn.Module):
    """The generator: a coarse U-Net with a branch for the mask, then a refinement with dilated convolutions.

    Args:
        channels: C of the pictures.
        width: w, of the finest level; the widest has 16 times as many.
        fill: the coarse and the refined result are added to `surroundings` of where the mask says text, for short runs;
            the paper's aren't.
        spectral: spectral normalisation; off, for short runs: at first it lets next to nothing through.

    Pictures have sides that 32 divides; values in [0, 1]. ``forward`` gives `Erased`.
    """

    multiple = 32

    def __init__(self, channels: int = 3, *, width: int = 32, fill: bool = False, spectral: bool = True) -> None:
        super().__init__()
        make = _Layers(spectral)
        w, self.fill = width, fill
        self.enter = nn.Sequential(make.conv(channels, w, 4, 2), make.conv(w, w))
        self.level2 = nn.Sequential(make.conv(w, 2 * w, 4, 2), _Residual(make, 2 * w, 2 * w))
        self.level3 = nn.Sequential(_Residual(make, 2 * w, 2 * w), _Residual(make, 2 * w, 4 * w))
        self.level4 = nn.Sequential(_Residual(make, 4 * w, 4 * w), _Residual(make, 4 * w, 8 * w))
        self.sixth = _Residual(make, 8 * w, 8 * w)
        self.deepest = nn.Sequential(
            _Residual(make, 8 * w, 16 * w), _Residual(make, 16 * w, 16 * w), make.conv(16 * w, 16 * w, 1)
        )  # fmt: skip
        ups = ((16 * w, 8 * w), (16 * w, 4 * w), (8 * w, 2 * w), (4 * w, w), (2 * w, channels))
        self.ups = nn.ModuleList(make.up(*pair) for pair in ups)
        self.bridges = nn.ModuleList(make.bridge(k * w) for k in (8, 4, 2, 1))
        self.side1, self.side2 = make.plain(2 * w, channels, 1), make.plain(w, channels, 1)
        masks = ((16 * w, 8 * w, 4 * w), (8 * w, 4 * w, 2 * w), (4 * w, 2 * w, w))
        self.masks = nn.ModuleList(nn.Sequential(make.up(a, b), make.conv(b, c)) for a, b, c in masks)
        self.mask_out = nn.Sequential(make.up(2 * w, w), make.plain(w, channels, 1))
        self._build_refinement(make, channels, w)
        if fill and not spectral:
            last: Any
            for last in (self.ups.get_submodule("4.0"), self.rise2[-1]):  # begin as the fill itself
                nn.init.zeros_(last.weight)

    def _build_refinement(self, make: _Layers, channels: int, w: int) -> None:
        self.refine1 = nn.Sequential(make.conv(channels, w, 5), make.conv(w, 2 * w, 4, 2), make.conv(2 * w, 2 * w))
        self.refine2 = nn.Sequential(make.conv(2 * w, 4 * w, 4, 2), make.conv(4 * w, 4 * w), make.conv(4 * w, 4 * w))
        dilated = [make.conv(4 * w, 4 * w, dilation=d) for d in (2, 4, 8, 16)]
        self.around = nn.Sequential(*dilated, make.conv(4 * w, 4 * w), make.conv(4 * w, 4 * w))
        self.project1, self.project2 = make.plain(w, 2 * w, 1), make.plain(2 * w, 4 * w, 1)
        self.rise1 = nn.Sequential(make.up(12 * w, 2 * w), make.conv(2 * w, 2 * w))
        half = max(1, w // 2)
        self.rise2 = nn.Sequential(make.up(6 * w, w), make.conv(w, half), make.conv(half, channels, last=True))

    def forward(self, x: Tensor) -> Erased:
        """Pictures (N, C, H, W) in [0, 1] to `Erased`.

        Raises:
            UserError: sides that 32 doesn't divide.
        """
        if not torch.compiler.is_compiling() and (x.ndim != 4 or any(s % self.multiple or not s for s in x.shape[2:])):
            raise UserError(f"EraseNet sees pictures (N, C, H, W) with sides that 32 divides, got {tuple(x.shape)}")
        first = self.enter(x)
        second = self.level2(first)
        third = self.level3(second)
        fourth = self.level4(third)
        mask_features = self.sixth(fourth)
        bottleneck = self.deepest(mask_features)
        level, sides = bottleneck, []
        for up, bridge, skip in zip(self.ups, self.bridges, (fourth, third, second, first), strict=False):
            level = up(level)
            sides.append(level)
            level = torch.cat([bridge(skip), level], 1)
        mask = mask_features
        for part, skip in zip(self.masks, (fourth, third, second), strict=True):
            mask = part(torch.cat([mask, skip], 1))
        mask = self.mask_out(torch.cat([mask, first], 1))
        base = surroundings(x, sure(mask.detach().sigmoid().mean(1, keepdim=True))) if self.fill else 0
        coarse = self.ups[4](level) + base
        image = self._refined(coarse, first, second) + base
        return Erased(bottleneck, self.side1(sides[2]), self.side2(sides[3]), coarse, image, mask, mask_features)

    def _refined(self, coarse: Tensor, first: Tensor, second: Tensor) -> Tensor:
        one = self.refine1(coarse)
        two = self.refine2(one)
        low = self.rise1(torch.cat([self.around(two), two, self.project2(second)], 1))
        found: Tensor = self.rise2(torch.cat([low, one, self.project1(first)], 1))
        return found


class ErasureDiscriminator(nn.Module):
    """Local-global: one branch sees the picture, one what of it lies in the hole; both are judged together.

    Args:
        channels: C of the pictures.
        width: of the first convolution; the others have 2, 4, 4, 4 and 4 times as many.
        levels: convolutions of stride 2 in each branch; pictures are at least 4 * 2^levels wide and high (256 for the
            paper's 6).
        sigmoid: scores in [0, 1].
    """

    def __init__(self, channels: int = 3, *, width: int = 64, levels: int = 6, sigmoid: bool = False) -> None:
        super().__init__()
        if not 1 <= levels <= 6:
            raise UserError(f"levels={levels}: the discriminator has 1 to 6")
        self.least, make = 4 << levels, _Layers()
        widths = [channels, *(k * width for k in (1, 2, 4, 4, 4, 4)[:levels])]
        self.whole, self.local = (
            nn.Sequential(*(make.conv(a, b, 4, 2) for a, b in pairwise(widths))) for _ in range(2)
        )
        self.judge = make.started(nn.Conv2d(2 * widths[-1], 1, 4))
        self.sigmoid = sigmoid

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Scores (N, places) of pictures (N, C, H, W) with masks (N, 1 or C, H, W), 0 in the hole.

        Raises:
            UserError: pictures that are too small; a mask of another size.
        """
        if min(image.shape[2:]) < self.least or image.shape[2:] != mask.shape[2:]:
            found = f"{tuple(image.shape)} with a mask {tuple(mask.shape)}"
            raise UserError(
                f"the discriminator sees pictures from {self.least} pixels on, got {found}; use fewer levels"
            )
        both = torch.cat([self.whole(image), self.local(image * (1 - mask))], 1)
        found = self.judge(both).flatten(1)
        return found.sigmoid() if self.sigmoid else found


class TextMaskDiscriminator(nn.Module):
    """D_M: where text is, seen from the generator's mask features alone (detach them before).

    Args:
        channels: C of its result.
        features: channels of the mask features, 8 times the generator's width.
    """

    def __init__(self, channels: int = 3, *, features: int = 256) -> None:
        super().__init__()
        if features % 8:
            raise UserError(f"features={features}: a multiple of 8")
        make = _Layers()
        widths = (features, features // 2, features // 4, features // 8)
        pairs = [nn.Sequential(make.up(a, a), make.conv(a, b)) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*pairs, make.up(widths[-1], widths[-1]), make.plain(widths[-1], channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F, h, w) to (N, C, 16 h, 16 w), near 1 where text is; no sigmoid belongs to it."""
        found: Tensor = self.layers(features)
        return found
