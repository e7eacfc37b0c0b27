"""Zero-shot accuracy and retrieval between images and texts, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from selftaught.errors import UserError
from selftaught.evaluation import TEMPLATES, ensemble_scores, text_retrieval, zero_shot


def test_zero_shot_counts_right_answers_and_ensembles() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.1], [0.5, 0.4, 0.1], [0.0, 0.1, 0.9]])
    labels = np.array([0, 1, 1, 2])
    plain = zero_shot(scores, labels)
    assert plain["accuracy"].mean == 0.75
    assert plain["balanced"].mean == pytest.approx((1 + 0.5 + 1) / 3)
    assert plain["chance"].mean == pytest.approx(1 / 3)
    assert "top5" not in plain.numbers
    local = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    both = zero_shot(scores, labels, local=local)
    assert both["local"].mean == 0.5
    expected = np.mean((0.9 * scores + 0.1 * local).argmax(1) == labels)
    assert both["z0.9"].mean == expected == 1.0
    six = zero_shot(np.eye(6), np.arange(6)[::-1])
    assert six["accuracy"].mean == 0
    for wrong in ((scores, labels[:3]), (scores, labels + 1), (scores[:0], labels[:0])):
        with pytest.raises(UserError):
            zero_shot(*wrong)
    with pytest.raises(UserError):
        ensemble_scores(scores, local, 1.5)
    assert len(TEMPLATES["seven"]) == 7
    assert all("{}" in t for several in TEMPLATES.values() for t in several)


def test_retrieval_ranks_as_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(6, 4)), rng.normal(size=(9, 4))
    owner = np.array([0, 0, 1, 2, 2, 3, 4, 5, 5])
    found = text_retrieval(images, texts, owner, ks=(1, 3, 10))
    scores = images @ texts.T
    for k in (1, 3):
        forward = np.mean([any(owner[t] == i for t in np.argsort(-scores[i])[:k]) for i in range(6)])
        backward = np.mean([owner[t] in np.argsort(-scores[:, t])[:k] for t in range(9)])
        assert found[f"image_to_text_r{k}"].mean == pytest.approx(forward)
        assert found[f"text_to_image_r{k}"].mean == pytest.approx(backward)
    assert "image_to_text_r10" not in found.numbers
    perfect = text_retrieval(np.eye(4), np.eye(4), np.arange(4))
    assert perfect["image_to_text_r1"].mean == perfect["text_to_image_r1"].mean == 1
    assert perfect["text_to_image_rank"].mean == 1


def test_equal_texts_are_one_and_ties_count_against_the_model() -> None:
    images = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    texts = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    said = ["a cat", "a cat", "a dog"]
    assert text_retrieval(images, texts, [0, 1, 2], said=said)["image_to_text_r1"].mean == 1
    assert "among 2 texts and 3 images" in text_retrieval(images, texts, [0, 1, 2], said=said).note
    assert text_retrieval(images, texts, [0, 1, 2])["image_to_text_r1"].mean == pytest.approx(1 / 3)
    flat = np.ones((4, 2))
    assert text_retrieval(flat, flat, np.arange(4))["image_to_text_r1"].mean == 0
    for wrong in ([0, 1, 1], [0, 1, 3]):
        with pytest.raises(UserError, match="needs a text"):
            text_retrieval(images, texts, wrong)
