"""RGB-D frames with poses: a picture, its depth, the camera, and the cloud of points that they make together.

A frame's cloud has the columns of all clouds (`selftaught.data.clouds.COLUMNS`): x y z of the world in metres, z
upwards, counted from the cloud's corner; the camera's pose and that of its neighbour are counted from there, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.clouds import LABEL_OF_POINTS, Cloud, Clouds
from selftaught.data.fields import Field
from selftaught.data.kinds.camera import Camera
from selftaught.data.source import Source, whole_of
from selftaught.errors import SampleError, UserError

__all__ = ["Frame", "RGBDFrames", "backprojected", "depth_normals", "rgbd_of"]


class Frame(NamedTuple):
    """One RGB-D frame.

    Attributes:
        image: (H, W, 3) uint8.
        depth: (H, W) float32, metres along the camera's axis, 0 where unknown.
        camera: intrinsics in pixels of ``image``, the centre of the first pixel at 0; pose camera to world.
        label: (H, W) int64, the class of each pixel, or None.
    """

    image: np.ndarray
    depth: np.ndarray
    camera: Camera
    label: np.ndarray | None = None


def backprojected(depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Where each pixel of a depth map lies in the camera's axes: (H, W) metres to (H, W, 3)."""
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float64)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    return np.stack(((x - cx) / fx * depth, (y - cy) / fy * depth, depth.astype(np.float64)), -1)


def depth_normals(places: np.ndarray) -> np.ndarray:
    """Normals (H, W, 3) of a surface seen by a camera, (H, W, 3), towards the camera; zeros where it has none."""
    across, down = np.gradient(places, axis=1), np.gradient(places, axis=0)
    normal = np.cross(across, down)
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 1e-12)
    return np.where((normal * places).sum(2, keepdims=True) > 0, -normal, normal)


class RGBDFrames(Clouds):
    """RGB-D frames of scenes; a class defines `_frame` alone.

    Fields: ``points`` (P, 9) and, where pixels have classes, ``point_label`` (P,); ``image``, ``depth``, ``camera``;
    of a neighbouring frame of the same scene ``other_image`` and ``other_camera`` (the frame itself where there is
    none). The value ``frame_size`` is width and height.

    Attributes:
        points: most points of a cloud, drawn of all pixels with a depth, the same at every reading; 0: all.
        far: depth in metres beyond which pixels are left out of the cloud.
        scene: (n,) number of each frame's scene.
        gap: frames to the neighbour.
        box_classes: names of the kinds of boxes; empty where there are no boxes.
    """

    points: int = 0
    far: float = 10.0
    gap: int = 1
    scene: np.ndarray
    box_classes: tuple[str, ...] = ()
    _held: tuple[int, Frame, Cloud] | None = None

    def _frame(self, k: int) -> Frame:
        raise SampleError(self.scans[k], "no reader")  # pragma: no cover - every class defines it

    def _arrange_frames(self, names: Sequence[str], scene: np.ndarray, sizes: np.ndarray) -> None:
        """Make a sample of each frame.

        Args:
            names: of the frames.
            scene: (n,) number of each one's scene; frames of a scene follow one another.
            sizes: (n, 2) width and height.
        """
        self.scans, self.scene = list(names), np.asarray(scene, dtype=np.int64)
        self.cut(0.0)
        self.groups = self.scene.copy() if len(np.unique(self.scene)) > 1 else None
        self.values = {"frame_size": np.asarray(sizes, dtype=np.float32)}

    @property
    def fields(self) -> dict[str, Field]:
        """The cloud first; see the class."""
        found = dict(super().fields)
        known = self._known_fields()
        own = {name: field for name, field in found.items() if name not in known}
        own |= {"image": Field("image", 3), "depth": Field("depth", 1), "camera": Field("camera")}
        return own | {"other_image": Field("image", 3), "other_camera": Field("camera")} | known

    def neighbour(self, k: int) -> int:
        """The frame of the same scene that lies ``gap`` after frame k, else before it, else k itself."""
        for other in (k + self.gap, k - self.gap):
            if 0 <= other < len(self.scene) and self.scene[other] == self.scene[k]:
                return other
        return k

    def boxes(self, i: int) -> np.ndarray:
        """What stands in sample i, upright boxes (B, 7): centre, size, kind; in the cloud's coordinates."""
        return np.zeros((0, 7), dtype=np.float32)

    def _scan(self, k: int) -> Cloud:
        return self._whole(k)[1]

    def _whole(self, k: int) -> tuple[Frame, Cloud]:
        """Frame and cloud; those of the last frame are kept, since its fields are asked for one by one."""
        if self._held is None or self._held[0] != k:
            frame = self._frame(k)
            self._held = (k, frame, self._cloud_of(frame, k))
        return self._held[1], self._held[2]

    def _cloud_of(self, frame: Frame, k: int) -> Cloud:
        places = backprojected(frame.depth, frame.camera.intrinsics)
        row = np.flatnonzero((frame.depth > 0) & (frame.depth <= self.far))
        if len(row) < 16:
            raise SampleError(self.scans[k], f"{len(row)} pixels with a depth of up to {self.far:g} m")
        if self.points and len(row) > self.points:
            row = np.sort(np.random.default_rng([len(self.scans), k]).choice(row, self.points, replace=False))
        turn, shift = frame.camera.pose[:3, :3].astype(np.float64), frame.camera.pose[:3, 3].astype(np.float64)
        world = places.reshape(-1, 3)[row] @ turn.T + shift
        normal = depth_normals(places).reshape(-1, 3)[row] @ turn.T
        corner = np.floor(world.min(0))
        points = np.concatenate([world - corner, frame.image.reshape(-1, 3)[row], normal], 1, dtype=np.float32)
        label = None if frame.label is None else frame.label.reshape(-1)[row].astype(np.int64)
        return Cloud(points, label, corner, row)

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name in ("points", LABEL_OF_POINTS) or name in self._known_fields():
            return super()._field(name, i, min_side, frames)
        k = int(self.member[i, 0])
        frame, cloud = self._whole(k)
        if name.startswith("other_"):
            other = self.neighbour(k)
            frame = frame if other == k else self._frame(other)
        if name.endswith("image"):
            return frame.image.copy()
        if name == "depth":
            return frame.depth[..., None].astype(np.float32)
        pose = frame.camera.pose.astype(np.float64)
        pose[:3, 3] -= cloud.corner
        return Camera(frame.camera.intrinsics.astype(np.float32), pose.astype(np.float32))


def rgbd_of(source: Source) -> tuple[RGBDFrames, np.ndarray]:
    """The RGB-D source that a source is a part of, and which of its samples these are.

    Raises:
        UserError: a source of something else.
    """
    parent, indices = whole_of(source)
    if not isinstance(parent, RGBDFrames):
        raise UserError(f"{source.name} has no RGB-D frames; give rgbd:FOLDER, or the built-in room-frames")
    return parent, indices
