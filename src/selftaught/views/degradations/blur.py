"""Blur by kernels: a given one, or that of a moving camera drawn for each sample."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import cv2
import numpy as np

from selftaught.errors import UserError
from selftaught.views.degradations._normals import SEEDS
from selftaught.views.operation import Drawn, Op, Pair, executor, freeze

__all__ = ["Blur", "MotionBlur", "motion_kernel"]

_BORDERS = {"mirror": cv2.BORDER_REFLECT_101, "repeat": cv2.BORDER_REPLICATE, "wrap": cv2.BORDER_WRAP}
_PAD = {"mirror": "reflect", "repeat": "edge", "wrap": "wrap"}
_STEPS = 256

_DIRECT, _FEW = 129, 128
"""OpenCV sums directly below an area of 130; strips are faster than its transforms up to some weights."""


@dataclasses.dataclass(frozen=True, repr=False)
class Blur(Op):
    """The image convolved with a kernel: y[p] = sum over q of kernel[q] x[p - q], the kernel's middle at 0.

    Reports ``kernel``, (height, width) float32. Whole-number images are rounded and clipped.

    Args:
        kernel: an array or nested lists with odd sides, taken as it is (one that sums to 1 keeps the brightness).
        border: what lies outside: "mirror" (default, the edge not repeated), "repeat" (the edge) or "wrap" (circular).
    """

    kernel: Any
    border: str = "mirror"

    floats: ClassVar = True
    facts: ClassVar = ("kernel",)

    def __post_init__(self) -> None:
        try:
            kernel = np.asarray(self.kernel, np.float64)
        except (TypeError, ValueError):
            kernel = np.zeros(0)
        if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape) or not np.isfinite(kernel).all():
            raise UserError(f"Blur: kernel is a table of finite numbers with odd sides, got shape {kernel.shape}")
        freeze(self, kernel=tuple(map(tuple, kernel.tolist())), border=_checked_border("Blur", self.border))

    def __repr__(self) -> str:
        return f"Blur({len(self.kernel)}x{len(self.kernel[0])}, border={self.border!r})"

    def kernel_of(self, values: Any) -> np.ndarray:
        """The kernel that a sample's parameters stand for, (height, width) float32."""
        return np.asarray(self.kernel, np.float32)


@dataclasses.dataclass(frozen=True, repr=False)
class MotionBlur(Op):
    """The blur of a camera that moves while the shutter is open: :func:`motion_kernel`, drawn for each sample.

    Once per clip, as all operations; in a pipeline that draws ``per_frame``, for each frame. Reports ``kernel``.

    Args:
        size: side of the kernel in pixels, odd (default 21).
        length: range of the path's length in pixels, at most size - 1 (default 2 to size - 1).
        roughness: 0 moves straight, 1 trembles (default 0.3).
        border: as of :class:`Blur`.
    """

    size: int = 21
    length: float | Pair | None = None
    roughness: float = 0.3
    border: str = "mirror"

    columns: ClassVar = ("length", "seed")
    draws: ClassVar = 2
    floats: ClassVar = True
    facts: ClassVar = ("kernel",)

    def __post_init__(self) -> None:
        from selftaught.views.degradations.noise import drawn_range

        _checked_side(self.size)
        most = self.size - 1
        span = drawn_range("MotionBlur", "length", (2, most) if self.length is None else self.length, 0, most)
        if not 0 <= self.roughness <= 1:
            raise UserError(f"MotionBlur: roughness lies between 0 and 1, got {self.roughness!r}")
        freeze(self, length=span, border=_checked_border("MotionBlur", self.border))

    def coarser(self, scale: int) -> Op:
        """Itself: its size is the kernel's, not the image's."""
        return self

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the path's length and its seed."""
        low, high = self.length  # type: ignore[misc]
        return (low + u[0] * (high - low), np.floor(u[1] * SEEDS)), height, width

    def kernel_of(self, values: Any) -> np.ndarray:
        """The kernel that a sample's parameters stand for, (size, size) float32."""
        return motion_kernel(self.size, float(values[0]), int(values[1]), roughness=self.roughness)


def motion_kernel(size: int, length: float, rng: np.random.Generator | int, *, roughness: float = 0.3) -> np.ndarray:
    """The path of a hand-held camera during one exposure, as a blur kernel.

    A point moves at even speed; its direction wanders (steps of a normal random walk, whose spread over the whole path
    is ``roughness`` times a half turn) and, with probability ``roughness``, jumps once to an even-drawn one. Its path,
    centred at its mean and drawn with bilinear weights, is normalised to sum 1. (After the random trajectories of
    Boracchi and Foi 2012, without their impulses of force.)

    Args:
        size: side in pixels, odd.
        length: of the path in pixels, 0 (no blur) to size - 1: no curve of that length leaves the kernel.
        rng: generator or seed.
        roughness: 0 (default 0.3) is a straight line in an even-drawn direction.

    Returns:
        (size, size) float32, sum 1.

    Raises:
        UserError: an even size, a length that doesn't fit.
    """
    _checked_side(size)
    if not 0 <= length <= size - 1:
        raise UserError(f"motion_kernel: a path of {length!r} pixels in a kernel of {size}; give 0 to {size - 1}")
    rng = np.random.default_rng(rng)
    turns = rng.standard_normal(_STEPS)
    turns *= roughness * np.pi / _STEPS**0.5
    turns[0] = rng.uniform(0, 2 * np.pi)
    jump, at, angle = rng.random(), rng.integers(1, _STEPS), rng.uniform(0, 2 * np.pi)
    if jump < roughness:
        turns[at] += angle
    heading = turns.cumsum()
    path = np.empty((2, _STEPS))  # down and right
    np.sin(heading, out=path[0])
    np.cos(heading, out=path[1])
    path = path.cumsum(1)
    path *= length / _STEPS
    path += (size - 1) / 2 - path.sum(1, keepdims=True) / _STEPS
    low = path.astype(np.int64)  # a point's bilinear weights fall on four pixels
    share = path - low
    corner = low[0] * (size + 1) + low[1]
    places = np.concatenate((corner, corner + 1, corner + size + 1, corner + size + 2))
    upper, left = 1 - share
    weights = np.concatenate((upper * left, upper * share[1], share[0] * left, share[0] * share[1]))
    kernel = np.bincount(places, weights, (size + 1) ** 2).reshape(size + 1, size + 1)[:size, :size]
    return (kernel / kernel.sum()).astype(np.float32)


