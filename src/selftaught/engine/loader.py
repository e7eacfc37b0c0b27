"""From a source to batches: reads, skips what is broken, renders the views, and starts anywhere in the stream."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from selftaught.data import Modality, ResumableBatchSampler, Source, as_uint8, open_source
from selftaught.data.source import UNLABELLED
from selftaught.engine.precision import cores
from selftaught.errors import SampleError, UserError
from selftaught.views import Pipeline, render, stack_params

if TYPE_CHECKING:
    from selftaught.engine.method import Method

_TRIES = 64


def as_unit_float(image: np.ndarray) -> np.ndarray:
    """Integer images -> float32 in [0, 1] by their type's range; float images stay as they are."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32, copy=False)


def enough_for(pipelines: list[Pipeline] | None) -> int | None:
    """Shorter side at which images may be decoded for all these views; None where one of them needs every pixel."""
    sides = [pipeline.enough for pipeline in pipelines or []]
    known = [side for side in sides if side is not None]
    return max(known) if known and len(known) == len(sides) else None


class Batches(Dataset):
    """Whole batches of one source, made in the loader's workers.

    Indexed with ``(epoch, indices)``; returns the batch dict of the contract plus ``skipped``: pairs of a sample's
    index and the reason it could not be used. A skipped sample's place is taken by the next good one. The views'
    randomness depends on (seed, epoch, index) alone, so no worker holds a state that a resumed run would miss.

    Args:
        source: where the samples come from.
        pipelines: one per view; None for series, which are passed whole as ``series``.
        seed: fixes the views.
        pixels: "uint8" rendered views, or "float32" in [0, 1] at the source's full depth (restoration).
        on_device: pass ``images`` (N,C,H,W) of one size and ``params``, one array per view, for the model's device to
            render; the pixels are those that the CPU would have made, within rounding.
    """

    def __init__(
        self,
        source: Source,
        pipelines: list[Pipeline] | None,
        seed: int,
        pixels: str = "uint8",
        on_device: bool = False,
    ) -> None:
        self.source, self.pipelines, self.seed, self.pixels = source, pipelines, seed, pixels
        self.on_device = on_device
        self.min_side = None if on_device else enough_for(pipelines)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, list[int]]) -> dict[str, Any]:
        epoch, indices = key
        skipped: list[tuple[int, str]] = []
        rows = [self._sample(int(i), epoch, skipped) for i in indices]
        kept = np.array([row[0] for row in rows], dtype=np.int64)
        batch: dict[str, Any] = {"index": torch.from_numpy(kept), "skipped": skipped}
        if self.source.labels is not None:
            batch["label"] = torch.from_numpy(np.asarray(self.source.labels)[kept])
        if self.pipelines is None:
            batch["series"] = torch.from_numpy(np.stack([row[1][0] for row in rows]))
        elif self.on_device:
            batch["images"] = self._one_size([row[1][0] for row in rows])
            batch["params"] = [stack_params([row[1][1 + v] for row in rows]) for v in range(self._count)]
        else:
            batch["views"] = [stack_images([row[1][v] for row in rows]) for v in range(self._count)]
        return batch

    @property
    def _count(self) -> int:
        return len(self.pipelines or [])

    def _one_size(self, images: list[np.ndarray]) -> torch.Tensor:
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise UserError(f"--view-device model: {self.source.name} has images of several sizes; use cpu")
        return stack_images(images)

    def _sample(self, index: int, epoch: int, skipped: list[tuple[int, str]]) -> tuple[int, list[np.ndarray]]:
        for attempt in range(_TRIES):
            i = (index + attempt) % len(self.source)
            try:
                return i, self._views(self.source.read(i, self.min_side), i, epoch)
            except SampleError as error:
                skipped.append((i, error.reason))
            except ValueError as error:
                skipped.append((i, str(error)))
        raise UserError(
            f"{self.source.name}: {_TRIES} samples in a row can't be used, the first because: {skipped[0][1]}; "
            f"run: selftaught data check"
        )

    def _views(self, sample: np.ndarray, index: int, epoch: int) -> list[np.ndarray]:
        if self.pipelines is None:
            return [sample]
        image = as_unit_float(sample) if self.pixels == "float32" else as_uint8(sample, self.source.value_range)
        rng = np.random.Generator(np.random.PCG64([self.seed, epoch, index]))
        height, width = image.shape[:2]
        if self.on_device:
            return [image, *(p.sample(rng, height, width) for p in self.pipelines)]
        return [render(image, p, p.sample(rng, height, width)) for p in self.pipelines]


