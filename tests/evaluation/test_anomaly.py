"""Anomalies by distance to the k-th normal sample: against loops, what is normal, and clips by the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught import evaluation
from selftaught.errors import UserError


def test_it_is_the_share_of_pairs_that_distance_orders_rightly() -> None:
    rng = np.random.default_rng(0)
    x, tx = rng.standard_normal((30, 4)), rng.standard_normal((24, 4))
    y, ty = np.arange(30) % 3, np.arange(24) % 3
    x, tx = x + 1.5 * np.eye(4)[y], tx + 1.5 * np.eye(4)[ty]
    found = evaluation.anomaly(x, y, tx, ty, k=2)
    unit, asked = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, tx))
    areas = []
    for c in range(3):
        score = [sorted(float(np.linalg.norm(q - p)) for p in unit[y == c])[1] for q in asked]
        inside = [s for s, t in zip(score, ty, strict=True) if t == c]
        outside = [s for s, t in zip(score, ty, strict=True) if t != c]
        areas.append(np.mean([(o > i) + 0.5 * (o == i) for i in inside for o in outside]))
    assert found.numbers["auroc"].mean == pytest.approx(np.mean(areas), abs=1e-6)
    assert list(found.figures["per_class"].values()) == pytest.approx(areas, abs=1e-6)
    assert 0.6 < np.mean(areas) < 1


def test_one_normal_class_to_learn_from_is_one_turn() -> None:
    x = np.array([[1, 0], [1, 0.1], [1, -0.1]])
    tx, ty = np.array([[1, 0.05], [0, 1], [-1, 0], [1, -0.05]]), [0, 1, 2, 0]
    found = evaluation.anomaly(x, [0, 0, 0], tx, ty, k=50)
    assert found.numbers["auroc"].mean == 1
    assert list(found.figures["per_class"]) == ["0"]
    with pytest.raises(UserError, match="needs samples of a class of the training part"):
        evaluation.anomaly(x, [5, 5, 5], tx, ty)


def test_clips_by_name_beside_an_untrained_encoder_and_raw_input(tmp_path: Path) -> None:
    data = "motion?train=24&test=16&side=16&label=hue"
    run = selftaught.train(
        "cvrl", data, out=str(tmp_path / "run"), preset="laptop", steps=2, batch_size=8, image_size=16, knn_every=0.0,
        device="cpu", workers=0, quiet=True,
    )  # fmt: skip
    found = run.evaluate(protocols=["anomaly"])["anomaly"]
    assert set(found) == {"this", "random", "raw"}
    assert len(found["raw"].figures["per_class"]) == 3
