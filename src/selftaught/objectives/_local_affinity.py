"""Local affinities of two batches of feature maps: which locations belong together, in feature space and in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_positive, in_float32, unit

_PAIRS_AT_ONCE = 2**24  # location pairs held at a time: 64 MiB in float32


@in_float32
def local_similarity(
    maps1: Tensor,
    maps2: Tensor,
    centres1: Tensor | None = None,
    centres2: Tensor | None = None,
    *,
    gamma: int = 20,
    location_only: bool = False,
) -> Tensor:
    """Local affinities c^lo (arXiv 2306.11925, eq. 3; after VICRegL, arXiv 2210.01571): (N, N).

    Every location of y_i finds its partner in y_a, the nearest in feature space (l2); the ``gamma`` nearest pairs are
    kept, and their cosines averaged, in both directions. Where the locations' places in the source images are given,
    c^lo_ii is averaged with the same for partners that are nearest in place; pairs i != a share no coordinates.

    Args:
        maps1: (N, D, R, S) feature maps of the first view. Gradients flow through the cosines, not the choice.
        maps2: (N, D, R, S) of the second view.
        centres1: (N, R*S, 2) source-image coordinates of the locations of the first view, row by row, any unit.
        centres2: (N, R*S, 2) of the second view.
        gamma: pairs to keep; all where there are no more.
        location_only: with centres, c^lo_ii is that of the partners in place alone.

    Returns:
        (N, N), each in [-1, 1]. Memory grows with N only: pairs of images are taken in slices, recomputed backwards.

    Raises:
        UserError: maps that aren't (N, D, R, S) of one N and D, centres of another number of locations, gamma below 1.
    """
    if maps1.ndim != 4 or maps2.ndim != 4 or maps1.shape[:2] != maps2.shape[:2]:
        raise UserError(f"feature maps must be (N, D, R, S), got {tuple(maps1.shape)} and {tuple(maps2.shape)}")
    check_positive(gamma=gamma)
    check_floats(maps1=maps1, maps2=maps2)
    first, second = (m.flatten(2).transpose(1, 2) for m in (maps1, maps2))
    rows, here, there = len(first), first.shape[1], second.shape[1]
    step = max(1, min(rows, _PAIRS_AT_ONCE // (rows * here * there)))
    slices = [
        checkpoint(_feature_affinity, part, second, gamma, use_reentrant=False)
        if step < rows
        else _feature_affinity(part, second, gamma)
        for part in first.split(step)
    ]
    found = torch.cat(slices)
    if centres1 is None and centres2 is None:
        return found
    if centres1 is None or centres2 is None:
        raise UserError("the places of both views' locations are needed: give centres1 and centres2, or neither")
    if centres1.shape != (rows, here, 2) or centres2.shape != (rows, there, 2):
        raise UserError(f"centres must be ({rows}, {here}, 2) and ({rows}, {there}, 2), one per location")
    cosine = unit(first) @ unit(second).transpose(1, 2)
    same = _kept_mean(cosine, torch.cdist(centres1.to(cosine), centres2.to(cosine)), gamma)
    return found + torch.diag((same - found.diagonal()) * (1.0 if location_only else 0.5))


def _feature_affinity(first: Tensor, second: Tensor, gamma: int) -> Tensor:
    """(n, L, D) and (N, L', D) -> (n, N)."""
    cosine = torch.einsum("ipd,aqd->iapq", unit(first), unit(second))
    with torch.no_grad():
        one, other = first.norm(dim=2)[:, None, :, None], second.norm(dim=2)[None, :, None, :]
        distance = one.square() + other.square() - 2 * cosine * one * other
    return _kept_mean(cosine, distance, gamma)


def _kept_mean(cosine: Tensor, distance: Tensor, gamma: int) -> Tensor:
    """Mean cosine of the gamma nearest of the nearest partners, both ways: (..., L, L') -> (...)."""
    total: Tensor | float = 0.0
    for axis in (-1, -2):
        nearest = distance.min(axis, keepdim=True)
        partner = cosine.gather(axis, nearest.indices).squeeze(axis)
        kept = nearest.values.squeeze(axis).topk(min(int(gamma), partner.shape[-1]), dim=-1, largest=False).indices
        total = total + partner.gather(-1, kept).mean(-1) / 2
    assert isinstance(total, Tensor)
    return total


def grid_centres(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Source-image coordinates of the cells of a feature map.

    Args:
        boxes: (N, 5) of each view: top, left, height, width of its crop in the source image, and 1 where it was flipped
            left to right.
        rows: R of the map.
        columns: S of the map.

    Returns:
        (N, R*S, 2) float32: y and x of the cells' centres, row by row, in the boxes' unit.

    Raises:
        UserError: (a ``ValueError``) boxes that aren't (N, 5).
    """
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise UserError(f"boxes must be (N, 5): top, left, height, width, flip; got {tuple(boxes.shape)}")
    top, left, height, width, flip = boxes.float().unbind(1)
    y = (torch.arange(rows, device=boxes.device) + 0.5) / rows
    x = ((torch.arange(columns, device=boxes.device) + 0.5) / columns).expand(len(boxes), -1)
    x = torch.where(flip[:, None] > 0, 1 - x, x)
    y = top[:, None] + height[:, None] * y
    x = left[:, None] + width[:, None] * x
    return torch.stack([y[:, :, None].expand(-1, -1, columns), x[:, None, :].expand(-1, rows, -1)], 3).flatten(1, 2)
