"""What the operations of a view have in common: their contract, their executors, their checks, their ways to draw.

A new operation is a new file: a frozen dataclass that derives from :class:`Op`, and a function per executor::

    @dataclasses.dataclass(frozen=True, repr=False)
    class Invert(Op):
        p: float = 0.5
        columns: ClassVar = ("apply",)
        draws: ClassVar = 1

        def draw(self, u, height, width):
            return (below(u[0], self.p),), height, width

    @executor(Invert, "image")
    def _(x, op, values):                 # (H, W, C), the operation, its own parameters as a list
        return 255 - x if values[0] else x

    @executor(Invert, "image", device=True)
    def _(x, op, values):                 # (N, C, H, W), the operation, (N, columns) array
        ...

An executor may return ``(pixels, facts)``: a dict of what a method needs to know of the operation, named in ``facts``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError

__all__ = [
    "OPS",
    "Op",
    "executor",
]

Pair = tuple[float, float]
Drawn = tuple[tuple[Any, ...], Any, Any]


OPS: dict[str, type[Op]] = {}
"""The operations whose files were imported, by name; each enters when its class is made."""

Executor = Callable[[Any, Any, Any], Any]
_EXECUTORS: dict[tuple[type[Op], str, bool], Executor] = {}

HEIGHT_AXIS = {"image": 0, "mask": 0, "depth": 0, "clip": 1, "volume": 1}
"""Which axis of a sample is its height; the next is its width.

