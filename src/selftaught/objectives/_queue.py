"""What contrast with a queue of past keys, or within the batch against keys, has in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.objectives._common import check_entries, check_positive, check_views, softplus, unit
from selftaught.objectives._tiled import lse_rows, lse_self

CHUNK = 2**22
"""Numbers that a chunk of gathered queue rows, or of similarities that need no gradient, may hold."""


def batch_infonce(a: Tensor, b: Tensor, temperature: float | Tensor, *, include_positive: bool = True) -> Tensor:
    """Mean over i of -log( exp(a_i.b_i/t) / sum_j exp(a_i.b_j/t) ) of the normalised rows of a and b, both (N, D).

    Without ``include_positive`` the sum is over j != i, which needs two rows.
    """
    why = "" if include_positive else " (one sample has no negatives); raise the batch size"
    rows, _ = check_views(a, b, minimum=1 if include_positive else 2, why=why)
    check_positive(temperature=temperature)
    a, b, scale = unit(a), unit(b), 1 / temperature
    own = torch.arange(rows, device=a.device).unsqueeze(1)
    negatives = lse_rows(a, b, scale=scale, exclude=own, bound=scale)
    return contrast((a * b).sum(1) * scale, negatives, include_positive)


def contrast(positive: Tensor, negatives: Tensor, include_positive: bool) -> Tensor:
    """Mean of -log of the positive's share; a row without negatives (log-sum -inf) adds 0 either way."""
    if include_positive:
        return softplus(negatives - positive).mean()
    return torch.where(negatives.isneginf(), 0.0, negatives - positive).mean()


@torch.no_grad()
def hardest(q: Tensor, queue: Tensor, mask: Tensor | None) -> Tensor:
    """The highest similarity of each query to its negatives (B,), -inf without one; a part of the queue at a time."""
    step = max(1, CHUNK // max(1, len(q)))
    highest = q.new_full((len(q),), -math.inf)
    for start in range(0, len(queue), step):
        part = q @ queue[start : start + step].T
        if mask is not None:
            part = part.masked_fill(mask[:, start : start + step], -math.inf)
        highest = torch.maximum(highest, part.amax(1))
    return highest


@torch.no_grad()
def diagnostics(q: Tensor, k: Tensor, hardest: Tensor) -> dict[str, Tensor]:
    """Proxy-task accuracy, alignment and uniformity of unit queries and keys, given the hardest negatives' scores."""
    rows = len(q)
    found = {
        "proxy_accuracy": ((q * k).sum(1) > hardest).to(q.dtype).mean(),
        "alignment": (q - k).square().sum(1).mean(),
        "uniformity": q.new_zeros(()),
    }
    if rows > 1:  # exp(-2 ||a - b||^2) = exp(4 a.b - 4) for unit vectors
        itself = torch.arange(rows, device=q.device).unsqueeze(1)
        total = lse_self(q, scale=4.0, exclude=itself).logsumexp(0)
        found["uniformity"] = total - 4 - math.log(rows * (rows - 1))
    return found


def check_queue(q: Tensor, k: Tensor, queue: Tensor, mask: Tensor | None) -> None:
    """Refuse queries and keys (B, D), a queue (K, D) and a mask (B, K) that don't fit together."""
    rows, width = check_views(q, k)
    check_entries(queue, width)
    if mask is not None and (mask.shape != (rows, len(queue)) or mask.dtype != torch.bool):
        raise UserError(f"mask must be bool of shape ({rows}, {len(queue)}), got {mask.dtype} {tuple(mask.shape)}")
