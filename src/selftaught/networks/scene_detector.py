"""A detector of upright boxes over the tokens of a cloud, after 3DETR (Misra et al., 2021): queries, a decoder, heads.

queries: farthest token centres, placed by Fourier features -> cross-attention to the tokens -> class, centre, size
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.point_tokens import farthest_points, take_points

__all__ = ["DetectedBoxes", "FourierPlaces", "SceneDetector"]


class DetectedBoxes(NamedTuple):
    """What a detector says of each query.

    Attributes:
        logits: (N, Q, K + 1), the last class is "nothing".
        boxes: (N, Q, 6) centre and size in metres.
    """

    logits: Tensor
    boxes: Tensor


class FourierPlaces(nn.Module):
    """Places (N, M, 3) as features (N, M, dim): sines and cosines of random projections, then an MLP.

    Args:
        dim: width.
        bands: number of projections.
        wavelength: metres that the projections resolve, about.
    """

    directions: Tensor

    def __init__(self, dim: int, bands: int = 32, wavelength: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(3, bands) * 2 * torch.pi / (3 * wavelength))
        self.layers = nn.Sequential(nn.Linear(2 * bands, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, places: Tensor) -> Tensor:
        """(N, M, 3) -> (N, M, dim)."""
        turned = places @ self.directions
        return self.layers(torch.cat((turned.sin(), turned.cos()), -1))


class SceneDetector(nn.Module):
    """Boxes out of the tokens of a cloud encoder.

        Args:
            width: C of the tokens.
            classes: K.
            queries: farthest tokens, placed by Fourier features -> attention to all tokens -> class, centre, size

    3DETR's queries know their place alone; these begin with the token that stands there, and so learn from few clouds.
    """

    def __init__(
        self, width: int, classes: int, *, queries: int = 32, dim: int = 256, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        if classes < 1:
            raise UserError("a detector needs at least one class of boxes")
        self.queries, self.classes = queries, classes
        self.project = nn.Sequential(nn.Linear(width, dim), nn.LayerNorm(dim))
        self.places = FourierPlaces(dim)
        self.blocks = nn.ModuleList(
            nn.TransformerDecoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.kind, self.box = nn.Linear(dim, classes + 1), nn.Sequential(
            nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 6)
        )  # fmt: skip

    def forward(self, tokens: Tensor, centres: Tensor) -> DetectedBoxes:
        """Boxes of clouds.

        Args:
            tokens: (N, M, C).
            centres: (N, M, 3) where they are.
        """
        middle = centres.mean(1, keepdim=True)
        known = self.project(tokens) + self.places(centres - middle)
        count = min(self.queries, centres.shape[1])
        chosen = farthest_points(centres, count, 0)
        start, h = take_points(centres, chosen), take_points(known, chosen)
        for block in self.blocks:
            h = block(h, known)
        h = self.norm(h)
        raw = self.box(h)
        return DetectedBoxes(self.kind(h), torch.cat((start + raw[..., :3], F.softplus(raw[..., 3:])), -1))
