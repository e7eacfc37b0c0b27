"""Sources of point clouds: one layout of columns for all of them, large scans cut into blocks.

Every cloud is (P, 9+F) float32 with the columns `COLUMNS` first: x y z in metres from the scan's own corner, red green
blue from 0 to 255, the normal's nx ny nz; then further features. What a file lacks is neutral: colour 127.5, normal 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.fields import Field
from selftaught.data.source import Source, digest, whole_of
from selftaught.errors import SampleError, UserError

__all__ = ["COLUMNS", "Cloud", "CloudArrays", "Clouds", "canonical", "clouds_of", "estimated_normals", "point_classes"]

COLUMNS = ("x", "y", "z", "red", "green", "blue", "nx", "ny", "nz")
"""The first columns of every cloud; its further features follow."""

LABEL_OF_POINTS = "point_label"
"""The name of the field with a class per point."""


class Cloud(NamedTuple):
    """One scan, whole.

    Attributes:
        points: (P, 9+F) float32, see `COLUMNS`; x y z are counted from ``corner``.
        label: (P,) int64 as the file has them, or None.
        corner: (3,) float64, where the scan lies: add it to x y z to get the file's coordinates in metres.
        row: (P,) int64, which point of the file each one is; points without a place in space are left out.
    """

    points: np.ndarray
    label: np.ndarray | None
    corner: np.ndarray
    row: np.ndarray


class Clouds(Source):
    """Scans, or the blocks that they are cut into; a class defines `_scan` alone.

    Fields: ``points`` (P, 9+F), and ``point_label`` (P,) where the scans bring classes of points.

    Attributes:
        columns: the names of all columns, `COLUMNS` first.
        scans: name of each scan.
        block: edge in metres of the square blocks that scans are cut into, seen from above; 0 leaves them whole.
        member: int64 (n, 3) of each sample: its scan, and its block's place along x and y.
    """

    modality = "points"
    columns: tuple[str, ...] = COLUMNS
    scans: Sequence[str] = ()
    block: float = 0.0
    member: np.ndarray
    labelled: bool = False
    ignored: tuple[int, ...] = ()
    known_classes: tuple[str, ...] = ()
    _values: np.ndarray | None = None

    def _scan(self, k: int) -> Cloud:
        raise SampleError(self.scans[k], "no reader")  # pragma: no cover - every class defines it

    @property
    def fields(self) -> dict[str, Field]:
        """``points``, and ``point_label`` where points have classes; see `Source.fields`."""
        own = {"points": Field("points", self.channels)}
        if self.labelled:
            own[LABEL_OF_POINTS] = Field("point_label")
        return own | self._known_fields()

    def cut(self, block: float, least: int = 64) -> None:
        """Make samples of the scans: one each, or one for every block of `block` metres with `least` points or more.

        Raises:
            UserError: a negative block.
        """
        if block < 0:
            raise UserError(f"{self.name}: block={block} is an edge in metres, 0 for whole scans")
        self.channels, self.block = len(self.columns), block
        if not block:
            self.names = list(self.scans)
            self.member = np.stack([np.arange(len(self.scans)), *np.zeros((2, len(self.scans)), int)], 1)
            return
        names, member = [], []
        for k, scan in enumerate(self.scans):
            try:
                cloud = self._scan(k)
            except SampleError:
                names.append(scan)  # reading it says what is wrong
                member.append((k, 0, 0))
                continue
            places, count = np.unique(_places(cloud, block), axis=0, return_counts=True)
            kept = places[count >= min(least, count.max())]
            names += [f"{scan}@{x},{y}" for x, y in kept.tolist()]
            member += [(k, x, y) for x, y in kept.tolist()]
        self.names, self.member = names, np.array(member, dtype=np.int64).reshape(-1, 3)

    def cloud(self, k: int) -> Cloud:
        """A whole scan.

        Raises:
            SampleError: it can't be read.
        """
        return self._scan(k)

    def inside(self, i: int, cloud: Cloud) -> np.ndarray:
        """Which points of its scan sample i holds, positions in ascending order."""
        if not self.block:
            return np.arange(len(cloud.points))
        return np.flatnonzero((_places(cloud, self.block) == self.member[i, 1:]).all(1))

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One cloud (P, 9+F) float32, its x y z counted from its scan's corner; see `Source.read`."""
        cloud = self._scan(int(self.member[i, 0]))
        return np.ascontiguousarray(cloud.points[self.inside(i, cloud)])

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != LABEL_OF_POINTS:
            return super()._field(name, i, min_side, frames)
        cloud = self._scan(int(self.member[i, 0]))
        if cloud.label is None:
            raise SampleError(self.names[i], "its points have no label")
        return self.coded(cloud.label[self.inside(i, cloud)])

    def coded(self, label: np.ndarray) -> np.ndarray:
        """Labels as files have them -> numbers of `point_classes`, -1 where a point has none."""
        values = self.values_of_labels
        at = np.minimum(np.searchsorted(values, label), max(len(values) - 1, 0))
        return np.where(values[at] == label, at, -1) if len(values) else np.full(len(label), -1)

    @property
    def values_of_labels(self) -> np.ndarray:
        """The labels that occur in the scans, ascending, without those that mean "not known"; scans are read once."""
        if self._values is None:
            seen: set[int] = set()
            for k in range(len(self.scans) if self.labelled else 0):
                try:
                    label = self._scan(k).label
                except SampleError:
                    continue
                seen |= set() if label is None else set(np.unique(label).tolist())
            self._values = np.array(sorted(v for v in seen if v >= 0 and v not in self.ignored), dtype=np.int64)
        return self._values

    @property
    def classes_of_points(self) -> list[str]:
        """The name of each class of points."""
        names = self.known_classes
        return [names[v] if v < len(names) else str(v) for v in self.values_of_labels.tolist()]


