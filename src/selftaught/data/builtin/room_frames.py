"""`room-frames`: RGB-D frames of rooms with poses, RENDERED by pybullet, with classes of pixels and boxes of bodies.

The rooms of `room`, seen by a camera that looks around from several places. Rendered once, then read from the cache
folder.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.builtin.room import FOV, Furniture, furnish, picture, silent
from selftaught.data.kinds.camera import Camera
from selftaught.data.mapped import cache_folder, kept_arrays
from selftaught.data.packages import data_file
from selftaught.data.rgbd import Frame, RGBDFrames
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import require

__all__ = ["ENTRIES", "RoomFrames", "look_at", "open_room_frames"]

_VERSION = 1
_CLASSES = ("floor", "ceiling", "wall", "table", "body")
_BOXES = ("table", "body")
_SEEN = 40
"""Least pixels of a body that count as a sight of it."""


class Room(NamedTuple):
    """What was rendered of a room: frames, depth, classes, bodies' numbers, poses and boxes.

    Attributes:
        frames: (T, H, W, 3) uint8.
        depth: (T, H, W) float32.
        label: (T, H, W) uint8.
        body: (T, H, W) int16, row of ``boxes``, -1 for the shell.
        poses: (T, 4, 4) camera to world.
        boxes: (B, 7) centre, size, kind.
    """

    frames: np.ndarray
    depth: np.ndarray
    label: np.ndarray
    body: np.ndarray
    poses: np.ndarray
    boxes: np.ndarray


class RoomFrames(RGBDFrames):
    """Frames of rendered rooms; every test room is another than those for training."""

    known_classes = _CLASSES
    box_classes = _BOXES
    labelled = True

    def __init__(self, train: int, test: int, frames: int, size: tuple[int, int], points: int, draw: int) -> None:
        """Args: see `open_room_frames`."""
        self.name, self.generated, self.points, self.draw = "room-frames", True, points, draw
        self.length, self.size = frames, size
        splits = np.array([TRAIN] * train + [TEST] * test, dtype=np.int8)
        scene = np.repeat(np.arange(train + test), frames)
        names = [
            f"{'test' if splits[room] == TEST else 'train'}-{room:02d}/{t:02d}"
            for room in range(train + test) for t in range(frames)
        ]  # fmt: skip
        self._arrange_frames(names, scene, np.tile(size, (len(names), 1)))
        self.given = splits[scene]
        self._values = np.arange(len(_CLASSES))
        self.notes = (f"rooms rendered by pybullet, {size[0]}x{size[1]}, with depth and poses in metres",)

    def _room(self, k: int) -> Room:
        return rendered_room(self.draw, int(self.scene[k]), self.length, *self.size)

    def _frame(self, k: int) -> Frame:
        room, t = self._room(k), k % self.length
        camera = Camera(_intrinsics(*self.size), room.poses[t])
        return Frame(room.frames[t], room.depth[t], camera, room.label[t].astype(np.int64))

    def boxes(self, i: int) -> np.ndarray:
        """Boxes of the table and the bodies that the frame shows; see `RGBDFrames.boxes`."""
        k = int(self.member[i, 0])
        room = self._room(k)
        shown = np.bincount(room.body[k % self.length].ravel() + 1, minlength=len(room.boxes) + 1)[1:]
        found = room.boxes[shown >= _SEEN].copy()
        found[:, :3] -= self._scan(k).corner
        return found.astype(np.float32)

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("room-frames", _VERSION, self.length, list(self.size), self.points, self.draw, self.given)


def open_room_frames(
    *,
    train: int = 24,
    test: int = 8,
    frames: int = 6,
    width: int = 128,
    height: int = 96,
    points: int = 4096,
    draw: int = 0,
) -> RoomFrames:
    """RGB-D frames of rendered rooms, with poses, a class for every pixel, and boxes of what stands there.

    Args:
        train: rooms to learn from.
        test: rooms to judge on.
        frames: of a room; neighbours see much of the same.
        width: of the frames, in pixels.
        height: of the frames.
        points: of each frame's cloud, drawn of its pixels; 0: all.
        draw: another number gives other rooms.

    Raises:
        UserError: a number out of its range; pybullet is missing when a frame is read.
    """
    least = {
        "train": (train, 1), "test": (test, 0), "frames": (frames, 1), "width": (width, 32), "height": (height, 32),
        "points": (points, 0), "draw": (draw, 0),
    }  # fmt: skip
    at_least("room-frames", least)
    return RoomFrames(train, test, frames, (width, height), points, draw)


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pose (4, 4), camera to world, of a camera at ``eye`` that looks at ``target``, upright (z of the world is up)."""
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(ahead, right), ahead, eye
    return pose


