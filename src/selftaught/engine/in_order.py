"""A whole source in its own order: batches to embed or judge, broken samples named and never replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from selftaught.data import Source, as_uint8
from selftaught.data.kinds import kind_of
from selftaught.data.pixels import conform
from selftaught.engine.batches import draw, enough_for, render_sample, stack_images, stack_views
from selftaught.engine.loader import auto_workers
from selftaught.engine.streams import Plain, unwrapped, worker_init
from selftaught.errors import SampleError
from selftaught.views import Params, Pipeline, Recipe, render


def evaluation_batches(
    source: Source,
    view: Pipeline | Recipe | None,
    *,
    batch_size: int = 256,
    workers: int = -1,
    start: int = 0,
    stop: int | None = None,
    value_range: Any = None,
    channels: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Batches of a source in its own order under one deterministic view; unusable samples are left out and named.

    Args:
        source: the samples.
        view: a pipeline for the main field, a recipe for several fields, None for samples as they are.
        batch_size: samples per batch, unusable ones included.
        workers: loader processes; -1 chooses.
        start: first sample.
        stop: one past the last sample; None is the end.
        value_range: scales 16-bit and float images as the run's training data were scaled; None: the source's own.
        channels: that images are brought to where that loses nothing (grey to RGB, RGBA on white); an image of other
            channels is left out. None leaves them as they are.

    Yields:
        ``index (n,)``; ``views`` (one), the recipe's views, or the main field under its name; ``label`` where there is
        one; ``skipped`` pairs of index and reason. Only a `SampleError` makes a sample unusable: any other error is
        ours, and is raised.
    """
    workers = auto_workers(source) if workers < 0 else workers
    stop = len(source) if stop is None else stop
    if stop - start <= 2 * batch_size:
        workers = 0
    chunks = [list(range(i, min(i + batch_size, stop))) for i in range(start, stop, batch_size)]
    loader: DataLoader[Any] = DataLoader(
        Plain(_InOrder(source, view, value_range, channels)),
        batch_size=None,
        sampler=chunks,
        num_workers=workers,
        worker_init_fn=worker_init,
        prefetch_factor=2 if workers else None,
        generator=torch.Generator(),
    )
    yield from unwrapped(loader)


class _InOrder(Dataset[Any]):
    """Batches in the source's order: a broken sample is named, never replaced."""

    def __init__(self, source: Source, view: Pipeline | Recipe | None, value_range: Any, channels: int | None) -> None:
        self.source, self.channels = source, channels
        self.recipe = None
        if isinstance(view, Recipe):
            self.recipe = view.with_kinds({name: field.kind for name, field in source.fields.items()})
        self.pipeline = view if isinstance(view, Pipeline) else None
        self.min_side = enough_for([self.pipeline]) if self.pipeline is not None else None
        self.value_range = source.scaled_as(value_range)
        self._by_size: dict[tuple[int, ...], Params] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: list[int]) -> dict[str, Any]:
        kept, rows, skipped = [], [], []
        for i in indices:
            try:
                rows.append(self._one(i))
                kept.append(i)
            except SampleError as error:
                skipped.append((i, error.reason))
        batch: dict[str, Any] = {"index": torch.tensor(kept, dtype=torch.int64), "skipped": skipped}
        if self.source.labels is not None:
            batch["label"] = torch.from_numpy(np.asarray(self.source.labels)[kept])
        if not rows:
            return batch
        if self.recipe is not None:
            return batch | stack_views(rows, self.recipe)
        if self.pipeline is not None:
            return batch | {"views": [stack_images(rows)]}
        return batch | {self.source.main: kind_of(self.source.modality).stack(rows)}

    def _one(self, index: int) -> Any:
        if self.recipe is not None:
            return render_sample(self.source, index, self.recipe, _generator(index), value_range=self.value_range)
        sample = self.source.read(index, self.min_side)
        if self.pipeline is None:
            return sample
        if self.channels is not None:
            sample = conform(sample, self.channels, self.source.names[index])
        image = as_uint8(sample, self.value_range)
        return render(image, self.pipeline, self._params(self.pipeline, index, image.shape[:2]))

    def _params(self, pipeline: Pipeline, index: int, size: tuple[int, ...]) -> Params:
        """The view's parameters: those of the sample's own draw, or, where nothing is drawn, of its size."""
        if size in self._by_size:
            return self._by_size[size]
        params = draw(pipeline, _generator(index), size[0], size[1], self.source.names[index])
        if not pipeline.draws:
            self._by_size[size] = params
        return params


def _generator(index: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([0, index]))
