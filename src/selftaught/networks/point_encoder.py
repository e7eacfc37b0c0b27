"""An encoder of point clouds: packed batches in, features per point, per voxel and per scan out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.hunet import HUNet
from selftaught.networks.point_features import hierarchical_features
from selftaught.networks.sparse import Voxels, pyramid, scenes_of, voxelise

__all__ = ["PointEncoder", "Scene", "mean_rows"]


class Scene(NamedTuple):
    """A packed batch on the network's grid.

    Attributes:
        x: (V, C) input features of the finest voxels.
        levels: voxels of every level, finest first.
        which: (M,) the finest voxel of every point.
        position: (M, 3) of every point, in edges of the finest voxel from its scene's corner.
    """

    x: Tensor
    levels: list[Voxels]
    which: Tensor
    position: Tensor


class PointEncoder(nn.Module):
    """A sparse U-Net on packed clouds with the columns of this toolkit's sources.

    A packed batch is a dict of ``coord`` (M, 3) in metres, ``feat`` (M, 6 + F): colour from 0 to 255, normal, further
    features; and ``offset`` (N,), where each cloud ends.

    Args:
        net: takes 6 + F channels.
        voxel: edge of the finest voxels in metres (0.02).
        extra: F, features besides colour and normal, which are standardised by ``feature_mean`` and ``feature_std``.
        interpolation: see :func:`hierarchical_features`.
        parity: see :func:`hierarchical_features`; places of points are then those of their voxels.
        used: levels to read, 0 the finest; None: all.

    Raises:
        UserError: voxels without extent, levels that aren't there.
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        net: HUNet,
        voxel: float = 0.02,
        *,
        extra: int = 0,
        interpolation: str = "trilinear",
        parity: bool = True,
        used: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not voxel > 0:
            raise UserError(f"voxel={voxel}: an edge in metres, above 0")
        self.used = list(range(len(net.widths))) if used is None else list(used)
        if not self.used or not all(0 <= at < len(net.widths) for at in self.used):
            raise UserError(f"levels {self.used} of {len(net.widths)}: 0 is the finest")
        self.net, self.voxel, self.interpolation, self.parity = net, voxel, interpolation, parity
        self.register_buffer("feature_mean", torch.zeros(extra))
        self.register_buffer("feature_std", torch.ones(extra))

    @property
    def width(self) -> int:
        """Features per point."""
        return sum(self.net.widths[at] for at in self.used)

    def inputs(self, feat: Tensor) -> Tensor:
        """(M, 6 + F): colour to [-1, 1] by c / 127.5 - 1, the normal, further features standardised.

        Raises:
            UserError: another number of columns.
        """
        extra = len(self.feature_mean)
        if feat.dim() != 2 or feat.shape[1] != 6 + extra:
            raise UserError(f"points of {tuple(feat.shape)[-1]} features where the encoder takes {6 + extra}")
        more = (feat[:, 6:] - self.feature_mean) / self.feature_std
        return torch.cat((feat[:, :3] / 127.5 - 1, feat[:, 3:6], more), 1)

    def scene(self, batch: dict[str, Any]) -> Scene:
        """A packed batch on the grid: a voxel has the mean features of its points."""
        coord, offset = batch["coord"], batch["offset"]
        place, which = voxelise(coord, offset, self.voxel)
        x = mean_rows(self.inputs(batch["feat"]), which, len(place))
        middle = place[which, 1:].to(coord.dtype) + 0.5
        if self.parity:
            position = middle
        else:
            exact = coord.double() / self.voxel
            low = exact.floor().long() - place[which, 1:]
            position = exact - low
        return Scene(x, pyramid(place, len(self.net.widths)), which, position)

    def maps(self, batch: dict[str, Any]) -> list[tuple[Tensor, Voxels]]:
        """Features (V_l, C_l) and voxels of every level, finest first."""
        scene = self.scene(batch)
        return list(zip(self.net(scene.x, scene.levels), scene.levels, strict=True))

    def points(self, batch: dict[str, Any]) -> Tensor:
        """(M, width): the features of all used levels at every point."""
        scene = self.scene(batch)
        return hierarchical_features(
            self.net(scene.x, scene.levels), scene.levels, scene.position, batch["offset"], used=self.used,
            interpolation=self.interpolation, parity=self.parity,
        )  # fmt: skip

    def tokens(self, batch: dict[str, Any], keep: Any = None) -> tuple[None, Tensor]:
        """No class token, and the features (V, C) of the coarsest voxels, scans end to end."""
        return None, self.maps(batch)[-1][0]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """(N, width): the mean over each cloud's points."""
        return mean_rows(self.points(batch), scenes_of(batch["offset"]), len(batch["offset"]))


def mean_rows(x: Tensor, group: Tensor, count: int) -> Tensor:
    """(count, C) mean of the rows of ``x`` (M, C) in each group (M,); 0 for a group without rows."""
    total = x.new_zeros(count, x.shape[1]).index_add(0, group, x)
    rows = torch.bincount(group, minlength=count).clamp(min=1)
    return total / rows[:, None].to(x.dtype)
