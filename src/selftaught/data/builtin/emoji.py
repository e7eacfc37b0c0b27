"""`emoji`: 1,200 and more pictures, each with its name in Unicode as its caption: the smallest image-text pairs.

The pictures are Google's Noto Color Emoji (font OFL-1.1, pictures Apache-2.0) out of Debian's package
fonts-noto-color-emoji; the names come with Python.
"""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.builtin._pictured import keep, opened, squared
from selftaught.data.combining.captioned import Captioned
from selftaught.data.debian import debian_files
from selftaught.data.mapped import build_once, cache_folder

__all__ = ["ENTRIES", "fetch_emoji", "open_emoji"]

SIDE = 64
_PACKAGE, _FONT = "fonts-noto-color-emoji", "NotoColorEmoji.ttf"
_PLACES = ((0x2000, 0x3300), (0x1F000, 0x1FB00))
_BITMAP, _CANVAS = 109, (136, 128)


def open_emoji() -> Captioned:
    """Emoji (64, 64, 3) uint8 on white with the field ``text``, a given split of 4 to 1, no labels.

    Raises:
        UserError: the font is nowhere, and can't be fetched.
    """
    return opened(fetch_emoji(), "emoji")


def emoji_folder() -> Path:
    """Where the pictures lie, or will lie, in the cache folder."""
    return cache_folder() / "emoji"


def fetch_emoji() -> Path:
    """The folder of the pictures, made out of Debian's font if need be.

    Raises:
        UserError: the font is nowhere, and can't be fetched.
    """
    return build_once(emoji_folder(), _build)


def _build(folder: Path) -> None:
    from PIL import ImageFont

    _, content = next(debian_files(_PACKAGE, "/usr/share/fonts/truetype/noto", lambda path: path == _FONT))
    font = ImageFont.truetype(io.BytesIO(content), _BITMAP, layout_engine=ImageFont.Layout.BASIC)
    images, names, texts = [], [], []
    for code in (code for low, high in _PLACES for code in range(low, high)):
        called = unicodedata.name(chr(code), "")
        picture = _drawn(font, chr(code)) if called else None
        if picture is not None:
            images.append(picture)
            names.append(f"{code:05x}")
            texts.append(called.lower())
    keep(folder, images, names, texts)


def _drawn(font: Any, character: str) -> np.ndarray | None:
    """The picture of a character; None where the font has none."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGBA", _CANVAS, (255, 255, 255, 0))
    ImageDraw.Draw(canvas).text((0, 0), character, font=font, embedded_color=True)
    alpha = np.asarray(canvas)[..., 3]
    return squared(canvas, SIDE) if alpha.any() and alpha.std() > 0 else None


ENTRIES = (
    Entry(
        "emoji",
        "image",
        "emoji with their names as captions, 64x64 RGB, about 1,100 + 280",
        "Debian's fonts-noto-color-emoji",
        open_emoji,
        fetch=fetch_emoji,
        here=lambda: emoji_folder().is_dir(),
    ),
)
