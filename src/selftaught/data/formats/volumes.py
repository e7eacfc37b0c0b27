"""Volumes: .npy files and stacks, NIfTI, NRRD and MetaImage files (``pip install 'selftaught[volumes]'``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import expanded
from selftaught.data.arrays import IMAGE_KEYS, Pieces, collect
from selftaught.data.files import walk
from selftaught.data.formats._format import Format
from selftaught.data.formats._scans import SCANS, Scan, needed_by, read_scan
from selftaught.data.image_source import ImageSource
from selftaught.data.layout import understand
from selftaught.data.mapped import open_array
from selftaught.data.pixels import finite, native
from selftaught.data.source import Source, digest
from selftaught.data.space import Space
from selftaught.errors import SampleError, UserError, require

__all__ = [
    "FORMATS",
    "VolumeArrays",
    "VolumeFiles",
    "kind_by_shape",
    "open_named_volumes",
    "open_volume_arrays",
    "open_volume_files",
    "open_volumes",
]

_SUFFIXES = (*SCANS, ".npy")
_MOST_CHANNELS = 4
_AXES = ("L", "P", "S")
"""What the axes W, H and D of a scan run towards: the patient's left, back and head, as DICOM has it."""


def turn_of(affine: np.ndarray, name: str) -> np.ndarray:
    """nibabel's transform (3, 2) of a scan's axes to `_AXES`.

    Raises:
        SampleError: axes that run nowhere, or two of them the same way.
    """
    nib: Any = require("nibabel", "volumes")
    directions = nib.orientations
    try:
        found: np.ndarray = directions.ornt_transform(directions.io_orientation(affine), directions.axcodes2ornt(_AXES))
    except ValueError:
        raise SampleError(name, "its header doesn't say which way its axes run") from None
    return found


def turned(voxels: np.ndarray, turn: np.ndarray, name: str) -> np.ndarray:
    """A scan's voxels (i, j, k) or (i, j, k, C) as a volume (D, H, W, C).

    Raises:
        SampleError: see `one_volume`.
    """
    nib: Any = require("nibabel", "volumes")
    voxels = nib.orientations.apply_orientation(voxels, turn)
    return one_volume(voxels[..., None] if voxels.ndim == 3 else voxels, name, (2, 1, 0, 3))


def channels_of(source: Any) -> int:
    """Channels of the first volume that can be read; 1 where none can."""
    for i in range(len(source)):
        try:
            return int(source._load(i, None).shape[3])
        except SampleError:
            continue
    return 1


class VolumeFiles(ImageSource):
    """One volume in each file, (D, H, W, C) uint8, uint16 or float32.

    Scans (NIfTI, NRRD, MetaImage) are turned so that D runs from feet to head, H from front to back and W from the
    patient's right to the left; `spacing` is turned with them.
    """

    modality = "volume"

    def __init__(
        self, root: Path, names: list[str], name: str, channels: int | None = None, spacing: Any = None
    ) -> None:
        """Args: the folder that `names` start from; the files; what to call the source; channels, None: the first's;
        spacing of .npy files, see `stated_spacing`."""
        self.root, self.name, self.stated = root, name, stated_spacing(spacing)
        understand(self, names)
        scans = [n for n in self.names if n.lower().endswith(SCANS)]
        for suffix in {n.lower().rpartition(".")[2] for n in scans}:
            needed_by(f".{suffix}")
        if self.stated is not None and len(scans) == len(self.names):
            raise UserError(f"{name}: spacing= is for .npy files; these files say their own")
        if scans or self.stated is not None:
            self.spacing = np.array([self._spacing(i) for i in range(len(self))], dtype=np.float32)
        self.channels = channels or channels_of(self)

    def _spacing(self, i: int) -> tuple[float, ...]:
        """Millimetres between voxels along D, H and W; NaN where the file can't be read or nothing says it."""
        if not self.names[i].lower().endswith(SCANS):
            return self.stated or (np.nan,) * 3
        try:
            scan, turn = self._scan(i)
        except SampleError:
            return (np.nan,) * 3
        steps = np.empty(3)
        steps[turn[:, 0].astype(int)] = scan.spacing
        return tuple(steps[::-1].tolist())

    def _scan(self, i: int) -> tuple[Scan, np.ndarray]:
        """The scan, its voxels not read yet, and how nibabel turns its axes to `_AXES`."""
        scan = read_scan(self.root / self.names[i], self.names[i])
        return scan, turn_of(scan.affine, self.names[i])

    def space(self, i: int) -> Space | None:
        """Where the file's voxels lie; None for .npy files, which don't say.

        Raises:
            SampleError: the file can't be read.
        """
        if not self.names[i].lower().endswith(SCANS):
            return None
        scan, turn = self._scan(i)
        return Space(scan.affine, turn, scan.shape)

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        name = self.names[i]
        if not name.lower().endswith(SCANS):
            return one_volume(_read_npy(self.root / name, name), name)
        scan, turn = self._scan(i)
        return turned(scan.voxels(), turn, name)

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change."""
        stats = [os.stat(self.root / name) for name in self.names]
        sizes = np.array([(s.st_size, s.st_mtime_ns) for s in stats], dtype=np.int64)
        stated = [] if self.stated is None else [list(self.stated)]
        return digest("volumes", list(self.names), sizes, self.channels, *stated)


class VolumeArrays(ImageSource):
    """Volumes that lie in arrays (N, D, H, W) or (N, D, H, W, C)."""

    modality = "volume"

    def __init__(self, pieces: Pieces, name: str, spacing: Any = None) -> None:
        """Args: the arrays; what to call them; their spacing, see `stated_spacing`."""
        self.name, self.names, self.given = name, pieces.names(), pieces.given()
        self.labels, self.classes, self.groups = pieces.labels, pieces.classes, pieces.groups
        self._parts = pieces.parts
        self._starts = np.cumsum([0] + [len(p.open()) for p in pieces.parts])
        shape = pieces.parts[0].open().shape
        self.channels = 1 if len(shape) == 4 else shape[4]
        self.stated = stated_spacing(spacing)
        if self.stated is not None:
            self.spacing = np.tile(np.array(self.stated, dtype=np.float32), (int(self._starts[-1]), 1))

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        return one_volume(np.array(self._parts[part].open()[i - self._starts[part]]), self.names[i])

    def _is_uint8(self) -> bool:
        return all(p.open().dtype in (np.uint8, np.bool_) for p in self._parts)

    def fingerprint(self) -> str:
        """Of the content in memory, or of the files' sizes and times of change."""
        stated = [] if self.stated is None else [list(self.stated)]
        return digest("volume arrays", [p.stamp() for p in self._parts], self.labels, len(self), *stated)


