"""DICOM series as volumes (``pip install 'selftaught[volumes]'``): a folder's slices, sorted by where they lie.

A sample is a series: the files of one folder that share a SeriesInstanceUID, or one file of many frames. Slices are
sorted along their normal, values are those of the modality (slope and intercept applied, so that CT is in Hounsfield
units). A series whose slices don't make a volume - other sizes, other directions, a gap - is listed, never guessed at.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import regular
from selftaught.data.files import walk
from selftaught.data.formats._format import Format
from selftaught.data.formats._scans import affine_of
from selftaught.data.formats.volumes import channels_of, turn_of, turned
from selftaught.data.image_source import ImageSource
from selftaught.data.layout import understand
from selftaught.data.source import digest
from selftaught.data.space import Space
from selftaught.errors import SampleError, UserError, first_line, require

__all__ = ["FORMATS", "DicomSeries", "open_dicom", "open_dicom_file"]

_SUFFIXES = (".dcm", ".dicom", ".ima")
_UNEVEN = 0.02
"""Share of the step between slices by which one may differ."""
_LOOKED_AT = 4
_TAGS = [
    "SeriesInstanceUID", "SeriesNumber", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "InstanceNumber", "SliceThickness", "SpacingBetweenSlices", "Rows", "Columns", "NumberOfFrames", "RescaleSlope",
    "RescaleIntercept", "ImageType",
]  # fmt: skip


@dataclass(frozen=True)
class _Slice:
    """A file's header: its place along the normal and its first pixel's, (3, 3) directions, size, frames."""

    file: str
    along: float
    origin: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    size: tuple[int, int]
    frames: int
    placed: bool


class DicomSeries(ImageSource):
    """Series of DICOM files as volumes (D, H, W, C), turned as scans are: D from feet to head, H from front to back, W
    from the patient's right to the left.
    """

    modality = "volume"

    def __init__(self, root: Path, files: list[str], name: str, channels: int | None = None) -> None:
        """Find the series.

        Args:
            root: the folder that ``files`` start from.
            files: relative names.
            name: what to call the source.
            channels: that every volume must have; None: those of the first.

        Raises:
            UserError: pydicom is missing; no series of several slices.
        """
        require("pydicom", "volumes")
        require("nibabel", "volumes")
        self.root, self.name = root, name
        passed: Counter[str] = Counter()
        found = _series(root, files, passed)
        if not found:
            why = f" ({', '.join(f'{n} {what}' for what, n in passed.items())})" if passed else ""
            raise UserError(f"{name}: no DICOM series of several slices{why}")
        understand(self, list(found))
        self.series = {key: found[key] for key in self.names}
        self.left_out = {**self.left_out, **passed}
        self.spacing = np.array([self._spacing(i) for i in range(len(self))], dtype=np.float32)
        self.channels = channels or channels_of(self)

    def _spacing(self, i: int) -> tuple[float, ...]:
        try:
            affine, _ = self._placed(i)
            turn = turn_of(affine, self.names[i])
        except SampleError:
            return (np.nan,) * 3
        steps = np.empty(3)
        steps[turn[:, 0].astype(int)] = np.linalg.norm(affine[:3, :3], axis=0)
        return tuple(steps[::-1].tolist())

    def _placed(self, i: int) -> tuple[np.ndarray, tuple[int, ...]]:
        """(4, 4) of the axes (columns, rows, slices), and their sizes.

        Raises:
            SampleError: slices of other sizes or directions, without a place, or with a gap between them.
        """
        slices, name = self.series[self.names[i]], self.names[i]
        first = slices[0]
        if len({s.size for s in slices}) > 1:
            sizes = " and ".join(f"{a}x{b}" for a, b in sorted({s.size for s in slices}))
            raise SampleError(name, f"slices of several sizes: {sizes}")
        if first.frames > 1:
            return affine_of(np.array(first.directions), np.array(first.origin)), (*first.size[::-1], first.frames)
        if not all(s.placed for s in slices):
            raise SampleError(name, "a slice doesn't say where it lies (ImagePositionPatient)")
        if any(not np.allclose(s.directions[:2], first.directions[:2], atol=1e-3) for s in slices):
            raise SampleError(name, "slices of several directions")
        steps = np.diff([s.along for s in slices])
        usual = float(np.median(steps))
        if usual <= 0 or np.abs(steps - usual).max() > _UNEVEN * usual:
            odd = int(np.abs(steps - usual).argmax())
            raise SampleError(
                name, f"slices {steps[odd]:.3g} mm apart where others are {usual:.3g} (after {slices[odd].file}): some "
                "are missing or there twice"
            )  # fmt: skip
        way = (np.array(slices[-1].origin) - np.array(first.origin)) / (len(slices) - 1)
        directions = np.array([*first.directions[:2], way])
        return affine_of(directions, np.array(first.origin)), (*first.size[::-1], len(slices))

    def space(self, i: int) -> Space:
        """Where the series lies.

        Raises:
            SampleError: it makes no volume.
        """
        affine, shape = self._placed(i)
        return Space(affine, turn_of(affine, self.names[i]), shape)

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        affine, shape = self._placed(i)
        name = self.names[i]
        parts = [_pixels(self.root / s.file, s.file) for s in self.series[name]]
        stack = parts[0] if len(parts) == 1 else np.stack(parts)
        if stack.shape[:3] != shape[::-1]:
            raise SampleError(name, f"pixels {stack.shape} where the headers say {shape[::-1]}")
        order = (2, 1, 0, 3) if stack.ndim == 4 else (2, 1, 0)
        return turned(stack.transpose(order), turn_of(affine, name), name)

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change."""
        files = [s.file for name in self.names for s in self.series[name]]
        stats = [os.stat(self.root / file) for file in files]
        sizes = np.array([(s.st_size, s.st_mtime_ns) for s in stats], dtype=np.int64)
        return digest("dicom", files, list(self.names), sizes, self.channels)


