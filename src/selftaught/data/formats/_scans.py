"""Files of one volume that say where its voxels lie: NIfTI, NRRD, MetaImage. Each as its axes have it, read when asked.

Places are millimetres towards the patient's right, front and head, as NIfTI has them; NRRD and MetaImage count from the
other side of the first two (left, back, head), unless an NRRD file says otherwise.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import regular
from selftaught.errors import SampleError, require

__all__ = ["NIFTI", "SCANS", "Scan", "affine_of", "needed_by", "read_scan"]

NIFTI = (".nii", ".nii.gz")
_NRRD, _META = (".nrrd", ".nhdr"), (".mha", ".mhd")
SCANS = (*NIFTI, *_NRRD, *_META)
_DAMAGED = (
    OSError, EOFError, zlib.error, struct.error, ValueError, KeyError, IndexError, OverflowError, MemoryError,
)  # fmt: skip
_THEIRS = ("ImageFileError", "NRRDError", "HeaderDataError", "HeaderTypeError", "ImageDataError", "WrapStructError")
"""Errors of nibabel's and nrrd's own of a damaged file."""
_LPS = np.diag([-1.0, -1.0, 1.0])
_MOST_CHANNELS = 4


@dataclass(frozen=True)
class Scan:
    """A file's volume.

    Attributes:
        shape: of its three axes.
        affine: (4, 4), voxels to millimetres.
        voxels: reads them, (i, j, k) or (i, j, k, channels); may raise `SampleError`.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    voxels: Callable[[], np.ndarray]

    @property
    def spacing(self) -> np.ndarray:
        """Millimetres between voxels along the three axes."""
        found: np.ndarray = np.linalg.norm(self.affine[:3, :3], axis=0)
        return found


def needed_by(name: str) -> None:
    """See that the package is here that reads such a file.

    Raises:
        UserError: it isn't; the extra is named.
    """
    if name.lower().endswith(_NRRD):
        require("nrrd", "volumes")
    require("nibabel", "volumes")


def read_scan(path: Path, name: str) -> Scan:
    """The volume of a file, by its suffix; its voxels aren't read yet.

    Raises:
        SampleError: it can't be opened, isn't what its suffix says, or has other axes.
    """
    low = name.lower()
    kind, read = (
        ("NIfTI", _nifti) if low.endswith(NIFTI) else ("NRRD", _nrrd) if low.endswith(_NRRD) else ("MetaImage", _meta)
    )
    try:
        return read(path, name)
    except SampleError:
        raise
    except FileNotFoundError as error:
        raise SampleError(name, f"can't be opened: {error.strerror or 'damaged'}") from None
    except Exception as error:
        if isinstance(error, _DAMAGED) or type(error).__name__ in _THEIRS:
            reason = getattr(error, "strerror", None)
            said = f"can't be opened: {reason}" if reason else f"not a readable {kind} file: {str(error)[:80]}"
            raise SampleError(name, said) from None
        raise


def affine_of(directions: np.ndarray, origin: np.ndarray, to_ras: np.ndarray = _LPS) -> np.ndarray:
    """(4, 4) of the steps (3, 3), a row for each axis, and the place of the first voxel, both in the file's own
    directions (left, back, head by default).
    """
    found = np.eye(4)
    found[:3, :3] = to_ras @ np.asarray(directions, dtype=np.float64).T
    found[:3, 3] = to_ras @ np.asarray(origin, dtype=np.float64)
    return found


def _whole(read: Callable[[], np.ndarray], name: str) -> Callable[[], np.ndarray]:
    """Reading voxels, with what a damaged file raises as a `SampleError`."""

    def voxels() -> np.ndarray:
        try:
            return read()
        except SampleError:
            raise
        except Exception as error:
            if isinstance(error, _DAMAGED) or type(error).__name__ in _THEIRS:
                raise SampleError(name, f"damaged: {str(error)[:80]}") from None
            raise

    return voxels


def _nifti(path: Path, name: str) -> Scan:
    nib: Any = require("nibabel", "volumes")
    image = nib.load(path)
    if len(image.shape) not in (3, 4):
        raise SampleError(name, f"{len(image.shape)} axes where a volume has 3, or 4 with channels")
    shape = tuple(int(n) for n in image.shape[:3])
    return Scan(shape, np.asarray(image.affine, dtype=np.float64), _whole(lambda: np.asarray(image.dataobj), name))


# ---- NRRD ------------------------------------------------------------------------------------------------------------
_TOWARDS_RIGHT = {"right": 1, "r": 1, "left": -1, "l": -1}
_TOWARDS_FRONT = {"anterior": 1, "a": 1, "posterior": -1, "p": -1}
_TOWARDS_HEAD = {"superior": 1, "s": 1, "inferior": -1, "i": -1}


def _nrrd(path: Path, name: str) -> Scan:
    nrrd: Any = require("nrrd", "volumes")
    header = nrrd.read_header(str(path))
    sizes = [int(n) for n in header["sizes"]]
    channel = _channel_axis(header, sizes, name)
    shape = tuple(n for k, n in enumerate(sizes) if k != channel)
    if len(shape) != 3:
        raise SampleError(name, f"{len(sizes)} axes where a volume has 3, or 4 with channels")

    def read() -> np.ndarray:
        voxels: np.ndarray = nrrd.read(str(path))[0]
        return voxels if channel is None else np.moveaxis(voxels, channel, -1)

    if header.get("space directions") is None:
        steps = np.nan_to_num(np.asarray(header.get("spacings", [1.0] * len(sizes)), dtype=np.float64), nan=1.0)
        steps = np.delete(steps, channel) if channel is not None else steps
        return Scan(shape, affine_of(np.diag(steps), np.zeros(3)), _whole(read, name))
    directions = np.array([_row(row) for row in header["space directions"]], dtype=np.float64)
    directions = directions[np.isfinite(directions).all(1)]
    if directions.shape != (3, 3):
        raise SampleError(name, f"space directions of {len(directions)} axes where a volume has 3")
    origin = np.nan_to_num(np.asarray(header.get("space origin", np.zeros(3)), dtype=np.float64))
    return Scan(shape, affine_of(directions, origin, _space(str(header.get("space", "")), name)), _whole(read, name))


