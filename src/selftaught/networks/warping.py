"""Pictures and maps moved by optical flow: sampled where a flow points (backward), or thrown there (forward).

A flow F (N, 2, H, W) is in pixels, channel 0 to the right and channel 1 downwards: what is at p in the one frame is at
p + F(p) in the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.projection import exact

__all__ = ["clamped_warp", "flow_grid", "flow_warp", "reversed_flows", "splat"]

_SEEN = 0.999


def flow_grid(flow: Tensor) -> Tensor:
    """Where a flow points, (N, H, W, 2) for ``grid_sample``: 2 x / (W - 1) - 1 and 2 y / (H - 1) - 1.

    -1 and 1 are the centres of the outermost pixels, as ``align_corners=True`` has it.

    Raises:
        UserError: not (N, 2, H, W).
    """
    if flow.dim() != 4 or flow.shape[1] != 2:
        raise UserError(f"flow: shape {tuple(flow.shape)}; pass (N, 2, H, W), in pixels to the right and down")
    height, width = flow.shape[2:]
    across = torch.arange(width, dtype=flow.dtype, device=flow.device)
    down = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    x, y = flow[:, 0] + across, flow[:, 1] + down
    return torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), -1)


@exact
def flow_warp(image: Tensor, flow: Tensor, *, align_corners: bool = False, masked: bool = True) -> Tensor:
    """A picture sampled where a flow points, bilinear, the border repeated.

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W) pixels.
        align_corners: how ``grid_sample`` reads the grid (see `flow_grid`). False (default) is what SelfDRSC's release
            does: up to half a pixel off towards the borders. True is exact.
        masked: whether a pixel that would come from outside is 0: where ones, with zeros around them, are sampled below
            0.999.

    Returns:
        (N, C, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    _same_places(image, flow)
    grid = flow_grid(flow)
    found = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=align_corners)
    if not masked:
        return found
    with torch.no_grad():
        ones = image.new_ones((len(image), 1, *image.shape[2:]))
        seen = F.grid_sample(ones, grid, mode="bilinear", padding_mode="zeros", align_corners=align_corners)
    return found * (seen >= _SEEN).to(found.dtype)


@exact
def clamped_warp(image: Tensor, flows: Tensor) -> Tensor:
    """A picture sampled where each of several flows points; what points outside takes the nearest border pixel.

    Args:
        image: (N, C, H, W).
        flows: (N, 2n, H, W), one flow after the other.

    Returns:
        (N, nC, H, W), the warped pictures one after the other.

    Raises:
        UserError: shapes that don't fit.
    """
    if flows.dim() != 4 or flows.shape[1] % 2:
        raise UserError(f"flows: shape {tuple(flows.shape)}; pass (N, 2n, H, W)")
    count = flows.shape[1] // 2
    single = flows.unflatten(1, (count, 2)).flatten(0, 1)
    repeated = image.unsqueeze(1).expand(-1, count, -1, -1, -1).flatten(0, 1)
    _same_places(repeated, single)
    grid = flow_grid(single).clamp(-1, 1)
    found = F.grid_sample(repeated, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return found.unflatten(0, (-1, count)).flatten(1, 2)


@exact
def splat(values: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Throw every pixel to where a flow points: each of the four pixels around that place gets it, weighted.

    The weight is exp(-d^2), d the distance in pixels: not normalised, so that a pixel that lands on another's centre
    gives it weight 1 and e^-1, e^-1, e^-2 to three neighbours. What falls outside is lost.

    Args:
        values: (N, C, H, W).
        flow: (N, 2, H, W) pixels.

    Returns:
        Sum of the weighted values (N, C, H, W), and sum of the weights (N, 1, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    _same_places(values, flow)
    n, channels, height, width = values.shape
    across = torch.arange(width, dtype=flow.dtype, device=flow.device)
    down = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    left, top = flow[:, 0].detach().floor(), flow[:, 1].detach().floor()
    flat = torch.cat((values, torch.ones_like(values[:, :1])), 1)
    summed = flat.new_zeros((n, channels + 1, height * width))
    for right in (0, 1):
        for below in (0, 1):
            x, y = left + right, top + below
            weight = torch.exp(-((flow[:, 0] - x) ** 2 + (flow[:, 1] - y) ** 2))
            x, y = x + across, y + down
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long().view(n, 1, -1)
            thrown = flat * (weight * inside)[:, None]
            summed = summed.scatter_add(2, place.expand(-1, channels + 1, -1), thrown.flatten(2))
    summed = summed.view(n, channels + 1, height, width)
    return summed[:, :-1], summed[:, -1:]


@exact
def reversed_flows(flow_ab: Tensor, flow_ba: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Complementary flow reversal: flows from an instant between two frames to both of them.

    ::

        A, n_A = splat(F_ab, t F_ab)      B, n_B = splat(F_ba, (1 - t) F_ba)      n = (1 - t) n_A + t n_B
        F_ta = (-(1 - t) t A + t^2 B) / n            F_tb = ((1 - t)^2 A - t (1 - t) B) / n

    where n > 0; elsewhere they are not divided. XVFI (Sim et al., ICCV 2021), with a time of its own for every pixel
    as SelfDRSC has it.

    Args:
        flow_ab: (N, 2, H, W) from frame a to frame b.
        flow_ba: from b to a.
        t: (N, 1, H, W) in [0, 1]; 0 is frame a.

    Returns:
        F_ta and F_tb, (N, 2, H, W) each.

    Raises:
        UserError: shapes that don't fit.
    """
    if flow_ab.shape != flow_ba.shape or t.shape != (len(flow_ab), 1, *flow_ab.shape[2:]):
        shapes = f"{tuple(flow_ab.shape)}, {tuple(flow_ba.shape)} and {tuple(t.shape)}"
        raise UserError(f"flows and times: shapes {shapes}; pass two flows (N, 2, H, W) and t (N, 1, H, W)")
    thrown_a, weight_a = splat(flow_ab, t * flow_ab)
    thrown_b, weight_b = splat(flow_ba, (1 - t) * flow_ba)
    weight = (1 - t) * weight_a + t * weight_b
    divisor = torch.where(weight > 0, weight, torch.ones_like(weight))
    to_a = (-(1 - t) * t * thrown_a + t**2 * thrown_b) / divisor
    to_b = ((1 - t) ** 2 * thrown_a - t * (1 - t) * thrown_b) / divisor
    return to_a, to_b


def _same_places(image: Tensor, flow: Tensor) -> None:
    if image.dim() != 4 or flow.shape != (len(image), 2, *image.shape[2:]):
        shapes = f"{tuple(image.shape)} and {tuple(flow.shape)}"
        raise UserError(f"image and flow: shapes {shapes}; pass (N, C, H, W) and (N, 2, H, W)")
