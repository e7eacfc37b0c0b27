"""`brain-scans` and `phantoms`: volumes with a mask of their structures, made by the program.

`brain-scans` bends one real picture at random for each "subject": the MNI template of the brain (from nilearn),
with its grey and white matter. `phantoms` draws two ellipses that change along the slices. Both serve to see whether a
method learns from where a slice lies (Chaitanya et al., arXiv 2006.10511); neither says anything about real patients.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from selftaught.data.builtin._entry import Entry, at_least
from selftaught.data.builtin.brain import brain_template, needed_files
from selftaught.data.fields import Field
from selftaught.data.image_source import ImageSource
from selftaught.data.source import TEST, TRAIN, digest

__all__ = ["BrainScans", "MadeScans", "Phantoms", "open_brain_scans", "open_phantoms"]

_BEND = 4.0
KEPT = 64
"""Made scans that stay in memory."""


class MadeScans(ImageSource):
    """Volumes (depth, side, side, 1) uint8 with masks (depth, side, side), each a function of (draw, i)."""

    modality = "volume"

    def __init__(self, name: str, train: int, test: int, depth: int, side: int, draw: int) -> None:
        """Args: what to call it; volumes to train and to test on; slices; side of a slice; another number, others."""
        self.name, self.channels, self.generated = name, 1, True
        self.slices, self.side, self.draw = depth, side, draw
        parts = [TRAIN] * train + [TEST] * test
        self.names = [f"{'test' if p == TEST else 'train'}-{i:03d}" for i, p in enumerate(parts)]
        self.given = np.array(parts, dtype=np.int8)

    make: ClassVar[Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]]
    """Of slices, side, draw and i: intensities (depth, side, side) uint8 and the mask; the last ones stay in memory."""

    def made(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Intensities (depth, side, side) uint8 and the mask of one volume."""
        return type(self).make(self.slices, self.side, self.draw, i)

    @property
    def fields(self) -> dict[str, Field]:
        """The volume and its mask."""
        return {"volume": Field("volume", 1), "mask": Field("mask")}

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        return self.made(i)[0][..., None].copy()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        return self.made(i)[1].copy() if name == "mask" else self.read(i)

    def _is_uint8(self) -> bool:
        return True

    def fingerprint(self) -> str:
        """Of the options: they say every voxel."""
        return digest(f"{self.name} 1", [self.slices, self.side, self.draw], self.given)


def _coarse(rng: np.random.Generator, shape: tuple[int, ...], control: int, deviation: float) -> np.ndarray:
    """A smooth random field: normal numbers on ``control`` points along each axis, between them linear and smoothed."""
    from scipy.ndimage import zoom

    grid = rng.normal(0, deviation, (control,) * 3)
    found: np.ndarray = zoom(grid, [n / control for n in shape], order=3, mode="nearest", grid_mode=True)
    return found


def _grey(level: np.ndarray) -> np.ndarray:
    return np.rint(level.clip(0, 1) * 255).astype(np.uint8)


def voxel_steps(whole: tuple[int, ...], slices: int, side: int) -> np.ndarray:
    """Millimetres between voxels of a volume made of a ``whole`` (D, H, W) of 1 mm, along its three axes."""
    pixel = max(whole[1:]) / side
    return np.array([whole[0] / slices, pixel, pixel])


