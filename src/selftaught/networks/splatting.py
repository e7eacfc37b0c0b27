"""A differentiable renderer of 3D Gaussians (Kerbl et al., 2023): compiled kernels on a CPU, plain PyTorch, or gsplat.

    alpha_i(u) = min(0.99, o_i exp(-(u - u_i)^T Sigma'_i^-1 (u - u_i) / 2)),       0 where below 1 / 255
    C(u) = sum_i c_i alpha_i prod_{j < i} (1 - alpha_j) + background prod_j (1 - alpha_j),       front to back by Z

The picture is cut into tiles; a tile looks at the Gaussians whose ellipse alpha = 1/255 touches it and at no other, so
that tiles change nothing. Exponents of a tile are one matrix product with the monomials of its pixels, and so are
the sums of the backward pass, which is written out: nothing per Gaussian and pixel is kept but alpha and transmittance.
The kernels of :mod:`selftaught.networks._splat_blending` (single precision on a CPU, where Numba is installed) keep not
even those.
"""

from __future__ import annotations

import functools
import logging
import math
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError, require
from selftaught.networks._splat_tiles import HIGHEST, LOWEST, Group, Plan, monomials, plan_tiles
from selftaught.networks.gaussians import BLUR, NEAR, Gaussians, ProjectedGaussians, check_camera, project_gaussians

__all__ = ["Rendered", "render_gaussians", "splat_gaussians"]

_FADED, _FULL, _CLOSE = -6.0, math.log(HIGHEST), 1e-6
"""Logarithms of a share that is left out for certain and of the highest; how far from that one counts as that one."""
TILE, WHOLE = 4, 1 << 19
"""Side of a tile where Gaussians times pixels are more than the second number; below it the picture is one tile."""
Backend = Literal["auto", "torch", "numba", "gsplat"]
_log = logging.getLogger(__name__)


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
        backend: "torch" (any device), "numba" (compiled kernels: float32 on a CPU, the extra ``kernels``), "gsplat"
            (CUDA, the extra ``splatting``), or "auto": one of the two where it can be had, else PyTorch. They agree up
            to rounding, where a share at just 1 / 255 may count for one and not for another.
        tile: side of a tile in pixels (torch), 0 chooses; changes nothing but the time.

    Raises:
        UserError: shapes that don't fit; a backend that isn't installed or can't do this device or precision.
    """
    _check(gaussians, size)
    check_camera(gaussians, intrinsics, world_to_camera)
    device = gaussians.means.device
    dtype = torch.promote_types(gaussians.means.dtype, torch.float32)
    with torch.autocast(device.type, enabled=False):
        gaussians = Gaussians(*(part.to(dtype) for part in gaussians))
        camera, pose = intrinsics.to(device, dtype), world_to_camera.to(device, dtype)
        channels = gaussians.colours.shape[1]
        behind = torch.as_tensor(background, dtype=dtype, device=device).expand(channels)
        chosen = _chosen(backend, device, dtype, camera.requires_grad)
        if chosen == "gsplat":
            return _gsplat(gaussians, camera, pose, size, behind, near, blur, pixel_centre)
        if chosen == "numba":
            from selftaught.networks._splat_fast import render  # imports Numba

            made, through = render(
                gaussians, camera, pose, size, behind, near=near, blur=blur, pixel_centre=pixel_centre
            )
            return Rendered(made[:channels], made[channels], 1 - through)
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
        plan = plan_tiles(projected, opacities, size, pixel_centre, tile)
    blended, through = _Splat.apply(projected.means - pixel_centre, conics, opacities, features, background, plan, size)
    return blended, 1 - through


# ---- blending ----------------------------------------------------------------------------------------
class _Seen(NamedTuple):
    """The Gaussians of a group: centres from the tile's middle, conics, ln of opacities (B, K), features (B, K, F)."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    log_opacities: Tensor
    features: Tensor

    def coefficients(self) -> Tensor:
        """Of ln alpha as a polynomial of a tile's pixels, (B, 6, K), the order of `monomials`."""
        x, y, a, b, c = self[:5]
        gx, gy = a * x + b * y, c * y + b * x
        constant = self.log_opacities - 0.5 * (gx * x + gy * y)
        return torch.stack((constant, gx, gy, -0.5 * a, -b, -0.5 * c), 1)


def _table(means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor) -> Tensor:
    """A row for each Gaussian, and a last one that stands for none: nothing is seen of it."""
    table = means.new_zeros(len(means) + 1, 6 + features.shape[1])
    table[-1, 5] = -1e4
    torch.cat((means, conics, opacities.log()[:, None], features), 1, out=table[:-1])
    return table


def _seen(table: Tensor, plan: Plan, group: Group) -> _Seen:
    rows = table.index_select(0, group.gaussians.flatten()).unflatten(0, group.gaussians.shape)
    x, y, a, b, c, log_opacities = rows[:, :, :6].movedim(2, 0).contiguous()
    middle_x, middle_y = plan.middles(group.tiles, table.dtype)
    return _Seen(x - middle_x, y - middle_y, a, b, c, log_opacities, rows[:, :, 6:])


def _shares(alpha: Tensor, left: Tensor) -> Tensor:
    """alpha_i prod_{j < i} (1 - alpha_j), (B, U, K): what is left before a Gaussian less what is left behind it."""
    found = torch.empty_like(left)
    torch.sub(left[:, :, :-1], left[:, :, 1:], out=found[:, :, 1:])
    found[:, :, 0] = alpha[:, :, 0]
    return found


