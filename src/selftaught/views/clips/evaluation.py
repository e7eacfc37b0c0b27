"""Views to judge with: clips spread evenly over a video, and crops along its longer side. Nothing is drawn."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views import arithmetic
from selftaught.views.clips.sampling import columns_of_frames, frames_of, run_of_frames, set_up
from selftaught.views.clips.temporal import TemporalCrop
from selftaught.views.operation import Drawn, checked_size, freeze, require_at_least
from selftaught.views.spec import CenterCrop

__all__ = ["EvenClips", "SideCrop"]


@dataclasses.dataclass(frozen=True, repr=False)
class EvenClips(TemporalCrop):
    """``clips`` clips that start evenly spaced from the first to the last place of a video, one after the other.

    One clip lies in the middle. A video that is too short goes on from its beginning.

    Raises:
        UserError: frames, stride or clips below 1.
    """

    clips: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        set_up(self, draws=0, least={"clips": 1})

    @property
    def shown(self) -> int:
        """Frames of all clips."""
        return self.clips * self.frames

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Nothing is drawn; the starts follow from the number of frames."""
        length = frames_of(self, shape, kind)
        room = max(length - self.reach, 0)
        shares = (np.arange(self.clips) / (self.clips - 1)) if self.clips > 1 else np.array([0.5])
        starts = np.floor(shares * room + 1e-9).astype(int)
        numbers = [run_of_frames(start, self.frames, self.stride, length) for start in starts.tolist()]
        return columns_of_frames(*numbers), (self.shown, *shape[1:])


@dataclasses.dataclass(frozen=True, repr=False)
class SideCrop(CenterCrop):
    """A box of ``size`` at one end (0), the middle (1) or the other end (2) of the longer side, and in the middle of
    the other.

    Raises:
        UserError: a size or place that makes no sense.
    """

    place: int = 1

    columns: ClassVar = ("top", "left")

    def __post_init__(self) -> None:
        if self.place not in (0, 1, 2):
            raise UserError(f"SideCrop: place is 0, 1 or 2, got {self.place!r}")
        freeze(self, size=checked_size("SideCrop", self.size))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Nothing is drawn; the corner follows from the image's size."""
        size = arithmetic.pair(self.size)
        require_at_least("SideCrop", size, height, width)
        down, right = height - size[0], width - size[1]
        along = np.asarray(height) > np.asarray(width)
        top = np.where(along, down * self.place // 2, down // 2)
        left = np.where(along, right // 2, right * self.place // 2)
        if np.ndim(height):
            return (top, left), *size
        return (int(top), int(left)), *size
