"""Fine-tuning: the encoder and a linear head trained together on labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_labels, code_labels
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import judge
from selftaught.evaluation.result import Result

__all__ = ["finetune"]

Batches = Tensor | np.ndarray | Callable[[Tensor], Tensor]

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "adamw": {"optimizer": "adamw", "lr": 3e-4, "head_lr": 3e-3, "weight_decay": 0.01, "batch": 64},
        "vit": {"optimizer": "adamw", "lr": 1e-3, "head_lr": 1e-3, "weight_decay": 0.05, "batch": 32},
        "barlow-twins": {"optimizer": "sgd", "lr": 0.005, "head_lr": 0.5, "weight_decay": 0.0, "batch": 256},
        "cvrl": {"optimizer": "sgd", "lr": 0.16, "head_lr": 0.16, "weight_decay": 0.0, "batch": 128},
    }
)
"""Named defaults: "adamw" is the toolkit's, "vit" for small transformers with few labels, "barlow-twins" the
semi-supervised recipe of that sheet (20 epochs too), "cvrl" that of fine-tuning on clips (50 epochs)."""


@protocol("finetune", "encoder and head trained together on the labels", inputs="encoder")
def finetune(
    encoder: nn.Module,
    train_images: Batches,
    train_y: Array,
    test_images: Batches,
    test_y: Array,
    *,
    recipe: str = "adamw",
    epochs: int = 20,
    lr: float | None = None,
    head_lr: float | None = None,
    weight_decay: float | None = None,
    batch: int | None = None,
    optimizer: Literal["adamw", "sgd"] | None = None,
    cosine: bool = True,
    augment: Callable[[Tensor], Tensor] | None = None,
    freeze_bn: bool = False,
    test_views: int = 1,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Result:
    """Train a copy of the encoder with a linear head on the labels; the encoder that is passed stays as it is.

    Args:
        encoder: maps a batch to ``(n, d)``.
        train_images: ``(n, C, H, W)`` float, normalised (or ``(n, C, T)`` series: what the encoder takes); or a
            callable that is given int64 indices ``(b,)`` and returns that batch, for data that does not fit in memory.
        train_y: ``(n,)`` or ``(n, 1)`` class indices.
        test_images: as ``train_images``.
        test_y: ``(m,)`` or ``(m, 1)``.
        recipe: one of ``RECIPES``, the defaults of rates, decay, batch and optimizer.
        epochs: default 20.
        lr: of the encoder.
        head_lr: of the head.
        weight_decay: of matrices and kernels; biases and normalisation layers get none.
        batch: batch size.
        optimizer: "adamw", or "sgd" with momentum 0.9.
        cosine: both rates decay to 0 by a half cosine, stepped per batch.
        augment: batch -> batch, on training batches only.
        freeze_bn: keep the running statistics and the parameters of BatchNorm layers as they are (small batches).
        test_views: V views of every test sample, whose probabilities are averaged: a callable for the test images
            then gives (V b, ...), all samples under one view after another.
        device: where to train; where the encoder is if not given.
        seed: of head, order and dropout. The caller's random state is left alone.

    Returns:
        ``Result`` "finetune" with the numbers of ``linear`` at the last epoch; figure ``history`` (training loss per
        epoch).

    Raises:
        UserError: labels that do not match, a single class, an encoder that does not give ``(n, d)``, an unknown
            recipe, a loss that is no longer finite.
    """
    if recipe not in RECIPES:
        raise UserError(f"recipe: no {recipe!r}; one of {', '.join(RECIPES)}")
    given = {"optimizer": optimizer, "lr": lr, "head_lr": head_lr, "weight_decay": weight_decay, "batch": batch}
    options = {**RECIPES[recipe], **{key: value for key, value in given.items() if value is not None}}
    n, m = _count(train_images, train_y, "train"), _count(test_images, test_y, "test")
    coded = code_labels(train_y, test_y, n, m)
    known, target = np.unique(coded.train, return_inverse=True)
    own = next(encoder.parameters(), torch.empty(0)).device
    where = own if device is None else torch.device(device)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        model = _Classifier(copy.deepcopy(encoder).to(where), _fetcher(train_images, where), len(known), freeze_bn)
        history = _train(model, _fetcher(train_images, where), torch.as_tensor(target), epochs=epochs, cosine=cosine,
                         augment=augment, **options)  # fmt: skip
        scores = np.full((m, len(coded.classes)), -np.inf)
        scores[:, known] = _predict(model, _fetcher(test_images, where), m, options["batch"], test_views)
    numbers, figures = judge(scores, coded.test, coded.classes)
    return Result("finetune", numbers, {**figures, "history": history}, coded.note)


class _Classifier(nn.Module):
    """Encoder and a linear head N(0, 0.01), whose width a trial batch tells."""

    def __init__(self, encoder: nn.Module, fetch: Callable[[Tensor], Tensor], classes: int, freeze_bn: bool) -> None:
        super().__init__()
        self.encoder, self.freeze_bn = encoder.requires_grad_(True), freeze_bn
        trial = fetch(torch.arange(2))
        with torch.no_grad():
            features = encoder.eval()(trial)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(trial):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(
                f"encoder: gives {shape} for a batch of {len(trial)}; it must give one row (n, d) per sample"
            )
        self.head = nn.Linear(features.shape[1], classes).to(features.device)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        if freeze_bn:
            for layer in self._norms():
                layer.requires_grad_(False)

    def train(self, mode: bool = True) -> _Classifier:
        super().train(mode)
        if self.freeze_bn:
            for layer in self._norms():
                layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).float())

    def _norms(self) -> list[nn.Module]:
        return [layer for layer in self.encoder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]

    def groups(self, lr: float, head_lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups: matrices with decay, vectors without; the head with its own rate."""
        out = []
        for module, rate in ((self.encoder, lr), (self.head, head_lr)):
            free = [p for p in module.parameters() if p.requires_grad]
            out.append({"params": [p for p in free if p.ndim > 1], "lr": rate, "weight_decay": weight_decay})
            out.append({"params": [p for p in free if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
        return [group for group in out if group["params"]]


def _train(
    model: _Classifier,
    fetch: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    optimizer: str,
    lr: float,
    head_lr: float,
    weight_decay: float,
    batch: int,
    epochs: int,
    cosine: bool,
    augment: Callable[[Tensor], Tensor] | None,
) -> list[float]:
    if epochs < 1 or batch < 2:
        raise UserError(f"epochs {epochs}, batch {batch}: at least 1 epoch and batches of 2")
    if optimizer not in ("adamw", "sgd"):
        raise UserError(f"optimizer: no {optimizer!r}; adamw or sgd")
    groups = model.groups(lr, head_lr, weight_decay)
    stepper = torch.optim.AdamW(groups) if optimizer == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    n, history = len(target), []
    steps = epochs * len(_batches(torch.arange(n), batch))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        stepper, lambda step: 0.5 * (1 + np.cos(np.pi * min(step, steps) / steps)) if cosine else 1.0
    )
    model.train()
    for _ in range(epochs):
        total = 0.0
        for rows in _batches(torch.randperm(n), batch):
            images = fetch(rows)
            logits = model(images if augment is None else augment(images))
            loss = nn.functional.cross_entropy(logits, target[rows].to(logits.device))
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        history.append(total / n)
        if not np.isfinite(total):
            raise UserError(f"lr: the loss is not finite at lr {lr:g}, head_lr {head_lr:g}; lower them")
    return history


@torch.no_grad()
def _predict(
    model: _Classifier, fetch: Callable[[Tensor], Tensor], count: int, batch: int, views: int = 1
) -> np.ndarray:
    model.eval()
    found = []
    for part in torch.arange(count).split(max(1, batch // views)):
        logits = model(fetch(part)).double().unflatten(0, (views, -1))
        found.append((torch.log_softmax(logits, -1).logsumexp(0) - math.log(views)).cpu())
    return torch.cat(found).numpy()


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """Batches of ``size``; a last one of a single sample joins the one before, since BatchNorm can't take it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _count(images: Batches, y: Array, side: str) -> int:
    n = len(y) if callable(images) and not isinstance(images, Tensor) else len(images)
    as_labels(y, n, f"{side} labels")
    return n


def _fetcher(images: Batches, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Indices -> float batch on the device."""
    if callable(images) and not isinstance(images, Tensor):
        source = images
    else:
        tensor = torch.as_tensor(images)
        if not tensor.is_floating_point():
            raise UserError("images: whole numbers; pass float images, normalised as the encoder expects")
        source = lambda rows: tensor[rows.to(tensor.device)]  # noqa: E731
    return lambda rows: source(rows).to(device).float()
