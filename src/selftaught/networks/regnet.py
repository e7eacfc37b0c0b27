"""RegNetY, SEER's family: 4 M to 9.3 billion parameters from five numbers each (Radosavovic et al., arXiv 2003.13678).

A network is a depth d and a rule for the widths of its blocks, j = 0 .. d-1:

    u_j = w0 + wa j,    s_j = round(log(u_j / w0) / log wm),    w_j = 8 round(w0 wm^s_j / 8)

Blocks of equal width make a stage; its width is then rounded to a multiple of the group width min(g, w). timm builds
the blocks (1x1, grouped 3x3, squeeze-and-excitation, 1x1); the one network that timm has no name for, SEER's with 10
billion parameters, is timm's RegNetY-256GF with other numbers, so that timm alone builds it, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from selftaught.errors import UserError
from selftaught.networks.encoders import Encoder, Stem, encoder

__all__ = ["REGNETS", "RegNetY", "regnety", "timm_name"]

STEM_WIDTH = 32
SQUEEZE = 0.25


@dataclass(frozen=True)
class RegNetY:
    """One network of the family.

    Attributes:
        depth: blocks d.
        w0: width of the first block before rounding.
        wa: slope of the widths.
        wm: factor between neighbouring widths.
        group: channels per group g of the 3x3 convolutions.
        timm: timm's name of it, or of the network whose numbers are replaced.
        replaced: whether the numbers above have to be given to timm.
    """

    depth: int
    w0: int
    wa: float
    wm: float
    group: int
    timm: str
    replaced: bool = False

    @property
    def stages(self) -> list[tuple[int, int, int]]:
        """(blocks, width, groups of the 3x3 convolutions) of each stage."""
        widths = []
        for j in range(self.depth):
            power = round(math.log((self.w0 + self.wa * j) / self.w0) / math.log(self.wm))
            widths.append(8 * round(self.w0 * self.wm**power / 8))
        found = []
        for width, blocks in groupby(widths):
            group = min(self.group, width)
            rounded = round(width / group) * group
            found.append((len(list(blocks)), rounded, rounded // group))
        return found

    @property
    def dim(self) -> int:
        """Width D of the features."""
        return self.stages[-1][1]

    def parameters(self, channels: int = 3) -> int:
        """Number of parameters without a classifier, by arithmetic; nothing is built."""
        total, width_in = channels * STEM_WIDTH * 9 + 2 * STEM_WIDTH, STEM_WIDTH
        for blocks, width, groups in self.stages:
            total += width_in * width + 2 * width  # the shortcut of the first block, with its BatchNorm
            for _ in range(blocks):
                squeezed = round(SQUEEZE * width_in)
                total += width_in * width + 9 * width * width // groups + width * width + 6 * width
                total += 2 * width * squeezed + squeezed + width
                width_in = width
        return total

    @property
    def options(self) -> dict[str, Any]:
        """What ``timm.create_model`` has to be told beside the name."""
        if not self.replaced:
            return {}
        return {"depth": self.depth, "w0": self.w0, "wa": self.wa, "wm": self.wm, "group_size": self.group}


REGNETS: dict[str, RegNetY] = {
    "regnety-400mf": RegNetY(16, 48, 27.89, 2.09, 8, "regnety_004"),
    "regnety-16gf": RegNetY(18, 200, 106.23, 2.48, 112, "regnety_160"),
    "regnety-32gf": RegNetY(20, 232, 115.89, 2.53, 232, "regnety_320"),
    "regnety-64gf": RegNetY(20, 352, 147.48, 2.4, 328, "regnety_640"),
    "regnety-128gf": RegNetY(27, 456, 160.83, 2.52, 264, "regnety_1280"),
    "regnety-256gf": RegNetY(27, 640, 230.83, 2.53, 373, "regnety_2560"),
    "regnety-10b": RegNetY(27, 1744, 620.83, 2.52, 1010, "regnety_2560", replaced=True),
}
"""SEER's networks by name; ``timm_name`` turns a name into what :func:`~selftaught.networks.encoder` takes."""


def timm_name(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name and further options of one of `REGNETS`; any other name comes back as it is, without options."""
    found = REGNETS.get(name)
    return (name, {}) if found is None else (found.timm, found.options)


def regnety(
    name: str,
    *,
    channels: int = 3,
    image_size: int | None = None,
    stem: Stem = "auto",
    pretrained: bool = False,
    device: str | torch.device | None = None,
) -> Encoder:
    """Make one of SEER's encoders.

    Args:
        name: a key of `REGNETS`, regnety-400mf to regnety-10b.
        channels: channels C of the input.
        image_size: side of the images in pixels; the network reduces 32 times.
        stem: as in :func:`~selftaught.networks.encoder`; RegNets have the standard one only.
        pretrained: timm's weights, where it has any (not for regnety-10b).
        device: where the weights are made. ``"meta"`` makes none: the 10 billion parameters take 37 GB otherwise.

    Raises:
        UserError: another name, weights for regnety-10b, and what :func:`~selftaught.networks.encoder` refuses.
    """
    if name not in REGNETS:
        raise UserError(f"encoder={name}: no RegNetY of SEER; choose {', '.join(REGNETS)}")
    if pretrained and REGNETS[name].replaced:
        raise UserError(f"encoder={name}: has no pretrained weights; use pretrained=False or regnety-256gf")
    known, options = timm_name(name)
    with torch.device(device or torch.get_default_device()):
        return encoder(known, channels=channels, image_size=image_size, stem=stem, pretrained=pretrained, **options)
