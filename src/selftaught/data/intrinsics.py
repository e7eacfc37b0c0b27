"""What is known of the cameras of a set of videos: from numbers, a field of view, or a file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import expanded
from selftaught._reading import text_of
from selftaught.errors import UserError

__all__ = ["camera_names", "doubts", "read_intrinsics"]

LEARN, AUTO = "learn", "auto"
_ANGLES, _SQUARE, _MIDDLE = (15, 140), 1.15, 0.3
"""Fields of view in degrees, the most that height and width of a pixel differ by, and the axis's least share of a side
that cameras have."""


def read_intrinsics(text: str, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Intrinsics as shares of the picture: fx / W, fy / H, cx / W, cy / H.

    Args:
        text: ``fx,fy,cx,cy`` in pixels of the frames; ``fov=70``, degrees across the width of frames with square pixels
            and the axis in the middle; or a file: four numbers, a 3 x 3 matrix, KITTI's ``calib_cam_to_cam.txt`` or
            ``calib.txt``, or lines ``NAME fx fy cx cy`` where the name, or the folder that it lies in, says which
            videos a camera took (``*`` for all others).
        names: of the videos; see `camera_names`.
        sizes: (height, width) of each one's frames.

    Returns:
        (n, 4) float32.

    Raises:
        UserError: a text that says none of these, or a video without a camera.
    """
    pixels = _fixed(text, sizes)
    if pixels is None:
        pixels = _from_file(text, names)
    shape = np.array([(w, h, w, h) for h, w in sizes], dtype=np.float64)
    found = pixels / shape
    if not np.isfinite(found).all() or (found[:, :2] <= 0).any():
        raise UserError(f"--intrinsics {text}: focal lengths must be above 0")
    if (found[:, 2:] < 0).any() or (found[:, 2:] > 1).any():
        first = int(np.argmax((found[:, 2:] < 0).any(1) | (found[:, 2:] > 1).any(1)))
        h, w = sizes[first]
        raise UserError(f"--intrinsics {text}: the axis lies outside frames of {w}x{h}; give pixels of these frames")
    return found.astype(np.float32)


def doubts(shares: np.ndarray, size: tuple[int, int]) -> list[str]:
    """What is odd about a camera, as intrinsics of other frames would be; a line each.

    Args:
        shares: (4,) from `read_intrinsics`, or as they were learnt.
        size: height and width of its frames.
    """
    if not np.isfinite(shares).all():
        return []
    found, (fx, fy, cx, cy) = [], (float(value) for value in shares)
    angle = 2 * math.degrees(math.atan(0.5 / fx))
    if not _ANGLES[0] < angle < _ANGLES[1]:
        found.append(
            f"a field of view of {angle:.0f} degrees is odd; are the numbers those of larger or smaller frames?"
        )
    square = fx * size[1] / (fy * size[0])
    if not 1 / _SQUARE < square < _SQUARE:
        found.append(f"pixels would be {square:.2f} times as high as wide; were the frames turned or stretched?")
    if not all(_MIDDLE < at < 1 - _MIDDLE for at in (cx, cy)):
        found.append("the axis is far from the middle; were the frames cut or made smaller?")
    return found


def camera_names(source: Any) -> list[str]:
    """Names of clips behind the folder that was opened, which may be what a camera is called."""
    folder = source.name if source.name.endswith("/") else ""
    return [f"{folder}{name}" for name in source.names]


def _fixed(text: str, sizes: Sequence[tuple[int, int]]) -> np.ndarray | None:
    """Pixels (n, 4) of a field of view or of four numbers; None for anything else."""
    if text.startswith("fov="):
        try:
            degrees = float(text[4:])
        except ValueError:
            degrees = 0.0
        if not 0 < degrees < 180:
            raise UserError(f"--intrinsics {text}: give degrees between 0 and 180, as fov=70")
        factor = 0.5 / math.tan(math.radians(degrees) / 2)
        return np.array([(factor * w, factor * w, (w - 1) / 2, (h - 1) / 2) for h, w in sizes])
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    if len(numbers) != 4:
        raise UserError(f"--intrinsics {text}: give four numbers fx,fy,cx,cy")
    return np.tile(numbers, (len(sizes), 1))


def _from_file(text: str, names: Sequence[str]) -> np.ndarray:
    path = expanded(text)
    if not path.is_file():
        raise UserError(f"--intrinsics {text}: no such file; or give fx,fy,cx,cy, fov=70 or learn")
    lines = [line.split("#")[0].strip() for line in text_of(path, "replace").splitlines()]
    lines = [line for line in lines if line]
    one = _one_camera(lines)
    if one is not None:
        return np.tile(one, (len(names), 1))
    cameras: dict[str, list[float]] = {}
    for line in lines:
        *name, a, b, c, d = re.split(r"[\s,;]+", line) if len(re.split(r"[\s,;]+", line)) >= 5 else ("", *[""] * 4)
        try:
            cameras[" ".join(name)] = [float(value) for value in (a, b, c, d)]
        except ValueError:
            raise UserError(f"--intrinsics {text}: can't read {line!r}; write NAME fx fy cx cy, a line each") from None
    return np.array([cameras[_camera_of(name, cameras, text)] for name in names])


def _one_camera(lines: list[str]) -> list[float] | None:
    """fx, fy, cx, cy of a file of one camera: four numbers, a matrix, or KITTI's second camera."""
    for line in lines:
        key, _, rest = line.partition(":")
        if key in ("P_rect_02", "P2"):
            p = [float(value) for value in rest.split()]
            return [p[0], p[5], p[2], p[6]]
    try:
        numbers = [float(value) for line in lines for value in re.split(r"[\s,;]+", line.strip("[] ")) if value]
    except ValueError:
        return None
    if len(numbers) == 4:
        return numbers
    if len(numbers) == 9:
        return [numbers[0], numbers[4], numbers[2], numbers[5]]
    return None


def _camera_of(name: str, cameras: dict[str, list[float]], text: str) -> str:
    """The key of a video's camera: its name, a folder that it lies in, its stem, or ``*``."""
    parts = Path(name).parts
    for stop in range(len(parts), 0, -1):  # the video itself, then the folders that it lies in, inner ones first
        for start in range(stop):
            key = Path(*parts[start:stop])
            found = next((k for k in (key.as_posix(), key.with_suffix("").as_posix()) if k in cameras), None)
            if found is not None:
                return found
    if "*" in cameras:
        return "*"
    raise UserError(f"--intrinsics {text}: names no camera for {name}; add a line {name} fx fy cx cy, or one for *")
