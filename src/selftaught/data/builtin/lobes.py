"""`brain-lobes`: one person's head with its lobes, bent at random for each "subject".

The head is "ch2", the mean of 27 T1 scans of one person at 1 mm; its lobes are those of the AAL atlas on the same grid.
Debian's package mricron-data (16 MB, BSD-3; ch2 and AAL ask to be cited) brings both. Which lobe a voxel is of is not
told by its grey value but by its place, which `brain-scans` with its two tissues can't ask.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.builtin.scans import KEPT, MadeScans, bent_places, checked_scans, seen_by_scanner, voxel_steps
from selftaught.data.debian import debian_files
from selftaught.data.mapped import build_once, cache_folder
from selftaught.errors import UserError

__all__ = ["ENTRIES", "LOBES", "BrainLobes", "ch2_and_lobes", "fetch_ch2", "open_brain_lobes", "read_nifti"]

LOBES = {
    "frontal": ("Precentral", "Frontal", "Rolandic", "Supp_Motor", "Olfactory", "Rectus", "Paracentral"),
    "limbic": ("Insula", "Cingulum", "Hippocampus", "ParaHippocampal", "Amygdala"),
    "occipital": ("Calcarine", "Cuneus", "Lingual", "Occipital", "Fusiform"),
    "parietal": ("Postcentral", "Parietal", "SupraMarginal", "Angular", "Precuneus"),
    "deep": ("Caudate", "Putamen", "Pallidum", "Thalamus"),
    "temporal": ("Heschl", "Temporal"),
    "cerebellum": ("Cerebelum", "Vermis"),
}
"""The 116 regions of the AAL atlas by the start of their names."""

_PACKAGE, _ROOT = "mricron-data", "/usr/share/mricron/templates"
_WANTED = ("ch2.nii.gz", "aal.nii.gz", "aal.nii.txt")
_MARGIN = 8


def ch2_folder() -> Path:
    """Where the head and its atlas lie, or will lie, in the cache folder."""
    return cache_folder() / "ch2"


def fetch_ch2() -> Path:
    """The folder of the head and its atlas, made out of Debian's package if need be.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    return build_once(ch2_folder(), _build)


def _build(folder: Path) -> None:
    files = dict(debian_files(_PACKAGE, _ROOT, _WANTED.__contains__))
    lost = next((name for name in _WANTED if name not in files), None)
    if lost is not None:
        raise UserError(f"Debian's package {_PACKAGE} holds no {lost} under {_ROOT}; is it another version?")
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def read_nifti(path: Path) -> np.ndarray:
    """The volume (X, Y, Z) of a gzipped NIfTI-1 file of unsigned bytes.

    Raises:
        UserError: it is something else.
    """
    content = gzip.decompress(path.read_bytes())
    header = np.frombuffer(content[:348], np.uint8)
    size, kind = header[:4].view("<i4")[0], header[70:72].view("<i2")[0]
    shape = header[42:48].view("<i2").astype(int)
    start = int(header[108:112].view("<f4")[0])
    if size != 348 or kind != 2 or len(content) < start + int(np.prod(shape)):
        raise UserError(f"{path}: not a NIfTI-1 volume of bytes")
    return np.frombuffer(content, np.uint8, int(np.prod(shape)), start).reshape(shape, order="F")


def ch2_and_lobes() -> tuple[np.ndarray, np.ndarray]:
    """The head (181, 217, 181) uint8, right, front and top rising, and the lobe of each voxel: 0 none, else its place
    in `LOBES` from 1. A head's 99.5th percentile within the brain is 255.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    folder = fetch_ch2()
    volume, atlas = (read_nifti(folder / f"{name}.nii.gz") for name in ("ch2", "aal"))
    lobe = np.zeros(256, dtype=np.uint8)
    for line in (folder / "aal.nii.txt").read_text().splitlines():
        if line.strip():
            number, name = line.split()[:2]
            lobe[int(number)] = 1 + next(i for i, starts in enumerate(LOBES.values()) if name.startswith(starts))
    bright = np.clip(volume * (255 / np.percentile(volume[atlas > 0], 99.5)), 0, 255).astype(np.uint8)
    return bright, lobe[atlas]


@lru_cache(maxsize=1)
def _head() -> tuple[np.ndarray, np.ndarray]:
    """The box about the brain, feet to head, front to back, and across: (D, H, W) each."""
    volume, lobe = (part.transpose(2, 1, 0)[:, ::-1] for part in ch2_and_lobes())
    inside = np.argwhere(lobe > 0)
    low, high = inside.min(0) - _MARGIN, inside.max(0) + 1 + _MARGIN
    box = tuple(slice(max(a, 0), b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return np.ascontiguousarray(volume[box]), np.ascontiguousarray(lobe[box])


@lru_cache(maxsize=KEPT)
def _scan(slices: int, side: int, draw: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.ndimage import map_coordinates

    rng = np.random.default_rng([draw, i])
    volume, lobe = _head()
    places = bent_places(rng, volume.shape, (slices, side, side))
    voxels = map_coordinates(volume, places, order=1, mode="constant", output=np.float32) / 255
    mask = map_coordinates(lobe, places, order=0, mode="constant").astype(np.int32)
    return seen_by_scanner(rng, voxels), mask


class BrainLobes(MadeScans):
    """The head bent by a smooth random field, with its lobes; a bias field; noise."""

    make = staticmethod(_scan)

    def __init__(self, train: int, test: int, depth: int, side: int, draw: int) -> None:
        """See `open_brain_lobes`."""
        fetch_ch2()
        super().__init__("brain-lobes", train, test, depth, side, draw)
        self.structures = ["background", *LOBES]
        steps = voxel_steps(_head()[0].shape, depth, side).astype(np.float32)
        self.spacing = np.tile(steps, (train + test, 1))


def open_brain_lobes(*, train: int = 24, test: int = 8, depth: int = 20, side: int = 64, draw: int = 0) -> BrainLobes:
    """One head bent at random, with masks of seven lobes.

    Args:
        train: volumes for training.
        test: volumes for testing.
        depth: horizontal slices of a volume.
        side: of a slice, in pixels.
        draw: another number gives other volumes.

    Raises:
        UserError: the package is nowhere, and can't be fetched; a number out of its range.
    """
    checked_scans("brain-lobes", train, test, depth, side, draw)
    return BrainLobes(train, test, depth, side, draw)


ENTRIES = (
    Entry(
        "brain-lobes",
        "volume",
        "a head (ch2) bent at random, with the lobes of the AAL atlas, GENERATED from one, 20x64x64, 24 + 8",
        "Debian's mricron-data",
        open_brain_lobes,
        fetch=fetch_ch2,
        here=lambda: ch2_folder().exists() or Path(_ROOT).is_dir(),
    ),
)
