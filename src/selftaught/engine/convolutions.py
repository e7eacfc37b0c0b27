"""Convolutions whose bf16 weight gradient is right on a CPU, whatever the size of the map."""

from __future__ import annotations

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

    Weights, names and results stay; modules that other code has derived from these classes are left alone.
    """
    module: Any
    for module in network.modules():
        mended = _MENDED.get(type(module))
        if mended is None or module.padding_mode != "zeros" or max(module.kernel_size) == 1:
            continue
        if max(module.stride) > 1 or len(module.kernel_size) == 3:
            module.__class__ = mended


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


class _Padding:
    """Pads by itself where oneDNN must not."""

    def _conv_forward(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not _mishandled(self, x):
            found: Tensor = super()._conv_forward(x, weight, bias)  # type: ignore[misc]
            return found
        made: Tensor = self._convolve(
            pad(x, self._reversed_padding_repeated_twice), weight, bias, self.stride, 0, self.dilation, self.groups
        )
        return made


class _Conv1d(_Padding, nn.Conv1d):
    _convolve = staticmethod(nn.functional.conv1d)


class _Conv2d(_Padding, nn.Conv2d):
    _convolve = staticmethod(nn.functional.conv2d)


class _Conv3d(_Padding, nn.Conv3d):
    _convolve = staticmethod(nn.functional.conv3d)


_MENDED: dict[type, type] = {nn.Conv1d: _Conv1d, nn.Conv2d: _Conv2d, nn.Conv3d: _Conv3d}
