"""Which samples form which batch: a pure function of seed and epoch, the same on any number of ranks, and startable
anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selftaught.errors import UserError


class ResumableBatchSampler:
    """Batches of positions for a DataLoader's ``batch_sampler``.

    The epoch's order is one permutation, drawn from (seed, epoch) alone. Global batch k is its slice ``[k * B, (k + 1)
    * B)`` with B = batch_size * world, and rank r gets the r-th of the `world` equal pieces of that slice: the ranks'
    batches are disjoint, and laid side by side they are the batch of a single process with batch size B.

    Args:
        n: number of samples.
        batch_size: samples in a batch of one rank.
        seed: of the order.
        epoch: which epoch's order.
        start_batch: batches of this epoch that were seen before a stop; they are skipped without being read.
        shuffle: False: in the order of the source.
        drop_last: leave out the last samples that don't fill a batch. False: the last batch is smaller; with several
            ranks it is shared out evenly, and the up to world-1 samples that can't be are left out, since ranks that
            gather need batches of one size.
        rank: of this process.
        world: number of processes.

    Raises:
        UserError: the samples don't fill one batch, or a number is out of its range.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size < 1 or world < 1 or not 0 <= rank < world:
            raise UserError(
                f"batch_size={batch_size}, rank={rank}, world={world}: sizes must be at least 1 and rank below world"
            )
        self.n, self.batch_size, self.seed, self.epoch = n, batch_size, seed, epoch
        self.shuffle, self.drop_last, self.rank, self.world = shuffle, drop_last, rank, world
        if not self.batches_per_epoch:
            if n < world:
                raise UserError(f"{n} samples are too few for {world} processes; use fewer processes or more samples")
            mend = f"use batch_size={n // world} or less" + (" per process" if world > 1 else "")
            raise UserError(f"{n} samples don't fill one batch of {batch_size * world}; {mend}")
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise UserError(f"start_batch={start_batch} lies outside an epoch of {self.batches_per_epoch} batches")
        self.start_batch = start_batch

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch on one rank, the skipped ones included."""
        whole, rest = divmod(self.n, self.batch_size * self.world)
        return whole + int(not self.drop_last and rest >= self.world)

    def __len__(self) -> int:
        """Batches that are still to come in this epoch."""
        return self.batches_per_epoch - self.start_batch

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to the start of an epoch, or to one of its batches."""
        if not 0 <= start_batch <= self.batches_per_epoch:
            raise UserError(f"start_batch={start_batch} lies outside an epoch of {self.batches_per_epoch} batches")
        self.epoch, self.start_batch = epoch, start_batch

    def order(self) -> np.ndarray:
        """The epoch's order (n,) int64, the same on every rank."""
        if not self.shuffle:
            return np.arange(self.n, dtype=np.int64)
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.n)

    def __iter__(self) -> Iterator[list[int]]:
        order, whole = self.order(), self.batch_size * self.world
        for k in range(self.start_batch, self.batches_per_epoch):
            batch = order[k * whole : (k + 1) * whole]
            share = len(batch) // self.world
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()
