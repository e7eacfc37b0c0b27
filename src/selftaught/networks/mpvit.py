"""MPViT-small (Lee et al., CVPR 2022, arXiv 2112.11010) and the HR decoder, as MonoViT (3DV 2022) joins them.

Every stage embeds its input at several sizes of the receptive field, gives each a path of attention blocks, one more a
convolutional block, and mixes all. The decoder is HR-Depth's: dense connections between maps of all sizes, squeezed by
channel attention where they meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.networks.depth import ConvBlock, EarlyMaps, PyramidEncoder, exact_sigmoid, unit_normalised

__all__ = ["FactorisedAttention", "HRDecoder", "MPViT"]

_WINDOWS = ((3, 2), (5, 3), (7, 3))


def _conv(inputs: int, outputs: int, size: int = 1, stride: int = 1, active: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.Hardswish()] if active else []))


def _separable(dim: int, stride: int) -> nn.Sequential:
    """Depthwise 3 x 3, 1 x 1, BatchNorm, Hardswish."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, stride, 1, groups=dim, bias=False), *_conv(dim, dim))


class _RelativePositions(nn.Module):
    """Depthwise convolutions of the values, a window size for each group of heads (CoaT's relative position code)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        shares = [share for _, share in _WINDOWS]
        self.widths = [width * heads * share // sum(shares) for share in shares]
        self.convs = nn.ModuleList(
            nn.Conv2d(w, w, size, padding=size // 2, groups=w)
            for w, (size, _) in zip(self.widths, _WINDOWS, strict=True)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(N, heads width, H, W) to the same."""
        parts = values.split(self.widths, 1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], 1)


