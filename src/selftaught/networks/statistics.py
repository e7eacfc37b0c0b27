"""BatchNorm's running statistics: what evaluation normalises with, kept clear of images that it never sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["kept_statistics"]


@contextmanager
def kept_statistics(*modules: nn.Module) -> Iterator[None]:
    """Within it, training passes normalise by their batch as ever, but leave the running mean and variance alone.

    For batches that are no samples of the data (mixtures, puzzles), which would shift what evaluation normalises with.

    Args:
        *modules: networks whose BatchNorm layers, if any, keep their running statistics.
    """
    norms = [m for module in modules for m in module.modules() if isinstance(m, _BatchNorm) and m.momentum is not None]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
