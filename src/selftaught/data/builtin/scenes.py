"""`scenes`: GENERATED pictures of one coloured shape somewhere, with a caption that says it: "a red square top left".

They need nothing but the program, and everything about them is known: a toy to see whether image and text learn each
other, which classes of a kind are new to a model, and how it bears another style of picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.combining.captioned import Captioned
from selftaught.data.source import TEST, TRAIN, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["ENTRIES", "Scenes", "open_scenes"]

COLOURS = {
    "red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "yellow": (235, 200, 40),
    "purple": (150, 60, 190), "orange": (240, 130, 30), "white": (245, 245, 245), "black": (20, 20, 20),
}  # fmt: skip
SHAPES = ("square", "circle", "triangle", "cross", "ring", "bar")
PLACES = {"top left": (0.3, 0.3), "top right": (0.7, 0.3), "bottom left": (0.3, 0.7), "bottom right": (0.7, 0.7)}
STYLES = ("plain", "sketch", "night", "noisy")
LABELS = ("object", "colour", "shape", "place", "caption")


class Scenes(Source):
    """Pictures (side, side, 3) uint8; sample i is a function of (draw, i) alone."""

    def __init__(self, train: int, test: int, side: int, colours: int, shapes: int, style: str, draw: int) -> None:
        """Args: see `open_scenes`."""
        self.name, self.modality, self.channels, self.depth = "scenes", "image", 3, "uint8"
        self.generated, self.side, self.style, self.draw = True, side, style, draw
        self.given = np.array([TRAIN] * train + [TEST] * test, dtype=np.int8)
        self.names = [f"{'test' if s == TEST else 'train'}-{i:05d}" for i, s in enumerate(self.given.tolist())]
        rng = np.random.default_rng([draw, colours, shapes])
        sizes = {"colour": colours, "shape": shapes, "place": len(PLACES)}
        self.parts = {part: rng.integers(count, size=len(self.names)) for part, count in sizes.items()}

    def words(self, i: int) -> tuple[str, str, str]:
        """Colour, shape and place of one picture."""
        names = (list(COLOURS), SHAPES, list(PLACES))
        colour, shape, place = (names[k][int(rows[i])] for k, rows in enumerate(self.parts.values()))
        return colour, shape, place

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One picture; see `Source.read`."""
        if not 0 <= i < len(self.names):
            raise SampleError(str(i), "no such scene")
        return _scene(np.random.default_rng([self.draw, i, 7]), *self.words(i), self.side, self.style)

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("scenes 1", self.side, self.style, self.draw, self.given, self.labels, *self.parts.values())


def open_scenes(
    *,
    train: int = 2000,
    test: int = 500,
    side: int = 32,
    colours: int = 4,
    shapes: int = 2,
    captions: int = 1,
    label: str = "object",
    style: str = "plain",
    draw: int = 0,
) -> Captioned:
    """Generated pictures with captions; 32 distinct captions by default.

    Args:
        train: pictures for training.
        test: pictures for testing.
        side: of the pictures, in pixels.
        colours: how many of red, green, blue, yellow, purple, orange, white, black.
        shapes: how many of square, circle, triangle, cross, ring, bar.
        captions: of a picture, in words of their own: 1 or 2.
        label: what the classes are: object (a red square), colour, shape, place, or the whole caption.
        style: plain, sketch (outlines on white), night (dark) or noisy: the same scenes in another domain.
        draw: another number gives other scenes.

    Raises:
        UserError: a number or a word out of its range.
    """
    limits = {
        "train": (train, 1, 10**7), "test": (test, 0, 10**7), "side": (side, 16, 512), "draw": (draw, 0, 10**9),
        "colours": (colours, 1, len(COLOURS)), "shapes": (shapes, 1, len(SHAPES)), "captions": (captions, 1, 2),
    }  # fmt: skip
    for option, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise UserError(f"scenes: {option}={value} may be from {low} to {high}")
    if label not in LABELS or style not in STYLES:
        raise UserError(f"scenes: label={label} may be {', '.join(LABELS)}; style={style} may be {', '.join(STYLES)}")
    source = Scenes(train, test, side, colours, shapes, style, draw)
    said = [source.words(i) for i in range(len(source))]
    named = [_called(label, *words) for words in said]
    source.classes = sorted(set(named), key=_order)
    source.labels = np.array([source.classes.index(one) for one in named], dtype=np.int64)
    return Captioned(source, [_captions(*words)[:captions] for words in said])


def _captions(colour: str, shape: str, place: str) -> list[str]:
    article = "an" if colour[0] in "aeiou" else "a"
    return [f"{article} {colour} {shape} {place}", f"{place} there is {article} {colour} {shape}"]


def _called(label: str, colour: str, shape: str, place: str) -> str:
    caption = _captions(colour, shape, place)[0]
    return {"object": f"{colour} {shape}", "colour": colour, "shape": shape, "place": place, "caption": caption}[label]


def _order(name: str) -> tuple[str, ...]:
    """Classes sorted by shape first, so that the halves of the list share their colours."""
    return tuple(reversed(name.split()))


def _scene(rng: np.random.Generator, colour: str, shape: str, place: str, side: int, style: str) -> np.ndarray:
    """One scene, drawn four times as large and then averaged."""
    big = 4 * side
    paint = np.clip(np.array(COLOURS[colour]) + rng.normal(0, 12, 3), 0, 255)
    ground = rng.uniform(90, 190, 3)
    x, y = (PLACES[place][k] + rng.uniform(-0.07, 0.07) for k in range(2))
    radius, angle = rng.uniform(0.13, 0.2) * big, rng.uniform(-0.4, 0.4)
    mask = _mask(shape, big, (x * big, y * big), radius, angle)
    if style == "sketch":
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((big // 24, big // 24), np.uint8))
        mask, ground = edge, np.full(3, 250.0)
    share = mask[..., None] / 255.0
    picture = share * paint + (1 - share) * ground
    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    if style == "night":
        small = small * 0.3
    sigma = 40.0 if style == "noisy" else 6.0
    return np.clip(np.rint(small + rng.normal(0, sigma, small.shape)), 0, 255).astype(np.uint8)


def _mask(shape: str, big: int, centre: tuple[float, float], radius: float, angle: float) -> np.ndarray:
    mask = np.zeros((big, big), np.uint8)
    middle = (round(centre[0]), round(centre[1]))
    if shape in ("circle", "ring"):
        cv2.circle(mask, middle, round(radius), 255, -1)
        if shape == "ring":
            cv2.circle(mask, middle, round(0.55 * radius), 0, -1)
        return mask
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for outline in _OUTLINES[shape]:
        points = np.array(outline) * radius @ turn.T + np.array(centre)
        cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    return mask


def _box(width: float, height: float) -> list[tuple[float, float]]:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


_OUTLINES = {
    "square": [_box(0.9, 0.9)],
    "triangle": [[(0.0, -1.1), (1.0, 0.8), (-1.0, 0.8)]],
    "cross": [_box(1.1, 0.33), _box(0.33, 1.1)],
    "bar": [_box(1.2, 0.35)],
}

ENTRIES = (
    Entry(
        "scenes",
        "image",
        "coloured shapes with captions, GENERATED by the program, 32x32 RGB, 2,000 + 500",
        "selftaught itself",
        open_scenes,
    ),
)
