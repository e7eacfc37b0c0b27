"""Gradient caching: a loss over a large batch with the memory of a small one (Gao et al. 2021, arXiv 2101.06983).

The batch goes through the network piece by piece without keeping what the backward pass needs; the loss compares all
outputs; in the backward pass each piece goes through once more. The gradient is that of the plain step, exactly where
the network treats every sample by itself; BatchNorm sees a piece at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from selftaught.errors import UserError

__all__ = ["cached_forward"]


def cached_forward(module: Callable[..., Tensor], x: Tensor, piece: int, *args: Any) -> Tensor:
    """``module(x, *args)`` in pieces of ``piece`` rows, each computed again in the backward pass.

    Random numbers (dropout) are the same both times, and BatchNorm's running statistics move once.

    Args:
        module: from (n, ...) to (n, D).
        x: (N, ...).
        piece: rows at a time; 0, or N and more: all at once, plainly.
        *args: passed on.

    Raises:
        UserError: a negative piece.
    """
    if piece < 0:
        raise UserError(f"pieces of {piece} rows: give a number above 0, or 0 for the plain step")
    if not piece or piece >= len(x) or not torch.is_grad_enabled():
        return module(x, *args)
    norms = _norms(module)
    again = (lambda: (nullcontext(), _standing_still(norms))) if norms else _no_contexts
    found = [
        checkpoint(module, part, *args, use_reentrant=False, preserve_rng_state=True, context_fn=again)
        for part in x.split(piece)
    ]
    return torch.cat(found)


def _no_contexts() -> tuple[Any, Any]:
    return nullcontext(), nullcontext()


def _norms(module: Any) -> list[nn.Module]:
    """The normalisations that keep running statistics."""
    inner = module if isinstance(module, nn.Module) else getattr(module, "__self__", None)
    if not isinstance(inner, nn.Module):
        return []
    kept = [m for m in inner.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in kept if m.track_running_stats]


@contextmanager
def _standing_still(norms: list[nn.Module]) -> Iterator[None]:
    """Within it running statistics don't move: batch statistics are used all the same."""
    buffers = [(b, b.clone()) for m in norms for b in m.buffers(recurse=False)]
    try:
        yield
    finally:
        for buffer, before in buffers:
            buffer.copy_(before)
