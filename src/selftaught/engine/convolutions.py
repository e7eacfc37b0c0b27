"""Convolutions whose bf16 weight gradient is right on a CPU, whatever the size of the map."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

__all__ = ["mend_convolutions"]


def mend_convolutions(network: nn.Module) -> None:
    """Let the convolutions of a network pad small maps themselves where oneDNN's bf16 weight gradient would be wrong.

    Seen with torch 2.15 (oneDNN) on processors with avx512_bf16: parts of the gradient stay uninitialised, 1e36 or NaN,
    or the process ends, where a 3-D kernel is longer in time than a map of two frames or more (a ResNet3D-18 whose
    last stage sees two), and where a stride is taken on a map of one pixel. Padded before, the same sums are right.

    Weights, names and results stay. Classes that others derived from torch's count, too (torchvision's video networks
    have such); those that compute in a way of their own are left alone.
    """
    module: Any
    for module in network.modules():
        kind = next((kind for kind in _CONVOLVE if isinstance(module, kind)), None)
        if kind is None or module.padding_mode != "zeros" or max(module.kernel_size) == 1:
            continue
        found: Any = type(module)
        own = found.forward is not kind.forward or found._conv_forward is not kind._conv_forward
        if not own and (max(module.stride) > 1 or len(module.kernel_size) == 3):
            module.__class__ = _padding(found)


def _mishandled(conv: Any, x: Tensor) -> bool:
    """Whether a convolution's weight gradient is one of those."""
    half = x.dtype is torch.bfloat16 or (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    )
    if x.device.type != "cpu" or not half or not torch.is_grad_enabled():
        return False
    size = x.shape[-len(conv.kernel_size) :]
    if max(size) == 1:
        return max(conv.stride) > 1
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1
    return len(size) == 3 and 1 < size[0] < reach


_CONVOLVE: dict[Any, Any] = {
    nn.Conv1d: nn.functional.conv1d,
    nn.Conv2d: nn.functional.conv2d,
    nn.Conv3d: nn.functional.conv3d,
}


class _Padding:
    """Pads by itself where oneDNN must not."""

    _kind: type
    """The class that it was."""

    def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _mishandled(self, x):
            found: Tensor = super()._conv_forward(x, weight, bias)  # type: ignore[misc]
            return found
        convolve = next(function for kind, function in _CONVOLVE.items() if isinstance(self, kind))
        padded = pad(x, self._reversed_padding_repeated_twice)
        made: Tensor = convolve(padded, weight, bias, self.stride, 0, self.dilation, self.groups)
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _empty, (self._kind,), self.__dict__


@cache
def _padding(kind: Any) -> Any:
    """A class of convolutions that pads by itself, under the same name."""
    return type(kind.__name__, (_Padding, kind), {"_kind": kind, "__module__": kind.__module__})


def _empty(kind: Any) -> Any:
    """One of them without its state, for copies and pickles."""
    made = _padding(kind)
    return made.__new__(made)
