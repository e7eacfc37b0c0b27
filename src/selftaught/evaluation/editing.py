"""How well edited pictures follow their instructions: by a held-out judge, and by pixels."""

from __future__ import annotations

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["editing", "reached", "vie_score"]

_CHANGED, _NEAR = 0.1, 0.2


def vie_score(consistency: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """VIEScore's overall score of each sample, O = sqrt(SC PQ), as GEdit-Bench has it.

    Args:
        consistency: SC (n,), 0 or more.
        quality: PQ (n,), 0 or more.

    Raises:
        UserError: shapes that differ, a negative score.
    """
    sc, pq = np.asarray(consistency, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if sc.shape != pq.shape or sc.ndim != 1 or (sc < 0).any() or (pq < 0).any():
        raise UserError(f"scores must both be (n,) and not negative, got {sc.shape} and {pq.shape}")
    return np.sqrt(sc * pq)


def reached(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By pixels, where the right result is known: whether the edit was carried out, and what changed outside it.

    The edit's region is where the result differs from the picture by more than 0.1 in some channel.

    Args:
        before: (n, H, W, C) in [0, 1].
        after: edited by the model.
        truth: the right results.

    Returns:
        (n,) 1 where the region's mean colour is within 0.2 (root mean square over channels) of the right one, else 0;
        NaN where nothing was to change. (n,) root mean square change outside the region, NaN without an outside.
    """
    hits, outside = [], []
    for a, b, c in zip(before, after, truth, strict=True):
        region = (np.abs(c - a) > _CHANGED).any(-1)
        if region.any():
            off = b[region].mean(0) - c[region].mean(0)
            hits.append(float(np.sqrt((off**2).mean()) < _NEAR))
        else:
            hits.append(np.nan)
        rest = (b - a)[~region]
        outside.append(float(np.sqrt((rest**2).mean())) if rest.size else np.nan)
    return np.array(hits), np.array(outside)


@protocol("editing", "edited pictures: are instructions followed, and all else kept", inputs="edits")
def editing(
    before: np.ndarray,
    after: np.ndarray,
    *,
    followed: np.ndarray,
    kept: np.ndarray,
    taught: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> Result:
    """Numbers of an editor on some edits.

    Args:
        before: (n, H, W, C) in [0, 1].
        after: edited by the model, the same shape.
        followed: (n,) probability by the held-out judge that the instruction was carried out.
        kept: (n,) probability by it that all else stayed the same.
        taught: (n,) probability by the judge that the editor learnt from that the instruction was carried out.
        truth: the right results, where they are known.

    Returns:
        ``followed`` and ``kept``, shares that the held-out judge says yes to; ``overall``, the mean of sqrt(p q) over
        both of its probabilities; ``change``, mean absolute change of pixels; ``own_judge``, the share that the
        teaching judge says yes to (far above ``followed``, it was fooled); with results ``success``, the share within
        reach of the right colour, ``outside``, root mean square change outside the edit's region, and ``right``, the
        share that is a success and changed by less than 0.1 outside.

    Raises:
        UserError: shapes that differ, probabilities outside [0, 1].
    """
    if before.shape != after.shape or before.ndim != 4 or not len(before):
        raise UserError(f"pictures before and after must be (n, H, W, C), got {before.shape} and {after.shape}")
    for name, p in (("followed", followed), ("kept", kept), ("taught", taught)):
        if p is not None and (p.shape != (len(before),) or not ((p >= 0) & (p <= 1)).all()):
            raise UserError(f"{name}: a probability for each of {len(before)} edits, got {p.shape}")
    numbers = _by_pixels(before, after, truth) if truth is not None else {}
    numbers |= {
        "overall": Number.bootstrap(vie_score(followed, kept)),
        "followed": Number.bootstrap(followed > 0.5),
        "kept": Number.bootstrap(kept > 0.5),
        "change": Number.bootstrap(np.abs(after - before).mean((1, 2, 3))),
    }
    if taught is not None:
        numbers["own_judge"] = Number.bootstrap(taught > 0.5)
    better = {"change": "none", "outside": "low", "own_judge": "none"}
    return Result("editing", numbers, figures={"better": better, "untouched": ["kept", "outside"]})


def _by_pixels(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> dict[str, Number]:
    """What the right results say; nothing where no edit changes anything, or all of a picture."""
    if truth.shape != before.shape:
        raise UserError(f"right results {truth.shape} for pictures {before.shape}")
    hits, outside = reached(before, after, truth)
    known = np.isfinite(hits) & np.isfinite(outside)
    if not known.any():
        return {}
    return {
        "right": Number.bootstrap((hits[known] == 1) & (outside[known] < _CHANGED)),
        "success": Number.bootstrap(hits[known]),
        "outside": Number.bootstrap(outside[known]),
    }
