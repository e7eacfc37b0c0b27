"""DRSC: two pictures read by a rolling shutter in opposite directions in, global-shutter frames out.

The network is IFED's (Zhong et al., "Bringing rolling shutter images alive with dual reversed distortion", ECCV 2022,
arXiv 2203.06451), as SelfDRSC uses it with three frames: start, an instant between, end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.warping import clamped_warp

__all__ = ["DRSC", "ContextNet", "Corrected", "FlowBlock", "SynthesisNet", "VelocityNet"]

MULTIPLE = 32
"""Height and width of what the network sees are multiples of this."""
_SCALES = (8, 4, 2, 1)


def _convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.PReLU(outputs))


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    """Half the size, then a convolution more."""
    return nn.Sequential(*_convolution(inputs, outputs, 2), *_convolution(outputs, outputs))


def _larger(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.PReLU(outputs))


def _resized(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


class FlowBlock(nn.Module):
    """Raw flows from pictures, seen at a scale: two steps down, six convolutions, one step up.

    Args:
        inputs: channels.
        width: channels w behind the first convolution, 2w behind the second.
        scale: by how much the input is reduced.
        outputs: channels of the output.
    """

    def __init__(self, inputs: int, width: int, scale: int, outputs: int) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Sequential(_convolution(inputs, width, 2), _convolution(width, 2 * width, 2))
        self.body = nn.Sequential(*(_convolution(2 * width, 2 * width) for _ in range(6)))
        self.up = nn.ConvTranspose2d(2 * width, outputs, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/2, W/2)."""
        made: Tensor = self.up(self.body(self.down(_resized(x, 1 / self.scale))))
        return _resized(made, self.scale)


