"""Geometry between frames of a video: depth and motion to where a pixel is seen in another frame, and the warp there.

Axes of a camera: x right, y down, z ahead. ``transform`` (N, 4, 4) takes points of the target's camera to the other
frame's. Intrinsics are pixels, (N, 3, 3), or shares of the picture's width and height, (N, 4): fx, fy, cx, cy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError

__all__ = [
    "axis_angle_rotation",
    "backproject",
    "depth_to_disparity",
    "disparity_to_depth",
    "intrinsics_matrix",
    "pose_matrix",
    "project",
    "sampling_grid",
    "warp",
]

_TINY = 1e-7
P = ParamSpec("P")
R = TypeVar("R")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Leave autocast out and raise half precision to float32: a hundredth of a pixel matters here."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        def raised(value: Any) -> Any:
            half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
            return value.float() if half else value

        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
        with torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False):
            return function(*map(raised, args), **{k: raised(v) for k, v in kwargs.items()})

    return wrapped


Padding = Literal["border", "zeros", "reflection"]


@exact
def disparity_to_depth(disparity: Tensor, min_depth: float = 0.1, max_depth: float = 100.0) -> tuple[Tensor, Tensor]:
    """A sigmoid's output d in [0, 1] as (scaled disparity, depth), as Monodepth2 has it.

    scaled = 1/max + (1/min - 1/max) d, depth = 1 / scaled.

    Args:
        disparity: any shape.
        min_depth: depth at d = 1.
        max_depth: depth at d = 0.

    Raises:
        UserError: depths that aren't 0 < min < max.
    """
    _check_depths(min_depth, max_depth)
    scaled = 1 / max_depth + (1 / min_depth - 1 / max_depth) * disparity
    return scaled, 1 / scaled


@exact
def depth_to_disparity(depth: Tensor, min_depth: float = 0.1, max_depth: float = 100.0) -> Tensor:
    """The sigmoid's output that :func:`disparity_to_depth` makes this depth of, clamped to [0, 1]."""
    _check_depths(min_depth, max_depth)
    return ((1 / depth - 1 / max_depth) / (1 / min_depth - 1 / max_depth)).clamp(0, 1)


def _check_depths(min_depth: float, max_depth: float) -> None:
    if not 0 < min_depth < max_depth:
        raise UserError(f"depths from {min_depth:g} to {max_depth:g}: give 0 < min_depth < max_depth")


@exact
def axis_angle_rotation(axis_angle: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) of vectors (N, 3) whose direction is the axis and whose length the angle (radians).

    R = cos a I + sin a [v]x + (1 - cos a) v v^T, with v the vector over (its length + 1e-7).

    Raises:
        UserError: another shape.
    """
    v = _rows(axis_angle, 3, "axis_angle")
    angle = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    axis = v / (angle + _TINY)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), 1).view(-1, 3, 3)
    sine, cosine = torch.sin(angle)[..., None], torch.cos(angle)[..., None]
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    # cos a (I - v v^T) + v v^T with the diagonal as the literal formula has it, x x (1 - c) + c
    return cosine * eye + sine * cross + (1 - cosine) * axis[:, :, None] * axis[:, None, :]


@exact
def pose_matrix(axis_angle: Tensor, translation: Tensor, invert: bool = False) -> Tensor:
    """(N, 4, 4) of a rotation and a translation: T R, or its inverse R^T T^-1.

    Args:
        axis_angle: (N, 3) or (N, 1, 3), radians.
        translation: (N, 3) or (N, 1, 3).
        invert: whether the motion was predicted from the other frame to this one.

    Raises:
        UserError: other shapes.
    """
    rotation, shift = axis_angle_rotation(axis_angle), _rows(translation, 3, "translation")
    if shift.shape[0] != rotation.shape[0]:
        raise UserError(f"translation: {len(shift)} rows for {len(rotation)} of axis_angle")
    if invert:
        rotation = rotation.transpose(1, 2)
        shift = -(rotation @ shift[:, :, None])[:, :, 0]
    top = torch.cat((rotation, shift[:, :, None]), 2)
    last = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(top.shape[0], 1, 4)
    return torch.cat((top, last), 1)


def _rows(vectors: Tensor, width: int, name: str) -> Tensor:
    flat = vectors[:, 0] if vectors.dim() == 3 and vectors.shape[1] == 1 else vectors
    if flat.dim() != 2 or flat.shape[1] != width:
        raise UserError(f"{name}: shape {tuple(vectors.shape)}; pass (N, {width})")
    return flat


@exact
def intrinsics_matrix(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """Intrinsics (N, 3, 3) in pixels of an image of this size, from shares (N, 4): fx/W, fy/H, cx/W, cy/H."""
    fx, fy, cx, cy = _rows(intrinsics, 4, "intrinsics").unbind(1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = (fx * width, zero, cx * width, zero, fy * height, cy * height, zero, zero, one)
    return torch.stack(rows, 1).view(-1, 3, 3)


def _pixels(height: int, width: int, like: Tensor) -> Tensor:
    """Homogeneous pixel positions (3, H W): u, v, 1."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack((u.flatten(), v.flatten(), torch.ones_like(u).flatten()))


