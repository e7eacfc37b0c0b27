"""Picture files: written whole or not at all, with the alpha, EXIF data and colour profile that they came with."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.errors import UserError

_PILLOW = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_DEEPEST = {".npy": 4, ".tif": 4, ".tiff": 4, ".png": 2}
"""Bytes of a value that a kind of file holds; 1 for all others."""
PICTURE_FORMS = (".npy", *_PILLOW)
"""Suffixes of the files that pictures are written to."""


@dataclass(frozen=True)
class Beside:
    """What a picture file holds besides the colours.

    Attributes:
        alpha: (H, W) of the type of the colours, or None.
        exif: EXIF data, or None.
        icc_profile: colour profile, or None.
    """

    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None


def write_image(path: Path, image: np.ndarray, beside: Beside = Beside()) -> None:
    """Write (H,W,C) by the path's suffix; as `spare` where that can't hold its channels or type.

    JPEG at quality 97; WebP without loss. Files that hold no EXIF data (npy, bmp, TIFF of more than 8 bits) leave them.

    Raises:
        UserError: it can't be encoded.
    """
    whole = image if beside.alpha is None else np.concatenate([image, beside.alpha[..., None]], axis=2)
    suffix, channels = path.suffix.lower(), whole.shape[2]
    deepest = _DEEPEST.get(suffix, 1)
    opaque = suffix in (".jpg", ".jpeg") and channels in (2, 4)
    if suffix not in PICTURE_FORMS or whole.dtype.itemsize > deepest or (deepest < 4 and channels > 4) or opaque:
        path, suffix = spare(path), ".tif"
    replaced(path, lambda part: part.write_bytes(_encoded(path, whole, suffix, beside)))


def _encoded(path: Path, image: np.ndarray, suffix: str, beside: Beside) -> bytes:
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, image)
        return buffer.getvalue()
    if image.dtype == np.uint8 and image.shape[2] <= 4:
        return _by_pillow(image, _PILLOW[suffix], beside)
    if suffix == ".png":
        return with_chunks(_deep_png(path, image), beside)
    return _tiff(image, beside)


def _by_pillow(image: np.ndarray, form: str, beside: Beside) -> bytes:
    from PIL import Image as Pillow

    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[image.shape[2]]
    size = (image.shape[1], image.shape[0])
    picture = Pillow.frombytes(mode, size, np.ascontiguousarray(image).tobytes())
    options: dict[str, Any] = {}
    if form == "JPEG":
        options = {"quality": 97, "subsampling": 0}
    if form == "WEBP":
        options = {"lossless": True, "exact": True}
    if beside.exif and form != "BMP":
        options["exif"] = beside.exif
    if beside.icc_profile and form != "BMP":
        options["icc_profile"] = beside.icc_profile
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def _deep_png(path: Path, image: np.ndarray) -> bytes:
    import cv2

    if image.shape[2] == 2:  # grey with alpha, which OpenCV does not write
        image = image[..., [0, 0, 0, 1]]
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[2])
    done, buffer = cv2.imencode(".png", image if order is None else cv2.cvtColor(image, order))
    if not done:
        raise UserError(f"{path}: can't be encoded as .png")
    return buffer.tobytes()


def with_chunks(png: bytes, beside: Beside) -> bytes:
    """A PNG file with a colour profile (iCCP) and EXIF data (eXIf) put in behind its header."""
    head = 8 + 25  # the signature, and IHDR
    added = b""
    if beside.icc_profile:
        added += _chunk(b"iCCP", b"profile\0\0" + zlib.compress(beside.icc_profile))
    if beside.exif:
        added += _chunk(b"eXIf", beside.exif.removeprefix(b"Exif\0\0"))
    return png[:head] + added + png[head:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(image: np.ndarray, beside: Beside) -> bytes:
    import tifffile

    channels = image.shape[2]
    colours = 3 if channels in (3, 4) else 1
    extra = ["unassalpha" if beside.alpha is not None else "unspecified"] * (channels - colours)
    if channels == 4 and beside.alpha is None:
        extra = ["unassalpha"]
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        image[..., 0] if channels == 1 else image,
        photometric="rgb" if colours == 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=extra or None,
        iccprofile=beside.icc_profile,
    )
    return buffer.getvalue()


def spare(path: Path) -> Path:
    """Where an image goes that its own suffix can't hold: NAME.jpg.tif."""
    return path.with_name(path.name + ".tif")


_PART = re.compile(r"\.part-\d+(-\d+)?(\.[^.]*)?|\.?(work\.json|skipped\.csv)(\.[\w-]+)?\.part")


def is_part(path: Path) -> bool:
    """Whether this is a file that was being written when its process was killed."""
    return _PART.fullmatch(path.name) is not None


def replaced(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a short name of this thread's own beside ``path``, then put it there; the suffix stays."""
    part = path.with_name(f".part-{os.getpid()}-{threading.get_ident()}{path.suffix}")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
