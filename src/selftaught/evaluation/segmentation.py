"""Semantic segmentation: a classifier of every pixel over the encoder's last feature map, judged by mean IoU.

The core-tuning sheet's transfer task, in the small: in place of DeepLab v3 a 1x1 convolution over the map (or UperNet's
head), enlarged bilinearly, on the frozen encoder or fine-tuned with it; with ``eta`` the focal contrast of core-tuning
acts on features of sampled pixels (arXiv 2102.06605).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._inputs import training_batches
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result
from selftaught.networks.dense_heads import UPerHead
from selftaught.objectives import core_tuning_pool, focal_contrast

__all__ = ["segmentation"]

IGNORE = 255
"""Mask value of pixels that count for nothing."""
RESAMPLES = 500


@dataclass(frozen=True)
class _Recipe:
    """How the head, and with ``tune`` the encoder, are trained."""

    tune: bool
    head: str
    epochs: int
    lr: float
    encoder_lr: float
    batch: int
    eta: float
    tau: float
    sampled: int


@protocol("segmentation", "a class for every pixel, a head on the frozen encoder: mean IoU", inputs="dense")
def segmentation(
    encoder: nn.Module,
    train_images: Any,
    train_masks: Any,
    test_images: Any,
    test_masks: Any,
    *,
    classes: int | None = None,
    head: Literal["linear", "upernet"] = "linear",
    tune: bool = False,
    epochs: int = 20,
    lr: float = 1e-2,
    encoder_lr: float = 1e-4,
    batch: int = 16,
    eta: float = 0.0,
    tau: float = 0.07,
    sampled: int = 256,
    ignore: int = IGNORE,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Result:
    """Train a dense head on a copy of the encoder and judge its masks; the encoder that is passed stays as it is.

    Args:
        encoder: has ``maps``: (n, C, H, W) -> (n, F, h, w), as ``selftaught.networks`` makes them; or is a module
            that gives such a map itself.
        train_images: (n, C, H, W) float, normalised as the encoder expects.
        train_masks: (n, H, W) whole numbers, the class of each pixel, ``ignore`` where there is none.
        test_images: as ``train_images``.
        test_masks: as ``train_masks``.
        classes: number K of classes; None: as many as the masks name.
        head: "linear", a 1x1 convolution over the map or the patch tokens, or "upernet", which sees context and a
            pyramid of resolutions (:class:`selftaught.networks.UPerHead`).
        tune: train the encoder too; else it is frozen, in evaluation mode.
        epochs: default 20.
        lr: of the head (AdamW, half-cosine decay, weight decay 1e-4).
        encoder_lr: of the encoder with ``tune``.
        batch: images per step.
        eta: weight of core-tuning's focal contrast (per-positive) on mixed features of sampled pixels; needs ``tune``.
        tau: its temperature.
        sampled: pixels of a batch that it sees, drawn evenly over the classes that the batch holds.
        ignore: mask value of pixels that count for nothing.
        device: where to train; where the encoder is if not given.
        seed: of head, order and sampled pixels. The caller's random state is left alone.

    Returns:
        ``Result`` "segmentation": ``miou`` (mean over the classes that occur in the truth or prediction of the test
        set), ``pixel_accuracy``, ``iou K`` of each class; intervals over test images. Figures ``confusion`` (rows true)
        and ``history`` (training loss per epoch).

    Raises:
        UserError: shapes that don't fit, masks without a class or beyond ``classes``, an encoder without a map, a
            number out of range.
    """
    x, y = as_scenes(train_images, train_masks, ignore, "train")
    test_x, test_y = as_scenes(test_images, test_masks, ignore, "test")
    count = class_count((y, test_y), classes, ignore)
    if head not in ("linear", "upernet"):
        raise UserError(f"head={head!r}: choose linear or upernet")
    if epochs < 1 or batch < 1 or sampled < 2 or eta < 0 or (eta and not tune):
        raise UserError("segmentation: epochs and batch from 1, sampled from 2, eta from 0 and above 0 only with tune")
    own = next(encoder.parameters(), torch.empty(0)).device
    where = own if device is None else torch.device(device)
    recipe = _Recipe(tune, head, epochs, lr, encoder_lr, batch, eta, tau, sampled)
    with torch.random.fork_rng([where] if where.type == "cuda" else []):
        torch.manual_seed(seed)
        model = _Dense(copy.deepcopy(encoder).to(where), x[:1].to(where), count, recipe)
        history = _train(model, x, y, recipe, ignore)
        confusions = _confusions(model, test_x, test_y, count, batch, ignore)
    figures = {"confusion": {"matrix": confusions.sum(0)}, "history": history}
    return Result("segmentation", dense_numbers(confusions), figures)


class _Dense(nn.Module):
    """Encoder, a 1x1 convolution to the classes, and with a contrast a head for sampled pixels."""

    def __init__(self, encoder: nn.Module, trial: Tensor, classes: int, recipe: _Recipe) -> None:
        super().__init__()
        self.encoder, self.tune = encoder.requires_grad_(recipe.tune), recipe.tune
        self.maps: Callable[[Tensor], Tensor] = getattr(encoder, "maps", encoder)
        encoder.eval()
        width = feature_map(encoder, trial).shape[1]
        upper = recipe.head == "upernet"
        classifier: nn.Module = UPerHead(width, classes) if upper else nn.Conv2d(width, classes, 1)
        self.classifier = classifier.to(trial.device)
        head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, min(width, 128)))
        self.head = head.to(trial.device) if recipe.eta else None

    def train(self, mode: bool = True) -> _Dense:
        super().train(mode)
        if not self.tune:
            self.encoder.eval()
        return self

    def features(self, x: Tensor) -> Tensor:
        """The map (n, F, h, w), without a graph where the encoder is frozen."""
        with torch.set_grad_enabled(self.tune and torch.is_grad_enabled()):
            return self.maps(x).float()

    def scores(self, features: Tensor, size: torch.Size) -> Tensor:
        """(n, K, H, W)."""
        return F.interpolate(self.classifier(features), size=size, mode="bilinear", align_corners=False)

    def groups(self, recipe: _Recipe) -> list[dict[str, Any]]:
        """Parameters of the heads and of a tuned encoder, each with its rate."""
        parts = [self.classifier, *([self.head] if self.head is not None else [])]
        found = [{"params": [p for part in parts for p in part.parameters()], "lr": recipe.lr}]
        return found + ([{"params": list(self.encoder.parameters()), "lr": recipe.encoder_lr}] if recipe.tune else [])


def _train(model: _Dense, x: Tensor, y: Tensor, recipe: _Recipe, ignore: int) -> list[float]:
    device = next(model.classifier.parameters()).device
    stepper = torch.optim.AdamW(model.groups(recipe), weight_decay=1e-4)
    steps = recipe.epochs * -(-len(x) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        stepper, lambda step: 0.5 * (1 + np.cos(np.pi * min(step, steps) / steps))
    )
    model.train()
    history = []
    for _ in range(recipe.epochs):
        total = 0.0
        for rows in training_batches(torch.randperm(len(x)), recipe.batch):
            mask = y[rows].to(device)
            features = model.features(x[rows].to(device))
            loss = F.cross_entropy(model.scores(features, mask.shape[1:]), mask, ignore_index=ignore)
            if model.head is not None:
                loss = loss + recipe.eta * _contrast(model.head, features, mask, recipe, ignore)
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        history.append(total / len(x))
        if not np.isfinite(total):
            raise UserError(f"lr: the loss is not finite at lr {recipe.lr:g}, encoder_lr {recipe.encoder_lr:g}")
    return history


def _contrast(head: nn.Module, features: Tensor, mask: Tensor, recipe: _Recipe, ignore: int) -> Tensor:
    """Focal contrast of sampled cells of the map; a cell has the label of the pixel at its centre."""
    small = F.interpolate(mask[:, None].float(), size=features.shape[2:], mode="nearest-exact")[:, 0].long().flatten()
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)
    known = (small != ignore).nonzero()[:, 0]
    if len(known) < 2:
        return features.sum() * 0.0
    counts = torch.bincount(small[known])
    chance = 1 / counts[small[known]].float()
    chosen = known[torch.multinomial(chance, min(recipe.sampled, len(known)))]
    pool = core_tuning_pool(cells[chosen], small[chosen], classes=len(counts))
    return focal_contrast(head(pool.features), pool.targets, tau=recipe.tau, normalisation="per-positive")


@torch.no_grad()
def _confusions(model: _Dense, x: Tensor, y: Tensor, classes: int, batch: int, ignore: int) -> np.ndarray:
    """(n, K, K) counts of pixels per test image, rows true."""
    model.eval()
    device = next(model.classifier.parameters()).device
    found = []
    for images, masks in zip(x.split(batch), y.split(batch), strict=True):
        predicted = model.scores(model.features(images.to(device)), masks.shape[1:]).argmax(1).cpu()
        found += [confusion_of(mask, guess, classes, ignore) for mask, guess in zip(masks, predicted, strict=True)]
    return torch.stack(found).numpy()


def confusion_of(mask: Tensor, guess: Tensor, classes: int, ignore: int) -> Tensor:
    """(K, K) counts of the pixels of one image, rows true."""
    kept = mask != ignore
    return torch.bincount(mask[kept] * classes + guess[kept], minlength=classes**2).view(classes, classes)


def dense_numbers(confusions: np.ndarray) -> dict[str, Number]:
    """``miou``, ``pixel_accuracy``, ``iou K`` of (n, K, K) counts per test image, rows true; intervals over images."""
    flat = confusions.reshape(len(confusions), -1).astype(np.float64)
    k = confusions.shape[1]

    def statistic(of: Callable[[np.ndarray], float]) -> Number:
        return Number.bootstrap(flat, lambda rows: of(rows.sum(0).reshape(k, k)), resamples=RESAMPLES)

    numbers = {
        "miou": statistic(lambda matrix: float(np.nanmean(_iou(matrix)))),
        "pixel_accuracy": statistic(lambda matrix: float(np.trace(matrix) / max(matrix.sum(), 1))),
    }
    present = np.flatnonzero(~np.isnan(_iou(confusions.sum(0))))
    return numbers | {f"iou {c}": statistic(lambda matrix, c=c: float(_iou(matrix)[c])) for c in present}  # type: ignore[misc]


def _iou(confusion: np.ndarray) -> np.ndarray:
    """(K,) intersection over union; NaN for a class that neither the truth nor the prediction has."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def as_scenes(images: Any, masks: Any, ignore: int, side: str) -> tuple[Tensor, Tensor]:
    """Images (n, C, H, W) float32 and masks (n, H, W) int64.

    Raises:
        UserError: other shapes or types, masks of which no pixel has a class.
    """
    x, y = torch.as_tensor(images), torch.as_tensor(np.asarray(masks))
    if x.dim() != 4 or not x.is_floating_point() or not len(x):
        raise UserError(f"{side} images: pass float (n, C, H, W), normalised as the encoder expects, at least one")
    if y.shape != (len(x), *x.shape[2:]) or y.is_floating_point():
        raise UserError(f"{side} masks: pass whole numbers of the shape {(len(x), *x.shape[2:])}, got {tuple(y.shape)}")
    if not bool((y != ignore).any()):
        raise UserError(f"{side} masks: every pixel is {ignore}, which counts for nothing; none has a class")
    return x.float(), y.long()


def class_count(masks: tuple[Tensor, Tensor], classes: int | None, ignore: int) -> int:
    """Number of classes: as told, else as many as the masks name.

    Raises:
        UserError: a mask's value beyond it.
    """
    count = int(max(int(m[m != ignore].max()) for m in masks)) + 1 if classes is None else classes
    if any(int(m[m != ignore].max()) >= count or int(m.min()) < 0 for m in masks):
        raise UserError(f"masks: values must lie in 0 .. {count - 1}, or be {ignore} where nothing counts")
    return count


@torch.no_grad()
def feature_map(encoder: nn.Module, x: Tensor) -> Tensor:
    """What ``encoder.maps``, or the encoder itself, gives for images: (n, F, h, w) float32.

    Raises:
        UserError: it is no map.
    """
    found = getattr(encoder, "maps", encoder)(x)
    if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != len(x):
        raise UserError("encoder: gives no feature map (n, F, h, w); pass one with maps(), or its body")
    return found.float()