def _row(row: Any) -> Any:
    return [math.nan] * 3 if row is None else row


def _channel_axis(header: Any, sizes: list[int], name: str) -> int | None:
    """Which of four axes holds channels."""
    if len(sizes) != 4:
        return None
    rows = header.get("space directions")
    if rows is not None:
        loose = [k for k, row in enumerate(rows) if not np.isfinite(np.asarray(_row(row), dtype=np.float64)).all()]
    else:
        kinds = header.get("kinds", [])
        loose = [k for k, kind in enumerate(kinds) if kind not in ("domain", "space")]
        loose = loose if len(loose) == 1 else [k for k in (0, 3) if sizes[k] <= _MOST_CHANNELS][:1]
    if len(loose) != 1:
        raise SampleError(name, "4 axes, and the header doesn't say which of them holds channels")
    return loose[0]


def _space(space: str, name: str) -> np.ndarray:
    """What turns a named space into (right, front, head)."""
    words = space.lower().replace("_", "-").split("-") if "-" in space else list(space.lower())
    words = [word for word in words if word not in ("time", "t")]
    if not words or words[0] in ("scanner", "3d"):
        return _LPS
    found = np.zeros((3, 3))
    for column, word in enumerate(words[:3]):
        for row, known in enumerate((_TOWARDS_RIGHT, _TOWARDS_FRONT, _TOWARDS_HEAD)):
            found[row, column] = known.get(word, 0)
    if len(words) != 3 or abs(np.linalg.det(found)) != 1:
        raise SampleError(name, f"its space {space!r} isn't known")
    return found


# ---- MetaImage -------------------------------------------------------------------------------------------------------
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LONGEST_HEADER = 1 << 16


def _meta(path: Path, name: str) -> Scan:
    header, start = _meta_header(path, name)
    sizes = [int(n) for n in header["dimsize"].split()]
    if len(sizes) != 3:
        raise SampleError(name, f"{len(sizes)} axes where a volume has 3")
    kind = _TYPES.get(header["elementtype"].removesuffix("_ARRAY"))
    if kind is None:
        raise SampleError(name, f"voxels of the type {header['elementtype']} can't be read")
    big = header.get("binarydatabyteordermsb", header.get("elementbyteordermsb", "false")).lower() == "true"
    dtype = np.dtype(kind).newbyteorder(">" if big else "<")
    channels = int(header.get("elementnumberofchannels", 1))

    def numbers(*keys: str, default: list[float]) -> np.ndarray:
        return np.array(next((header[k].split() for k in keys if k in header), default), dtype=np.float64)

    steps = numbers("elementspacing", "elementsize", default=[1.0] * 3)
    turn = numbers("transformmatrix", "rotation", "orientation", default=np.eye(3).ravel().tolist()).reshape(3, 3)
    origin = numbers("offset", "position", "origin", default=[0.0] * 3)

    def read() -> np.ndarray:
        data = _meta_bytes(path, header, start)
        wanted = math.prod(sizes) * channels * dtype.itemsize
        head = int(header.get("headersize", 0))
        data = data[-wanted:] if head < 0 else data[head : head + wanted]
        if len(data) < wanted:
            raise SampleError(name, f"damaged: {len(data)} bytes of voxels where the header says {wanted}")
        voxels = np.frombuffer(data, dtype).reshape(*sizes[::-1], channels).transpose(2, 1, 0, 3)
        return voxels[..., 0] if channels == 1 else voxels

    return Scan(tuple(sizes), affine_of(turn * steps[:, None], origin), _whole(read, name))


def _meta_header(path: Path, name: str) -> tuple[dict[str, str], int]:
    """The entries of a header, keys in lower case, and where it ends."""
    with path.open("rb") as file:
        text = file.read(_LONGEST_HEADER)
    found: dict[str, str] = {}
    start = 0
    while "elementdatafile" not in found:
        end = text.find(b"\n", start)
        line = text[start : end if end >= 0 else len(text)].decode("latin-1")
        key, equals, value = line.partition("=")
        if not equals and line.strip():
            raise SampleError(name, "not a readable MetaImage file: its header has a line without =")
        found[key.strip().lower()] = value.strip()
        start = end + 1
        if end < 0:
            break
    missing = [key for key in ("dimsize", "elementtype", "elementdatafile") if key not in found]
    if missing:
        raise SampleError(name, f"not a readable MetaImage file: its header has no {missing[0]}")
    return found, start


def _meta_bytes(path: Path, header: dict[str, str], start: int) -> bytes:
    where = header["elementdatafile"]
    if where.upper() == "LOCAL":
        data = regular(path).read_bytes()[start:]
    else:
        data = regular(path.parent / Path(where).name).read_bytes()
    return zlib.decompress(data) if header.get("compresseddata", "false").lower() == "true" else data
