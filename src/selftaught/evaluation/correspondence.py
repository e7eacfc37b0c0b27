"""Correspondences: does a place in one view have the same features as the same place in another?

Each token of a first view is matched to the token of the second that is nearest by cosine. Where the views' geometry is
known, so is where it should have landed: PCK is the share of tokens whose match is near enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["correspondence", "token_centres"]


def token_centres(grid: tuple[int, int]) -> Tensor:
    """(h, w, 2) centres (x, y) of the tokens of a grid, in shares of the view's width and height."""
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in grid)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), 2)


@protocol("correspondence", "places found again in another view by their tokens: PCK", inputs="matches")
def correspondence(
    first: Any, second: Any, truth: Any, *, thresholds: Sequence[float] = (0.05, 0.1, 0.2), resamples: int = 500
) -> Result:
    """Percentage of correct keypoints (PCK) of nearest-neighbour matches between the tokens of two views.

    Args:
        first: (n, F, h, w) maps of the first views.
        second: (n, F, h', w') maps of the second views.
        truth: (n, h, w, 2), where the centre of each token of the first view lies in the second: (x, y) in shares of
            its width and height. Tokens that lie outside 0 .. 1, or are NaN, are not asked.
        thresholds: a match counts that is at most this share of the view's side away.
        resamples: bootstrap resamples of the intervals.

    Returns:
        ``Result`` "correspondence": ``pck@A`` for each threshold and ``distance``, the mean distance in shares of the
        side; intervals over images. The note says what a random token and the best one would reach.

    Raises:
        UserError: shapes that don't fit, no token that is seen in both views.
    """
    a, b, where = (torch.as_tensor(np.asarray(v) if not isinstance(v, Tensor) else v) for v in (first, second, truth))
    if a.dim() != 4 or b.dim() != 4 or a.shape[:2] != b.shape[:2] or where.shape != (len(a), *a.shape[2:], 2):
        shown = f"{tuple(a.shape)}, {tuple(b.shape)}, {tuple(where.shape)}"
        raise UserError(f"correspondence: maps (n, F, h, w) twice and places (n, h, w, 2), please; got {shown}")
    if not thresholds or min(thresholds) <= 0:
        raise UserError("correspondence: thresholds above 0, at least one")
    places = token_centres((b.shape[2], b.shape[3])).flatten(0, 1)
    rows, away, chance, best = [], [], [], []
    for one, other, target in zip(a, b, where.double(), strict=True):
        target = target.flatten(0, 1)
        asked = ((target >= 0) & (target <= 1)).all(1)
        if not bool(asked.any()):
            continue
        queries, keys = (F.normalize(m.detach().float().flatten(1).T, dim=1) for m in (one, other))
        matched = (queries[asked.to(queries.device)] @ keys.T).argmax(1).cpu()
        off = (target[asked, None].cpu() - places[None]).norm(dim=2)
        distance = off[torch.arange(len(off)), matched]
        away.append(float(distance.mean()))
        rows.append([float((distance <= t).double().mean()) for t in thresholds])
        chance.append([float((off <= t).double().mean()) for t in thresholds])
        best.append([float((off.min(1).values <= t).double().mean()) for t in thresholds])
    if not rows:
        raise UserError("correspondence: no token of a first view is seen in the second; take views that overlap")
    numbers = {f"pck@{t:g}": Number.bootstrap(np.array(rows)[:, i], np.mean, resamples=resamples)
               for i, t in enumerate(thresholds)}  # fmt: skip
    numbers["distance"] = Number.bootstrap(np.array(away), np.mean, resamples=resamples)
    said = ", ".join(
        f"{t:g}: {c:.0%} and {m:.0%}" for t, c, m in zip(thresholds, np.mean(chance, 0), np.mean(best, 0), strict=True)
    )
    return Result(
        "correspondence", numbers, {"better": {"distance": "low"}}, f"a random token and the nearest one within {said}"
    )
