"""Where a blurred video is sharp (RSDM of DADeblur, He et al., ECCV 2024): boxes below a threshold that is sought."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from selftaught.errors import UserError

__all__ = ["SharpRegion", "refined_box", "sharp_boxes", "sharp_regions"]

Box = tuple[int, int, int, int]
"""(first row, first column, row after the last, column after the last)."""

_LOW, _MOST = 1e-5, 60


class SharpRegion(NamedTuple):
    """A sharp place of a video: number of the frame, and the box (row 0, column 0, row 1, column 1), ends excluded."""

    frame: int
    box: Box


def refined_box(mask: np.ndarray, box: Box, *, share: float = 0.5, keep_failed: bool = False) -> Box:
    """Shrink a box line by line: left, right, top, bottom, then left and right again, while lines are too blurred.

    Args:
        mask: (H, W) bool, True where sharp.
        box: to begin with.
        share: a line with fewer sharp pixels goes.
        keep_failed: leave the last line that went on each side, as the official code does.
    """
    top, left, bottom, right = box
    one = int(keep_failed)
    for side in ("left", "right", "top", "bottom", "left", "right"):
        part = mask[top:bottom, left:right]
        if not part.size:
            break
        lines = part.mean(0) if side in ("left", "right") else part.mean(1)
        good = np.flatnonzero(lines >= share)
        first, last = (int(good[0]), int(good[-1]) + 1) if len(good) else (len(lines), 0)
        cut = first if side in ("left", "top") else len(lines) - last
        cut = max(0, cut - one)
        if side == "left":
            left += cut
        elif side == "right":
            right -= cut
        elif side == "top":
            top += cut
        else:
            bottom -= cut
    return top, left, bottom, right


def sharp_boxes(mask: np.ndarray, *, smallest: int = 256, share: float = 0.5, keep_failed: bool = False) -> list[Box]:
    """Boxes of the sharp places of a frame, both sides at least ``smallest``.

    Args:
        mask: (H, W) bool, True where sharp.
        smallest: pixels; a connected place (8 neighbours) must span more than its square.
        share: see `refined_box`.
        keep_failed: see `refined_box`.
    """
    import cv2

    count, _, found, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask, np.uint8), connectivity=8)
    boxes = []
    for left, top, width, height in found[1:count, :4].tolist():
        if width * height > smallest**2:
            box = refined_box(mask, (top, left, top + height, left + width), share=share, keep_failed=keep_failed)
            if box[2] - box[0] >= smallest and box[3] - box[1] >= smallest:
                boxes.append(box)
    return boxes


def sharp_regions(
    magnitudes: np.ndarray,
    *,
    ratio: float = 0.2,
    smallest: int = 256,
    tolerance: int = 3,
    border: int = 2,
    threshold: float = 0.1,
    keep_failed: bool = False,
    seed: int = 0,
) -> tuple[list[SharpRegion], float]:
    """The relatively sharp places of a video: about ``ratio`` times as many boxes as it has frames.

    A frame is sharp where its magnitude is below a threshold, which is bisected in [0, 1] until the number of boxes is
    within the tolerance. That number is not monotone in the threshold, so there is a limit to the search; then the
    nearest that was met counts, and of too many boxes as many as wanted are drawn.

    Args:
        magnitudes: (T, H, W), shares of the longest blur.
        ratio: boxes wanted for each frame.
        smallest: least side of a box.
        tolerance: boxes more or fewer that are too many by.
        border: frames with a number of first + border or less, or last - border or more, are left out.
        threshold: to begin with.
        keep_failed: see `refined_box`.
        seed: of the draw.

    Returns:
        the places in the order of time, none where nothing is sharp; and the threshold.

    Raises:
        UserError: another shape, or a ratio below 0.
    """
    if magnitudes.ndim != 3 or ratio < 0 or smallest < 1:
        raise UserError(f"sharp_regions: magnitudes {np.shape(magnitudes)}, ratio={ratio}: give (T, H, W), 0 or more")
    wanted, last = int(len(magnitudes) * ratio), len(magnitudes) - 1
    low, high, tau = 0.0, 1.0, threshold
    best: tuple[list[SharpRegion], float] = ([], tau)
    for _ in range(_MOST):
        found = [
            SharpRegion(t, box)
            for t in range(border + 1, last - border)
            for box in sharp_boxes(magnitudes[t] < tau, smallest=smallest, keep_failed=keep_failed)
        ]
        if found and (not best[0] or abs(len(found) - wanted) < abs(len(best[0]) - wanted)):
            best = found, tau
        if abs(len(found) - wanted) < tolerance and found:
            return found, tau
        if tau < _LOW or high - low < _LOW / 2:
            break
        low, high = (low, tau) if len(found) > wanted else (tau, high)
        tau = (low + high) / 2
    regions, tau = best
    if len(regions) > wanted:
        drawn = np.random.default_rng(seed).choice(len(regions), max(wanted, 1), replace=False)
        regions = [regions[k] for k in np.sort(drawn)]
    return regions, tau
