"""3D Gaussians and where a camera sees them (Kerbl et al., 2023; the renderer's equations of arXiv 2506.08777).

    Sigma = R(q) diag(s^2) R(q)^T,      (X, Y, Z) = W mu,      Sigma' = J W_R Sigma W_R^T J^T + 0.3 I
    J = [[fx / Z, 0, -fx X / Z^2], [0, fy / Z, -fy Y / Z^2]]

Axes of a camera: x right, y down, z ahead. Quaternions are (w, x, y, z) and normalised here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError

__all__ = ["Gaussians", "ProjectedGaussians", "gaussian_covariance", "project_gaussians", "quaternion_rotation"]

NEAR = 0.2
"""Gaussians nearer to the camera than this are left out."""
BLUR = 0.3
"""Added to the variances on the picture, in pixels^2: no Gaussian is thinner than a pixel."""
LIMIT = 1.3
"""X / Z and Y / Z inside the Jacobian are held within this many times those of the picture's edge."""


class Gaussians(NamedTuple):
    """G Gaussians of a scene, or (N, G, ...) of N scenes.

    Attributes:
        means: (G, 3) centres mu.
        quaternions: (G, 4) as (w, x, y, z), of any length above 0.
        scales: (G, 3) deviations s along the axes of each, above 0.
        opacities: (G,) in [0, 1].
        colours: (G, C), degree-0 colours in [0, 1].
    """

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    colours: Tensor

    def of(self, i: int) -> Gaussians:
        """Those of one scene."""
        return Gaussians(*(part[i] for part in self))


class ProjectedGaussians(NamedTuple):
    """Gaussians on the picture.

    Attributes:
        means: (G, 2) x and y in pixels.
        covariances: (G, 3): variance along x, covariance, variance along y.
        depths: (G,) Z.
        seen: (G,) bool: far enough before the camera.
    """

    means: Tensor
    covariances: Tensor
    depths: Tensor
    seen: Tensor


def quaternion_rotation(quaternions: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of quaternions (..., 4) as (w, x, y, z).

    They are normalised first, with gradient: q and c q for any c != 0 are one rotation, and so are q and -q.

    Raises:
        UserError: not four numbers each.
    """
    if quaternions.shape[-1:] != (4,):
        raise UserError(f"quaternions need the shape (..., 4), got {tuple(quaternions.shape)}")
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def gaussian_covariance(scales: Tensor, quaternions: Tensor) -> Tensor:
    """Sigma = R(q) diag(s^2) R(q)^T, (..., 3, 3), of scales (..., 3) and quaternions (..., 4).

    Raises:
        UserError: shapes that don't fit.
    """
    if scales.shape[-1:] != (3,) or scales.shape[:-1] != quaternions.shape[:-1]:
        raise UserError(f"scales {tuple(scales.shape)} don't fit quaternions {tuple(quaternions.shape)}")
    half = quaternion_rotation(quaternions) * scales[..., None, :]
    return half @ half.transpose(-1, -2)


def check_camera(gaussians: Gaussians, intrinsics: Tensor, world_to_camera: Tensor) -> None:
    """Refuse other shapes than those of one scene and one camera."""
    if gaussians.means.dim() != 2 or intrinsics.shape != (3, 3) or world_to_camera.shape != (4, 4):
        shapes = [tuple(t.shape) for t in (gaussians.means, intrinsics, world_to_camera)]
        raise UserError(f"means (G, 3), intrinsics (3, 3) and world_to_camera (4, 4) are needed, got {shapes}")


def project_gaussians(
    gaussians: Gaussians,
    intrinsics: Tensor,
    world_to_camera: Tensor,
    size: tuple[int, int],
    *,
    near: float = NEAR,
    blur: float = BLUR,
) -> ProjectedGaussians:
    """Where a camera sees the Gaussians of one scene; gradients reach centres, scales, quaternions and the camera.

    Inside J (nowhere else) X / Z and Y / Z are held within 1.3 tan(fov / 2), as 3DGS does: what lies far beside the
    picture would become huge.

    Args:
        gaussians: G of them.
        intrinsics: (3, 3) in pixels.
        world_to_camera: (4, 4), [R | t].
        size: height and width of the picture.
        near: least Z; nearer ones are not ``seen``.
        blur: variance added on the picture, pixels^2.

    Raises:
        UserError: other shapes.
    """
    check_camera(gaussians, intrinsics, world_to_camera)
    height, width = size
    turn = world_to_camera[:3, :3]
    x, y, depths = (gaussians.means @ turn.T + world_to_camera[:3, 3]).unbind(1)
    seen = depths >= near
    z = torch.where(seen, depths, torch.ones_like(depths))  # no division by 0 for those that nobody sees
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    means = torch.stack((fx * x / z + cx, fy * y / z + cy), 1)
    side, up = (LIMIT * n / (2 * f) for n, f in ((width, fx), (height, fy)))
    across, down = torch.clamp(x / z, -side, side), torch.clamp(y / z, -up, up)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((fx / z, zero, -fx * across / z, zero, fy / z, -fy * down / z), 1).view(-1, 2, 3)
    half = jacobian @ turn @ (quaternion_rotation(gaussians.quaternions) * gaussians.scales[:, None, :])
    flat = half @ half.transpose(1, 2)
    covariances = torch.stack((flat[:, 0, 0] + blur, flat[:, 0, 1], flat[:, 1, 1] + blur), 1)
    return ProjectedGaussians(means, covariances, depths, seen)
