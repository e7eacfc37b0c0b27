"""Operations on volumes alone: all three axes brought to one size."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.views.operation import Op, executor, freeze

__all__ = ["ResizeVolume"]


@dataclasses.dataclass(frozen=True, repr=False)
class ResizeVolume(Op):
    """A volume brought to ``size`` = (depth, height, width) voxels, axis by axis, whatever its proportions.

    Linear interpolation; where an axis gets shorter every voxel of it counts (a triangle as wide as the step), so
    that thin structures don't vanish between the samples.

    Args:
        size: (depth, height, width).

    Raises:
        UserError: other than three whole numbers above 0; samples other than volumes.
    """

    size: tuple[int, int, int]

    floats: ClassVar = True

    def __post_init__(self) -> None:
        given = tuple(self.size) if isinstance(self.size, tuple | list) else ()
        if len(given) != 3 or not all(isinstance(n, Integral) and not isinstance(n, bool) and n > 0 for n in given):
            raise UserError(f"ResizeVolume: size is (depth, height, width) in voxels, got {self.size!r}")
        freeze(self, size=tuple(int(n) for n in given))

    def draw(self, u: Any, height: Any, width: Any) -> tuple[tuple[Any, ...], Any, Any]:
        """Nothing is drawn."""
        return (), self.size[1], self.size[2]

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Nothing is drawn; the shape is ``size`` and the channels."""
        if kind != "volume":
            raise UserError(f"ResizeVolume: takes volumes, not {kind}")
        return (), (*self.size, *shape[3:])

    def coarser(self, scale: int) -> ResizeVolume:
        """The same on a grid ``scale`` times coarser."""
        if any(side % scale for side in self.size):
            raise UserError(f"ResizeVolume: size {self.size} is no multiple of this view's scale {scale}")
        return ResizeVolume((self.size[0] // scale, self.size[1] // scale, self.size[2] // scale))


@lru_cache(maxsize=64)
def _weights(old: int, new: int) -> np.ndarray:
    """(new, old) float64: what each old voxel gives to each new one; rows sum to 1."""
    step = old / new
    middle = (np.arange(new) + 0.5) * step - 0.5
    far = np.abs(np.arange(old)[None] - middle[:, None].clip(0, old - 1)) / max(1.0, step)
    found = np.maximum(0.0, 1.0 - far)
    return found / found.sum(1, keepdims=True)


@executor(ResizeVolume, "volume")
def _on_cpu(volume: np.ndarray, op: ResizeVolume, _: Any) -> np.ndarray:
    if volume.shape[:3] == op.size:
        return volume
    x: Any = volume.astype(np.float64 if volume.dtype == np.float64 else np.float32)
    for axis, side in enumerate(op.size):
        if x.shape[axis] != side:
            weights = _weights(x.shape[axis], side).astype(x.dtype)
            x = np.moveaxis(np.tensordot(weights, x, axes=(1, axis)), 0, axis)
    return np.rint(x).clip(0, 255).astype(np.uint8) if volume.dtype == np.uint8 else x


@executor(ResizeVolume, "volume", device=True)
def _on_device(volumes: Tensor, op: ResizeVolume, _: Any) -> Tensor:
    x = volumes if volumes.is_floating_point() else volumes.float()
    for axis, side in enumerate(op.size, start=2):
        if x.shape[axis] != side:
            weights = torch.from_numpy(_weights(x.shape[axis], side)).to(x)
            x = torch.tensordot(weights, x, dims=([1], [axis])).movedim(0, axis)
    return x.round().clamp(0, 255).to(volumes.dtype) if volumes.dtype == torch.uint8 else x
