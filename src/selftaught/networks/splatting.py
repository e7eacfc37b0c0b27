"""A differentiable renderer of 3D Gaussians in plain PyTorch (Kerbl et al., 2023), or gsplat's on a GPU.

    alpha_i(u) = min(0.99, o_i exp(-(u - u_i)^T Sigma'_i^-1 (u - u_i) / 2)),       0 where below 1 / 255
    C(u) = sum_i c_i alpha_i prod_{j < i} (1 - alpha_j) + background prod_j (1 - alpha_j),       front to back by Z

The picture is cut into tiles; a tile looks at the Gaussians whose ellipse alpha = 1/255 touches it and at no other, so
that tiles change nothing. Exponents of a tile are one matrix product with the monomials of its pixels, and so are
the sums of the backward pass, which is written out: nothing per Gaussian and pixel is kept but alpha and transmittance.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError, require
from selftaught.networks.gaussians import BLUR, NEAR, Gaussians, ProjectedGaussians, project_gaussians

__all__ = ["Rendered", "render_gaussians", "splat_gaussians"]

HIGHEST = 0.99
"""No Gaussian covers more of a pixel."""
LOWEST = 1 / 255
"""Below this share a Gaussian is left out of a pixel."""
_FADED, _FULL, _CLOSE = -6.0, math.log(HIGHEST), 1e-6
"""Logarithms of a share that is left out for certain and of the highest; how far from that one counts as that one."""
TILE, WHOLE = 8, 1 << 19
"""Side of a tile where Gaussians times pixels are more than the second number; below it the picture is one tile."""
Backend = Literal["auto", "torch", "gsplat"]


class Rendered(NamedTuple):
    """A picture of Gaussians.

    Attributes:
        image: (C, H, W), background behind.
        depth: (H, W), sum of Z by each Gaussian's share of the pixel; over ``alpha`` it is the mean Z.
        alpha: (H, W) in [0, 1], how much of a pixel is covered.
    """

    image: Tensor
    depth: Tensor
    alpha: Tensor


def render_gaussians(
    gaussians: Gaussians,
    intrinsics: Tensor,
    world_to_camera: Tensor,
    size: tuple[int, int],
    background: Tensor | float = 0.0,
    *,
    near: float = NEAR,
    blur: float = BLUR,
    pixel_centre: float = 0.5,
    backend: Backend = "auto",
    tile: int = 0,
) -> Rendered:
    """The picture that a camera takes of the Gaussians of one scene. Computes in float32 at least.

    Args:
        gaussians: G of them.
        intrinsics: (3, 3) in pixels.
        world_to_camera: (4, 4), [R | t].
        size: height and width of the picture.
        background: (C,), or one number for all channels.
        near: least Z.
        blur: variance added on the picture, pixels^2.
        pixel_centre: where the centre of the first pixel lies in the intrinsics' coordinates: 0.5 (3DGS), or 0 as
            OpenCV has it.
        backend: "torch" (ours, any device), "gsplat" (CUDA, the extra ``splatting``; three colours), or "auto": gsplat
            on CUDA where it is installed.
        tile: side of a tile in pixels (torch), 0 chooses; changes nothing but the time.

    Raises:
        UserError: shapes that don't fit; gsplat without CUDA, or not installed.
    """
    _check(gaussians, size)
    device = gaussians.means.device
    dtype = torch.promote_types(gaussians.means.dtype, torch.float32)
    with torch.autocast(device.type, enabled=False):
        gaussians = Gaussians(*(part.to(dtype) for part in gaussians))
        camera, pose = intrinsics.to(device, dtype), world_to_camera.to(device, dtype)
        channels = gaussians.colours.shape[1]
        behind = torch.as_tensor(background, dtype=dtype, device=device).expand(channels)
        if _chosen(backend, device):
            return _gsplat(gaussians, camera, pose, size, behind, near, blur, pixel_centre)
        seen = project_gaussians(gaussians, camera, pose, size, near=near, blur=blur)
        shown = torch.cat((gaussians.colours, seen.depths[:, None]), 1)
        nothing = torch.cat((behind, behind.new_zeros(1)))
        made, alpha = splat_gaussians(
            seen, gaussians.opacities, shown, size, nothing, pixel_centre=pixel_centre, tile=tile
        )  # fmt: skip
        return Rendered(made[:channels], made[channels], alpha)


def splat_gaussians(
    projected: ProjectedGaussians,
    opacities: Tensor,
    features: Tensor,
    size: tuple[int, int],
    background: Tensor,
    *,
    pixel_centre: float = 0.5,
    tile: int = 0,
) -> tuple[Tensor, Tensor]:
    """Blend Gaussians that are on the picture, front to back.

    Args:
        projected: from :func:`project_gaussians`.
        opacities: (G,).
        features: (G, F), whatever is to be blended: colours, depth.
        size: height and width.
        background: (F,).
        pixel_centre: see :func:`render_gaussians`.
        tile: side of a tile in pixels; 0 chooses.

    Returns:
        (F, H, W), and the covered share (H, W).
    """
    tile = tile or (max(size) if len(opacities) * size[0] * size[1] <= WHOLE else TILE)
    variance_x, both, variance_y = projected.covariances.unbind(1)
    determinant = (variance_x * variance_y - both * both).clamp_min(1e-12)
    conics = torch.stack((variance_y, -both, variance_x), 1) / determinant[:, None]
    with torch.no_grad():
        plan = _plan(projected, opacities, size, pixel_centre, tile)
    blended, through = _Splat.apply(
        projected.means - pixel_centre, conics, opacities, features, background, plan, size, tile
    )
    return blended, 1 - through


# ---- which Gaussians a tile sees ------------------------------------------------------------------------------------
class _Plan(NamedTuple):
    """Gaussians (P,) by tile and by depth within it; those of tile t are numbers ``starts[t]`` to ``starts[t + 1]``."""

    gaussians: Tensor
    starts: list[int]


def _plan(projected: ProjectedGaussians, opacities: Tensor, size: tuple[int, int], centre: float, tile: int) -> _Plan:
    rows, columns = (-(-side // tile) for side in size)
    order = torch.argsort(projected.depths, stable=True)
    order = order[(projected.seen & (opacities > LOWEST))[order]]
    reach = (2 * torch.log(opacities[order] / LOWEST)).sqrt()[:, None]
    half = reach * projected.covariances[order][:, [0, 2]].sqrt() * (1 + 1e-4) + 1e-3
    at = projected.means[order] - centre
    most = torch.tensor((columns, rows), device=at.device)
    first = ((at - half).clamp(-1e7, 1e7) / tile).floor().long().clamp_min(0)
    last = torch.minimum(((at + half).clamp(-1e7, 1e7) / tile).floor().long(), most - 1)
    span = (last - first + 1).clamp_min(0)
    counts = span[:, 0] * span[:, 1]
    owner = torch.repeat_interleave(counts)
    place = torch.arange(len(owner), device=at.device) - (counts.cumsum(0) - counts)[owner]
    across, down = place % span[owner, 0], place // span[owner, 0]
    tiles = (first[owner, 1] + down) * columns + first[owner, 0] + across
    by_tile = torch.argsort(tiles, stable=True)
    starts = torch.bincount(tiles, minlength=rows * columns).cumsum(0)
    return _Plan(order[owner[by_tile]], [0, *starts.tolist()])


def _monomials(height: int, width: int, like: Tensor) -> Tensor:
    """1, x, y, x^2, x y, y^2 of a tile's pixels, (height width, 6), x and y from the tile's middle."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device) - (height - 1) / 2,
        torch.arange(width, dtype=like.dtype, device=like.device) - (width - 1) / 2,
        indexing="ij",
    )
    x, y = x.flatten(), y.flatten()
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y), 1)


