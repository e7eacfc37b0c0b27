"""Clouds as tokens: farthest points as centres, their neighbours as patches, a small PointNet, a transformer.

What Point-MAE, PiMAE and 3DETR see of a cloud. Points are (N, P, 3 + F): x y z, then features such as colours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.transformer import Block

__all__ = [
    "PointEmbedding",
    "PointPatches",
    "PointTransformer",
    "farthest_points",
    "nearest_points",
    "point_patches",
    "take_points",
]

_EPS = 1e-6


class PointPatches(NamedTuple):
    """Patches of clouds.

    Attributes:
        centres: (N, M, 3).
        numbers: (N, M, k) int64, numbers of each patch's points in the cloud, the nearest first.
        points: (N, M, k, 3 + F), x y z relative to the centre.
    """

    centres: Tensor
    numbers: Tensor
    points: Tensor


def take_points(points: Tensor, index: Tensor) -> Tensor:
    """(N, P, C) and numbers (N, ...) to (N, ..., C)."""
    flat = points.gather(1, index.flatten(1)[:, :, None].expand(-1, -1, points.shape[2]))
    return flat.unflatten(1, index.shape[1:])


@torch.no_grad()
def farthest_points(points: Tensor, count: int, start: Tensor | int | None = None) -> Tensor:
    """Farthest point sampling: each next point is the one farthest from all that are taken.

    Args:
        points: (N, P, 3).
        count: M, at most P.
        start: number of the first point, one for all or (N,); None draws it.

    Returns:
        (N, M) int64.

    Raises:
        UserError: another shape, more points than there are.
    """
    if points.dim() != 3 or points.shape[2] != 3 or not 1 <= count <= points.shape[1]:
        raise UserError(f"{count} farthest points of a cloud of shape {tuple(points.shape)}: (N, P, 3) with P >= count")
    n, total, _ = points.shape
    if start is None:
        last = torch.randint(total, (n,), device=points.device)
    else:
        last = torch.as_tensor(start, device=points.device).expand(n).clone()
    taken = torch.empty(n, count, dtype=torch.int64, device=points.device)
    away = torch.full((n, total), torch.inf, dtype=points.dtype, device=points.device)
    rows = torch.arange(n, device=points.device)
    for k in range(count):
        taken[:, k] = last
        away = torch.minimum(away, (points - points[rows, last][:, None]).square().sum(2))
        last = away.argmax(1)
    return taken


@torch.no_grad()
def nearest_points(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """The k nearest points of each centre, nearest first: (N, P, 3) and (N, M, 3) to (N, M, k) int64.

    Raises:
        UserError: fewer than k points.
    """
    if k > points.shape[1]:
        raise UserError(f"{k} neighbours in a cloud of {points.shape[1]} points; take fewer")
    distances = torch.cdist(centres.float(), points.float(), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(k, dim=2, largest=False).indices


def point_patches(points: Tensor, patches: int, k: int, start: Tensor | int | None = None) -> PointPatches:
    """Cut clouds into overlapping patches: farthest points and their k nearest.

    Args:
        points: (N, P, 3 + F).
        patches: M.
        k: points of a patch.
        start: see :func:`farthest_points`.

    Raises:
        UserError: fewer points than patches or than k.
    """
    place = points[:, :, :3]
    centres = take_points(place, farthest_points(place, patches, start))
    index = nearest_points(place, centres, k)
    found = take_points(points, index)
    return PointPatches(centres, index, torch.cat((found[..., :3] - centres[:, :, None], found[..., 3:]), -1))


class PointEmbedding(nn.Module):
    """A small PointNet: every point 3 + F -> 128 -> 256, the patch's maximum beside it, 512 -> dim, maximum.

    Args:
        channels: 3 + F.
        dim: width C of a token.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(channels, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, 256))
        self.second = nn.Linear(512, dim)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, M, k, 3 + F) -> (N, M, C)."""
        each = self.first(patches)
        whole = each.amax(2, keepdim=True).expand_as(each)
        return self.second(torch.cat((whole, each), -1).relu()).amax(2)


class PointTransformer(nn.Module):
    """An encoder of clouds: patches, tokens, positions by a small MLP of the centres, blocks, norm.

    Centres are taken relative to the cloud's mean: moving the whole scene changes nothing. As an encoder it gives
    the mean and the maximum of the tokens side by side.

    Args:
        channels: 3 + F of a point.
        dim: width of the tokens.
        depth: blocks.
        heads: of each block.
        patches: M tokens of a cloud.
        k: points of a patch.

    Attributes:
        dim: width of the embedding, twice that of the tokens.
        width: of a token.
    """

    def __init__(
        self, channels: int = 3, dim: int = 256, depth: int = 3, heads: int = 4, patches: int = 64, k: int = 32
    ) -> None:
        super().__init__()
        self.channels, self.width, self.dim, self.patches, self.k = channels, dim, 2 * dim, patches, k
        self.embed = PointEmbedding(channels, dim)
        self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)

    def cut(self, points: Tensor, start: Tensor | int | None = 0) -> PointPatches:
        """The patches of clouds (N, P, 3 + F); fewer than M where there are fewer points.

        Raises:
            UserError: points of other channels.
        """
        if points.dim() != 3 or points.shape[2] != self.channels:
            raise UserError(f"clouds of shape {tuple(points.shape)} for an encoder of (N, P, {self.channels})")
        count = points.shape[1]
        return point_patches(points, min(self.patches, count), min(self.k, count), start)

    def see(self, patches: PointPatches, middle: Tensor, keep: Tensor | None = None) -> Tensor:
        """Tokens (N, M', C) of patches; of those in ``keep`` (N, M') alone, whose others are never looked at.

        Args:
            patches: of :meth:`cut`.
            middle: (N, 3) mean of each cloud.
            keep: numbers of the visible patches; None: all.
        """
        centres, points = patches.centres, patches.points
        if keep is not None:
            rows = torch.arange(len(keep), device=keep.device)[:, None]
            centres, points = centres[rows, keep], points[rows, keep]
        h = self.embed(points) + self.place(centres - middle[:, None])
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def tokens(self, points: Tensor, keep: Tensor | None = None) -> tuple[None, Tensor]:
        """No class token, and the tokens (N, M, C) of clouds (N, P, 3 + F) in the order of :meth:`cut`."""
        return None, self.see(self.cut(points), points[:, :, :3].mean(1), keep)

    def forward(self, points: Tensor) -> Tensor:
        """(N, P, 3 + F) -> (N, 2 C): mean and maximum of the tokens."""
        tokens = self.tokens(points)[1]
        return torch.cat((tokens.mean(1), tokens.amax(1)), 1)
