"""The training data of a method for Lightning: its sources by role, their orders, their place in the stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from torch.utils.data import Dataset, Sampler

from selftaught._words import plural
from selftaught.catalog.rules import Count, Rule
from selftaught.data import Modality, Source, open_source
from selftaught.data.kinds import kind_of
from selftaught.data.source import UNLABELLED
from selftaught.engine.batches import Batches
from selftaught.engine.orders import Cycled, Order, Shuffled
from selftaught.engine.pairing import check_pairs
from selftaught.engine.precision import cores
from selftaught.engine.streams import Epochs, SideBySide, SkipLog, Stream, StreamLoader, Together
from selftaught.errors import UserError

if TYPE_CHECKING:
    from selftaught.engine.method import Method


def auto_workers(source: Source) -> int:
    """Loader processes that pay here: none for what lies in memory in small pieces, else up to two per four cores."""
    return min(8, max(1, cores() // 2)) if kind_of(source.modality).pixels else 0


def training_part(
    spec: Any, modality: Modality | None = None, *, split: str = "auto", by: str = "auto", seed: int = 0
) -> Source:
    """The samples to train on: with ``auto`` all, unless labels, groups or a given test part make one to keep away."""
    if split == "auto":
        whole = open_source(spec, modality=modality, split="all", seed=seed)
        if not divides(whole, by):
            return whole
        split = "pretrain" if whole.given is not None and (whole.given == UNLABELLED).any() else "train"
    return open_source(spec, modality=modality, split=split, by=by, seed=seed)


def divides(whole: Source, by: str = "auto") -> bool:
    """Whether ``split="auto"`` keeps a part of a source away from training, to test on."""
    several = whole.groups is not None and len(np.unique(whole.groups)) > 1
    return by != "auto" or several or whole.labels is not None or whole.given is not None


def check_batch_size(source: Source, batch_size: int, compares: bool) -> None:
    """Refuse a batch in which there is nothing to compare, or in which a sample would be compared with itself.

    A method that compares nothing takes a sample several times into a batch, each time with other views (patches).

    Raises:
        UserError: it names --batch-size.
    """
    if batch_size < 2 and compares:
        raise UserError(f"--batch-size {batch_size}: an embedding is learnt by comparison, use 2 or more")
    if len(source) < batch_size and (compares or not len(source)):
        mends = [f"use --batch-size {len(source)} or less"] if len(source) >= (2 if compares else 1) else []
        if source.modality == "clip" and len(source):
            mends.append("cut the videos into more samples with '?window=64' behind their name")
        raise UserError(
            f"{source.name} has {plural(len(source), 'sample')}, fewer than one batch of {batch_size}: "
            f"{', or '.join(mends) or 'give more of them'}"
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
        order: of the first stream's samples; None: the method's own, else shuffled.
        value_range: scales the samples, as a run does by which they are watched; None: each source's own.

    Raises:
        UserError: fewer samples than one batch, for a method that compares them; other roles than the method's.
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
        order: Order | None = None,
        value_range: Any = None,
    ) -> None:
        super().__init__()
        if not hasattr(method, "roles"):
            raise UserError(f"DataModule: the method must be one of selftaught.methods, got {type(method).__name__}")
        try:
            batch_size = Rule.of(Count).check(batch_size)
        except ValueError as error:
            raise UserError(f"batch_size={batch_size!r}; it may be: {error}") from None
        by_role = source if isinstance(source, dict) and set(source) <= set(method.roles) else {method.roles[0]: source}
        self.sources = {
            role: s if isinstance(s, Source) else training_part(s, method.modality) for role, s in by_role.items()
        }
        self.source = next(iter(self.sources.values()))
        self.method, self.batch_size, self.seed, self.value_range = method, batch_size, seed, value_range
        self.workers = auto_workers(self.source) if workers < 0 else workers
        self.total_batches, self.start_batch = total_batches, 0
        self.on_device = view_device == "model" and kind_of(self.source.modality).picture and method.pixels == "uint8"
        self.skips = {
            role: SkipLog(s, max_skip, _listed(skipped, role, self.sources)) for role, s in self.sources.items()
        }
        self.orders = {role: self._order(s, role) for role, s in self.sources.items()}
        if order is not None:
            self.orders[next(iter(self.sources))] = order
        if next(iter(self.sources)) == method.roles[0]:  # a further stream may be small: its batches are, too
            check_batch_size(self.source, batch_size, method.compares)
        for role, order in self.orders.items():
            order.batched(self.rows(role))
        labels = self.source.labels
        if method.needs_labels and labels is not None and len(labels) and int(labels.min()) < 0:
            raise UserError(
                f"{self.source.name} holds samples without a label, which {method.slug} learns from: use --split train"
            )

    def _order(self, source: Source, role: str) -> Order:
        """The method's own order, the part that is chosen as it learns, or all samples shuffled."""
        own, reselection = self.method.order(source, role), self.method.reselection
        if reselection is None or role != self.method.roles[0]:
            few = 0 < len(source) < self.batch_size and not self.method.compares and role == self.method.roles[0]
            return own or (Cycled(len(source), self.batch_size) if few else Shuffled(len(source)))
        if own is not None:
            raise UserError(f"--curate: {self.method.slug} orders its samples itself; leave it out")
        return reselection.order(source, self.batch_size, self.seed)

    def rows(self, role: str, world: int = 1) -> int:
        """Samples of a stream in a batch of one process."""
        return max(1, min(self.method.rows_of(role, self.batch_size), self.orders[role].length // world))

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
        for role, order in self.orders.items():
            order.batched(self.rows(role, world) * world)
        total = self.total_batches or self.epoch_batches(world)
        datasets = {role: self.batches(role) for role in self.sources}
        kind = Stream if self.total_batches is not None else Epochs
        streams = {
            role: kind(self.orders[role], self.rows(role, world), self.seed, self.start_batch, total, rank, world)
            for role in self.sources
        }
        pin = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        several = len(self.sources) > 1
        dataset: Dataset[Any] = Together(datasets) if several else datasets[next(iter(datasets))]
        stream: Sampler[Any] = SideBySide(streams) if several else streams[next(iter(streams))]
        return StreamLoader(
            dataset, stream, self.workers, self.skips, pin, self.method.renewed * self.method.accumulate
        )

    def batches(self, role: str) -> Batches:
        """The dataset of one stream."""
        source = self.sources[role]
        if role == self.method.roles[0] and source.main not in getattr(self.method, "pair_fields", ())[:1]:
            check_pairs(self.method, source)
        views, finish = self.method.views_of(role, source), self.method.finish_of(role)
        return Batches(source, views, self.seed, self.method.pixels, self.on_device, finish, self.value_range)


def _listed(path: Path | None, role: str, sources: dict[str, Source]) -> Path | None:
    """Where a stream's unusable samples are listed: a file of its own for every stream after the first."""
    if path is None or role == next(iter(sources)):
        return path
    return path.with_name(f"{path.stem}-{role}{path.suffix}")
