"""Bytes of an image file to pixels: OpenCV first, because it is fast; tifffile and Pillow where it can't."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from selftaught._reading import regular
from selftaught.data.integrity import PNG, check_whole, jpeg_size, pixels_alone
from selftaught.data.orientation import ORIENTATION, orientation_of, upright
from selftaught.data.pixels import as_hwc, channel_axis, inverted, not_premultiplied
from selftaught.errors import SampleError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".npy")
"""File names that end so are taken for images, upper or lower case."""

# every broken file is reported by name; OpenCV's own lines would only add noise
if "OPENCV_LOG_LEVEL" not in os.environ:
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
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""What TIFF and BigTIFF files begin with."""


class Header(NamedTuple):
    """What the first bytes of an image file say: channels and type, without decoding it."""

    channels: int
    dtype: str


def read_bytes(path: str | Path, name: str) -> bytes:
    """The content of a file, or a SampleError that says why there is none."""
    try:
        with open(regular(path), "rb", buffering=0) as file:
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

    Every format is turned upright by its EXIF orientation. Palettes are resolved, one bit becomes 0 and 255, CMYK
    becomes RGB; alpha is kept, and colours that were multiplied by it are divided again. Where 0 stands for white the
    values are inverted. A TIFF may hold its channels last, first (planar) or as pages; types other than uint8 and
    uint16 become float32.

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
    if data[:4] in TIFF:
        return _decode_tiff(data, name)
    if data[:2] == b"\xff\xd8":
        image = _decode_jpeg(data, name, min_side)
    else:
        check_whole(data, name)
        image = _unchanged(data)
        image = image if image is None else upright(image, orientation_of(data))
    return as_hwc(_pillow(data, name) if image is None else image, name, "hwc")


def header(data: bytes, name: str) -> Header:
    """Channels and type of an image from its header, as `decode` would return them.

    Raises:
        SampleError: this is not the head of an image.
    """
    from PIL import Image

    if data[:8] == PNG and len(data) > 26:
        depth, colour = data[24], data[25]
        clear = 4 if b"tRNS" in data[: data.find(b"IDAT")] else 3
        channels = {0: 1, 2: clear, 3: clear, 4: 4, 6: 4}.get(colour, 3)
        return Header(channels, "uint16" if depth == 16 else "uint8")
    if needs_all(data):
        array = decode(data, name)
        return Header(array.shape[2], str(array.dtype))
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Header({"1": 1, "L": 1, "I;16": 1, "F": 1, "RGBA": 4, "LA": 4}.get(image.mode, 3), "uint8")
    except Exception:
        raise SampleError(name, "not an image") from None


def fourth_is_alpha(data: bytes) -> bool:
    """Whether the fourth of a file's four channels is transparency: TIFF says so of each channel that is no colour, an
    array never does, and in all other formats it can be nothing else.
    """
    if data[:6] == b"\x93NUMPY":
        return False
    if data[:4] not in TIFF:
        return True
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            return tiff_alpha(tiff.pages.first)
    except Exception:  # broken: reading it says so
        return False


def tiff_alpha(page: Any) -> bool:
    """Whether a TIFF has one channel besides the colours, and it is transparency."""
    import tifffile

    extra = tuple(page.extrasamples)
    return extra in ((tifffile.EXTRASAMPLE.ASSOCALPHA,), (tifffile.EXTRASAMPLE.UNASSALPHA,))


def needs_all(data: bytes) -> bool:
    """Whether `header` wants the whole file, told by its first bytes: TIFF and .npy."""
    return data[:6] == b"\x93NUMPY" or data[:4] in TIFF


def is_pillow(value: object) -> bool:
    """Whether this is a Pillow image."""
    from PIL import Image

    return isinstance(value, Image.Image)


