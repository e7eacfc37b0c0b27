"""Files of points as named columns: .ply, .pcd, .las and .laz, text, .npy and .npz."""

from __future__ import annotations

import contextlib
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.formats._pcd import pcd_columns, pcd_names
from selftaught.data.mapped import NO_ARCHIVE
from selftaught.errors import SampleError, require

__all__ = ["LAS", "TEXT", "column_names", "read_columns"]

LAS, TEXT = (".las", ".laz"), (".xyz", ".pts", ".txt", ".csv")
_ALIASES = {
    "r": "red", "g": "green", "b": "blue", "diffuse_red": "red", "diffuse_green": "green", "diffuse_blue": "blue",
    "normal_x": "nx", "normal_y": "ny", "normal_z": "nz", "normalx": "nx", "normaly": "ny", "normalz": "nz",
    "//x": "x", "#x": "x",
}  # fmt: skip
_LABELS = ("label", "labels", "class", "classification", "scalar_label", "scalar_classification", "semantic", "segment",
           "semantic_gt20", "raw_label")  # fmt: skip
_ARRAYS = {
    "coord": ("x", "y", "z"), "coords": ("x", "y", "z"), "xyz": ("x", "y", "z"), "points": ("x", "y", "z"),
    "pos": ("x", "y", "z"), "color": ("red", "green", "blue"), "colors": ("red", "green", "blue"),
    "colour": ("red", "green", "blue"), "rgb": ("red", "green", "blue"), "normal": ("nx", "ny", "nz"),
    "normals": ("nx", "ny", "nz"),
}  # fmt: skip
_LAS_LEFT = {"x", "y", "z"}
Columns = dict[str, np.ndarray]


