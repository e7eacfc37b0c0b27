"""Bytes of an image file to pixels: OpenCV first, because it is fast; tifffile and Pillow where it can't."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from selftaught.data.pixels import as_hwc, channel_axis
from selftaught.errors import SampleError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".npy")
"""File names that end so are taken for images, upper or lower case."""

if (
    "OPENCV_LOG_LEVEL" not in os.environ
):  # every broken file is reported by name; OpenCV's own lines would only add noise
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_SHOWN_AS = {
    "1": "L",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
    "LA": "RGBA",
    "La": "RGBA",
    "RGBa": "RGBA",
}
_PNG = b"\x89PNG\r\n\x1a\n"


class Header(NamedTuple):
    """What the first bytes of an image file say: channels and type, without decoding it."""

    channels: int
    dtype: str


def read_bytes(path: str | Path, name: str) -> bytes:
    """The content of a file, or a SampleError that says why there is none."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
    except FileNotFoundError:
        raise SampleError(name, "missing") from None
    except OSError as error:
        raise SampleError(name, f"can't be opened: {error.strerror or error}") from None
    if not data:
        raise SampleError(name, "empty file")
    return data


def decode(data: bytes, name: str, min_side: int | None = None) -> np.ndarray:
    """The image in `data`, told by its content and not by the suffix.

    JPEG is turned upright by its EXIF orientation. Palettes are resolved, one bit becomes 0 and 255, CMYK becomes RGB;
    alpha is kept. A TIFF may hold its channels last, first (planar) or as pages; types other than uint8 and uint16
    become float32.

    Args:
        data: a whole JPEG, PNG, WebP, TIFF, BMP or .npy file.
        name: of the sample, for the errors.
        min_side: JPEG only: decode at 1/2, 1/4 or 1/8 as long as the shorter side stays at least this many pixels.

    Returns:
        (H, W, C) uint8, uint16 or float32, colours in the order RGB.

    Raises:
        SampleError: empty, truncated, no image, zero size, NaN or infinite values.
    """
    if not data:
        raise SampleError(name, "empty file")
    if data[:6] == b"\x93NUMPY":
        return _decode_npy(data, name)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(data, name)
    if data[:2] == b"\xff\xd8":
        image = _decode_jpeg(data, name, min_side)
    else:
        _check_whole(data, name)
        image = _unchanged(data)
    return as_hwc(_pillow(data, name) if image is None else image, name, "hwc")


def header(data: bytes, name: str) -> Header:
    """Channels and type of an image from its header, as `decode` would return them.

    Raises:
        SampleError: this is not the head of an image.
    """
    from PIL import Image

    if data[:8] == _PNG and len(data) > 26:
        depth, colour = data[24], data[25]
        clear = 4 if b"tRNS" in data[: data.find(b"IDAT")] else 3
        channels = {0: 1, 2: clear, 3: clear, 4: 4, 6: 4}.get(colour, 3)
        return Header(channels, "uint16" if depth == 16 else "uint8")
    if data[:6] == b"\x93NUMPY" or data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        array = decode(data, name)
        return Header(array.shape[2], str(array.dtype))
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Header({"1": 1, "L": 1, "I;16": 1, "F": 1, "RGBA": 4, "LA": 4}.get(image.mode, 3), "uint8")
    except Exception:
        raise SampleError(name, "not an image") from None


def is_pillow(value: object) -> bool:
    """Whether this is a Pillow image."""
    from PIL import Image

    return isinstance(value, Image.Image)


def pil_to_array(image: object) -> np.ndarray:
    """A Pillow image as an array with the channels that it shows: palettes and CMYK become RGB, alpha stays."""
    picture: Any = image
    mode = picture.mode
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or mode == "PA" else "RGB")
    elif mode in _SHOWN_AS:
        picture = picture.convert(_SHOWN_AS[mode])
    array = np.asarray(picture)
    return array.astype(np.uint16) if mode.startswith("I;16") else array


def jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, components) from the frame header of a JPEG, or None where there is none."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return height, width, data[at + 9]
        if marker == 0xDA:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _decode_jpeg(data: bytes, name: str, min_side: int | None) -> np.ndarray | None:
    if data.rstrip(b"\0 \r\n")[-2:] != b"\xff\xd9":  # cut short, or something follows the picture: Pillow tells which
        try:
            _pillow(data, name)
        except SampleError:
            raise SampleError(name, "truncated JPEG") from None
    size = jpeg_size(data)
    if size is None:
        return None
    height, width, components = size
    flags = cv2.IMREAD_GRAYSCALE if components == 1 else cv2.IMREAD_COLOR_RGB
    if min_side is not None:
        for factor, reduced in (
            (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
            (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
            (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
        ):
            if -(-min(height, width) // factor) >= min_side:
                flags |= reduced
                break
    return _opencv(data, flags)


def _opencv(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _unchanged(data: bytes) -> np.ndarray | None:
    """All the channels and bits that the file has, colours in the order RGB."""
    image = _opencv(data, cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _pillow(data: bytes, name: str) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return pil_to_array(ImageOps.exif_transpose(image) if data[:2] == b"\xff\xd8" else image)
    except Exception as error:
        truncated = "truncated" in str(error)
        raise SampleError(name, "truncated" if truncated else "not an image that OpenCV or Pillow can read") from None


def _check_whole(data: bytes, name: str) -> None:
    """What a decoder might pass over in silence: the end of the file missing, or a PNG whose checksums don't hold."""
    if data[:8] == _PNG:
        _check_png(data, name)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise SampleError(name, "truncated WebP")
    elif data[:2] == b"BM" and len(data) < 26:
        raise SampleError(name, "truncated BMP")


def _check_png(data: bytes, name: str) -> None:
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        length = int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            break
        if (
            kind.isalpha()
            and kind[:1].isupper()
            and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big")
        ):
            raise SampleError(name, f"damaged PNG (checksum of {kind.decode()})")
        if kind == b"IEND":
            return
        at = end + 4
    raise SampleError(name, "truncated PNG")


def _decode_npy(data: bytes, name: str) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:
        short = isinstance(error, EOFError) or "EOF" in str(error)
        reason = "truncated .npy" if short else "not an array of numbers"
        raise SampleError(name, reason) from None
    return as_hwc(array, name)


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page, series = tiff.pages.first, tiff.series[0]
            axes, shape = series.axes, series.shape
            plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
            compression = getattr(page.compression, "name", str(page.compression))
            array = series.asarray() if plain else None
    except Exception as error:
        if "imagecodecs" not in str(error):
            raise SampleError(name, f"broken TIFF ({_short(error)})") from None
        array = None
    if array is None:
        return _tiff_elsewhere(data, name, tuple(shape), compression)
    squeezed = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n != 1 or axis in "YX"]
    array, axes = array.reshape([n for _, n in squeezed]), "".join(axis for axis, _ in squeezed)
    if array.ndim == 3 and axes not in ("YXS", "YXC"):
        first = axes in ("SYX", "CYX") or channel_axis(array.shape, pages=True) == 0
        array = np.moveaxis(array, 0, 2) if first else array
    return as_hwc(array, name, "hwc")


def _tiff_elsewhere(data: bytes, name: str, shape: tuple[int, ...], compression: str) -> np.ndarray:
    """A TIFF that tifffile alone can't unpack (LZW, JPEG, palettes): OpenCV, then Pillow, if they find the same
    pixels.
    """
    image = _unchanged(data)
    if image is None and len(shape) <= 3:
        try:
            image = _pillow(data, name)
        except SampleError:
            image = None
    bands = shape[channel_axis(shape, True)] if len(shape) == 3 else 1
    if image is None or (image.ndim == 2 and bands > 1) or len(shape) > 3:
        raise SampleError(name, f"TIFF with {compression} compression and {bands} channels (pip install imagecodecs)")
    return as_hwc(image, name, "hwc")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