def pil_to_array(image: object) -> np.ndarray:
    """A Pillow image, upright, with the channels that it shows: palettes and CMYK become RGB, alpha stays."""
    from PIL import ImageOps

    picture: Any = image
    picture.load()  # a TIFF is turned while it is loaded
    if picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode in ("P", "PA"):
        picture = picture.convert("RGBA" if "transparency" in picture.info or mode == "PA" else "RGB")
    elif mode in _SHOWN_AS:
        picture = picture.convert(_SHOWN_AS[mode])
    array = np.asarray(picture)
    return array.astype(np.uint16) if mode.startswith("I;16") else array


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
    image = _opencv(pixels_alone(data), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def _pillow(data: bytes, name: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return pil_to_array(image)
    except Exception as error:
        truncated = "truncated" in str(error)
        raise SampleError(name, "truncated" if truncated else "not an image that OpenCV or Pillow can read") from None


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
            facts = _TiffFacts.of(page)
            array = series.asarray() if facts.plain else None
    except Exception as error:
        if "imagecodecs" not in str(error):
            raise SampleError(name, f"broken TIFF ({_short(error)})") from None
        array = None
    if facts.colours in ("CIELAB", "ICCLAB", "ITULAB"):
        raise SampleError(name, f"TIFF in {facts.colours} colours; convert it to RGB")
    if facts.colours == "SEPARATED" and 4 in shape:  # inks: Pillow makes red, green and blue of them
        return as_hwc(_pillow(data, name), name, "hwc")
    if array is None:
        return _tiff_elsewhere(data, name, tuple(shape), facts)
    if array.size != math.prod(shape):
        raise SampleError(name, f"broken TIFF ({array.size} values where its tags say {math.prod(shape)})")
    squeezed = [(axis, n) for axis, n in zip(axes, shape, strict=True) if n != 1 or axis in "YX"]
    array, axes = array.reshape([n for _, n in squeezed]), "".join(axis for axis, _ in squeezed)
    if array.ndim == 3 and axes not in ("YXS", "YXC"):
        first = axes in ("SYX", "CYX") or channel_axis(array.shape, pages=True) == 0
        array = np.moveaxis(array, 0, 2) if first else array
    if facts.white_is_zero:
        array = inverted(array, facts.bits)
    array = not_premultiplied(array) if facts.premultiplied else array
    return as_hwc(upright(array, facts.orientation), name, "hwc")


class _TiffFacts(NamedTuple):
    """What the tags of a TIFF say of its values."""

    compression: str
    colours: str
    plain: bool
    white_is_zero: bool
    premultiplied: bool
    orientation: int
    bits: int

    @classmethod
    def of(cls, page: Any) -> _TiffFacts:
        import tifffile

        light = tifffile.PHOTOMETRIC
        tag = page.tags.get(ORIENTATION)
        return cls(
            getattr(page.compression, "name", str(page.compression)),
            getattr(page.photometric, "name", ""),
            page.photometric in (light.MINISBLACK, light.MINISWHITE, light.RGB),
            page.photometric == light.MINISWHITE,
            tuple(page.extrasamples) == (tifffile.EXTRASAMPLE.ASSOCALPHA,),
            int(tag.value) if tag is not None and isinstance(tag.value, int) else 1,
            int(page.bitspersample) if isinstance(page.bitspersample, int) else 8,
        )


def _tiff_elsewhere(data: bytes, name: str, shape: tuple[int, ...], facts: _TiffFacts) -> np.ndarray:
    """A TIFF that tifffile alone can't unpack (LZW, JPEG, palettes): OpenCV, then Pillow, if they find the same
    pixels. Both turn it upright; OpenCV inverts eight bits only, and leaves colours multiplied by alpha.
    """
    image = _unchanged(data)
    if image is not None:
        if facts.white_is_zero and image.dtype != np.uint8:
            image = inverted(image, facts.bits)
        image = not_premultiplied(image) if facts.premultiplied else image
    elif len(shape) <= 3:
        try:
            image = _pillow(data, name)
        except SampleError:
            image = None
    bands = shape[channel_axis(shape, True)] if len(shape) == 3 else 1
    if image is None or (image.ndim == 2 and bands > 1) or len(shape) > 3:
        raise SampleError(
            name, f"TIFF with {facts.compression} compression and {bands} channels (pip install imagecodecs)"
        )
    return as_hwc(image, name, "hwc")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__
