"""Point clouds: .ply .pcd .las .laz .xyz .pts .txt .csv .npy .npz, with any features per point."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.clouds import COLUMNS, Cloud, CloudArrays, Clouds, canonical
from selftaught.data.files import file_stamps, walk
from selftaught.data.formats._clouds import LAS, column_names, of_table, read_columns
from selftaught.data.formats._format import Format
from selftaught.data.formats._scan_layouts import ScanLayout, class_of_points, holds_annotated_rooms, scan_layout
from selftaught.data.layout import understand
from selftaught.data.mapped import open_array
from selftaught.data.source import PER_SAMPLE, digest
from selftaught.errors import SampleError, UserError

__all__ = ["FORMATS", "PointFiles", "open_point_arrays", "open_point_files", "open_point_folder"]

_PLAIN = (".ply", ".pcd", *LAS, ".xyz", ".pts")
_TABLES = (".txt", ".csv", ".npy", ".npz")
_LAS_UNKNOWN = (0, 1)
_LAS_CLASSES = (
    "never classified", "unclassified", "ground", "low vegetation", "medium vegetation", "high vegetation", "building",
    "low noise", "model key", "water", "rail", "road", "overlap", "wire guard", "wire", "tower", "connector", "bridge",
    "high noise",
)  # fmt: skip
_NOT_FEATURES = {
    *COLUMNS, "label", "alpha", "gps_time", "point_source_id", "user_data", "synthetic", "key_point", "withheld",
    "scan_direction_flag", "edge_of_flight_line", "overlap", "scanner_channel", "scan_angle_rank", "scan_angle",
}  # fmt: skip
_NUMBERS = re.compile(r"(.*[_ ])?(id|index|idx|number|instance|object|segment|time|timestamp)", re.IGNORECASE)
_COUNTED = {"return_number"}
"""Columns that count or name things tell nothing of a surface, but for the count of returns."""


class PointFiles(Clouds):
    """One scan in each file."""

    def __init__(
        self, root: Path, names: list[str], name: str, *, block: float = 0.0, features: str = "all", columns: str = "",
        scale: float = 1.0, up: str = "z", normals: str = "file", layout: ScanLayout | None = None,
    ) -> None:  # fmt: skip
        """Args: the folder that `names` start from; the files; the source's name; the layout that they have; the rest
        as `open_point_folder`.
        """
        if up not in ("y", "z") or normals not in ("file", "estimate") or not scale > 0:
            raise UserError(f"{name}: up is y or z, normals file or estimate, scale above 0")
        self.root, self.name, self.scans, self._layout = root, name, names, layout
        self._how: dict[str, Any] = {"scale": scale, "up": up, "normals": normals}
        self._named = tuple(c for c in columns.replace(",", " ").split() if c)
        heads = self._heads()
        self.columns, said = (*COLUMNS, *self._extra(heads, features)), self.notes
        self.labelled = bool(layout and layout.labels) or any("label" in head for head in heads)
        if all(n.lower().endswith(LAS) for n in names):
            self.ignored, self.known_classes = _LAS_UNKNOWN, _LAS_CLASSES
        self._arrange(names)
        if layout is not None:
            self.known_classes, self.ignored, self.notes = layout.classes, layout.ignored, [layout.note]
            self.labels = self.classes = self.targets = None
            self.given = layout.given
        self.notes = [*self.notes, *said]
        lacking = [w for w, c in (("colour", "red"), ("normals", "nx")) if not any(c in head for head in heads)]
        if lacking and heads:
            more = "; normals=estimate makes some" if "normals" in lacking and normals == "file" else ""
            self.notes = [*self.notes, f"no {' and no '.join(lacking)} in the files: taken as neutral{more}"]
        self.cut(block)
        for attribute in PER_SAMPLE:
            rows = getattr(self, attribute)
            if rows is not None:
                setattr(self, attribute, rows[self.member[:, 0]])
        if block:
            self.groups = self.member[:, 0].copy() if len(names) > 1 else None

    def _arrange(self, names: list[str]) -> None:
        """Classes and a split by folders; a folder for each single scan is no class."""
        understand(self, names)
        if self.classes is not None and len(self.classes) * 2 > len(names):
            self.labels = self.classes = self.targets = None

    def _heads(self) -> list[set[str]]:
        """The columns of the first files of each folder that can be read."""
        found = []
        for name in self.scans:
            try:
                found.append(set(column_names(self.root / name, name)) if not self._named else set(self._named))
            except SampleError:
                continue
        return found

    def _extra(self, heads: list[set[str]], features: str) -> list[str]:
        """Further features: those that all files have, or those that were asked for."""
        common = set.intersection(*heads) - _NOT_FEATURES if heads else set()
        if features == "none":
            return []
        if features == "all":
            dropped = set().union(*heads) - _NOT_FEATURES - common if heads else set()
            if dropped:
                self.notes = [*self.notes, f"left out: {', '.join(sorted(dropped))}, which not every file has"]
            used = sorted(name for name in common if name in _COUNTED or not _NUMBERS.fullmatch(name))
            if used:
                self.notes = [*self.notes, f"features beside colour and normal: {', '.join(used)}; features= chooses"]
            return used
        wanted = [f for f in features.replace(",", " ").split() if f not in COLUMNS]
        for name in wanted:
            if name not in common:
                has = ", ".join(sorted(common)) or "none"
                raise UserError(f"{self.name}: features={features}: not every file has {name}; common are {has}")
        return wanted

    def _scan(self, k: int) -> Cloud:
        name = self.scans[k]
        path = self.root / name
        try:
            stamp = path.stat().st_mtime_ns
        except OSError as error:
            raise SampleError(name, f"can't be opened: {error.strerror}") from None
        how = (self._how["scale"], self._how["up"], self._how["normals"])
        cloud, count = _read_cloud(str(path), name, stamp, self._named, self.columns[len(COLUMNS) :], how)
        if self._layout is None or not self._layout.labels:
            return cloud
        files = self._layout.labels.get(name, ())
        stamps = (stamp, *file_stamps(self.root, files)[:, 1].tolist())
        label = class_of_points(str(self.root), name, files, count, stamps)
        return cloud._replace(label=label[cloud.row])

    def file_columns(self, k: int) -> dict[str, np.ndarray]:
        """All that the file of scan k says of its points, (P,) each, as it stands there: no scale, nothing left out."""
        return read_columns(self.root / self.scans[k], self.scans[k], self._named)

    def origin(self) -> str:
        """The folder, and the name of the source."""
        return f"{os.path.abspath(self.root)} {self.name}"

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change, and how they are read."""
        how = [str(v) for v in self._how.values()]
        told = [] if self._layout is None else [f for files in self._layout.labels.values() for f in files]
        stamps = file_stamps(self.root, [*self.scans, *told])
        return digest("points", list(self.scans), stamps, list(self.columns), how, self.block)


