"""A queue of the latest embeddings: negatives, neighbours or targets from many batches back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from selftaught.errors import UserError

__all__ = ["Queue"]


class Queue(nn.Module):
    """The last ``size`` embeddings, first in first out; all buffers, so that checkpoints carry them.

    Args:
        size: rows K.
        dim: width D of an embedding.
        unit: scale rows to length 1, as they come in and at the start.
        labels: also keep an integer with every row (-1 where no row was pushed yet).

    Attributes:
        items: (K, D); random rows (on the unit sphere with ``unit``) until they are replaced.
        labels: (K,) int64, or None.
        filled: rows pushed so far, at most K (a 0-d tensor).

    Raises:
        UserError: a size or width below 1.
    """

    items: Tensor
    labels: Tensor | None
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int, *, unit: bool = True, labels: bool = False) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise UserError(f"a queue of {size} rows of width {dim}: both must be 1 or more")
        self.unit = unit
        start = torch.randn(size, dim)
        self.register_buffer("items", normalize(start) if unit else start)
        self.register_buffer("labels", torch.full((size,), -1) if labels else None)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.items)

    @torch.no_grad()
    def push(self, z: Tensor, labels: Tensor | None = None) -> None:
        """Take in (n, D) embeddings, already gathered over processes; the oldest rows leave.

        Of a batch larger than the queue the last K rows stay.

        Raises:
            UserError: labels missing or not asked for, or rows of another width.
        """
        if z.dim() != 2 or z.shape[1] != self.items.shape[1]:
            raise UserError(f"the queue holds rows of width {self.items.shape[1]}, got {tuple(z.shape)}")
        if (labels is None) != (self.labels is None):
            raise UserError("a queue with labels takes rows and labels together, one without takes rows alone")
        size = len(self.items)
        z = z.detach()[-size:].to(self.items)
        where = (self.pointer + torch.arange(len(z), device=z.device)) % size
        self.items[where] = normalize(z) if self.unit else z
        if self.labels is not None and labels is not None:
            self.labels[where] = labels[-size:].to(self.labels)
        self.pointer.copy_((self.pointer + len(z)) % size)
        self.filled.copy_((self.filled + len(z)).clamp(max=size))
