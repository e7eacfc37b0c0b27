"""Images beside moved copies of themselves: geometry, and a run that is judged by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.run.suites.correspondences import _places, draw_move, move


def test_a_moved_image_shows_its_places_where_they_should_be() -> None:
    side, grid = 96, (12, 12)
    for seed in range(4):
        matrix = draw_move(np.random.default_rng(seed))
        where = _places(matrix[None], grid)[0]
        for r, c in ((5, 6), (7, 4)):
            image = np.zeros((side, side, 1), np.uint8)
            image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8] = 255  # a token of the first view
            moved = move(image, matrix).reshape(side, side).astype(float)
            ys, xs = np.mgrid[:side, :side]
            centre = np.array([(moved * (xs + 0.5)).sum(), (moved * (ys + 0.5)).sum()]) / moved.sum() / side
            assert np.abs(centre - where[r, c]).max() < 0.005


@pytest.mark.slow
def test_a_run_is_judged_without_labels(tmp_path: Path) -> None:
    options = {"image_size": 16, "encoder": "vit-pico", "steps": 2, "batch_size": 16, "quiet": True}
    run = selftaught.train(
        "mae", "digits?n=80", preset="laptop", loggers=["none"], out=str(tmp_path / "run"), **options
    )
    found = run.evaluate(protocols=["correspondence"])["correspondence"]
    assert set(found) == {"this", "random", "raw"}
    assert found["raw"]["pck@0.2"].mean > 0.3
    assert all(0 <= result["pck@0.1"].mean <= result["pck@0.2"].mean <= 1 for result in found.values())
