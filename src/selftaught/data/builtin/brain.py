"""`brain` and `brain-slices`: blocks and slices of the MNI template of the human brain that comes with nilearn.

The template (ICBM 152, 2009a, symmetric) is the mean of 152 T1 images at 1 mm; nilearn brings its grey and white
matter, too, from which every block takes its class. What lies one above the other, and its mirror image on the other
side, is one group, and a group lies in one part of the split.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from selftaught.data.arrays import ImageArrays, Piece, Pieces, labelled_arrays
from selftaught.data.builtin._entry import Entry
from selftaught.data.formats.volumes import VolumeArrays
from selftaught.data.packages import data_file
from selftaught.data.source import TEST, TRAIN, digest
from selftaught.errors import UserError, require

__all__ = ["ENTRIES", "brain_template", "needed_files", "open_brain", "open_brain_slices"]

_FILES = tuple(f"datasets/data/mni_icbm152_{part}_tal_nlin_sym_09a_converted.nii.gz" for part in ("t1", "gm", "wm"))
_NEEDED = tuple(("nilearn", file) for file in _FILES)
_HEAD = (slice(0, 160), slice(24, 212), slice(22, 175))
"""Where the brain lies in (D, H, W): feet to head, front to back, right to left; 153 voxels about the middle of W."""
_LEAST = 0.25
"""Share of a block that must be tissue; less is background and left out."""
_EVERY = 5
"""Of the groups, every fifth is to test on."""
_MOST = 96
_CLASSES = ["grey matter", "white matter"]


@lru_cache(maxsize=1)
def brain_template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1, grey and white matter, (160, 188, 153) uint8 each."""
    nib: Any = require("nibabel", "volumes")
    parts = []
    for file in _FILES:
        voxels = np.asarray(nib.load(data_file("nilearn", file)).dataobj, dtype=np.uint8)  # right, front, top
        parts.append(np.ascontiguousarray(voxels.transpose(2, 1, 0)[:, ::-1, :][_HEAD]))
    return parts[0], parts[1], parts[2]


def needed_files() -> tuple[tuple[str, str], ...]:
    """Package and name of the template's files."""
    return _NEEDED


def _blocks(size: tuple[int, int, int], step: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """Blocks (n, *size) with tissue in them, their classes, their groups, and which part each belongs to."""
    voxels, grey, white = brain_template()
    starts = [range((n - s) % t // 2, n - s + 1, t) for n, s, t in zip(voxels.shape, size, step, strict=True)]
    found, labels, places = [], [], []
    for d in starts[0]:
        for h in starts[1]:
            for i, w in enumerate(starts[2]):
                box = (slice(d, d + size[0]), slice(h, h + size[1]), slice(w, w + size[2]))
                shares = [float(part[box].mean()) / 255 for part in (grey, white)]
                if sum(shares) < _LEAST:
                    continue
                found.append(voxels[box])
                labels.append(int(shares[1] > shares[0]))
                places.append((h, min(i, len(starts[2]) - 1 - i)))
    groups = np.unique(np.array(places), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    part = np.where(np.random.default_rng(0).permutation(int(groups.max()) + 1) % _EVERY == 0, TEST, TRAIN)
    return np.stack(found), np.array(labels, dtype=np.int64), groups, part[groups].astype(np.int8)


def open_brain(*, side: int = 24, depth: int = 12) -> VolumeArrays:
    """Blocks of the MNI template, labelled by the tissue that prevails in them; none overlaps another.

    Args:
        side: height and width of a block, in voxels of 1 mm.
        depth: of a block.

    Raises:
        UserError: nilearn or nibabel is missing, a number out of its range.
    """
    _checked("brain", side=(side, 8), depth=(depth, 4))
    blocks, labels, groups, part = _blocks((depth, side, side), (depth, side, side))
    source = VolumeArrays(Pieces([Piece(None, None, blocks, None)], labels, list(_CLASSES), groups), "brain")
    source.given = part
    return source


def open_brain_slices(*, side: int = 24, apart: int = 3) -> ImageArrays:
    """Squares of horizontal slices of the MNI template, labelled by the tissue that prevails in them.

    Args:
        side: of a square, in pixels of 1 mm.
        apart: millimetres from one slice to the next.

    Raises:
        UserError: nilearn or nibabel is missing, a number out of its range.
    """
    _checked("brain-slices", side=(side, 8), apart=(apart, 1))
    blocks, labels, groups, part = _blocks((1, side, side), (apart, side, side))
    images = np.ascontiguousarray(blocks[:, 0])
    source = labelled_arrays(images, labels, list(_CLASSES), "brain-slices", digest(images, labels))
    source.groups, source.given = groups, part
    return source


def _checked(name: str, **given: tuple[int, int]) -> None:
    """Refuse sizes (value, least) out of their range."""
    for option, (value, least) in given.items():
        if not least <= value <= _MOST:
            raise UserError(f"{name}: {option}={value} must be from {least} to {_MOST}")


ENTRIES = (
    Entry(
        "brain",
        "volume",
        "blocks of a brain (MNI template, T1), 12x24x24 voxels, 2 tissues",
        "nilearn",
        open_brain,
        _NEEDED,
    ),
    Entry(
        "brain-slices",
        "image",
        "squares of slices of a brain (MNI template, T1), 24x24 grey, 2 tissues",
        "nilearn",
        open_brain_slices,
        _NEEDED,
    ),
)
