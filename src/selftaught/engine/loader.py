"""From a source to batches: reads, skips what is broken, renders the views, and starts anywhere in the stream."""

from __future__ import annotations

import csv
import multiprocessing
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from selftaught.data import Modality, Source, as_uint8, open_source
from selftaught.data.kinds import kind_of
from selftaught.data.source import UNLABELLED
from selftaught.engine.orders import Order, Shuffled, batches_of
from selftaught.engine.precision import cores
from selftaught.errors import SampleError, UserError
from selftaught.views import Pipeline, Recipe, render, stack_params

if TYPE_CHECKING:
    from selftaught.engine.method import Method

_TRIES = 64
_START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


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
        views: one pipeline per view of the source's main field; a recipe for views of several fields; None for samples
            passed whole, under the main field's name.
        seed: fixes the views.
        pixels: "uint8" rendered views, or "float32" in [0, 1] at the source's full depth (restoration).
        on_device: pass ``images`` (N,C,H,W) of one size and ``params``, one array per view, for the model's device to
            render; the pixels are those that the CPU would have made, within rounding.
    """

    def __init__(
        self,
        source: Source,
        views: list[Pipeline] | Recipe | None,
        seed: int,
        pixels: str = "uint8",
        on_device: bool = False,
    ) -> None:
        self.source, self.seed, self.pixels, self.on_device = source, seed, pixels, on_device
        self.recipe = views if isinstance(views, Recipe) else None
        self.pipelines = views if not isinstance(views, Recipe) else None
        self.min_side = None if on_device else enough_for(self.pipelines)
        if self.recipe is not None:
            missing = [name for name in self.recipe.fields if name not in source.fields]
            if missing:
                has = ", ".join(source.fields)
                raise UserError(f"{source.name} has no field {missing[0]!r}, which the views are made of; it has {has}")
            self.recipe = self.recipe.with_kinds({name: field.kind for name, field in source.fields.items()})

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
        made = [row[1] for row in rows]
        if self.recipe is not None:
            return batch | stack_views(made, self.recipe)
        if self.pipelines is None:
            batch[self.source.main] = kind_of(self.source.modality).stack([row[0] for row in made])
        elif self.on_device:
            batch["images"] = self._one_size([row[0] for row in made])
            batch["params"] = [stack_params([row[1 + v] for row in made]) for v in range(len(self.pipelines))]
        else:
            batch["views"] = [stack_images([row[v] for row in made]) for v in range(len(self.pipelines))]
        return batch

    def _one_size(self, images: list[np.ndarray]) -> torch.Tensor:
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise UserError(f"--view-device model: {self.source.name} has images of several sizes; use cpu")
        return stack_images(images)

    def _sample(self, index: int, epoch: int, skipped: list[tuple[int, str]]) -> tuple[int, Any]:
        for attempt in range(_TRIES):
            i = (index + attempt) % len(self.source)
            try:
                return i, self._views(i, np.random.Generator(np.random.PCG64([self.seed, epoch, i])))
            except SampleError as error:
                skipped.append((i, error.reason))
        raise UserError(
            f"{self.source.name}: {_TRIES} samples in a row can't be used, the first because: {skipped[0][1]}; "
            f"run: selftaught data check"
        )

    def _views(self, index: int, rng: np.random.Generator) -> Any:
        if self.recipe is not None:
            return render_sample(self.source, index, self.recipe, rng, self.pixels)
        sample = self.source.read(index, self.min_side)
        if self.pipelines is None:
            return [sample]
        image = as_unit_float(sample) if self.pixels == "float32" else as_uint8(sample, self.source.value_range)
        height, width = image.shape[:2]
        if self.on_device:
            return [image, *(draw(p, rng, height, width, self.source.names[index]) for p in self.pipelines)]
        drawn = ((p, draw(p, rng, height, width, self.source.names[index])) for p in self.pipelines)
        return [render(image, pipeline, params) for pipeline, params in drawn]


def draw(pipeline: Pipeline, rng: np.random.Generator, height: int, width: int, name: str) -> Any:
    """A view's parameters; an image that is too small for it is a sample that can't be used.

    Raises:
        SampleError: the pipeline refuses the image's size.
    """
    try:
        return pipeline.sample(rng, height, width)
    except UserError as error:
        raise SampleError(name, str(error)) from error


def render_sample(
    source: Source,
    index: int,
    recipe: Recipe,
    rng: np.random.Generator,
    pixels: str = "uint8",
    value_range: Any = None,
) -> dict[str, Any]:
    """A recipe's views of one sample, and the facts of its operations; only the frames that they need are decoded.

    The main field is scaled by ``value_range``, a run's; None takes the source's own.

    Raises:
        SampleError: the sample can't be read, or is too small for a view.
    """
    clips = [f for f in recipe.fields if kind_of(source.fields[f].kind).framed]
    try:
        frames = recipe.frames(rng, {f: source.frames(index) for f in clips}) if clips else None
    except UserError as error:
        raise SampleError(source.names[index], str(error)) from error
    read = dict(frames.read) if frames is not None else {}
    if len({tuple(numbers) for numbers in read.values()}) > 1:
        raise UserError(f"{source.name}: views pick different frames of {' and '.join(read)}; give them one space")
    side = recipe.enough.get(source.main) if len(recipe.fields) == 1 else None
    values = source.sample(index, want=recipe.fields, min_side=side, frames=next(iter(read.values()), None))
    given = {source.main: value_range}
    values = {key: _pixels(source, key, value, pixels, given.get(key)) for key, value in values.items()}
    try:
        params = recipe.sample(rng, {key: np.shape(value) for key, value in values.items()}, frames)
    except UserError as error:
        raise SampleError(source.names[index], str(error)) from error
    return recipe.render(values, params)


def _pixels(source: Source, field: str, value: Any, pixels: str, value_range: Any) -> Any:
    """A field's values as views take them: brightnesses as uint8 or unit floats, anything else as it is.

    They are scaled by ``value_range``; None takes the source's own.
    """
    if not kind_of(source.fields[field].kind).pixels:
        return value
    if pixels == "float32":
        return as_unit_float(value)
    return as_uint8(value, source.range_of(field) if value_range is None else value_range)


def stack_views(rows: list[dict[str, Any]], recipe: Recipe) -> dict[str, torch.Tensor]:
    """Views and facts of several samples as one batch: images (N,C,h,w), clips (N,C,T,h,w), facts (N, ...).

    Raises:
        UserError: a view has several sizes.
    """
    found = {}
    for name in rows[0]:
        values = [np.asarray(row[name]) for row in rows]
        kind = recipe.kind_of(name, values[0].ndim) if "." not in name else "value"
        if kind != "value":
            found[name] = kind_of(kind).stack(values)
            continue
        if len({value.shape for value in values}) > 1:
            raise UserError(f"{name} has several sizes in one batch; crop or resize to one size")
        found[name] = torch.from_numpy(np.stack(values))
    return found


def stack_images(images: list[np.ndarray]) -> torch.Tensor:
    """(h,w,C) arrays -> one contiguous (N,C,h,w) tensor in channels-last memory, copied once."""
    out = np.stack(images)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class _Stream(Sampler):
    """(epoch, indices) pairs of one order from any batch of the stream on, for a number of batches."""

    def __init__(
        self, order: Order, batch_size: int, seed: int, start: int, total: int, rank: int = 0, world: int = 1
    ) -> None:
        self.order, self.batch_size, self.seed, self.rank, self.world = order, batch_size, seed, rank, world
        self.start, self.total = start, total
        self.per_epoch = max(1, order.length // (batch_size * world))

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        position = self.start
        while position < self.total:
            epoch, first = divmod(position, self.per_epoch)
            for indices in self.epoch(epoch, first):
                if position >= self.total:
                    return
                yield epoch, indices
                position += 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[int]]:
        """The batches of one epoch from one of them on."""
        return batches_of(
            self.order, self.batch_size, seed=self.seed, epoch=epoch, start=start, rank=self.rank, world=self.world
        )

    def __len__(self) -> int:
        return self.total - self.start


class _Side(Sampler):
    """Keys of several streams side by side: {role: (epoch, indices)}."""

    def __init__(self, streams: dict[str, _Stream]) -> None:
        self.streams = streams
        self.total = next(iter(streams.values())).total

    def __iter__(self) -> Iterator[dict[str, tuple[int, list[int]]]]:
        for keys in zip(*self.streams.values(), strict=True):
            yield dict(zip(self.streams, keys, strict=True))

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())))


class _Together(Dataset):
    """Batches of several sources at once: {role: batch}."""

    def __init__(self, parts: dict[str, Batches]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return max(len(part) for part in self.parts.values())

    def __getitem__(self, keys: dict[str, tuple[int, list[int]]]) -> dict[str, dict[str, Any]]:
        return {role: part[keys[role]] for role, part in self.parts.items()}


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


_told = 0


def worker_init(_: int) -> None:
    """One thread for OpenCV and torch in each of the loader's processes: the cores are shared between them.

    Signals that a shell or a scheduler sends to all processes of a run are the parent's to act on: Ctrl-C is ignored
    here, and the first SIGTERM too (a second one, the loader's own way to end a process that hangs, is obeyed).
    """
    import signal

    import cv2

    def wait(signum: int, frame: Any) -> None:
        global _told
        _told += 1
        if _told > 1:
            os._exit(128 + signum)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, wait)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def auto_workers(source: Source) -> int:
    """Loader processes that pay here: none for what lies in memory in small pieces, else up to two per four cores."""
    return min(8, max(1, cores() // 2)) if kind_of(source.modality).pixels else 0


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

    def __init__(self, dataset: Dataset, stream: Any, workers: int, skips: dict[str, SkipLog], pin: bool) -> None:
        self.dataset, self.stream, self.skips, self.workers, self.pin = dataset, stream, skips, workers, pin

    def __len__(self) -> int:
        return self.stream.total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for stream in self._runs():
            for batch in self._loader(stream):
                if "index" in batch:
                    next(iter(self.skips.values())).add(batch.pop("skipped"))
                else:
                    for role, part in batch.items():
                        self.skips[role].add(part.pop("skipped"))
                yield batch

    def _runs(self) -> Iterator[Any]:
        """The stream; cut at every epoch where an order can change as the run goes on, so nothing is read ahead."""
        streams = list(self.stream.streams.values()) if isinstance(self.stream, _Side) else [self.stream]
        if not any(stream.order.stateful for stream in streams):
            yield self.stream
            return
        ends = [stream.per_epoch for stream in streams if stream.order.stateful]
        position, total = streams[0].start, streams[0].total
        while position < total:
            stop = min(total, *((position // end + 1) * end for end in ends))
            parts = [_Stream(s.order, s.batch_size, s.seed, position, stop, s.rank, s.world) for s in streams]
            side = isinstance(self.stream, _Side)
            yield _Side(dict(zip(self.stream.streams, parts, strict=True))) if side else parts[0]
            position = stop

    def _loader(self, stream: Any) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_size=None,
            sampler=stream,
            num_workers=self.workers,
            worker_init_fn=worker_init,
            pin_memory=self.pin,
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),
            multiprocessing_context=_START_METHOD if self.workers else None,
        )


def check_batch_size(source: Source, batch_size: int, compares: bool) -> None:
    """Refuse a batch that the samples can't fill, or in which there is nothing to compare.

    Raises:
        UserError: it names --batch-size.
    """
    if batch_size < 2 and compares:
        raise UserError(f"--batch-size {batch_size}: an embedding is learnt by comparison, use 2 or more")
    if len(source) < batch_size:
        raise UserError(
            f"{source.name} has {len(source)} samples, fewer than one batch of {batch_size}: "
            f"use --batch-size {len(source)} or less"
        )


class DataModule(L.LightningDataModule):
    """The training data of a method, for :class:`lightning.Trainer`.

    Args:
        source: a :class:`selftaught.data.Source` or anything ``selftaught.data.open_source`` takes; for a method of
            several roles a dict of them by role.
        method: the method to train; it names its views.
        batch_size: samples per step and process, in each stream (fewer in one that has not so many).
        workers: loader processes; -1 chooses by the machine.
        seed: fixes order and views.
        total_batches: length of the whole stream; None is one epoch per Lightning epoch.
        max_skip: largest share of unusable samples.
        skipped: where to list the unusable samples.
        view_device: "cpu" makes views in the loader's processes, "model" batched on the model's device (images of one
            size), "auto" is cpu.

    Raises:
        UserError: fewer samples than one batch; other roles than the method's.
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
        by_role = source if isinstance(source, dict) and set(source) <= set(method.roles) else {method.roles[0]: source}
        self.sources = {
            role: s if isinstance(s, Source) else training_part(s, method.modality)  # type: ignore[arg-type]
            for role, s in by_role.items()
        }
        self.source = next(iter(self.sources.values()))
        self.method, self.batch_size, self.seed = method, batch_size, seed
        self.workers = auto_workers(self.source) if workers < 0 else workers
        self.total_batches, self.start_batch = total_batches, 0
        self.on_device = view_device == "model" and self.source.modality == "image" and method.pixels == "uint8"
        self.skips = {
            role: SkipLog(s, max_skip, _listed(skipped, role, self.sources)) for role, s in self.sources.items()
        }
        self.orders = {role: method.order(s, role) or Shuffled(len(s)) for role, s in self.sources.items()}
        if next(iter(self.sources)) == method.roles[0]:  # a further stream may be small: its batches are, too
            check_batch_size(self.source, batch_size, method.compares)

    def rows(self, role: str, world: int = 1) -> int:
        """Samples of a stream in a batch of one process."""
        return max(1, min(self.batch_size, self.orders[role].length // world))

    def epoch_batches(self, world: int = 1) -> int:
        """Batches per pass over the data on each of ``world`` processes; of the shortest stream."""
        return max(1, min(self.orders[role].length // (self.rows(role, world) * world) for role in self.sources))

    def state_dict(self) -> dict[str, Any]:
        """Batches taken so far, and the state of orders that have one."""
        taken = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready if self.trainer is not None else 0
        orders = {role: order.state_dict() for role, order in self.orders.items() if order.stateful}
        return {"batches": taken} | ({"orders": orders} if orders else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start after the batches that were taken; a data module of epochs starts its epoch anew."""
        if self.total_batches is not None:
            self.start_batch = int(state["batches"])
        for role, saved in state.get("orders", {}).items():
            self.orders[role].load_state_dict(saved)

    def train_dataloader(self) -> StreamLoader:
        """Batches from ``start_batch`` on."""
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        total = self.total_batches or self.epoch_batches(world)
        datasets = {role: self.batches(role) for role in self.sources}
        kind = _Stream if self.total_batches is not None else _Epochs
        streams = {
            role: kind(self.orders[role], self.rows(role, world), self.seed, self.start_batch, total, rank, world)
            for role in self.sources
        }
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        several = len(self.sources) > 1
        dataset: Dataset = _Together(datasets) if several else datasets[next(iter(datasets))]
        stream: Sampler = _Side(streams) if several else streams[next(iter(streams))]
        return StreamLoader(dataset, stream, self.workers, self.skips, pin)

    def batches(self, role: str) -> Batches:
        """The dataset of one stream."""
        source = self.sources[role]
        views = self.method.recipe()
        if views is None and source.modality == "image":
            views = self.method.views()
        return Batches(source, views, self.seed, self.method.pixels, self.on_device)


def _listed(path: Path | None, role: str, sources: dict[str, Source]) -> Path | None:
    """Where a stream's unusable samples are listed: a file of its own for every stream after the first."""
    if path is None or role == next(iter(sources)):
        return path
    return path.with_name(f"{path.stem}-{role}{path.suffix}")


class _Epochs(_Stream):
    """One epoch per iteration, each in an order and with views of its own (for a Lightning trainer of epochs)."""

    passes = 0

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, self.passes = self.passes, self.passes + 1
        for indices in islice(self.epoch(epoch), self.total):
            yield epoch, indices
