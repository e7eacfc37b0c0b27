"""Pictures at night: random-walk blur, noise of a camera at high gain, clipped lights (INFWIDE, arXiv 2207.08201)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.degradations._normals import SEEDS
from selftaught.views.degradations.blur import _blur, _blur_batch, _checked_border, _checked_side
from selftaught.views.operation import Drawn, Op, Pair, checked_range, executor, freeze

__all__ = ["CameraNoise", "Saturate", "WalkBlur", "camera_noise", "walk_kernel"]

_STEPS = 250
_ANALOG = 6.0
_LARGEST = 27


def walk_kernel(rng: np.random.Generator | int, size: int = 37) -> np.ndarray:
    """A blur kernel of a random walk, as INFWIDE's loader draws it.

    A walk of 250 steps is laid on a g x g grid, g = min(27, round(5 - ln(u) / 0.15)) made odd, blurred a little, and
    put in the middle. One in four is stretched by 1 to 5 along each axis and cut to the middle. Where almost nothing is
    left, it is a Gaussian of deviation 0.1 + 6 u.

    Args:
        rng: generator or seed.
        size: side in pixels, odd, 5 or more.

    Returns:
        (size, size) float32, sum 1.

    Raises:
        UserError: an even size.
    """
    import cv2

    _checked_side(size)
    rng = np.random.default_rng(rng)
    grid = int(min(_LARGEST, size, round(5 - np.log(max(rng.random(), 1e-12)) / 0.15)))
    grid += 1 - grid % 2
    grid = min(grid, size)
    turns = np.cumsum(rng.standard_normal(_STEPS) * 0.35) + rng.uniform(0, 2 * np.pi)
    speed = np.abs(1 + 0.5 * rng.standard_normal(_STEPS))
    path = np.cumsum(speed[:, None] * np.stack([np.sin(turns), np.cos(turns)], 1), axis=0)
    low, high = path.min(0), path.max(0)
    path = (path - (low + high) / 2) / max(float((high - low).max()), 1e-9) * (grid - 2) + (grid - 1) / 2
    kernel: Any = np.zeros((grid, grid))
    np.add.at(kernel, tuple(np.clip(np.rint(path), 0, grid - 1).astype(int).T), 1.0)
    kernel = cv2.GaussianBlur(kernel, (3, 3), 0.5)
    kernel /= kernel.sum()
    if rng.random() < 0.25:
        factors = rng.uniform(1, 5, 2)
        kernel = cv2.resize(kernel, None, fx=factors[0], fy=factors[1], interpolation=cv2.INTER_LINEAR)
        kernel /= factors.prod()
    whole = _middle(kernel, size)
    if whole.sum() < 0.1:
        place = np.arange(size) - size // 2
        line = np.exp(-(place**2) / (2 * (0.1 + 6 * rng.random()) ** 2))
        whole = np.outer(line, line)
    return (whole / whole.sum()).astype(np.float32)


def _middle(kernel: np.ndarray, size: int) -> np.ndarray:
    """The middle (size, size) of a kernel, zeros around where it is smaller."""
    for axis in (0, 1):
        length = kernel.shape[axis]
        if length > size:
            kernel = np.take(kernel, np.arange((length - size) // 2, (length - size) // 2 + size), axis)
        else:
            before = (size - length) // 2
            edges = [(0, 0), (0, 0)]
            edges[axis] = (before, size - length - before)
            kernel = np.pad(kernel, edges)
    return kernel


def camera_noise(
    image: np.ndarray,
    rng: np.random.Generator | int,
    *,
    gain: float = 8.0,
    dark: float = 5.0,
    read: float = 2.0,
    row: float = 0.02,
    green: int | None = None,
) -> np.ndarray:
    """What a camera at high gain makes of a picture, in steps of 8 bits.

        e = g 255 b / k_c
        out = trunc( a beta ( Poisson(e) + max(Poisson(n_d) - n_d, 0) + N(0, sigma_r^2) ) ) k_c / 6

    a = 6 and g = 1, for green 3 and 2 (two pixels of four); beta is N(1, sigma_beta^2), one for each row and channel.
    Before the digital gain k_c / 6 a pixel is set to white with probability 1e-5 a, to black with 1e-6 a.

    Args:
        image: (H, W, C) float in [0, 1].
        rng: generator or seed.
        gain: total gain k_c.
        dark: n_d, mean of the dark electrons.
        read: sigma_r, deviation of the reading in electrons.
        row: sigma_beta, deviation of a row's gain.
        green: number of the green channel; None: 1 of three channels, else none.

    Returns:
        (H, W, C) float of the image's type in [0, 1], whole 255ths.

    Raises:
        UserError: no picture of floats in [0, 1], parameters below 0.
    """
    if image.ndim != 3 or image.dtype.kind != "f":
        raise UserError(f"camera_noise takes floats (H, W, C) in [0, 1], got {image.dtype} {image.shape}")
    if not gain > 0 or min(dark, read, row) < 0:
        raise UserError(f"camera_noise: gain {gain} above 0, dark {dark}, read {read} and row {row} 0 or more")
    if image.size and (image.min() < -0.01 or image.max() > 1.01):
        raise UserError(f"camera_noise: floats in [0, 1], got {image.min():.3g} to {image.max():.3g}; scale them first")
    rng = np.random.default_rng(rng)
    height, _, channels = image.shape
    green = 1 if green is None and channels == 3 else green
    made = np.empty(image.shape, np.float64)
    for c in range(channels):
        analog, share = (_ANALOG / 2, 2.0) if c == green else (_ANALOG, 1.0)
        plane = np.clip(image[:, :, c].astype(np.float64), 0, 1)
        electrons = rng.poisson(share * 255 * plane / gain)
        electrons = electrons + np.maximum(rng.poisson(dark, plane.shape) - dark, 0)
        electrons = electrons + rng.normal(0, read, plane.shape)
        beta = rng.normal(1, row, (height, 1))
        out = np.trunc(analog * beta * electrons)
        spots = rng.random(plane.shape)
        out[spots < 1e-5 * analog] = 255
        out[spots > 1 - 1e-6 * analog] = 0
        made[:, :, c] = np.trunc(np.clip(out * (gain / _ANALOG), 0, 255)) / 255
    return made.astype(image.dtype)


@dataclasses.dataclass(frozen=True, repr=False)
class WalkBlur(Op):
    """Convolution with :func:`walk_kernel`, drawn for each sample. Reports ``kernel``.

    Args:
        size: side of the kernel in pixels, odd (default 37).
        border: what lies outside: "wrap" (default, circular), "mirror" or "repeat".
    """

    size: int = 37
    border: str = "wrap"

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1
    floats: ClassVar = True
    facts: ClassVar = ("kernel",)

    def __post_init__(self) -> None:
        _checked_side(self.size)
        freeze(self, border=_checked_border("WalkBlur", self.border))

    def coarser(self, scale: int) -> Op:
        """Itself: its size is the kernel's, not the image's."""
        return self

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the seed."""
        return (np.floor(u[0] * SEEDS),), height, width

    def kernel_of(self, values: Any) -> np.ndarray:
        """The kernel that a sample's parameters stand for, (size, size) float32."""
        return walk_kernel(int(values[0]), self.size)


