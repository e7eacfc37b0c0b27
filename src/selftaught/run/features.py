"""Embeddings of whole sources: in order, in bounded memory, the model in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d

from selftaught.data import Source
from selftaught.engine.embedding import batches_of, check_channels, none_usable, through
from selftaught.engine.method import Method

__all__ = [
    "batches_of",
    "calibrate",
    "channel_statistics",
    "check_channels",
    "embed",
    "raw",
    "small_pixels",
    "stream",
    "through",
]

_RAW_SIDE = 16


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
    every = list(stream(method, source, **options))
    parts = [(f, i) for f, i, _ in every if len(i)]
    return _whole(source, [f for f, _ in parts], [i for _, i in parts], [pair for *_, lost in every for pair in lost])


def raw(method: Method, source: Source) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The input itself as features: pixels of the evaluation view, averaged to at most 16 x 16; or the whole window."""
    return _plain(method, source, lambda x: (small_pixels(x) if x.dtype == torch.uint8 else x).flatten(1))


def channel_statistics(method: Method, source: Source) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Mean and deviation of every channel as features: what colour and contrast alone can tell."""

    def statistics(x: Tensor) -> Tensor:
        x = (x.float() / 255 if x.dtype == torch.uint8 else x).flatten(2)
        return torch.cat([x.mean(2), x.std(2, correction=0)], dim=1)

    return _plain(method, source, statistics)


def _plain(
    method: Method, source: Source, function: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    parts, indices, skipped = [], [], []
    for batch in batches_of(method, source, method.evaluation_view()):
        if len(batch["index"]):
            parts.append(function(method.inputs(batch)).numpy())
            indices.append(batch["index"].numpy())
        skipped += batch["skipped"]
    return _whole(source, parts, indices, skipped)


def _whole(
    source: Source, parts: list[np.ndarray], indices: list[np.ndarray], skipped: list[tuple[int, str]]
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    if not parts:
        raise none_usable(source, skipped)
    index = np.concatenate(indices)
    labels = np.asarray(source.labels)[index] if source.labels is not None else None
    return np.concatenate(parts), labels, index


def small_pixels(images: Tensor) -> Tensor:
    """uint8 (N,C,...,H,W) -> float32 in [0, 1], averaged to at most 16 x 16, and to 8 frames of a clip."""
    images = images.float() / 255
    if images.dim() == 5:
        frames, height, width = images.shape[2:]
        return adaptive_avg_pool3d(images, (min(8, frames), min(_RAW_SIDE, height), min(_RAW_SIDE, width)))
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
