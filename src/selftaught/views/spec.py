"""What one view is made of: small frozen descriptions of image operations, and how each draws its parameters.

An operation holds what the user chose (sizes, probabilities, ranges). Its randomness is in :meth:`Op.draw`, which
turns uniform numbers into a few plain columns per sample (a crop box, a flip, a factor...). What those columns do to
pixels is written twice, in ``_cpu_pixels.py`` and ``_device_pixels.py``, with the same meaning.

``draw`` takes either one sample (a list of floats, integer height and width) or a batch (a ``(draws, n)`` array,
integer arrays of heights and widths) and walks through the uniform numbers in the same order, so both give the same
views.
"""

from __future__ import annotations

import dataclasses
import math
from itertools import permutations
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views import arithmetic
from selftaught.views.operation import (
    Drawn,
    Op,
    Pair,
    anywhere,
    batched,
    below,
    checked_pair,
    checked_probability,
    checked_range,
    checked_size,
    freeze,
    plain,
    require_at_least,
    whole,
)

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "Dihedral",
    "GaussianBlur",
    "Grayscale",
    "HorizontalFlip",
    "RandomCrop",
    "RandomResizedCrop",
    "Resize",
    "Solarize",
]

ORDERS: tuple[str, ...] = tuple("".join(order) for order in permutations("bcsh"))
"""The 24 orders of brightness (b), contrast (c), saturation (s) and hue (h); a parameter names one by its position."""

COLOURLESS = ("mask", "depth")
"""Kinds that changes of colour leave as they are."""


@dataclasses.dataclass(frozen=True, repr=False)
class RandomResizedCrop(Op):
    """A box of random area and aspect ratio, resized to ``size`` (Szegedy et al. 2015, as torchvision draws it).

    Ten boxes are tried; if none fits, the largest central box within ``ratio`` is taken. Resizing is bilinear with
    half-pixel centres and never looks outside the box; strong reductions first average by powers of two
    (:func:`selftaught.views.arithmetic.reduction_level`), for which box corners move by less than one output pixel.

    Args:
        size: output side, or (height, width), in pixels.
        scale: range of the box's share of the image area (default 0.08 to 1).
        ratio: range of width / height, drawn evenly in its logarithm (default 3/4 to 4/3).

    Raises:
        UserError: a size, scale or ratio that makes no sense.
    """

    size: int | tuple[int, int]
    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)

    columns: ClassVar = ("top", "left", "height", "width", "level")
    geometric: ClassVar = True
    pixels: ClassVar = ("top", "left", "height", "width")
    floats: ClassVar = True
    draws: ClassVar = 22

    def __post_init__(self) -> None:
        name = "RandomResizedCrop"
        freeze(
            self,
            size=checked_size(name, self.size),
            scale=checked_range(name, "scale", self.scale, 1e-6, 1.0),
            ratio=checked_range(name, "ratio", self.ratio, 1e-3, 1e3),
        )

    def target(self, height: Any, width: Any) -> tuple[int, int]:
        """The (height, width) of the view, whatever the image's."""
        return arithmetic.pair(self.size)

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw a box: ten pairs (area, ratio), then its two offsets."""
        box: tuple[Any, ...] = self._boxes(u, height, width) if batched(u) else self._box(u, height, width)
        size = arithmetic.pair(self.size)
        return arithmetic.snap(box, size), *size

    @property
    def enough(self) -> int:
        """The side at which even the smallest and narrowest box has as many pixels as the view."""
        (least, _), (narrow, wide), (height, width) = self.scale, self.ratio, arithmetic.pair(self.size)
        return math.ceil(max(height * math.sqrt(wide / least), width / math.sqrt(least * narrow)))

    def _box(self, u: Any, height: int, width: int) -> tuple[int, int, int, int]:
        (least, most), low = self.scale, math.log(self.ratio[0])
        span, area = math.log(self.ratio[1]) - low, height * width
        for attempt in range(0, 20, 2):
            target = area * (least + u[attempt] * (most - least))
            ratio = math.exp(low + u[attempt + 1] * span)
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return whole(u[20], height - h), whole(u[21], width - w), h, w
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def _boxes(self, u: np.ndarray, height: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, ...]:
        (least, most), low = self.scale, math.log(self.ratio[0])
        span = math.log(self.ratio[1]) - low
        target = height * width * (least + u[0:20:2] * (most - least))
        ratio = np.exp(low + u[1:20:2] * span)
        w, h = np.rint(np.sqrt(target * ratio)), np.rint(np.sqrt(target / ratio))
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first, some = np.argmax(fits, axis=0), fits.any(axis=0)
        sample = np.arange(u.shape[1])
        w = np.where(some, w[first, sample], np.minimum(width, np.maximum(1, np.rint(height * self.ratio[1]))))
        h = np.where(some, h[first, sample], np.minimum(height, np.maximum(1, np.rint(width / self.ratio[0]))))
        top = np.where(some, whole(u[20], height - h), (height - h) // 2)
        left = np.where(some, whole(u[21], width - w), (width - w) // 2)
        return top, left, h, w


@dataclasses.dataclass(frozen=True, repr=False)
class Resize(Op):
    """The whole image resized: to ``size`` on its shorter side (one number), or to (height, width) exactly.

    Bilinear, as :class:`RandomResizedCrop`; when the image shrinks by 2**k, up to 2**k - 1 rows and columns at the far
    edges are left out so that both executors average the same blocks.
    """

    size: int | tuple[int, int]

    columns: ClassVar = ("top", "left", "height", "width", "level")
    geometric: ClassVar = True
    pixels: ClassVar = ("top", "left", "height", "width")
    floats: ClassVar = True

    def __post_init__(self) -> None:
        pair = checked_pair("Resize", self.size)
        freeze(self, size=pair if hasattr(self.size, "__len__") else pair[0])

    def target(self, height: Any, width: Any) -> tuple[Any, Any]:
        """The (height, width) that an image of this height and width gets."""
        if not isinstance(self.size, int):
            return self.size
        short = np.minimum(height, width)
        out = np.asarray(height) * self.size // short, np.asarray(width) * self.size // short
        return out if np.ndim(height) else (int(out[0]), int(out[1]))

    @property
    def enough(self) -> int | None:
        """The shorter side that it makes; None where it makes a free height and width."""
        return self.size if isinstance(self.size, int) else None

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Nothing is drawn; the columns follow from the image's size."""
        out_height, out_width = self.target(height, width)
        zero = height * 0
        return arithmetic.snap((zero, zero, height, width), (out_height, out_width)), out_height, out_width


