"""`ultrasound`: generated clips that look like echocardiograms, with what beats in them known exactly.

No patient was recorded: the program draws a beating heart in the fan of an ultrasound probe, with its speckle. The
clips serve to see whether a method for such videos learns (DISCOVR, arXiv 2506.11777); they say nothing about real
hearts.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError

__all__ = ["Ultrasound", "contraction", "open_ultrasound"]

CLASSES = {"rate": ["slow", "fast"], "ejection": ["reduced", "normal"]}
"""What the clips can be labelled by; an ejection fraction below 45 % is reduced."""

_REDUCED = 0.45
_RATES = ((0.8, 1.1), (1.6, 2.2))
_SYSTOLE = 0.35
_FAN = np.deg2rad(42.0)


class _Heart(NamedTuple):
    """What is drawn once for a clip; lengths are shares of the picture's side."""

    rate: float
    ejected: float
    phase: float
    centre: tuple[float, float]
    axes: tuple[float, float]
    tilt: float
    wall: float
    gain: float


def contraction(phase: np.ndarray) -> np.ndarray:
    """How far the heart is contracted at a phase of the beat (one beat is 1): 0 at its fullest, 1 at its emptiest.

    c = (1 - cos(pi p / s)) / 2 for p < s (systole, s = 0.35), else (1 + cos(pi (p - s) / (1 - s))) / 2.
    """
    p = np.mod(phase, 1.0)
    systole = 0.5 * (1 - np.cos(np.pi * p / _SYSTOLE))
    diastole = 0.5 * (1 + np.cos(np.pi * (p - _SYSTOLE) / (1 - _SYSTOLE)))
    return np.where(p < _SYSTOLE, systole, diastole)


class Ultrasound(Clips):
    """Clips (T, side, side, C) uint8; by rate or by ejection fraction; values: both, as beats a minute and in percent.

    The volume of the left ventricle is V(t) = V_0 (1 - F c(t)), with F the ejection fraction and c of `contraction`;
    all its axes shrink alike, by (V / V_0)^(1/3). Every other property is independent of both.
    """

    def __init__(
        self, train: int, test: int, frames: int, side: int, fps: float, channels: int, draw: int, label: str
    ) -> None:
        """Args: see `open_ultrasound`."""
        self.name, self.generated, self.rate = "ultrasound", True, fps
        self.count, self.side, self.channels, self.draw = frames, side, channels, draw
        splits = [TRAIN] * train + [TEST] * test
        self._cut([f"{'test' if s == TEST else 'train'}-{i:05d}" for i, s in enumerate(splits)], Cut())
        self.given = np.array(splits, dtype=np.int8)
        hearts = [self.heart(i) for i in range(len(splits))]
        classes = [self._fast(i) if label == "rate" else int(h.ejected >= _REDUCED) for i, h in enumerate(hearts)]
        self.labels, self.classes = np.array(classes, dtype=np.int64), CLASSES[label]
        self.values = {
            "heart_rate": np.array([60 * h.rate for h in hearts], dtype=np.float32),
            "ejection_fraction": np.array([100 * h.ejected for h in hearts], dtype=np.float32),
        }

    def _fast(self, i: int) -> int:
        return int(np.random.default_rng([self.draw, i, 0]).integers(2))

    def heart(self, i: int) -> _Heart:
        """The heart of clip i: a function of (draw, i) alone."""
        rng = np.random.default_rng([self.draw, i, 1])
        low, high = _RATES[self._fast(i)]
        long = rng.uniform(0.19, 0.25)
        return _Heart(
            rate=rng.uniform(low, high),
            ejected=rng.uniform(0.2, 0.7),
            phase=rng.uniform(),
            centre=(rng.uniform(0.45, 0.55), rng.uniform(0.40, 0.48)),
            axes=(long, long * rng.uniform(0.5, 0.65)),
            tilt=rng.uniform(-0.35, 0.35),
            wall=rng.uniform(0.035, 0.055),
            gain=rng.uniform(0.75, 1.15),
        )

    def _length(self, k: int) -> int:
        return self.count

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        heart, side = self.heart(k), self.side
        still = _speckle(np.random.default_rng([self.draw, k, 2]), side)
        fan, depth = _fan(side)
        clip = np.empty((len(positions), side, side, self.channels or 1), dtype=np.uint8)
        for row, t in enumerate(positions.tolist()):
            shrink = float(1 - heart.ejected * contraction(np.array(heart.phase + heart.rate * t / (self.rate or 1))))
            flicker = _speckle(np.random.default_rng([self.draw, k, 3, t]), side)
            tissue = _tissue(heart, shrink ** (1 / 3), side) * (0.7 * still + 0.3 * flicker)
            picture = 255 * heart.gain * fan * (tissue * (1.1 - 0.5 * depth) + 0.03 * flicker)
            clip[row] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)[:, :, None]
        return clip

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        options = [len(self), self.count, self.side, self.rate, self.channels, self.draw, self.classes]
        return digest("ultrasound 1", options, self.given)


