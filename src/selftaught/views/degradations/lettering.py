"""Text drawn on pictures in a style of 18 decisions, and the mask of where it is (STE, arXiv 2204.12743)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np

from selftaught._reading import text_of
from selftaught.errors import UserError
from selftaught.views.degradations import _glyphs
from selftaught.views.degradations._glyphs import font_files
from selftaught.views.degradations._normals import SEEDS
from selftaught.views.operation import Drawn, Op, checked_range, executor, freeze

__all__ = ["STYLE_DECISIONS", "DrawText", "LetterStyle", "erasure_mask", "font_files", "letter", "mask_boxes"]

STYLE_DECISIONS = {
    "mechanism": 2, "font": 12, "colour": 3, "size": 3, "blur": 4, "blend": 2, "italic": 2, "curve": 2, "art": 2,
    "stroke": 2, "stroke_width": 4, "stroke_colour": 3, "shadow": 2, "shadow_angle": 8, "shadow_distance": 4,
    "shadow_colour": 3, "shadow_blur": 5, "shadow_alpha": 5,
}  # fmt: skip
"""Decision -> options, in the policy's order."""

_SIZES, _BLURS = (0.11, 0.17, 0.26), (0.0, 0.6, 1.0, 1.5)
_ALPHAS = (0.3, 0.45, 0.6, 0.75, 0.9)
_SMALLEST, _TRIES = 8, 20
_THRESHOLD, _LEAST = 20 / 255, 20


@dataclasses.dataclass(frozen=True)
class LetterStyle:
    """One option of each decision, from 0 on.

    Attributes:
        mechanism: 0 copies letters that the picture has, 1 sets a word in a font.
        font: a twelfth of the fonts.
        colour: of the picture and far from the place's, any of the picture, black or white.
        size: small, middle, large: 0.11, 0.17, 0.26 of the picture's shorter side, give or take a fifth.
        blur: Gaussian of 0, 0.6, 1, 1.5 pixels.
        blend: 1 keeps the picture's gradients where they are larger (Poisson blending).
        italic: 1 slants.
        curve: 1 bends.
        art: 1 lets the outline and the shadow be.
        stroke: 1 draws an outline.
        stroke_width: 1 to 4 parts of 32 of the height.
        stroke_colour: black, white, of the picture.
        shadow: 1 casts one.
        shadow_angle: times 45 degrees.
        shadow_distance: 1 to 4 parts of 24 of the height.
        shadow_colour: black, white, of the picture.
        shadow_blur: 0 to 4 parts of 48 of the height.
        shadow_alpha: 0.3 to 0.9.
    """

    mechanism: int = 1
    font: int = 0
    colour: int = 0
    size: int = 1
    blur: int = 0
    blend: int = 0
    italic: int = 0
    curve: int = 0
    art: int = 0
    stroke: int = 0
    stroke_width: int = 0
    stroke_colour: int = 0
    shadow: int = 0
    shadow_angle: int = 0
    shadow_distance: int = 0
    shadow_colour: int = 0
    shadow_blur: int = 0
    shadow_alpha: int = 0

    @classmethod
    def of(cls, actions: Sequence[int] | np.ndarray) -> LetterStyle:
        """The style of 18 numbers.

        Raises:
            UserError: another count, or an option that there isn't.
        """
        numbers = [int(a) for a in actions]
        fits = len(numbers) == len(STYLE_DECISIONS)
        if not fits or not all(0 <= a < n for a, n in zip(numbers, STYLE_DECISIONS.values(), strict=True)):
            raise UserError(f"a style has an option for each of {STYLE_DECISIONS}, got {numbers}")
        return cls(*numbers)

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> LetterStyle:
        """Every decision evenly at random."""
        return cls(*(int(rng.integers(n)) for n in STYLE_DECISIONS.values()))