@dataclasses.dataclass(frozen=True, repr=False)
class RandomCrop(Op):
    """A box of ``size`` at an even-drawn place, pixels untouched, any dtype."""

    size: int | tuple[int, int]

    columns: ClassVar = ("top", "left")
    geometric: ClassVar = True
    pixels: ClassVar = ("top", "left")
    draws: ClassVar = 2
    any_dtype: ClassVar = True

    def __post_init__(self) -> None:
        freeze(self, size=checked_size("RandomCrop", self.size))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the corner."""
        size = arithmetic.pair(self.size)
        require_at_least("RandomCrop", size, height, width)
        return (whole(u[0], height - size[0]), whole(u[1], width - size[1])), *size


@dataclasses.dataclass(frozen=True, repr=False)
class CenterCrop(Op):
    """The box of ``size`` in the middle (rounded towards the top left), pixels untouched, any dtype."""

    size: int | tuple[int, int]

    columns: ClassVar = ("top", "left")
    geometric: ClassVar = True
    pixels: ClassVar = ("top", "left")
    any_dtype: ClassVar = True

    def __post_init__(self) -> None:
        freeze(self, size=checked_size("CenterCrop", self.size))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Nothing is drawn; the corner follows from the image's size."""
        size = arithmetic.pair(self.size)
        require_at_least("CenterCrop", size, height, width)
        return ((height - size[0]) // 2, (width - size[1]) // 2), *size


@dataclasses.dataclass(frozen=True, repr=False)
class HorizontalFlip(Op):
    """Left and right exchanged with probability ``p``; any dtype."""

    p: float = 0.5

    columns: ClassVar = ("flip",)
    geometric: ClassVar = True
    draws: ClassVar = 1
    any_dtype: ClassVar = True

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("HorizontalFlip", self.p))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw whether to flip."""
        return (below(u[0], self.p),), height, width


@dataclasses.dataclass(frozen=True, repr=False)
class Dihedral(Op):
    """One of the eight symmetries of the square, drawn evenly: ``code % 4`` quarter turns, a flip if ``code >= 4``.

    Turns are counter-clockwise (``numpy.rot90``) and come first. Needs a square input; any dtype.
    """

    columns: ClassVar = ("code",)
    geometric: ClassVar = True
    draws: ClassVar = 1
    any_dtype: ClassVar = True

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the symmetry's code, 0 to 7."""
        if anywhere(height != width):
            raise UserError("Dihedral: quarter turns need a square image; put RandomCrop or CenterCrop before it")
        return (whole(u[0], 7),), height, width


def _around_one(op: str, name: str, value: Any) -> Pair:
    """A strength b means factors in [max(0, 1 - b), 1 + b]; a pair is taken as it is."""
    if isinstance(value, int | float):
        if isinstance(value, bool) or not 0 <= value <= 30:
            raise UserError(f"{op}: {name} must be between 0 and 30, got {value!r}")
        return max(0.0, 1.0 - value), 1.0 + value
    return checked_range(op, name, value, 0.0, 31.0)