def one_volume(voxels: np.ndarray, name: str, order: Sequence[int] = (0, 1, 2, 3)) -> np.ndarray:
    """An array (D, H, W) or (D, H, W, C) as (D, H, W, C) in uint8, uint16 or float32, its axes in another order first.

    Raises:
        SampleError: other axes, zero size, not numbers, NaN or infinite values.
    """
    if voxels.ndim not in (3, 4) or not voxels.size:
        raise SampleError(
            name, f"{'x'.join(map(str, voxels.shape))} where a volume is D x H x W, or with channels last"
        )
    voxels = voxels[..., None] if voxels.ndim == 3 else voxels
    return finite(native(voxels.transpose(order), name), name)


def stated_spacing(given: Any) -> tuple[float, float, float] | None:
    """Millimetres between voxels along D, H and W as a user states them: ``2.5:1:1``, one number for all, or a tuple.

    Raises:
        UserError: something else, or a length that isn't above 0.
    """
    if given is None:
        return None
    parts = given.split(":") if isinstance(given, str) else np.atleast_1d(given).tolist()
    try:
        found = [float(part) for part in parts]
    except (TypeError, ValueError):
        found = []
    found = found * 3 if len(found) == 1 else found
    if len(found) != 3 or not all(0 < length < np.inf for length in found):
        raise UserError(f"spacing={given}: millimetres along depth, height and width, each above 0, such as 2.5:1:1")
    return found[0], found[1], found[2]


def open_volumes(folder: Path, name: str, *, channels: int | None = None, spacing: Any = None) -> VolumeFiles:
    """All NIfTI, NRRD, MetaImage and .npy volumes under a folder; one level of sub-folders is read as classes,
    ``train/`` beside ``test/`` as a given split.

    Args:
        folder: where to look.
        name: what to call the source.
        channels: channels that every volume must have; None: those of the first.
        spacing: of .npy files, millimetres along D, H and W such as ``2.5:1:1``; scans say their own.

    Raises:
        UserError: there is none, nibabel is missing, or a spacing is stated where every file says its own.
    """
    names = walk(folder, _SUFFIXES)
    if not names:
        raise UserError(f"{name}: no volume in this folder or below; looked for {' '.join(_SUFFIXES)}")
    return VolumeFiles(folder, names, name, channels, spacing)


