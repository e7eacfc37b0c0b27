"""From arrays to pictures in a page: PNG, JPEG and WebP as base64 text, sprite sheets, contact sheets.

Arrays are (H, W, C) or (H, W), any C, uint8, uint16, bool or float. What a picture of C channels shows:

====  ==========================================================================================================
C     shown as
====  ==========================================================================================================
1     grey
2     first channel red, second green and blue (a red-cyan composite)
3     red, green, blue
4     the first three; the fourth (alpha or infra-red) is dropped
>4    false colour: the middle band of the last third is red, of the middle third green, of the first third blue,
      since instruments list their bands from short to long waves. Each is stretched to its own 2nd to 98th
      percentile: hues tell places apart but are no measurement, and two pictures can't be compared by brightness.
====  ==========================================================================================================
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from selftaught.errors import UserError

Format = Literal["png", "jpeg", "webp", "auto"]


def to_uint8(image: np.ndarray, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """What a screen can show of an image.

    Args:
        image: (H, W) or (H, W, C), any C; uint8, uint16, bool or float. NaN is shown as black.
        value_range: the values that become black and white. ``None``: uint8 and bool as they are; float that lies
            within 0 to 1 from 0 to 1; anything else from its own 0.5th to 99.5th percentile. Give the range of the
            source where pictures are to be compared by eye. Not used for more than four channels.

    Returns:
        (H, W) or (H, W, 3) uint8.

    Raises:
        UserError: the array is no image (wrong number of axes, or empty).
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(
            f"report: an image is an array (H, W) or (H, W, C) with pixels in it, not {np.asarray(image).shape}"
        )
    channels = array.shape[2]
    if channels > 4:
        return np.stack([_stretch(array[..., band], (2, 98)) for band in false_colour_bands(channels)], -1)
    array = array[..., :3]
    grey = _to_grey_levels(array, value_range)
    if channels == 1:
        return grey[..., 0]
    return grey if channels > 2 else grey[..., [0, 1, 1]]