@dataclasses.dataclass(frozen=True, repr=False)
class ColorJitter(Op):
    """Brightness, contrast, saturation and hue changed by even-drawn factors, all four with probability ``p`` or none.

    Each of the four rounds to whole grey levels and clamps to 0..255 before the next, as torchvision does it; see
    :mod:`selftaught.views.cpu` for how far the two lie apart. With 3 channels they are RGB. With another number C,
    contrast and saturation act towards the mean of all channels and hue does nothing; with C = 1 so does saturation.

    Args:
        brightness: strength b, factors in [max(0, 1 - b), 1 + b], or a pair of factors.
        contrast: likewise.
        saturation: likewise.
        hue: strength h <= 0.5, shifts in [-h, h] turns of the colour circle, or a pair.
        p: probability that any of it happens (default 0.8).
        order: ``"random"`` (default), a new order for each sample, as SimCLR, BYOL and torchvision do; or a fixed order
            of the letters, such as ``"bcsh"``.
    """

    brightness: float | Pair = 0.0
    contrast: float | Pair = 0.0
    saturation: float | Pair = 0.0
    hue: float | Pair = 0.0
    p: float = 0.8
    order: str = "random"

    columns: ClassVar = ("apply", "brightness", "contrast", "saturation", "hue", "order")
    skips: ClassVar = COLOURLESS
    draws: ClassVar = 6

    def __post_init__(self) -> None:
        name = "ColorJitter"
        for factor in ("brightness", "contrast", "saturation"):
            freeze(self, **{factor: _around_one(name, factor, getattr(self, factor))})
        number = isinstance(self.hue, int | float) and not isinstance(self.hue, bool)
        hue = (-self.hue, self.hue) if number else self.hue  # type: ignore[operator]
        freeze(self, hue=checked_range(name, "hue", hue, -0.5, 0.5), p=checked_probability(name, self.p))
        if self.order != "random" and self.order not in ORDERS:
            raise UserError(f"ColorJitter: order must be 'random' or an arrangement of 'bcsh', got {self.order!r}")

    def __repr__(self) -> str:
        spans = ", ".join(
            f"{key}={plain(getattr(self, key))}" for key in ("brightness", "contrast", "saturation", "hue")
        )
        return f"ColorJitter({spans}, p={self.p:.4g}, order={self.order!r})"

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw whether, by how much, and in which order."""
        spans = (arithmetic.pair(span) for span in (self.brightness, self.contrast, self.saturation, self.hue))
        factors = [low + u[place] * (high - low) for place, (low, high) in enumerate(spans, start=1)]
        order = whole(u[5], len(ORDERS) - 1) if self.order == "random" else ORDERS.index(self.order) + 0 * u[5]
        return (below(u[0], self.p), *factors, order), height, width


@dataclasses.dataclass(frozen=True, repr=False)
class Grayscale(Op):
    """All channels replaced by the grey value, with probability ``p`` (RGB: Rec. 601 luma; else the channels' mean)."""

    p: float = 0.2

    columns: ClassVar = ("apply",)
    skips: ClassVar = COLOURLESS
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("Grayscale", self.p))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw whether."""
        return (below(u[0], self.p),), height, width


@dataclasses.dataclass(frozen=True, repr=False)
class GaussianBlur(Op):
    """Gaussian blur with probability ``p``, mirrored at the border (edge pixel not repeated).

    The kernel reaches 3 sigma, is cut at ``kernel_size`` if given, and has weights in 256ths.

    Args:
        p: probability (default 0.5).
        sigma: range of the standard deviation in pixels (default 0.1 to 2), at most 16.
        kernel_size: odd upper bound of the kernel's width, or None.
    """

    p: float = 0.5
    sigma: Pair = (0.1, 2.0)
    kernel_size: int | None = None

    columns: ClassVar = ("apply", "sigma")
    floats: ClassVar = True
    skips: ClassVar = COLOURLESS
    draws: ClassVar = 2

    def __post_init__(self) -> None:
        name = "GaussianBlur"
        freeze(self, p=checked_probability(name, self.p), sigma=checked_range(name, "sigma", self.sigma, 1e-3, 16.0))
        odd = isinstance(self.kernel_size, int) and self.kernel_size >= 3 and self.kernel_size % 2 == 1
        if self.kernel_size is not None and not odd:
            raise UserError(f"GaussianBlur: kernel_size must be odd and at least 3, or None; got {self.kernel_size!r}")

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw whether, and sigma."""
        low, high = self.sigma
        return (below(u[0], self.p), low + u[1] * (high - low)), height, width


@dataclasses.dataclass(frozen=True, repr=False)
class Solarize(Op):
    """Values at or above ``threshold`` inverted (255 - value), with probability ``p``."""

    p: float = 0.2
    threshold: int = 128

    columns: ClassVar = ("apply",)
    skips: ClassVar = COLOURLESS
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("Solarize", self.p))
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int) or not 0 <= self.threshold <= 256:
            raise UserError(f"Solarize: threshold must be a whole number from 0 to 256, got {self.threshold!r}")

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw whether."""
        return (below(u[0], self.p),), height, width
