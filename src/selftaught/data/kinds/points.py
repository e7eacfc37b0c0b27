"""Clouds of points, how several make one packed batch, and what is known of each point.

A cloud is one array (P, 3+F): x y z in metres and then its features. Clouds have unlike numbers of points, so a batch
lays them end to end and says where each ends: every method of points gets this one form,

    {"coord": (M, 3), "feat": (M, F), "offset": (N,)}      M = P_1 + ... + P_N,  offset = cumsum(P)
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError, UserError

__all__ = ["PointLabels", "Points", "pack", "unpack"]


class Points(Kind):
    """P points, each x y z and then its F features, float32; batches are packed, see `pack`."""

    name, plural, description = "points", "point clouds", "a point cloud"
    layout, batched, channel_axis = "(P, 3+F)", "coord (M, 3), feat (M, F), offset (N,)", 1
    numbers = "f"

    def check(self, sample: Any, name: str) -> None:
        """At least three columns; see `Kind.check`."""
        super().check(sample, name)
        if sample.shape[1] < 3:
            raise SampleError(name, f"{sample.shape[1]} columns where a point has x y z")

    def misfit(self, have: int, wanted: int, bands: bool = False) -> str:
        """As for every kind, and how to choose the columns."""
        if not (found := super().misfit(have, wanted, bands)):
            return ""
        return f"{found}; choose columns beside colour and normal as at training (?features=intensity, ?features=none)"

    def stack(self, samples: list[Any]) -> dict[str, Any]:
        """Clouds of any sizes as one packed batch; see `pack`."""
        return pack(samples)


class PointLabels(Kind):
    """The class of each point (P,) int64, -1 where it isn't known; a batch lays them end to end, as `pack` does."""

    name, plural, description = "point_label", "labels of points", "the classes of a cloud's points"
    layout, batched, numbers = "(P,)", "(M,)", "iu"

    def stack(self, samples: list[Any]) -> Any:
        """(M,) int64."""
        import torch

        return torch.from_numpy(np.concatenate([np.asarray(s, dtype=np.int64) for s in samples]))


def pack(clouds: list[Any]) -> dict[str, Any]:
    """Clouds end to end, as tensors.

    Args:
        clouds: arrays (P_i, 3+F) of one number of columns; their sizes may differ.

    Returns:
        ``coord`` (M, 3) and ``feat`` (M, F) float32, ``offset`` (N,) int64: where each cloud ends, so that cloud i
        has the rows ``offset[i-1]:offset[i]`` and the last offset is M.

    Raises:
        UserError: clouds of several numbers of columns.
    """
    import torch

    widths = {np.shape(cloud)[1] for cloud in clouds}
    if len(widths) > 1:
        raise UserError(f"point clouds of {' and '.join(map(str, sorted(widths)))} columns make no batch")
    rows = torch.from_numpy(np.concatenate([np.asarray(cloud, dtype=np.float32) for cloud in clouds]))
    offset = torch.from_numpy(np.cumsum([len(cloud) for cloud in clouds], dtype=np.int64))
    return {"coord": rows[:, :3].contiguous(), "feat": rows[:, 3:].contiguous(), "offset": offset}


def unpack(batch: dict[str, Any], values: Any = None) -> list[Any]:
    """The parts of a packed batch that belong to each cloud.

    Args:
        batch: as `pack` gives it.
        values: (M, ...) tensor with a row per point; None: x y z and the features side by side.

    Returns:
        N tensors (P_i, ...), views of `values`.

    Raises:
        UserError: another number of rows than the batch has points.
    """
    import torch

    values = torch.cat((batch["coord"], batch["feat"]), 1) if values is None else values
    ends = [0, *batch["offset"].tolist()]
    if len(values) != ends[-1]:
        raise UserError(f"{len(values)} rows where the packed batch has {ends[-1]} points")
    return [values[a:b] for a, b in pairwise(ends)]
