"""Streams of batches that start anywhere, one or several side by side, and what could not be used of them."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from selftaught._csv import csv_bytes
from selftaught.data import Source
from selftaught.engine.batches import Batches
from selftaught.engine.orders import Order, draws_of
from selftaught.errors import UserError

_START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


_told = 0


class Stream(Sampler[Any]):
    """Keys (epoch, indices, times) of one order from any batch of the stream on, for a number of batches.

    ``times``: how often each sample came in the epoch before; left out where none did.
    """

    def __init__(
        self, order: Order, batch_size: int, seed: int, start: int, total: int, rank: int = 0, world: int = 1
    ) -> None:
        self.order, self.batch_size, self.seed, self.rank, self.world = order, batch_size, seed, rank, world
        self.start, self.total = start, total
        self.per_epoch = max(1, order.length // (batch_size * world))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        position = self.start
        while position < self.total:
            epoch, first = divmod(position, self.per_epoch)
            for key in self.epoch(epoch, first):
                if position >= self.total:
                    return
                yield key
                position += 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """The keys of one epoch from one of its batches on."""
        place: dict[str, Any] = {"start": start, "rank": self.rank, "world": self.world}
        for indices, times in draws_of(self.order, self.batch_size, seed=self.seed, epoch=epoch, **place):
            yield (epoch, indices, times) if any(times) else (epoch, indices)

    def part(self, start: int, stop: int) -> Stream:
        """The same stream from one batch to another."""
        return Stream(self.order, self.batch_size, self.seed, start, stop, self.rank, self.world)

    def passed(self) -> int:
        """Batches of the stream that earlier iterations gave."""
        return 0

    def __len__(self) -> int:
        return self.total - self.start


class Epochs(Stream):
    """One epoch per iteration, each in an order and with views of its own (for a Lightning trainer of epochs)."""

    passes = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        yield from islice(self.epoch(self.passed() // self.per_epoch), self.total)

    def passed(self) -> int:
        """Batches of the epochs before; each call begins the next epoch."""
        epoch, self.passes = self.passes, self.passes + 1
        return epoch * self.per_epoch


class SideBySide(Sampler[Any]):
    """Keys of several streams side by side, by role."""

    def __init__(self, streams: dict[str, Stream]) -> None:
        self.streams = streams
        self.total = next(iter(streams.values())).total

    def __iter__(self) -> Iterator[dict[str, tuple[Any, ...]]]:
        for keys in zip(*self.streams.values(), strict=True):
            yield dict(zip(self.streams, keys, strict=True))

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())))


class Together(Dataset[Any]):
    """Batches of several sources at once: {role: batch}."""

    def __init__(self, parts: dict[str, Batches]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return max(len(part) for part in self.parts.values())

    def __getitem__(self, keys: dict[str, tuple[Any, ...]]) -> dict[str, dict[str, Any]]:
        return {role: part[keys[role]] for role, part in self.parts.items()}


def _next_share(share: float) -> float:
    """A round share with room above one that was found."""
    return next((most for most in (0.1, 0.2, 0.5) if most >= 1.5 * share), 1)


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
                f"{self.max_skip:.0%} (such as {self.source.names[index]}: {reason}); mend them, or allow more with "
                f"--max-skip {_next_share(len(self.reasons) / len(self.source))}"
            )

    def write(self) -> None:
        """Write ``skipped.csv`` (name, reason), whole each time and atomically."""
        if self.path is None:
            return
        rows = [(self.source.names[i], reason) for i, reason in sorted(self.reasons.items())]
        part = self.path.with_suffix(".part")
        try:
            part.write_bytes(csv_bytes(("name", "reason"), rows))
            part.replace(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            part.unlink(missing_ok=True)  # a full disk ends no training; the list is whole again with the next sample


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come meanwhile are acted on at the end.

    While processes are forked or taken down an exception out of a signal's handler is lost on the way, or leaves a lock
    behind on which they wait for ever; and a process that was just forked would raise it a second time, or die of it
    before `worker_init` tells it to leave signals to the parent. (There they are let through.)
    """
    if threading.current_thread() is not threading.main_thread():  # whoever owns it owns the signals
        yield
        return
    came: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    for signum in before:
        signal.signal(signum, lambda number, frame: came.append(number))
    _blocked(True)
    try:
        yield
    finally:
        _blocked(False)
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
    if came:
        os.kill(os.getpid(), came[0])


