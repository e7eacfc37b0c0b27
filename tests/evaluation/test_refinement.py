"""RetFiner's probe and the signed-rank test."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

import selftaught
from selftaught.errors import UserError
from selftaught.evaluation import linear_early_stop, refinement, signed_rank


def test_signed_ranks_are_counted_by_hand() -> None:
    a, b = np.array([3.0, 5.0, 1.0, 9.0, 4.0]), np.array([1.0, 4.0, 4.0, 2.0, 9.0])
    d = a - b
    ranks = np.argsort(np.argsort(np.abs(d))) + 1
    observed = ranks[d > 0].sum()
    sums = np.array([sum(r for r, s in zip(ranks, signs, strict=True) if s) for signs in product((0, 1), repeat=5)])
    tail = min((sums <= observed).mean(), (sums >= observed).mean())
    assert signed_rank(a, b) == pytest.approx(min(1.0, 2 * tail))
    assert signed_rank(a, a) == 1.0
    assert signed_rank(np.arange(5) + 1.0, np.zeros(5)) == pytest.approx(2 / 32)
    with pytest.raises(UserError, match="pair them"):
        signed_rank(a, b[:3])


def _blobs(n: int, seed: int, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], [n // 2, n // 4, n // 4])
    centres = apart * np.eye(3, 6)
    return (centres[y] + rng.normal(size=(len(y), 6))).astype(np.float32), y


def test_the_probe_learns_what_is_there_and_nothing_else() -> None:
    train, test = _blobs(120, 0, 4.0), _blobs(80, 1, 4.0)
    found = linear_early_stop(*train, *test, seeds=2, epochs=60)
    assert len(found["balanced_accuracy"].values) == 2
    assert found["balanced_accuracy"].mean > 0.9
    assert found["auc"].mean > 0.95
    assert found["average_precision"].mean > 0.9
    noise = np.random.default_rng(2).normal(size=(200, 6)).astype(np.float32)
    blind = linear_early_stop(noise[:120], train[1], noise[120:], test[1], seeds=1, epochs=60)
    assert blind["balanced_accuracy"].mean < 0.6
    again = linear_early_stop(*train, *test, seeds=2, epochs=60)
    assert again["auc"].values == found["auc"].values


def test_a_gain_is_paired_over_sets_and_seeds() -> None:
    test = _blobs(80, 1)
    better = [linear_early_stop(*_blobs(120, s, 4.0), *_blobs(80, 9, 4.0), seeds=2, epochs=25) for s in (3, 4)]
    worse = [linear_early_stop(*_blobs(120, s, 1.0), *_blobs(80, 9, 1.0), seeds=2, epochs=25) for s in (3, 4)]
    found = refinement(better, worse)
    pairs = [(v, w) for a, b in zip(better, worse, strict=True)
             for v, w in zip(a["balanced_accuracy"].values, b["balanced_accuracy"].values, strict=True)]  # fmt: skip
    assert found["gain"].mean == pytest.approx(np.mean([v - w for v, w in pairs]))
    assert found["wilcoxon_p"].mean == pytest.approx(2 / 16)  # four pairs, all one way
    assert len(test[1]) == 80


def test_a_refined_encoder_is_set_beside_its_start(tmp_path: Path) -> None:
    options = {"quiet": True, "batch_size": 16, "encoder": "cnn-small", "image_size": 16}
    start = selftaught.train("simclr", "bscans?n=40", out=tmp_path / "start", steps=1, projector="16-16", **options)
    more = {"init": str(start.path), "text_width": 16, "text_heads": 2, "text_layers": 1, "steps": 1, "lr": 0.0}
    run = selftaught.train("retfiner", "bscans?n=40", out=tmp_path / "run", quiet=True, batch_size=16, **more)
    found = run.evaluate(protocols=["refinement"], seeds=2)["refinement"]["this"]
    assert found["gain"].mean == pytest.approx(0, abs=0.2)
    assert found.note.startswith("1 data set (bscans")
    assert found["balanced_accuracy_start"].values
    with pytest.raises(UserError, match="this run began at random"):
        start.evaluate(protocols=["refinement"])
