"""A whole source in its own order: batches to embed or judge, broken samples named and never replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from selftaught.data import Source, as_uint8
from selftaught.engine.loader import auto_workers, enough_for, stack_images, worker_init
from selftaught.errors import SampleError
from selftaught.views import Params, Pipeline, render


def evaluation_batches(
    source: Source,
    pipeline: Pipeline | None,
    *,
    batch_size: int = 256,
    workers: int = -1,
    start: int = 0,
    stop: int | None = None,
    value_range: Any = None,
) -> Iterator[dict[str, Any]]:
    """Batches of a source in its own order under one deterministic view; unusable samples are left out and named.

    Samples ``start`` to ``stop`` (the end if None) are given. ``value_range`` scales 16-bit and float images as the
    run's training data were scaled; None takes the source's own.

    Yields:
        ``index (n,)``, ``views`` (one) or ``series``, ``label`` where there is one, ``skipped`` pairs.
    """
    workers = auto_workers(source) if workers < 0 else workers
    stop = len(source) if stop is None else stop
    if stop - start <= 2 * batch_size:
        workers = 0
    chunks = [list(range(i, min(i + batch_size, stop))) for i in range(start, stop, batch_size)]
    loader: DataLoader = DataLoader(
        _InOrder(source, pipeline, value_range),
        batch_size=None,
        sampler=chunks,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=worker_init,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),
    )
    yield from loader


class _InOrder(Dataset):
    """Batches in the source's order: a broken sample is named, never replaced."""

    def __init__(self, source: Source, pipeline: Pipeline | None, value_range: Any) -> None:
        self.source, self.pipeline = source, pipeline
        self.min_side = enough_for([pipeline]) if pipeline is not None else None
        self.value_range = source.value_range if value_range is None else value_range
        self._by_size: dict[tuple[int, ...], Params] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: list[int]) -> dict[str, Any]:
        kept, arrays, skipped = [], [], []
        for i in indices:
            try:
                arrays.append(self._one(self.source.read(i, self.min_side), i))
                kept.append(i)
            except (SampleError, ValueError) as error:
                skipped.append((i, getattr(error, "reason", str(error))))
        batch: dict[str, Any] = {"index": torch.tensor(kept, dtype=torch.int64), "skipped": skipped}
        if self.source.labels is not None:
            batch["label"] = torch.from_numpy(np.asarray(self.source.labels)[kept])
        if arrays and self.pipeline is None:
            batch["series"] = torch.from_numpy(np.stack(arrays))
        elif arrays:
            batch["views"] = [stack_images(arrays)]
        return batch

    def _one(self, sample: np.ndarray, index: int) -> np.ndarray:
        if self.pipeline is None:
            return sample
        image = as_uint8(sample, self.value_range)
        return render(image, self.pipeline, self._params(self.pipeline, index, image.shape[:2]))

    def _params(self, pipeline: Pipeline, index: int, size: tuple[int, ...]) -> Params:
        """The view's parameters: those of the sample's own draw, or, where nothing is drawn, of its size."""
        if size in self._by_size:
            return self._by_size[size]
        params = pipeline.sample(np.random.Generator(np.random.PCG64([0, index])), *size)
        if not pipeline.draws:
            self._by_size[size] = params
        return params
