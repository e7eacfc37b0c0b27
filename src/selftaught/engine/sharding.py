"""A transformer's blocks spread over processes (FSDP2): each keeps its share of weights, gradients and moments.

A block's weights are gathered just before it computes and let go after it (Zhao et al. 2023, arXiv 2304.11277; torch's
``fully_shard``). What is in no block (embeddings, norms, heads) stays whole on every process, its gradients averaged.
A run with W processes learns what one process with the W-fold batch learns. GPUs, or a CPU's processes by gloo.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.engine.distributed import average_gradients
from selftaught.errors import UserError

__all__ = [
    "FSDP2",
    "Sharded",
    "apart",
    "average_rest",
    "clip_gradients",
    "is_whole",
    "shard",
    "sharding_strategy",
    "whole",
]

FSDP2 = "fsdp2"


def sharding_strategy(processes: int) -> Any:
    """Lightning's strategy for a network that shards itself; checkpoints are single files, as all others."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    return ModelParallelStrategy(
        data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def is_whole(x: Tensor) -> bool:
    """Whether a tensor is no share of one."""
    from torch.distributed.tensor import DTensor

    return not isinstance(x, DTensor)


@dataclass(frozen=True)
class Sharded:
    """A block that is spread, and an equal one without memory to hold its weights again afterwards."""

    holder: Any
    place: int
    empty: nn.Module


def shard(network: nn.Module, mesh: Any) -> list[Sharded]:
    """Spread every transformer block of a network over the processes of a mesh, momentum copies' blocks likewise.

    Args:
        network: weights equal on all processes.
        mesh: a one-dimensional device mesh.

    Returns:
        what `whole` needs.

    Raises:
        UserError: no transformer block.
    """
    from torch.distributed.fsdp import fully_shard

    lists: list[Any] = [m.blocks for m in network.modules() if _of_blocks(getattr(m, "blocks", None))]
    if not lists:
        raise UserError(f"--strategy {FSDP2} spreads a transformer's blocks, and this network has none; take ddp")
    found = []
    for blocks in lists:
        for place, block in enumerate(blocks):
            found.append(Sharded(blocks, place, copy.deepcopy(block).to("meta")))
            fully_shard(block, mesh=mesh, reshard_after_forward=True)  # each is a root, which would stay whole
    return found


def _of_blocks(found: Any) -> bool:
    kept = list(found) if isinstance(found, nn.ModuleList | nn.Sequential) else []
    return bool(kept) and all(hasattr(block, "attn") and hasattr(block, "mlp") for block in kept)


def whole(spread: list[Sharded]) -> None:
    """Put plain blocks with the gathered weights in the places of the spread ones; all processes must call."""
    for part in spread:
        block = part.holder[part.place]
        state = {k: v if is_whole(v) else v.full_tensor() for k, v in block.state_dict().items()}
        plain = part.empty
        plain.__dict__.pop("forward", None)  # what recomputed activations
        plain.load_state_dict(state, assign=True)
        for name, parameter in plain.named_parameters():
            parameter.requires_grad_(block.get_parameter(name).requires_grad)
        part.holder[part.place] = plain.train(block.training)


def apart(groups: list[Any]) -> list[Any]:
    """An optimiser's parameters, or groups of them, with shares and whole ones in groups of their own.

    Fused and grouped kernels take tensors of one kind only. Without shares all stays as it is.
    """
    items = [item if isinstance(item, dict) else {"params": [item]} for item in groups]
    if all(is_whole(p) for item in items for p in item["params"]):
        return groups
    if not any(isinstance(item, dict) for item in groups):
        items = [{"params": list(groups)}]
    parts = [(item, [p for p in item["params"] if is_whole(p) is kind]) for item in items for kind in (True, False)]
    return [item | {"params": kept} for item, kept in parts if kept]


def average_rest(parameters: Iterable[Tensor]) -> None:
    """Average the gradients of what is whole over the processes; those of the shares are by then."""
    average_gradients([p for p in parameters if p.requires_grad and is_whole(p)])


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale all gradients to a joint norm of at most ``limit``, shares and whole ones alike."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares: list[Any] = [g.square().sum() for g in gradients]
    norm = math.sqrt(sum(float(s if is_whole(s) else s.full_tensor()) for s in squares))
    if norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / (norm + 1e-6))