class _Splat(torch.autograd.Function):
    """Blends groups of tiles; keeps alpha and what is left of the light, (B, U, K) of U pixels, for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        background: Tensor,
        plan: Plan,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        pixels = plan.side[0] * plan.side[1]
        tiles = plan.grid[0] * plan.grid[1]
        blended = background[None, :, None].repeat(tiles, 1, pixels)
        through = means.new_ones(tiles, 1, pixels)
        table, basis, kept = _table(means, conics, opacities, features), monomials(*plan.side, means), []
        for group in plan.groups:
            seen = _seen(table, plan, group)
            alpha = torch.matmul(basis, seen.coefficients())
            alpha.clamp_(_FADED, _FULL).exp_()  # exp makes no denormal numbers, which are slow
            torch.threshold_(alpha, LOWEST, 0.0)
            left = torch.cumprod(1 - alpha, 2)
            last = left[:, None, :, -1]
            blended[group.tiles] = (_shares(alpha, left) @ seen.features).mT + background[:, None] * last
            through[group.tiles] = last
            kept += [alpha, left, *seen]
        through = plan.joined(through, size)[0]
        ctx.save_for_backward(opacities, background, through, *kept)
        ctx.plan = plan
        return plan.joined(blended, size), through

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        opacities, background, through, *kept = ctx.saved_tensors
        of_blended, of_through = grads
        plan: Plan = ctx.plan
        full = bool((opacities >= HIGHEST - _CLOSE).any())
        basis, made = monomials(*plan.side, opacities), opacities.new_zeros(len(opacities) + 1, 6 + len(background))
        all_wanted = plan.cut(of_blended)
        behind = background @ all_wanted + plan.cut(of_through[None])[:, 0]
        for n, group in enumerate(plan.groups):
            alpha, left, *parts = kept[9 * n : 9 * n + 9]
            seen, wanted = _Seen(*parts), all_wanted[group.tiles]
            weight = _shares(alpha, left)
            of_features = wanted @ weight
            slope = _slope(alpha, weight, wanted.mT @ seen.features.mT, behind[group.tiles] * left[:, :, -1])
            if full:
                slope.masked_fill_(alpha >= HIGHEST - _CLOSE, 0.0)
            found = torch.cat((_spread(seen, basis.T @ slope), of_features), 1)
            made.index_add_(0, group.gaussians.flatten(), found.mT.reshape(-1, found.shape[1]))
        of_background = (of_blended * through).sum((1, 2))
        made = made[:-1]
        return made[:, :2], made[:, 2:5], made[:, 5] / opacities, made[:, 6:], of_background, None, None


def _slope(alpha: Tensor, weight: Tensor, light: Tensor, last: Tensor) -> Tensor:
    """d loss / d ln alpha (B, U, K): what a Gaussian adds itself, less its part of what comes from behind it."""
    added = weight.mul_(light)
    later = added.cumsum(2)
    later = torch.sub((later[:, :, -1] + last)[:, :, None], later)
    return added.sub_(later.mul_(alpha / (1 - alpha)))


def _spread(seen: _Seen, moments: Tensor) -> Tensor:
    """Gradients of centres, conics and ln opacities (B, 6, K), of sums over a tile's pixels (B, 6, K)."""
    m0, mx, my, mxx, mxy, myy = moments.unbind(1)
    x, y, a, b, c = seen[:5]
    dx, dy = mx - x * m0, my - y * m0  # sums of slope times (u - u_i)
    dxx, dyy = mxx - x * (mx + dx), myy - y * (my + dy)
    dxy = mxy - x * my - y * dx
    return torch.stack((a * dx + b * dy, b * dx + c * dy, -0.5 * dxx, -dxy, -0.5 * dyy, m0), 1)


# ---- other backends ------------------------------------------------------------------------------------
def _chosen(backend: str, device: torch.device, dtype: torch.dtype, learns_intrinsics: bool) -> str:
    """The backend that renders.

    Raises:
        UserError: an unknown one, gsplat without CUDA or for the intrinsics' gradient, Numba not in float32 on a CPU.
    """
    if backend not in ("auto", "torch", "numba", "gsplat"):
        raise UserError(f"backend={backend!r}: choose auto, torch, numba or gsplat")
    single = device.type == "cpu" and dtype == torch.float32
    if backend == "gsplat" and device.type != "cuda":
        raise UserError("backend=gsplat renders on CUDA alone; use backend=torch on this device")
    if backend == "gsplat" and (learns_intrinsics or dtype != torch.float32):
        raise UserError("backend=gsplat has float32 alone and no gradient of the intrinsics; use backend=torch")
    if backend == "numba":
        if not single:
            raise UserError(f"backend=numba renders float32 on a CPU, got {dtype} on {device.type}; use backend=torch")
        require("numba", "kernels")
    if backend != "auto":
        return backend
    if device.type == "cuda":
        can = dtype == torch.float32 and not learns_intrinsics
        return "gsplat" if can and find_spec("gsplat") is not None else "torch"
    return "numba" if single and _numba_is_there() else "torch"


@functools.cache
def _numba_is_there() -> bool:
    """Whether the kernels can run; says once if they can't."""
    found = find_spec("numba") is not None
    if not found:
        _log.warning(
            "splatting in plain PyTorch; pip install 'selftaught[kernels]' brings kernels several times as fast"
        )
    return found


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
    """By gsplat, whose first pixel's centre lies at 0.5.

    It differs from the others where a ten-thousandth of the light is left (it stops), at Gaussians far beside a picture
    whose principal point isn't its middle (held within limits around that point), and in older versions beyond three
    deviations and above alpha = 0.99.
    """
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
