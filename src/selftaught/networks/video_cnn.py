"""The networks of the video benchmark (arXiv 2504.06153): small, medium and large convolutional ones, and Video Swin.

| size | networks |
| --- | --- |
| small | shufflenet-3d, squeezenet-3d, mobilenet-3d (Kopuklu et al., 2019, arXiv 1904.02422) |
| medium | resnet3d-18, r2plus1d-18 (Tran et al., CVPR 2018), and their forms of ten layers that VCOP takes |
| large | c3d (Tran et al., ICCV 2015), swin3d-t, -s, -b (Liu et al., CVPR 2022) |

Those of torchvision are torchvision's; the others are written here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, pad

from selftaught.errors import UserError
from selftaught.networks.video_layers import VideoNetwork

__all__ = ["VIDEO_CNNS", "video_cnn"]

Triple = tuple[int, int, int]
Stages = tuple[dict[str, nn.Module], int]


def _conv(
    inside: int, out: int, kernel: int | Triple = 3, stride: int | Triple = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution without bias, BatchNorm, ReLU; padded so that size only changes by the stride."""
    sides = (kernel,) * 3 if isinstance(kernel, int) else kernel
    padding = tuple(side // 2 for side in sides)
    layer = nn.Conv3d(inside, out, kernel, stride, padding, groups=groups, bias=False)  # type: ignore[arg-type]
    return [layer, nn.BatchNorm3d(out), nn.ReLU(inplace=True)]


# ---- small -------------------------------------------------------------------------------------------------------
def _tiny(channels: int) -> Stages:
    """Three convolutions of stride 2: the toy network of the sheets, for clips of some 32 pixels."""
    widths = (channels, 16, 32, 64)
    stages: dict[str, nn.Module] = {
        f"conv{k}": nn.Sequential(*_conv(widths[k - 1], widths[k], 3, (1 if k == 1 else 2, 2, 2))) for k in (1, 2, 3)
    }
    return stages, 64


def _mobilenet(channels: int, width: float = 1.0) -> Stages:
    """MobileNet v1 with 3x3x3 depthwise kernels."""

    def separable(inside: int, out: int, stride: int) -> nn.Sequential:
        return nn.Sequential(*_conv(inside, inside, 3, stride, groups=inside), *_conv(inside, out, 1))

    plan = ((64, 1, 2), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 1))
    inside = int(32 * width)
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(*_conv(channels, inside, 3, (1, 2, 2)))}
    for k, (out, count, stride) in enumerate(plan, start=1):
        own = int(out * width)
        blocks = [separable(inside if i == 0 else own, own, stride if i == 0 else 1) for i in range(count)]
        stages[f"stage{k}"], inside = nn.Sequential(*blocks), own
    return stages, inside


class _Fire(nn.Module):
    """Squeeze by 1x1x1, expand by 1x1x1 and 3x3x3 side by side, with a shortcut where ``bypass``."""

    def __init__(self, inside: int, squeeze: int, expand: int, bypass: bool) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(*_conv(inside, squeeze, 1))
        self.one = nn.Sequential(*_conv(squeeze, expand, 1)[:2])
        self.three = nn.Sequential(*_conv(squeeze, expand, 3)[:2])
        self.bypass = bypass

    def forward(self, x: Tensor) -> Tensor:
        h = self.squeeze(x)
        h = torch.cat([self.one(h), self.three(h)], dim=1)
        return (h + x if self.bypass else h).relu()


def _squeezenet(channels: int) -> Stages:
    """SqueezeNet with simple bypasses."""
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(*_conv(channels, 64, 3, (1, 2, 2)), nn.MaxPool3d(3, 2, 1)),
        "fire2": nn.Sequential(_Fire(64, 16, 64, False), _Fire(128, 16, 64, True), nn.MaxPool3d(3, 2, 1)),
        "fire4": nn.Sequential(_Fire(128, 32, 128, False), _Fire(256, 32, 128, True), nn.MaxPool3d(3, 2, 1)),
        "fire6": nn.Sequential(_Fire(256, 48, 192, False), _Fire(384, 48, 192, True)),
        "fire8": nn.Sequential(nn.MaxPool3d(3, 2, 1), _Fire(384, 64, 256, False), _Fire(512, 64, 256, True)),
    }
    return stages, 512