class VelocityNet(nn.Module):
    """Flows from n global-shutter frames to both pictures, coarse to fine: velocity times time code.

    The outputs of the blocks add up to a velocity; times the time code of each frame and through a convolution of one
    pixel they are flows. Every block but the first sees both pictures warped by the flows so far.

    Args:
        frames: n.
        channels: of a picture.
        widths: of the four blocks, coarse to fine.
        released: multiply the first block's part by the time code once more than the others from the second block on,
            as the released code does (its product is made in place).

    Raises:
        UserError: another number of widths.
    """

    def __init__(
        self,
        frames: int = 3,
        channels: int = 3,
        widths: Sequence[int] = (192, 128, 96, 48),
        *,
        released: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != len(_SCALES):
            raise UserError(f"widths {tuple(widths)}: give {len(_SCALES)}, of the blocks from coarse to fine")
        self.frames, self.released = frames, released
        inputs = [2 * channels + 2 * frames, *[2 * frames * (channels + 3)] * 3]
        self.blocks = nn.ModuleList(
            FlowBlock(i, w, scale, 4 * frames) for i, w, scale in zip(inputs, widths, _SCALES, strict=True)
        )
        self.mixers = nn.ModuleList(nn.Conv2d(4 * frames, 4 * frames, 1) for _ in _SCALES)

    def forward(self, first: Tensor, second: Tensor, codes: Tensor) -> tuple[list[Tensor], Tensor]:
        """Flows by level.

        Args:
            first: (N, C, H, W), read from the top.
            second: read from the bottom.
            codes: (N, 2n, H, W), see `time_codes`.

        Returns:
            Four flows (N, 4n, H/2, W/2), coarse to fine: those of the first picture, then those of the second; and the
            velocity of the same shape.
        """
        half = _resized(codes, 0.5).repeat_interleave(2, 1)
        seen, velocity, flows = torch.cat((first, second, codes), 1), None, []
        for block, mixer in zip(self.blocks, self.mixers, strict=True):
            made = block(seen)
            if velocity is None:
                velocity = made
                timed = velocity * half
                velocity = timed if self.released else velocity
            else:
                velocity = velocity + made
                timed = velocity * half
            flows.append(mixer(timed))
            large = 2 * _resized(flows[-1], 2)
            to_first, to_second = large.chunk(2, 1)
            seen = torch.cat((clamped_warp(first, to_first), clamped_warp(second, to_second), codes, large), 1)
        assert velocity is not None
        return flows, velocity


class ContextNet(nn.Module):
    """Features of a picture at strides 4, 8, 16 and 32, warped to the n frames and fused.

    Args:
        width: c; the levels have c, 2c, 4c and 8c channels.
        frames: n.
        channels: of the picture.
    """

    def __init__(self, width: int = 32, frames: int = 3, channels: int = 3) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = _twice(channels, width)
        self.levels = nn.ModuleList(_twice(i, o) for i, o in zip([width, *widths[:-1]], widths, strict=True))
        self.fusions = nn.ModuleList(_convolution(frames * w, w, kernel=1) for w in widths)

    def forward(self, image: Tensor, flows: Tensor) -> list[Tensor]:
        """(N, C, H, W) and flows (N, 2n, H/2, W/2) to four maps."""
        x, found = self.stem(image), []
        for level, fusion in zip(self.levels, self.fusions, strict=True):
            x = level(x)
            flows = 0.5 * _resized(flows, 0.5)
            found.append(fusion(clamped_warp(x, flows)))
        return found


class SynthesisNet(nn.Module):
    """A U-Net that blends the warped pictures: of each frame a mask and a residual.

    Args:
        width: c; the encoder has c to 16c channels.
        frames: n.
        channels: of a picture.
    """

    def __init__(self, width: int = 32, frames: int = 3, channels: int = 3) -> None:
        super().__init__()
        c = width
        self.frames, self.channels = frames, channels
        self.stem = _twice(2 * (channels + 2) * frames, c)
        narrowing, widening = ((1, 2), (4, 4), (8, 8), (16, 16)), ((32, 8), (16, 4), (8, 2), (4, 1))
        self.down = nn.ModuleList(_twice(i * c, o * c) for i, o in narrowing)
        self.up = nn.ModuleList(_larger(i * c, o * c) for i, o in widening)
        self.last = _larger(c, (channels + 1) * frames)

    def forward(self, warped: Tensor, flows: Tensor, context: Sequence[Tensor]) -> Tensor:
        """Frames in [0, 1].

        Args:
            warped: (N, 2, n, C, H, W): the first picture, and the second, as each frame would see them.
            flows: (N, 4n, H, W).
            context: four maps of both pictures together.

        Returns:
            (N, n, C, H, W).
        """
        x = self.stem(torch.cat((warped.flatten(1, 3), flows), 1))
        kept = []
        for down, beside in zip(self.down, context, strict=True):
            x = down(x)
            kept.append(x)
            x = torch.cat((x, beside), 1)
        for k, up in enumerate(self.up):
            x = up(x)
            x = torch.cat((x, kept[2 - k]), 1) if k < 3 else x
        made = self.last(x)
        cut = self.channels * self.frames
        residual = (2 * torch.sigmoid(made[:, :cut]) - 1).unflatten(1, (self.frames, self.channels))
        mask = torch.sigmoid(made[:, cut:]).unsqueeze(2)
        return (mask * warped[:, 0] + (1 - mask) * warped[:, 1] + residual).clamp(0, 1)


class Corrected(NamedTuple):
    """What `DRSC` gives.

    Attributes:
        frames: (N, n, C, H, W) in [0, 1].
        flows: four of (N, 4n, H/2, W/2), coarse to fine.
        velocity: (N, 4n, H/2, W/2).
    """

    frames: Tensor
    flows: list[Tensor]
    velocity: Tensor


class DRSC(nn.Module):
    """Dual reversed rolling-shutter correction.

    Args:
        frames: n, global-shutter frames that come out.
        width: c of the context and synthesis networks.
        channels: of a picture.
        flow_widths: of the four blocks of the flow network, coarse to fine.
        released: see `VelocityNet`.
    """

    def __init__(
        self,
        frames: int = 3,
        width: int = 32,
        channels: int = 3,
        flow_widths: Sequence[int] = (192, 128, 96, 48),
        *,
        released: bool = False,
    ) -> None:
        super().__init__()
        self.frames, self.channels = frames, channels
        self.velocity = VelocityNet(frames, channels, flow_widths, released=released)
        self.context = ContextNet(width, frames, channels)
        self.synthesis = SynthesisNet(width, frames, channels)

    def forward(self, first: Tensor, second: Tensor, codes: Tensor) -> Corrected:
        """Frames at the instants that the codes are of.

        Args:
            first: (N, C, H, W) in [0, 1], read from the top; sides are multiples of 32.
            second: of the same moment, read from the bottom.
            codes: (N, 2n, H, W), see `time_codes`.

        Raises:
            UserError: other shapes.
        """
        self._check(first, second, codes)
        flows, velocity = self.velocity(first, second, codes)
        halves = flows[-1].chunk(2, 1)
        context = [
            torch.cat(pair, 1)
            for pair in zip(self.context(first, halves[0]), self.context(second, halves[1]), strict=True)
        ]
        large = 2 * _resized(flows[-1], 2)
        warped = [clamped_warp(x, f) for x, f in zip((first, second), large.chunk(2, 1), strict=True)]
        stacked = torch.stack(warped, 1).unflatten(2, (self.frames, self.channels))
        return Corrected(self.synthesis(stacked, large, context), flows, velocity)

    def begin_with_mean(self) -> None:
        """Set the last layers of both parts to 0: no flow, no residual, half of each picture."""
        for layer in (*self.velocity.mixers, self.synthesis.last[0]):
            for weight in layer.parameters():
                nn.init.zeros_(weight)

    def _check(self, first: Tensor, second: Tensor, codes: Tensor) -> None:
        if first.shape != second.shape or first.dim() != 4 or first.shape[1] != self.channels:
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise UserError(f"pictures: shapes {shapes}; pass two of (N, {self.channels}, H, W)")
        height, width = first.shape[2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise UserError(f"pictures of {width} x {height}: both sides must be multiples of {MULTIPLE}")
        if codes.shape != (len(first), 2 * self.frames, height, width):
            raise UserError(f"codes: shape {tuple(codes.shape)}; pass {(len(first), 2 * self.frames, height, width)}")
