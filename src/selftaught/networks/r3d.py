"""CVRL's 3-D ResNets (Qian et al., CVPR 2021, arXiv 2008.03800, table 1): the slow pathway of SlowFast, with a longer
stem.

| stage | R3D-50 | output of 16 x 224 x 224 |
| --- | --- | --- |
| stem | 5x7x7, 64, stride 2, 2, 2 | 8 x 112 x 112 |
| pool | 1x3x3 max, stride 1, 2, 2 | 8 x 56 x 56 |
| res2 | [1x1x1, 1x3x3, 1x1x1; 256] x 3 | 8 x 56 x 56 |
| res3 | [1x1x1, 1x3x3, 1x1x1; 512] x 4 | 8 x 28 x 28 |
| res4 | [3x1x1, 1x3x3, 1x1x1; 1024] x 6 | 8 x 14 x 14 |
| res5 | [3x1x1, 1x3x3, 1x1x1; 2048] x 3 | 8 x 7 x 7 |
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.video_layers import VideoNetwork

__all__ = ["R3D", "SlowBottleneck", "inflate", "r3d"]

R3D: dict[str, tuple[tuple[int, int, int, int], int]] = {
    "r3d-nano": ((1, 1, 1, 1), 8),
    "r3d-14": ((1, 1, 1, 1), 64),
    "r3d-26": ((2, 2, 2, 2), 64),
    "r3d-50": ((3, 4, 6, 3), 64),
    "r3d-50-2x": ((3, 4, 6, 3), 128),
    "r3d-101": ((3, 4, 23, 3), 64),
    "r3d-152": ((3, 8, 36, 3), 64),
    "r3d-152-2x": ((3, 8, 36, 3), 128),
}
"""Blocks of the four stages, and channels of the stem; nano to 26 are small forms for laptops."""

_TEMPORAL = (1, 1, 3, 3)


class SlowBottleneck(nn.Module):
    """1x1 (over time in ``temporal`` frames), 1x3x3, 1x1, each with BatchNorm, and the shortcut.

    Args:
        inside: channels in.
        width: channels of the middle; 4 times as many come out.
        temporal: frames that the first convolution spans, 1 or 3.
        stride: of the middle one, over height and width.
    """

    def __init__(self, inside: int, width: int, temporal: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1 = nn.Conv3d(inside, width, (temporal, 1, 1), padding=(temporal // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != out:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inside, out, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, F, T, H, W) -> (N, 4 width, T, H / stride, W / stride)."""
        h = self.bn1(self.conv1(x)).relu()
        h = self.bn2(self.conv2(h)).relu()
        return (self.bn3(self.conv3(h)) + self.shortcut(x)).relu()


def r3d(name: str = "r3d-50", *, channels: int = 3, width: int | None = None) -> VideoNetwork:
    """CVRL's encoder; 31.7 million parameters and D = 2048 for r3d-50.

    Args:
        name: one of `R3D`.
        channels: C of a frame.
        width: channels of the stem, in place of the name's; D is 32 times as many.

    Returns:
        The encoder with He-normal weights; clips need no set number of frames or size.

    Raises:
        UserError: an unknown name, no channel.
    """
    if name not in R3D:
        raise UserError(f"encoder={name}: choose {', '.join(R3D)}")
    blocks, usual = R3D[name]
    base = usual if width is None else width
    if channels < 1 or base < 1:
        raise UserError(f"encoder={name}: channels={channels}, width={base} must each be 1 or more")
    stem = OrderedDict(
        conv=nn.Conv3d(channels, base, (5, 7, 7), (2, 2, 2), (2, 3, 3), bias=False),
        bn=nn.BatchNorm3d(base),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    )
    stages: dict[str, nn.Module] = {"stem": nn.Sequential(stem)}
    inside = base
    for k, (count, temporal) in enumerate(zip(blocks, _TEMPORAL, strict=True)):
        own = base * 2**k
        parts = [
            SlowBottleneck(inside if i == 0 else 4 * own, own, temporal, 2 if k and i == 0 else 1) for i in range(count)
        ]
        stages[f"res{k + 2}"], inside = nn.Sequential(*parts), 4 * own
    kwargs: dict[str, Any] = {} if width is None else {"width": width}
    network = VideoNetwork(stages, inside, {"name": name, "channels": channels, "kwargs": kwargs, "dim": inside})
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def inflate(weights: dict[str, Tensor], network: VideoNetwork) -> VideoNetwork:
    """Give an R3D the weights of a 2-D ResNet of the same blocks: the paper's baseline "ImageNet inflated".

    A kernel is repeated over the t frames that it now spans and divided by t, so that a clip of equal frames gives what
    the picture gives.

    Args:
        weights: state dict of timm's resnet50, 101 or 152 (names conv1, bn1, layer1.0.conv1 ...); a classifier's
            weights are left out.
        network: from `r3d`; changed in place.

    Returns:
        The network.

    Raises:
        UserError: other blocks or widths.
    """
    state = network.state_dict()
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("fc."):
            continue
        target = _inflated_name(name)
        if target not in state:
            raise UserError(f"inflate: {network.spec['name']} has no {target}; take a ResNet with the same blocks")
        if value.ndim == 4:
            frames = state[target].shape[2]
            value = value[:, :, None].repeat(1, 1, frames, 1, 1) / frames
        if value.shape != state[target].shape:
            raise UserError(f"inflate: {name} is {tuple(value.shape)}, {target} needs {tuple(state[target].shape)}")
        found[target] = value
    if missing := [name for name in state if name not in found]:
        raise UserError(f"inflate: the picture network has nothing for {missing[0]}; take one with the same blocks")
    with torch.no_grad():
        network.load_state_dict(found)
    return network


def _inflated_name(name: str) -> str:
    """timm's name of a weight -> ours."""
    first, _, rest = name.partition(".")
    if first in ("conv1", "bn1"):
        return f"stages.stem.{first.removesuffix('1')}.{rest}"
    if first.startswith("layer"):
        return f"stages.res{int(first[5:]) + 1}.{rest.replace('downsample', 'shortcut')}"
    return name