def _series(root: Path, files: list[str], passed: Counter[str]) -> dict[str, list[_Slice]]:
    """Name of each series -> its slices, sorted by their place; single slices are counted in ``passed``."""
    groups: dict[tuple[str, str, str], list[_Slice]] = {}
    for file in files:
        found_here = _header(root / file, file)
        if found_here is None:
            passed["files that are no DICOM pictures"] += 1
            continue
        one, uid, series_number = found_here
        key = (file.rpartition("/")[0], uid, series_number if one.frames == 1 else file)
        groups.setdefault(key, []).append(one)
    kept = {key: found for key, found in groups.items() if len(found) > 1 or found[0].frames > 1}
    passed["single slices"] += sum(len(found) for key, found in groups.items() if key not in kept)
    passed += Counter()
    each = Counter(folder for folder, _, _ in kept)
    named: dict[str, list[_Slice]] = {}
    for at, ((folder, _, series), found) in enumerate(kept.items()):
        plain = folder or root.resolve().name
        last = Path(series).name or str(at)
        name = plain if each[folder] == 1 else f"{folder}/series-{last}" if folder else f"series-{last}"
        name = name if name not in named else f"{name}-{at}"
        named[name] = sorted(found, key=lambda s: s.along)
    return named


def _header(path: Path, file: str) -> tuple[_Slice, str, str] | None:
    """A file's slice, without pixels, and its series (UID, number); None where it is no DICOM picture."""
    pydicom: Any = require("pydicom", "volumes")
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        if not hasattr(header, "Rows") or not hasattr(header, "Columns"):
            return None
        series = [str(getattr(header, tag, "") or "") for tag in ("SeriesInstanceUID", "SeriesNumber")]
        return _slice(header, file), series[0], series[1]
    except Exception:  # a damaged value is read when it is asked for; pydicom raises errors of many kinds
        return None