def open_volume_files(
    paths: Sequence[str | Path], name: str, *, channels: int | None = None, spacing: Any = None
) -> VolumeFiles:
    """Single volumes, in the order given; named relative to the folder they share; options as `open_volumes`.

    Raises:
        UserError: one of them is not there.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    resolved = [Path(os.path.abspath(p)) for p in paths]
    root = Path(os.path.commonpath([p.parent for p in resolved]))
    return VolumeFiles(root, [p.relative_to(root).as_posix() for p in resolved], name, channels, spacing)


def open_volume(
    path: Path, name: str, *, channels: int | None = None, spacing: Any = None
) -> VolumeFiles | VolumeArrays:
    """A file: a scan, a .npy volume (D, H, W) or (D, H, W, C) of 4 channels or less, or a .npy stack of them.

    Args: as `open_volumes`.
    """
    if path.suffix.lower() == ".npy":
        shape = open_array(path).shape
        if len(shape) == 5 or (len(shape) == 4 and shape[3] > _MOST_CHANNELS):
            return open_volume_arrays(path, name, spacing=spacing)
    return open_volume_files([path], name, channels=channels, spacing=spacing)


def open_volume_arrays(data: Any, name: str, *, labels: Any = None, spacing: Any = None) -> VolumeArrays:
    """Volumes of an array, a tensor, a dict of arrays, a .npy or an .npz file (MedMNIST's layout, or images and
    labels).

    Args:
        data: (N, D, H, W) or (N, D, H, W, C), alone, in a dict or in a file.
        name: what to call the source.
        labels: (N,) for a plain array.
        spacing: of all of them, millimetres along D, H and W such as ``2.5:1:1``; None: not known.

    Raises:
        UserError: no volumes in it, labels of another length, or lengths that can't be.
    """
    pieces = collect(data, name, "images", ("volumes", *IMAGE_KEYS), labels)
    for piece in pieces.parts:
        array = piece.open()
        if array.ndim not in (4, 5) or array.dtype.kind not in "uifb":
            raise UserError(
                f"{name}: volumes must be numbers (N, D, H, W) or (N, D, H, W, C); these are {array.dtype} "
                f"{array.shape}"
            )
    return VolumeArrays(pieces, name, spacing)


def open_named_volumes(address: str, *, channels: int | None = None, spacing: Any = None) -> Source:
    """``volumes:PATH``: a folder or a file read as volumes, whatever the shapes of its arrays suggest.

    Args:
        address: the folder or file.
        channels: that every volume must have; None: those of the first.
        spacing: see `open_volumes`.

    Raises:
        UserError: there is no such path, or no volume in it.
    """
    path = expanded(address)
    if path.is_dir():
        return open_volumes(path, f"{path.resolve().name}/", channels=channels, spacing=spacing)
    if path.suffix.lower() == ".npz":
        return open_volume_arrays(path, path.name, spacing=spacing)
    if path.is_file():
        return open_volume(path, path.name, channels=channels, spacing=spacing)
    raise UserError(f"volumes:{address}: no such file or folder")


def kind_by_shape(spec: Any) -> tuple[str, str]:
    """Whether .npy arrays are images or volumes, for methods that take both: the kind, and a line where it is a guess.

    Files of a folder: two axes are an image, four a volume with channels; of three axes, a last one of 4 or fewer, or
    of less than half of the others, is an image's channels, else they are depth, height and width. A single file is a
    stack: of four axes with more than 4 at the end, or of five, of volumes. What isn't .npy is "".

    Args:
        spec: the source as a user names it.
    """
    path = expanded(str(spec).partition("?")[0]) if isinstance(spec, str | Path) else None
    if path is None or not path.exists():
        return "", ""
    names = walk(path, (".npy",))[:1] if path.is_dir() else [path.name] if path.suffix.lower() == ".npy" else []
    if not names:
        return "", ""
    shape = open_array(path / names[0] if path.is_dir() else path).shape
    shown = f"{names[0]} is {'x'.join(map(str, shape))}"
    if not path.is_dir():
        kind = "volume" if len(shape) == 5 or (len(shape) == 4 and shape[3] > _MOST_CHANNELS) else "image"
        told = f"{shown}: taken for a stack of images; write volumes:{path} for one volume" if len(shape) == 3 else ""
        return kind, told if len(shape) != 3 or shape[2] > _MOST_CHANNELS else ""
    if len(shape) != 3:
        return ("volume" if len(shape) == 4 else "image"), ""
    if shape[2] <= _MOST_CHANNELS:
        return "image", ""
    if 2 * shape[2] < min(shape[:2]):
        return "image", f"{shown}: taken for an image of {shape[2]} channels; write volumes:{path} for volumes"
    return "volume", f"{shown}: taken for a volume (depth, height, width); write images:{path} for images"


def _read_npy(path: Path, name: str) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except OSError as error:
        raise SampleError(name, f"can't be opened: {error.strerror or 'damaged'}") from None
    except (ValueError, EOFError):
        raise SampleError(name, "not a readable .npy file") from None


FORMATS = (
    Format("volume", 4, SCANS, file=open_volume, files=open_volume_files, folder=open_volumes),
    Format("volume", 8, (".npy",), file=open_volume, files=open_volume_files, folder=open_volumes),
    Format("volume", 8, (".npz",), file=open_volume_arrays, arrays=open_volume_arrays),
    Format("volume", 8, scheme="volumes", address=open_named_volumes),
)
