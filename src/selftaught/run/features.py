"""Embeddings of whole sources: in order, in bounded memory, the model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from selftaught.data import Source
from selftaught.engine.in_order import evaluation_batches
from selftaught.engine.method import Method
from selftaught.engine.precision import autocast_dtype

_RAW_SIDE = 16


def through(
    method: Method,
    source: Source,
    function: Callable[[dict[str, Any]], Any],
    *,
    pipeline: Any = None,
    precision: str = "auto",
    **options: Any,
) -> Iterator[tuple[Any, np.ndarray, list[tuple[int, str]]]]:
    """Call a function with every batch of a source, on the method's device and in its precision.

    Args:
        method: says device, evaluation view and range of values.
        source: samples, in the order of the batches.
        function: of a batch as training sees it; called without gradient.
        pipeline: view of images; None is the method's evaluation view.
        precision: as in training.
        **options: of `evaluation_batches`: ``batch_size``, ``workers``, ``start``.

    Yields:
        what it returned (None for a batch without a sample that can be read), the samples' indices (n,), and what was
        skipped as (index, reason) pairs.
    """
    device = method.device
    dtype = autocast_dtype(precision, device.type)
    pipeline = pipeline or method.evaluation_view()
    for batch in evaluation_batches(source, pipeline, value_range=method.value_range, **options):
        skipped, index = batch.pop("skipped"), batch["index"].numpy()
        if not len(index):
            yield None, index, skipped
            continue
        moved = {k: [x.to(device) for x in v] if k == "views" else v.to(device) for k, v in batch.items()}
        with torch.inference_mode(), torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            found = function(method.on_after_batch_transfer(moved))
        yield found, index, skipped


def stream(
    method: Method,
    source: Source,
    *,
    batch_size: int = 256,
    workers: int = -1,
    start: int = 0,
    precision: str = "auto",
    pipeline: Any = None,
    predict: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]]:
    """Embed a source batch by batch, under ``pipeline`` or the method's evaluation view.

    With ``predict`` the method's predictions take the place of its features (class logits of a classifier).

    Yields:
        features (n, D) float32, the samples' indices (n,), and what was skipped as (index, reason) pairs.
    """
    options: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "start": start}
    function = method.predict if predict else method.features
    for found, index, skipped in through(method, source, function, pipeline=pipeline, precision=precision, **options):
        yield np.zeros((0, 0), np.float32) if found is None else found.float().cpu().numpy(), index, skipped


def embed(
    method: Method,
    source: Source,
    *,
    workers: int = -1,
    batch_size: int = 256,
    pipeline: Any = None,
    predict: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Features (n, D), labels (n,) or None, and indices (n,) of a whole source; broken samples are left out."""
    options: dict[str, Any] = {"workers": workers, "batch_size": batch_size, "pipeline": pipeline, "predict": predict}
    parts = [(f, i) for f, i, _ in stream(method, source, **options) if len(i)]
    features = np.concatenate([f for f, _ in parts])
    index = np.concatenate([i for _, i in parts])
    labels = np.asarray(source.labels)[index] if source.labels is not None else None
    return features, labels, index


def raw(method: Method, source: Source) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The input itself as features: pixels of the evaluation view (a clip's frames), averaged to at most 16 x 16, or
    the whole window.
    """
    parts, indices = [], []
    for batch in evaluation_batches(source, method.evaluation_view(), value_range=method.value_range):
        if not len(batch["index"]):
            continue
        x = method.inputs(batch)
        parts.append((small_pixels(x) if method.spatial else x).flatten(1).numpy())
        indices.append(batch["index"].numpy())
    index = np.concatenate(indices)
    labels = np.asarray(source.labels)[index] if source.labels is not None else None
    return np.concatenate(parts), labels, index


def channel_statistics(method: Method, source: Source) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Mean and deviation of every channel as features: what colour and contrast alone can tell."""
    parts, indices = [], []
    for batch in evaluation_batches(source, method.evaluation_view(), value_range=method.value_range):
        if not len(batch["index"]):
            continue
        x = method.inputs(batch)
        x = (x.float() / 255 if method.spatial else x).flatten(2)
        parts.append(torch.cat([x.mean(2), x.std(2, correction=0)], dim=1).numpy())
        indices.append(batch["index"].numpy())
    index = np.concatenate(indices)
    labels = np.asarray(source.labels)[index] if source.labels is not None else None
    return np.concatenate(parts), labels, index


def small_pixels(images: Tensor) -> Tensor:
    """uint8 (N,C,...,H,W) -> float32 in [0, 1], (N, C or C x frames, h, w) averaged to at most 16 x 16."""
    images = images.float().flatten(1, -3) / 255
    return adaptive_avg_pool2d(images, _RAW_SIDE) if max(images.shape[2:]) > _RAW_SIDE else images


def calibrate(method: Method, source: Source, batches: int = 8) -> None:
    """Judge an untrained encoder at its best: BatchNorm statistics of the data, residual branches not silenced.

    (A ResNet whose last BatchNorm of every block starts at 0 sees one corner of the image through strided shortcuts.)
    """
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        if norm.weight is not None and not norm.weight.any():
            nn.init.ones_(norm.weight)
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
        norm.train()
    some = source.subset(np.linspace(0, len(source) - 1, min(len(source), 256 * batches)).astype(int))
    for _ in stream(method, some, workers=0):
        pass
    method.eval()
