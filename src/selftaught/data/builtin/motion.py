"""`motion`: generated clips of one coloured shape that moves over a gradient, with its direction and speed known.

Nothing was filmed. The clips are those by which the sheets of CVRL (arXiv 2008.03800) and of the video benchmark
(2504.06153) tell whether a method learns from motion; they say nothing about real videos. With speed=0 they are the
control: what is learnt there comes from a single frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError

__all__ = ["Motion", "open_motion"]

CLASSES = {
    "direction": ["right", "down", "left", "up"],
    "speed": ["slow", "fast"],
    "hue": ["red", "green", "blue"],
}
"""What the clips can be labelled by."""

SHAPES = ("square", "disc")
FAST = 4.0
"""How many times faster the fast clips move, where the label is the speed."""


class _Scene(NamedTuple):
    """What is drawn once for a clip."""

    start: tuple[float, float]
    direction: int
    speed: float
    hue: int
    colour: np.ndarray
    low: float
    high: float


class Motion(Clips):
    """Clips (T, side, side, 3) uint8 on a torus: what leaves on one side comes in on the other."""

    def __init__(
        self, train: int, test: int, frames: int, side: int, speed: float, shape: str, label: str, draw: int
    ) -> None:
        """Args: see `open_motion`."""
        self.name, self.generated, self.rate, self.channels = "motion", True, 25.0, 3
        self.count, self.side, self.speed, self.shape, self.label, self.draw = frames, side, speed, shape, label, draw
        splits = [TRAIN] * train + [TEST] * test
        self._cut([f"{'test' if s == TEST else 'train'}-{i:05d}" for i, s in enumerate(splits)], Cut())
        self.given = np.array(splits, dtype=np.int8)
        scenes = [self.scene(i) for i in range(len(splits))]
        found = {
            "direction": [s.direction for s in scenes],
            "speed": [int(s.speed > speed) for s in scenes],
            "hue": [s.hue for s in scenes],
        }
        self.labels, self.classes = np.array(found[label], dtype=np.int64), CLASSES[label]

    def scene(self, i: int) -> _Scene:
        """The scene of clip i: a function of the options and (draw, i) alone."""
        rng = np.random.default_rng([self.draw, i])
        hue = int(rng.integers(3))
        colour = rng.uniform(20, 90, 3)
        colour[hue] = rng.uniform(190, 255)
        low, high = rng.uniform(20, 90), rng.uniform(130, 220)
        place, direction, fast = rng.uniform(0, self.side, 2), int(rng.integers(4)), bool(rng.integers(2))
        speed = self.speed * (FAST if fast and self.label == "speed" else 1.0)
        return _Scene((float(place[0]), float(place[1])), direction, speed, hue, colour, float(low), float(high))

    def _length(self, k: int) -> int:
        return self.count

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        scene, side = self.scene(k), self.side
        line = np.arange(side) + 0.5
        ground = np.linspace(scene.low, scene.high, side)[:, None, None] * np.ones((1, side, 3))
        step = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][scene.direction]) * scene.speed
        clip = np.empty((len(positions), side, side, 3), dtype=np.uint8)
        for row, t in enumerate(positions.tolist()):
            dx, dy = (_around(line - scene.start[axis] - t * step[axis], side) for axis in (0, 1))
            cover = _cover(dx[None, :], dy[:, None], side / 8, self.shape)[..., None]
            clip[row] = np.rint(ground + cover * (scene.colour - ground))
        return clip

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        options = [self.count, self.side, self.speed, self.shape, self.label, self.draw]
        return digest("motion 1", options, self.given)


def _around(distance: np.ndarray, side: int) -> np.ndarray:
    """The shorter way round."""
    return np.mod(distance + side / 2, side) - side / 2


def _cover(dx: np.ndarray, dy: np.ndarray, half: float, shape: str) -> np.ndarray:
    """Share of each pixel that the shape covers, with an edge one pixel soft."""
    if shape == "disc":
        return np.clip(half + 0.5 - np.hypot(dx, dy), 0, 1)
    return np.clip(half + 0.5 - np.abs(dx), 0, 1) * np.clip(half + 0.5 - np.abs(dy), 0, 1)


def open_motion(
    *,
    train: int = 400,
    test: int = 200,
    frames: int = 64,
    side: int = 32,
    speed: float = 0.5,
    shape: str = "square",
    label: str = "direction",
    draw: int = 0,
) -> Motion:
    """Generated clips of a shape that moves in one of four directions.

    Args:
        train: clips for training.
        test: clips for testing.
        frames: of a clip.
        side: of the frames, in pixels; the shape is a quarter of it wide.
        speed: pixels from one frame to the next; 0 stands still. Where the label is the speed, half of the clips move
            four times as fast.
        shape: square or disc.
        label: what the classes are: direction (right, down, left, up), speed (slow, fast) or hue (red, green, blue).
        draw: another number gives other clips.

    Raises:
        UserError: a number out of its range.
    """
    least = {"train": (train, 1), "test": (test, 0), "frames": (frames, 1), "side": (side, 16), "draw": (draw, 0)}
    at_least("motion", least)
    if speed < 0:
        raise UserError(f"motion: speed={speed:g} must be 0 or more")
    if shape not in SHAPES or label not in CLASSES:
        raise UserError(f"motion: shape={shape} may be {', '.join(SHAPES)}, label={label} {', '.join(CLASSES)}")
    return Motion(train, test, frames, side, speed, shape, label, draw)


ENTRIES = (
    Entry(
        "motion",
        "clip",
        "a coloured shape that moves in one of four directions, GENERATED by the program, 32x32, 400 + 200",
        "selftaught itself",
        open_motion,
    ),
)