def erasure_mask(
    x: np.ndarray, g: np.ndarray, *, threshold: float = _THRESHOLD, least: int = _LEAST, kind: str = "rect"
) -> np.ndarray:
    """m: 0 where text was drawn, 1 elsewhere.

    Where the grey values of x and g differ by more than the threshold; the bounding rectangles of what is connected, of
    more than ``least`` pixels; then the ones are eroded by 3x3.

    Args:
        x: (H, W, C) with text, uint8 or float in [0, 1].
        g: without.
        threshold: of 1.
        least: smallest area of a rectangle in pixels.
        kind: "rect", or "pixel": what differs itself.

    Returns:
        (H, W) uint8.

    Raises:
        UserError: other sizes, or no such kind.
    """
    if x.shape != g.shape or x.ndim != 3 or kind not in ("rect", "pixel"):
        raise UserError(f"erasure_mask: pictures {x.shape} and {g.shape} of one size, kind {kind} rect or pixel")
    off = np.abs(_unit(x) - _unit(g)).mean(2)
    changed = (off > threshold).astype(np.uint8)
    mask = 1 - changed
    if kind == "rect":
        mask[:] = 1
        contours, _ = cv2.findContours(changed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for contour in contours:
            left, top, width, height = cv2.boundingRect(contour)
            if width * height > least:
                mask[top : top + height, left : left + width] = 0
    return cv2.erode(mask, np.ones((3, 3), np.uint8)).astype(np.uint8)


def mask_boxes(mask: np.ndarray) -> np.ndarray:
    """Connected regions of 0 in a mask (H, W) as rectangles (K, 4) int: left, top, right, bottom (behind the last)."""
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask == 0).astype(np.uint8))
    left, top, width, height = stats[1:, :4].T.astype(np.int64)
    return np.stack([left, top, left + width, top + height], 1)


def letter(
    image: np.ndarray,
    rng: np.random.Generator | int,
    style: LetterStyle | Sequence[int] | np.ndarray | None = None,
    *,
    count: int = 1,
    fonts: str = "",
    words: Sequence[str] = (),
    taken: np.ndarray | None = None,
    kind: str = "rect",
) -> tuple[np.ndarray, np.ndarray]:
    """Text drawn on a picture, and its mask.

    Where the mask is 1 the result equals the picture: what lies outside (a shadow's end) is taken back. A word finds
    its place beside ``taken`` and beside the others, or isn't drawn; copies fail where there are no letters to copy.

    Args:
        image: (H, W, C), uint8 or float in [0, 1].
        rng: generator or seed; of words, places and colours.
        style: of all words; None: drawn evenly for each, copies only where the picture has letters.
        count: words.
        fonts: folder; "" for matplotlib's.
        words: to choose from; none: some of ours.
        taken: (H, W), 0 where the picture has text of its own.
        kind: of the mask, see :func:`erasure_mask`.

    Returns:
        (H, W, C) of the image's type, and (H, W) uint8, 0 on drawn text.
    """
    rng = np.random.default_rng(rng)
    if style is not None and not isinstance(style, LetterStyle):
        style = LetterStyle.of(style)
    unit = _unit(image)
    made = unit.copy()
    own = np.ones(image.shape[:2], np.uint8) if taken is None else (np.asarray(taken) != 0).astype(np.uint8)
    free = own.copy()
    for _ in range(count):
        one = LetterStyle.drawn(rng) if style is None else style
        if style is None and own.all():
            one = dataclasses.replace(one, mechanism=1)
        found = _glyphs_of(unit, rng, one, fonts, words or _glyphs.WORDS, own)
        if found is None:
            continue
        cover, colours = found
        place = _place(free, (cover.shape[0], cover.shape[1]), rng)
        if place is None:
            continue
        top, left = place
        free[top : top + cover.shape[0], left : left + cover.shape[1]] = 0
        _paint(made, cover, (top, left), one, rng, colours)
    changed = erasure_mask(made, unit, kind=kind)
    made = np.where(changed[:, :, None] == 0, made, unit)
    return _as(made, image, changed), changed


