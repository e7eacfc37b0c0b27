"""Jigsaw: in which order do the tiles of an image lie? (Noroozi and Favaro, ECCV 2016, arXiv 1603.09246.)

    L = -log softmax(F(t_{sigma_y(1)}, ..., t_{sigma_y(9)}))_y,        sigma_y one of P far-off permutations

A tile lies at a random place of its cell, so that neighbours have a gap. As in the paper each tile goes through the
encoder alone; a transformer sees all shuffled tiles at once and without positions, which would give the order away only
by where a tile now is, not by what is on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught import networks, objectives
from selftaught.catalog.rules import Count, Range
from selftaught.errors import UserError
from selftaught.methods._pretext import Pretext, PretextConfig
from selftaught.networks import plain_vit
from selftaught.views import jigsaw

__all__ = ["Jigsaw"]


@dataclass
class Config(PretextConfig):
    """Jigsaw's options; the defaults are the survey's for ViT-S/16 on ImageNet."""

    crop: float = 0.5
    form: Literal["auto", "tokens", "tiles"] = "auto"
    """tokens: a transformer sees the shuffled tiles at once, without positions; tiles: each tile goes through the
    encoder alone, enlarged to the image's size; auto: tokens for plain vision transformers."""
    grid: Literal[3, 2] = 3
    """Tiles along a side."""
    permutations: Annotated[int, Range(2)] = 1000
    """Orders P to tell apart, 100 to 1000 in the paper."""
    normalise_tiles: bool = True
    """Each tile with mean 0 and deviation 1, so that brightness tells no neighbours."""
    colour: Literal["keep", "drop", "project"] = "keep"
    """keep the colours; drop all channels of a tile but one; project out green against magenta (three channels)."""
    hidden: Count = 4096
    """Width of the layer that sees all tiles."""
    dropout: Annotated[float, Range(0, below=1)] = 0.5
    """Dropout of the classifier's hidden layers."""


PRESETS = {
    "imagenet": {"epochs": 100, "batch_size": 256},
    "laptop": {
        "encoder": "vit-nano", "image_size": 0, "permutations": 100, "hidden": 256, "dropout": 0.0, "lr": 4e-3,
        "weight_decay": 0.05, "warmup_epochs": 1.0, "steps": 1500, "batch_size": 128,
    },
}  # fmt: skip


class Jigsaw(Pretext):
    """Jigsaw puzzles on images of any number of channels."""

    slug = "jigsaw"
    config_class = Config
    config: Config
    orders: Tensor

    def build(self) -> None:
        """The encoder, the orders, and a classifier of P orders."""
        super().build()
        c = self.config
        self.register_buffer("orders", jigsaw.permutations(c.permutations, c.grid**2))
        self.answer = networks.JigsawHead(
            int(self.encoder.dim), c.permutations, tiles=c.grid**2, dropout=c.dropout, hidden=c.hidden  # type: ignore[arg-type]
        )  # fmt: skip
        if self.by_tokens:
            nn.init.zeros_(self.encoder.model.pos_embed).requires_grad_(False)  # type: ignore[union-attr, arg-type]
        self.tile = jigsaw.tile_side(c.image_size, c.grid, self.patch if self.by_tokens else 1)

    @property
    def by_tokens(self) -> bool:
        """Whether a transformer sees all tiles at once."""
        c = self.config
        return c.form == "tokens" or (c.form == "auto" and plain_vit(c.encoder))

    def encoder_options(self, name: str) -> dict[str, Any]:
        """A transformer that takes the tiles side by side, and whose patch tokens are what it says of an image."""
        if not self.by_tokens:
            return {}
        if not plain_vit(name):
            raise UserError(f"form=tokens: {name} is no plain vision transformer; use form=tiles")
        return super().encoder_options(name) | {"global_pool": "avg", "fc_norm": False}

    def questions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tiles (N, T, C, t, t) in the order of a permutation, and its number."""
        c = self.config
        tiles = jigsaw.inner_crops(jigsaw.project_colours(x) if c.colour == "project" else x, c.grid, self.tile)
        tiles = jigsaw.drop_colours(tiles) if c.colour == "drop" else tiles
        tiles = jigsaw.standardised(tiles) if c.normalise_tiles else tiles
        labels = torch.randint(len(self.orders), (len(x),), device=x.device)
        return jigsaw.shuffle(tiles, self.orders[labels]), labels

    def answers(self, shown: Tensor) -> Tensor:
        """Logits (N, P)."""
        n, count, channels, side, _ = shown.shape
        if self.by_tokens:
            h = self.encoder.maps(jigsaw.assemble(shown, self.config.grid))  # type: ignore[operator]
            return self.answer(_tile_means(h, self.config.grid).flatten(0, 1))
        whole = (self.config.image_size,) * 2
        large = interpolate(shown.reshape(n * count, channels, side, side), whole, mode="bilinear")
        return self.answer(self.encoder(large))

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the order."""
        return objectives.jigsaw(logits, labels)


def _tile_means(maps: Tensor, grid: int) -> Tensor:
    """Mean of the tokens (N, D, h, w) of every tile, row by row: (N, grid^2, D)."""
    n, dim, height, width = maps.shape
    cells = maps.reshape(n, dim, grid, height // grid, grid, width // grid)
    return cells.mean((3, 5)).flatten(2).transpose(1, 2)
