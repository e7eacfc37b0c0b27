"""Pictures and files that the tests of this room share."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def picture(height: int = 48, width: int = 64, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth picture (H, W, C) uint8 with structure at two scales, so that JPEG keeps it well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, channels)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(image, 0, 255).astype(np.uint8)


def encode(image: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    """The bytes of a file that Pillow writes; `mode` converts first ("P", "CMYK", "LA")."""
    squeezed = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    made = Image.fromarray(squeezed)
    buffer = io.BytesIO()
    (made.convert(mode) if mode else made).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes | np.ndarray) -> Path:
    """Put bytes, or a picture as PNG, at a path whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else encode(data, "PNG"))
    return path


def folder_of(root: Path, names: list[str]) -> Path:
    """A folder of PNG pictures, each different, under these names."""
    for k, name in enumerate(names):
        write(root / name, picture(20, 24, 3, seed=k))
    return root


def damage_file(file: Path, damage: str) -> None:
    """Take a file away ("gone"), its last byte ("short"), or flip the bits of one in its middle (anything else)."""
    data = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
