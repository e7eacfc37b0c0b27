"""RGB-D frames with poses: ``rgbd:FOLDER``, one scene or a folder for each; ScanNet, TUM and SUN RGB-D as they come.

A scene is a folder of ``image/`` (or ``rgb/``, ``color/``), ``depth/`` and ``pose/``, with ``intrinsics.txt`` in it or
beside it; files of a frame share their name. ``label/`` may hold a class for every pixel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from selftaught._paths import expanded
from selftaught._words import plural
from selftaught.data.decoding import decode, read_bytes
from selftaught.data.files import file_stamps
from selftaught.data.formats._format import Format
from selftaught.data.formats._rgbd_layouts import LAYOUTS, FrameFiles, Scene, find_scenes
from selftaught.data.kinds.camera import Camera
from selftaught.data.pixels import conform
from selftaught.data.rgbd import Frame, RGBDFrames
from selftaught.data.scaling import as_uint8
from selftaught.data.source import digest
from selftaught.errors import SampleError, UserError

__all__ = ["FORMATS", "RGBDFiles", "is_rgbd", "open_rgbd"]


class RGBDFiles(RGBDFrames):
    """Frames of scenes in folders."""

    def __init__(self, root: Path, scenes: list[tuple[Scene, str]], name: str, how: dict[str, Any]) -> None:
        """Args: the folder; scenes, each with its layout; the source's name; the options of `open_rgbd`."""
        self.root, self.name, self.how = root, name, how
        self.points, self.far = how["points"], how["far"]
        step = how["step"]
        self._frames = [(frame, scene.of, layout) for scene, layout in scenes for frame in scene.frames[::step]]
        usual = LAYOUTS[scenes[0][1]].gap
        self.gap = how["gap"] or max(1, usual // step)
        counts = [len(scene.frames[::step]) for scene, _ in scenes]
        several = len(scenes) > 1
        names = [
            f"{scene.name}/{frame.name}" if several else frame.name
            for scene, _ in scenes for frame in scene.frames[::step]
        ]  # fmt: skip
        self.labelled = all(frame.label is not None for frame, _, _ in self._frames)
        sizes = np.concatenate(
            [np.tile(self._size(scene, layout), (n, 1)) for (scene, layout), n in zip(scenes, counts, strict=True) if n]
        )
        self.ignored = (0,) if any(layout == "scannet" for _, layout in scenes) else ()  # not annotated
        self._arrange_frames(names, np.repeat(np.arange(len(scenes)), counts), sizes)
        kinds = ", ".join(sorted({layout for _, layout in scenes}))
        self.notes = [
            f"{plural(len(names), 'RGB-D frame')} of {plural(len(scenes), 'scene')} ({kinds}), "
            f"{plural(self.gap, 'frame')} to a neighbour"
        ]

    def _size(self, scene: Scene, layout: str) -> tuple[int, int]:
        """Width and height of a scene's frames, as its first depth map that can be read has them."""
        for frame in scene.frames:
            try:
                height, width = self._depth(frame, layout).shape
            except SampleError:
                continue
            return width, height
        raise UserError(f"{self.name}: no depth map of {scene.name} can be read; run: selftaught data check")

    def _depth(self, files: FrameFiles, layout: str) -> np.ndarray:
        """Metres (H, W), 0 where unknown."""
        found = decode(read_bytes(files.depth, files.name), files.name)
        if found.shape[2] != 1 or found.dtype == np.uint8:
            raise SampleError(files.name, f"{files.depth.name} is {found.dtype} x{found.shape[2]}, no depth map")
        values = found[:, :, 0]
        if LAYOUTS[layout].packed and values.dtype == np.uint16:
            values = (values >> 3) | (values << 13)
        unit = self.how["unit"] or (LAYOUTS[layout].unit if values.dtype == np.uint16 else 1.0)
        metres = values.astype(np.float32) / np.float32(unit)
        return np.where(np.isfinite(metres) & (metres > 0), metres, 0).astype(np.float32)

    def _frame(self, k: int) -> Frame:
        files, of, layout = self._frames[k]
        name = self.scans[k]
        depth = self._depth(files, layout)
        image = as_uint8(conform(decode(read_bytes(files.image, name), name), 3, name))
        (height, width), (rows, columns) = depth.shape, image.shape[:2]
        expected = tuple(self.values["frame_size"][k].astype(int).tolist())
        if (width, height) != expected:
            raise SampleError(name, f"a depth map of {width}x{height} in a scene of {expected[0]}x{expected[1]}")
        intrinsics = files.camera.intrinsics.astype(np.float64)
        if (rows, columns) != (height, width):
            way = cv2.INTER_AREA if rows >= height else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=way)
            if of == "image":
                intrinsics = _resized(intrinsics, width / columns, height / rows)
        pose = files.camera.pose.astype(np.float64)
        if self.how["up"] == "y":
            turn = np.eye(4)
            turn[1:3, 1:3] = [[0, -1], [1, 0]]
            pose = turn @ pose
        label = self._label(files, (height, width)) if self.labelled else None
        return Frame(np.ascontiguousarray(image), depth, Camera(intrinsics, pose), label)

    def _label(self, files: FrameFiles, size: tuple[int, int]) -> np.ndarray:
        assert files.label is not None
        found = decode(read_bytes(files.label, files.name), files.name)
        if found.shape[2] != 1 or found.dtype.kind not in "ui":
            raise SampleError(files.name, f"{files.label.name}: classes are one channel of whole numbers")
        mask: np.ndarray = found[:, :, 0].astype(np.int32)
        if mask.shape != size:
            mask = np.asarray(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST))
        return mask.astype(np.int64)

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times, cameras and options."""
        files = [str(f.relative_to(self.root)) for frame, _, _ in self._frames for f in (frame.image, frame.depth)]
        cameras = np.stack([np.concatenate([f.camera.intrinsics.ravel(), f.camera.pose.ravel()])
                            for f, _, _ in self._frames])  # fmt: skip
        how = [f"{key}={value}" for key, value in sorted(self.how.items())]
        return digest("rgbd", self.name, how, files, file_stamps(self.root, files), cameras)

    def origin(self) -> str:
        """The folder."""
        return str(self.root.resolve())


def _resized(intrinsics: np.ndarray, across: float, down: float) -> np.ndarray:
    """Of a picture resized by these factors; the first pixel's centre is at 0."""
    found = intrinsics.copy()
    for axis, factor in enumerate((across, down)):
        found[axis, axis] *= factor
        found[axis, 2] = (intrinsics[axis, 2] + 0.5) * factor - 0.5
    return found


