"""Recurrent video deblurrers: ESTRNN (Zhong et al., ECCV 2020) and MMP-RNN (Wang et al., ECCV 2022).

One cell goes through the frames at a quarter of their size; for the middle frame, the features of its neighbours on
both sides are fused and brought back to full size. Both map (N, T, C, H, W) to (N, T - past - future, C, H, W), sides
multiples of 4.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = [
    "ESTRNN",
    "MMPRNN",
    "DenseBlock",
    "DenseBlocks",
    "FrameStack",
    "MotionMagnitudePrior",
    "SpatioTemporalAttention",
    "window_of",
]


def _conv(into: int, out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, stride, kernel // 2)


def window_of(frames: Tensor, past: int, future: int, multiple: int = 1) -> int:
    """How many frames a deblurrer gives back of (N, T, C, H, W).

    Raises:
        UserError: another shape, too few frames, or sides that are no multiples.
    """
    if frames.ndim != 5 or frames.shape[1] < past + future + 1:
        raise UserError(f"frames of shape {tuple(frames.shape)}: give (N, T, C, H, W), T at least {past + future + 1}")
    if frames.shape[3] % multiple or frames.shape[4] % multiple:
        raise UserError(f"frames of {frames.shape[3]} x {frames.shape[4]}: sides must be multiples of {multiple}")
    return frames.shape[1] - past - future


class DenseBlock(nn.Module):
    """Residual dense block: each 3x3 convolution sees all that came before it; a 1x1 one gathers, the input is added.

    Args:
        channels: of input and output.
        growth: channels that each layer adds.
        layers: how many.
    """

    def __init__(self, channels: int, growth: int, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_conv(channels + k * growth, growth, 3) for k in range(layers))
        self.gather = nn.Conv2d(channels + layers * growth, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        seen = x
        for layer in self.layers:
            seen = torch.cat((seen, nn.functional.gelu(layer(seen))), 1)
        return x + self.gather(seen)


class DenseBlocks(nn.Module):
    """A chain of dense blocks whose outputs are all gathered by a 1x1 and a 3x3 convolution.

    Args:
        channels: of input and output.
        growth: of each block.
        blocks: how many.
    """

    def __init__(self, channels: int, growth: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DenseBlock(channels, growth) for _ in range(blocks))
        self.gather = nn.Conv2d(blocks * channels, channels, 1)
        self.smooth = _conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return self.smooth(self.gather(torch.cat(found, 1)))


class _Hidden(nn.Sequential):
    """From a cell's features (5 width) to the state that the next frame sees (width)."""

    def __init__(self, width: int) -> None:
        super().__init__(_conv(5 * width, width, 3), DenseBlock(width, width), _conv(width, width, 3))


class SpatioTemporalAttention(nn.Module):
    """Fuse the features of a window around its middle frame (ESTRNN's GSA).

    Every neighbour is set beside the middle frame; channel weights from their means scale their mixture, which a 1x1
    convolution condenses. All are joined, the middle frame last, and mixed.

    Args:
        width: n_features; a frame has 5 times as many channels.
        past: frames before the middle one.
        future: frames after it.
    """

    def __init__(self, width: int, past: int, future: int) -> None:
        super().__init__()
        pair, joined = 10 * width, 5 * width * (past + 1 + future)
        self.middle = past
        self.weights = nn.Sequential(nn.Linear(pair, 2 * pair), nn.GELU(), nn.Linear(2 * pair, pair), nn.Sigmoid())
        self.mix = nn.Sequential(nn.Conv2d(pair, 2 * pair, 1), nn.Conv2d(2 * pair, pair, 1))
        self.condense = nn.Conv2d(pair, pair // 2, 1)
        self.fuse = nn.Conv2d(joined, joined, 1)

    def forward(self, states: list[Tensor]) -> Tensor:
        """A window of (N, 5 width, h, w) to (N, 5 width * window, h, w)."""
        centre = states[self.middle]
        found = []
        for place, state in enumerate(states):
            if place != self.middle:
                pair = torch.cat((centre, state), 1)
                weights = self.weights(pair.mean((2, 3)))[:, :, None, None]
                found.append(self.condense(weights * self.mix(pair)))
        return self.fuse(torch.cat((*found, centre), 1))


def _upwards(into: int, width: int, channels: int) -> nn.Sequential:
    """From a quarter of the size to a picture."""
    return nn.Sequential(
        nn.ConvTranspose2d(into, 2 * width, 3, 2, 1, 1),
        nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1),
        _conv(width, channels, 5),
    )


