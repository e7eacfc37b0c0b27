"""The frames in the middle of a clip, and the multi-scale boxes, against the rules as they are written down."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selftaught import views
from selftaught.errors import UserError
from selftaught.views import MultiScaleCrop, Pipeline, Recipe, TemporalCenterCrop, View


@pytest.mark.parametrize(
    ("count", "frames", "stride", "expected"),
    [(10, 4, 2, [1, 3, 5, 7]), (7, 4, 2, [0, 2, 4, 6]), (9, 3, 1, [3, 4, 5]), (3, 6, 2, [0, 0, 1, 1, 2, 2])],
)
def test_the_middle_frames(count: int, frames: int, stride: int, expected: list[int]) -> None:
    clip = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    recipe = Recipe((View("clip", "clip", (TemporalCenterCrop(frames, stride),)),))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        drawn = recipe.frames(rng, {"clip": count})
        assert drawn.params["clip"].tolist() == expected
        shown = recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape}))["clip"]
        assert shown[:, 0, 0, 0].tolist() == expected
    with pytest.raises(UserError, match="draws nothing"):
        TemporalCenterCrop(4, jitter=True)


def literal_boxes(height: int, width: int, out: int, scales: tuple[float, ...], distort: int) -> set[tuple]:
    """Every box that can be drawn, by the loops of the temporal segment networks."""
    sides = [int(min(height, width) * s + 1e-9) for s in scales]
    sides = [out if abs(x - out) < 3 else x for x in sides]
    found = set()
    for i, h in enumerate(sides):
        for j, w in enumerate(sides):
            if abs(i - j) <= distort:
                x, y = (width - w) // 4, (height - h) // 4
                corners = [(0, 0), (4 * x, 0), (0, 4 * y), (4 * x, 4 * y), (2 * x, 2 * y)]
                corners += [(0, 2 * y), (4 * x, 2 * y), (2 * x, 4 * y), (2 * x, 0)]
                corners += [(x, y), (3 * x, y), (x, 3 * y), (3 * x, 3 * y)]
                found |= {(top, left, h, w) for left, top in corners}
    return found


@pytest.mark.parametrize(("height", "width", "out"), [(120, 160, 112), (96, 64, 56), (48, 48, 40)])
def test_multi_scale_boxes_are_those_of_the_rule(height: int, width: int, out: int) -> None:
    op, rng = MultiScaleCrop(out), np.random.default_rng(0)
    pipeline = Pipeline((op,))
    drawn = Counter(tuple(pipeline.sample(rng, height, width)[:4].astype(int).tolist()) for _ in range(4000))
    assert set(drawn) == literal_boxes(height, width, out, op.scales, 1)
    assert len(op.pairs) == 10
    together = op.draw(rng.random((3, 500)), np.full(500, height), np.full(500, width))[0]
    assert set(zip(*(np.asarray(c[:500], int).tolist() for c in together[:4]), strict=True)) <= set(drawn)


def test_multi_scale_boxes_anywhere_stay_inside_and_reach_every_side() -> None:
    op, rng = MultiScaleCrop(24, scales=(0.5,), distort=0, fixed=False), np.random.default_rng(0)
    boxes = np.array([Pipeline((op,)).sample(rng, 60, 80)[:4] for _ in range(600)])
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {30}
    assert (boxes[:, 0].min(), boxes[:, 0].max()) == (0, 30)
    assert (boxes[:, 1].min(), boxes[:, 1].max()) == (0, 50)


def test_one_box_serves_all_frames() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    recipe = Recipe((View("clip", "clip", (MultiScaleCrop(32),)),))
    clip = np.stack([picture] * 4)
    shown = recipe.render({"clip": clip}, recipe.sample(rng, {"clip": clip.shape}))["clip"]
    assert shown.shape == (4, 32, 32, 3)
    assert (shown == shown[:1]).all()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="scales are shares"):
        MultiScaleCrop(32, scales=(1.5,))
    with pytest.raises(UserError, match="distort"):
        MultiScaleCrop(32, distort=-1)
    assert views.MultiScaleCrop(32).enough == 49
