"""MPRNet (Zamir et al., CVPR 2021, arXiv 2102.02808) with K output heads: quarters, halves, then the whole image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.networks.hinet import SupervisedAttention
from selftaught.networks.multi_output import add_heads

__all__ = ["ChannelAttentionBlock", "MPRNet"]


def _conv(channels: int, width: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)


class ChannelAttentionBlock(nn.Module):
    """x + CA(conv(PReLU(conv x))): two convolutions, each channel weighed by what its mean says.

    Args:
        width: channels.
        reduction: how many times narrower the attention is inside.
    """

    def __init__(self, width: int, reduction: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(width, width), nn.PReLU(), _conv(width, width))
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            _conv(width, max(1, width // reduction), 1),
            nn.ReLU(),
            _conv(max(1, width // reduction), width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) to the same."""
        found = self.body(x)
        return x + found * self.attention(found)


def _blocks(width: int, count: int = 2) -> nn.Sequential:
    return nn.Sequential(*(ChannelAttentionBlock(width) for _ in range(count)))


class _Half(nn.Module):
    """Bilinear halving, then 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = _conv(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False))


class _Double(nn.Module):
    """Bilinear doubling, then 1x1 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = _conv(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


class _Encoder(nn.Module):
    """Three levels; the second stage's adds what the first one's encoder and decoder saw at each."""

    def __init__(self, width: int, step: int, *, merges: bool) -> None:
        super().__init__()
        widths = [width + level * step for level in range(3)]
        self.levels = nn.ModuleList(_blocks(w) for w in widths)
        self.downs = nn.ModuleList(_Half(w, w + step) for w in widths[:2])
        self.from_encoder = nn.ModuleList(_conv(w, w, 1) for w in widths) if merges else None
        self.from_decoder = nn.ModuleList(_conv(w, w, 1) for w in widths) if merges else None

    def forward(
        self, x: Tensor, encoder: list[Tensor] | None = None, decoder: list[Tensor] | None = None
    ) -> list[Tensor]:
        found = []
        for level, blocks in enumerate(self.levels):
            x = blocks(x)
            if self.from_encoder is not None and self.from_decoder is not None:
                assert encoder is not None
                assert decoder is not None
                x = x + self.from_encoder[level](encoder[level]) + self.from_decoder[level](decoder[level])
            found.append(x)
            x = self.downs[level](x) if level < 2 else x
        return found


class _Decoder(nn.Module):
    """Three levels, the coarsest first; skips go through a channel attention block."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        widths = [width + level * step for level in range(3)]
        self.levels = nn.ModuleList(_blocks(w) for w in widths)
        self.skips = nn.ModuleList(ChannelAttentionBlock(w) for w in widths[:2])
        self.ups = nn.ModuleList(_Double(w + step, w) for w in widths[:2])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = self.levels[2](maps[2])
        found = [x]
        for level in (1, 0):
            x = self.levels[level](self.ups[level](x) + self.skips[level](maps[level]))
            found.insert(0, x)
        return found


class _OriginalResolution(nn.Module):
    """The third stage: blocks at full resolution, to which all levels of the second are added."""

    def __init__(self, width: int, step: int, extra: int, blocks: int) -> None:
        super().__init__()
        wide = width + extra
        self.parts = nn.ModuleList(nn.Sequential(*_blocks(wide, blocks), _conv(wide, wide)) for _ in range(3))
        self.encoder_ups, self.decoder_ups = (
            nn.ModuleList(
                [
                    nn.Identity(),
                    _Double(width + step, width),
                    nn.Sequential(_Double(width + 2 * step, width + step), _Double(width + step, width)),
                ]
            )
            for _ in range(2)
        )
        self.encoder_convs, self.decoder_convs = (
            nn.ModuleList(_conv(width, wide, 1) for _ in range(3)) for _ in range(2)
        )

    def forward(self, x: Tensor, encoder: list[Tensor], decoder: list[Tensor]) -> Tensor:
        for level, part in enumerate(self.parts):
            x = x + part(x)
            x = x + self.encoder_convs[level](self.encoder_ups[level](encoder[level]))
            x = x + self.decoder_convs[level](self.decoder_ups[level](decoder[level]))
        return x


class MPRNet(nn.Module):
    """Three stages: the first sees quarters of the image, the second halves, the third all of it; each gives K images.

    Args:
        channels: of the images.
        width: channels of the features; 96 for deblurring.
        step: by how much each coarser level is wider.
        extra: by how much the third stage is.
        blocks: channel attention blocks in each part of the third stage.
        heads: K.
        combine: whether the outputs have all pairwise means of the heads.
    """

    multiple = 8

    def __init__(
        self,
        channels: int = 3,
        *,
        width: int = 96,
        step: int = 48,
        extra: int = 32,
        blocks: int = 8,
        heads: int = 4,
        combine: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.heads, self.combine = channels, heads, combine
        self.shallow = nn.ModuleList(
            nn.Sequential(_conv(channels, width), ChannelAttentionBlock(width)) for _ in range(3)
        )
        self.encoder1, self.encoder2 = _Encoder(width, step, merges=False), _Encoder(width, step, merges=True)
        self.decoder1, self.decoder2 = _Decoder(width, step), _Decoder(width, step)
        options = {"heads": heads, "kernel": 1, "bias": False}
        self.attention12 = SupervisedAttention(width, channels, **options)  # type: ignore[arg-type]
        self.attention23 = SupervisedAttention(width, channels, **options)  # type: ignore[arg-type]
        self.third = _OriginalResolution(width, step, extra, blocks)
        self.join12, self.join23 = _conv(2 * width, width), _conv(2 * width, width + extra)
        self.tail = _conv(width + extra, channels * heads)

    def stages(self, blurred: Tensor) -> list[Tensor]:
        """The images of the three stages, each (N, heads, C, H, W)."""
        height, width = blurred.shape[-2:]
        x = F.pad(blurred, (0, (-width) % 8, 0, (-height) % 8), mode="replicate")
        halves = list(x.chunk(2, 2))
        quarters = [quarter for half in halves for quarter in half.chunk(2, 3)]
        maps = [self.encoder1(self.shallow[0](quarter)) for quarter in quarters]
        encoded = [[torch.cat(pair, 3) for pair in zip(maps[k], maps[k + 1], strict=True)] for k in (0, 2)]
        decoded = [self.decoder1(half) for half in encoded]
        gated, early = zip(*(self.attention12(d[0], h) for d, h in zip(decoded, halves, strict=True)), strict=True)
        maps = []
        for half, gate, encoder, decoder in zip(halves, gated, encoded, decoded, strict=True):
            maps.append(self.encoder2(self.join12(torch.cat([self.shallow[1](half), gate], 1)), encoder, decoder))
        whole = [torch.cat(pair, 2) for pair in zip(*maps, strict=True)]
        risen = self.decoder2(whole)
        gate, middle = self.attention23(risen[0], x)
        last = self.third(self.join23(torch.cat([self.shallow[2](x), gate], 1)), whole, risen)
        late = self.tail(last).unflatten(1, (self.heads, self.channels))
        found = (torch.cat(early, 3), middle, late)
        return [add_heads(blurred, one[..., :height, :width], combine=self.combine) for one in found]

    def forward(self, blurred: Tensor) -> Tensor:
        """(N, C, H, W) of any size to the images of the last stage, (N, heads, C, H, W)."""
        return self.stages(blurred)[-1]
