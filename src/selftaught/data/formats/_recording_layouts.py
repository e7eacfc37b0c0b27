"""How recordings of a camera lie on disk in known data sets, and what is told of the camera there.

KITTI (raw and odometry), Cityscapes' sequences, TUM RGB-D, ScanNet's export, and RGB-D folders of any other origin.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from selftaught._reading import json_of, text_of
from selftaught.data.decoding import decode, read_bytes
from selftaught.data.files import walk
from selftaught.data.formats._rgbd_layouts import PICTURES, file_matrix, scene_kind, tum_camera
from selftaught.errors import SampleError, UserError

__all__ = ["Recording", "found_recordings"]

_KITTI = re.compile(r"(?:(?P<drive>.*)/)?image_(?P<camera>0?\d)/(?:data/)?[^/]+")
_CITY = re.compile(r"(?:(?P<folder>.*)/)?(?P<city>[^/_]+)_(?P<place>\d{6})_(?P<frame>\d{6})_leftImg8bit\.[^/]+")
_CITY_SIZE = (2048, 1024)
_DEPTH_INTRINSICS = ("intrinsics.txt", "camera-intrinsics.txt", "intrinsic.txt", "camera.txt")


class Recording(NamedTuple):
    """The frames of one camera in the order of time.

    Attributes:
        name: "city/place" or the like.
        frames: names of the pictures, relative to the folder.
        camera: fx / W, fy / H, cx / W, cy / H, or None where nothing is told.
    """

    name: str
    frames: list[str]
    camera: tuple[float, ...] | None


def found_recordings(folder: Path, names: Sequence[str]) -> tuple[list[Recording], str] | None:
    """Recordings in a folder that holds pictures of these names, and a line that says what was understood.

    None where the folder is none of the known layouts: then every folder of pictures is a recording.

    Raises:
        UserError: a file of a camera that can't be read.
    """
    for look in (_kitti, _cityscapes, _rgbd):
        found = look(folder, names)
        if found is not None:
            recordings, kind, left = found
            frames, known = sum(len(r.frames) for r in recordings), sum(r.camera is not None for r in recordings)
            told = {0: "no intrinsics found", len(recordings): "intrinsics out of its files"}
            camera = told.get(known, f"intrinsics of {known} out of its files")
            out = f"; left out: {left:,} other pictures" if left else ""
            return recordings, f"{kind}: {len(recordings)} recordings, {frames:,} frames, {camera}{out}"
    return None


Found = tuple[list[Recording], str, int]


# ---- KITTI -----------------------------------------------------------------------------------------------------------
def _kitti(folder: Path, names: Sequence[str]) -> Found | None:
    """``DATE/DRIVE/image_02/data/*.png`` with ``DATE/calib_cam_to_cam.txt``; ``00/image_2/*.png`` with ``calib.txt``.

    Where a drive has colour pictures (cameras 2 and 3), the grey ones are left out.
    """
    cameras: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = _KITTI.fullmatch(name)
        if match is not None:
            cameras.setdefault((match["drive"] or "", match["camera"]), []).append(name)
    if not cameras:
        return None
    coloured = {drive for drive, camera in cameras if int(camera) >= 2}
    kept = {k: v for k, v in cameras.items() if int(k[1]) >= 2 or k[0] not in coloured}
    calibrated = {drive: _calibration(folder, drive) for drive, _ in kept}
    if not any(calibrated.values()):
        return None
    found = [
        Recording(
            f"{drive}/image_{camera}".lstrip("/"), frames,
            _kitti_camera(calibrated[drive], int(camera), folder / frames[0]),
        )
        for (drive, camera), frames in kept.items()
    ]  # fmt: skip
    return found, "KITTI", len(names) - sum(len(r.frames) for r in found)


def _calibration(folder: Path, drive: str) -> dict[str, list[float]]:
    """Key -> numbers of the calibration beside a drive or above it."""
    place = folder / drive
    for file in (place / "calib_cam_to_cam.txt", place.parent / "calib_cam_to_cam.txt", place / "calib.txt"):
        if file.is_file():
            return dict(_numbered(file))
    return {}


def _numbered(file: Path) -> Iterator[tuple[str, list[float]]]:
    for line in text_of(file, "replace").splitlines():
        key, _, rest = line.partition(":")
        try:
            yield key.strip(), [float(word) for word in rest.split()]
        except ValueError:
            continue  # a date


def _kitti_camera(told: dict[str, list[float]], camera: int, picture: Path) -> tuple[float, ...] | None:
    p = told.get(f"P_rect_0{camera}") or told.get(f"P{camera}")
    if p is None or len(p) != 12:
        return None
    size = told.get(f"S_rect_0{camera}") or _size(picture)
    return None if size is None else _shares(p[0], p[5], p[2], p[6], size)


# ---- Cityscapes ------------------------------------------------------------------------------------------------------
def _cityscapes(folder: Path, names: Sequence[str]) -> Found | None:
    """``leftImg8bit_sequence/train/aachen/aachen_000000_000000_leftImg8bit.png`` with ``camera/``.

    Frames whose numbers follow each other are a recording.
    """
    places: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for name in names:
        match = _CITY.fullmatch(name)
        if match is not None:
            key = match["folder"] or "", match["city"], match["place"]
            places.setdefault(key, []).append((int(match["frame"]), name))
    if any("leftImg8bit_sequence" in key[0].split("/") for key in places):  # beside it lie single ones of its frames
        places = {k: v for k, v in places.items() if "leftImg8bit_sequence" in k[0].split("/")}
    if not places:
        return None
    cameras, found = _city_cameras(folder), []
    for (where, city, place), frames in places.items():
        numbers = np.array([number for number, _ in sorted(frames)])
        for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
            first = int(numbers[run[0]])
            known = cameras.get((city, place), [])
            file = min(known, key=lambda one: abs(one[0] - int(numbers[run].mean())))[1] if known else None
            stem = f"{where}/{city}_{place}_{first:06d}".lstrip("/")
            found.append(
                Recording(stem, [sorted(frames)[k][1] for k in run], None if file is None else _city_camera(file))
            )
    return found, "Cityscapes", len(names) - sum(len(r.frames) for r in found)


def _city_cameras(folder: Path) -> dict[tuple[str, str], list[tuple[int, Path]]]:
    """(city, place) -> number of a frame and the file of its camera, of camera/ in the folder or beside it."""
    roots = [base / "camera" for base in (folder, folder / "camera_trainvaltest", *folder.resolve().parents[:3])]
    root = next((r for r in roots if r.is_dir()), None)
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for name in [] if root is None else walk(root, ("_camera.json",)):
        words = PurePosixPath(name).name.split("_")
        if root is not None and len(words) == 4 and words[2].isdecimal():
            found.setdefault((words[0], words[1]), []).append((int(words[2]), root / name))
    return found


def _city_camera(file: Path) -> tuple[float, ...]:
    try:
        told = json_of(file)["intrinsic"]
        fx, fy, cx, cy = (float(told[key]) for key in ("fx", "fy", "u0", "v0"))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file}: no intrinsic fx, fy, u0, v0 in it; take it from Cityscapes' camera package") from None
    return _shares(fx, fy, cx, cy, _CITY_SIZE)


# ---- RGB-D -----------------------------------------------------------------------------------------------------------
def _rgbd(folder: Path, names: Sequence[str]) -> Found | None:
    """The pictures of scenes that have depth maps beside them: TUM, ScanNet, image/ and depth/."""
    scenes: dict[str, list[str]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.parent.name in PICTURES:
            scenes.setdefault(str(path.parent.parent), []).append(name)
    kinds = {scene: scene_kind(folder / scene) for scene in scenes}
    found = [
        Recording(scene if scene != "." else folder.resolve().name, frames, _rgbd_camera(folder / scene, kind, frames))
        for scene, frames in scenes.items() if (kind := kinds[scene]) is not None
    ]  # fmt: skip
    if not found:
        return None
    kind = Counter(k for k in kinds.values() if k is not None).most_common(1)[0][0]
    called = {"tum": "TUM RGB-D", "scannet": "ScanNet"}.get(kind, "RGB-D folders")
    return found, called, len(names) - sum(len(r.frames) for r in found)


def _rgbd_camera(scene: Path, kind: str, frames: Sequence[str]) -> tuple[float, ...] | None:
    if kind == "tum":
        return _shares(*tum_camera(scene), (640, 480))
    known = [scene / "intrinsic" / "intrinsic_color.txt", *(scene / name for name in _DEPTH_INTRINSICS)]
    file = next((f for f in known if f.is_file()), None)
    if file is None:
        return None
    matrix = file_matrix(file)
    size = _size(scene / PurePosixPath(frames[0]).parent.name / PurePosixPath(frames[0]).name)
    if size is None:
        return None
    if not all(0.25 < matrix[k, 2] / size[k] < 0.75 for k in (0, 1)):
        raise UserError(
            f"{file}: its axis doesn't fit pictures of {size[0]:g}x{size[1]:g}; give the right camera by "
            "--set intrinsics=fx,fy,cx,cy or intrinsics=learn, and put this file aside"
        )
    return _shares(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], size)


# ---- pieces ----------------------------------------------------------------------------------------------------------
def _shares(fx: float, fy: float, cx: float, cy: float, size: Sequence[float]) -> tuple[float, ...]:
    return fx / size[0], fy / size[1], cx / size[0], cy / size[1]


def _size(picture: Path) -> tuple[float, float] | None:
    """Width and height; None where the picture can't be read."""
    try:
        height, width = decode(read_bytes(picture, picture.name), picture.name).shape[:2]
    except SampleError:
        return None
    return float(width), float(height)
