"""`bscans`: GENERATED slices that look like optical coherence tomography of a retina, each with a short report.

No patient was recorded. The program draws the layers, and in some slices drusen (bumps under the bright lowest layer)
or fluid (dark blisters); the report says what, how large and where. They serve to see whether a method for images and
reports learns (RetFiner, arXiv 2506.22149); they say nothing about real eyes.
"""

from __future__ import annotations

import cv2
import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.combining.captioned import Captioned
from selftaught.data.source import TEST, TRAIN, Source, digest
from selftaught.errors import SampleError

__all__ = ["ENTRIES", "BScans", "open_bscans"]

FINDINGS = ("normal", "drusen", "fluid")
SIZES = ("small", "large")
PLACES = ("left", "central", "right")


class BScans(Source):
    """Slices (side, side, 1) uint8; sample i is a function of (draw, i) alone."""

    def __init__(self, train: int, test: int, side: int, draw: int) -> None:
        """Args: see `open_bscans`."""
        self.name, self.modality, self.channels, self.depth = "bscans", "image", 1, "uint8"
        self.generated, self.side, self.draw = True, side, draw
        self.given = np.array([TRAIN] * train + [TEST] * test, dtype=np.int8)
        self.names = [f"{'test' if s == TEST else 'train'}-{i:05d}" for i, s in enumerate(self.given.tolist())]
        rng = np.random.default_rng([draw, 11])
        self.labels = rng.integers(len(FINDINGS), size=len(self.names)).astype(np.int64)
        self.classes = list(FINDINGS)
        self._sizes = rng.integers(len(SIZES), size=len(self.names))
        self._places = rng.integers(len(PLACES), size=len(self.names))

    def report(self, i: int) -> str:
        """What a reader would write of one slice."""
        finding = FINDINGS[int(self.labels[i])]  # type: ignore[index]
        if finding == "normal":
            return "no drusen, no fluid, regular layers"
        size, place = SIZES[int(self._sizes[i])], PLACES[int(self._places[i])]
        other = "no fluid" if finding == "drusen" else "no drusen"
        return f"{size} {finding}, {place}, {other}"

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One slice; see `Source.read`."""
        if not 0 <= i < len(self.names):
            raise SampleError(str(i), "no such slice")
        rng = np.random.default_rng([self.draw, i, 13])
        finding = FINDINGS[int(self.labels[i])]  # type: ignore[index]
        place = (-0.5, 0.0, 0.5)[int(self._places[i])] + rng.uniform(-0.08, 0.08)
        return _slice(rng, finding, float((0.6, 1.2)[int(self._sizes[i])]), place, self.side)

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("bscans 1", self.side, self.draw, self.given, self.labels)


def open_bscans(*, train: int = 1200, test: int = 400, side: int = 64, draw: int = 0) -> Captioned:
    """Generated slices of a retina with reports, three classes.

    Args:
        train: slices for training.
        test: slices for testing.
        side: of the slices, in pixels.
        draw: another number gives other eyes.

    Raises:
        UserError: a number out of its range.
    """
    at_least("bscans", {"train": (train, 1), "test": (test, 0), "side": (side, 32), "draw": (draw, 0)})
    source = BScans(train, test, side, draw)
    return Captioned(source, [[source.report(i)] for i in range(len(source))])


def _slice(rng: np.random.Generator, finding: str, size: float, place: float, side: int) -> np.ndarray:
    """Vitreous, layers of the retina, the bright lowest layer, choroid; speckle over all."""
    x = np.linspace(-1, 1, side, dtype=np.float32)
    y = np.linspace(0, 1, side, dtype=np.float32)[:, None]
    tilt, shift = rng.uniform(-0.05, 0.05), rng.uniform(-0.06, 0.06)
    bottom = 0.66 + shift + tilt * x + 0.05 * x**2
    pit = rng.uniform(0.05, 0.1) * np.exp(-((x / 0.28) ** 2))
    top = bottom - rng.uniform(0.26, 0.32) + pit
    if finding == "drusen":
        for offset in (-0.14, 0.0, 0.14):
            bottom = bottom - 0.05 * size * np.exp(-(((x - place - offset) / 0.055) ** 2))
    depth = (y - top) / np.maximum(bottom - top, 1e-3)
    layers = 0.42 + 0.12 * np.sin(2 * np.pi * (3 * depth + rng.uniform()))
    picture = np.where(y < top, 0.07, np.where(y < bottom, layers, 0.5 * np.exp(-(y - bottom) / 0.14)))
    picture = picture + 0.5 * np.exp(-(((y - bottom) / 0.018) ** 2))
    if finding == "fluid":
        middle = 0.5 * (top + bottom)[np.abs(x - place).argmin()]
        radius = np.hypot((x - place) / (0.2 * size), (y - middle) / (0.075 * size))
        inside = np.clip((1.05 - radius) * 8, 0, 1)
        picture = picture * (1 - inside) + 0.06 * inside
    noise = cv2.GaussianBlur(rng.gamma(4.0, 0.25, (side, side)).astype(np.float32), (0, 0), 0.6)
    grey = 255 * np.clip(picture * (0.55 + 0.45 * noise) * rng.uniform(0.85, 1.15), 0, 1)
    return np.rint(grey).astype(np.uint8)[..., None]


ENTRIES = (
    Entry(
        "bscans",
        "image",
        "slices of a retina with reports, GENERATED by the program, 64x64 grey, 3 classes, 1,200 + 400",
        "selftaught itself",
        open_bscans,
    ),
)