def stack_images(images: list[np.ndarray]) -> torch.Tensor:
    """(h,w,C) arrays -> one contiguous (N,C,h,w) tensor in channels-last memory, copied once."""
    out = np.stack(images)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class _Stream(Sampler):
    """(epoch, indices) pairs from any batch of the stream on, for a number of batches."""

    def __init__(self, n: int, batch_size: int, seed: int, start: int, total: int, rank: int, world: int) -> None:
        self.n, self.batch_size, self.seed, self.rank, self.world = n, batch_size, seed, rank, world
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        position = self.start
        per_epoch = len(self._epoch(0, 0))
        while position < self.total:
            epoch, first = divmod(position, per_epoch)
            for indices in self._epoch(epoch, first):
                if position >= self.total:
                    return
                yield epoch, indices
                position += 1

    def _epoch(self, epoch: int, start: int) -> ResumableBatchSampler:
        return ResumableBatchSampler(
            self.n,
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            start_batch=start,
            rank=self.rank,
            world=self.world,
        )

    def __len__(self) -> int:
        return self.total - self.start


class SkipLog:
    """The samples that could not be used: counted, written to ``skipped.csv``, and too many of them stop the run."""

    def __init__(self, source: Source, max_skip: float, path: Path | None = None) -> None:
        self.source, self.max_skip, self.path = source, max_skip, path
        self.reasons: dict[int, str] = {}

    def add(self, skipped: list[tuple[int, str]]) -> None:
        """Take in what a batch skipped.

        Raises:
            UserError: more than ``max_skip`` of the source can't be used.
        """
        new = {i: reason for i, reason in skipped if i not in self.reasons}
        if not new:
            return
        self.reasons |= new
        self.write()
        if len(self.reasons) > self.max_skip * len(self.source):
            index, reason = next(iter(self.reasons.items()))
            raise UserError(
                f"{self.source.name}: {len(self.reasons)} of {len(self.source)} samples can't be used, more than "
                f"{self.max_skip:.0%} (such as {self.source.names[index]}: {reason}); mend them or raise --max-skip"
            )

    def write(self) -> None:
        """Write ``skipped.csv`` (name, reason), whole each time and atomically."""
        if self.path is None:
            return
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "reason"])
            writer.writerows([self.source.names[i], reason] for i, reason in sorted(self.reasons.items()))
        part.replace(self.path)


def worker_init(_: int) -> None:
    """One thread for OpenCV and torch in each of the loader's processes: the cores are shared between them."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _context() -> str | None:
    """Fork, where the system has it: the workers share what the source holds. Else the system's own way to start."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None