def _unit(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image.astype(np.float32)


def _as(made: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Back in the picture's type, its own pixels where the mask is 1."""
    made = np.clip(made, 0, 1)
    back = np.rint(made * 255).astype(np.uint8) if image.dtype == np.uint8 else made.astype(image.dtype)
    return np.where(mask[:, :, None] == 0, back, image)


def _glyphs_of(
    image: np.ndarray, rng: np.random.Generator, style: LetterStyle, fonts: str, words: Sequence[str], own: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Coverage (h, w) of a word, and its colours where it is a copy; None: nothing to draw."""
    if style.mechanism == 0:
        boxes = mask_boxes(own)
        if not len(boxes):
            return None
        left, top, right, bottom = boxes[int(rng.integers(len(boxes)))].tolist()
        return _glyphs.copied(image, (top, left, bottom, right))
    files = font_files(fonts)
    group = files[style.font % len(files) :: STYLE_DECISIONS["font"]]
    font = group[int(rng.integers(len(group)))]
    text = words[int(rng.integers(len(words)))]
    text = (text, text.upper(), text.title())[int(rng.integers(3))]
    height, width = image.shape[:2]
    pixels = max(_SMALLEST, round(_SIZES[style.size] * min(height, width) * float(rng.uniform(0.8, 1.2))))
    upright = bool(rng.random() < 0.1)
    room = 0.9 * (height if upright else width)
    cover = _glyphs.line(text, font, pixels)
    if cover.size and cover.shape[1] > room:
        cover = _glyphs.line(text, font, int(pixels * room / cover.shape[1]))
    for apply, bend in ((style.italic, _glyphs.slanted), (style.curve, _glyphs.bent)):
        cover = bend(cover) if apply and cover.size else cover
    if not cover.size or min(cover.shape) < 4:
        return None
    return (np.ascontiguousarray(np.rot90(cover)) if upright else cover), None


def _place(free: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int] | None:
    """Top left corner of a free rectangle, one pixel from the border at least; None where none is found."""
    height, width = size
    room = (free.shape[0] - height - 2, free.shape[1] - width - 2)
    if min(room) < 0:
        return None
    for _ in range(_TRIES):
        top, left = 1 + int(rng.integers(room[0] + 1)), 1 + int(rng.integers(room[1] + 1))
        if free[top : top + height, left : left + width].all():
            return top, left
    return None


def _paint(
    image: np.ndarray,
    cover: np.ndarray,
    place: tuple[int, int],
    style: LetterStyle,
    rng: np.random.Generator,
    colours: np.ndarray | None,
) -> None:
    """Draw a word into ``image`` (float in [0, 1]): shadow, outline, letters."""
    (top, left), (height, width) = place, cover.shape
    whole = np.zeros(image.shape[:2], np.float32)
    whole[top : top + height, left : left + width] = cover
    if colours is not None:
        paint = image.copy()
        paint[top : top + height, left : left + width] = colours
        _over(image, whole, paint)
        return
    tall = min(height, width)
    fill = _colour(image, place, (height, width), style.colour, rng)
    before = image.copy()
    if style.art and style.shadow:
        angle, far = style.shadow_angle * np.pi / 4, (style.shadow_distance + 1) * tall / 24
        move = np.array([[1, 0, far * np.cos(angle)], [0, 1, far * np.sin(angle)]], np.float32)
        shade = cv2.warpAffine(whole, move, whole.shape[::-1])
        shade = _blurred(shade, style.shadow_blur * tall / 48) * np.float32(_ALPHAS[style.shadow_alpha])
        _over(image, shade, _accent(before, style.shadow_colour, rng))
    if style.art and style.stroke:
        away = cv2.distanceTransform((whole < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        wide = max(1.0, 0.5 + (style.stroke_width + 1) * tall / 32)
        outline = np.clip(wide + 0.5 - away, 0, 1).astype(np.float32)
        _over(image, _blurred(outline, _BLURS[style.blur]), _accent(before, style.stroke_colour, rng))
    _over(image, _blurred(whole, _BLURS[style.blur]), fill)
    if style.blend:
        image[:] = _blended(image, before)


def _over(image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    image += cover[:, :, None] * (colour - image)


def _blurred(cover: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(cover, (0, 0), sigma) if sigma > 0 else cover


def _colour(
    image: np.ndarray, place: tuple[int, int], size: tuple[int, int], option: int, rng: np.random.Generator
) -> np.ndarray:
    """Colour of the letters: of 16 pixels the one farthest from the place's mean, a pixel's, black or white."""
    pixels = image.reshape(-1, image.shape[2])
    ground = image[place[0] : place[0] + size[0], place[1] : place[1] + size[1]].mean((0, 1))
    if option == 0:
        some = pixels[rng.integers(len(pixels), size=16)]
        return some[int(np.abs(some - ground).sum(1).argmax())].copy()
    if option == 1:
        return pixels[int(rng.integers(len(pixels)))].copy()
    return np.full(image.shape[2], float(ground.mean() < 0.5), np.float32)


def _accent(image: np.ndarray, option: int, rng: np.random.Generator) -> np.ndarray:
    """Colour of an outline or a shadow: black, white, a pixel's."""
    if option < 2:
        return np.full(image.shape[2], float(option), np.float32)
    pixels = image.reshape(-1, image.shape[2])
    return pixels[int(rng.integers(len(pixels)))].copy()


def _blended(lettered: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Poisson blending with mixed gradients of what differs."""
    changed = (np.abs(lettered - ground).max(2) > 1 / 512).astype(np.uint8)
    inside = np.zeros_like(changed)
    inside[2:-2, 2:-2] = changed[2:-2, 2:-2]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) < 3 or len(columns) < 3:
        return lettered
    middle = (int(columns[0] + columns[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    made = lettered.copy()
    a, b = (np.rint(np.clip(one, 0, 1) * 255).astype(np.uint8) for one in (lettered, ground))
    groups = [(0, 1, 2)] if lettered.shape[2] == 3 else [(c, c, c) for c in range(lettered.shape[2])]
    for group in groups:
        first, second = (np.ascontiguousarray(one[:, :, list(group)]) for one in (a, b))
        mixed = cv2.seamlessClone(first, second, inside * 255, middle, cv2.MIXED_CLONE)
        for place, c in enumerate(group):
            made[:, :, c] = np.where(inside > 0, mixed[:, :, place] / np.float32(255), ground[:, :, c])
    return made


@functools.cache
def words_of(file: str) -> tuple[str, ...]:
    """The lines of a text file; none for "".

    Raises:
        UserError: it can't be read, or is empty.
    """
    if not file:
        return ()
    try:
        found = tuple(line.strip() for line in text_of(file).splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"words {file}: can't be read ({error}); give a text file, a word a line") from None
    if not found:
        raise UserError(f"words {file}: no word in it; one or more, each on a line")
    return found


@dataclasses.dataclass(frozen=True, repr=False)
class DrawText(Op):
    """:func:`letter` with words, places and styles drawn for each sample. Reports ``mask``, (H, W) uint8, 0 on text.

    Args:
        count: (low, high) of an even draw of the number of words, or one number.
        fonts: folder of fonts; "" (default) takes matplotlib's.
        words: text file of words, one a line; "" (default) for ours.
    """

    count: int | tuple[int, int] = (1, 3)
    fonts: str = ""
    words: str = ""

    columns: ClassVar = ("count", "seed")
    draws: ClassVar = 2
    floats: ClassVar = True
    facts: ClassVar = ("mask",)

    def __post_init__(self) -> None:
        count = (self.count, self.count) if isinstance(self.count, int | float) else self.count
        low, high = checked_range("DrawText", "count", count, 1, 1000)
        if low % 1 or high % 1:
            raise UserError(f"DrawText: count is a whole number of words or (low, high), got {self.count!r}")
        freeze(self, count=(int(low), int(high)))

    def draw(self, u: Any, height: Any, width: Any) -> Drawn:
        """Draw the number of words and the seed."""
        low, high = self.count  # type: ignore[misc]
        return (low + np.floor(u[0] * (high - low + 1)), np.floor(u[1] * SEEDS)), height, width


@executor(DrawText, "image")
def _draw(x: np.ndarray, op: DrawText, values: list[float]) -> tuple[np.ndarray, dict[str, Any]]:
    count, seed = values
    made, mask = letter(x, int(seed), count=int(count), fonts=op.fonts, words=words_of(op.words))
    return made, {"mask": mask}


@executor(DrawText, "image", device=True)
def _draw_batch(x: Any, op: DrawText, values: np.ndarray) -> tuple[Any, dict[str, Any]]:
    import torch

    images = x.permute(0, 2, 3, 1).cpu().numpy()
    made = [_draw(np.ascontiguousarray(image), op, row) for image, row in zip(images, values.tolist(), strict=True)]
    pixels = torch.from_numpy(np.stack([one for one, _ in made])).permute(0, 3, 1, 2).to(x.device)
    masks = torch.from_numpy(np.stack([facts["mask"] for _, facts in made])).to(x.device)
    return pixels, {"mask": masks}
