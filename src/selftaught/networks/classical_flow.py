"""Optical flow between frames without training: OpenCV's DIS, which needs no weights, or RAFT with its own."""

from __future__ import annotations

import functools
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from selftaught.errors import UserError
from selftaught.networks.optical_flow import raft

__all__ = ["FlowName", "optical_flow"]

FlowName = Literal["dis", "farneback", "raft"]
_LEAST = {"dis": 16, "farneback": 16, "raft": 128}


@torch.no_grad()
def optical_flow(first: Tensor, second: Tensor, *, method: FlowName = "dis", iterations: int = 20) -> Tensor:
    """Where each pixel of one picture is in another, in pixels: (u to the right, v down).

    Args:
        first: (N, C, H, W) in [0, 1].
        second: the same shape.
        method: "dis" (Kroeger et al., 2016) or "farneback" on the CPU; "raft" (Teed and Deng, 2020), whose weights are
            downloaded once.
        iterations: of RAFT.

    Returns:
        (N, 2, H, W) float32 on the pictures' device. Small pictures are padded by their border.

    Raises:
        UserError: other shapes, or RAFT's weights can't be had.
    """
    if first.shape != second.shape or first.ndim != 4:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise UserError(f"optical_flow: pictures of {shapes}; both must be one (N, C, H, W)")
    if method not in _LEAST:
        raise UserError(f"optical_flow: no method {method!r}; it may be {', '.join(_LEAST)}")
    height, width = first.shape[2:]
    least = _LEAST[method]
    edges = (0, max(0, least - width), 0, max(0, least - height))
    a, b = (pad(x.float(), edges, mode="replicate") if any(edges) else x.float() for x in (first, second))
    flow = _raft(a, b, iterations) if method == "raft" else _classical(a, b, method)
    return flow[..., :height, :width]


# ---- OpenCV ------------------------------------------------------------------------------------------------------
def _grey(x: Tensor) -> np.ndarray:
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device) if x.shape[1] == 3 else None
    grey = x.mean(1) if weights is None else (x * weights[:, None, None]).sum(1)
    return (grey.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _classical(first: Tensor, second: Tensor, method: str) -> Tensor:
    import cv2

    made: Any = cv2  # whose stubs lack it
    dis = made.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = []
    for a, b in zip(_grey(first), _grey(second), strict=True):
        start = np.zeros((*a.shape, 2), np.float32)
        if method == "dis":
            found.append(dis.calc(a, b, start))
        else:
            found.append(cv2.calcOpticalFlowFarneback(a, b, start, 0.5, 3, 11, 3, 5, 1.1, 0))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(first.device)


# ---- RAFT --------------------------------------------------------------------------------------------------------
@functools.cache
def _raft_network(device: str) -> Any:
    try:
        return raft("large").to(device)
    except UserError as error:
        raise UserError(f"--flow raft: {str(error).partition(';')[0]}; go online once, or take --flow dis") from None


def _raft(first: Tensor, second: Tensor, iterations: int) -> Tensor:
    height, width = first.shape[2:]
    edges = (0, -width % 8, 0, -height % 8)
    a, b = (2 * pad(x.expand(-1, 3, -1, -1), edges, mode="replicate") - 1 for x in (first, second))
    flow: Tensor = _raft_network(str(first.device)).module.network(a, b, num_flow_updates=iterations)[-1]
    return flow[..., :height, :width]
