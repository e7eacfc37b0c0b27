"""`stereo`: a real pair of pictures with measured depth, Middlebury's motorcycle (2014) out of scikit-image's wheel.

A clip of two frames, the right camera's and then the left one's, whose depth is known nearly everywhere: a check on a
real scene for what has learnt depth elsewhere. Nothing is downloaded.
"""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.decoding import decode, read_bytes
from selftaught.data.fields import Field
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.packages import data_file
from selftaught.data.source import TEST, digest

__all__ = ["BASELINE", "ENTRIES", "Stereo", "open_stereo"]

BASELINE = 0.193001
"""Metres from the left camera to the right one, along x."""
_FOCAL, _AXIS, _SHIFT = 994.978, (311.193, 254.877), 31.086
_LEFT, _RIGHT, _DISPARITY = ("data/motorcycle_left.png", "data/motorcycle_right.png", "data/motorcycle_disp.npz")


class Stereo(Clips):
    """The pair as a clip of two frames, right and left.

    Fields: ``clip`` (2, H, W, 3), ``depth`` (2, H, W, 1) in metres, 0 where unknown (as all of the right frame's);
    value ``intrinsics``: fx, fy, cx, cy as shares of width and height, the same for both. The right picture is moved
    by the 31 pixels between the two cameras' axes, so that one camera took both.
    """

    def __init__(self) -> None:
        self.name, self.channels = "stereo", 3
        self._cut(["motorcycle"], Cut())
        self.given = np.array([TEST], dtype=np.int8)
        height, width = _pair()[0].shape[1:3]
        shares = (_FOCAL / width, _FOCAL / height, _AXIS[0] / width, _AXIS[1] / height)
        self.values = {"intrinsics": np.array([shares], dtype=np.float32)}
        self.notes = ("a real stereo pair, measured depth 2.1 to 5.0 m, to judge on only",)

    @property
    def fields(self) -> dict[str, Field]:
        """The clip, its depth, and what is known of the camera."""
        return {"clip": Field("clip", 3), "depth": Field("clip", 1)} | self._known_fields()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != "depth":
            return super()._field(name, i, min_side, frames)
        found = _pair()[1]
        return found if frames is None else found[np.asarray(frames)]

    def _length(self, k: int) -> int:
        return 2

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        return _pair()[0][positions].copy()

    def fingerprint(self) -> str:
        """Of the pictures."""
        return digest("stereo", _pair()[0])


@functools.lru_cache(maxsize=1)
def _pair() -> tuple[np.ndarray, np.ndarray]:
    """Frames (2, H, W, 3) uint8 and depth (2, H, W, 1): depth = focal length x baseline / (disparity + shift)."""
    left, right = (decode(read_bytes(data_file("skimage", f), f), f) for f in (_LEFT, _RIGHT))
    move = np.array([[1, 0, -_SHIFT], [0, 1, 0]])
    moved = cv2.warpAffine(right, move, right.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    with np.load(data_file("skimage", _DISPARITY), allow_pickle=False) as stored:
        disparity = stored["arr_0"].astype(np.float64)
    known = np.isfinite(disparity)
    depth = np.where(known, _FOCAL * BASELINE / (np.where(known, disparity, 1) + _SHIFT), 0).astype(np.float32)
    return np.stack((moved, left)), np.stack((np.zeros_like(depth), depth))[..., None]


def open_stereo() -> Stereo:
    """A real stereo pair with measured depth."""
    return Stereo()


ENTRIES = (
    Entry(
        "stereo",
        "clip",
        "a real stereo pair, 741x500, with measured depth of 93 % of its pixels (Middlebury 2014), to judge on only",
        "scikit-image",
        open_stereo,
        tuple(("skimage", file) for file in (_LEFT, _RIGHT, _DISPARITY)),
    ),
)