class _Tile(NamedTuple):
    """One tile: its part of the plan, its pixels and its middle."""

    numbers: Tensor
    rows: slice
    columns: slice
    middle: tuple[float, float]


def _tiles(plan: _Plan, size: tuple[int, int], tile: int) -> list[_Tile]:
    """The tiles that see any Gaussian."""
    columns, found = -(-size[1] // tile), []
    for t in range(len(plan.starts) - 1):
        if plan.starts[t] == plan.starts[t + 1]:
            continue
        y, x = t // columns * tile, t % columns * tile
        bottom, right = min(y + tile, size[0]), min(x + tile, size[1])
        numbers = plan.gaussians[plan.starts[t] : plan.starts[t + 1]]
        middle = ((x + right - 1) / 2, (y + bottom - 1) / 2)
        found.append(_Tile(numbers, slice(y, bottom), slice(x, right), middle))
    return found


# ---- one tile ----------------------------------------------------------------------------------------
def _coefficients(means: Tensor, conics: Tensor, opacities: Tensor, middle: tuple[float, float]) -> Tensor:
    """Of ln alpha as a polynomial of a tile's pixels, (6, K), the order of `_monomials`."""
    x, y = means[:, 0] - middle[0], means[:, 1] - middle[1]
    a, b, c = conics.unbind(1)
    constant = opacities.log() - 0.5 * (a * x * x + c * y * y) - b * x * y
    return torch.stack((constant, a * x + b * y, c * y + b * x, -0.5 * a, -b, -0.5 * c))


def _shares(alpha: Tensor, left: Tensor) -> Tensor:
    """alpha_i prod_{j < i} (1 - alpha_j), (U, K): what is left before a Gaussian less what is left behind it."""
    found = torch.empty_like(left)
    torch.sub(left[:, :-1], left[:, 1:], out=found[:, 1:])
    found[:, 0] = alpha[:, 0]
    return found


class _Splat(torch.autograd.Function):
    """Blends tile by tile; keeps alpha and what is left of the light, (U, K) of U pixels, for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        background: Tensor,
        plan: _Plan,
        size: tuple[int, int],
        tile: int,
    ) -> tuple[Tensor, Tensor]:
        blended = background[:, None, None].expand(-1, *size).clone()
        through = means.new_ones(size)
        tiles, kept = _tiles(plan, size, tile), []
        for part in tiles:
            k = part.numbers
            shape = (part.rows.stop - part.rows.start, part.columns.stop - part.columns.start)
            alpha = _monomials(*shape, means) @ _coefficients(means[k], conics[k], opacities[k], part.middle)
            alpha.clamp_(_FADED, _FULL).exp_()  # exp makes no denormal numbers, which are slow
            torch.threshold_(alpha, LOWEST, 0.0)
            left = torch.cumprod(1 - alpha, 1)
            colour = (_shares(alpha, left) @ features[k]).T + background[:, None] * left[:, -1]
            blended[:, part.rows, part.columns] = colour.unflatten(1, shape)
            through[part.rows, part.columns] = left[:, -1].unflatten(0, shape)
            kept += [alpha, left]
        ctx.save_for_backward(means, conics, opacities, features, background, through, *kept)
        ctx.tiles = tiles
        return blended, through

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        means, conics, opacities, features, background, through, *kept = ctx.saved_tensors
        of_blended, of_through = grads
        made = [torch.zeros_like(t) for t in (means, conics, opacities, features)]
        full = bool((opacities >= HIGHEST - _CLOSE).any())
        for n, part in enumerate(ctx.tiles):
            alpha, left = kept[2 * n], kept[2 * n + 1]
            k, where = part.numbers, (part.rows, part.columns)
            wanted = of_blended[:, *where].flatten(1)
            last = (background @ wanted + of_through[where].flatten()) * left[:, -1]
            weight = _shares(alpha, left)
            made[3].index_add_(0, k, (wanted @ weight).T)
            slope = _slope(alpha, weight, wanted.T @ features[k].T, last)
            if full:
                slope.masked_fill_(alpha >= HIGHEST - _CLOSE, 0.0)
            height, width = through[where].shape
            moments = slope.T @ _monomials(height, width, means)
            _spread(made, moments, k, means[k], conics[k], opacities[k], part.middle)
        of_background = (of_blended * through).sum((1, 2))
        return (*made, of_background, None, None, None)


def _slope(alpha: Tensor, weight: Tensor, light: Tensor, last: Tensor) -> Tensor:
    """d loss / d ln alpha (U, K): what a Gaussian adds itself, less its part of what comes from behind it."""
    added = weight.mul_(light)
    later = added.cumsum(1)
    later = torch.sub((later[:, -1] + last)[:, None], later)
    return added.sub_(later.mul_(alpha / (1 - alpha)))


def _spread(
    made: list[Tensor],
    moments: Tensor,
    k: Tensor,
    means: Tensor,
    conics: Tensor,
    opacities: Tensor,
    middle: tuple[float, float],
) -> None:
    """Add a tile's part of the gradients of means, conics and opacities: sums over its pixels, (K, 6)."""
    m0, mx, my, mxx, mxy, myy = moments.unbind(1)
    x, y = means[:, 0] - middle[0], means[:, 1] - middle[1]
    a, b, c = conics.unbind(1)
    dx, dy = mx - x * m0, my - y * m0  # sums of slope times (u - u_i)
    made[0].index_add_(0, k, torch.stack((a * dx + b * dy, b * dx + c * dy), 1))
    dxx, dyy = mxx - 2 * x * mx + x * x * m0, myy - 2 * y * my + y * y * m0
    dxy = mxy - x * my - y * mx + x * y * m0
    made[1].index_add_(0, k, torch.stack((-0.5 * dxx, -dxy, -0.5 * dyy), 1))
    made[2].index_add_(0, k, m0 / opacities)


# ---- gsplat ----------------------------------------------------------------------------------------
def _chosen(backend: str, device: torch.device) -> bool:
    """Whether gsplat renders.

    Raises:
        UserError: an unknown backend, gsplat without CUDA.
    """
    if backend not in ("auto", "torch", "gsplat"):
        raise UserError(f"backend={backend!r}: choose auto, torch or gsplat")
    if backend == "gsplat" and device.type != "cuda":
        raise UserError("backend=gsplat renders on CUDA alone; use backend=torch on this device")
    if backend != "auto":
        return backend == "gsplat"
    if device.type != "cuda":
        return False
    from importlib.util import find_spec

    return find_spec("gsplat") is not None


def _gsplat(
    gaussians: Gaussians,
    intrinsics: Tensor,
    world_to_camera: Tensor,
    size: tuple[int, int],
    background: Tensor,
    near: float,
    blur: float,
    pixel_centre: float,
) -> Rendered:
    """By gsplat, whose first pixel's centre lies at 0.5."""
    library: Any = require("gsplat", "splatting")
    shift = torch.zeros_like(intrinsics)
    shift[:2, 2] = 0.5 - pixel_centre
    made, alpha, _ = library.rasterization(
        gaussians.means, torch.nn.functional.normalize(gaussians.quaternions, dim=1), gaussians.scales,
        gaussians.opacities, gaussians.colours, world_to_camera[None], (intrinsics + shift)[None], size[1], size[0],
        near_plane=near, eps2d=blur, render_mode="RGB+D", packed=False,
    )  # fmt: skip
    channels, alpha = gaussians.colours.shape[1], alpha[0, :, :, 0]
    image = made[0, :, :, :channels].permute(2, 0, 1) + (1 - alpha) * background[:, None, None]
    return Rendered(image, made[0, :, :, channels], alpha)


def _check(gaussians: Gaussians, size: tuple[int, int]) -> None:
    count = len(gaussians.means)
    wanted = ((count, 3), (count, 4), (count, 3), (count,))
    shapes = [tuple(part.shape) for part in gaussians]
    if tuple(shapes[:4]) != wanted or len(shapes[4]) != 2 or shapes[4][0] != count:
        raise UserError(f"Gaussians need shapes (G, 3), (G, 4), (G, 3), (G,) and (G, C), got {shapes}")
    if min(size) < 1 or not math.isfinite(size[0] * size[1]):
        raise UserError(f"size={size}: height and width of at least a pixel are needed")