@lru_cache(maxsize=4)
def _read_cloud(
    path: str, name: str, stamp: int, columns: tuple[str, ...], extra: tuple[str, ...], how: tuple[float, str, str]
) -> tuple[Cloud, int]:
    """One scan and the points in its file; the last few are kept, since blocks of one are read one after the other."""
    found = read_columns(Path(path), name, columns)
    missing = [e for e in extra if e not in found]
    if missing:
        raise SampleError(name, f"no {missing[0]} among its columns")
    cloud = canonical(found, extra, scale=how[0], up=how[1], normals=how[2])
    if not len(cloud.points):
        raise SampleError(name, "no point with a finite place")
    return cloud, len(found["x"])


def open_point_folder(
    folder: Path,
    name: str,
    *,
    block: float = 0.0,
    features: str = "all",
    columns: str = "",
    scale: float = 1.0,
    up: str = "z",
    normals: str = "file",
) -> PointFiles:
    """All scans under a folder; ``train/`` beside ``test/`` is read as a given split.

    ScanNet (``scene*_vh_clean_2.ply`` with ``.labels.ply``) and S3DIS (``Area_*/ROOM/ROOM.txt`` with ``Annotations/``)
    are known: points get their classes, and Area_5 is the test part where there are others.

    Args:
        folder: where to look.
        name: what to call the source.
        block: edge in metres of the square blocks that scans are cut into; 0: whole scans.
        features: per point besides colour and normal: "all" that every file has, "none", or names with commas.
        columns: names of the columns of text and .npy files: ``x,y,z,intensity,red,green,blue``; "": told by their
            number and values, or a first line of names.
        scale: metres in a unit of the coordinates (0.001 for millimetres).
        up: "z", or "y" for scans whose y points upwards.
        normals: "file", or "estimate" where the files have none.

    Raises:
        UserError: there is none, or an option out of its choices.
    """
    names = walk(folder, _PLAIN) or walk(folder, _TABLES)
    if not names:
        raise UserError(f"{name}: no point cloud in this folder or below; looked for {' '.join((*_PLAIN, *_TABLES))}")
    how: dict[str, Any] = {"scale": scale, "up": up, "normals": normals}
    layout = scan_layout(names, folder.resolve().name)
    names = names if layout is None else layout.names
    return PointFiles(folder, names, name, block=block, features=features, columns=columns, layout=layout, **how)


