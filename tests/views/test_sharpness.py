"""Where a blurred video is sharp."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.views import refined_box, sharp_boxes, sharp_regions


def half_sharp(level: float, side: int = 40) -> np.ndarray:
    found = np.full((side, side), 0.9)
    found[:, : side // 2] = level
    return found


def test_a_box_hugs_the_sharp_half() -> None:
    mask = half_sharp(0.0) < 0.1
    assert sharp_boxes(mask, smallest=16) == [(0, 0, 40, 20)]
    assert sharp_boxes(mask, smallest=21) == []
    mask[5, 20:] = True  # a whisker widens the bounding box, and is shaved off
    assert sharp_boxes(mask, smallest=16) == [(0, 0, 40, 20)]
    assert sharp_boxes(mask, smallest=16, keep_failed=True) == [(0, 0, 40, 21)]


def test_corners_that_touch_are_one_place() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[:20, :20] = mask[20:, 20:] = True
    assert len(sharp_boxes(mask, smallest=10)) == 1


def test_lines_go_while_fewer_than_half_of_their_pixels_are_sharp() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((30, 30)) < np.linspace(0.2, 0.9, 30)
    top, left, bottom, right = 0, 0, 30, 30
    for side in ("left", "right", "top", "bottom", "left", "right"):
        while top < bottom and left < right:
            line = {"left": mask[top:bottom, left], "right": mask[top:bottom, right - 1],
                    "top": mask[top, left:right], "bottom": mask[bottom - 1, left:right]}[side]  # fmt: skip
            if line.mean() >= 0.5:
                break
            left, right = left + (side == "left"), right - (side == "right")
            top, bottom = top + (side == "top"), bottom - (side == "bottom")
    assert refined_box(mask, (0, 0, 30, 30)) == (top, left, bottom, right)


def test_the_search_lands_on_the_wanted_number() -> None:
    levels = np.random.default_rng(0).permutation(np.linspace(0.01, 0.5, 50))
    maps = np.stack([half_sharp(level) for level in levels])
    found, tau = sharp_regions(maps, smallest=16)
    assert abs(len(found) - 10) <= 2
    assert all(levels[r.frame] < tau and 3 <= r.frame <= 46 for r in found)
    assert all(r.box == (0, 0, 40, 20) for r in found)


def test_the_search_ends_where_the_number_cannot_be_met() -> None:
    assert sharp_regions(np.ones((30, 32, 32)), smallest=8)[0] == []
    alike = np.full((60, 32, 32), 1e-7)
    found, _ = sharp_regions(alike, smallest=8, seed=1)
    assert len(found) == 12
    assert len({r.frame for r in found}) == 12
    assert sharp_regions(alike, smallest=8, seed=1)[0] == found
    step = np.concatenate((np.full((20, 32, 32), 0.3), np.full((20, 32, 32), 0.9)))
    assert len(sharp_regions(step, smallest=8)[0]) == 8
    with pytest.raises(UserError, match="sharp_regions"):
        sharp_regions(np.ones((32, 32)))