@exact
def backproject(depth: Tensor, inverse_intrinsics: Tensor) -> Tensor:
    """Points (N, 4, H W), homogeneous, that a depth map shows: depth K^-1 (u, v, 1)^T.

    Args:
        depth: (N, 1, H, W).
        inverse_intrinsics: (N, 3, 3) or (N, 4, 4), of pixels.
    """
    n, height, width = _map_shape(depth)
    rays = inverse_intrinsics[:, :3, :3] @ _pixels(height, width, depth)
    points = depth.reshape(n, 1, -1) * rays
    return torch.cat((points, torch.ones_like(points[:, :1])), 1)


@exact
def project(points: Tensor, intrinsics: Tensor, transform: Tensor, height: int, width: int) -> Tensor:
    """Where points are seen, (N, H, W, 2) with -1 and 1 at the centres of the outermost pixels.

    Args:
        points: (N, 4, H W), as :func:`backproject` gives them.
        intrinsics: (N, 3, 3) or (N, 4, 4).
        transform: (N, 4, 4).
        height: of the image.
        width: of the image.
    """
    full = intrinsics[:, :3, :3] @ transform[:, :3, :]
    seen = full @ points
    place = seen[:, :2] / (seen[:, 2:3] + _TINY)
    limits = place.new_tensor([max(1, width - 1), max(1, height - 1)])
    return (place.view(-1, 2, height, width).permute(0, 2, 3, 1) / limits - 0.5) * 2


def _map_shape(depth: Tensor) -> tuple[int, int, int]:
    if depth.dim() != 4 or depth.shape[1] != 1:
        raise UserError(f"depth: shape {tuple(depth.shape)}; pass (N, 1, H, W)")
    return depth.shape[0], depth.shape[2], depth.shape[3]


@exact
def sampling_grid(depth: Tensor, intrinsics: Tensor, transform: Tensor, offset: Tensor | None = None) -> Tensor:
    """Where each pixel of the target is seen in the other frame: project(backproject(depth)), in one pass.

    K (R d K^-1 (u, v, 1) + t) = d (A u + B v + C) + K t with constant vectors A, B, C: no point is ever stored.

    Args:
        depth: (N, 1, H, W) of the target.
        intrinsics: (N, 3, 3) pixels at this size.
        transform: (N, 4, 4) target to other frame.
        offset: (N, 2) pixels: where the depth map's corner lies in the picture that the intrinsics are of.

    Returns:
        (N, H, W, 2), -1 and 1 at the centres of the outermost pixels, for ``grid_sample(align_corners=True)``.

    Raises:
        UserError: other shapes.
    """
    n, height, width = _map_shape(depth)
    if intrinsics.shape != (n, 3, 3) or transform.shape != (n, 4, 4):
        shapes = f"{tuple(intrinsics.shape)} and {tuple(transform.shape)}"
        raise UserError(f"intrinsics and transform: shapes {shapes}; pass ({n}, 3, 3) and ({n}, 4, 4)")
    if offset is not None:
        if offset.shape != (n, 2):
            raise UserError(f"offset: shape {tuple(offset.shape)}; pass ({n}, 2)")
        shift = torch.zeros_like(intrinsics)
        shift[:, :2, 2] = offset.to(intrinsics.dtype)
        intrinsics = intrinsics - shift  # a crop moves the principal point
    turned = intrinsics @ transform[:, :3, :3] @ _inverse(intrinsics)
    moved = intrinsics @ transform[:, :3, 3:]
    if torch.compiler.is_compiling():  # an exporter follows plain operations only
        x, y, z = _seen(depth[:, 0], turned, moved[:, :, 0])
        across, down = 2 / max(1, width - 1), 2 / max(1, height - 1)
        places = torch.stack((x / (z + _TINY) * across, y / (z + _TINY) * down), -1)
        return places - 1
    found: Tensor = _Grid.apply(depth[:, 0], turned, moved[:, :, 0])
    return found


