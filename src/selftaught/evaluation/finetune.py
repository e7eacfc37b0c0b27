"""Fine-tuning: the encoder and a linear head trained together on labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.evaluation._inputs import Array, as_labels, code_labels, training_batches
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.classification import judge
from selftaught.evaluation.result import Result
from selftaught.evaluation.tuning import Tuning, add_drop_path, kept_apart, layer_scales, rate_factor
from selftaught.evaluation.tuning_images import make_mixer, mixed, other_chance, random_images
from selftaught.networks.sit import class_and_mean, sit_classifier_head

__all__ = ["finetune"]

Batches = Tensor | np.ndarray | Callable[[Tensor], Tensor]


@protocol("finetune", "encoder and head trained together on the labels", inputs="encoder")
def finetune(
    encoder: nn.Module,
    train_images: Batches,
    train_y: Array,
    test_images: Batches,
    test_y: Array,
    *,
    recipe: str = "adamw",
    cosine: bool = True,
    augment: Callable[[Tensor], Tensor] | None = None,
    freeze_bn: bool = False,
    test_views: int = 1,
    pixels: tuple[Any, Any] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    **changes: Any,
) -> Result:
    """Train a copy of the encoder with a linear head on the labels; the encoder that is passed stays as it is.

    Args:
        encoder: maps a batch to ``(n, d)``.
        train_images: ``(n, C, H, W)`` float, normalised (or ``(n, C, T)`` series: what the encoder takes); or a
            callable that is given int64 indices ``(b,)`` and returns that batch, for data that does not fit in memory.
        train_y: ``(n,)`` or ``(n, 1)`` class indices.
        test_images: as ``train_images``.
        test_y: ``(m,)`` or ``(m, 1)``.
        recipe: one of ``RECIPES``, the defaults of what follows.
        cosine: all rates decay by a half cosine, stepped per batch; else they stay what they are.
        augment: batch -> batch, on training batches only, after what the recipe changes.
        freeze_bn: keep the running statistics and the parameters of BatchNorm layers as they are (small batches).
        test_views: V views of every test sample, whose probabilities are averaged: a callable for the test images
            then gives (V b, ...), all samples under one view after another.
        pixels: mean and deviation of the channels, by which pixels in [0, 1] were normalised; needed by recipes that
            distort images (``mae``, ``beit``).
        device: where to train; where the encoder is if not given.
        seed: of head, order, dropout and all chance else. The caller's random state is left alone.
        **changes: to the recipe, by the names of `Tuning`: ``epochs`` (20 unless the recipe says else), ``lr``,
            ``head_lr``, ``base_lr``, ``weight_decay`` (of matrices and kernels; biases, normalisation layers, position
            tables and class tokens get none), ``batch``, ``optimizer`` ("adamw", or "sgd" with momentum 0.9), ``head``
            ("linear", or "sit": two layers on class token and mean of the patch tokens),
            ``warmup_epochs``, ``layer_decay``, ``drop_path``, ``mixup``, ``cutmix``, ``smoothing``, ``ema``, ``crop``,
            ``randaug``, ``erasing``.

    Returns:
        ``Result`` "finetune" with the numbers of ``linear`` at the last epoch; figure ``history`` (training loss per
        epoch, of mixed images and soft targets where the recipe has them).

    Raises:
        UserError: labels that do not match, a single class, an encoder that does not give ``(n, d)`` or has no layers
            that a recipe asks for, an unknown recipe or option, a loss that is no longer finite.
    """
    n, m = _count(train_images, train_y, "train"), _count(test_images, test_y, "test")
    tuning = Tuning.of(recipe, n, **changes)
    coded = code_labels(train_y, test_y, n, m)
    known, target = np.unique(coded.train, return_inverse=True)
    own = next(encoder.parameters(), torch.empty(0)).device
    where = own if device is None else torch.device(device)
    devices = [where] if where.type == "cuda" else []
    fetch = _fetcher(train_images, where)
    with torch.random.fork_rng(devices), other_chance(seed):
        torch.manual_seed(seed)
        trial = fetch(torch.arange(2))
        model = _Classifier(copy.deepcopy(encoder).to(where), trial, len(known), freeze_bn, tuning.head)
        loss = _Loss(
            augment, random_images(tuning, pixels, trial.shape[1:]), make_mixer(tuning, len(known), trial.dim()), tuning
        )
        taught, history = _train(model, fetch, torch.as_tensor(target), tuning, loss, cosine)
        scores = np.full((m, len(coded.classes)), -np.inf)
        scores[:, known] = _predict(taught, _fetcher(test_images, where), m, tuning.batch, test_views)
    numbers, figures = judge(scores, coded.test, coded.classes)
    return Result("finetune", numbers, {**figures, "history": history}, coded.note)


class _Classifier(nn.Module):
    """Encoder and a linear head N(0, 0.01), whose width a trial batch tells, or SiT's head."""

    def __init__(self, encoder: nn.Module, trial: Tensor, classes: int, freeze_bn: bool, head: str = "linear") -> None:
        super().__init__()
        self.encoder, self.freeze_bn = encoder.requires_grad_(True), freeze_bn
        self.features = class_and_mean if head == "sit" else _embedding
        with torch.no_grad():
            features = self.features(encoder.eval(), trial)
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(trial):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(
                f"encoder: gives {shape} for a batch of {len(trial)}; it must give one row (n, d) per sample"
            )
        self.head: nn.Module = nn.Linear(features.shape[1], classes)
        if head == "sit":
            self.head = sit_classifier_head(features.shape[1] // 2, classes)
        else:
            nn.init.normal_(self.head.weight, std=0.01)
            nn.init.zeros_(self.head.bias)
        self.head.to(features.device)
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
        return self.head(self.features(self.encoder, x).float())

    def _norms(self) -> list[nn.Module]:
        return [layer for layer in self.encoder.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]

    def groups(self, tuning: Tuning) -> list[dict[str, Any]]:
        """Parameter groups of one rate and one decay each: matrices decay, vectors, positions and tokens don't."""
        deep = tuning.layer_decay < 1
        scales = layer_scales(self.encoder, tuning.layer_decay) if deep else {}
        bare = kept_apart(self.encoder)
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        for module, rate in ((self.encoder, tuning.lr), (self.head, tuning.head_lr)):
            assert rate is not None
            for name, p in module.named_parameters():
                if not p.requires_grad:
                    continue
                own = rate * scales.get(name, 1.0) if module is self.encoder else rate
                decay = tuning.weight_decay if p.ndim > 1 and not (module is self.encoder and name in bare) else 0.0
                found.setdefault((own, decay), []).append(p)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in found.items()]


