"""Volume rendering of a cloud with densities and colours: the baseline that Gaussian splatting is set against.

    c(x) = sum_i w_i c_i / sum_i w_i,    sigma(x) = sum_i o_i w_i / delta,    w_i = exp(-||x - mu_i||^2 / (2 s_i^2))
    C = sum_t (1 - exp(-sigma_t delta)) prod_{u < t} exp(-sigma_u delta) c_t

over the nearest points of each sample on a ray. It is implicit and slow, so that a step looks at some rays alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.gaussians import Gaussians

__all__ = ["pixel_rays", "render_rays"]

_TINY = 1e-6


def pixel_rays(pixels: Tensor, intrinsics: Tensor, world_to_camera: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays begin and how far a unit of depth takes them, (R, 3) each, of pixels (R, 2) as x and y."""
    focal = torch.stack((intrinsics[0, 0], intrinsics[1, 1]))
    ahead = torch.cat(((pixels - intrinsics[:2, 2]) / focal, torch.ones_like(pixels[:, :1])), 1)
    turn = world_to_camera[:3, :3]
    return (-world_to_camera[:3, 3] @ turn).expand(len(pixels), 3), ahead @ turn


def render_rays(
    gaussians: Gaussians,
    origins: Tensor,
    directions: Tensor,
    *,
    near: float = 0.2,
    far: float = 8.0,
    samples: int = 32,
    neighbours: int = 8,
    background: Tensor | float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (R, C), depth (R,) and covered share (R,) of rays through round Gaussians (their mean deviation counts).

    Args:
        gaussians: G of one scene; quaternions have no part in it.
        origins: (R, 3).
        directions: (R, 3), a unit of depth each.
        near: depth of the first sample.
        far: depth of the last.
        samples: on each ray, jittered within their intervals.
        neighbours: nearest Gaussians that each sample sees.
        background: behind everything.
        generator: of the jitter.

    Raises:
        UserError: depths that aren't 0 <= near < far, fewer than one sample.
    """
    if not 0 <= near < far or samples < 1:
        raise UserError(f"rays from {near:g} to {far:g} with {samples} samples: give 0 <= near < far, and one or more")
    step = (far - near) / samples
    jitter = torch.rand(len(origins), samples, generator=generator).to(origins)
    depth = near + step * (torch.arange(samples, device=origins.device) + jitter)
    places = origins[:, None] + depth[..., None] * directions[:, None]
    flat = places.flatten(0, 1)
    k = min(neighbours, len(gaussians.means))
    with torch.no_grad():
        nearest = torch.cdist(flat, gaussians.means).topk(k, dim=1, largest=False).indices
    scale = gaussians.scales.mean(1)[nearest]
    weight = torch.exp(-(flat[:, None] - gaussians.means[nearest]).square().sum(2) / (2 * scale.square()))
    thickness = (weight * gaussians.opacities[nearest]).sum(1).unflatten(0, (-1, samples))
    colour = (weight[..., None] * gaussians.colours[nearest]).sum(1) / (weight.sum(1, keepdim=True) + _TINY)
    alpha = 1 - torch.exp(-thickness)
    left = torch.cumprod(1 - alpha, 1)
    share = alpha * torch.cat((torch.ones_like(left[:, :1]), left[:, :-1]), 1)
    made = (share[..., None] * colour.unflatten(0, (-1, samples))).sum(1)
    behind = torch.as_tensor(background, dtype=made.dtype, device=made.device)
    return made + left[:, -1:] * behind, (share * depth).sum(1), 1 - left[:, -1]
