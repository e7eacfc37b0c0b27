"""What methods with a queue of past embeddings share: its size for the data at hand, and which entries to leave out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selftaught import networks
from selftaught.errors import UserError


def fitted_queue(size: int, dim: int, samples: int, *, labels: bool = False) -> networks.Queue:
    """A queue of ``size`` rows, but of at most half the training set: beyond that it would hold the image itself.

    Args:
        size: rows asked for.
        dim: width of an embedding.
        samples: size of the training set; 0 where it isn't known.
        labels: keep an integer with every row.
    """
    return networks.Queue(min(size, max(1, samples // 2)) if samples else size, dim, labels=labels)


def group_of(batch: dict[str, Any], mask: str) -> Tensor | None:
    """What tells samples apart, (N,) int64: with ``"image"`` their index, with ``"class"`` their label, else nothing.

    Raises:
        UserError: classes of data without labels.
    """
    if mask == "none":
        return None
    if mask == "image":
        return batch["index"]
    if "label" not in batch:
        raise UserError("mask=class but the data have no labels: give class folders, or take mask=image")
    return batch["label"]


def same_group(own: Tensor | None, queue: networks.Queue) -> Tensor | None:
    """(N, K) bool, True where an entry of the queue is of the same image, or class, as the sample.

    What has the number -1 (a sample without a label, an entry that was never filled) is in no group.
    """
    if own is None or queue.labels is None:
        return None
    return (own.unsqueeze(1) == queue.labels) & (own.unsqueeze(1) >= 0)
