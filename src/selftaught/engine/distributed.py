"""Gathering over processes, with gradient: the losses see the batch of all ranks, and train as one process would."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def is_distributed() -> bool:
    """Whether a process group with more than one member is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def rank() -> int:
    """Number of this process; 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def wait_for_all() -> None:
    """Until every process is here; at once where there is one."""
    if is_distributed():
        dist.barrier()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        gathered = x.new_empty((dist.get_world_size() * len(x), *x.shape[1:]))
        dist.all_gather_into_tensor(gathered, x.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if dist.get_backend() == "nccl":
            own = gradient.new_empty((ctx.rows, *gradient.shape[1:]))
            dist.reduce_scatter_tensor(own, gradient.contiguous())
            return own
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks, with gradient back to each rank's own rows.

    The factor: every rank computes the same loss L of the gathered batch, so that the sum over ranks of dL/dx_r is
    W dL/dx_r. The backward pass returns that sum and DistributedDataParallel then averages the gradients of the
    parameters over the W ranks:

        (1/W) sum_r (W dL/dx_r) dx_r/dtheta = sum_r dL/dx_r dx_r/dtheta

    which is exactly the gradient of one process with the W-fold batch. No further factor belongs into the loss or the
    learning rate. A term that isn't gathered and is a mean over the local rows comes out right, too.

    Args:
        x: (n, ...) with the same n on every rank (``drop_last``); any type, integers (labels) simply have no gradient.

    Returns:
        (W n, ...); x itself without a process group. All ranks must call it equally often, in the same order.
    """
    if not is_distributed():
        return x
    return _Gather.apply(x)


def gather_labels(x: Tensor) -> Tensor:
    """The rows of all ranks without gradient, of any type (labels, indices), in :func:`gather`'s order."""
    return gather(x.detach())


@torch.no_grad()
def average_gradients(parameters: list[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; all of them must call, with the same parameters."""
    if not is_distributed():
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world_size()


@torch.no_grad()
def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a scalar over the processes, the same on all of them; all must call."""
    if not is_distributed():
        return value
    total = value.detach().float().clone()
    dist.all_reduce(total)
    return total / world_size()
