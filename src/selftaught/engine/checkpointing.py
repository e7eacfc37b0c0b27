"""Activation checkpointing: blocks are computed again in the backward pass instead of kept (Chen et al. 2016).

A step takes about a third longer and keeps one tensor per block (arXiv 1604.06174). Results are the same: random
numbers are drawn again from the same state, and running statistics move once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selftaught.errors import UserError

__all__ = ["blocks", "keep_activations", "recompute_activations"]

_BLOCK = re.compile(r"(Block|Bottleneck|Layer)$")


def blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a network that repeat, outermost first: modules of a class called ...Block, ...Layer, ...Bottleneck.

    Returns:
        name and module of each; none lies inside another.
    """
    found: list[tuple[str, nn.Module]] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if not inside and _BLOCK.search(type(module).__name__) and len(list(module.children())) > 1:
            found.append((name, module))
    return found


def recompute_activations(network: nn.Module) -> list[nn.Module]:
    """Let every block of a network be computed again in the backward pass; weights and their names stay what they are.

    Args:
        network: any module, such as a method.

    Returns:
        The blocks, for `keep_activations`.

    Raises:
        UserError: the network has no blocks.
    """
    found = [block for _, block in blocks(network)]
    if not found:
        raise UserError("--recompute: this network has no blocks to compute again; leave it out")
    for block in found:
        block.forward = _Recomputed(block)
    return found


def keep_activations(found: list[nn.Module]) -> None:
    """Let blocks be as they were."""
    for block in found:
        block.__dict__.pop("forward", None)


class _Recomputed:
    """A block's forward pass that keeps its input alone; copied with its block."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plain = type(self.block).forward
        if not torch.is_grad_enabled():
            return plain(self.block, *args, **kwargs)
        return checkpoint(
            plain, self.block, *args, use_reentrant=False, context_fn=lambda: _contexts(self.block), **kwargs
        )


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _still(block)


@contextlib.contextmanager
def _still(block: nn.Module) -> Iterator[None]:
    """Running statistics of BatchNorm as they are: the first pass has moved them."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(m.running_mean, m.running_var, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.running_mean, m.running_var, m.num_batches_tracked = (None if t is None else t.clone() for t in _state(m))
    try:
        yield
    finally:
        for m, (mean, var, count) in zip(norms, kept, strict=True):
            m.running_mean, m.running_var, m.num_batches_tracked = mean, var, count


def _state(norm: _BatchNorm) -> tuple[Any, Any, Any]:
    return norm.running_mean, norm.running_var, norm.num_batches_tracked
