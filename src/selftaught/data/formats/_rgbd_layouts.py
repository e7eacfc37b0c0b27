"""How RGB-D scenes lie on disk: folders of pictures, depth and poses; ScanNet's, TUM's and SUN RGB-D's own ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from selftaught._reading import text_of
from selftaught.data.decoding import decode, read_bytes
from selftaught.data.files import natural
from selftaught.data.intrinsics import read_intrinsics
from selftaught.data.kinds.camera import Camera
from selftaught.errors import SampleError, UserError

__all__ = [
    "LAYOUTS", "PICTURES", "FrameFiles", "Layout", "Scene", "file_matrix", "find_scenes", "quaternion_pose",
    "scene_kind", "tum_camera",
]  # fmt: skip

PICTURES = ("image", "images", "rgb", "color", "colour")
_POSES = ("pose", "poses")
_LABELS = ("label-filt", "label", "labels", "semantic")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_MAPS = (".png", ".npy", ".tif", ".tiff")
_APART = 0.02
_TUM_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3), "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6), "": (525.0, 525.0, 319.5, 239.5),
}  # fmt: skip


class FrameFiles(NamedTuple):
    """One frame: its files and camera.

    Attributes:
        name: of the frame within its scene.
        image: file of the picture.
        depth: file of the depth map.
        label: file of the pixels' classes, or None.
        camera: intrinsics in pixels of the picture or of the depth map, and the pose.
    """

    name: str
    image: Path
    depth: Path
    label: Path | None
    camera: Camera


class Scene(NamedTuple):
    """The frames of one scene, and which map the intrinsics are for: "image" or "depth"."""

    name: str
    frames: list[FrameFiles]
    of: str


class Layout(NamedTuple):
    """One way to lie on disk.

    Attributes:
        fits: whether a folder is a scene of it.
        read: the scene in a folder; takes the folder, its name and the intrinsics that the user gave ("" for none).
        unit: numbers of a depth map in a metre.
        gap: frames to a neighbour that sees the scene from elsewhere.
        packed: whether the three lowest bits of a depth map are its highest (SUN RGB-D).
    """

    fits: Callable[[Path], bool]
    read: Callable[[Path, str, str], Scene]
    unit: float
    gap: int
    packed: bool = False


# ---- pieces ----------------------------------------------------------------------------------------------------------
def quaternion_pose(numbers: Sequence[float]) -> np.ndarray:
    """Pose (4, 4) of tx ty tz qx qy qz qw (TUM's order); the quaternion is normalised.

    Raises:
        UserError: not seven finite numbers, or a quaternion of length 0.
    """
    values = np.asarray(numbers, dtype=np.float64)
    if values.shape != (7,) or not np.isfinite(values).all() or not values[3:].any():
        raise UserError(f"a pose needs seven numbers, tx ty tz qx qy qz qw; got {list(numbers)}")
    x, y, z, w = values[3:] / np.linalg.norm(values[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = values[:3]
    return pose


def _numbers(path: Path) -> np.ndarray:
    """All numbers of a small text file.

    Raises:
        UserError: it can't be read, or holds something else.
    """
    try:
        text = re.sub(r"#.*", "", text_of(path))
        return np.array([float(word) for word in text.replace(",", " ").split()])
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: no plain numbers ({error})") from None


def _as_pose(values: np.ndarray, where: str) -> np.ndarray | None:
    """A pose of 16, 12 or 7 numbers; None where one isn't finite: the camera was lost there."""
    if not np.isfinite(values).all():
        return None
    if values.size == 7:
        return quaternion_pose(values.tolist())
    if values.size not in (12, 16):
        raise UserError(f"{where}: {values.size} numbers where a pose has 16 (4x4), 12 (3x4) or 7 (place, quaternion)")
    pose = np.eye(4)
    pose[: values.size // 4] = values.reshape(-1, 4)
    return pose


def _matrix(values: np.ndarray, where: str) -> np.ndarray:
    """Intrinsics (3, 3) of 4 numbers fx fy cx cy, of 9 or of 16 (the corner of a 4x4 matrix)."""
    if values.size == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    if values.size not in (9, 16):
        raise UserError(f"{where}: {values.size} numbers where intrinsics are fx fy cx cy, or a 3x3 or 4x4 matrix")
    side = int(values.size**0.5)
    return values.reshape(side, side)[:3, :3]


def _given(intrinsics: str, name: str, picture: Path) -> np.ndarray:
    """What the user said of the camera, in pixels of the pictures."""
    try:
        height, width = decode(read_bytes(picture, picture.name), picture.name).shape[:2]
    except SampleError as error:
        raise UserError(f"{picture}: {error.reason}") from None
    shares = read_intrinsics(intrinsics, [name], [(height, width)])[0].astype(np.float64)
    return _matrix(shares * (width, height, width, height), intrinsics)


def file_matrix(path: Path) -> np.ndarray:
    """Intrinsics (3, 3) of a text file.

    Raises:
        UserError: it can't be read, or holds something else.
    """
    return _matrix(_numbers(path), str(path))


def scene_kind(scene: Path) -> str | None:
    """The layout of a folder of pictures and depth maps, with or without poses: tum, scannet or folders; else None."""
    if (scene / "rgb.txt").is_file() and (scene / "depth.txt").is_file():
        return "tum"
    if not (scene / "depth").is_dir():
        return None
    return "scannet" if (scene / "intrinsic").is_dir() else "folders"


def _folder(scene: Path, names: Sequence[str]) -> Path | None:
    return next((scene / name for name in names if (scene / name).is_dir()), None)


def _files(folder: Path | None, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Stem -> file of a folder, in natural order."""
    if folder is None:
        return {}
    found = (p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return {p.stem: p for p in sorted(found, key=lambda p: natural(p.name))}


# ---- folders of pictures, depth and poses ----------------------------------------------------------------------------
def _fits_folders(scene: Path) -> bool:
    """image/ (or rgb/, color/ ...), depth/, and pose/ or poses.txt."""
    poses = _folder(scene, _POSES) is not None or (scene / "poses.txt").is_file()
    return poses and (scene / "depth").is_dir() and _folder(scene, PICTURES) is not None


def _read_folders(scene: Path, name: str, intrinsics: str) -> Scene:
    pictures, maps = _files(_folder(scene, PICTURES), _SUFFIXES), _files(scene / "depth", _MAPS)
    labels = _files(_folder(scene, _LABELS), _MAPS)
    poses = _poses(scene)
    if not pictures:
        raise UserError(f"{scene}: no picture in {_folder(scene, PICTURES)}")
    if intrinsics:
        matrix = _given(intrinsics, name, next(iter(pictures.values())))
    else:
        known = ("intrinsics.txt", "camera-intrinsics.txt", "intrinsic.txt", "camera.txt")
        file = next((scene / k for k in known if (scene / k).is_file()), None)
        file = file or next((scene.parent / k for k in known if (scene.parent / k).is_file()), None)
        if file is None:
            raise UserError(f"{scene}: no intrinsics.txt; put fx fy cx cy into it, or give ?intrinsics=fx,fy,cx,cy")
        matrix = _matrix(_numbers(file), str(file))
    frames = [
        FrameFiles(stem, pictures[stem], maps[stem], labels.get(stem), Camera(matrix, pose))
        for stem, pose in poses.items() if stem in pictures and stem in maps and pose is not None
    ]  # fmt: skip
    return Scene(name, frames, "image")


def _poses(scene: Path) -> dict[str, np.ndarray | None]:
    """Stem -> pose, of a file each or of lines "name numbers" of poses.txt."""
    folder = _folder(scene, _POSES)
    if folder is not None:
        return {stem: _as_pose(_numbers(p), str(p)) for stem, p in _files(folder, (".txt",)).items()}
    found: dict[str, np.ndarray | None] = {}
    for number, line in enumerate(_text(scene / "poses.txt").splitlines(), 1):
        words = re.sub(r"#.*", "", line).replace(",", " ").split()
        if words:
            where = f"{scene / 'poses.txt'}, line {number}"
            try:
                found[Path(words[0]).stem] = _as_pose(np.array([float(w) for w in words[1:]]), where)
            except ValueError:
                raise UserError(f"{where}: write the frame's name and its pose in numbers") from None
    return found


# ---- ScanNet ---------------------------------------------------------------------------------------------------------
def _fits_scannet(scene: Path) -> bool:
    return all((scene / part).is_dir() for part in ("color", "depth", "pose", "intrinsic"))


def _read_scannet(scene: Path, name: str, intrinsics: str) -> Scene:
    """As its reader exports a scan; frames of a lost pose (-inf) are left out; pictures come to the depth's size."""
    pictures, maps = _files(scene / "color", _SUFFIXES), _files(scene / "depth", _MAPS)
    labels, poses = _files(_folder(scene, _LABELS), _MAPS), _poses(scene)
    of, file = "depth", scene / "intrinsic" / "intrinsic_depth.txt"
    if intrinsics:
        of, matrix = "image", _given(intrinsics, name, next(iter(pictures.values())))
    else:
        matrix = _matrix(_numbers(file), str(file))
    frames = [
        FrameFiles(stem, pictures[stem], maps[stem], labels.get(stem), Camera(matrix, pose))
        for stem, pose in poses.items() if stem in pictures and stem in maps and pose is not None
    ]  # fmt: skip
    return Scene(name, frames, of)


# ---- TUM -------------------------------------------------------------------------------------------------------------
def _fits_tum(scene: Path) -> bool:
    return all((scene / part).is_file() for part in ("rgb.txt", "depth.txt", "groundtruth.txt"))


def _read_tum(scene: Path, name: str, intrinsics: str) -> Scene:
    """Pictures, depth maps and poses are joined by time, at most 20 ms apart."""
    pictures, maps = (_listed(scene / file) for file in ("rgb.txt", "depth.txt"))
    track = np.array([[float(w) for w in words] for words in _lines(scene / "groundtruth.txt")])
    if not pictures or not maps or track.ndim != 2 or track.shape[1] != 8:
        raise UserError(f"{scene}: rgb.txt and depth.txt need lines 'time file', groundtruth.txt 'time' and a pose")
    if intrinsics:
        matrix = _given(intrinsics, name, scene / pictures[0][1])
    else:
        matrix = _matrix(np.array(tum_camera(scene)), name)
    depths = np.array([time for time, _ in maps])
    frames = []
    for time, file in pictures:
        k, j = int(np.abs(depths - time).argmin()), int(np.abs(track[:, 0] - time).argmin())
        if abs(depths[k] - time) <= _APART and abs(track[j, 0] - time) <= _APART:
            pose = quaternion_pose(track[j, 1:].tolist())
            frames.append(FrameFiles(Path(file).stem, scene / file, scene / maps[k][1], None, Camera(matrix, pose)))
    return Scene(name, frames, "image")


def tum_camera(scene: Path) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the camera that a folder of TUM's is called after, in pixels of 640 x 480; else the usual."""
    return next((_TUM_CAMERAS[k] for k in _TUM_CAMERAS if k and k in str(scene)), _TUM_CAMERAS[""])


def _text(path: Path) -> str:
    try:
        return text_of(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error})") from None


def _lines(path: Path) -> Iterator[list[str]]:
    for line in _text(path).splitlines():
        words = re.sub(r"#.*", "", line).split()
        if words:
            yield words


def _listed(path: Path) -> list[tuple[float, str]]:
    try:
        return [(float(words[0]), words[1]) for words in _lines(path)]
    except (ValueError, IndexError):
        raise UserError(f"{path}: its lines must be 'time file'") from None


# ---- SUN RGB-D -------------------------------------------------------------------------------------------------------
def _fits_sun(scene: Path) -> bool:
    here = all((scene / part).is_dir() for part in ("image", "depth", "extrinsics"))
    return here and (scene / "intrinsics.txt").is_file()


def _read_sun(scene: Path, name: str, intrinsics: str) -> Scene:
    """One frame, levelled by its extrinsics: the camera's place is 0, the tilt is taken out."""
    pictures, tilts = _files(scene / "image", _SUFFIXES), _files(scene / "extrinsics", (".txt",))
    maps = _files(_folder(scene, ("depth_bfx", "depth")), _MAPS)
    if not pictures or not maps or not tilts:
        raise UserError(f"{scene}: image/, depth/ and extrinsics/ need a file each")
    picture = next(iter(pictures.values()))
    file = scene / "intrinsics.txt"
    matrix = _given(intrinsics, name, picture) if intrinsics else _matrix(_numbers(file), str(file))
    last = sorted(tilts)[-1]
    tilt = _numbers(tilts[last])
    if tilt.size not in (9, 12):
        raise UserError(f"{tilts[last]}: {tilt.size} numbers where a tilt has 9 (3x3) or 12 (3x4)")
    pose = np.eye(4)
    pose[:3, :3] = tilt.reshape(3, -1)[:, :3] @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    frame = FrameFiles(picture.stem, picture, next(iter(maps.values())), None, Camera(matrix, pose))
    return Scene(name, [frame], "image")


LAYOUTS = {
    "tum": Layout(_fits_tum, _read_tum, 5000.0, 15),
    "scannet": Layout(_fits_scannet, _read_scannet, 1000.0, 20),
    "sunrgbd": Layout(_fits_sun, _read_sun, 1000.0, 1, packed=True),
    "folders": Layout(_fits_folders, _read_folders, 1000.0, 1),
}
"""The layouts by name, in the order in which they are tried."""


def find_scenes(root: Path, layout: str = "auto", deepest: int = 4) -> list[tuple[str, str, Path]]:
    """(name, layout, folder) of each scene in a folder: the folder itself, or folders in it, in natural order."""
    tried = LAYOUTS if layout == "auto" else {layout: LAYOUTS[layout]}
    found: list[tuple[str, str, Path]] = []

    def look(folder: Path, prefix: str, depth: int) -> None:
        fitting = next((name for name, one in tried.items() if one.fits(folder)), None)
        if fitting is not None:
            found.append((prefix or folder.resolve().name, fitting, folder))
            return
        if depth >= deepest:
            return
        try:
            inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))]
        except OSError:
            return
        for child in sorted(inside, key=lambda p: natural(p.name)):
            look(child, f"{prefix}/{child.name}" if prefix else child.name, depth + 1)

    look(root, "", 0)
    return found