def clouds_of(source: Source) -> tuple[Clouds, np.ndarray]:
    """The source of clouds that a source is a part of, and which of its samples these are.

    Raises:
        UserError: a source of something else.
    """
    parent, indices = whole_of(source)
    if not isinstance(parent, Clouds):
        raise UserError(f"{source.name}: its points have no files or blocks to tell apart; give a folder of scans")
    return parent, indices


def point_classes(source: Source) -> list[str]:
    """Names of the classes of a source's points; empty where points have none."""
    return clouds_of(source)[0].classes_of_points


class CloudArrays(Clouds):
    """Clouds in memory: arrays (P, 9+F) with the columns `COLUMNS`, and labels (P,) of their points."""

    def __init__(
        self,
        clouds: Sequence[np.ndarray],
        name: str,
        *,
        labels: Sequence[np.ndarray] | None = None,
        classes: Iterable[str] = (),
        names: Sequence[str] | None = None,
        block: float = 0.0,
        columns: tuple[str, ...] = COLUMNS,
    ) -> None:
        self.name, self.columns = name, columns
        self._clouds, self._labels = list(clouds), None if labels is None else list(labels)
        self.labelled, self.known_classes = labels is not None, tuple(classes)
        self.scans = list(names) if names is not None else [f"{k:05d}" for k in range(len(self._clouds))]
        if self.known_classes:
            self._values = np.arange(len(self.known_classes))
        self.cut(block)

    def _scan(self, k: int) -> Cloud:
        points = np.asarray(self._clouds[k], dtype=np.float32)
        label = None if self._labels is None else np.asarray(self._labels[k], dtype=np.int64)
        return Cloud(points, label, np.zeros(3), np.arange(len(points)))

    def fingerprint(self) -> str:
        """Of the content."""
        labels = [] if self._labels is None else [digest(label) for label in self._labels]
        return digest("clouds", *[digest(np.asarray(c)) for c in self._clouds], labels, self.block)


def canonical(
    found: dict[str, np.ndarray], extra: Sequence[str] = (), *, scale: float = 1.0, up: str = "z", normals: str = "file"
) -> Cloud:
    """Named columns as a `Cloud`.

    Args:
        found: columns (P,) by name; x, y and z must be there.
        extra: names of further features to keep, each of which must be there.
        scale: metres in a unit of the coordinates.
        up: axis that points upwards: "z", or "y", which is then turned to z.
        normals: "file": as they are, 0 where there are none; "estimate": by `estimated_normals` where there are none.

    Returns:
        points without those whose place is not finite; x y z are counted from a whole-metre corner.
    """
    place = np.stack([found[axis] for axis in "xyz"], 1).astype(np.float64) * scale
    row = np.flatnonzero(np.isfinite(place).all(1))
    place = place[row]
    normal = _three(found, ("nx", "ny", "nz"), row, 0.0)
    if up == "y":
        place, normal = (v[:, [0, 2, 1]] * (1, -1, 1) for v in (place, normal))
    corner = np.floor(place.min(0)) if len(place) else np.zeros(3)
    place = place - corner
    if normals == "estimate" and "nx" not in found and len(place):
        normal = estimated_normals(place)
    colour = _three(found, ("red", "green", "blue"), row, 127.5)
    top = float(colour.max(initial=0))
    if "red" in found and found["red"].dtype.kind == "f" and top <= 1:
        colour = colour * 255
    elif top > 255:
        colour = colour / 257
    more = [np.nan_to_num(found[name][row].astype(np.float32), posinf=0, neginf=0)[:, None] for name in extra]
    points = np.concatenate([place, np.clip(colour, 0, 255), normal, *more], axis=1, dtype=np.float32)
    label = found["label"][row] if "label" in found else None
    return Cloud(points, None if label is None else np.round(label).astype(np.int64), corner, row)


def estimated_normals(place: np.ndarray, neighbours: int = 16) -> np.ndarray:
    """Normals (P, 3) of unit length: the direction in which the nearest points spread least, turned upwards.

    Args:
        place: (P, 3).
        neighbours: points that a plane is laid through, itself included.
    """
    from scipy.spatial import cKDTree

    k = min(neighbours, len(place))
    near = cKDTree(place).query(place, k=k)[1].reshape(len(place), k)
    normal = np.empty((len(place), 3), dtype=np.float64)
    for start in range(0, len(place), 1 << 16):
        part = place[near[start : start + (1 << 16)]]
        part = part - part.mean(1, keepdims=True)
        normal[start : start + (1 << 16)] = np.linalg.eigh(part.transpose(0, 2, 1) @ part)[1][:, :, 0]
    return np.where(normal[:, 2:] < 0, -normal, normal)


def _three(found: dict[str, np.ndarray], names: Sequence[str], row: np.ndarray, neutral: float) -> np.ndarray:
    """Three columns (P, 3), neutral where they are missing or not finite."""
    if not set(names) <= set(found):
        return np.full((len(row), 3), neutral)
    values = np.stack([found[name][row] for name in names], 1).astype(np.float64)
    return np.where(np.isfinite(values), values, neutral)


def _places(cloud: Cloud, block: float) -> np.ndarray:
    """(P, 2) which block each point lies in; blocks start at the cloud's lowest x and y."""
    xy = cloud.points[:, :2]
    return np.floor((xy - xy.min(0)) / block).astype(np.int64)
