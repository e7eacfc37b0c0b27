"""Letters as coverage: one line of text from a font, slanted or bent, and copies of letters that a picture has."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from selftaught.errors import UserError

FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans-Oblique.ttf", "DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf", "DejaVuSerif-Italic.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf", "cmtt10.ttf",
)  # fmt: skip
"""Of matplotlib: letters and digits, three families, upright and slanted."""

WORDS = (
    "sale", "new", "open", "free", "best", "city", "music", "summer", "coffee", "garden", "light", "store", "travel",
    "school", "house", "market", "press", "event", "family", "night", "fresh", "style", "world", "today", "river",
    "number", "street", "motor", "design", "offer", "winter", "hotel", "museum", "bread", "ticket", "ocean", "games",
    "local", "green", "paper", "story", "video", "beauty", "future", "studio", "people", "simple", "quality", "first",
    "center", "system", "2024", "50%", "365", "No.1", "24h",
)  # fmt: skip

_SLANT = 0.25
_BEND = 0.5
_TALL = 48


@functools.cache
def font_files(folder: str = "") -> tuple[str, ...]:
    """The fonts of a folder (.ttf, .otf, .ttc, sub-folders too), sorted; 12 of matplotlib's for "".

    Raises:
        UserError: no font there.
    """
    if not folder:
        import matplotlib

        place = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        return tuple(str(place / name) for name in FONTS)
    found = [p for p in Path(folder).rglob("*") if p.suffix.lower() in (".ttf", ".otf", ".ttc")]
    if not found:
        raise UserError(f"fonts {folder}: no .ttf, .otf or .ttc file there; name a folder of fonts")
    return tuple(sorted(map(str, found)))


@functools.lru_cache(maxsize=256)
def _font(path: str, pixels: int) -> object:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(path, pixels)
    except OSError as error:
        raise UserError(f"font {path}: can't be read ({error}); take it out of the folder") from None


def line(text: str, path: str, pixels: int) -> np.ndarray:
    """A line of text, (h, w) float32 coverage in [0, 1], cut to its ink; (0, 0) where the font draws nothing."""
    mask, _ = _font(path, pixels).getmask2(text, mode="L")  # type: ignore[attr-defined]
    width, height = mask.size
    if not width or not height:
        return np.zeros((0, 0), np.float32)
    return _cut(np.asarray(mask, np.float32).reshape(height, width) / np.float32(255))


def _cut(cover: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if not len(rows):
        return np.zeros((0, 0), np.float32)
    return np.ascontiguousarray(cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def slanted(cover: np.ndarray) -> np.ndarray:
    """Sheared to the right by a quarter of the height."""
    height, width = cover.shape
    over = _SLANT * height
    move = np.array([[1, -_SLANT, over], [0, 1, 0]], np.float32)
    return _cut(cv2.warpAffine(cover, move, (width + int(np.ceil(over)) + 1, height)))


def bent(cover: np.ndarray) -> np.ndarray:
    """Along an arc whose middle is higher than its ends by half of the height."""
    height, width = cover.shape
    rise = _BEND * height
    tall = height + int(np.ceil(rise)) + 1
    x = np.arange(width, dtype=np.float32)
    drop = rise * (2 * x / max(width - 1, 1) - 1) ** 2
    rows = np.arange(tall, dtype=np.float32)[:, None] - drop[None]
    return _cut(cv2.remap(cover, np.broadcast_to(x, rows.shape).copy(), rows.astype(np.float32), cv2.INTER_LINEAR))


def copied(image: np.ndarray, box: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Letters that stand in a box (top, left, bottom, right) of a picture: their coverage and colours.

    Maximally stable regions that don't touch all sides of the box are taken for letters.

    Returns:
        (h, w) float32 in [0, 1] and (h, w, C) of the picture's type; None where nothing is found.
    """
    top, left, bottom, right = box
    part = image[top:bottom, left:right]
    if min(part.shape[:2]) < 6:
        return None
    grey = part.mean(2)
    grey = np.clip(grey * (255 if image.dtype.kind == "f" else 1), 0, 255).astype(np.uint8)
    larger = max(1, round(_TALL / min(grey.shape)))
    big = cv2.resize(grey, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC)
    search = cv2.MSER_create(min_area=8 * larger * larger, max_area=int(0.4 * big.size))  # type: ignore[attr-defined]
    cover = np.zeros(big.shape, np.float32)
    for points in search.detectRegions(big)[0]:
        _, _, w, h = cv2.boundingRect(points)
        if w < big.shape[1] or h < big.shape[0]:
            cover[points[:, 1], points[:, 0]] = 1
    cover = cv2.resize(cover, grey.shape[::-1], interpolation=cv2.INTER_AREA)
    if not 0.02 < cover.mean() < 0.7:
        return None
    return cover, part