def _inverse(matrix: Tensor) -> Tensor:
    """Inverses of (N, 3, 3) by cofactors, which exporters know."""
    rows = [[matrix[:, i, j] for j in range(3)] for i in range(3)]

    def cofactor(i: int, j: int) -> Tensor:
        a, b, c, d = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
        return rows[a][c] * rows[b][d] - rows[a][d] * rows[b][c]

    determinant = sum(rows[0][j] * cofactor(0, j) for j in range(3))
    entries = [cofactor(j, i) / determinant for i in range(3) for j in range(3)]
    return torch.stack(entries, 1).view(-1, 3, 3)


class _Grid(torch.autograd.Function):
    """Depth (N, H, W), matrix (N, 3, 3), shift (N, 3) to a grid; the gradient keeps no more than its inputs."""

    @staticmethod
    def forward(ctx: Any, depth: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(depth, matrix, shift)
        height, width = depth.shape[1:]
        x, y, z = _seen(depth, matrix, shift)
        inverse = (z + _TINY).reciprocal_()
        grid = depth.new_empty((*depth.shape, 2))
        for at, place in enumerate((x, y)):
            torch.mul(place, inverse, out=grid[..., at])
        grid *= grid.new_tensor([2 / max(1, width - 1), 2 / max(1, height - 1)])
        return grid.sub_(1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        depth, matrix, shift = ctx.saved_tensors
        (grad,) = grads
        n, height, width = depth.shape
        x, y, z = _seen(depth, matrix, shift)
        inverse = 1 / (z + _TINY)
        gx, gy = grad[..., 0] * (2 / max(1, width - 1)), grad[..., 1] * (2 / max(1, height - 1))
        dx, dy = gx * inverse, gy * inverse
        dz = -(dx * x + dy * y) * inverse
        along = torch.stack((dx, dy, dz), 1)
        d_depth = None
        if ctx.needs_input_grad[0]:
            rays = _rays(depth, matrix)
            d_depth = dx * rays[0] + dy * rays[1] + dz * rays[2]
        d_matrix = d_shift = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            flat = along.view(n, 3, -1)
            weighted = flat * depth.reshape(n, 1, -1)
            d_matrix = weighted @ _pixels(height, width, depth).T
            d_shift = flat.sum(2)
        return d_depth, d_matrix, d_shift


def _rays(depth: Tensor, matrix: Tensor) -> list[Tensor]:
    """The three rows of matrix (u, v, 1), each (N, H, W)."""
    height, width = depth.shape[1:]
    u = torch.arange(width, dtype=depth.dtype, device=depth.device)
    v = torch.arange(height, dtype=depth.dtype, device=depth.device)
    rows = []
    for row in range(3):
        across = matrix[:, row, 0, None] * u + matrix[:, row, 2, None]
        rows.append(across[:, None, :] + (matrix[:, row, 1, None] * v)[:, :, None])
    return rows


def _seen(depth: Tensor, matrix: Tensor, shift: Tensor) -> list[Tensor]:
    return [torch.addcmul(shift[:, k, None, None], depth, ray) for k, ray in enumerate(_rays(depth, matrix))]


@exact
def warp(
    image: Tensor,
    depth: Tensor,
    intrinsics: Tensor,
    transform: Tensor,
    *,
    padding: Padding = "border",
    align_corners: bool = True,
    offset: Tensor | None = None,
) -> Tensor:
    """The target's picture made of another frame: each pixel's colour from where it is seen there, bilinear.

    Args:
        image: (N, C, H, W), the other frame.
        depth: (N, 1, H, W) of the target.
        intrinsics: (N, 3, 3) pixels at this size.
        transform: (N, 4, 4) target to other frame.
        padding: what lies outside ("border", "zeros", "reflection").
        align_corners: as in ``grid_sample``; False is what newer torch does with Monodepth2's code, half a pixel off.
        offset: see :func:`sampling_grid`.

    Returns:
        (N, C, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    if image.dim() != 4 or image.shape[0] != depth.shape[0] or image.shape[2:] != depth.shape[2:]:
        raise UserError(f"image {tuple(image.shape)} and depth {tuple(depth.shape)}: give both at one size")
    grid = sampling_grid(depth, intrinsics, transform, offset)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=align_corners)