executor(WalkBlur, "image")(_blur)
executor(WalkBlur, "image", device=True)(_blur_batch)


@dataclasses.dataclass(frozen=True, repr=False)
class CameraNoise(Op):
    """:func:`camera_noise` with parameters drawn for each sample. Reports ``gain``.

    Floats in [0, 1]; uint8 images go through them. The device executor hands each image to the host.

    Args:
        gain: total gain, (low, high) of an even draw rounded down to a whole number, or one number.
        dark: (low, high) of the mean of the dark electrons.
        read: (low, high) of the reading's deviation in electrons.
        row: (low, high) of the deviation of a row's gain.
    """

    gain: float | Pair = (4.0, 16.0)
    dark: float | Pair = (2.0, 8.0)
    read: float | Pair = (0.5, 4.0)
    row: float | Pair = (0.01, 0.03)

    columns: ClassVar = ("gain", "dark", "read", "row", "seed")
    draws: ClassVar = 5
    floats: ClassVar = True
    facts: ClassVar = ("gain",)

    def __post_init__(self) -> None:
        for name, low in (("gain", 1.0), ("dark", 0.0), ("read", 0.0), ("row", 0.0)):
            value = getattr(self, name)
            pair = (value, value) if isinstance(value, int | float) else value
            freeze(self, **{name: checked_range("CameraNoise", name, pair, low, 1000.0)})

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the camera and its seed."""
        ranges: list[Any] = [self.gain, self.dark, self.read, self.row]
        gain, *others = (low + u[k] * (high - low) for k, (low, high) in enumerate(ranges))
        return (np.floor(gain), *others, np.floor(u[4] * SEEDS)), height, width


@executor(CameraNoise, "image")
def _noise(x: np.ndarray, op: CameraNoise, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    gain, dark, read, row, seed = values
    unit = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else np.clip(x, 0, 1)
    made = camera_noise(unit, int(seed), gain=gain, dark=dark, read=read, row=row)
    return (np.rint(made * 255).astype(np.uint8) if x.dtype == np.uint8 else made), {"gain": np.float32(gain)}


@executor(CameraNoise, "image", device=True)
def _noise_batch(x: Any, op: CameraNoise, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    images = x.permute(0, 2, 3, 1).cpu().numpy()
    made = np.stack([_noise(image, op, row)[0] for image, row in zip(images, values.tolist(), strict=True)])
    gain = torch.from_numpy(values[:, 0].astype(np.float32)).to(x.device)
    return torch.from_numpy(made).permute(0, 3, 1, 2).to(x.device), {"gain": gain}


@dataclasses.dataclass(frozen=True, repr=False)
class Saturate(Op):
    """Lights clipped: y = clip(factor y, 0, 1) / factor, so that no value lies above 1 / factor.

    Args:
        factor: 1 or more (default 1.2).
    """

    factor: float = 1.2

    floats: ClassVar = True

    def __post_init__(self) -> None:
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float) or not self.factor >= 1:
            raise UserError(f"Saturate: factor is 1 or more, got {self.factor!r}")


@executor(Saturate, "image")
def _saturate(x: np.ndarray, op: Saturate, values: list[float]) -> np.ndarray:
    if x.dtype == np.uint8:
        return np.minimum(x, np.uint8(round(255 / op.factor)))
    return np.clip(x, 0, 1 / op.factor)


@executor(Saturate, "image", device=True)
def _saturate_batch(x: Any, op: Saturate, values: np.ndarray) -> Any:
    return x.clamp(0, 1 / op.factor) if x.is_floating_point() else x.clamp_max(round(255 / op.factor))
