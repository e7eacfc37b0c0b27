"""ScatSimCLR's networks: fixed scattering under a small trainable adapter, and the heads of its pretext tasks.

An image becomes K scattering coefficients per channel at 1/2^J of its resolution; the adapter is a convolution and a
row of residual blocks on these maps, none of which changes the resolution; 4 x 4 averaged cells are the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.encoders import Encoder
from selftaught.networks.scattering import Scattering2d

__all__ = ["ADAPTERS", "JigsawHead", "rotation_head", "scattering_encoder"]

CELLS = 4
"""The adapter's map is averaged to 4 x 4 cells, whatever the image's size."""


@dataclass(frozen=True)
class Layout:
    """An adapter: width of the first convolution, and (width, count) of the runs of residual blocks after it."""

    first: int
    blocks: tuple[tuple[int, int], ...]


ADAPTERS: dict[str, Layout] = {
    "scatsimclr-2": Layout(32, ((32, 1), (64, 1))),
    "scatsimclr-8": Layout(32, ((64, 4), (128, 4))),
    "scatsimclr-12": Layout(256, ((128, 4), (64, 4), (128, 4))),
    "scatsimclr-16": Layout(256, ((128, 6), (64, 4), (128, 6))),
    "scatsimclr-30": Layout(256, ((128, 30),)),
    "scatsimclr-45": Layout(256, ((128, 15), (64, 15), (128, 15))),
}
"""The paper's adapters by their number of residual blocks; scatsimclr-2 is ours, for laptops (1024 features)."""


class ResidualBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN beside a shortcut, ReLU after the sum; a 1x1 conv and BN where the width changes.

    Args:
        width_in: channels in.
        width_out: channels out.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv(width_in, width_out, 3), nn.ReLU(inplace=True), *_conv(width_out, width_out, 3)
        )
        self.shortcut = nn.Sequential(*(() if width_in == width_out else _conv(width_in, width_out, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, h, w) to (N, width_out, h, w)."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class ScatteringNetwork(nn.Module):
    """Scattering transform, adapter, pooling: (N, C, H, W) to (N, 16 * last width). Made by `scattering_encoder`.

    Args:
        layout: of the adapter.
        channels: C of the image.
        scattering: the fixed transform.
        scat_bn: normalise the coefficients, which differ by orders of magnitude, before the first convolution.
        colour: "rgb", or "ycbcr": the three channels are turned to luma and the two colour differences first.

    Attributes:
        num_features: width of the embedding.
    """

    def __init__(self, layout: Layout, channels: int, scattering: Scattering2d, scat_bn: bool, colour: str) -> None:
        super().__init__()
        self.scattering = scattering
        self.register_buffer("colours", _ycbcr() if colour == "ycbcr" else None, persistent=False)
        wide = channels * scattering.coefficients
        self.scat_bn = nn.BatchNorm2d(wide) if scat_bn else nn.Identity()
        self.first = nn.Sequential(*_conv(wide, layout.first, 3), nn.ReLU(inplace=True))
        widths = [width for width, count in layout.blocks for _ in range(count)]
        pairs = zip([layout.first, *widths], widths, strict=False)
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairs))
        self.num_features = widths[-1] * CELLS**2

    def scatter(self, x: Tensor) -> Tensor:
        """(N, C, H, W) images to (N, C K, H / 2^J, W / 2^J) coefficients, channel by channel."""
        if isinstance(self.colours, Tensor):
            x = torch.einsum("dc,nchw->ndhw", self.colours.to(x.dtype), x)
        return self.scattering(x).flatten(1, 2)

    def adapt(self, coefficients: Tensor) -> Tensor:
        """(N, C K, h, w) coefficients to the embedding (N, num_features)."""
        return self.pool(self.blocks(self.first(self.scat_bn(coefficients))))

    def pool(self, maps: Tensor) -> Tensor:
        """(N, F, h, w) to 4 x 4 cells, flattened."""
        return nn.functional.adaptive_avg_pool2d(maps, CELLS).flatten(1)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the adapter's maps (N, F, H / 2^J, W / 2^J)."""
        return self.blocks(self.first(self.scat_bn(self.scatter(x))))

    def forward_head(self, features: Tensor) -> Tensor:
        """Such maps to (N, num_features)."""
        return self.pool(features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, num_features)."""
        return self.forward_head(self.forward_features(x))


def scattering_encoder(
    name: str = "scatsimclr-30",
    *,
    channels: int = 3,
    image_size: int | None = None,
    scales: int = 2,
    angles: int = 16,
    max_order: int = 2,
    scat_bn: bool = False,
    colour: str = "rgb",
) -> Encoder:
    """Make a scattering encoder, ready to be trained like any other (ScatSimCLR, arXiv 2108.13939).

    Args:
        name: a key of `ADAPTERS`; the number is that of the residual blocks.
        channels: channels C of the image.
        image_size: side of the images, only recorded and checked against ``scales``.
        scales: J of the scattering transform; sides must be multiples of 2^J.
        angles: L.
        max_order: 1 or 2.
        scat_bn: BatchNorm on the coefficients (made but never used by the authors' code; recommended from scratch).
        colour: "rgb" or "ycbcr" (three channels).

    Returns:
        An `Encoder` of width 2048 (scatsimclr-2: 1024).

    Raises:
        UserError: unknown name or colour, channels that have no colour, a size the scales do not divide.
    """
    if name not in ADAPTERS:
        raise UserError(f"encoder={name}: choose {', '.join(ADAPTERS)}")
    if channels < 1:
        raise UserError(f"channels={channels}: an image has at least one channel")
    if colour not in ("rgb", "ycbcr") or (colour == "ycbcr" and channels != 3):
        raise UserError(f"colour={colour} with {channels} channels: choose rgb, or ycbcr for images of 3 channels")
    if image_size is not None and (image_size % 2**scales or image_size <= 2**scales):
        raise UserError(f"image_size={image_size}: scales={scales} needs a larger multiple of {2**scales}")
    scattering = Scattering2d(scales, angles, max_order)
    options: dict[str, Any] = {"scales": scales, "angles": angles, "max_order": max_order, "scat_bn": scat_bn}
    model = ScatteringNetwork(ADAPTERS[name], channels, scattering, scat_bn, colour)
    spec = {
        "name": name,
        "channels": channels,
        "image_size": image_size,
        "stem": "standard",
        "zero_init_last": False,
        "kwargs": options | {"colour": colour},
        "dim": model.num_features,
    }
    return Encoder(model, spec)


def rotation_head(dim: int, classes: int = 4, *, dropout: float = 0.5) -> nn.Sequential:
    """Which way up? Linear(dim, 512) - ReLU - dropout - Linear(512, 128) - ReLU - dropout - Linear(128, classes).

    Args:
        dim: width of the embedding h.
        classes: of the answer; 4 quarter turns.
        dropout: probability.
    """
    return nn.Sequential(*_answer(dim, 512, dropout), *_answer(512, 128, dropout), nn.Linear(128, classes))


class JigsawHead(nn.Module):
    """Which order? Per tile Linear(dim, 512) - ReLU - dropout; all tiles: Linear - ReLU - dropout - Linear.

    Args:
        dim: width of the embedding of a tile.
        classes: number of permutations, 35 in the paper.
        tiles: tiles of an image, 9.
        dropout: probability.
        hidden: width between the two last layers, 4096.
    """

    def __init__(
        self, dim: int, classes: int = 35, *, tiles: int = 9, dropout: float = 0.5, hidden: int = 4096
    ) -> None:
        super().__init__()
        self.tiles = tiles
        self.each = nn.Sequential(*_answer(dim, 512, dropout))
        self.all = nn.Sequential(*_answer(512 * tiles, hidden, dropout), nn.Linear(hidden, classes))

    def forward(self, h: Tensor) -> Tensor:
        """(N * tiles, dim), the tiles of an image one after another, to (N, classes)."""
        return self.all(self.each(h).view(-1, 512 * self.tiles))


def _answer(width_in: int, width_out: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout)]


def _conv(width_in: int, width_out: int, side: int) -> list[nn.Module]:
    return [nn.Conv2d(width_in, width_out, side, padding=side // 2, bias=False), nn.BatchNorm2d(width_out)]


def _ycbcr() -> Tensor:
    """Rows of luma and of the two colour differences (ITU-R BT.601), without offsets, for R, G, B."""
    red, blue = 0.299, 0.114
    luma = [red, 1 - red - blue, blue]
    differences = [[(c == k) - weight for k, weight in enumerate(luma)] for c in (2, 0)]
    scaled = [[v / (2 * (1 - luma[c])) for v in row] for row, c in zip(differences, (2, 0), strict=True)]
    return torch.tensor([luma, *scaled])