class _Cell(nn.Module):
    """ESTRNN's recurrent cell: a frame (N, C, H, W) and the last state to features (5 width) and the next state."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.head = _conv(channels, width, 5)
        self.first = nn.Sequential(DenseBlock(width, width), _conv(width, 2 * width, 5, 2))
        self.second = nn.Sequential(DenseBlock(2 * width, 3 * width // 2), _conv(2 * width, 4 * width, 5, 2))
        self.blocks = DenseBlocks(5 * width, 2 * width, blocks)
        self.hidden = _Hidden(width)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        down = self.second(self.first(self.head(frame)))
        features = self.blocks(torch.cat((down, state), 1))
        return features, self.hidden(features)


class ESTRNN(nn.Module):
    """ESTRNN: a recurrent cell at a quarter of the size, and attention over a window of its features.

    Args:
        channels: of a frame.
        width: n_features; 16, and 2.47 million parameters, in DADeblur.
        blocks: residual dense blocks of the cell.
        past: frames before the middle one that are seen.
        future: frames after it.
    """

    multiple = 4

    def __init__(self, channels: int = 3, width: int = 16, blocks: int = 15, past: int = 2, future: int = 2) -> None:
        super().__init__()
        self.width, self.past, self.future = width, past, future
        self.cell = _Cell(channels, width, blocks)
        self.attention = SpatioTemporalAttention(width, past, future)
        self.up = _upwards(5 * width * (past + 1 + future), width, channels)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, T, C, H, W) to (N, T - past - future, C, H, W)."""
        count = window_of(frames, self.past, self.future, self.multiple)
        n, _, _, height, width = frames.shape
        state = frames.new_zeros(n, self.width, height // 4, width // 4)
        seen = []
        for frame in frames.unbind(1):
            features, state = self.cell(frame, state)
            seen.append(features)
        window = self.past + 1 + self.future
        return torch.stack([self.up(self.attention(seen[k : k + window])) for k in range(count)], 1)


# ---- MMP-RNN -----------------------------------------------------------------------------------------------------
def _double(into: int, out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in ((into, out), (out, out)):
        layers += [nn.Conv2d(first, second, 3, padding=1), nn.BatchNorm2d(second), nn.ReLU()]
    return nn.Sequential(*layers)


class MotionMagnitudePrior(nn.Module):
    """How far each pixel moved during the exposure, in [0, 1]: MMP-RNN's U-Net of 16 to 128 channels.

    Args:
        channels: of a frame.
        width: channels at full size.
    """

    def __init__(self, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        w = width
        self.head = _conv(channels, w, 9)
        self.down = nn.ModuleList(_double(*pair) for pair in ((w, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)))
        self.middle = _double(8 * w, 8 * w)
        self.up = nn.ModuleList(_double(*pair) for pair in ((16 * w, 4 * w), (8 * w, 2 * w), (4 * w, w), (2 * w, w)))
        self.refine = DenseBlock(w, w // 2)
        self.out = nn.Conv2d(w, 1, 1)

    def forward(self, frame: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 1, H, W); both sides at least 16."""
        x, maps = self.head(frame), []
        for place, layer in enumerate(self.down):
            x = layer(x if place == 0 else nn.functional.max_pool2d(x, 2))
            maps.append(x)
        x = self.middle(nn.functional.max_pool2d(x, 2))
        for layer in self.up:
            skip = maps.pop()
            x = nn.functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=True)
            x = layer(torch.cat((skip, x), 1))
        return torch.sigmoid(self.out(self.refine(x)))


class _GuidedCell(nn.Module):
    """MMP-RNN's cell: the motion magnitude scales the first features, and those of the last frame are seen, too."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.head = _conv(channels, width, 5)
        self.scale = nn.Sequential(nn.Conv2d(1, width // 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(width // 2, width, 1))
        self.first = nn.Sequential(DenseBlock(width, width), _conv(width, 2 * width, 5, 2))
        self.second = nn.Sequential(DenseBlock(2 * width, 3 * width // 2), _conv(2 * width, 2 * width, 5, 2))
        self.blocks = DenseBlocks(5 * width, 2 * width, blocks)
        self.hidden = _Hidden(width)

    def forward(self, frame: Tensor, prior: Tensor, state: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        down = self.second(self.first(self.head(frame) * (1 + self.scale(prior))))
        features = self.blocks(torch.cat((down, last, state), 1))
        return features, self.hidden(features), down


class MMPRNN(nn.Module):
    """MMP-RNN: a recurrent cell that is told where the picture moved, by a network that is trained first.

    Args:
        channels: of a frame.
        width: n_features.
        blocks: residual dense blocks of the cell.
        back: residual dense blocks of the reconstruction.
        past: frames before the middle one that are seen.
        future: frames after it.
        skip: whether a 9x9 convolution of the middle frame is added to the output.

    Attributes:
        prior: the `MotionMagnitudePrior`; it gets no gradient from here.
    """

    multiple = 4

    def __init__(
        self,
        channels: int = 3,
        width: int = 16,
        blocks: int = 10,
        back: int = 5,
        past: int = 2,
        future: int = 2,
        skip: bool = True,
    ) -> None:
        super().__init__()
        self.width, self.past, self.future = width, past, future
        self.prior = MotionMagnitudePrior(channels)
        self.cell = _GuidedCell(channels, width, blocks)
        self.fuse = nn.Conv2d(5 * width * (past + 1 + future), 5 * width, 1)
        self.back = DenseBlocks(5 * width, 2 * width, back)
        self.up = _upwards(5 * width, width, channels)
        self.skip = _conv(channels, channels, 9) if skip else None

    def forward(self, frames: Tensor) -> Tensor:
        """(N, T, C, H, W) to (N, T - past - future, C, H, W)."""
        count = window_of(frames, self.past, self.future, self.multiple)
        n, _, _, height, width = frames.shape
        with torch.no_grad():
            priors = self.prior.eval()(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        state = frames.new_zeros(n, self.width, height // 4, width // 4)
        last = frames.new_zeros(n, 2 * self.width, height // 4, width // 4)
        seen = []
        for frame, prior in zip(frames.unbind(1), priors.unbind(1), strict=True):
            features, state, last = self.cell(frame, prior, state, last)
            seen.append(features)
        window, found = self.past + 1 + self.future, []
        for k in range(count):
            made = self.up(self.back(self.fuse(torch.cat(seen[k : k + window], 1))))
            found.append(made if self.skip is None else made + self.skip(frames[:, k + self.past]))
        return torch.stack(found, 1)


# ---- a small one -------------------------------------------------------------------------------------------------
class FrameStack(nn.Module):
    """A plain CNN on the frames of a window, stacked as channels, that gives a residual of the middle one.

    What a laptop can train: at the start it gives the middle frame as it is.

    Args:
        channels: of a frame.
        width: of the hidden layers.
        depth: convolutions.
        kernel: their side.
        past: frames before the middle one that are seen.
        future: frames after it.
    """

    multiple = 1

    def __init__(
        self, channels: int = 3, width: int = 24, depth: int = 4, kernel: int = 5, past: int = 2, future: int = 2
    ) -> None:
        super().__init__()
        self.past, self.future, self.window = past, future, past + 1 + future
        sizes = [channels * self.window, *[width] * (depth - 1)]
        hidden = [layer for a, b in pairwise(sizes) for layer in (_conv(a, b, kernel), nn.LeakyReLU(0.1))]
        last = _conv(sizes[-1], channels, kernel)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*hidden, last)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, T, C, H, W) to (N, T - past - future, C, H, W)."""
        count = window_of(frames, self.past, self.future)
        stacked = torch.stack([frames[:, k : k + self.window].flatten(1, 2) for k in range(count)], 1)
        residual = self.layers(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2])
        return frames[:, self.past : self.past + count] + residual