def _embedding(encoder: nn.Module, x: Tensor) -> Tensor:
    return encoder(x)


class _Loss:
    """Cross entropy of a batch that is distorted, mixed and softened as the recipe says."""

    def __init__(
        self,
        augment: Callable[[Tensor], Tensor] | None,
        distort: Callable[[Tensor], Tensor] | None,
        mixer: Any,
        tuning: Tuning,
    ) -> None:
        self.changes = [change for change in (distort, augment) if change is not None]
        self.mixer, self.smoothing = mixer, tuning.smoothing

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        for change in self.changes:
            images = change(images)
        if self.mixer is None:
            return nn.functional.cross_entropy(model(images), target, label_smoothing=self.smoothing)
        images, soft = mixed(images, target, self.mixer)
        return nn.functional.cross_entropy(model(images), soft)


def _train(
    model: _Classifier,
    fetch: Callable[[Tensor], Tensor],
    target: Tensor,
    tuning: Tuning,
    loss_of: _Loss,
    cosine: bool,
) -> tuple[nn.Module, list[float]]:
    """Train the model; it, or the average of its weights, and the training loss of every epoch."""
    groups = model.groups(tuning)
    if tuning.drop_path:
        add_drop_path(model.encoder, tuning.drop_path)
    stepper = torch.optim.AdamW(groups) if tuning.optimizer == "adamw" else torch.optim.SGD(groups, momentum=0.9)
    n, history = len(target), []
    each = len(training_batches(torch.arange(n), tuning.batch))
    steps, warmup = tuning.epochs * each, tuning.warmup_epochs * each
    low = tuning.min_lr / tuning.lr if tuning.lr else 0.0
    schedule = torch.optim.lr_scheduler.LambdaLR(
        stepper, lambda step: rate_factor(step, steps, warmup, min(low, 1.0), cosine)
    )
    average = _average(model, tuning.ema, steps)
    model.train()
    for _ in range(tuning.epochs):
        total = 0.0
        for rows in training_batches(torch.randperm(n), tuning.batch):
            images = fetch(rows)
            loss = loss_of(model, images, target[rows].to(images.device))
            stepper.zero_grad(set_to_none=True)
            loss.backward()
            stepper.step()
            schedule.step()
            if average is not None:
                average.update(model)
            total += float(loss.detach()) * len(rows)
        history.append(total / n)
        if not np.isfinite(total):
            raise UserError(f"lr: the loss is not finite at lr {tuning.lr:g}, head_lr {tuning.head_lr:g}; lower them")
    return (model if average is None else average.module), history


def _average(model: nn.Module, decay: float, steps: int) -> Any:
    """timm's moving average of all weights, or None.

    Raises:
        UserError: so slow an average that after all steps it would still be the start.
    """
    if not decay:
        return None
    if decay**steps > 0.1:
        raise UserError(
            f"ema={decay:g}: after {steps} steps {decay**steps:.0%} of the average is still the weights at the start; "
            f"take at most {math.floor(1000 * 0.1 ** (1 / steps)) / 1000:g}, or more epochs"
        )
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(model, decay=decay)


@torch.no_grad()
def _predict(model: nn.Module, fetch: Callable[[Tensor], Tensor], count: int, batch: int, views: int = 1) -> np.ndarray:
    model.eval()
    found = []
    for part in torch.arange(count).split(max(1, batch // views)):
        logits = model(fetch(part)).double().unflatten(0, (views, -1))
        found.append((torch.log_softmax(logits, -1).logsumexp(0) - math.log(views)).cpu())
    return torch.cat(found).numpy()


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