class FactorisedAttention(nn.Module):
    """scale q (softmax_places(k)^T v) + q * positions(v): attention in linear time.

    Args:
        dim: channels.
        heads: into which they are divided.
        positions: shared by the blocks of a path.
    """

    def __init__(self, dim: int, heads: int, positions: nn.Module) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.project, self.positions = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), positions

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, L, dim) of a map of ``size`` to the same."""
        n, length, dim = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        factored = q @ (k.softmax(2).transpose(-2, -1) @ v)
        flat = v.transpose(2, 3).reshape(n, dim, *size)
        placed = self.positions(flat).reshape(n, self.heads, -1, length).transpose(2, 3)
        mixed = self.scale * factored + q * placed
        return self.project(mixed.transpose(1, 2).reshape(n, length, dim))


class _Block(nn.Module):
    """Convolutional position code, factorised attention, MLP."""

    def __init__(self, dim: int, heads: int, ratio: int, place: nn.Module, positions: nn.Module) -> None:
        super().__init__()
        self.place = place
        self.first, self.second = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = FactorisedAttention(dim, heads, positions)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        n, dim, *size = x.shape
        x = x + self.place(x)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.first(tokens), (size[0], size[1]))
        tokens = tokens + self.mlp(self.second(tokens))
        return tokens.transpose(1, 2).reshape(n, dim, *size)


class _Path(nn.Sequential):
    def __init__(self, dim: int, blocks: int, heads: int, ratio: int) -> None:
        place = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        positions = _RelativePositions(dim // heads, heads)
        super().__init__(*(_Block(dim, heads, ratio, place, positions) for _ in range(blocks)))


class _Residual(nn.Module):
    """1 x 1, depthwise 3 x 3, 1 x 1, around which the input passes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(dim, dim), nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), nn.BatchNorm2d(dim),
            nn.Hardswish(), _conv(dim, dim, active=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Stage(nn.Module):
    def __init__(self, dim: int, outputs: int, paths: int, blocks: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(_separable(dim, 2 if at == 0 else 1) for at in range(paths))
        self.paths = nn.ModuleList(_Path(dim, blocks, heads, ratio) for _ in range(paths))
        self.local = _Residual(dim)
        self.mix = _conv((paths + 1) * dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for embed in self.embed:
            x = embed(x)
            seen.append(x)
        made = [path(one) for path, one in zip(self.paths, seen, strict=True)]
        return self.mix(torch.cat((self.local(seen[0]), *made), 1))


class MPViT(PyramidEncoder):
    """MPViT-small with maps of 64, 128, 216, 288, 288 channels at strides 2 to 32.

    Args:
        channels: of the picture.
        widths: of the four stages' inputs.
        paths: attention paths of each stage.
        blocks: of each path.
        heads: of the attention.
        ratio: of the MLPs' width.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 216, 288),
        paths: Sequence[int] = (2, 3, 3, 3),
        blocks: Sequence[int] = (1, 3, 6, 3),
        heads: int = 8,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        self.channels = (widths[0], *widths[1:], widths[-1])
        self.stem = nn.Sequential(_conv(channels, widths[0] // 2, 3, 2), _conv(widths[0] // 2, widths[0], 3))
        outs = (*widths[1:], widths[-1])
        self.stages = nn.ModuleList(
            _Stage(a, b, p, n, heads, ratio) for a, b, p, n in zip(widths, outs, paths, blocks, strict=True)
        )

    def early(self, image: Tensor) -> EarlyMaps:
        """Stem and first stage."""
        stem = self.stem(unit_normalised(image))
        return EarlyMaps(self.stages[0](stem), stem)

    def late(self, early: EarlyMaps, feature: Tensor | None = None) -> list[Tensor]:
        """Stages two to four."""
        maps = [early.state, early.feature if feature is None else feature]
        for stage in list(self.stages)[1:]:
            maps.append(stage(maps[-1]))
        return maps


class _ChannelAttention(nn.Module):
    """A weight for each channel, of its mean and its largest value; then 3 x 3 to other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(inputs, inputs // 16, 1, bias=False), nn.ReLU(), nn.Conv2d(inputs // 16, inputs, 1, bias=False)
        )
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.sigmoid(self.weigh(x.mean((2, 3), True)) + self.weigh(x.amax((2, 3), True)))
        return F.relu(self.conv(weight * x))


class _Squeeze(nn.Module):
    """HR-Depth's fusion: what is coarser twice as large beside all that is finer, weighted by channel, 1 x 1."""

    def __init__(self, high: int, low: int, outputs: int) -> None:
        super().__init__()
        width = high + low
        self.weigh = nn.Sequential(
            nn.Linear(width, width // 16, bias=False),
            nn.ReLU(),
            nn.Linear(width // 16, width, bias=False),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(width, outputs, 1)

    def forward(self, high: Tensor, low: Sequence[Tensor]) -> Tensor:
        x = torch.cat((F.interpolate(high, scale_factor=2.0, mode="nearest"), *low), 1)
        return F.relu(self.conv(x * self.weigh(x.mean((2, 3)))[:, :, None, None]))


class HRDecoder(nn.Module):
    """A triangle of nodes X_rc: row r is the size, column c how often a coarser node came in.

    Node X_rc is made of X_(r+1)(c-1), twice as large, and of all X_r0 ... X_r(c-1). On the diagonal they meet by
    channel attention, elsewhere by convolutions.

    Args:
        channels: of the encoder's five maps.
        scales: of the disparities, 0 to 3.
        inner: channels that the maps are brought to; the finest keeps its own.
        widths: of the decoder, the finest first.
    """

    def __init__(
        self,
        channels: Sequence[int],
        scales: Sequence[int] = (0, 1, 2, 3),
        inner: Sequence[int] = (64, 64, 128, 256, 512),
        widths: Sequence[int] = (16, 32, 64, 128, 256),
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        inner = (channels[0], *inner[1:])
        self.enter = nn.ModuleList(_ChannelAttention(a, b) for a, b in zip(channels[1:], inner[1:], strict=True))
        self.before, self.squeeze, self.after, self.meet = (nn.ModuleDict() for _ in range(4))
        for row in range(4):
            for column in range(1, 5 - row):
                node, source = f"{row}{column}", f"{row + 1}{column - 1}"
                wide = inner[row + 1] if column == 1 else widths[row + 2]
                high, low, out = wide // 2, inner[row] + widths[row + 1] * (column - 1), widths[row + 1]
                self.before[source] = ConvBlock(wide, high)
                if row + column == 4:
                    self.meet[node] = _Squeeze(high, low, out)
                elif column == 1:
                    self.after[node] = ConvBlock(high + low, out)
                else:
                    self.squeeze[node] = nn.Conv2d(high + low, 2 * out, 1)
                    self.after[node] = ConvBlock(2 * out, out)
        self.first, self.last = ConvBlock(widths[1], widths[0]), ConvBlock(widths[0], widths[0])
        heads = {str(s): nn.Conv2d(widths[s], 1, 3, padding=1, padding_mode="reflect") for s in self.scales}
        self.heads = nn.ModuleDict(heads)

    def forward(self, maps: Sequence[Tensor]) -> dict[int, Tensor]:
        """Scale -> sigmoid disparity (N, 1, H / 2^s, W / 2^s)."""
        nodes = {"00": maps[0]} | {f"{r}0": enter(maps[r]) for r, enter in enumerate(self.enter, start=1)}
        for column in range(1, 5):
            for row in range(5 - column):
                node, source = f"{row}{column}", f"{row + 1}{column - 1}"
                high = self.before[source](nodes[source])
                low = [nodes[f"{row}{c}"] for c in range(column)]
                if node in self.meet:
                    nodes[node] = self.meet[node](high, low)
                    continue
                x = torch.cat((F.interpolate(high, scale_factor=2.0, mode="nearest"), *low), 1)
                nodes[node] = self.after[node](self.squeeze[node](x) if node in self.squeeze else x)
        finest = self.last(F.interpolate(self.first(nodes["04"]), scale_factor=2.0, mode="nearest"))
        ends = {0: finest, 1: nodes["04"], 2: nodes["13"], 3: nodes["22"]}
        return {s: exact_sigmoid(self.heads[str(s)], ends[s]) for s in self.scales}
