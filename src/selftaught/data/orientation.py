"""Which way up a picture is: the orientation in its EXIF data, and turning it upright."""

from __future__ import annotations

import struct

import numpy as np

from selftaught.data.integrity import PNG

ORIENTATION = 274
"""The EXIF (and TIFF) tag that says how a picture is turned."""


def orientation_of(data: bytes) -> int:
    """The EXIF orientation (1 to 8) of a PNG or WebP file; 1 where it has none, or is of another kind."""
    if data[:8] == PNG:
        return _in_exif(_png_exif(data))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _in_exif(_webp_exif(data))
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W, ...) turned and mirrored as its EXIF orientation says.

    Args:
        image: as it lies in the file.
        orientation: 1 as it is, 2 mirrored, 3 upside down, 4 both, 5 to 8 with its sides swapped; others are taken for
            1.

    Returns:
        A view; (W, H, ...) for 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        image = np.swapaxes(image, 0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image[::-1] if orientation in (3, 4, 7, 8) else image


def _png_exif(data: bytes) -> bytes:
    if b"eXIf" not in data:
        return b""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _webp_exif(data: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


def _in_exif(block: bytes) -> int:
    """The orientation in a block of EXIF data, which is a small TIFF; 1 where there is none or it makes no sense."""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return 1
        (at,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, at)
        for k in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, at + 2 + 12 * k)
            if tag == ORIENTATION and kind == 3:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