def column_names(path: Path, name: str) -> list[str]:
    """The names of a file's columns, without reading its points where the format allows it.

    Raises:
        SampleError: the file can't be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".ply":
            return [_plain(found) for found in _ply_properties(path, name)]
        if suffix == ".pcd":
            return [_plain(found) for found in pcd_names(path, name)]
        if suffix in LAS:
            with _laspy_errors(), _laspy().open(path) as file:
                return [_plain(str(found)) for found in file.header.point_format.dimension_names]
    except (OSError, ValueError) as error:
        raise SampleError(name, f"not readable: {str(error)[:80]}") from None
    return list(read_columns(path, name))


def read_columns(path: Path, name: str, columns: tuple[str, ...] = ()) -> Columns:
    """Every column of a file by its name, (P,) each; x y z are float64.

    Colours are called red, green and blue, normals nx, ny and nz, classes of points ``label``.

    Args:
        path: the file.
        name: of the sample, for errors.
        columns: names of the columns of a text or .npy file; () tells by their number and values.

    Raises:
        SampleError: the file is missing, damaged or no cloud.
    """
    try:
        found = _read(path, name, columns)
    except SampleError:
        raise
    except OSError as error:
        raise SampleError(name, f"can't be opened: {error.strerror or 'damaged'}") from None
    except (*NO_ARCHIVE, IndexError, MemoryError) as error:
        raise SampleError(name, f"not a readable cloud of points: {str(error)[:80]}") from None
    if not {"x", "y", "z"} <= set(found):
        raise SampleError(name, f"no x y z among its columns {', '.join(found)}")
    if not len(found["x"]):
        raise SampleError(name, "no points")
    return found | {axis: np.asarray(found[axis], dtype=np.float64) for axis in "xyz"}


def _read(path: Path, name: str, columns: tuple[str, ...]) -> Columns:
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return _named(_ply_vertices(path, name))
    if suffix == ".pcd":
        return {_plain(key): value for key, value in pcd_columns(path, name).items()}
    if suffix in LAS:
        with _laspy_errors():
            las = _laspy().read(path)
        found = {_plain(d): np.asarray(las[d]) for d in las.point_format.dimension_names if d.lower() not in _LAS_LEFT}
        return {axis: np.asarray(getattr(las, axis), dtype=np.float64) for axis in "xyz"} | found
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            return _of_arrays({key: stored[key] for key in stored.files}, name)
    if suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        return _named(array) if array.dtype.names else of_table(array, name, columns)
    return _text(path, name, columns)


def of_table(table: np.ndarray, name: str, columns: tuple[str, ...] = ()) -> Columns:
    """The columns of an array (P, C) by their names; where none are given, by their number and values.

    3: x y z. 6: then colours where values exceed 1 or none is below 0, else normals. 7: intensity stands before the
    colours, or a label after them where the last column holds small whole numbers. 9 and more: colours, normals, and
    a label where a tenth column holds small whole numbers. Anything else is called f0, f1 ...

    Raises:
        SampleError: no table of numbers, or another number of columns than names.
    """
    if table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "uif":
        raise SampleError(name, f"{table.dtype} {'x'.join(map(str, table.shape))} is no table of points")
    if columns and len(columns) != table.shape[1]:
        raise SampleError(name, f"{table.shape[1]} columns where {len(columns)} are named")
    names = [_plain(column) for column in columns] or _guessed(table)
    return {key: table[:, k] for k, key in enumerate(names)}


def _guessed(table: np.ndarray) -> list[str]:
    names, count = ["x", "y", "z"], table.shape[1]
    if count == 4:
        return [*names, "label" if _small_whole(table[:, 3]) else "intensity"]
    if count == 7 and not _small_whole(table[:, 6]):
        return [*names, "intensity", "red", "green", "blue"]
    if count >= 6:
        part = table[:, 3:6]
        colours = count >= 9 or part.max() > 1 or part.min() >= 0
        names += ["red", "green", "blue"] if colours else ["nx", "ny", "nz"]
    if count >= 9:
        names += ["nx", "ny", "nz"]
    if count in (7, 10) and _small_whole(table[:, -1]):
        names.append("label")
    return names + [f"f{k}" for k in range(count - len(names))]


def _small_whole(column: np.ndarray) -> bool:
    return bool((column == np.round(column)).all() and column.min() >= -1 and column.max() < 64)


def _of_arrays(arrays: dict[str, np.ndarray], name: str) -> Columns:
    found: Columns = {}
    for key, array in arrays.items():
        parts = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        names = list(_ARRAYS.get(key.lower(), ()))
        if key.lower() == "points" and parts.shape[1] != 3:
            found |= of_table(parts, name)
            continue
        if len(names) != parts.shape[1]:
            names = [_plain(key)] if parts.shape[1] == 1 else [f"{key}_{k}" for k in range(parts.shape[1])]
        found |= {column: parts[:, k] for k, column in enumerate(names)}
    sizes = {len(column) for column in found.values()}
    if len(sizes) > 1:
        raise SampleError(name, f"arrays of {' and '.join(map(str, sorted(sizes)))} points in one file")
    return found


def _text(path: Path, name: str, columns: tuple[str, ...]) -> Columns:
    """A table with spaces, tabs or commas between numbers; a first line of words names the columns."""
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = [file.readline() for _ in range(2)]
    first = lines[0].strip().lstrip("#/ ")
    words = re.split(r"[\s,;]+", first)
    named = not _number(words[0]) if words[0] else False
    count_line = path.suffix.lower() == ".pts" and len(words) == 1 and len(lines[1].split()) > 1
    separator = "," if "," in lines[1] or "," in lines[0] else ";" if ";" in lines[1] else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a file without rows, which is said by `of_table`
        table = np.loadtxt(path, delimiter=separator, skiprows=int(named or count_line), ndmin=2, comments=["#", "//"])
    wanted = columns or (tuple(words) if named and len(words) == table.shape[1] else ())
    return of_table(table, name, wanted)


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _named(rows: np.ndarray) -> Columns:
    return {_plain(key): np.asarray(rows[key]) for key in rows.dtype.names or () if rows.dtype[key].kind in "uif"}


def _plain(name: str) -> str:
    """A column's name as this toolkit has it."""
    low = name.strip().lower().replace(" ", "_")
    low = _ALIASES.get(low, low)
    return "label" if low in _LABELS else low


def _laspy() -> Any:
    return require("laspy", "points")


@contextlib.contextmanager
def _laspy_errors() -> Iterator[None]:
    """What laspy says of a damaged file, as a ValueError."""
    try:
        yield
    except (_laspy().errors.LaspyException, struct.error, OverflowError, TypeError) as error:
        raise ValueError(str(error)) from None


def _ply_properties(path: Path, name: str) -> list[str]:
    """The properties of the vertices, out of the header."""
    found: list[str] = []
    here = False
    with path.open("rb") as file:
        if file.readline().strip() != b"ply":
            raise SampleError(name, "not a .ply file")
        for _ in range(4096):
            words = file.readline().decode("ascii", "replace").split()
            if words[:1] == ["end_header"]:
                return found
            if words[:1] == ["element"]:
                here = words[1] == "vertex"
            elif words[:1] == ["property"] and here and words[1] != "list":
                found.append(words[-1])
    raise SampleError(name, "a .ply file whose header has no end")


def _ply_vertices(path: Path, name: str) -> np.ndarray:
    plyfile: Any = require("plyfile", "points")
    try:
        data = plyfile.PlyData.read(str(path))
    except plyfile.PlyParseError as error:
        raise SampleError(name, f"damaged .ply: {str(error)[:80]}") from None
    if "vertex" not in data:
        raise SampleError(name, "a .ply file without vertices")
    return np.asarray(data["vertex"].data)
