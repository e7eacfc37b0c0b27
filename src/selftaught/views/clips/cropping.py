"""Crops of clips: the frames in the middle, and boxes of a few set sizes."""

from __future__ import annotations

import dataclasses
import math
from itertools import product
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views import arithmetic
from selftaught.views.clips.temporal import TemporalCrop
from selftaught.views.operation import Drawn, batched, checked_size, freeze, whole
from selftaught.views.spec import Resize

__all__ = ["MultiScaleCrop", "TemporalCenterCrop"]

_MIDDLE = math.nextafter(0.5, 0)  # of an odd number of leftover frames, the smaller part comes first


@dataclasses.dataclass(frozen=True, repr=False)
class TemporalCenterCrop(TemporalCrop):
    """The ``frames`` frames, ``stride`` apart, in the middle of a clip: :class:`TemporalCrop` without chance.

    Raises:
        UserError: frames or stride below 1, or jitter.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jitter:
            raise UserError("TemporalCenterCrop: draws nothing; use TemporalCrop for jitter")
        freeze(self, draws=0)

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Nothing is drawn; the frames follow from their number in the clip."""
        return super().draw_shape([_MIDDLE], shape, kind)


@dataclasses.dataclass(frozen=True, repr=False)
class MultiScaleCrop(Resize):
    """A box whose sides are set shares of the shorter side, resized to ``size`` (temporal segment networks, Wang et al.
    2016; the one augmentation of VideoMAE's and DISCOVR's pre-training).

    Width and height are drawn together from the pairs of ``scales`` that lie at most ``distort`` places apart; the box
    lies at an even-drawn one of 13 places: corners, middles of the sides, middle, and the four points between. With
    ``fixed=False`` it lies anywhere. One box serves all frames.

    Args:
        size: output side, or (height, width), in pixels.
        scales: shares of the shorter side, in falling order (default 1, 0.875, 0.75, 0.66).
        distort: how many places apart the shares of width and height may lie (default 1).
        fixed: whether boxes lie at the 13 places (default True).

    Raises:
        UserError: no share, one outside (0, 1], or a negative ``distort``.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    distort: int = 1
    fixed: bool = True

    draws: ClassVar = 3

    def __post_init__(self) -> None:
        scales = tuple(float(s) for s in self.scales)
        if not scales or not all(0 < s <= 1 for s in scales):
            raise UserError(f"MultiScaleCrop: scales are shares above 0, up to 1, got {self.scales!r}")
        if isinstance(self.distort, bool) or not isinstance(self.distort, int) or self.distort < 0:
            raise UserError(f"MultiScaleCrop: distort is a whole number, 0 or more, got {self.distort!r}")
        freeze(self, size=checked_size("MultiScaleCrop", self.size), scales=scales)

    def target(self, height: Any, width: Any) -> tuple[int, int]:
        """The (height, width) of the view, whatever the clip's."""
        return arithmetic.pair(self.size)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Shares of (width, height) that can be drawn, each as likely as the others."""
        places = range(len(self.scales))
        return [(self.scales[i], self.scales[j]) for i, j in product(places, places) if abs(i - j) <= self.distort]

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the two shares, then the place."""
        pairs = np.array(self.pairs)
        short = np.minimum(height, width)
        share_w, share_h = pairs[np.asarray(np.floor(u[0] * len(pairs)), dtype=int)].T
        h, w = (self._side(short, share, out) for share, out in zip((share_h, share_w), self.target(0, 0), strict=True))
        room_y, room_x = height - h, width - w
        if self.fixed:
            down, right = _PLACES[np.asarray(np.floor(u[1] * len(_PLACES)), dtype=int)].T
            top, left = down * (room_y // 4), right * (room_x // 4)
        else:
            top, left = whole(u[1], room_y), whole(u[2], room_x)
        box: tuple[Any, ...] = (top, left, h, w)
        if not batched(u):
            box = tuple(int(value) for value in box)
        return arithmetic.snap(box, arithmetic.pair(self.size)), *arithmetic.pair(self.size)

    @staticmethod
    def _side(short: Any, share: Any, out: int) -> Any:
        """A share of the shorter side in whole pixels; the output's side where it lies within 3 pixels of it."""
        side = np.maximum(1, np.floor(short * share + 1e-9))
        return np.where((np.abs(side - out) < 3) & (out <= short), out, side)

    @property
    def enough(self) -> int:
        """The side at which even the smallest box has as many pixels as the view."""
        return math.ceil(max(arithmetic.pair(self.size)) / min(self.scales))


_PLACES = np.array(
    [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
)
"""Where boxes lie, in quarters of the room (down, right)."""
