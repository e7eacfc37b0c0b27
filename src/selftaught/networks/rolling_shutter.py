"""The rolling shutter: when a row was read, and pictures as such a shutter would have taken them.

A read-out takes one unit of time. ``rows`` (N, 1, H, W) says of every pixel where its row lies in the whole frame, 0 at
the top and 1 at the bottom; of a crop it is the crop of the frame's, never made anew. A camera that reads from the top
to the bottom ("t2b") reads a pixel at s = rows, one that reads upwards ("b2t") at s = 1 - rows.

Shang et al., "Self-supervised learning to bring dual reversed rolling shutter images alive" (SelfDRSC), ICCV 2023,
arXiv 2305.19862.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.networks.warping import flow_warp, reversed_flows

__all__ = [
    "DIRECTIONS",
    "TimeMaps",
    "bidirectional_warp",
    "frame_rows",
    "redistorted",
    "scan_time",
    "time_codes",
    "time_maps",
]

Direction = Literal["t2b", "b2t"]
DIRECTIONS: tuple[Direction, Direction] = ("t2b", "b2t")
PAIRS = ("01", "10", "0i", "i0", "i1", "1i")
"""Flows between the start (0), an instant between (i) and the end (1) of the read-out: "0i" goes from 0 to i."""


def frame_rows(height: int, width: int, like: Tensor | None = None) -> Tensor:
    """y / (H - 1) of a whole frame, (1, 1, H, W) of the type and on the device of ``like``.

    Raises:
        UserError: fewer than two rows.
    """
    if height < 2:
        raise UserError(f"height {height}: a read-out has two rows at least")
    dtype, device = (torch.float32, None) if like is None else (like.dtype, like.device)
    column = torch.arange(height, dtype=dtype, device=device) / (height - 1)
    return column.view(1, 1, -1, 1).expand(1, 1, height, width)


def scan_time(rows: Tensor, direction: Direction) -> Tensor:
    """When each pixel is read, of its place in the frame.

    Raises:
        UserError: neither "t2b" nor "b2t".
    """
    if direction not in DIRECTIONS:
        raise UserError(f"direction {direction!r}: it may be t2b or b2t")
    return rows if direction == "t2b" else 1 - rows


def time_codes(rows: Tensor, instants: Tensor) -> Tensor:
    """The network's time codes: how long after each instant a pixel was read, in [-1, 1].

    tau = (y - r) / (H - 1) for t2b and (H - 1 - r - y) / (H - 1) for b2t, r the row that is read at the instant.

    Args:
        rows: (N, 1, H, W).
        instants: (N, n) in [0, 1].

    Returns:
        (N, 2n, H, W): those of t2b, then those of b2t.

    Raises:
        UserError: shapes that don't fit.
    """
    if instants.dim() != 2 or len(instants) != len(rows):
        raise UserError(f"instants: shape {tuple(instants.shape)} for {len(rows)} samples; pass ({len(rows)}, n)")
    at = instants.to(rows.dtype)[:, :, None, None]
    return torch.cat([scan_time(rows, direction) - at for direction in DIRECTIONS], 1)


class TimeMaps(NamedTuple):
    """How far a pixel's time lies between neighbouring frames of start, instant and end; (N, 1, H, W) each.

    Attributes:
        before: f = min(s / r, 1), between the start and the instant r.
        after: g = (s - r) / (1 - r) where s >= r, else 0: between the instant and the end.
        first: m = 1 where s <= r, else 0: the pixel is read before the instant.
    """

    before: Tensor
    after: Tensor
    first: Tensor


def time_maps(rows: Tensor, instant: Tensor | float, direction: Direction) -> TimeMaps:
    """Time maps of a read-out that is parted at an instant.

    Args:
        rows: (N, 1, H, W).
        instant: r, strictly between 0 and 1; one, or (N,).
        direction: "t2b" or "b2t"; the maps of the one are those of the other upside down.

    Raises:
        UserError: an instant at the start or the end, where a part would last no time.
    """
    at = torch.as_tensor(instant, dtype=rows.dtype, device=rows.device).reshape(-1)
    if at.device.type == "cpu" and not bool(((at > 0) & (at < 1)).all()):
        raise UserError(f"instant {at.tolist()}: it must lie between 0 and 1, both excluded")
    at = at[:, None, None, None]
    read = scan_time(rows, direction)
    return TimeMaps((read / at).clamp(max=1), ((read - at) / (1 - at)).clamp(min=0), (read <= at).to(rows.dtype))


def bidirectional_warp(
    first: Tensor, second: Tensor, flow_ab: Tensor, flow_ba: Tensor, t: Tensor, *, align_corners: bool = False
) -> Tensor:
    """A picture of which each pixel shows its own instant between two frames (bidirectional distortion warping).

    (1 - t) warp(a, F_ta) + t warp(b, F_tb), with the flows of `reversed_flows`; what comes from outside a frame is 0.

    Args:
        first: frame a, (N, C, H, W).
        second: frame b.
        flow_ab: (N, 2, H, W) pixels from a to b.
        flow_ba: from b to a.
        t: (N, 1, H, W), 0 at a and 1 at b.
        align_corners: see `flow_warp`.

    Returns:
        (N, C, H, W).

    Raises:
        UserError: shapes that don't fit.
    """
    to_a, to_b = reversed_flows(flow_ab, flow_ba, t)
    seen_a, seen_b = (flow_warp(x, f, align_corners=align_corners) for x, f in ((first, to_a), (second, to_b)))
    return (1 - t) * seen_a + t * seen_b


def redistorted(
    frames: Tensor,
    flows: Mapping[str, Tensor],
    rows: Tensor,
    instant: Tensor | float,
    *,
    mid: bool = True,
    align_corners: bool = False,
) -> dict[str, Tensor]:
    """Both rolling-shutter pictures again, of the global-shutter frames at the start, an instant and the end.

    The whole read-out from start and end alone, and in two parts that meet at the instant:
    m RS(G_0, G_i, f) + (1 - m) RS(G_i, G_1, g).

    Args:
        frames: (N, 3, C, H, W).
        flows: (N, 2, H, W) of each of "01", "10", and with ``mid`` "0i", "i0", "i1", "1i".
        rows: (N, 1, H, W).
        instant: of the middle frame; one, or (N,).
        mid: whether the two parts are made.
        align_corners: see `flow_warp`.

    Returns:
        "t2b" and "b2t", of the whole; with ``mid`` "t2b mid" and "b2t mid". (N, C, H, W) each.

    Raises:
        UserError: a flow that is missing, shapes that don't fit.
    """
    needed = PAIRS if mid else PAIRS[:2]
    if missing := [name for name in needed if name not in flows]:
        raise UserError(f"flows: {', '.join(missing)} missing; the read-out needs {', '.join(needed)}")
    if frames.dim() != 5 or frames.shape[1] != 3:
        raise UserError(f"frames: shape {tuple(frames.shape)}; pass (N, 3, C, H, W): start, instant, end")
    start, between, end = frames.unbind(1)
    found: dict[str, Tensor] = {}
    for direction in DIRECTIONS:
        read = scan_time(rows, direction)
        found[direction] = bidirectional_warp(start, end, flows["01"], flows["10"], read, align_corners=align_corners)
        if not mid:
            continue
        maps = time_maps(rows, instant, direction)
        early = bidirectional_warp(start, between, flows["0i"], flows["i0"], maps.before, align_corners=align_corners)
        late = bidirectional_warp(between, end, flows["i1"], flows["1i"], maps.after, align_corners=align_corners)
        found[f"{direction} mid"] = maps.first * early + (1 - maps.first) * late
    return found