def _blocked(held: bool) -> None:
    """Let Ctrl-C and SIGTERM wait, or through; processes that are forked begin as this one."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def worker_init(_: int) -> None:
    """One thread for OpenCV and torch in each of the loader's processes: the cores are shared between them.

    Signals that a shell or a scheduler sends to all processes of a run are the parent's to act on: Ctrl-C is ignored
    here, and the first SIGTERM too (a second one, the loader's own way to end a process that hangs, is obeyed).
    A parent that is gone while it fetches a batch is told of by nobody: Python's thread that hands out shared memory
    would print a traceback for it.
    """
    import cv2

    usual = sys.excepthook

    def unless_gone(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, ConnectionError | EOFError):
            usual(kind, error, trace)

    sys.excepthook = unless_gone

    def wait(signum: int, frame: Any) -> None:
        global _told
        _told += 1
        if _told > 1:
            os._exit(128 + signum)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, wait)
    _blocked(False)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Plain(Dataset[Any]):
    """A dataset whose user's mistakes come out of the loader's processes as the one line that they are.

    torch would hand over the whole traceback as the error's message.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        if get_worker_info() is None:
            return self.dataset[key]
        try:
            return self.dataset[key]
        except UserError as error:
            return _Refused(error.args[0])  # as it was written: whoever raises it again says it in words of its own


@dataclass(frozen=True)
class _Refused:
    reason: str


def unwrapped(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader over a `Plain` dataset.

    Raises:
        UserError: as the dataset raised it, in whichever process.
    """
    with signals_held():
        iterator = iter(loader)
    try:
        for batch in iterator:
            if isinstance(batch, _Refused):
                raise UserError(batch.reason)
            yield batch
    finally:
        with signals_held():
            del iterator


class StreamLoader:
    """An iterable of batches that Lightning can take: its length is the whole stream's, its start is anywhere.

    Args:
        dataset: gives the batches.
        stream: their keys.
        workers: processes.
        skips: by role.
        pin: the batches' memory.
        renewed: batches after which the dataset may have changed, so that none is read ahead of that; 0: never.
    """

    def __init__(
        self, dataset: Dataset[Any], stream: Any, workers: int, skips: dict[str, SkipLog], pin: bool, renewed: int = 0
    ) -> None:
        self.dataset, self.stream, self.skips, self.workers, self.pin = dataset, stream, skips, workers, pin
        self.renewed = renewed

    def __len__(self) -> int:
        return self.stream.total

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for stream in self._runs():
            for batch in unwrapped(self._loader(stream)):
                if "index" in batch:
                    next(iter(self.skips.values())).add(batch.pop("skipped"))
                else:
                    for role, part in batch.items():
                        self.skips[role].add(part.pop("skipped"))
                yield batch

    def _runs(self) -> Iterator[Any]:
        """The stream; cut where an order or the dataset can change as the run goes on, so nothing is read ahead."""
        streams = list(self.stream.streams.values()) if isinstance(self.stream, SideBySide) else [self.stream]
        ends = [stream.per_epoch for stream in streams if stream.order.stateful]
        ends += [self.renewed] if self.renewed else []
        if not ends:
            yield self.stream
            return
        position, total = streams[0].start, streams[0].total
        passed = [stream.passed() for stream in streams]
        while position < total:
            stop = min(total, *((position // end + 1) * end for end in ends))
            parts = [s.part(position + p, stop + p) for s, p in zip(streams, passed, strict=True)]
            side = isinstance(self.stream, SideBySide)
            yield SideBySide(dict(zip(self.stream.streams, parts, strict=True))) if side else parts[0]
            position = stop

    def _loader(self, stream: Any) -> DataLoader[Any]:
        return DataLoader(
            Plain(self.dataset),
            batch_size=None,
            sampler=stream,
            num_workers=self.workers,
            worker_init_fn=worker_init,
            pin_memory=self.pin,
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),
            multiprocessing_context=_START_METHOD if self.workers else None,
        )
