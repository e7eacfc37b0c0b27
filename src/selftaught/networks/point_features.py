"""From a sparse U-Net to features per point: masks nested over levels, and all levels read at a point's place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.sparse import Voxels, scenes_of

__all__ = ["hierarchical_features", "nested_masks"]


def nested_masks(
    levels: Sequence[Voxels],
    ratio: float = 0.4,
    *,
    order: str = "bottom-up",
    patch: int = 1,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Which voxels are hidden at each level: a hidden voxel hides all that it contains (MSM, arXiv 2504.06719).

    bottom-up: of the n coarsest voxels of each scene round(ratio n) are drawn, in cubes of ``patch`` voxels, and all
    their descendants are hidden with them. top-down: the finest voxels are drawn, a coarser one is hidden where all of
    its children are. At least one voxel of a scene stays.

    Args:
        levels: from :func:`selftaught.networks.pyramid`, finest first.
        ratio: share of the voxels to hide, in [0, 1).
        order: "bottom-up" or "top-down".
        patch: edge of the cubes, in voxels of the level where they are drawn.
        generator: of the draw, on the CPU.

    Returns:
        (V_l,) bool per level, finest first; True: hidden.

    Raises:
        UserError: a ratio outside [0, 1), another order, a patch below 1.
    """
    if not 0 <= ratio < 1 or order not in ("bottom-up", "top-down") or patch < 1:
        raise UserError(
            f"mask ratio {ratio} in [0, 1), order {order!r} bottom-up or top-down, patch {patch} of 1 or more"
        )
    if order == "bottom-up":
        masks = [_drawn(levels[-1], ratio, patch, generator)]
        for level in levels[-2::-1]:
            masks.append(masks[-1][level.family()[1]])
        return masks[::-1]
    masks = [_drawn(levels[0], ratio, patch, generator)]
    for level in levels[:-1]:
        coarse, parent, _ = level.family()
        hidden = torch.ones(len(coarse), dtype=torch.uint8, device=parent.device)
        masks.append(hidden.scatter_reduce(0, parent, masks[-1].to(torch.uint8), "amin").bool())
    return masks


def _drawn(level: Voxels, ratio: float, patch: int, generator: torch.Generator | None) -> Tensor:
    """round(ratio n) voxels of every scene, in whole cubes but for the last one."""
    place = level.place.clone()
    place[:, 1:] = place[:, 1:].div(patch, rounding_mode="floor")
    cube = place.unique(dim=0, return_inverse=True)[1] if patch > 1 else torch.arange(len(place), device=place.device)
    rank = torch.rand(int(cube.max()) + 1 if len(cube) else 0, generator=generator).to(place.device)[cube]
    hidden = torch.zeros(len(place), dtype=torch.bool, device=place.device)
    for scene in place[:, 0].unique().tolist():
        rows = (place[:, 0] == scene).nonzero()[:, 0]
        count = min(round(ratio * len(rows)), len(rows) - 1)
        hidden[rows[rank[rows].argsort(stable=True)[:count]]] = True
    return hidden


def hierarchical_features(
    outputs: Sequence[Tensor],
    levels: Sequence[Voxels],
    position: Tensor,
    offset: Tensor,
    *,
    used: Sequence[int] | None = None,
    interpolation: str = "trilinear",
    parity: bool = True,
    empty: str = "zero",
) -> Tensor:
    """Features of all levels at every point, side by side (MSM, arXiv 2504.06719, section 7 of the sheet's account).

    With parity a level's grid is read as the authors' code does: the coordinate (p / 2^l) / S * 2 - 1 of a grid with S
    voxels along an axis is sampled with ``align_corners=True``, that is at p / 2^l * (S - 1) / S: half a voxel's shift
    at one end, none at the other. Without, voxel g has its middle at (g + 0.5) 2^l, and gives its own feature.

    Args:
        outputs: (V_l, C_l) of every level, finest first.
        levels: their voxels; places count from 0 in every scene.
        position: (M, 3) in edges of the finest voxel; that of voxel g has its middle at g + 0.5.
        offset: (N,) where each scene's points end.
        used: levels to read, 0 the finest; None: all.
        interpolation: "trilinear" or "nearest".
        parity: see above.
        empty: "zero": places without a voxel count as 0, so that lengths shrink at surfaces, as in the authors' code;
            "ignore": weights are those of occupied places alone.

    Returns:
        (M, sum of C_l).

    Raises:
        UserError: an unknown choice, levels that aren't there, other numbers of rows.
    """
    if interpolation not in ("trilinear", "nearest") or empty not in ("zero", "ignore"):
        raise UserError(f"interpolation {interpolation!r}: trilinear or nearest; empty {empty!r}: zero or ignore")
    used = range(len(levels)) if used is None else used
    if not used or not all(0 <= at < len(levels) for at in used):
        raise UserError(f"levels {list(used)} of {len(levels)}: 0 is the finest")
    scene = scenes_of(offset)
    if len(scene) != len(position):
        raise UserError(f"{len(position)} places, and the last scene ends at {len(scene)}")
    found = []
    for at in used:
        if len(outputs[at]) != len(levels[at]):
            raise UserError(f"level {at}: {len(outputs[at])} rows of {len(levels[at])} voxels")
        p = position.double() / 2**at
        if parity:
            size = _sides(levels[at], len(offset))[scene]
            p = p * ((size - 1) / size)
        else:
            p = p - 0.5
        found.append(_sampled(outputs[at], levels[at], p, scene, interpolation == "nearest", empty == "ignore"))
    return torch.cat(found, 1)


def _sides(level: Voxels, scenes: int) -> Tensor:
    """(N, 3) the largest place of each scene along each axis, and 1."""
    most = torch.zeros(scenes, 3, dtype=torch.long, device=level.place.device)
    index = level.place[:, :1].expand(-1, 3)
    return (most.scatter_reduce(0, index, level.place[:, 1:], "amax") + 1).double()


def _sampled(x: Tensor, level: Voxels, p: Tensor, scene: Tensor, nearest: bool, ignore: bool) -> Tensor:
    """Features (M, C) at places p (M, 3), whole numbers being the voxels."""
    if nearest:
        at = level.find(torch.cat((scene[:, None], p.round().long()), 1))
        return torch.where((at >= 0)[:, None], x[at.clamp(min=0)], 0)
    low = p.floor()
    part = p - low
    out, total = x.new_zeros(len(p), x.shape[1]), p.new_zeros(len(p))
    for corner in product((0, 1), repeat=3):
        step = torch.tensor(corner, device=p.device)
        weight = torch.where(step.bool(), part, 1 - part).prod(1)
        at = level.find(torch.cat((scene[:, None], low.long() + step), 1))
        weight = weight * (at >= 0)
        out = out + x[at.clamp(min=0)] * weight[:, None].to(x.dtype)
        total = total + weight
    return out / total.clamp(min=1e-9)[:, None].to(x.dtype) if ignore else out
