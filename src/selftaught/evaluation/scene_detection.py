"""Detection in clouds: a small detector over an encoder's tokens, judged by average precision at 3D IoU 0.25 and 0.5.

The transfer task of scene pre-training (3DETR on ScanNet and SUN RGB-D) in the small: queries, one decoder, boxes
matched to the truth by the Hungarian algorithm; the encoder frozen, or tuned with it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result
from selftaught.networks.scene_detector import DetectedBoxes, SceneDetector

__all__ = ["average_precision", "box_iou", "detection_loss", "scene_detection"]

RESAMPLES = 200
_NOTHING = 0.2


class Found(NamedTuple):
    """Boxes found in one cloud: (B, 6) centre and size, kinds (B,), scores (B,)."""

    boxes: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray


def box_iou(a: Any, b: Any) -> Any:
    """Intersection over union of upright boxes as centre and size: (A, 6) and (B, 6) to (A, B); arrays or tensors.

    Raises:
        UserError: other shapes.
    """
    tensors = isinstance(a, Tensor)
    x, y = (t if isinstance(t, Tensor) else torch.as_tensor(np.asarray(t, dtype=np.float64)) for t in (a, b))
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != 6 or y.shape[1] != 6:
        raise UserError(f"boxes need the shape (B, 6), centre and size, got {tuple(x.shape)} and {tuple(y.shape)}")
    found = _overlaps(x[:, None], y[None])
    return found if tensors else found.numpy()


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes (..., 6) that are broadcast against each other."""
    low = torch.maximum(a[..., :3] - a[..., 3:] / 2, b[..., :3] - b[..., 3:] / 2)
    high = torch.minimum(a[..., :3] + a[..., 3:] / 2, b[..., :3] + b[..., 3:] / 2)
    both = (high - low).clamp_min(0).prod(-1)
    either = a[..., 3:].prod(-1) + b[..., 3:].prod(-1) - both
    return both / either.clamp_min(1e-12)


def average_precision(
    found: Sequence[Found | tuple[Any, Any, Any]], truth: Sequence[np.ndarray], kind: int, threshold: float
) -> float:
    """Area under the precision-recall curve of one kind of boxes over clouds (all points of the curve, as VOC 2010).

    By falling score each box takes the true one of its cloud that it overlaps most; it is right where that overlap is
    at least the threshold and nobody took it before.

    Args:
        found: per cloud boxes (B, 6), kinds (B,), scores (B,).
        truth: per cloud (T, 7) centre, size, kind.
        kind: which.
        threshold: least IoU.

    Returns:
        In [0, 1]; NaN where the truth has none of the kind.
    """
    rows: list[tuple[float, int, np.ndarray]] = []
    true = [np.asarray(t)[np.asarray(t)[:, 6] == kind][:, :6] for t in truth]
    total = sum(len(t) for t in true)
    if not total:
        return float("nan")
    for i, one in enumerate(found):
        boxes, kinds, scores = (np.asarray(part) for part in one)
        overlaps = box_iou(boxes, true[i]) if len(boxes) and len(true[i]) else np.zeros((len(boxes), len(true[i])))
        rows += [(float(scores[b]), i, overlaps[b]) for b in np.flatnonzero(kinds == kind)]
    rows.sort(key=lambda row: -row[0])
    taken: set[tuple[int, int]] = set()
    right = np.zeros(len(rows))
    for n, (_, i, overlap) in enumerate(rows):
        if len(overlap) and overlap.max() >= threshold and (i, int(overlap.argmax())) not in taken:
            taken.add((i, int(overlap.argmax())))
            right[n] = 1
    hits = right.cumsum()
    recall, precision = hits / total, hits / np.arange(1, len(rows) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1] if len(rows) else precision
    return float((np.diff(np.concatenate(([0.0], recall))) * envelope).sum())


def detection_loss(made: DetectedBoxes, truth: Sequence[Tensor], nothing: float = _NOTHING) -> Tensor:
    """Cross-entropy of the kinds, L1 of centres and sizes, and 1 - IoU, of boxes matched to the truth.

    The matching is the cheapest by the same parts (Hungarian algorithm); queries without partner are "nothing", which
    weighs less.

    Args:
        made: of N clouds.
        truth: per cloud (T, 7).
        nothing: weight of the class "nothing".
    """
    from scipy.optimize import linear_sum_assignment

    n, _, kinds = made.logits.shape
    longest = max((len(true) for true in truth), default=0)
    wanted = torch.full(made.logits.shape[:2], kinds - 1, dtype=torch.int64, device=made.logits.device)
    weight = made.logits.new_ones(kinds)
    weight[-1] = nothing
    places = made.boxes.sum() * 0.0
    if longest:
        padded = made.boxes.new_zeros(n, longest, 7)
        for i, true in enumerate(truth):
            padded[i, : len(true)] = true
        with torch.no_grad():
            theirs = padded[:, :, 6].long()[:, None].expand(-1, made.logits.shape[1], -1)
            cost = -made.logits.softmax(2).gather(2, theirs) + torch.cdist(made.boxes, padded[..., :6], p=1)
            cost = cost + 2 * (1 - _overlaps(made.boxes[:, :, None], padded[:, None, :, :6]))
        pairs = [linear_sum_assignment(cost[i, :, : len(true)].cpu().numpy()) for i, true in enumerate(truth)]
        cloud = torch.cat([torch.full((len(q),), i) for i, (q, _) in enumerate(pairs)])
        query, partner = (torch.cat([torch.from_numpy(pair[k]) for pair in pairs]) for k in range(2))
        true = padded[cloud, partner]
        wanted[cloud, query] = true[:, 6].long()
        mine = made.boxes[cloud, query]
        places = ((mine - true[:, :6]).abs().sum() + (1 - _overlaps(mine, true[:, :6])).sum()) / max(len(cloud), 1)
    return F.cross_entropy(made.logits.flatten(0, 1), wanted.flatten(), weight) + places


