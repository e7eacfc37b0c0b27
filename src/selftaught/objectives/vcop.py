"""VCOP: in which order are the clips of a video (Xu et al., CVPR 2019)."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from selftaught.errors import UserError
from selftaught.objectives._common import check_floats, check_labels, in_float32

__all__ = ["order_index", "order_of", "shuffle_clips", "vcop", "vcop_terms"]

_MOST = 6


@cache
def _orders(clips: int) -> Tensor:
    if not 1 <= clips <= _MOST:
        raise UserError(f"clips={clips}: 1 to {_MOST} can be put in order")
    return torch.tensor(list(permutations(range(clips))))


def order_of(index: Tensor | int, clips: int) -> Tensor:
    """The order with a number: number m is the m-th of ``itertools.permutations(range(n))``, which is lexicographic.

    Args:
        index: (...) int64, 0 to n! - 1.
        clips: n, 1 to 6.

    Returns:
        (..., n) int64: which clip stands at each place of the shuffled tuple.

    Raises:
        UserError: a number or n out of range.
    """
    orders, at = _orders(clips), torch.as_tensor(index)
    if at.dtype != torch.int64:
        raise UserError(f"order_of: numbers of orders are int64, got {at.dtype}")
    if at.numel() and (int(at.min()) < 0 or int(at.max()) >= len(orders)):
        raise UserError(f"order_of: numbers lie in 0 .. {len(orders) - 1} for {clips} clips")
    return orders.to(at.device)[at]


def order_index(order: Tensor) -> Tensor:
    """The number of an order, the inverse of :func:`order_of`: (..., n) int64 -> (...) int64.

    Raises:
        UserError: something that is no order of 0 .. n - 1.
    """
    n = order.shape[-1] if order.ndim else 0
    orders = _orders(n).to(order.device)
    if order.is_floating_point() or not torch.equal(order.sort(dim=-1).values, orders[0].expand_as(order)):
        raise UserError("order_index: give orders of the numbers 0 .. n - 1")
    found = torch.zeros(order.shape[:-1], dtype=torch.int64, device=order.device)
    for i in range(n):  # Lehmer's code: how many smaller numbers come later
        later = (order[..., i + 1 :] < order[..., i : i + 1]).sum(-1)
        found = found * (n - i) + later
    return found


def shuffle_clips(clips: Tensor, labels: Tensor) -> Tensor:
    """Put clips (N, n, ...) that stand in time's order into the orders numbered by ``labels`` (N,) int64.

    Place j of the result is clip order[j]: the label names the order of the shuffled tuple, not its inverse.

    Raises:
        UserError: labels out of range or not one for each sample.
    """
    if clips.ndim < 2:
        raise UserError(f"clips need the shape (N, n, ...), got {tuple(clips.shape)}")
    check_labels(labels, len(clips))
    order = order_of(labels, clips.shape[1])
    return torch.stack([one[places] for one, places in zip(clips, order, strict=True)])


@in_float32
def vcop(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of (N, n!) logits with the numbers of the orders (N,) int64.

    Equal logits: log n!.

    Raises:
        UserError: logits that aren't (N, K), labels out of range.
    """
    if logits.ndim != 2 or not len(logits):
        raise UserError(f"logits need the shape (batch, orders), got {tuple(logits.shape)}")
    check_floats(logits=logits)
    check_labels(labels, len(logits), logits.shape[1])
    return cross_entropy(logits, labels)


def vcop_terms(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """:func:`vcop` as ``loss``, and ``pretext_accuracy``."""
    loss = vcop(logits, labels)
    return {"loss": loss, "pretext_accuracy": (logits.detach().argmax(1) == labels).float().mean()}