def _checked_side(size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % 2 == 0:
        raise UserError(f"motion blur: size is an odd number of pixels, got {size!r}")


def _checked_border(op: str, border: str) -> str:
    if border not in _PAD:
        raise UserError(f"{op}: border is one of {', '.join(_PAD)}, got {border!r}")
    return border


def _places(size: int, radius: int, border: str) -> np.ndarray:
    """Where the pixels of a padded axis come from."""
    return np.pad(np.arange(size), radius, mode=_PAD[border])  # type: ignore[call-overload]


@executor(Blur, "image")
@executor(MotionBlur, "image")
def _blur(x: np.ndarray, op: Blur | MotionBlur, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    kernel = op.kernel_of(values)
    return _filtered(x, kernel[::-1, ::-1], op.border), {"kernel": kernel}


def _filtered(x: np.ndarray, kernel: np.ndarray, border: str) -> np.ndarray:
    """An image (H, W, C) correlated with a kernel, all channels at once; whole numbers are rounded and clipped.

    OpenCV sums over a kernel's nonzero weights alone as long as its area is small, and takes Fourier transforms beyond;
    a path has few weights in a wide square, so that square is worked through in strips. Floats take half the time of
    bytes there, and many times less than bytes that become floats on the way.
    """
    height, width, channels = x.shape
    if channels > 4:
        return np.concatenate([_filtered(x[:, :, at : at + 4], kernel, border) for at in range(0, channels, 4)], 2)
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    high, wide = (np.flatnonzero(kernel.any(axis)) for axis in (1, 0))
    top, bottom = (min(high[0], down), max(high[-1], down) + 1) if len(high) else (down, down + 1)
    left, far = (min(wide[0], right), max(wide[-1], right) + 1) if len(wide) else (right, right + 1)
    box = np.ascontiguousarray(kernel[top:bottom, left:far])
    if box.size <= _DIRECT and border != "wrap" and down < height and right < width:
        levels = x if x.dtype == np.float64 else x.astype(np.float32)
        anchor = (int(right - left), int(down - top))
        made: Any = cv2.filter2D(levels, -1, box, anchor=anchor, borderType=_BORDERS[border])
    else:
        padded = cv2.copyMakeBorder(x, down, down, right, right, _BORDERS[border])
        levels = padded if x.dtype == np.float64 else padded.astype(np.float32)
        seen = levels[top : top + height + len(box) - 1, left : left + width + box.shape[1] - 1]
        made = _in_strips(seen, box)[:, :width]
    made = made.reshape(x.shape)
    if x.dtype != np.uint8:
        return made
    if box.min() < 0 or box.sum() > 2:
        made = np.clip(made, 0, 255)
    return cv2.convertScaleAbs(made).reshape(x.shape)


def _in_strips(x: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Sums over a box that begins at each pixel of the rows from which it doesn't leave the image."""
    height = len(x) - len(box) + 1
    each = max(1, _DIRECT // box.shape[1]) if np.count_nonzero(box) <= _FEW else len(box)
    made: Any = None
    for at in range(0, len(box), each):
        strip = box[at : at + each]
        seen = x[at : at + height + len(strip) - 1]
        part = cv2.filter2D(seen, -1, strip, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)[:height]
        made = part if made is None else cv2.add(made, part)
    return made


@executor(Blur, "image", device=True)
@executor(MotionBlur, "image", device=True)
def _blur_batch(x: Any, op: Blur | MotionBlur, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    count, channels, height, width = x.shape
    kernels = torch.from_numpy(np.stack([op.kernel_of(row) for row in values])).to(x.device)
    down, right = kernels.shape[1] // 2, kernels.shape[2] // 2
    rows = torch.from_numpy(_places(height, down, op.border)).to(x.device)
    columns = torch.from_numpy(_places(width, right, op.border)).to(x.device)
    work = x.dtype if x.is_floating_point() else torch.float32
    wide = x.index_select(2, rows).index_select(3, columns).to(work)
    wide = wide.reshape(1, count * channels, len(rows), len(columns))
    flipped = kernels.flip(1, 2).to(work).repeat_interleave(channels, 0)[:, None]
    made = torch.nn.functional.conv2d(wide, flipped, groups=count * channels).view(x.shape)
    if not x.is_floating_point():
        made = made.round().clamp(0, 255)
    return made.to(x.dtype), {"kernel": kernels}
