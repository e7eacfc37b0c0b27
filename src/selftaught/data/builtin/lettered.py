"""`photos:lettered`: tiles of the photographs with a word or two DRAWN on each, without it, and where it is.

What stands in for posters and street scenes: pictures that have text of their own, whose clean form is known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.builtin.photos import _FILES, PhotoTiles
from selftaught.data.fields import LABEL, Field
from selftaught.data.source import Source, digest
from selftaught.data.text_boxes import LETTERING, boxes_mask

__all__ = ["ENTRIES", "LetteredPhotos", "open_lettered"]

CLEAN = "clean"
_FONTS = ("DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "STIXGeneralBol.ttf", "DejaVuSansMono-Bold.ttf")
_LETTERS = "ABCDEFGHKLMNPRSTUVWXYZabcdeghknopqrstuwxyz0123456789"


class LetteredPhotos(Source):
    """Tiles (side, side, 3) uint8 with text; sample i is a function of the photographs and (draw, i) alone."""

    def __init__(self, tile: int, train: int, test: int, draw: int) -> None:
        """Args: see `open_lettered`."""
        self.tiles, self.draw = PhotoTiles(tile, None, train, test), draw
        self.name, self.channels, self.depth, self.generated = "photos:lettered", 3, "uint8", True
        self.names, self.given = self.tiles.names, self.tiles.given

    @property
    def fields(self) -> dict[str, Field]:
        """The picture with text, the one without, and the mask: 0 in the boxes of the text, 1 elsewhere."""
        return {"image": Field("image", 3), CLEAN: Field("image", 3), LETTERING: Field("mask")}

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """The picture with text; see `Source.read`."""
        return self._made(i)[0]

    def corners(self, i: int) -> np.ndarray:
        """The boxes of the words, (K, 4) left, top, right, bottom."""
        return self._made(i)[1]

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == LABEL:
            return super()._field(name, i, None, None)
        if name == CLEAN:
            return self.tiles.read(i)
        image, boxes = self._made(i)
        return boxes_mask(boxes, *image.shape[:2], dilation=(2, 2)) if name == LETTERING else image

    def _made(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        import matplotlib
        from PIL import Image, ImageDraw, ImageFont

        image = Image.fromarray(self.tiles.read(i))
        rng, draw = np.random.default_rng([self.draw, i, 11]), ImageDraw.Draw(image)
        fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        side, boxes = image.width, list[list[int]]()
        for _ in range(int(rng.integers(1, 3))):
            word = "".join(_LETTERS[k] for k in rng.integers(len(_LETTERS), size=int(rng.integers(3, 6))))
            size = int(rng.integers(max(8, side // 8), max(9, side // 5) + 1))
            font = ImageFont.truetype(str(fonts / _FONTS[int(rng.integers(len(_FONTS)))]), size)
            left, top, right, bottom = map(int, font.getbbox(word))
            width, height = right - left, bottom - top
            if width > side - 4 or height > side - 4:
                continue
            x, y = (2 + int(rng.integers(side - 3 - length)) for length in (width, height))
            if any(x < r and l < x + width and y < b and t < y + height for l, t, r, b in boxes):  # noqa: E741
                continue
            ground = np.asarray(image)[y : y + height, x : x + width].mean()
            shade = rng.integers(0, 70, 3) if ground > 127 else rng.integers(186, 256, 3)
            draw.text((x - left, y - top), word, font=font, fill=tuple(map(int, shade)))
            boxes.append([x, y, x + width, y + height])
        return np.asarray(image).copy(), np.asarray(boxes, np.int64).reshape(-1, 4)

    def fingerprint(self) -> str:
        """Of the photographs and the draw."""
        return digest("lettered photos 1", self.tiles.fingerprint(), str(self.draw))


def open_lettered(*, tile: int = 96, train: int = 60, test: int = 8, draw: int = 0) -> LetteredPhotos:
    """Tiles of the photographs with random letters on them.

    Args:
        tile: side in pixels.
        train: training tiles of each photograph at most.
        test: test tiles of each photograph at most.
        draw: another number gives other letters.

    Raises:
        UserError: a number out of its range; the photographs' packages are missing.
    """
    at_least("photos:lettered", {"tile": (tile, 32), "train": (train, 1), "test": (test, 1), "draw": (draw, 0)})
    return LetteredPhotos(tile, train, test, draw)


ENTRIES = (
    Entry(
        "photos:lettered",
        "image",
        "tiles of the photographs, 96x96 RGB, with text drawn on them and without, to erase text",
        "scikit-image, scikit-learn",
        open_lettered,
        _FILES,
    ),
)
