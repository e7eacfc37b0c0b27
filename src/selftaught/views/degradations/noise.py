"""Noise as operations: white, or shared by neighbours; the same numbers from both executors."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views._fast import kernels
from selftaught.views.degradations._normals import SEEDS, normals, normals_batch, words
from selftaught.views.operation import Drawn, Op, Pair, checked_range, executor, freeze

__all__ = ["CorrelatedNoise", "GaussianNoise"]


def drawn_range(op: str, name: str, value: Any, low: float, high: float) -> Pair:
    """One number, or (low, high) of an even draw, as a pair."""
    single = isinstance(value, int | float) and not isinstance(value, bool)
    return checked_range(op, name, (value, value) if single else value, low, high)


@dataclasses.dataclass(frozen=True, repr=False)
class GaussianNoise(Op):
    """White Gaussian noise: image + sigma n, n ~ N(0, 1) for each value. Every frame of a clip has its own.

    Whole-number images are rounded and clipped to their type's range, floats are not clipped. Reports ``sigma``.

    Args:
        sigma: standard deviation in the image's own values (25 of 255 is 25/255 of 1), or its range (low, high).
    """

    sigma: float | Pair

    columns: ClassVar = ("sigma", "seed")
    draws: ClassVar = 2
    floats: ClassVar = True
    facts: ClassVar = ("sigma",)

    def __post_init__(self) -> None:
        freeze(self, sigma=drawn_range(type(self).__name__, "sigma", self.sigma, 0.0, 1e6))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw sigma and the seed of the noise."""
        low, high = self.sigma  # type: ignore[misc]
        return (low + u[0] * (high - low), np.floor(u[1] * SEEDS)), height, width

    def reach(self) -> int:
        """How many pixels wide the white noise is that one pixel's noise is made of."""
        return 1


@dataclasses.dataclass(frozen=True, repr=False)
class CorrelatedNoise(GaussianNoise):
    """Gaussian noise that neighbours share, like that of a camera's JPEG: white noise under a box, rescaled.

    The mean of kernel**2 independent values, times ``kernel``: its deviation is sigma, and two values d pixels apart in
    a row correlate by max(0, 1 - d / kernel). Channels and frames are independent. Else as :class:`GaussianNoise`.

    Args:
        sigma: standard deviation in the image's own values, or its range (low, high).
        kernel: side of the box in pixels (default 3; 1 is white noise).
    """

    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.kernel, bool) or not isinstance(self.kernel, int) or not 1 <= self.kernel <= 99:
            raise UserError(f"CorrelatedNoise: kernel is a whole number of pixels, 1 to 99, got {self.kernel!r}")

    def reach(self) -> int:
        """The side of the box."""
        return self.kernel


def _spread(field: Any, first: int, reach: int) -> Any:
    """Sums over boxes along two axes, divided by the box's side: unit variance stays unit variance."""
    for axis in (first, first + 1):
        size = field.shape[axis] - reach + 1
        cut: list[Any] = [slice(None)] * field.ndim
        total: Any = 0
        for start in range(reach):
            cut[axis] = slice(start, start + size)
            total = total + field[tuple(cut)]
        field = total / reach**0.5
    return field


@executor(GaussianNoise, "image", "clip", "volume")
def _noise(x: np.ndarray, op: GaussianNoise, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    sigma, seed = values
    more = op.reach() - 1
    compiled = kernels() if x.dtype == np.uint8 else None
    if compiled is not None and not more:
        made = np.empty(x.shape, np.uint8)
        compiled.noised(np.ascontiguousarray(x).reshape(-1), *words(seed), np.float32(sigma), made.reshape(-1))
        return made, {"sigma": np.float32(sigma)}
    *frames, height, width, channels = x.shape
    field = normals(seed, (*frames, height + more, width + more, channels))
    field = _spread(field, len(frames), op.reach()) if more else field
    if compiled is not None:
        made = np.empty(x.shape, np.uint8)
        compiled.noisy(np.ascontiguousarray(x).reshape(-1), field.reshape(-1), np.float32(sigma), made.reshape(-1))
        return made, {"sigma": np.float32(sigma)}
    noisy = np.multiply(field, np.float32(sigma), out=field)
    if x.dtype.kind == "f":
        return (x + noisy).astype(x.dtype, copy=False), {"sigma": np.float32(sigma)}
    limits = np.iinfo(x.dtype)
    noisy = np.add(x, noisy, out=noisy) if x.itemsize < 4 else x + noisy
    np.clip(np.rint(noisy, out=noisy), limits.min, limits.max, out=noisy)
    return noisy.astype(x.dtype), {"sigma": np.float32(sigma)}


@executor(GaussianNoise, "image", "clip", "volume", device=True)
def _noise_batch(x: Any, op: GaussianNoise, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    more = op.reach() - 1
    channels, *frames, height, width = x.shape[1:]
    field = normals_batch(values[:, 1], (*frames, height + more, width + more, channels), x).movedim(-1, 1)
    field = _spread(field, 2 + len(frames), op.reach()) if more else field
    sigma = torch.from_numpy(values[:, 0].astype(np.float32)).to(x.device)
    noisy = x + sigma.view(-1, *[1] * (x.ndim - 1)) * field
    if not x.is_floating_point():
        limits = torch.iinfo(x.dtype)
        noisy = noisy.round().clamp(limits.min, limits.max)
    return noisy.to(x.dtype), {"sigma": sigma}
