"""How data sets of scans lie on disk where classes of points have files of their own: ScanNet's and S3DIS's ways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from selftaught.data.formats._clouds import read_columns
from selftaught.data.source import TEST, TRAIN
from selftaught.errors import SampleError

__all__ = ["ScanLayout", "class_of_points", "holds_annotated_rooms", "scan_layout"]

_LABELS = ".labels.ply"
_NYU = (
    "unannotated", "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat",
    "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel", "shower curtain", "box",
    "whiteboard", "person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "other structure",
    "other furniture", "other prop",
)  # fmt: skip
_JUDGED = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
_ROOMS = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase", "board",
    "clutter",
)  # fmt: skip
_TEST_AREA = "Area_5"


class ScanLayout(NamedTuple):
    """What was understood of the files in a folder.

    Attributes:
        names: of the scans.
        labels: scan -> the files that tell the classes of its points; of .txt files each holds one object's points.
        classes: names of the classes by number; empty where they are numbers alone.
        ignored: numbers that are not judged.
        given: int8 (n,) of TRAIN and TEST, or None.
        note: all of it in one line.
    """

    names: list[str]
    labels: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    ignored: tuple[int, ...]
    given: np.ndarray | None
    note: str


def scan_layout(names: Sequence[str], folder: str) -> ScanLayout | None:
    """The layout of files with these names in a folder of this name; None where each is a scan by itself."""
    return _labels_beside(names) or _annotated_rooms(names, folder)


def holds_annotated_rooms(folder: Path) -> bool:
    """Whether a folder, or one at most two folders below it, is a room of S3DIS."""
    found = (room for depth in ("", "*/", "*/*/") for room in folder.glob(f"{depth}Annotations"))
    try:
        return any(next(room.glob("*.txt"), None) is not None for room in found)
    except OSError:  # a folder that may not be entered, or that has gone meanwhile
        return False


def _labels_beside(names: Sequence[str]) -> ScanLayout | None:
    """``X.ply`` beside ``X.labels.ply``, as in ScanNet, whose finer meshes of the same room are left out."""
    there = set(names)
    labels = {n[: -len(_LABELS)] + ".ply": (n,) for n in names if n.lower().endswith(_LABELS)}
    labels = {scan: files for scan, files in labels.items() if scan in there}
    coarse = [n for n in names if n.endswith("_vh_clean_2.ply")]
    if not labels and not coarse:
        return None
    plain = [n for n in names if not n.lower().endswith(_LABELS)]
    if not coarse:
        note = f"{len(plain)} scans, {len(labels)} of them with classes of points in .labels.ply beside them"
        return ScanLayout(plain, labels, (), (), None, note)
    fine = {n.replace("_vh_clean_2.ply", end) for n in coarse for end in ("_vh_clean.ply", ".ply")}
    kept = [n for n in plain if n not in fine]
    note = f"ScanNet: {len(kept)} scans (_vh_clean_2.ply), {len(labels)} with points of its 20 classes (.labels.ply)"
    ignored = tuple(k for k in range(len(_NYU)) if k not in _JUDGED)
    return ScanLayout(kept, labels, _NYU if labels else (), ignored, None, note)


def _annotated_rooms(names: Sequence[str], folder: str) -> ScanLayout | None:
    """``ROOM/ROOM.txt`` beside ``ROOM/Annotations/chair_1.txt``, as in S3DIS."""
    objects: dict[PurePosixPath, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix == ".txt" and path.parent.name == "Annotations":
            objects.setdefault(path.parent.parent, []).append(name)
    there, labels = set(names), {}
    for room, files in objects.items():
        scan = str(room / f"{room.name or folder}.txt")
        if scan in there:
            labels[scan] = tuple(sorted(files))
    if not labels:
        return None
    scans = sorted(labels)
    areas = [re.search(r"Area_\w+?(?=/|$)", f"{folder}/{scan}") for scan in scans]
    area = [found[0] if found else "" for found in areas]
    several = len(set(area)) > 1 and _TEST_AREA in area
    given = np.array([TEST if a == _TEST_AREA else TRAIN for a in area], dtype=np.int8) if several else None
    part = f"; {_TEST_AREA} is the test part" if several else ""
    count = len(set(area))
    note = f"S3DIS: {len(scans)} rooms of {count} area{'s'[: count > 1]}, classes of points out of Annotations{part}"
    return ScanLayout(scans, labels, _ROOMS, (), given, note)


@lru_cache(maxsize=4)
def class_of_points(root: str, scan: str, files: tuple[str, ...], count: int, stamps: tuple[int, ...]) -> np.ndarray:
    """(count,) int64: the class of every point of a scan's file, -1 where none is told.

    Args:
        root: folder that names start from.
        scan: the scan.
        files: see `ScanLayout.labels`; none: no point has a class.
        count: points in the scan's file.
        stamps: when the files changed.

    Raises:
        SampleError: a file can't be read, or is of another scan.
    """
    if not files:
        return np.full(count, -1, dtype=np.int64)
    if files[0].lower().endswith(_LABELS):
        found = read_columns(Path(root) / files[0], files[0])
        if "label" not in found or len(found["label"]) != count:
            raise SampleError(scan, f"{files[0]} has no label for each of its {count} points")
        return found["label"].astype(np.int64)
    keys, classes = [], []
    for file in files:
        kind = PurePosixPath(file).stem.rpartition("_")[0].lower()
        one = _keys(Path(root) / file, file)
        keys.append(one)
        classes.append(np.full(len(one), _ROOMS.index(kind) if kind in _ROOMS else _ROOMS.index("clutter")))
    known, label = np.concatenate(keys), np.concatenate(classes)
    order = known.argsort(kind="stable")
    wanted = _keys(Path(root) / scan, scan)
    at = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[at] == wanted, label[at], -1).astype(np.int64)


def _keys(path: Path, name: str) -> np.ndarray:
    """One number for each point's place in whole millimetres; points beyond a kilometre from the origin share some."""
    found = read_columns(path, name)
    x, y, z = (np.round(found[axis] * 1000).astype(np.int64) + (1 << 20) for axis in "xyz")
    return (x << 42) ^ (y << 21) ^ z
