"""What moves a scene and its cameras together: turns, mirrors, scales, crops; smaller pictures of the same camera.

Clouds are (N, P, 3 + F), cameras intrinsics (N, 3, 3) in pixels, the centre of the first pixel at 0, and world to
camera (N, 4, 4). A scene that is turned, mirrored or scaled with its camera gives the same picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["centred_scene", "cropped_view", "moved_scene", "random_motion", "resized_intrinsics", "world_to_camera"]


def world_to_camera(pose: Tensor) -> Tensor:
    """[R^T | -R^T t] of poses camera to world (N, 4, 4); R may be a mirror as well as a turn."""
    turn = pose[:, :3, :3].transpose(1, 2)
    found = torch.eye(4, dtype=pose.dtype, device=pose.device).repeat(len(pose), 1, 1)
    found[:, :3, :3] = turn
    found[:, :3, 3] = -(turn @ pose[:, :3, 3:])[..., 0]
    return found


def centred_scene(points: Tensor, *cameras: Tensor) -> tuple[Tensor, ...]:
    """The scene with the cloud's mean at 0: points and world to camera of each camera."""
    middle = points[:, :, :3].mean(1)
    moved = [torch.cat((points[..., :3] - middle[:, None], points[..., 3:]), -1)]
    for camera in cameras:
        other = camera.clone()
        other[:, :3, 3] += (camera[:, :3, :3] @ middle[:, :, None])[..., 0]
        moved.append(other)
    return tuple(moved)


def random_motion(
    count: int,
    *,
    turn: bool = True,
    flip: float = 0.5,
    scales: tuple[float, float] = (0.8, 1.2),
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Draw turns about z (all angles), mirrors of x, and scales: matrices (N, 3, 3) without scale, and scales (N,).

    Raises:
        UserError: scales that aren't 0 < low <= high.
    """
    if not 0 < scales[0] <= scales[1]:
        raise UserError(f"scales from {scales[0]:g} to {scales[1]:g}: give 0 < low <= high")
    u = torch.rand(3, count, generator=generator).to(device)
    angle = 2 * torch.pi * u[0] if turn else torch.zeros_like(u[0])
    mirror = torch.where(u[1] < flip, -1.0, 1.0)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack((cosine * mirror, -sine, zero, sine * mirror, cosine, zero, zero, zero, one), 1)
    return matrix.view(-1, 3, 3), scales[0] + (scales[1] - scales[0]) * u[2]


def moved_scene(points: Tensor, motion: Tensor, scale: Tensor, *cameras: Tensor) -> tuple[Tensor, ...]:
    """The scene turned, mirrored and scaled: points p -> s A p, and each camera so that it sees the same picture.

    Depth along a camera's axis becomes s times as large.

    Args:
        points: (N, P, 3 + F).
        motion: (N, 3, 3) A, orthogonal.
        scale: (N,) s.
        *cameras: world to camera (N, 4, 4).
    """
    place = scale[:, None, None] * points[..., :3] @ motion.transpose(1, 2)
    moved = [torch.cat((place, points[..., 3:]), -1)]
    for camera in cameras:
        other = camera.clone()
        other[:, :3, :3] = camera[:, :3, :3] @ motion.transpose(1, 2)
        other[:, :3, 3] = scale[:, None] * camera[:, :3, 3]
        moved.append(other)
    return tuple(moved)


def resized_intrinsics(intrinsics: Tensor, across: Tensor | float, down: Tensor | float) -> Tensor:
    """Intrinsics (N, 3, 3) of the picture resized by the factors ``across`` and ``down``, one for all or (N,).

    c' = (c + 0.5) factor - 0.5, since the picture reaches from -0.5 to its width less 0.5.
    """
    found = intrinsics.clone()
    for axis, factor in enumerate((across, down)):
        found[:, axis, axis] = intrinsics[:, axis, axis] * factor
        found[:, axis, 2] = (intrinsics[:, axis, 2] + 0.5) * factor - 0.5
    return found


def cropped_view(
    image: Tensor, intrinsics: Tensor, least: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A random part of every picture at the picture's size, and the intrinsics of a camera that sees just that.

    Args:
        image: (N, C, H, W).
        intrinsics: (N, 3, 3).
        least: smallest share of the sides that is kept, in (0, 1]; 1 leaves all as it is.
        generator: of the draws, on the CPU.

    Raises:
        UserError: a share outside (0, 1].
    """
    if not 0 < least <= 1:
        raise UserError(f"crop={least}: a share above 0 and at most 1")
    if least == 1:
        return image, intrinsics
    n, _, height, width = image.shape
    u = torch.rand(3, n, generator=generator)
    share = least + (1 - least) * u[0]
    high, wide = ((share * side).round().long().clamp_min(1) for side in (height, width))
    top, left = (u[1] * (height - high + 1)).long(), (u[2] * (width - wide + 1)).long()
    parts = [
        F.interpolate(image[i : i + 1, :, y : y + h, x : x + w], (height, width), mode="bilinear", antialias=True)
        for i, (y, x, h, w) in enumerate(zip(*(t.tolist() for t in (top, left, high, wide)), strict=True))
    ]
    moved = intrinsics.clone()
    moved[:, 0, 2] -= left.to(intrinsics)
    moved[:, 1, 2] -= top.to(intrinsics)
    factors = [(side / part.to(intrinsics)) for side, part in ((width, wide), (height, high))]
    return torch.cat(parts), resized_intrinsics(moved, *factors)
