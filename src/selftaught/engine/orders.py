"""Which samples come next: orders of a stream, pure in (seed, epoch, state) and the same on all processes.

An order lists the samples of an epoch. What a method changes of it as it learns (:class:`ActiveSet`) is its state; that
goes into checkpoints, and takes effect from the next epoch on, so that samples read ahead are never of another state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from selftaught.errors import UserError

__all__ = [
    "ActiveSet",
    "Alternating",
    "Balanced",
    "Cycled",
    "Grouped",
    "InOrder",
    "OneGroup",
    "Order",
    "Partitions",
    "Shuffled",
    "WithReplacement",
    "batches_of",
    "draws_of",
    "earlier",
]


class Order:
    """The samples of every epoch.

    Attributes:
        length: entries of an epoch, the same in every one.
        stateful: whether a state can change it while it is in use.
        once: whether no sample comes twice in an epoch.
    """

    length: int
    stateful: bool = False
    once: bool = False

    def batched(self, rows: int) -> None:
        """Be told how many samples make a batch on all processes, before the first epoch is asked for."""

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's samples, (length,) int64."""
        raise TypeError(f"{type(self).__name__} lists no samples")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold; nothing for most orders."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""


class Shuffled(Order):
    """Every sample once, in an order of each epoch's own.

    Args:
        n: number of samples.
    """

    once = True

    def __init__(self, n: int) -> None:
        self.length = n

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """One permutation, drawn from (seed, epoch)."""
        return np.random.default_rng([seed, epoch]).permutation(self.length)


