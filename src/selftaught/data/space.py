"""Where the voxels of a volume lie in the patient, so that what is made of it goes back there."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.errors import UserError, require

__all__ = ["Space", "nifti_bytes", "plain_space"]


@dataclass(frozen=True)
class Space:
    """The axes of a volume's file.

    Attributes:
        affine: (4, 4), voxels of the file to millimetres (right, front, head), as NIfTI has it.
        turn: (3, 2) nibabel's transform from the file's axes to (W, H, D) as a source reads them.
        shape: of the file's first three axes.
    """

    affine: np.ndarray
    turn: np.ndarray
    shape: tuple[int, ...]

    @property
    def read_shape(self) -> tuple[int, ...]:
        """(D, H, W) of the volume as a source reads it."""
        found = np.empty(3, dtype=int)
        found[self.turn[:, 0].astype(int)] = self.shape
        return tuple(found[::-1].tolist())

    def back(self, voxels: np.ndarray) -> np.ndarray:
        """Voxels (D, H, W), as a source reads them, along the axes of the file.

        Raises:
            UserError: other sizes than the file's.
        """
        nib: Any = require("nibabel", "volumes")
        whole = np.asarray(voxels).transpose(2, 1, 0)
        inverse = np.empty_like(self.turn)
        for axis, (place, flip) in enumerate(self.turn):
            inverse[int(place)] = axis, flip
        found: np.ndarray = nib.orientations.apply_orientation(whole, inverse)
        if found.shape != self.shape:
            raise UserError(f"voxels {np.shape(voxels)} don't fit a file of {self.shape}")
        return found


def plain_space(shape: tuple[int, ...], spacing: np.ndarray | None = None) -> Space:
    """The space of a volume (D, H, W) whose file says nothing of it: its axes are taken as the patient's.

    Args:
        shape: (D, H, W).
        spacing: millimetres along D, H and W; None or NaN: 1.
    """
    steps = np.ones(3) if spacing is None else np.nan_to_num(np.asarray(spacing, dtype=np.float64), nan=1.0)
    affine = np.diag([-steps[2], -steps[1], steps[0], 1.0])
    return Space(affine, np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), tuple(shape)[::-1])


def nifti_bytes(voxels: np.ndarray, space: Space) -> bytes:
    """Whole numbers (D, H, W) as a .nii.gz file in a volume's own space; in the smallest type that holds them.

    Args:
        voxels: as a source reads the volume that they belong to.
        space: that volume's.

    Raises:
        UserError: nibabel is missing; other sizes than the space's.
    """
    nib: Any = require("nibabel", "volumes")
    found = space.back(voxels)
    low, high = int(found.min(initial=0)), int(found.max(initial=0))
    kind = next(k for k in (np.uint8, np.int16, np.int32) if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    image = nib.Nifti1Image(np.ascontiguousarray(found.astype(kind)), space.affine)
    return gzip.compress(image.to_bytes(), mtime=0)
