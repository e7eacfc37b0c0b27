"""Probes of scenes: IoU of boxes, average precision by hand, matching, and probes that tell good tokens from noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selftaught import evaluation
from selftaught.errors import UserError
from selftaught.networks.point_tokens import PointTransformer
from selftaught.networks.scene_detector import DetectedBoxes


def test_iou_of_boxes() -> None:
    a = np.array([[0.0, 0, 0, 2, 2, 2], [5, 5, 5, 1, 1, 1]])
    b = np.array([[1.0, 0, 0, 2, 2, 2], [0, 0, 0, 2, 2, 2], [9, 9, 9, 1, 1, 1]])
    np.testing.assert_allclose(evaluation.box_iou(a, b), [[4 / 12, 1, 0], [0, 0, 0]])
    with pytest.raises(UserError, match="shape"):
        evaluation.box_iou(a[:, :5], b)


def test_average_precision_by_hand() -> None:
    truth = [np.array([[0.0, 0, 0, 1, 1, 1, 0], [4, 0, 0, 1, 1, 1, 0]]), np.array([[0.0, 0, 0, 1, 1, 1, 0]])]
    right, wrong = [0.0, 0, 0, 1, 1, 1], [9.0, 9, 9, 1, 1, 1]
    found = [
        (np.array([right, right, wrong]), np.zeros(3, int), np.array([0.9, 0.8, 0.7])),  # right, twice, wrong
        (np.array([right]), np.zeros(1, int), np.array([0.6])),
    ]
    # by score: right, double, wrong, right -> precision 1, 1/2, 1/3, 1/2 at recall 1/3, 1/3, 1/3, 2/3
    assert evaluation.average_precision(found, truth, 0, 0.5) == pytest.approx(1 / 3 + 1 / 3 * 0.5)
    assert np.isnan(evaluation.average_precision(found, truth, 1, 0.5))
    assert evaluation.average_precision([found[1]] * 2, [truth[1]] * 2, 0, 0.5) == 1
    nothing = [(np.zeros((0, 6)), np.zeros(0, int), np.zeros(0))] * 2
    assert evaluation.average_precision(nothing, truth, 0, 0.5) == 0


def test_a_perfect_detection_costs_little() -> None:
    boxes = torch.tensor([[[0.0, 0, 0, 1, 1, 1], [3, 3, 3, 2, 2, 2], [7, 7, 7, 1, 1, 1]]])
    logits = torch.full((1, 3, 3), -20.0)
    logits[0, [0, 1, 2], [1, 0, 2]] = 20.0
    truth = [torch.tensor([[3.0, 3, 3, 2, 2, 2, 0], [0, 0, 0, 1, 1, 1, 1]])]
    assert evaluation.detection_loss(DetectedBoxes(logits, boxes), truth).item() < 1e-6
    worse = DetectedBoxes(logits, boxes + 0.1).boxes.requires_grad_()
    loss = evaluation.detection_loss(DetectedBoxes(logits, worse), truth)
    loss.backward()
    assert loss.item() > 0.5
    assert worse.grad is not None
    assert not worse.grad[0, 2].any()  # nobody's partner
    assert evaluation.detection_loss(DetectedBoxes(logits, boxes), [torch.zeros(0, 7)]).isfinite()


def test_segmentation_tells_features_that_know_the_class() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    good = np.eye(3)[labels] + rng.normal(0, 0.2, (900, 3))
    noise = rng.normal(size=(900, 3))
    split = [good[600:750], good[750:]], [labels[600:750], labels[750:]]
    found = evaluation.scene_segmentation(good[:600], labels[:600], *split)
    assert found["miou"].mean > 0.95
    blind = evaluation.scene_segmentation(noise[:600], labels[:600], [noise[600:]], [labels[600:]])
    assert blind["miou"].mean < 0.4
    unknown = np.where(np.arange(600) % 2, labels[:600], -1)
    assert evaluation.scene_segmentation(good[:600], unknown, *split)["miou"].mean > 0.95
    with pytest.raises(UserError, match="one class"):
        evaluation.scene_segmentation(good[:600], np.zeros(600, int), *split)


@pytest.mark.slow
def test_detection_finds_boxes_where_points_are() -> None:
    """Two balls of points in space: the detector must find most of them."""
    rng = np.random.default_rng(0)
    clouds, boxes = [], []
    for _ in range(40):
        places = rng.uniform(-2, 2, (2, 3))
        places[1] += np.sign(places[1] - places[0]) * 1.2
        sizes = rng.uniform(0.9, 1.1, 2)
        clouds.append(
            np.concatenate([p + rng.uniform(-0.5, 0.5, (64, 3)) * s for p, s in zip(places, sizes, strict=True)])
        )
        boxes.append(np.array([[*p, s, s, s, 0] for p, s in zip(places, sizes, strict=True)]))
    points = torch.tensor(np.stack(clouds), dtype=torch.float32)
    torch.manual_seed(0)
    encoder = PointTransformer(3, 32, 1, 2, patches=8, k=16)
    split = points[:32], boxes[:32], points[32:], boxes[32:]
    found = evaluation.scene_detection(encoder, *split, ["ball"], epochs=60, queries=8, lr=2e-3)
    assert found["ap25"].mean > 0.3
    with pytest.raises(UserError, match="no box"):
        evaluation.scene_detection(encoder, points[:4], [np.zeros((0, 7))] * 4, points[:4], boxes[:4], ["ball"])