def _intrinsics(width: int, height: int) -> np.ndarray:
    focal = 0.5 * height / np.tan(np.radians(FOV) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


@functools.lru_cache(maxsize=64)
def rendered_room(draw: int, k: int, frames: int, width: int, height: int) -> Room:
    """One room's frames, from the cache folder or rendered now."""
    name = f"{_VERSION}-{draw}-{k}-{frames}x{width}x{height}.npz"
    stored = kept_arrays(
        cache_folder() / "room-frames" / name,
        lambda: _render(draw, k, frames, width, height)._asdict(),
        compressed=True,
    )
    return Room(*(stored[field] for field in Room._fields))


def _render(draw: int, k: int, frames: int, width: int, height: int) -> Room:
    with silent():
        bullet: Any = require("pybullet", "depth")
        client = bullet.connect(bullet.DIRECT)
    try:
        bullet.setAdditionalSearchPath(str(data_file("pybullet_data", "table").parent), physicsClientId=client)
        rng = np.random.default_rng([draw, k, 1])
        with silent():
            found = furnish(bullet, client, rng)
        poses, made = [], []
        for eye, target in _sights(rng, frames):
            made.append(picture(bullet, client, eye, target, width, height))
            poses.append(look_at(eye, target))
        colours, depths, segments = (np.stack(part) for part in zip(*made, strict=True))
        boxes = [_box(bullet, client, body) for body in (found.table, *found.bodies)]
        kinds = np.array([0.0] + [1.0] * len(found.bodies))[:, None]
        label, body = _named(segments, found)
        return Room(colours, depths, label, body, np.stack(poses), np.concatenate([np.stack(boxes), kinds], 1))
    finally:
        bullet.disconnect(physicsClientId=client)


def _sights(rng: np.random.Generator, frames: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where the camera is and what it looks at: it walks across the room and looks around, a bit further each time."""
    eye = np.array([rng.uniform(-3.2, -2.0), rng.uniform(-1.5, 1.5), rng.uniform(1.0, 1.7)])
    yaw = np.arctan2(-eye[1], 1.0 - eye[0]) + rng.uniform(-0.3, 0.3)
    turn = rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)
    step = np.array([rng.uniform(0.1, 0.3), rng.uniform(-0.1, 0.1), 0.0])
    found = []
    for t in range(frames):
        angle, down = yaw + turn * (t - frames / 2), rng.uniform(0.15, 0.45)
        here = eye + t * step
        found.append((here, here + np.array([np.cos(angle), np.sin(angle), -down])))
    return found


def _box(bullet: Any, client: int, body: int) -> np.ndarray:
    low, high = (np.array(c) for c in bullet.getAABB(body, -1, physicsClientId=client))
    return np.concatenate([(low + high) / 2, high - low])


def _named(segments: np.ndarray, found: Furniture) -> tuple[np.ndarray, np.ndarray]:
    """Class and row of the box of each pixel, by the number of the body that it shows."""
    label = np.full(segments.shape, _CLASSES.index("wall"), dtype=np.uint8)
    body = np.full(segments.shape, -1, dtype=np.int16)
    label[segments == found.floor], label[segments == found.ceiling] = 0, 1
    for row, number in enumerate((found.table, *found.bodies)):
        where = segments == number
        label[where], body[where] = _CLASSES.index("table" if row == 0 else "body"), row
    return label, body


ENTRIES = (
    Entry(
        "room-frames",
        "points",
        "RGB-D frames of rooms with poses, classes and boxes, RENDERED by pybullet, 128x96, 144 + 48",
        "pybullet, scikit-image",
        open_room_frames,
        (("pybullet_data", "table/table.urdf"), ("skimage", "data/astronaut.png")),
    ),
)