class Cycled(Order):
    """Every sample again and again, each pass in an order of its own, until a batch is full.

    Args:
        n: number of samples.
        rows: samples of a batch; an epoch is the fewest whole passes that fill one.
    """

    def __init__(self, n: int, rows: int) -> None:
        self.n, self.length = n, n * max(1, -(-rows // n))

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """Permutations one after another, drawn from (seed, epoch)."""
        return _again(np.random.default_rng([seed, epoch]), np.arange(self.n), self.length)


class InOrder(Order):
    """Every sample once, in the order of the source."""

    once = True

    def __init__(self, n: int) -> None:
        self.length = n

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """0 to n - 1."""
        return np.arange(self.length, dtype=np.int64)


class WithReplacement(Order):
    """Samples drawn anew each time, so that some come twice and some not at all.

    Args:
        n: number of samples.
        length: entries of an epoch; None: n.
    """

    def __init__(self, n: int, length: int | None = None) -> None:
        self.n, self.length = n, n if length is None else length

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """``length`` independent draws from (seed, epoch), other ones than a `Shuffled` of the same seed makes."""
        return np.random.default_rng([seed, epoch, 1]).integers(0, self.n, self.length)


class Grouped(Order):
    """``per_group`` samples of one group after another, the runs shuffled; a batch of a multiple holds whole runs.

    Args:
        groups: (n,) which group a sample belongs to.
        per_group: samples of a group that stand together.

    Raises:
        UserError: no group has so many samples.
    """

    once = True

    def __init__(self, groups: np.ndarray, per_group: int) -> None:
        if per_group < 1:
            raise UserError(f"per_group={per_group} must be at least 1")
        codes = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        self.members = [np.flatnonzero(codes == k) for k in range(int(codes.max(initial=-1)) + 1)]
        self.per_group = per_group
        self.length = sum(len(m) // per_group for m in self.members) * per_group
        if not self.length:
            most = max((len(m) for m in self.members), default=0)
            raise UserError(f"no group has {per_group} samples (the largest has {most}); use fewer per group")

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """Every group's samples shuffled and cut into runs, the runs shuffled."""
        rng = np.random.default_rng([seed, epoch])
        runs = []
        for members in self.members:
            whole = len(members) // self.per_group * self.per_group
            runs.append(rng.permutation(members)[:whole].reshape(-1, self.per_group))
        stacked = np.concatenate(runs)
        return stacked[rng.permutation(len(stacked))].reshape(-1)


class OneGroup(Order):
    """Batches of one group's samples each, all groups in turn; the rest of a group that fills no batch waits.

    Args:
        groups: (n,) which group a sample belongs to.
    """

    once = True

    def __init__(self, groups: np.ndarray) -> None:
        self.groups = np.asarray(groups)
        self.inner: Grouped | None = None
        self.length = len(self.groups)

    def batched(self, rows: int) -> None:
        """Cut every group into batches of ``rows``.

        Raises:
            UserError: no group has so many samples.
        """
        most = int(np.unique(self.groups, return_counts=True)[1].max(initial=0))
        if most < rows:
            raise UserError(
                f"--batch-size {rows}: a batch is of one user, and none has more than {most}; use {most} or less"
            )
        self.inner = Grouped(self.groups, rows)
        self.length = self.inner.length

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """See `Grouped`; in any order before the size of a batch is known."""
        return (self.inner or Shuffled(self.length)).epoch(seed, epoch)


class Partitions(Order):
    """Slices by volume and position: one random slice of each partition of a volume, in order, volume after volume.

    A batch of m x ``parts`` holds m different volumes, volume-major and partition-minor; in an epoch each volume comes
    once (the last ones that fill no batch wait).

    Args:
        volumes: (n,) which volume a slice belongs to.
        part: (n,) its partition, 0 to ``parts`` - 1; -1 for slices that are in none.
        parts: partitions of a volume.

    Raises:
        UserError: a volume without a slice in one of the partitions.
    """

    once = True

    def __init__(self, volumes: np.ndarray, part: np.ndarray, parts: int) -> None:
        volumes, part = np.asarray(volumes), np.asarray(part)
        if parts < 1 or len(volumes) != len(part) or not len(part):
            raise UserError(f"{len(volumes)} volumes' slices, {len(part)} partitions, parts={parts}: these don't fit")
        self.parts = parts
        self.members = [
            [np.flatnonzero((volumes == v) & (part == k)) for k in range(parts)] for v in np.unique(volumes)
        ]
        if any(not len(slices) for volume in self.members for slices in volume):
            raise UserError(f"a volume has no slice in one of its {parts} partitions; use fewer")
        self.volumes = 1
        self.length = len(self.members) * parts

    def batched(self, rows: int) -> None:
        """Fill batches of ``rows`` with different volumes.

        Raises:
            UserError: rows that are no multiple of the partitions, or of more volumes than there are.
        """
        have = len(self.members)
        if rows % self.parts or rows > have * self.parts:
            most = f"at most {have * self.parts}, for there are {have} volumes"
            raise UserError(f"--batch-size {rows}: a multiple of the {self.parts} partitions is needed, {most}")
        self.volumes = rows // self.parts
        self.length = have // self.volumes * rows

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The volumes shuffled, a slice drawn of each of their partitions."""
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self.members))[: self.length // self.parts]
        return np.array([rng.choice(slices) for v in order.tolist() for slices in self.members[v]], dtype=np.int64)


class Balanced(Order):
    """As many samples of every class: the rarer ones come again, each pass over a class in an order of its own.

    Args:
        labels: (n,) class of each sample; negative ones are left out.
        length: entries of an epoch; None: as many as there are labelled samples.

    Raises:
        UserError: nothing is labelled.
    """

    def __init__(self, labels: np.ndarray, length: int | None = None) -> None:
        labels = np.asarray(labels)
        self.members = [np.flatnonzero(labels == k) for k in np.unique(labels) if k >= 0]
        if not self.members:
            raise UserError("a balanced order needs labelled samples")
        self.length = sum(len(m) for m in self.members) if length is None else length

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """Classes in turn, shuffled within each round."""
        rng = np.random.default_rng([seed, epoch])
        rounds = -(-self.length // len(self.members))
        table = np.stack([_again(rng, members, rounds) for members in self.members], axis=1)
        return rng.permuted(table, axis=1).reshape(-1)[: self.length]


class Alternating(Order):
    """One new sample, one old one, in turns: both gone through in an order of each pass's own, the shorter one again
    and again. An epoch is twice the new samples.

    Args:
        new: number of new samples, 0 to new - 1 of the source.
        old: number of old samples, which follow them.

    Raises:
        UserError: none of one kind.
    """

    def __init__(self, new: int, old: int) -> None:
        if min(new, old) < 1:
            raise UserError(f"{new} new and {old} old samples can't take turns: both must be at least 1")
        self.new, self.old, self.length = new, old, 2 * new

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """New and old samples in turns."""
        rng = np.random.default_rng([seed, epoch])
        old = _again(rng, np.arange(self.old), self.new) + self.new
        return np.stack([rng.permutation(self.new), old], axis=1).reshape(-1)


class ActiveSet(Order):
    """A part of the samples that a method chooses anew as it learns; what it chooses holds from the next epoch on.

    Args:
        n: number of samples of the source.
        length: entries of an epoch; a smaller set is gone through several times.
        repeats: whether a sample may be chosen more than once, and then comes as often.

    Raises:
        UserError: no sample, or an empty epoch.
    """

    stateful = True

    def __init__(self, n: int, length: int, *, repeats: bool = False) -> None:
        if n < 1 or length < 1:
            raise UserError(f"an active set of {length} out of {n} samples: both must be at least 1")
        self.n, self.length, self.repeats = n, length, repeats
        self.active = np.arange(n, dtype=np.int64)

    def select(self, indices: Any) -> None:
        """Choose the samples to go on with.

        Raises:
            UserError: none, one twice (without ``repeats``), or one that the source does not have.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        twice = not self.repeats and len(np.unique(chosen)) != len(chosen)
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= self.n or twice:
            raise UserError(f"an active set names each of its samples once, out of 0 to {self.n - 1}")
        self.active = np.sort(chosen)

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """Permutations of the active samples, one after another until the epoch is full."""
        return _again(np.random.default_rng([seed, epoch]), self.active, self.length)

    def state_dict(self) -> dict[str, Any]:
        """The active samples."""
        return {"active": self.active.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with saved active samples."""
        self.select(state["active"])


def _again(rng: np.random.Generator, members: np.ndarray, length: int) -> np.ndarray:
    """Permutations of the members, one after another until there are ``length``."""
    passes = [rng.permutation(members) for _ in range(-(-length // len(members)))]
    return np.concatenate(passes)[:length]


def batches_of(
    order: Order, batch_size: int, *, seed: int, epoch: int, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[list[int]]:
    """One rank's batches of an epoch from batch ``start`` on; the last samples that fill no batch are left out.

    Global batch k is the slice ``[k B, (k + 1) B)`` of the epoch with B = batch_size * world, and rank r gets the r-th
    of its equal pieces: laid side by side they are the batch of a single process with batch size B.

    Raises:
        UserError: the epoch does not fill one batch.
    """
    for indices, _ in draws_of(order, batch_size, seed=seed, epoch=epoch, start=start, rank=rank, world=world):
        yield indices


def draws_of(
    order: Order, batch_size: int, *, seed: int, epoch: int, start: int = 0, rank: int = 0, world: int = 1
) -> Iterator[tuple[list[int], list[int]]]:
    """As :func:`batches_of`, and how often each sample came in the epoch before, so that its views differ each time.

    Raises:
        UserError: the epoch does not fill one batch.
    """
    whole = batch_size * world
    if order.length < whole:
        raise UserError(f"{order.length} samples fill no batch of {whole}; use --batch-size {order.length // world}")
    listed = order.epoch(seed, epoch)
    times = np.zeros(len(listed), dtype=np.int64) if order.once else earlier(listed)
    for k in range(start, order.length // whole):
        part = slice(k * whole + rank * batch_size, k * whole + (rank + 1) * batch_size)
        yield listed[part].tolist(), times[part].tolist()


def earlier(listed: np.ndarray) -> np.ndarray:
    """How often the sample at each place stands before it: (n,) int64, 0 for the first time."""
    order = np.argsort(listed, kind="stable")
    ordered = listed[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, dtype=bool)
    places = np.arange(len(ordered))
    times = np.empty(len(ordered), dtype=np.int64)
    times[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return times