def bent_places(rng: np.random.Generator, whole: tuple[int, ...], shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Where in a ``whole`` (D, H, W) of 1 mm the voxels of one subject's ``shape`` lie, along each axis: moved
    by up to 3 mm, scaled by up to 5 %, bent by some 4 mm.
    """
    steps, places = voxel_steps(whole, shape[0], shape[1]), []
    for axis, grid in enumerate(np.indices(shape, dtype=np.float64)):
        about = (grid - (shape[axis] - 1) / 2) * steps[axis]
        bent = _coarse(rng, shape, 5, _BEND)
        places.append(whole[axis] / 2 - 0.5 + about * rng.uniform(0.95, 1.05) + rng.uniform(-3, 3) + bent)
    return places


def seen_by_scanner(rng: np.random.Generator, voxels: np.ndarray) -> np.ndarray:
    """Voxels in [0, 1] with a contrast of their own, a bias field and noise, as uint8."""
    level = voxels ** rng.uniform(0.8, 1.3) * (1 + _coarse(rng, voxels.shape, 3, 0.1))
    return _grey(level * 0.9 + rng.normal(0, 0.03, voxels.shape))


@lru_cache(maxsize=KEPT)
def _phantom(slices: int, side: int, draw: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The outer ellipse is widest in the middle of the slices, the inner one wanders from one side to the other."""
    rng = np.random.default_rng([draw, i])
    t = (np.linspace(0, 1, slices) + rng.uniform(-0.05, 0.05))[:, None, None]
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    middle, turn = rng.uniform(-0.1, 0.1, 2), rng.uniform(-0.25, 0.25)
    u, v = (x - middle[0]) * np.cos(turn) + (y - middle[1]) * np.sin(turn), y - middle[1] - (x - middle[0]) * turn
    wide = 0.4 + 0.4 * np.sin(np.pi * t.clip(0, 1)) * rng.uniform(0.9, 1.1)
    outer = (u / wide) ** 2 + (v / (wide * rng.uniform(0.75, 0.95))) ** 2 < 1
    place = (t - 0.5) * 0.9 * wide
    small = (0.3 - 0.12 * t) * rng.uniform(0.85, 1.15) * wide
    inner = ((u - place) / small) ** 2 + ((v + 0.3 * place) / (small * rng.uniform(0.8, 1.2))) ** 2 < 1
    mask = outer.astype(np.int32) + (inner & outer)
    level = np.array([0.08, rng.uniform(0.4, 0.55), rng.uniform(0.6, 0.8)])[mask]
    bias = 1 + _coarse(rng, level.shape, 3, 0.12)
    return _grey(level * bias + rng.normal(0, 0.05, level.shape)), mask


@lru_cache(maxsize=KEPT)
def _brain_scan(slices: int, side: int, draw: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """One subject; see `bent_places`."""
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng([draw, i])
    places = bent_places(rng, brain_template()[0].shape, (slices, side, side))
    found = [map_coordinates(part, places, order=1, mode="constant", output=np.float32) for part in brain_template()]
    voxels, grey, white = (part / 255 for part in found)
    mask = np.argmax(np.stack([1 - grey - white, grey, white]), axis=0).astype(np.int32)
    return seen_by_scanner(rng, voxels), mask


class Phantoms(MadeScans):
    """Two ellipses, one inside the other, whose form and place change along the slices; a bias field; noise."""

    make = staticmethod(_phantom)

    def __init__(self, train: int, test: int, depth: int, side: int, draw: int) -> None:
        """See `open_phantoms`."""
        super().__init__("phantoms", train, test, depth, side, draw)
        self.structures = ["background", "outer", "inner"]


class BrainScans(MadeScans):
    """The MNI template bent by a smooth random field, with its grey and white matter; a bias field; noise."""

    make = staticmethod(_brain_scan)

    def __init__(self, train: int, test: int, depth: int, side: int, draw: int) -> None:
        """See `open_brain_scans`."""
        super().__init__("brain-scans", train, test, depth, side, draw)
        self.structures = ["background", "grey matter", "white matter"]
        steps = voxel_steps(brain_template()[0].shape, depth, side).astype(np.float32)
        self.spacing = np.tile(steps, (train + test, 1))


def open_phantoms(
    *, train: int = 24, test: int = 8, depth: int = 16, side: int = 48, draw: int = 0
) -> Phantoms:  # fmt: skip
    """Generated volumes of two ellipses, with masks.

    Args:
        train: volumes for training.
        test: volumes for testing.
        depth: slices of a volume.
        side: of a slice, in pixels.
        draw: another number gives other volumes.

    Raises:
        UserError: a number out of its range.
    """
    checked_scans("phantoms", train, test, depth, side, draw)
    return Phantoms(train, test, depth, side, draw)


def open_brain_scans(*, train: int = 24, test: int = 8, depth: int = 20, side: int = 64, draw: int = 0) -> BrainScans:
    """The MNI template of the brain bent at random, with masks of its grey and white matter.

    Args:
        train: volumes for training.
        test: volumes for testing.
        depth: horizontal slices of a volume.
        side: of a slice, in pixels.
        draw: another number gives other volumes.

    Raises:
        UserError: nilearn or nibabel is missing, a number out of its range.
    """
    checked_scans("brain-scans", train, test, depth, side, draw)
    return BrainScans(train, test, depth, side, draw)


def checked_scans(name: str, train: int, test: int, depth: int, side: int, draw: int) -> None:
    """Refuse numbers out of their range."""
    least = {"train": (train, 1), "test": (test, 0), "depth": (depth, 4), "side": (side, 16), "draw": (draw, 0)}
    at_least(name, least)


ENTRIES = (
    Entry(
        "brain-scans",
        "volume",
        "a brain (MNI template) bent at random, with its grey and white matter, GENERATED from one, 20x64x64, 24 + 8",
        "nilearn",
        open_brain_scans,
        needed_files(),
    ),
    Entry(
        "phantoms",
        "volume",
        "two ellipses that change along the slices, with masks, GENERATED by the program, 16x48x48, 24 + 8",
        "selftaught itself",
        open_phantoms,
    ),
)
