"""Sums over a matrix of similarities whose rows go in blocks, so that the whole matrix never stands in memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ENTRIES = 2**22
"""Entries of the largest block, 16 MiB in float32: up to 2048 x 2048 nothing is computed twice."""


def by_rows(function: Callable[..., Tensor], *rows: Tensor, width: int) -> Tensor:
    """``function`` of the rows, block by block.

    Args:
        function: takes a block of each of ``rows`` and returns a tensor with one row per row of the block. What a row
            gives must not depend on the other rows of its block.
        *rows: tensors of n rows each.
        width: columns that ``function`` makes for each row.

    Returns:
        The results (n, ...). Of several blocks each is computed again in the backward pass: memory linear in n + width.
    """
    count = len(rows[0])
    step = max(1, ENTRIES // max(width, 1))
    if count <= step:
        return function(*rows)
    blocks = zip(*(r.split(step) for r in rows), strict=True)
    return torch.cat([checkpoint(function, *b, use_reentrant=False, preserve_rng_state=False) for b in blocks])
