"""PCL's .pcd files: ascii, binary and binary_compressed (LZF)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from selftaught.errors import SampleError

__all__ = ["decompressed", "pcd_columns", "pcd_names"]


class _Head(NamedTuple):
    names: list[str]
    type: np.dtype
    points: int
    coding: str
    start: int


def pcd_names(path: Path, name: str) -> list[str]:
    """The names of a .pcd file's columns; a packed colour counts as red, green and blue.

    Raises:
        SampleError: not a .pcd file.
    """
    with path.open("rb") as file:
        head = _head(file.read(4096), name)
    return [part for field in head.names for part in (("red", "green", "blue") if _packed(field) else (field,))]


def pcd_columns(path: Path, name: str) -> dict[str, np.ndarray]:
    """Every column (P,) of a .pcd file; fields of several numbers become ``name_0``, ``name_1`` ...

    Raises:
        SampleError: not a .pcd file, or cut off.
    """
    data = path.read_bytes()
    head = _head(data, name)
    body = data[head.start :]
    if head.coding == "ascii":
        rows = _ascii(body, head, name)
    elif head.coding == "binary":
        if len(body) < head.points * head.type.itemsize:
            raise SampleError(name, "cut off")
        rows = np.frombuffer(body, head.type, head.points)
    elif head.coding == "binary_compressed":
        rows = _compressed(body, head, name)
    else:
        raise SampleError(name, f".pcd of DATA {head.coding!r}")
    found: dict[str, np.ndarray] = {}
    for field in head.names:
        column = rows[field]
        if _packed(field):
            whole = column.astype(np.float32).view(np.uint32) if column.dtype.kind == "f" else column.astype(np.uint32)
            found |= {c: ((whole >> shift) & 255) for c, shift in (("red", 16), ("green", 8), ("blue", 0))}
        elif column.ndim == 1:
            found[field] = column
        else:
            found |= {f"{field}_{k}": column[:, k] for k in range(column.shape[1])}
    return found


def _packed(field: str) -> bool:
    return field in ("rgb", "rgba")


def _head(data: bytes, name: str) -> _Head:
    lines: dict[str, list[str]] = {}
    at = 0
    while "DATA" not in lines:
        end = data.find(b"\n", at)
        if end < 0 or at > 4096:
            raise SampleError(name, "not a .pcd file")
        words = data[at:end].decode("ascii", "replace").split()
        if words and not words[0].startswith("#"):
            lines[words[0].upper()] = words[1:]
        at = end + 1
    try:
        names, sizes, kinds = lines["FIELDS"], lines["SIZE"], lines["TYPE"]
        counts = [int(c) for c in lines.get("COUNT", ["1"] * len(names))]
        points = int(lines["POINTS"][0])
        columns = [
            (field if field != "_" else f"_{k}", f"<{kind.lower()}{size}", (count,) if count > 1 else ())
            for k, (field, kind, size, count) in enumerate(zip(names, kinds, sizes, counts, strict=True))
        ]
        rows = np.dtype(columns)
    except (KeyError, IndexError, ValueError, TypeError):
        raise SampleError(name, "a damaged .pcd header") from None
    known = [column[0] for column in columns if not column[0].startswith("_")]
    return _Head(known, rows, points, lines["DATA"][0].lower(), at)


def _ascii(body: bytes, head: _Head, name: str) -> np.ndarray:
    table = np.array(body.split(), dtype=np.float64)
    width = sum(int(np.prod(head.type[field].shape or (1,))) for field in head.type.names or ())
    if len(table) != head.points * width:
        raise SampleError(name, "cut off")
    table = table.reshape(head.points, width)
    rows, at = np.empty(head.points, head.type), 0
    for field in head.type.names or ():
        shape = head.type[field].shape
        step = int(np.prod(shape or (1,)))
        rows[field] = table[:, at : at + step].reshape(head.points, *shape)
        at += step
    return rows


def _compressed(body: bytes, head: _Head, name: str) -> np.ndarray:
    small, whole = np.frombuffer(body, "<u4", 2).tolist()
    flat = decompressed(body[8 : 8 + small], whole)
    if len(flat) != whole or whole != head.points * head.type.itemsize:
        raise SampleError(name, "cut off")
    rows, at = np.empty(head.points, head.type), 0
    for field in head.type.names or ():
        part = head.type[field]
        size = part.itemsize * head.points
        rows[field] = np.frombuffer(flat[at : at + size], part.base).reshape(head.points, *part.shape)
        at += size
    return rows


def decompressed(data: bytes, size: int) -> bytes:
    """What LZF packed: literal runs, and copies of what came before (at most 8,192 bytes back).

    Args:
        data: the packed bytes.
        size: of the result, at which reading ends.
    """
    out = bytearray()
    at = 0
    while at < len(data) and len(out) < size:
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[at]
            at += 1
        back = ((control & 31) << 8 | data[at]) + 1
        at += 1
        start = len(out) - back
        for k in range(length + 2):  # byte by byte: a copy may read what it writes
            out.append(out[start + k])
    return bytes(out)
