"""`room`: clips of a camera that moves through rooms, RENDERED by pybullet, with metric depth of every pixel.

Walls, floor and ceiling are photographs from scikit-image's wheel; a table and scattered bodies stand around, and in
`room?moving=3` some bodies move on their own. Every clip is another room. Rendered once, then read from the cache
folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.fields import Field
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.mapped import cache_folder, kept_arrays
from selftaught.data.packages import data_file
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError, require

__all__ = ["ENTRIES", "Room", "open_room"]

_VERSION = 1
_NEAR, _FAR, FOV = 0.05, 15.0, 60.0
HALF = (4.0, 3.0, 1.4)
_WALLS = (
    "astronaut.png", "coffee.png", "chelsea.png", "brick.png", "gravel.png", "grass.png", "hubble_deep_field.jpg",
    "ihc.png", "rocket.jpg", "retina.jpg", "coins.png",
)  # fmt: skip
_BODIES, _TEXTURE = 9, 256


class Clip(NamedTuple):
    """What was rendered: frames (T, H, W, 3) uint8, depth (T, H, W) float32 metres, and which pixels move, bool."""

    frames: np.ndarray
    depth: np.ndarray
    moving: np.ndarray


class Room(Clips):
    """Clips through rendered rooms.

    Fields: ``clip`` (T, H, W, 3), ``depth`` (T, H, W, 1) in metres, ``moving`` (T, H, W, 1), 1 where something moves on
    its own; value ``intrinsics``: fx, fy, cx, cy as shares of width and height. Every test room is another than those
    for training.
    """

    def __init__(self, train: int, test: int, frames: int, size: tuple[int, int], moving: int, draw: int) -> None:
        """Args: see `open_room`."""
        self.name, self.generated, self.channels, self.rate = "room", True, 3, 10.0
        self.length, self.size, self.moving, self.draw = frames, size, moving, draw
        splits = [TRAIN] * train + [TEST] * test
        self._cut([f"{'test' if s == TEST else 'train'}-{i:02d}" for i, s in enumerate(splits)], Cut())
        self.given = np.array(splits, dtype=np.int8)
        width, height = size
        fy = 0.5 / np.tan(np.radians(FOV) / 2)
        # pixel centres at whole numbers: the middle of the picture lies at (W - 1) / 2
        shares = (fy * height / width, fy, (width - 1) / 2 / width, (height - 1) / 2 / height)
        self.values = {"intrinsics": np.tile(np.array(shares, dtype=np.float32), (len(splits), 1))}
        self.notes = (f"rooms rendered by pybullet, {width}x{height}; depth in metres is known and used to judge only",)

    @property
    def fields(self) -> dict[str, Field]:
        """The clip, its depth, what moves, and what is known of the camera."""
        return {"clip": Field("clip", 3), "depth": Field("clip", 1), "moving": Field("clip", 1)} | self._known_fields()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name not in ("depth", "moving"):
            return super()._field(name, i, min_side, frames)
        found = getattr(self._rendered(int(self.places[i, 0])), name)
        found = found if frames is None else found[np.asarray(frames)]
        return found[..., None].astype(np.float32 if name == "depth" else np.uint8)

    def _length(self, k: int) -> int:
        return self.length

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        return self._rendered(k).frames[positions].copy()

    def _rendered(self, k: int) -> Clip:
        return rendered(self.draw, k, self.length, *self.size, self.moving)

    def fingerprint(self) -> str:
        """Of the options: they say every pixel."""
        return digest("room", _VERSION, len(self), self.length, list(self.size), self.moving, self.draw, self.given)


def open_room(
    *,
    train: int = 16,
    test: int = 4,
    frames: int = 16,
    width: int = 128,
    height: int = 96,
    moving: int = 0,
    draw: int = 0,
) -> Room:
    """Clips of a camera that moves through rooms, rendered, with metric depth.

    Args:
        train: rooms to learn from.
        test: rooms to judge on.
        frames: of a clip; the camera goes about 8 cm from one to the next.
        width: of the frames, in pixels.
        height: of the frames.
        moving: bodies in each room that move on their own.
        draw: another number gives other rooms.

    Raises:
        UserError: a number out of its range; pybullet is missing when a clip is read.
    """
    least = {
        "train": (train, 1), "test": (test, 0), "frames": (frames, 3), "width": (width, 32), "height": (height, 32),
        "moving": (moving, 0), "draw": (draw, 0),
    }  # fmt: skip
    at_least("room", least)
    return Room(train, test, frames, (width, height), moving, draw)


@functools.lru_cache(maxsize=64)
def rendered(draw: int, k: int, frames: int, width: int, height: int, moving: int) -> Clip:
    """One clip, from the cache folder or rendered now."""
    name = f"{_VERSION}-{draw}-{k}-{frames}x{width}x{height}-{moving}.npz"

    def make() -> dict[str, np.ndarray]:
        clip = _render(draw, k, frames, width, height, moving)
        return {"frames": clip.frames, "depth": clip.depth, "moving": clip.moving}

    stored = kept_arrays(cache_folder() / "room" / name, make)
    return Clip(stored["frames"], stored["depth"].astype(np.float32), stored["moving"])


def _render(draw: int, k: int, frames: int, width: int, height: int, moving: int) -> Clip:
    with silent():
        bullet: Any = require("pybullet", "depth")
        client = bullet.connect(bullet.DIRECT)
    try:
        bullet.setAdditionalSearchPath(str(data_file("pybullet_data", "table").parent), physicsClientId=client)
        rng = np.random.default_rng([draw, k])
        with silent():
            furnish(bullet, client, rng)
            movers = _movers(bullet, client, rng, moving)
        eyes, targets = _path(rng, frames)
        made = []
        for t in range(frames):
            for mover in movers:
                mover.to(bullet, client, t)
            made.append(picture(bullet, client, eyes[t], targets[t], width, height))
        bodies = [mover.body for mover in movers]
        colours, depths, segments = (np.stack(part) for part in zip(*made, strict=True))
        return Clip(colours, depths, np.isin(segments, bodies))
    finally:
        bullet.disconnect(physicsClientId=client)


class Furniture(NamedTuple):
    """Numbers of what stands in a room: floor, ceiling, the four walls, the table, the bodies."""

    floor: int
    ceiling: int
    walls: list[int]
    table: int
    bodies: list[int]


def furnish(bullet: Any, client: int, rng: np.random.Generator) -> Furniture:
    """Walls of photographs, a table, bodies on the floor."""
    shell = []
    x, y, z = HALF
    walls = (
        ((x, y, 0.05), (0, 0, -0.05)), ((x, y, 0.05), (0, 0, 2 * z + 0.05)), ((0.05, y, z), (x, 0, z)),
        ((0.05, y, z), (-x, 0, z)), ((x, 0.05, z), (0, y, z)), ((x, 0.05, z), (0, -y, z)),
    )  # fmt: skip
    chosen = rng.permutation(len(_WALLS))[: len(walls)]
    with tempfile.TemporaryDirectory() as folder:
        for (half, place), at in zip(walls, chosen.tolist(), strict=True):
            picture = _texture(at, Path(folder))
            shape = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
            body = bullet.createMultiBody(0, -1, shape, place, physicsClientId=client)
            loaded = bullet.loadTexture(str(picture), physicsClientId=client)
            bullet.changeVisualShape(body, -1, textureUniqueId=loaded, physicsClientId=client)
            shell.append(int(body))
    table = (float(rng.uniform(0.5, 2.5)), float(rng.uniform(-1.8, 1.8)), 0)
    stands = int(bullet.loadURDF("table/table.urdf", table, physicsClientId=client))
    bodies = []
    for _ in range(_BODIES):
        place = (rng.uniform(-2.0, 3.3), rng.uniform(-2.5, 2.5), rng.uniform(0.1, 1.0))
        bodies.append(_body(bullet, client, rng, place))
    return Furniture(shell[0], shell[1], shell[2:], stands, bodies)


def _texture(at: int, folder: Path) -> Path:
    picture = cv2.imread(str(data_file("skimage", f"data/{_WALLS[at]}")), cv2.IMREAD_COLOR)
    if picture is None:
        raise UserError(f"the installed scikit-image's {_WALLS[at]} can't be read; pip install scikit-image again")
    path = folder / f"{at}.png"
    cv2.imwrite(str(path), cv2.resize(picture, (_TEXTURE, _TEXTURE), interpolation=cv2.INTER_AREA))
    return path


def _body(bullet: Any, client: int, rng: np.random.Generator, place: Any) -> int:
    number = int(rng.integers(1000))
    turn = bullet.getQuaternionFromEuler(rng.uniform(0, 2 * np.pi, 3).tolist())
    scale = float(rng.uniform(3.0, 6.0))
    file = f"random_urdfs/{number:03d}/{number:03d}.urdf"
    place = [float(value) for value in place]
    return int(bullet.loadURDF(file, place, turn, globalScaling=scale, physicsClientId=client))


class _Mover(NamedTuple):
    body: int
    start: np.ndarray
    step: np.ndarray

    def to(self, bullet: Any, client: int, t: int) -> None:
        """Put the body where it is at frame t."""
        place = (self.start + self.step * t).tolist()
        bullet.resetBasePositionAndOrientation(self.body, place, (0, 0, 0, 1), physicsClientId=client)


def _movers(bullet: Any, client: int, rng: np.random.Generator, count: int) -> list[_Mover]:
    """Textured boxes that go across, or away ahead of the camera, as cars do."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(count):
            half = rng.uniform(0.25, 0.5, 3).tolist()
            shape = bullet.createVisualShape(bullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
            start = np.array([rng.uniform(-0.5, 2.0), rng.uniform(-1.5, 1.5), half[2]])
            body = int(bullet.createMultiBody(0, -1, shape, start.tolist(), physicsClientId=client))
            loaded = bullet.loadTexture(
                str(_texture(int(rng.integers(len(_WALLS))), Path(folder))), physicsClientId=client
            )
            bullet.changeVisualShape(body, -1, textureUniqueId=loaded, physicsClientId=client)
            step = np.array([rng.uniform(-0.04, 0.08), rng.choice([-1, 1]) * rng.uniform(0.03, 0.08), 0.0])
            found.append(_Mover(body, start, step))
    return found


def _path(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the camera is (T, 3) and what it looks at (T, 3): ahead, with slow swings to the sides."""
    t = np.arange(frames)
    step, swing, phase = rng.uniform(0.06, 0.1), rng.uniform(0.1, 0.4), rng.uniform(0, 2 * np.pi)
    x = -3.4 + step * t
    y = rng.uniform(-1.2, 1.2) + swing * np.sin(0.25 * t + phase)
    z = rng.uniform(0.9, 1.5) + 0.05 * np.sin(0.4 * t + phase)
    eyes = np.stack((x, y, z), 1)
    aside = rng.uniform(-1.5, 1.5) + 0.5 * np.sin(0.15 * t + phase)
    targets = np.stack((x + 4.0, y + aside, z - 0.2 + 0 * t), 1)
    return eyes, targets


def picture(
    bullet: Any, client: int, eye: np.ndarray, target: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (H, W, 3), depth along the axis (H, W) in metres, and the number of the body seen (H, W)."""
    view = bullet.computeViewMatrix(eye.tolist(), target.tolist(), [0, 0, 1])
    lens = bullet.computeProjectionMatrixFOV(FOV, width / height, _NEAR, _FAR)
    shot = bullet.getCameraImage(
        width, height, view, lens, renderer=bullet.ER_TINY_RENDERER, physicsClientId=client, shadow=0,
    )  # fmt: skip
    colours = np.reshape(shot[2], (height, width, 4))[..., :3].astype(np.uint8)
    buffer = np.reshape(shot[3], (height, width)).astype(np.float64)
    depth = _FAR * _NEAR / (_FAR - (_FAR - _NEAR) * buffer)
    return colours, depth.astype(np.float32), np.reshape(shot[4], (height, width)).astype(np.int32)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """pybullet writes to the process's standard output and error by itself; both are shut meanwhile."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept, nothing = [os.dup(number) for number in (1, 2)], os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nothing, number)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with contextlib.suppress(OSError, TypeError):  # what C still holds back would come out later
            ctypes.CDLL(None).fflush(None)
        for number, own in zip((1, 2), kept, strict=True):
            os.dup2(own, number)
            os.close(own)
        os.close(nothing)


ENTRIES = (
    Entry(
        "room",
        "clip",
        "a camera moves through rooms, RENDERED by pybullet, 16 frames 128x96 with metric depth, 16 + 4",
        "pybullet, scikit-image",
        open_room,
        (("pybullet_data", "table/table.urdf"), ("skimage", "data/astronaut.png")),
    ),
)