class _Shuffle(nn.Module):
    """ShuffleNet's unit: grouped 1x1x1, shuffle, depthwise 3x3x3, grouped 1x1x1; stride 2 joins by concatenation."""

    def __init__(self, inside: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        own, middle = (out - inside if stride == 2 else out), out // 4
        first = 1 if inside == 24 or inside % groups else groups
        self.reduce = nn.Sequential(*_conv(inside, middle, 1, groups=first))
        self.spatial = nn.Sequential(*_conv(middle, middle, 3, stride, groups=middle)[:2])
        self.expand = nn.Sequential(*_conv(middle, own, 1, groups=groups)[:2])

    def forward(self, x: Tensor) -> Tensor:
        h = self.reduce(x)
        h = h.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        h = self.expand(self.spatial(h))
        if self.stride == 2:
            short = avg_pool3d(pad(x, [1] * 6), 3, 2)  # padded before: torch's own padding refuses two frames
            return torch.cat([short, h], dim=1).relu()
        return (h + x).relu()


def _shufflenet(channels: int, width: float = 2.0, groups: int = 3) -> Stages:
    """ShuffleNet v1 with three groups, twice as wide."""
    widths = [int(one * width) for one in (24, 240, 480, 960)]
    stem = nn.Sequential(*_conv(channels, widths[0], 3, (1, 2, 2)), nn.MaxPool3d(3, 2, 1))
    stages: dict[str, nn.Module] = {"stem": stem}
    for k, count in enumerate((4, 8, 4), start=1):
        inside, out = widths[k - 1], widths[k]
        units = [_Shuffle(inside, out, 2, groups), *(_Shuffle(out, out, 1, groups) for _ in range(count - 1))]
        stages[f"stage{k + 1}"] = nn.Sequential(*units)
    return stages, widths[-1]


# ---- medium and large --------------------------------------------------------------------------------------------
def _c3d(channels: int) -> Stages:
    """C3D: eight convolutions with BatchNorm; the last pooling is the mean, in place of the two wide layers."""
    plan = (((64,), (1, 2, 2)), ((128,), (2, 2, 2)), ((256, 256), (2, 2, 2)), ((512, 512), (2, 2, 2)))
    stages: dict[str, nn.Module] = {}
    inside = channels
    for k, (widths, pool) in enumerate((*plan, ((512, 512), (1, 1, 1))), start=1):
        parts: list[nn.Module] = []
        for out in widths:
            parts += _conv(inside, out, 3)
            inside = out
        if pool != (1, 1, 1):
            parts.append(nn.MaxPool3d(pool, pool, ceil_mode=True))
        stages[f"conv{k}"] = nn.Sequential(*parts)
    return stages, 512


def _resnet(channels: int, kind: str, layers: tuple[int, int, int, int]) -> Stages:
    """torchvision's R3D or R(2+1)D."""
    from torchvision.models.video import resnet as tv

    stem, conv = (tv.BasicStem, tv.Conv3DSimple) if kind == "r3d" else (tv.R2Plus1dStem, tv.Conv2Plus1D)
    model: Any = tv.VideoResNet(tv.BasicBlock, [conv] * 4, list(layers), stem)
    if channels != 3:
        model.stem[0] = _adapted(model.stem[0], channels)
    return {name: getattr(model, name) for name in ("stem", "layer1", "layer2", "layer3", "layer4")}, 512


def _adapted(layer: Any, channels: int) -> nn.Conv3d:
    """A first convolution of another number of channels."""
    bias = layer.bias is not None
    return nn.Conv3d(channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=bias)


class _ChannelsFirst(nn.Module):
    """A part that works on (N, T, h, w, F), for inputs and outputs (N, F, T, h, w)."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.movedim(1, -1)).movedim(-1, 1)


class _Embed(nn.Module):
    """Video Swin's patches, (N, C, T, H, W) -> (N, F, t, h, w)."""

    def __init__(self, patch_embed: nn.Module) -> None:
        super().__init__()
        self.patch_embed = patch_embed

    def forward(self, x: Tensor) -> Tensor:
        return self.patch_embed(x).movedim(-1, 1)


def _swin(channels: int, size: str) -> Stages:
    """torchvision's Video Swin."""
    from torchvision.models import video

    model: Any = getattr(video, f"swin3d_{size}")()
    if channels != 3:
        proj = model.patch_embed.proj
        model.patch_embed.proj = _adapted(proj, channels)
    stages: dict[str, nn.Module] = {"embed": _Embed(model.patch_embed)}
    parts = list(model.features)
    for k in range(0, len(parts), 2):  # a merging of patches belongs to the stage after it
        blocks = [*parts[max(k - 1, 0) : k], parts[k]]
        stages[f"stage{k // 2 + 1}"] = _ChannelsFirst(nn.Sequential(*blocks))
    stages["norm"] = _ChannelsFirst(model.norm)
    return stages, int(model.num_features)


VIDEO_CNNS: dict[str, Callable[[int], Stages]] = {
    "cnn-small-video": _tiny,
    "shufflenet-3d": _shufflenet,
    "squeezenet-3d": _squeezenet,
    "mobilenet-3d": _mobilenet,
    "resnet3d-10": lambda channels: _resnet(channels, "r3d", (1, 1, 1, 1)),
    "resnet3d-18": lambda channels: _resnet(channels, "r3d", (2, 2, 2, 2)),
    "r2plus1d-10": lambda channels: _resnet(channels, "r2plus1d", (1, 1, 1, 1)),
    "r2plus1d-18": lambda channels: _resnet(channels, "r2plus1d", (2, 2, 2, 2)),
    "c3d": _c3d,
    "swin3d-t": lambda channels: _swin(channels, "t"),
    "swin3d-s": lambda channels: _swin(channels, "s"),
    "swin3d-b": lambda channels: _swin(channels, "b"),
}
"""Name -> what makes the stages for C channels."""


def video_cnn(name: str, *, channels: int = 3) -> VideoNetwork:
    """One of the benchmark's networks, with random weights; clips need no set number of frames or size.

    Args:
        name: one of `VIDEO_CNNS`.
        channels: C of a frame.

    Raises:
        UserError: an unknown name, no channel.
    """
    if name not in VIDEO_CNNS:
        raise UserError(f"encoder={name}: choose {', '.join(VIDEO_CNNS)}")
    if channels < 1:
        raise UserError(f"encoder={name}: channels={channels} must be 1 or more")
    stages, dim = VIDEO_CNNS[name](channels)
    return VideoNetwork(stages, dim, {"name": name, "channels": channels, "kwargs": {}, "dim": dim})