def auto_workers(source: Source) -> int:
    """Loader processes that pay here: none for what lies in memory in small pieces, else up to two per four cores."""
    return min(8, max(1, cores() // 2)) if source.modality == "image" else 0


def training_part(
    spec: Any, modality: Modality | None = None, *, split: str = "auto", by: str = "auto", seed: int = 0
) -> Source:
    """The samples to train on: with ``auto`` all, unless labels, groups or a given test part make one to keep away."""
    if split == "auto":
        whole = open_source(spec, modality=modality, split="all", seed=seed)
        divided = by != "auto" or any(known is not None for known in (whole.labels, whole.groups, whole.given))
        if not divided:
            return whole
        split = "pretrain" if whole.given is not None and (whole.given == UNLABELLED).any() else "train"
    return open_source(spec, modality=modality, split=split, by=by, seed=seed)


class StreamLoader:
    """An iterable of batches that Lightning can take: its length is the whole stream's, its start is anywhere."""

    def __init__(self, dataset: Batches, stream: _Stream, workers: int, skips: SkipLog, pin: bool) -> None:
        self.stream, self.skips = stream, skips
        self.loader: DataLoader = DataLoader(
            dataset,
            batch_size=None,
            sampler=stream,
            num_workers=workers,
            worker_init_fn=worker_init,
            pin_memory=pin,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),
            multiprocessing_context=_context() if workers else None,
        )

    def __len__(self) -> int:
        return self.stream.total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.loader:
            self.skips.add(batch.pop("skipped"))
            yield batch


def check_batch_size(source: Source, batch_size: int, output: str) -> None:
    """Refuse a batch that the samples can't fill, or in which there is nothing to compare.

    Raises:
        UserError: it names --batch-size.
    """
    if batch_size < 2 and output != "image":
        raise UserError(f"--batch-size {batch_size}: an embedding is learnt by comparison, use 2 or more")
    if len(source) < batch_size:
        raise UserError(
            f"{source.name} has {len(source)} samples, fewer than one batch of {batch_size}: "
            f"use --batch-size {len(source)} or less"
        )


class DataModule(L.LightningDataModule):
    """The training data of a method, for :class:`lightning.Trainer`.

    Args:
        source: a :class:`selftaught.data.Source` or anything ``selftaught.data.open_source`` takes.
        method: the method to train; it names its views.
        batch_size: samples per step and process.
        workers: loader processes; -1 chooses by the machine.
        seed: fixes order and views.
        total_batches: length of the whole stream; None is one epoch per Lightning epoch.
        max_skip: largest share of unusable samples.
        skipped: where to list the unusable samples.
        view_device: "cpu" makes views in the loader's processes, "model" batched on the model's device (images of one
            size), "auto" is cpu.

    Raises:
        UserError: fewer samples than one batch.
    """

    def __init__(
        self,
        source: Any,
        method: Method,
        *,
        batch_size: int = 256,
        workers: int = -1,
        seed: int = 0,
        total_batches: int | None = None,
        max_skip: float = 0.05,
        skipped: Path | None = None,
        view_device: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(source, Source):
            source = training_part(source, method.modality)
        self.source, self.method, self.batch_size, self.seed = source, method, batch_size, seed
        self.workers = auto_workers(source) if workers < 0 else workers
        self.total_batches, self.start_batch = total_batches, 0
        self.on_device = view_device == "model" and source.modality == "image" and method.pixels == "uint8"
        self.skips = SkipLog(source, max_skip, skipped)
        self._epoch = 0
        check_batch_size(source, batch_size, method.output)

    def epoch_batches(self, world: int = 1) -> int:
        """Batches per pass over the data on each of ``world`` processes."""
        return max(1, len(self.source) // (self.batch_size * world))

    def train_dataloader(self) -> StreamLoader:
        """Batches from ``start_batch`` on."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        total = self.total_batches or self.epoch_batches(world)
        pipelines = self.method.views() if self.source.modality == "image" else None
        batches = Batches(self.source, pipelines, self.seed, self.method.pixels, self.on_device)
        stream = _Stream(len(self.source), self.batch_size, self.seed, self.start_batch, total, rank, world)
        if self.total_batches is None:
            stream = _Epochs(stream)
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return StreamLoader(batches, stream, self.workers, self.skips, pin)


class _Epochs(_Stream):
    """One epoch per iteration, each in an order and with views of its own (for a Lightning trainer of epochs)."""

    def __init__(self, stream: _Stream) -> None:
        super().__init__(
            stream.n, stream.batch_size, stream.seed, stream.start, stream.total, stream.rank, stream.world
        )
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, self.passes = self.passes, self.passes + 1
        for indices in self._epoch(epoch, 0):
            yield epoch, indices
