"""HINet (Chen et al., CVPRW 2021, arXiv 2105.06086) with K output heads: two U-nets, half instance normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.networks.multi_output import add_heads

__all__ = ["HINBlock", "HINet", "SupervisedAttention"]


class HINBlock(nn.Module):
    """Two 3x3 convolutions, LeakyReLU and a 1x1 shortcut; half of the first one's channels are instance-normalised.

    Args:
        channels: of the input.
        width: of the output.
        normalise: whether half of the channels are.
        merges: channels of the first U-net's two streams that are added to the result (cross-stage fusion); 0: none.
    """

    def __init__(self, channels: int, width: int, *, normalise: bool = False, merges: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1)
        self.norm = nn.InstanceNorm2d(width // 2, affine=True) if normalise else None
        self.from_encoder = nn.Conv2d(width, width, 3, padding=1) if merges else None
        self.from_decoder = nn.Conv2d(width, width, 3, padding=1) if merges else None

    def forward(self, x: Tensor, encoder: Tensor | None = None, decoder: Tensor | None = None) -> Tensor:
        """(N, channels, H, W) to (N, width, H, W), with the first U-net's maps of this level where there are any."""
        y = self.first(x)
        if self.norm is not None:
            half, rest = y.chunk(2, 1)
            y = torch.cat([self.norm(half), rest], 1)
        y = F.leaky_relu(self.second(F.leaky_relu(y, 0.2)), 0.2) + self.shortcut(x)
        if self.from_encoder is not None and self.from_decoder is not None:
            assert encoder is not None
            assert decoder is not None
            y = y + self.from_encoder(encoder) + self.from_decoder(decoder)
        return y


class SupervisedAttention(nn.Module):
    """Images out of features, and features gated by those images, for the next stage.

        residuals = conv(f),   images_k = blurred + residual_k,   gated = conv(f) * sigmoid(conv(images)) + f

    Args:
        width: channels of the features.
        channels: of the images.
        heads: K images.
        kernel: side of the three convolutions' kernels: 3 (HINet, MPRNet's first released form 1 or 3).
        bias: whether they have one.
    """

    def __init__(self, width: int, channels: int = 3, *, heads: int = 1, kernel: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        self.features = nn.Conv2d(width, width, kernel, padding=kernel // 2, bias=bias)
        self.images = nn.Conv2d(width, channels * heads, kernel, padding=kernel // 2, bias=bias)
        self.gate = nn.Conv2d(channels * heads, width, kernel, padding=kernel // 2, bias=bias)

    def forward(self, features: Tensor, blurred: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width, H, W) and the image (N, C, H, W) -> gated features, and residuals (N, K, C, H, W)."""
        residuals = self.images(features).unflatten(1, (self.heads, self.channels))
        images = (blurred[:, None] + residuals).flatten(1, 2)
        return self.features(features) * torch.sigmoid(self.gate(images)) + features, residuals


class _UNet(nn.Module):
    """One of the two U-nets: ``depth`` levels of HIN blocks, strided convolutions, transposed convolutions."""

    def __init__(self, width: int, depth: int, normalised: tuple[int, int], *, merges: bool) -> None:
        super().__init__()
        self.down_blocks, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.up_blocks, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = width
        for level in range(depth):
            wide, last = width << level, level == depth - 1
            normalise = normalised[0] <= level <= normalised[1]
            self.down_blocks.append(HINBlock(channels, wide, normalise=normalise, merges=merges and not last))
            if not last:
                self.downs.append(nn.Conv2d(wide, wide, 4, 2, 1, bias=False))
            channels = wide
        for level in reversed(range(depth - 1)):
            wide = width << level
            self.ups.append(nn.ConvTranspose2d(channels, wide, 2, 2))
            self.skips.append(nn.Conv2d(wide, wide, 3, padding=1))
            self.up_blocks.append(HINBlock(2 * wide, wide))
            channels = wide

    def forward(self, x: Tensor, encoder: list[Tensor], decoder: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of the way down, and of the way up, the finest first."""
        down: list[Tensor] = []
        for level, block in enumerate(self.down_blocks):
            other = (encoder[level], decoder[level]) if level < len(encoder) else (None, None)
            x = block(x, *other)
            down.append(x)
            x = self.downs[level](x) if level < len(self.downs) else x
        up: list[Tensor] = []
        for number, (rise, skip, block) in enumerate(zip(self.ups, self.skips, self.up_blocks, strict=True)):
            x = block(torch.cat([rise(x), skip(down[len(self.ups) - 1 - number])], 1))
            up.insert(0, x)
        return down[:-1], up


class HINet(nn.Module):
    """Two U-nets in a row; both give K images, and the first one's gate what the second sees.

    Args:
        channels: of the images.
        width: of the finest level, doubled at each that is coarser.
        depth: levels of each U-net.
        normalised: first and last level whose blocks normalise half of their channels.
        heads: K.
        combine: whether the outputs have all pairwise means of the heads.

    Raises:
        UserError: a depth below 2.
    """

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 64,
        depth: int = 5,
        normalised: tuple[int, int] = (3, 4),
        heads: int = 4,
        combine: bool = True,
    ) -> None:
        super().__init__()
        if depth < 2:
            raise UserError(f"depth={depth}: a U-net has two levels or more")
        self.channels, self.heads, self.combine, self.multiple = channels, heads, combine, 2 ** (depth - 1)
        self.intro1, self.intro2 = (nn.Conv2d(channels, width, 3, padding=1) for _ in range(2))
        self.first = _UNet(width, depth, normalised, merges=False)
        self.attention = SupervisedAttention(width, channels, heads=heads)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.second = _UNet(width, depth, normalised, merges=True)
        self.ending = nn.Conv2d(width, channels * heads, 3, padding=1)

    def stages(self, blurred: Tensor) -> list[Tensor]:
        """The images of both stages, each (N, heads, C, H, W)."""
        height, width = blurred.shape[-2:]
        x = F.pad(blurred, (0, (-width) % self.multiple, 0, (-height) % self.multiple))
        down, up = self.first(self.intro1(x), [], [])
        gated, early = self.attention(up[0], x)
        merged = self.merge(torch.cat([self.intro2(x), gated], 1))
        _, up = self.second(merged, down, up)
        late = self.ending(up[0]).unflatten(1, (self.heads, self.channels))
        return [add_heads(blurred, found[..., :height, :width], combine=self.combine) for found in (early, late)]

    def forward(self, blurred: Tensor) -> Tensor:
        """(N, C, H, W) of any size to the images of the last stage, (N, heads, C, H, W)."""
        return self.stages(blurred)[-1]