def _slice(header: Any, file: str) -> _Slice:
    rows, columns = (np.array(v, dtype=float) for v in _orientation(header))
    normal = np.cross(rows, columns)
    place = getattr(header, "ImagePositionPatient", None)
    origin = np.zeros(3) if place is None else np.array(place, dtype=float)
    spacing = [float(v) for v in getattr(header, "PixelSpacing", None) or (1.0, 1.0)]
    frames = int(getattr(header, "NumberOfFrames", 1) or 1)
    thick = getattr(header, "SpacingBetweenSlices", None) or getattr(header, "SliceThickness", None) or 1.0
    directions = (rows * spacing[1], columns * spacing[0], normal * float(thick))
    along = float(origin @ normal) if place is not None else float(getattr(header, "InstanceNumber", 0) or 0)
    size = (int(header.Rows), int(header.Columns))
    return _Slice(file, along, tuple(origin), tuple(map(tuple, directions)), size, frames, place is not None)


def _orientation(header: Any) -> tuple[list[float], list[float]]:
    found = getattr(header, "ImageOrientationPatient", None)
    six = [1.0, 0, 0, 0, 1.0, 0] if found is None else [float(v) for v in found]
    return six[:3], six[3:]


def _pixels(path: Path, name: str) -> np.ndarray:
    """(H, W), (H, W, C), (frames, H, W) or (frames, H, W, C); slope and intercept applied.

    Raises:
        SampleError: it can't be read or decompressed.
    """
    pydicom: Any = require("pydicom", "volumes")
    try:
        file = pydicom.dcmread(path)
        pixels: np.ndarray = file.pixel_array
    except Exception as error:  # decoders raise errors of many kinds; a file is never our bug
        raise SampleError(name, f"its pixels can't be read: {first_line(error, 80)}") from None
    slope, shift = (float(getattr(file, tag, d) or d) for tag, d in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if (slope, shift) == (1, 0):
        return pixels
    return (pixels * slope + shift).astype(np.float32)


def open_dicom(folder: Path, name: str, *, channels: int | None = None) -> DicomSeries:
    """All DICOM series under a folder; sub-folders are read as classes or a given split, as for other volumes.

    Args:
        folder: where to look; files are known by .dcm, .dicom and .ima, or without a suffix by their beginning.
        name: what to call the source.
        channels: that every volume must have; None: those of the first.

    Raises:
        UserError: there is none, or pydicom is missing.
    """
    return DicomSeries(folder, walk(folder, _SUFFIXES) or _unnamed(folder), name, channels)


def open_dicom_file(path: Path, name: str, *, channels: int | None = None) -> DicomSeries:
    """A file of many frames as a volume; a file of one is a slice of the series in its folder, which is opened."""
    file = path.name
    header = _header(path, file)
    if header is not None and header[0].frames > 1:
        return DicomSeries(path.parent, [file], name, channels)
    beside = [other.name for other in sorted(path.parent.iterdir()) if other.name.lower().endswith(_SUFFIXES)]
    return DicomSeries(path.parent, beside, name, channels)


def _unnamed(folder: Path) -> list[str]:
    """Files without a suffix of letters that begin as DICOM files do."""
    return [name for name in walk(folder, ("",)) if _bare(name) and _begins(folder / name)]


def _bare(name: str) -> bool:
    """Whether a name has no suffix, or one of numbers: UIDs are names of files, too."""
    return not any(letter.isalpha() for letter in Path(name).suffix)


def _begins(path: Path) -> bool:
    try:
        with regular(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _holds(folder: Path) -> bool:
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        shown = [f for f in files if not f.startswith(".")]
        if any(f.lower().endswith(_SUFFIXES) for f in shown):
            return True
        if any(_begins(Path(place) / f) for f in list(filter(_bare, shown))[:_LOOKED_AT]):
            return True
    return False


FORMATS = (Format("volume", 3, _SUFFIXES, file=open_dicom_file, folder=open_dicom, holds=_holds),)
