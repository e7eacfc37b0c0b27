"""Linear probes of order, speed and direction; on a run, beside an untrained encoder and the raw input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.errors import UserError
from selftaught.evaluation import temporal


def shown(rng: np.random.Generator, count: int, ways: tuple[str, ...], told: str) -> dict[str, np.ndarray]:
    base = rng.normal(size=(count, 4))
    return {way: base + rng.normal(0, 0.1, base.shape) + 3.0 * (way == told) for way in ways}


def test_what_features_tell_is_found_and_the_rest_is_chance() -> None:
    rng = np.random.default_rng(0)
    ways = ("forward", "backward", "shuffled", "x2", "x4")
    found = temporal(shown(rng, 40, ways, "backward"), shown(rng, 40, ways, "backward"))
    assert found["direction"].mean > 0.9
    assert 0.3 < found["order"].mean < 0.7
    assert 0.15 < found["speed"].mean < 0.55
    assert found.note == "chance: order 0.50, speed 0.33, direction 0.50"
    fewer = temporal(shown(rng, 10, ways[:2], "backward"), shown(rng, 10, ways[:2], "backward"))
    assert set(fewer.numbers) == {"direction"}
    with pytest.raises(UserError, match="shown forward and in one other way"):
        temporal({"forward": np.zeros((3, 2))}, {"forward": np.zeros((3, 2))})
    with pytest.raises(UserError, match="the same clips"):
        temporal({"forward": np.zeros((3, 2)), "x2": np.zeros((2, 2))}, {})


@pytest.mark.slow
def test_a_run_on_clips_is_probed(tmp_path: Path) -> None:
    options = {"preset": "laptop", "steps": 2, "batch_size": 4, "quiet": True, "knn_every": 0, "loggers": ["none"]}
    run = selftaught.train("video-rotnet", "motion?train=10&test=6", out=str(tmp_path / "run"), **options)
    found = run.evaluate(protocols=["temporal"])["temporal"]
    assert set(found) == {"this", "random", "raw"}
    assert {"order", "direction"} <= set(found["this"].numbers)
    assert all(0 <= number.mean <= 1 for kind in found.values() for number in kind.numbers.values())
    assert "chance" in found["this"].note
    run.evaluate(protocols=["knn"])
    assert 'class="film" style="--frames:8"' in run.report().read_text(encoding="utf-8")
    with pytest.raises(UserError, match="is for clips"):
        selftaught.train("simclr", "digits", out=str(tmp_path / "images"), **options | {"image_size": 32}).evaluate(
            protocols=["temporal"]
        )
