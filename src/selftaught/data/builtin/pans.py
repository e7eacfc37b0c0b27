"""`pans`: clips that a window makes as it moves over a photograph, now steadily and now not at all.

The camera is a program, the pictures are real. Frames are sharp and the motion of every one is known, so that a clip
blurred by averaging has a truth to compare with, and sharp moments where the window rests or a picture is held.
"""

from __future__ import annotations

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.builtin.photos import PHOTOS, pixels
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError

__all__ = ["Pans", "open_pans"]

DIRECTIONS = ("horizontal", "vertical", "any")
_PERIOD = 49


class Pans(Clips):
    """Clips (frames, side, side, 3) uint8 of windows that move along a line."""

    def __init__(
        self,
        train: int,
        test: int,
        frames: int,
        side: int,
        speed: float,
        rest: int,
        direction: str,
        draw: int,
        hold: int = 0,
    ) -> None:
        """Args: see `open_pans`."""
        self.name, self.generated, self.rate, self.channels = "pans", True, 240.0, 3
        self.count, self.side, self.speed, self.rest = frames, side, speed, rest
        self.direction, self.draw, self.hold = direction, draw, hold
        codes = [TRAIN] * train + [TEST] * test
        self._cut([f"{'test' if c == TEST else 'train'}-{i:04d}" for i, c in enumerate(codes)], Cut())
        self.given = np.array(codes, dtype=np.int8)
        self.photos = {
            code: [k for k, p in enumerate(PHOTOS) if p.held_out == (code == TEST)] for code in (TRAIN, TEST)
        }

    def path(self, i: int) -> tuple[int, np.ndarray]:
        """Photograph and corners (frames, 2) of a clip's window, row and column in whole pixels.

        It moves at ``speed``, and rests for ``rest`` of every 49 frames, from a drawn phase. What is held shows the
        middle of its stretch, which starts at a multiple of ``hold``; the motion goes on meanwhile.
        """
        assert self.given is not None
        rng = np.random.default_rng([self.draw, i])
        number = int(rng.choice(self.photos[int(self.given[i])]))
        height, width = pixels(number).shape[:2]
        angle = {"horizontal": 0.0, "vertical": np.pi / 2, "any": rng.uniform(0, np.pi)}[self.direction]
        phase, sign = int(rng.integers(_PERIOD)), rng.choice([-1.0, 1.0])
        steps = self.speed * ((np.arange(self.count) + phase) % _PERIOD >= self.rest)
        way = sign * np.concatenate(([0.0], np.cumsum(steps)[:-1]))
        moved = np.rint(way[:, None] * (np.sin(angle), np.cos(angle))).astype(np.int64)
        if self.hold:
            frames = np.arange(self.count)
            stretch = frames // self.hold
            middle = np.minimum(stretch * self.hold + self.hold // 2, self.count - 1)
            moved = moved[np.where((stretch + phase) % (_PERIOD // self.hold) == 0, middle, frames)]
        moved -= moved.min(0)
        room = np.array([height, width]) - self.side - moved.max(0)
        if (room < 0).any():
            raise UserError(
                f"pans: {self.count} frames at speed={self.speed:g} leave the photographs; take less of one"
            )
        return number, moved + rng.integers(0, room + 1)

    def _length(self, k: int) -> int:
        return self.count

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        number, corners = self.path(k)
        picture, side = pixels(number), self.side
        return np.stack([picture[y : y + side, x : x + side] for y, x in corners[positions].tolist()])

    def fingerprint(self) -> str:
        """Of the options and the photographs."""
        options = [self.count, self.side, self.speed, self.rest, self.direction, self.draw]
        options += [self.hold] if self.hold else []
        return digest("pans 1", options, self.given, *[digest(pixels(k)) for k in range(len(PHOTOS))])


def open_pans(
    *,
    train: int = 60,
    test: int = 12,
    frames: int = 180,
    side: int = 96,
    speed: float = 1.0,
    rest: int = 10,
    direction: str = "any",
    draw: int = 0,
    hold: int = 0,
) -> Pans:
    """Sharp clips of a window that moves over photographs, those to test with over other photographs.

    Args:
        train: clips for training.
        test: clips for testing.
        frames: of a clip.
        side: of the frames in pixels.
        speed: pixels from one frame to the next while it moves.
        rest: frames of every 49 in which it stands still.
        direction: horizontal, vertical or any.
        draw: another number gives other clips.
        hold: frames on end that show one and the same picture while the motion goes on, in one of every 49 // hold
            stretches of that length: averaged over these, an exposure is sharp as with a short shutter, and as far from
            those before and after as any other. 0: none.

    Raises:
        UserError: a number out of its range, or a path that is longer than the photographs.
    """
    least = {"train": (train, 1), "test": (test, 0), "frames": (frames, 1), "side": (side, 16), "draw": (draw, 0)}
    at_least("pans", least)
    if not 0 <= rest <= _PERIOD:
        raise UserError(f"pans: rest={rest} must be from 0 to {_PERIOD}")
    if not 0 <= hold <= _PERIOD:
        raise UserError(f"pans: hold={hold} must be from 0 to {_PERIOD}")
    if speed < 0 or direction not in DIRECTIONS:
        raise UserError(f"pans: speed={speed:g} must be 0 or more, direction={direction} {', '.join(DIRECTIONS)}")
    return Pans(train, test, frames, side, speed, rest, direction, draw, hold)


ENTRIES = (
    Entry(
        "pans",
        "clip",
        "clips of a window that moves over photographs: sharp, their motion known",
        "scikit-image and scikit-learn",
        open_pans,
        tuple((photo.package, photo.file) for photo in PHOTOS),
    ),
)