Samples are image (H, W, C), mask and depth (H, W), clip (T, H, W, C), volume (D, H, W, C).
"""

FRAMED = ("clip", "volume")
"""Kinds whose first axis counts frames or slices."""


class Op:
    """One operation of a pipeline: a frozen dataclass of what the user chose.

    A subclass enters :data:`OPS` by its name, and says by class attributes what it is:

    - ``columns``: the names of its parameters; ``draws``: how many uniform numbers it uses for them.
    - ``geometric``: it moves pixels, so views that share a space share its parameters; ``pixels``: those columns that
      are counted in pixels of the grid, and grow with a finer one.
    - ``temporal``: it picks frames, its columns are their numbers; first in its pipeline.
    - ``any_dtype``: it only moves pixels, and so takes any dtype; ``floats``: it takes float32 and float64 images as
      well as uint8. Without either it takes uint8 alone.
    - ``skips``: kinds of fields that it leaves as they are (a mask has no colour to change).
    - ``facts``: names of what its executors report besides the pixels.
    """

    columns: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[int] = 0
    geometric: ClassVar[bool] = False
    temporal: ClassVar[bool] = False
    pixels: ClassVar[tuple[str, ...]] = ()
    any_dtype: ClassVar[bool] = False
    floats: ClassVar[bool] = False
    skips: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        other = OPS.setdefault(cls.__name__, cls)
        if other.__module__ != cls.__module__:
            raise UserError(f"view operation {cls.__name__}: {other.__module__} has one of this name; choose another")
        OPS[cls.__name__] = cls

    def takes_any(self, kind: str) -> bool:
        """Whether samples of this kind may have any dtype: where pixels only move. Masks and depths always do."""
        return self.any_dtype or kind in ("mask", "depth")

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Turn ``draws`` uniform numbers in [0, 1) into ``(columns, height, width)``, the last two after the op."""
        return (), height, width

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """As :meth:`draw`, for one sample of any kind: ``(columns, shape)``, the shape after the operation.

        Raises:
            UserError: a kind without height and width; operations on such kinds define this method.
        """
        at = HEIGHT_AXIS.get(kind)
        if at is None:
            raise UserError(f"{type(self).__name__}: takes {', '.join(HEIGHT_AXIS)}, not {kind}")
        values, height, width = self.draw(u, shape[at], shape[at + 1])
        return values, (*shape[:at], int(height), int(width), *shape[at + 2 :])

    def coarser(self, scale: int) -> Op:
        """The same operation on a grid ``scale`` times coarser: its sizes in pixels divided.

        Raises:
            UserError: a size that ``scale`` doesn't divide.
        """
        if scale == 1 or not hasattr(self, "size"):
            return self
        sides = self.size if isinstance(self.size, tuple) else (self.size,)
        if any(side % scale for side in sides):
            raise UserError(f"{type(self).__name__}: size {self.size} is no multiple of this view's scale {scale}")
        less = tuple(side // scale for side in sides)
        return dataclasses.replace(self, size=less if isinstance(self.size, tuple) else less[0])  # type: ignore[type-var]

    @property
    def enough(self) -> int | None:
        """Shorter side of an image, in pixels, from which on more pixels show nothing new; None: all are needed."""
        return None

    def __repr__(self) -> str:
        shown = []
        for place, field in enumerate(dataclasses.fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is dataclasses.MISSING and place == 0:
                shown.append(plain(value))
            elif value != field.default:
                shown.append(f"{field.name}={plain(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def executor(op: type[Op], *kinds: str, device: bool = False) -> Callable[[Executor], Executor]:
    """Declare a function to be what an operation does to pixels of some kinds.

    Args:
        op: the operation; what derives from it inherits the function.
        kinds: "image", "mask", "depth", "clip", "volume", or "any" for one that acts on all alike.
        device: False for the CPU's, one sample at a time: ``(array, op, list of its parameters)``; True for the
            device's, batched: ``(tensor, op, (N, columns) array of its parameters)``. Layouts as in :mod:`cpu
            <selftaught.views.cpu>` and :mod:`device <selftaught.views.device>`.

    Without a function of their own, clips and volumes go through that of images frame by frame, masks and depth too
    where pixels only move (``any_dtype``).
    """

    def declare(function: Executor) -> Executor:
        _EXECUTORS.update({(op, kind, device): function for kind in kinds})
        return function

    return declare


def find_executor(op: type[Op], kind: str, device: bool) -> Executor | None:
    """The function declared for an operation, or one that it derives from, and a kind; None where there is none."""
    for base in op.__mro__:
        for name in (kind, "any"):
            if (base, name, device) in _EXECUTORS:
                return _EXECUTORS[base, name, device]
    return None


def plain(value: Any) -> str:
    """A value as a reader writes it, four digits at most."""
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{item:.4g}" for item in value) + ")"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def checked_range(op: str, name: str, value: Any, low: float, high: float) -> Pair:
    """An ordered pair within [low, high], or a clear error."""
    two = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if not two or not all(isinstance(one, Real) and not isinstance(one, bool) for one in value):
        raise UserError(f"{op}: {name} must be two numbers (low, high), got {value!r}")
    pair = (float(value[0]), float(value[1]))
    if not (low <= pair[0] <= pair[1] <= high):
        raise UserError(f"{op}: {name} must satisfy {low:g} <= low <= high <= {high:g}, got {value!r}")
    return pair


def checked_probability(op: str, p: Any) -> float:
    """A number in [0, 1], or a clear error."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise UserError(f"{op}: p is a probability between 0 and 1, got {p!r}")
    return float(p)


def checked_pair(op: str, size: Any) -> tuple[int, int]:
    """(height, width) in pixels; one number means a square."""
    pair = (size, size) if isinstance(size, Integral) else tuple(size) if isinstance(size, Sequence) else ()
    whole = [isinstance(side, Integral) and not isinstance(side, bool) and int(side) >= 1 for side in pair]
    if len(pair) != 2 or not all(whole):
        raise UserError(f"{op}: size must be a positive number of pixels or (height, width), got {size!r}")
    return int(pair[0]), int(pair[1])


def checked_size(op: str, size: Any) -> int | tuple[int, int]:
    """A checked size, written as one number when it is square."""
    height, width = checked_pair(op, size)
    return height if height == width else (height, width)


def freeze(op: Op, **values: Any) -> None:
    """Set checked values on an operation that is being made."""
    for name, value in values.items():
        object.__setattr__(op, name, value)


def require_at_least(op: str, size: tuple[int, int], height: Any, width: Any) -> None:
    """Refuse images smaller than the crop, naming the first one's size."""
    small = (height < size[0]) | (width < size[1])
    if anywhere(small):
        at = int(np.argmax(small))
        shape, crop = f"{np.atleast_1d(height)[at]}x{np.atleast_1d(width)[at]}", f"{size[0]}x{size[1]}"
        raise UserError(
            f"{op}: the image is {shape}, smaller than the crop {crop}; take a smaller size or resize first"
        )


def anywhere(flag: Any) -> bool:
    """Whether a flag, or any of a batch's, is set."""
    return bool(flag.any() if isinstance(flag, np.ndarray) else flag)


def batched(u: Any) -> bool:
    """Whether uniform numbers came for a batch."""
    return isinstance(u, np.ndarray)


def below(u: Any, p: float) -> Any:
    """1.0 where the uniform number falls below p."""
    return (u < p).astype(np.float64) if isinstance(u, np.ndarray) else float(u < p)


def whole(u: Any, room: Any) -> Any:
    """A whole number drawn evenly from 0..room."""
    return np.floor(u * (room + 1)) if isinstance(u, np.ndarray) else math.floor(u * (room + 1))