@protocol("scene-detection", "boxes by a small detector on frozen tokens: AP at 3D IoU", inputs="scenes")
def scene_detection(
    encoder: nn.Module,
    train_points: Tensor,
    train_boxes: Sequence[np.ndarray],
    test_points: Tensor,
    test_boxes: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    tune: bool = False,
    epochs: int = 40,
    lr: float = 1e-3,
    batch: int = 16,
    queries: int = 32,
    seed: int = 0,
) -> Result:
    """Train a detector on a copy of an encoder of clouds and judge its boxes.

    Args:
        encoder: a `selftaught.networks.PointTransformer`, or another module with ``cut`` and ``see``.
        train_points: (n, P, C) as the encoder takes them.
        train_boxes: per cloud (T, 7): centre, size, kind.
        test_points: as ``train_points``.
        test_boxes: as ``train_boxes``.
        classes: names of the kinds.
        tune: train the encoder, too, at a tenth of the rate; else its tokens are made once.
        epochs: default 40.
        lr: of the detector (AdamW, half-cosine).
        batch: clouds per step.
        queries: most boxes per cloud.
        seed: of weights and order. The caller's random state is left alone.

    Returns:
        ``Result`` "scene-detection": ``ap25`` and ``ap50``, means over the kinds, and ``ap25 NAME`` of each; intervals
        over test clouds.

    Raises:
        UserError: as many boxes as clouds are needed; no box to learn from or to find; no class.
    """
    for points, boxes, part in ((train_points, train_boxes, "train"), (test_points, test_boxes, "test")):
        if points.dim() != 3 or len(points) != len(boxes):
            raise UserError(f"{part}: {len(boxes)} lists of boxes for points of shape {tuple(points.shape)}")
        if not sum(len(b) for b in boxes):
            raise UserError(f"{part}: no box in any of the {len(boxes)} clouds")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own: Any = copy.deepcopy(encoder)
        detector = SceneDetector(own.width, len(classes), queries=queries, dim=128)
        truth = [torch.as_tensor(np.asarray(b), dtype=torch.float32) for b in train_boxes]
        history = _train(own, detector, train_points, truth, tune=tune, epochs=epochs, lr=lr, batch=batch)
        found = _boxes(own, detector, test_points, batch)
    return Result("scene-detection", _numbers(found, list(test_boxes), classes), {"history": history})


def _tokens(encoder: Any, points: Tensor) -> tuple[Tensor, Tensor]:
    patches = encoder.cut(points)
    return encoder.see(patches, points[..., :3].mean(1)), patches.centres


def _train(
    encoder: Any, detector: SceneDetector, points: Tensor, truth: list[Tensor], *, tune: bool, epochs: int, lr: float,
    batch: int,
) -> list[float]:  # fmt: skip
    groups: list[dict[str, Any]] = [{"params": list(detector.parameters()), "lr": lr}]
    encoder.train(tune).requires_grad_(tune)
    known: tuple[Tensor, Tensor] | None = None
    if tune:
        groups.append({"params": list(encoder.parameters()), "lr": lr / 10})
    else:
        with torch.no_grad():
            parts = [_tokens(encoder, part) for part in points.split(32)]
        known = torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    stepper = torch.optim.AdamW(groups, weight_decay=0.05)
    steps = epochs * -(-len(points) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(stepper, lambda k: 0.5 * (1 + np.cos(np.pi * min(k, steps) / steps)))
    history = []
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(points)).split(batch):
            tokens, centres = _tokens(encoder, points[rows]) if known is None else (known[0][rows], known[1][rows])
            loss = detection_loss(detector(tokens, centres), [truth[i] for i in rows.tolist()])
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 0.5)
            stepper.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        history.append(total / len(points))
    return history


@torch.no_grad()
def _boxes(encoder: Any, detector: SceneDetector, points: Tensor, batch: int) -> list[Found]:
    """Every query says each kind with its probability."""
    encoder.eval()
    detector.eval()
    found = []
    for part in points.split(batch):
        made = detector(*_tokens(encoder, part))
        scores = made.logits.softmax(2)[:, :, :-1]
        for boxes, score in zip(made.boxes, scores, strict=True):
            kinds = np.tile(np.arange(detector.classes), len(boxes))
            repeated = boxes.repeat_interleave(detector.classes, 0)
            found.append(Found(repeated.double().numpy(), kinds, score.flatten().double().numpy()))
    return found


def _numbers(found: list[Found], truth: list[np.ndarray], classes: Sequence[str]) -> dict[str, Number]:
    def mean(threshold: float, kinds: Sequence[int]) -> Any:
        def statistic(rows: np.ndarray) -> float:
            some = rows.astype(int).ravel()
            values = [
                average_precision([found[i] for i in some], [truth[i] for i in some], kind, threshold) for kind in kinds
            ]
            known = [v for v in values if np.isfinite(v)]
            return float(np.mean(known)) if known else float("nan")

        return statistic

    rows = np.arange(len(found))
    every = range(len(classes))
    numbers = {
        name: Number.bootstrap(rows, mean(threshold, every), resamples=RESAMPLES)
        for name, threshold in (("ap25", 0.25), ("ap50", 0.5))
    }
    present = [k for k in every if any((np.asarray(t)[:, 6] == k).any() for t in truth)]
    single = {f"ap25 {classes[k]}": Number(mean(0.25, [k])(rows)) for k in present}
    return numbers | single
