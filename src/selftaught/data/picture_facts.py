"""What a picture file holds besides its colours: alpha, EXIF data, a colour profile, the bits that are used."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selftaught.data.decoding import TIFF, decode, read_bytes, tiff_alpha
from selftaught.data.integrity import PNG
from selftaught.data.orientation import ORIENTATION

__all__ = ["PictureFacts", "read_with_metadata"]

_ICC, _LARGEST = 34675, 281
_DESCRIBING = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432)
_PARTS = (34665, 34853, 40965)
"""EXIF tags that stay true of a picture whose pixels change, and the blocks of tags beside them."""


class PictureFacts(NamedTuple):
    """What a picture file holds besides the colours, so that a picture made from it can keep it.

    Attributes:
        alpha: (H, W) of the type of the colours, or None.
        exif: EXIF data as bytes without the orientation, which has been applied; or None.
        icc_profile: colour profile as bytes, or None.
        mode: what Pillow calls the kind of pixels ("RGB", "LA", "I;16"), "" where it can't say.
        bit_depth: bits of a value that are used: what the file declares (PNG's sBIT, TIFF's bits per sample or largest
            value), else those of the type.
        orientation: the EXIF orientation that the file had, 1 to 8.
    """

    alpha: np.ndarray | None
    exif: bytes | None
    icc_profile: bytes | None
    mode: str
    bit_depth: int
    orientation: int


def read_with_metadata(path: str | Path, name: str | None = None) -> tuple[np.ndarray, PictureFacts]:
    """A picture file as (colours, what else it holds).

    Args:
        path: of the file.
        name: for the errors; None: the path.

    Returns:
        (H, W, C) uint8, uint16 or float32, upright, without alpha (grey with alpha has one channel), and the facts.

    Raises:
        SampleError: as `decode`.
    """
    called = str(path) if name is None else name
    data = read_bytes(path, called)
    image = decode(data, called)
    mode, exif, icc, orientation = _pillow_says(data)
    has_alpha, bits = _declared(data, image)
    if data[:4] in TIFF:
        orientation, icc = _tiff_says(data, orientation, icc)
    if icc is not None and icc[16:20] == b"CMYK":
        icc = None  # of inks: the pixels are red, green and blue now
    alpha = None
    if has_alpha:
        alpha = np.ascontiguousarray(image[:, :, -1])
        image = np.ascontiguousarray(image[:, :, :1] if mode in ("LA", "La") else image[:, :, :-1])
    return image, PictureFacts(alpha, exif, icc, mode, bits, orientation)


def _pillow_says(data: bytes) -> tuple[str, bytes | None, bytes | None, int]:
    """(mode, EXIF without the orientation, colour profile, orientation); nothing where Pillow can't open the file."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            found, icc, mode = image.getexif(), image.info.get("icc_profile"), image.mode
            kept = Image.Exif()
            for tag in _DESCRIBING:
                if tag in found:
                    kept[tag] = found[tag]
            for part in _PARTS:
                if inner := dict(found.get_ifd(part)):
                    kept.get_ifd(part).update(inner)
            whole = kept.tobytes() if len(kept) or any(kept.get_ifd(part) for part in _PARTS) else None
            return mode, whole, icc, int(found.get(ORIENTATION, 1))
    except Exception:  # Pillow can't open it, or its EXIF data are broken: the pixels count
        return "", None, None, 1


def _tiff_says(data: bytes, orientation: int, icc: bytes | None) -> tuple[int, bytes | None]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        tags = tiff.pages.first.tags
        turned, profile = tags.get(ORIENTATION), tags.get(_ICC)
        return (
            int(turned.value) if turned is not None else orientation,
            bytes(profile.value) if profile is not None else icc,
        )


def _declared(data: bytes, image: np.ndarray) -> tuple[bool, int]:
    """(whether the last channel is alpha, bits of a value that are used)."""
    bits = 8 * image.dtype.itemsize
    if data[:4] in TIFF:
        return _tiff_declares(data, image, bits)
    if data[:8] == PNG and b"sBIT" in data[: max(data.find(b"IDAT"), 0)]:
        at = data.find(b"sBIT")
        declared = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]
        bits = max(declared[: image.shape[2]], default=bits)
    return image.shape[2] == 4 and data[:6] != b"\x93NUMPY", bits


def _tiff_declares(data: bytes, image: np.ndarray, bits: int) -> tuple[bool, int]:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages.first
        largest = page.tags.get(_LARGEST)
        declared = bits if page.bitspersample == 1 else min(int(page.bitspersample), bits)
        if largest is not None and image.dtype.kind == "u":
            declared = min(declared, int(np.max(largest.value)).bit_length())
        return tiff_alpha(page) and image.shape[2] in (2, 4), declared