def open_point_files(
    paths: Sequence[str | Path],
    name: str,
    *,
    block: float = 0.0,
    features: str = "all",
    columns: str = "",
    scale: float = 1.0,
    up: str = "z",
    normals: str = "file",
) -> PointFiles:
    """Single scans, in the order given; options as `open_point_folder`.

    Raises:
        UserError: one of them is not there.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    resolved = [Path(os.path.abspath(p)) for p in paths]
    root = Path(os.path.commonpath([p.parent for p in resolved]))
    names = [p.relative_to(root).as_posix() for p in resolved]
    how: dict[str, Any] = {"scale": scale, "up": up, "normals": normals}
    return PointFiles(root, names, name, block=block, features=features, columns=columns, **how)


def open_point_file(
    path: Path,
    name: str,
    *,
    block: float = 0.0,
    features: str = "all",
    columns: str = "",
    scale: float = 1.0,
    up: str = "z",
    normals: str = "file",
) -> Clouds:
    """One scan, or a .npy of many clouds (N, P, C); options as `open_point_folder`."""
    if path.suffix.lower() == ".npy":
        stored = open_array(path)
        if stored.ndim == 3:
            return open_point_arrays(np.array(stored), name, block=block)
    how: dict[str, Any] = {"scale": scale, "up": up, "normals": normals}
    return open_point_files([path], name, block=block, features=features, columns=columns, **how)


def open_point_arrays(data: Any, name: str, *, labels: Any = None, block: float = 0.0) -> CloudArrays:
    """Clouds of an array or a tensor (N, P, C) or (P, C), columns as in a .npy file.

    Args:
        data: x y z, then colours, normals and what else there is, told by number and values.
        name: what to call the source.
        labels: (N, P) or (P,) classes of the points.
        block: as `open_point_folder`.

    Raises:
        UserError: no clouds in it.
    """
    array = np.asarray(data["points"] if isinstance(data, dict) and "points" in data else data)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] < 3 or array.dtype.kind not in "uif":
        raise UserError(f"{name}: clouds are numbers (N, P, 3+F) or (P, 3+F); these are {array.dtype} {array.shape}")
    found = [of_table(one, name) for one in array]
    extra = sorted(set(found[0]) - _NOT_FEATURES)
    clouds = [canonical(one, extra) for one in found]
    known = None if labels is None else [np.asarray(row) for row in np.asarray(labels).reshape(len(array), -1)]
    if known is None and all(c.label is not None for c in clouds):
        known = [c.label for c in clouds if c.label is not None]
    columns = (*COLUMNS, *extra)
    return CloudArrays([c.points for c in clouds], name, labels=known, block=block, columns=columns)


FORMATS = (
    Format("points", 0, folder=open_point_folder, holds=holds_annotated_rooms),
    Format("points", 5, _PLAIN, file=open_point_file, files=open_point_files, folder=open_point_folder),
    Format(
        "points", 9, _TABLES, file=open_point_file, files=open_point_files, folder=open_point_folder,
        arrays=open_point_arrays,
    ),
)  # fmt: skip