def is_rgbd(folder: Path) -> bool:
    """Whether a folder is a scene of RGB-D frames with poses, or holds some."""
    return bool(find_scenes(folder))


def open_rgbd(
    address: str | Path,
    name: str = "",
    *,
    points: int = 8192,
    far: float = 10.0,
    step: int = 1,
    gap: int = 0,
    intrinsics: str = "",
    unit: float = 0.0,
    up: str = "z",
    layout: str = "auto",
) -> RGBDFiles:
    """RGB-D frames of one scene, or of all scenes in a folder.

    Args:
        address: the folder.
        name: what to call the source; "": the folder's name.
        points: most points of a frame's cloud, drawn of its pixels; 0: all.
        far: depth in metres beyond which pixels are left out of the cloud.
        step: take every so many frames of a scene.
        gap: frames, of those taken, to the neighbour that is rendered beside a frame; 0: by the layout (half a second
            of video, the next one of single pictures).
        intrinsics: fx,fy,cx,cy in pixels of the pictures, fov=70, or a file; "": what lies in the folder.
        unit: numbers of a depth map in a metre; 0: by the layout (1000 for 16 bits, TUM 5000, 1 for floats).
        up: axis of the poses' world that points upwards: "z", or "y", which is then turned to z.
        layout: folders, scannet, tum, sunrgbd; "auto" tells by what lies there.

    Raises:
        UserError: no scene there, a broken pose or camera, a number out of range.
    """
    root = expanded(address)
    where = f"rgbd:{address}"
    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"{where}: layout={layout} may be auto, {', '.join(LAYOUTS)}")
    if points < 0 or step < 1 or gap < 0 or not far > 0 or unit < 0 or up not in ("y", "z"):
        raise UserError(f"{where}: points, gap and unit from 0, step from 1, far above 0, up y or z")
    found = find_scenes(root, layout) if root.is_dir() else []
    if not found:
        raise UserError(
            f"{where}: no scene there: a folder with image/, depth/, pose/ and intrinsics.txt, "
            "or ScanNet's, TUM's or SUN RGB-D's own"
        )
    scenes = [(LAYOUTS[kind].read(folder, name, intrinsics), kind) for name, kind, folder in found]
    kept = [(scene, kind) for scene, kind in scenes if scene.frames]
    if not kept:
        raise UserError(f"{where}: no frame with picture, depth and pose; the files of a frame share their name")
    how = {"points": points, "far": far, "step": step, "gap": gap, "intrinsics": intrinsics, "unit": unit, "up": up}
    return RGBDFiles(root, kept, name or f"{root.resolve().name}/", how)


FORMATS = (Format("points", 4, scheme="rgbd", address=open_rgbd, folder=open_rgbd, holds=is_rgbd),)