def false_colour_bands(channels: int) -> tuple[int, int, int]:
    """Which bands are shown as red, green and blue: the middles of the last, the middle and the first third."""
    return tuple((2 * third + 1) * channels // 6 for third in (2, 1, 0))  # type: ignore[return-value]


def _to_grey_levels(array: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    if value_range is not None:
        return _scale(array, *value_range)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        finite = array[np.isfinite(array)]
        if finite.size == 0 or (finite.min() >= 0 and finite.max() <= 1):
            return _scale(array, 0.0, 1.0)
    return _stretch(array, (0.5, 99.5))


def _stretch(array: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        return np.zeros(array.shape, np.uint8)
    low, high = np.percentile(finite.astype(np.float64), percentiles)
    return _scale(array, float(low), float(high))


def _scale(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """From ``low..high`` to 0..255; where the two are one value, all is mid grey rather than noise."""
    if not high > low:
        return np.full(array.shape, 128, np.uint8)
    share = (np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def encode(
    image: np.ndarray,
    *,
    format: Format = "auto",
    quality: int = 88,
    size: int | None = None,
    value_range: tuple[float, float] | None = None,
) -> str:
    """An image as base64 text of a PNG, JPEG or WebP file, for any ``Picture`` of the report.

    Args:
        image: as for :func:`to_uint8`.
        format: "png" (exact: for restoration, and where single pixels matter), "jpeg", "webp" (lossy, smaller than JPEG
            at the same quality), or "auto": the smallest of the three.
        quality: of JPEG and WebP, 1 to 95.
        size: longest side in pixels to shrink to; ``None`` keeps the size. Smaller images are never enlarged.
        value_range: as for :func:`to_uint8`.
    """
    picture = Image.fromarray(to_uint8(image, value_range))
    if size is not None and max(picture.size) > size:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return _encode(picture, format, quality)


def film(frames: np.ndarray, *, side: int = 72, quality: int = 60) -> str:
    """Frames beside each other as one picture, for previews that the page plays by itself.

    Args:
        frames: (T, H, W, C) uint8.
        side: height of the strip; smaller frames are enlarged pixel by pixel.
        quality: of WebP.
    """
    times = max(1, side // frames.shape[1])
    strip = Image.fromarray(to_uint8(np.concatenate(list(frames), axis=1)))
    if times > 1:
        strip = strip.resize((strip.width * times, strip.height * times), Image.Resampling.NEAREST)
    elif frames.shape[1] > side:
        width = max(1, round(frames.shape[2] * side / frames.shape[1])) * len(frames)
        strip = strip.resize((width, side), Image.Resampling.LANCZOS)
    return _encode(strip, "webp", quality)


def _encode(picture: Image.Image, format: Format, quality: int) -> str:
    files = []
    if format in ("png", "auto"):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        files.append(buffer.getvalue())
    if format in ("jpeg", "auto"):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)
        files.append(buffer.getvalue())
    if format in ("webp", "auto") and max(picture.size) <= 16383:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
        files.append(buffer.getvalue())
    return base64.b64encode(min(files, key=len)).decode("ascii")


def decode(picture: str) -> np.ndarray:
    """The pixels of a base64 PNG, JPEG or WebP: (H, W) or (H, W, 3) uint8."""
    with Image.open(io.BytesIO(base64.b64decode(picture.rpartition(",")[2]))) as file:
        return np.asarray(file if file.mode in ("L", "RGB") else file.convert("RGB"))


def data_uri(picture: str) -> str:
    """Base64 text of a PNG, JPEG or WebP as an address that an ``img`` takes."""
    kind = "jpeg" if picture.startswith("/9j/") else "webp" if picture.startswith("UklGR") else "png"
    return f"data:image/{kind};base64,{picture}"


def dimensions(picture: str) -> tuple[int, int]:
    """Width and height of a base64 picture, without decoding its pixels."""
    with Image.open(io.BytesIO(base64.b64decode(picture))) as file:
        return file.size


def sprite_sheet(
    images: Sequence[np.ndarray],
    *,
    tile: int = 48,
    columns: int | None = None,
    quality: int = 82,
    value_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Thumbnails of all images in one JPEG, as the map's ``thumbs``: one file decodes faster than a thousand.

    Args:
        images: each as for :func:`to_uint8`; the centre square of each is shown. Order is kept.
        tile: side of a tile in pixels.
        columns: tiles to a row; by default as many as make the sheet square.
        quality: JPEG quality.
        value_range: as for :func:`to_uint8`.

    Returns:
        ``{"image": base64, "tile": tile, "columns": columns}``.

    Raises:
        UserError: no image at all, or more tiles than a browser can hold in one picture.
    """
    if not images:
        raise UserError("report: a sprite sheet needs at least one image")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    if max(columns, rows) * tile > 16384:
        raise UserError(
            f"report: {len(images)} tiles of {tile} pixels are too large for one sheet; give fewer or smaller ones"
        )
    sheet = Image.new("RGB", (columns * tile, rows * tile), (128, 128, 128))
    for i, image in enumerate(images):
        sheet.paste(_square(image, tile, value_range), (i % columns * tile, i // columns * tile))
    return {"image": _encode(sheet, "jpeg", quality), "tile": tile, "columns": columns}


def _square(image: np.ndarray, side: int, value_range: tuple[float, float] | None) -> Image.Image:
    picture = Image.fromarray(to_uint8(image, value_range)).convert("RGB")
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    how = Image.Resampling.NEAREST if edge <= side // 2 else Image.Resampling.LANCZOS
    return picture.resize((side, side), how, box=(left, top, left + edge, top + edge))


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    tile: int = 96,
    gap: int = 6,
    background: int = 255,
    value_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """Rows of images as one picture, for documentation and logs.

    Args:
        rows: images as for :func:`to_uint8`; rows may differ in length.
        tile: side of a tile in pixels; the centre square of each image is shown.
        gap: pixels between tiles and around the sheet.
        background: grey level between tiles.
        value_range: as for :func:`to_uint8`.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: there is no image.
    """
    widest = max((len(row) for row in rows), default=0)
    if not widest:
        raise UserError("report: a contact sheet needs at least one image")
    pitch = tile + gap
    sheet = np.full((gap + pitch * len(rows), gap + pitch * widest, 3), background, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = gap + i * pitch, gap + j * pitch
            sheet[y : y + tile, x : x + tile] = np.asarray(_square(image, tile, value_range))
    return sheet


def psnr(picture: np.ndarray, clean: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in dB of two 8-bit pictures; ``None`` when equal or of different shape."""
    if picture.shape != clean.shape:
        return None
    error = float(np.mean((picture.astype(np.float64) - clean.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error > 0 else None


def crop_boxes(picture: np.ndarray, side: int = 64) -> list[list[int]]:
    """Two places worth a closer look: the tile with most detail, where blur shows, and the flattest, where noise shows.

    Args:
        picture: (H, W) or (H, W, C) uint8, best the restored or the clean one.
        side: side of the boxes in pixels; at most half the shorter side of the picture.

    Returns:
        ``[x, y, width, height]`` boxes, two or, in a picture of one tile, one.
    """
    grey = picture.astype(np.float64)
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    height, width = grey.shape
    side = max(1, min(side, height // 2, width // 2))
    places = [
        (y, x)
        for y in range(0, height - side + 1, max(1, side // 2))
        for x in range(0, width - side + 1, max(1, side // 2))
    ]
    spread = [float(grey[y : y + side, x : x + side].std()) for y, x in places]
    # A region clipped to black or white has no noise to look at: prefer the flattest tile among those in mid range.
    level = [float(grey[y : y + side, x : x + side].mean()) for y, x in places]
    mid = [k for k in range(len(places)) if 20 < level[k] < 235] or list(range(len(places)))
    chosen = dict.fromkeys([int(np.argmax(spread)), min(mid, key=lambda k: spread[k])])
    return [[places[k][1], places[k][0], side, side] for k in chosen]