def open_ultrasound(
    *,
    train: int = 400,
    test: int = 100,
    frames: int = 32,
    side: int = 48,
    fps: float = 16.0,
    channels: int = 1,
    draw: int = 0,
    label: str = "rate",
) -> Ultrasound:
    """Generated clips of beating hearts, as many slow as fast ones on average.

    Args:
        train: clips for training.
        test: clips for testing.
        frames: of a clip.
        side: of the frames, in pixels.
        fps: frames a second.
        channels: 1, or 3 equal ones.
        draw: another number gives other hearts.
        label: what the classes are: rate (slow, fast) or ejection (an ejection fraction below 45 %, and above).

    Raises:
        UserError: a number out of its range.
    """
    least = {"train": (train, 1), "test": (test, 0), "frames": (frames, 1), "side": (side, 16), "draw": (draw, 0)}
    at_least("ultrasound", least)
    if channels not in (1, 3) or fps <= 0:
        raise UserError(f"ultrasound: channels={channels} must be 1 or 3 and fps={fps:g} above 0")
    if label not in CLASSES:
        raise UserError(f"ultrasound: label={label} may be {' or '.join(CLASSES)}")
    return Ultrasound(train, test, frames, side, fps, channels, draw, label)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x to the right and y down, from 0 to 1, of the pixels' middles."""
    line = (np.arange(side, dtype=np.float32) + 0.5) / side
    return np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side))


def _fan(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the probe sees something (1, else 0), and how deep each pixel lies (0 to 1)."""
    x, y = _grid(side)
    depth = np.hypot(x - 0.5, y)
    seen = (np.abs(np.arctan2(x - 0.5, y)) < _FAN) & (depth < 0.98)
    return seen.astype(np.float32), np.minimum(depth, 1)


def _speckle(rng: np.random.Generator, side: int) -> np.ndarray:
    """Rayleigh noise of mean 1, smeared across the beam."""
    parts = rng.standard_normal((2, side, side)).astype(np.float32)
    smeared = [cv2.GaussianBlur(part, (0, 0), sigmaX=side / 40, sigmaY=side / 90) for part in parts]
    noise = np.hypot(*smeared)
    return noise / noise.mean()


def _tissue(heart: _Heart, scale: float, side: int) -> np.ndarray:
    """How strongly each pixel answers: dark blood in a bright wall, the atrium below it, tissue around."""
    x, y = _grid(side)
    dx, dy = x - heart.centre[0], y - heart.centre[1]
    along = dy * np.cos(heart.tilt) + dx * np.sin(heart.tilt)
    across = dx * np.cos(heart.tilt) - dy * np.sin(heart.tilt)
    long, short = (axis * scale for axis in heart.axes)
    thick = heart.wall / scale**2
    blood = np.hypot(along / long, across / short)
    muscle = np.hypot(along / (long + thick), across / (short + thick))
    fill = 1.9 - scale
    atrium = np.hypot((along - heart.axes[0] - 0.13) / (0.11 * fill), across / (0.12 * fill))
    answer = np.full((side, side), 0.38, dtype=np.float32)
    answer = _blend(answer, 0.75, muscle, long)
    answer = _blend(answer, 0.08, atrium, 0.11)
    return _blend(answer, 0.08, blood, long)


def _blend(under: np.ndarray, value: float, radius: np.ndarray, size: float) -> np.ndarray:
    """`value` where the radius is below 1, with an edge soft over a fiftieth of the picture."""
    inside = np.clip(0.5 + (1 - radius) * size * 50, 0, 1)
    return under + inside * (value - under)


ENTRIES = (
    Entry(
        "ultrasound",
        "clip",
        "beating hearts as ultrasound shows them, GENERATED by the program, 48x48 grey, 2 rates, 400 + 100",
        "selftaught itself",
        open_ultrasound,
    ),
)
