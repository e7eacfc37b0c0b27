"""Encoders of sensor series and of their Fourier and wavelet views (frame projections, arXiv 2510.22655)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.errors import UserError

__all__ = [
    "ConvMapping",
    "FourierEncoder",
    "ResNet1d",
    "SeriesEncoder",
    "WaveletEncoder",
    "build_series",
    "mapper",
    "series_encoder",
]


class SameConv1d(nn.Conv1d):
    """Convolution with "same" padding: ceil(T / stride) steps come out, an odd padding ends on the longer side."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T) to (N, C', ceil(T / stride))."""
        length, stride, kernel = x.shape[-1], self.stride[0], self.kernel_size[0]
        missing = max(0, (-(-length // stride) - 1) * stride + kernel - length)
        return super().forward(F.pad(x, (missing // 2, missing - missing // 2)))


class SeriesBlock(nn.Module):
    """Pre-activation residual block: [norm - ReLU - dropout - convolution] twice, beside a shortcut without parameters.

    The shortcut is max-pooled to the stride, and gets zero channels on both sides where the block widens.

    Args:
        width_in: channels in.
        width_out: channels out, at least ``width_in``.
        kernel_size: of both convolutions.
        stride: of the first convolution.
        norm: BatchNorm before each ReLU.
        dropout: before each convolution.
        first: the block starts at its convolution, its input being activated already.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        kernel_size: int,
        stride: int = 1,
        norm: bool = True,
        dropout: float = 0.0,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.widening = stride, width_out - width_in
        self.before1 = nn.Identity() if first else _activation(width_in, norm, dropout)
        self.conv1 = SameConv1d(width_in, width_out, kernel_size, stride)
        self.before2 = _activation(width_out, norm, dropout)
        self.conv2 = SameConv1d(width_out, width_out, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, T) to (N, width_out, ceil(T / stride))."""
        shortcut = F.max_pool1d(x, self.stride, ceil_mode=True) if self.stride > 1 else x
        if self.widening:
            before = self.widening // 2
            shortcut = F.pad(shortcut, (0, 0, before, self.widening - before))
        return shortcut + self.conv2(self.before2(self.conv1(self.before1(x))))


class SeriesEncoder(nn.Module):
    """Base of the encoders here.

    Attributes:
        dim: size of the embedding.
        spec: JSON-able description; `build_series` makes an equal network from it.
    """

    dim: int
    spec: dict[str, Any]


class ResNet1d(SeriesEncoder):
    """Time encoder: 8 pre-activation blocks of kernel 5, every second one with stride 2; 205,440 parameters for C = 1.

    Width 32 in the first half of the blocks and 64 in the second; then BN, ReLU, mean over time, Linear to 128. The
    mean makes it indifferent to T.

    Args:
        channels: C.
        dim: size of the embedding.
        width: of the first half of the blocks.
        blocks: number of residual blocks.
        kernel_size: of all convolutions.
        dropout: before each convolution of a block.
    """

    def __init__(
        self,
        channels: int,
        *,
        dim: int = 128,
        width: int = 32,
        blocks: int = 8,
        kernel_size: int = 5,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.stem = nn.Sequential(SameConv1d(channels, width, kernel_size), nn.BatchNorm1d(width), nn.ReLU())
        widths = [width * (1 if 2 * i < blocks else 2) for i in range(blocks)]
        self.blocks = nn.Sequential(
            *(
                SeriesBlock(
                    widths[max(i - 1, 0)],
                    widths[i],
                    kernel_size=kernel_size,
                    stride=1 + i % 2,
                    dropout=dropout,
                    first=i == 0,
                )
                for i in range(blocks)
            )
        )
        self.last = nn.Sequential(nn.BatchNorm1d(widths[-1]), nn.ReLU())
        self.out = nn.Linear(widths[-1], dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T) to (N, dim)."""
        return self.out(self.last(self.blocks(self.stem(x))).mean(-1))


class FourierEncoder(SeriesEncoder):
    """Encoder of a spectrum: a branch for the magnitude and one for the angle, (N, C, T // 2 + 1) each.

    A branch is a convolution of kernel 3, ReLU, two residual blocks of stride 2 without BN (16 - 32 - 64), and a Linear
    over the frequencies that remain. 46,646 parameters for C = 1 and T = 200. (The authors' module counts about 9 k
    more, in layers that its forward pass never uses.)

    Args:
        channels: C.
        length: T of the series, not of the spectrum.
        dim: size of the embedding, a multiple of 8.
    """

    def __init__(self, channels: int, length: int, *, dim: int = 128) -> None:
        super().__init__()
        if dim % 8:
            raise UserError(f"dim={dim}: the Fourier encoder needs a multiple of 8")
        self.dim, self.length = dim, length
        remaining = _halved(length // 2 + 1, times=2)
        self.magnitude = _spectral_branch(channels, dim // 2, remaining)
        self.angle = _spectral_branch(channels, dim // 2, remaining)

    def forward(self, magnitude: Tensor, angle: Tensor) -> Tensor:
        """Two (N, C, T // 2 + 1) to (N, dim): what the magnitude says, then what the angle says."""
        _check_length(magnitude.shape[-1], self.length // 2 + 1, "frequencies")
        return torch.cat([self.magnitude(magnitude).squeeze(-1), self.angle(angle).squeeze(-1)], dim=1)


class WaveletEncoder(SeriesEncoder):
    """Encoder of a scalogram: four 5x5 convolution-BN-ReLU blocks of widths 32, 64, 96, 128, all but the first halving.

    The scalogram itself, averaged over 2x2 and 4x4 cells, is appended before the third and the fourth block. Two
    Linears collapse the map, first over time, then over the scales. About 519 k parameters for C = 1 and T = 200.

    Args:
        channels: C.
        length: T.
        scales: number of scales.
        dim: size of the embedding, a multiple of 4.
    """

    def __init__(self, channels: int, length: int, *, scales: int = 48, dim: int = 128) -> None:
        super().__init__()
        if dim % 4:
            raise UserError(f"dim={dim}: the wavelet encoder needs a multiple of 4")
        self.dim, self.length, self.scales = dim, length, scales
        step = dim // 4
        self.block1 = _planar_block(channels, step, 1)
        self.block2 = _planar_block(step, 2 * step, 2)
        self.block3 = _planar_block(2 * step + channels, 3 * step, 2)
        self.block4 = _planar_block(3 * step + channels, dim, 2)
        self.over_time = nn.Linear(_halved(length, times=3), 1)
        self.over_scales = nn.Linear(_halved(scales, times=3), 1)

    def forward(self, scalogram: Tensor) -> Tensor:
        """(N, scales, T, C) to (N, dim)."""
        _check_length(scalogram.shape[2], self.length, "time steps")
        _check_length(scalogram.shape[1], self.scales, "scales")
        x = scalogram.permute(0, 3, 1, 2)
        h = self.block2(self.block1(x))
        h = self.block3(torch.cat([h, F.avg_pool2d(x, 2, ceil_mode=True)], dim=1))
        h = self.block4(torch.cat([h, F.avg_pool2d(x, 4, ceil_mode=True)], dim=1))
        return self.over_scales(self.over_time(h).squeeze(-1)).squeeze(-1)


class ConvMapping(nn.Module):
    """Mapper Phi between two embeddings, each read as a signal of one channel and d samples; 7 h + 1 parameters.

    Conv1d 1 - h (kernel 3, stride 2), ReLU, ConvTranspose1d h - 1. The paper's h is 64 for embeddings (449 parameters)
    and 1 for representations. A single channel begins with a bias of at least 0: else the ReLU of one initial draw
    in seven is zero everywhere, and a mapper without gradients gives one constant for ever.

    Args:
        hidden: h.
    """

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.down = nn.Conv1d(1, hidden, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose1d(hidden, 1, 3, stride=2, padding=1, output_padding=1)
        if hidden == 1:
            with torch.no_grad():
                self.down.bias.abs_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) to (N, d), d even."""
        if x.shape[-1] % 2:
            raise ValueError(f"ConvMapping: d={x.shape[-1]} is odd; it halves and doubles the length")
        return self.up(self.down(x[:, None]).relu())[:, 0]


def mapper(kind: str, dim: int = 128, *, hidden: int = 64) -> nn.Module:
    """Network from one embedding to another of the same size.

    Args:
        kind: "conv" (`ConvMapping`, the paper's), "linear" (one Linear), "mlp" (Linear - ReLU - Linear).
        dim: d.
        hidden: h of "conv" and "mlp".
    """
    if kind == "conv":
        return ConvMapping(hidden)
    if kind == "linear":
        return nn.Linear(dim, dim)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
    raise UserError(f"mapper={kind}: choose conv, linear or mlp")


SERIES_ENCODERS: dict[str, type[SeriesEncoder]] = {
    "resnet1d": ResNet1d,
    "fourier": FourierEncoder,
    "wavelet": WaveletEncoder,
}


def series_encoder(name: str = "resnet1d", *, channels: int = 1, length: int = 200, **options: Any) -> SeriesEncoder:
    """Make an encoder of series by name.

    Args:
        name: "resnet1d" for the series itself, "fourier" for its spectrum, "wavelet" for its scalogram.
        channels: C.
        length: T in samples.
        **options: further arguments of the class.

    Raises:
        UserError: unknown name or option, no channels, a series shorter than 2 samples.
    """
    if name not in SERIES_ENCODERS:
        raise UserError(f"encoder={name}: choose {', '.join(SERIES_ENCODERS)} for series")
    if channels < 1 or length < 2:
        raise UserError(f"channels={channels}, length={length}: a series has 1 or more channels and 2 or more samples")
    sizes = (channels,) if name == "resnet1d" else (channels, length)
    try:
        network = SERIES_ENCODERS[name](*sizes, **options)
    except TypeError as error:
        raise UserError(f"encoder={name}: {str(error).split('.__init__() ')[-1]}; drop that option") from error
    network.spec = {"name": name, "channels": channels, "length": length, "kwargs": options, "dim": network.dim}
    return network


def build_series(spec: dict[str, Any]) -> SeriesEncoder:
    """Make the encoder that a ``spec`` of `series_encoder` describes, with random weights."""
    return series_encoder(spec["name"], channels=spec["channels"], length=spec["length"], **spec.get("kwargs", {}))


def _activation(width: int, norm: bool, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm1d(width)] if norm else []
    return nn.Sequential(*layers, nn.ReLU(), *([nn.Dropout(dropout)] if dropout else []))


def _spectral_branch(channels: int, width: int, remaining: int) -> nn.Sequential:
    return nn.Sequential(
        SameConv1d(channels, width // 4, 3),
        nn.ReLU(),
        SeriesBlock(width // 4, width // 2, kernel_size=3, stride=2, norm=False, first=True),
        SeriesBlock(width // 2, width, kernel_size=3, stride=2, norm=False),
        nn.Linear(remaining, 1),
    )


def _planar_block(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, 5, stride=stride, padding=2)
    return nn.Sequential(conv, nn.BatchNorm2d(width_out), nn.ReLU())


def _halved(length: int, times: int) -> int:
    return -(-length // 2**times)


def _check_length(given: int, built_for: int, what: str) -> None:
    if given != built_for:
        raise ValueError(f"{given} {what} given to an encoder built for {built_for}; build it for that length")
