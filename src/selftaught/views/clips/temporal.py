"""Which frames of a clip are looked at."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.operation import FRAMED, Drawn, Op, executor, freeze

__all__ = ["TemporalCrop"]


@dataclasses.dataclass(frozen=True, repr=False)
class TemporalCrop(Op):
    """A stretch of ``frames`` frames, ``stride`` apart, from an even-drawn start.

    Where the clip is too short for that stride, the stretch is the whole clip and frames are picked evenly from it:
    frame i is number floor((i + 1/2) T / frames), so that short clips repeat frames. Its columns are the frame numbers.
    Put first in a view of a field, it is drawn before the clip is decoded (:meth:`selftaught.views.Recipe.frames`).

    Args:
        frames: how many frames come out.
        stride: frames from one to the next (default 1).
        jitter: each frame moves by its own even-drawn 0..stride - 1 frames within its stride (default False).

    Raises:
        UserError: frames or stride below 1.
    """

    frames: int
    stride: int = 1
    jitter: bool = False

    geometric: ClassVar = True
    temporal: ClassVar = True
    any_dtype: ClassVar = True

    def __post_init__(self) -> None:
        for name in ("frames", "stride"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"TemporalCrop: {name} is a whole number of frames, 1 or more, got {value!r}")
        columns = tuple(f"frame {i + 1}" for i in range(self.frames))
        freeze(self, columns=columns, draws=1 + self.frames if self.jitter else 1)

    @property
    def reach(self) -> int:
        """How many frames of a clip the stretch covers."""
        return self.frames * self.stride if self.jitter else (self.frames - 1) * self.stride + 1

    @property
    def shown(self) -> int:
        """How many frames come out; so many of the columns, the first ones, are frame numbers."""
        return self.frames

    def indices(self, params: Any) -> np.ndarray:
        """The frame numbers (..., shown) int64 that parameters stand for."""
        return np.asarray(params, np.float64)[..., : self.shown].astype(np.int64)

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Refuse: the number of frames is needed.

        Raises:
            UserError: always.
        """
        raise UserError("TemporalCrop: needs the number of frames; draw with Pipeline.sample_shape(rng, shape, 'clip')")

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Draw the start, and each frame's jitter; ``shape`` begins with the number of frames."""
        if kind not in FRAMED:
            raise UserError(f"{type(self).__name__}: picks frames of a clip, not of a field of kind {kind!r}")
        count, room = shape[0], shape[0] - self.reach
        if room < 0:
            numbers = (2 * np.arange(self.frames) + 1) * count // (2 * self.frames)
        else:
            numbers = int(u[0] * (room + 1)) + self.stride * np.arange(self.frames)
            if self.jitter:
                numbers = numbers + (np.asarray(u[1:]) * self.stride).astype(np.int64)
        return tuple(map(float, numbers)), (self.frames, *shape[1:])


@executor(TemporalCrop, *FRAMED)
def _pick(x: np.ndarray, op: TemporalCrop, values: list[float]) -> np.ndarray:
    numbers = op.indices(values)
    _check(numbers, len(x))
    if len(numbers) == numbers[-1] - numbers[0] + 1 and (np.diff(numbers) == 1).all():
        return x[numbers[0] : numbers[-1] + 1]  # one stretch: no copy
    return x[numbers]


@executor(TemporalCrop, *FRAMED, device=True)
def _pick_batch(x: Any, op: TemporalCrop, values: np.ndarray) -> Any:
    import torch

    numbers = op.indices(values)
    _check(numbers, x.shape[2])
    at = torch.from_numpy(numbers).to(x.device)[:, None, :, None, None]
    return x.gather(2, at.expand(-1, x.shape[1], -1, *x.shape[3:]))


def _check(numbers: np.ndarray, count: int) -> None:
    if numbers.min() < 0 or numbers.max() >= count:
        raise UserError(f"TemporalCrop: frame {numbers.max()} of a clip of {count}; draw for the clip's own length")
