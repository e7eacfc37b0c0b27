"""`shapes`: GENERATED pictures of coloured shapes on grey, each with edits that recolour it and their results.

The results serve exact tests and supervised training alone; methods that learn without pairs don't see them.
"""

from __future__ import annotations

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.editing import Edit, Edits
from selftaught.data.source import TEST, TRAIN, Source, digest
from selftaught.errors import SampleError

__all__ = ["ENTRIES", "Shapes", "open_shapes"]

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.12, 0.7, 0.15),
    "blue": (0.15, 0.2, 0.85),
    "yellow": (0.9, 0.85, 0.1),
    "purple": (0.6, 0.15, 0.7),
}
SHAPES = ("circle", "square", "triangle", "cross")


class Shapes(Source):
    """One shape in one colour on a grey ground."""

    def __init__(self, train: int, test: int, side: int, draw: int) -> None:
        """Args: see `open_shapes`."""
        self.name, self.modality, self.channels, self.depth = "shapes", "image", 3, "uint8"
        self.generated = True
        self.side, self.draw = side, draw
        self.names = [f"{part}/{i:05d}.png" for part, n in (("train", train), ("test", test)) for i in range(n)]
        self.given = np.array([TRAIN] * train + [TEST] * test, dtype=np.int8)
        rng = np.random.default_rng([draw, 18])
        self.colours = rng.integers(0, len(COLOURS), len(self.names))
        self.shapes = rng.integers(0, len(SHAPES), len(self.names))

    def caption(self, i: int, further: int = 0) -> str:
        """What a picture shows, its colour so many steps further in the list."""
        return f"a {self.colour(i, further)} {SHAPES[self.shapes[i]]}"

    def colour(self, i: int, further: int = 0) -> str:
        """The name of the colour."""
        return list(COLOURS)[(self.colours[i] + further) % len(COLOURS)]

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One picture (side, side, 3) uint8; see `Source.read`."""
        return self.picture(i)

    def picture(self, i: int, further: int = 0) -> np.ndarray:
        """The same picture with its colour so many steps further in the list.

        Raises:
            SampleError: there is no such picture.
        """
        if not 0 <= i < len(self.names):
            raise SampleError(str(i), "no such picture")
        rng = np.random.default_rng([self.draw, i, 1818])
        u = (np.arange(self.side) + 0.5) / self.side
        cx, cy, r = rng.uniform(0.36, 0.64), rng.uniform(0.36, 0.64), rng.uniform(0.2, 0.32)
        x, y = u[None, :] - cx, u[:, None] - cy
        soft = np.clip((r - _distance(SHAPES[self.shapes[i]], x, y, r)) * self.side + 0.5, 0, 1)[..., None]
        ground = rng.uniform(0.3, 0.75) + rng.uniform(-0.12, 0.12) * (u[:, None] - 0.5) + 0 * u
        tint = np.array(COLOURS[self.colour(i, further)]) + rng.normal(0, 0.03, 3)
        picture = ground[..., None] * (1 - soft) + np.clip(tint, 0, 1) * soft
        return np.rint(255 * np.clip(picture + rng.normal(0, 0.01, picture.shape), 0, 1)).astype(np.uint8)

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("shapes 1", self.side, self.draw, self.given)


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: float) -> np.ndarray:
    """What is below r inside a shape of that size."""
    if shape == "circle":
        return np.hypot(x, y)
    if shape == "square":
        return np.maximum(abs(x), abs(y)) / 0.85
    if shape == "triangle":
        return np.maximum(1.9 * abs(x) - y + 0.1 * r, y * 1.25) * 0.9
    return np.minimum(np.maximum(abs(x), 3 * abs(y)), np.maximum(abs(y), 3 * abs(x)))


def open_shapes(*, train: int = 600, test: int = 100, side: int = 32, draw: int = 0) -> Edits:
    """Generated shapes in five colours, an edit into each of the other four.

    Args:
        train: pictures for training.
        test: pictures for testing.
        side: of the pictures, in pixels.
        draw: another number gives other pictures.

    Raises:
        UserError: a number out of its range.
    """
    at_least("shapes", {"train": (train, 1), "test": (test, 0), "side": (side, 8), "draw": (draw, 0)})
    base = Shapes(train, test, side, draw)
    steps = range(1, len(COLOURS))
    which = [i for i in range(len(base)) for _ in steps]
    further = [k for _ in range(len(base)) for k in steps]
    wanted = [
        Edit(f"make it {base.colour(i, k)}", base.caption(i), base.caption(i, k), "attribute")
        for i, k in zip(which, further, strict=True)
    ]
    return Edits(base, which, wanted, after=Recoloured(train, test, side, draw))


class Recoloured(Shapes):
    """The results of all edits, in the order of the edits."""

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """The picture of edit ``i`` in its new colour."""
        picture, further = divmod(i, len(COLOURS) - 1)
        return self.picture(picture, further + 1)


ENTRIES = (
    Entry(
        "shapes",
        "image",
        "coloured shapes with recolouring instructions, GENERATED by the program, 32x32 RGB, 2,400 + 400 edits",
        "selftaught itself",
        open_shapes,
    ),
)
