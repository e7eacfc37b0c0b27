"""Relative position: on which side of a tile does another one lie? (Doersch et al., ICCV 2015, arXiv 1505.05192.)

    L = -log softmax(F(f(t_middle), f(t_y)))_y,        y one of the 8 neighbours of the middle tile

Both tiles go through one encoder. They lie at random places of their cells, so that there is a gap, and may lose their
colours: a network is quick to find that lines go on over an edge, and that lenses split colours towards the corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from selftaught import networks, objectives
from selftaught.catalog.rules import Widths
from selftaught.methods._pretext import Pretext, PretextConfig
from selftaught.views import jigsaw

__all__ = ["RelativePosition"]

SIDES = (0, 1, 2, 3, 5, 6, 7, 8)
"""Places of the eight neighbours in a 3 x 3 grid, row by row; 4 is the middle."""


@dataclass
class Config(PretextConfig):
    """Relative position's options; the defaults are the survey's for ViT-S/16 on ImageNet."""

    crop: float = 0.5
    colour: Literal["keep", "drop", "project"] = "drop"
    """keep the colours; drop all channels of a tile but one; project out green against magenta (three channels)."""
    head: Widths = "4096"
    """Widths of the classifier's hidden layers."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 256},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "head": "256", "lr": 4e-3, "weight_decay": 0.05, "warmup_epochs": 1.0,
        "steps": 1500, "batch_size": 128,
    },
}  # fmt: skip


class RelativePosition(Pretext):
    """Context prediction on images of any number of channels."""

    slug = "relative-position"
    compares = True  # BatchNorm in the classifier
    config_class = Config
    config: Config

    def build(self) -> None:
        """The encoder, and a classifier of the two tiles' embeddings."""
        super().build()
        hidden = [int(width) for width in str(self.config.head).split("-")]
        self.answer = networks.mlp([2 * int(self.encoder.dim), *hidden, len(SIDES)], hidden_bias=False)  # type: ignore[arg-type]
        self.tile = jigsaw.tile_side(self.config.image_size, 3, self.patch)

    def questions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The middle tile and one neighbour (N, 2, C, t, t), and on which side the neighbour lies."""
        colour = self.config.colour
        tiles = jigsaw.inner_crops(jigsaw.project_colours(x) if colour == "project" else x, 3, self.tile)
        labels = torch.randint(len(SIDES), (len(x),), device=x.device)
        sides = torch.tensor(SIDES, device=x.device)[labels]
        pair = tiles[torch.arange(len(x), device=x.device)[:, None], torch.stack([torch.full_like(sides, 4), sides], 1)]
        return (jigsaw.drop_colours(pair) if colour == "drop" else pair), labels

    def answers(self, shown: Tensor) -> Tensor:
        """Logits (N, 8). A network without patches sees the tiles enlarged to the image's size."""
        tiles = shown.flatten(0, 1)
        if self.patch == 1:
            tiles = interpolate(tiles, (self.config.image_size,) * 2, mode="bilinear")
        return self.answer(self.encoder(tiles).unflatten(0, (-1, 2)).flatten(1))

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the side."""
        return objectives.relative_position(logits, labels)
