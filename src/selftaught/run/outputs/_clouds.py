"""Features per point beside what a scan's file has: .las and .laz as such, all others as .ply."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.clouds import Cloud, Clouds
from selftaught.data.formats._clouds import LAS
from selftaught.data.formats.points import PointFiles
from selftaught.data.kinds.points import pack
from selftaught.errors import UserError, require
from selftaught.run.outputs._pictures import replaced

__all__ = ["LAS_MOST", "attributes", "features_of", "written"]

LAS_MOST = 300
"""Features per point that a .las file can take: their descriptions share 65,535 bytes."""
_MOST, _MARGIN = 400_000, 4


def features_of(method: Any, cloud: Cloud, block: float = 0.0) -> np.ndarray:
    """(P, D) float32 features of a scan's points; a large one is gone through in blocks.

    Args:
        method: predicts features of a packed batch.
        cloud: the scan.
        block: edge of the blocks in metres; 0: as few as have 400,000 points or less each. Every block is seen with a
            margin of four of the coarsest voxels, whose features are not kept.

    Raises:
        UserError: features that aren't finite.
    """
    import torch

    xy = cloud.points[:, :2].astype(np.float64)
    low, span = xy.min(0), np.ptp(xy, axis=0)
    if not block:
        parts = int(np.ceil(np.sqrt(len(xy) / _MOST)))
        block = float(span.max()) / parts + 1e-6 if parts > 1 else np.inf
    margin = _MARGIN * method.encoder.voxel * 2 ** (len(method.encoder.net.widths) - 1)
    place = np.floor((xy - low) / block).astype(np.int64) if np.isfinite(block) else np.zeros((len(xy), 2), np.int64)
    found: np.ndarray | None = None
    for x, y in np.unique(place, axis=0).tolist():
        mine = (place == (x, y)).all(1)
        seen = mine
        if np.isfinite(block):
            start = low + np.array((x, y)) * block
            seen = ((xy >= start - margin) & (xy < start + block + margin)).all(1)
        batch = {name: value.to(method.device) for name, value in pack([cloud.points[seen]]).items()}
        with torch.inference_mode():
            made = method.predict({"points": batch}).float().cpu().numpy()
        if found is None:
            found = np.empty((len(xy), made.shape[1]), dtype=np.float32)
        found[mine] = made[mine[seen]]
    assert found is not None
    if not np.isfinite(found).all():
        raise UserError(f"{method.slug}: features hold NaN or infinite values; the model diverged")
    return found


def attributes(features: np.ndarray, colours: np.ndarray) -> dict[str, np.ndarray]:
    """The columns that are added: f0, f1 ... and pca_red, pca_green, pca_blue."""
    named = {f"f{k}": features[:, k] for k in range(features.shape[1])}
    return named | {f"pca_{c}": colours[:, k] for k, c in enumerate(("red", "green", "blue"))}


def written(path: Path, source: Clouds, k: int, added: dict[str, np.ndarray]) -> None:
    """The file of a scan with columns added, whole or not at all; points without a place in space get NaN and 0.

    Args:
        path: .las or .laz where the scan's own file is one, else .ply.
        source: the scans.
        k: which of them.
        added: (P,) columns for the points of ``source.cloud(k)``.
    """
    cloud = source.cloud(k)
    root = getattr(source, "root", None)
    original = Path(root) / source.scans[k] if root is not None else None

    def write(part: Path) -> None:
        if original is not None and original.suffix.lower() in LAS:
            _las(original, part, cloud, added)
        elif original is not None and original.suffix.lower() == ".ply":
            plyfile: Any = require("plyfile", "points")
            scan = plyfile.PlyData.read(str(original))
            _ply(np.asarray(scan["vertex"].data), part, cloud, added, scan)
        elif isinstance(source, PointFiles):
            columns = source.file_columns(k)
            if cloud.label is not None and "label" not in columns:  # those of a layout lie in files of their own
                columns = columns | {"label": _spread(cloud.label, cloud.row, len(columns["x"]))}
            _ply(_as_rows(columns), part, cloud, added)
        else:
            _ply(_table(source, cloud), part, cloud, added)

    replaced(path, write)


def _spread(values: np.ndarray, row: np.ndarray, count: int) -> np.ndarray:
    """A column for all points of the file, of which ``values`` are those at ``row``."""
    whole = np.full(count, np.nan if values.dtype.kind == "f" else 0, dtype=values.dtype)
    whole[row] = values
    return whole


def _as_rows(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Vertices of a file that is no .ply: all its columns by name, of types that a .ply has."""
    kept = {"_".join(name.split()): _storable(values) for name, values in columns.items()}
    rows = np.empty(len(kept["x"]), dtype=[(name, values.dtype) for name, values in kept.items()])
    for name, values in kept.items():
        rows[name] = values
    return rows


def _storable(values: np.ndarray) -> np.ndarray:
    """Numbers as a .ply can hold them without loss, else as float64."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8)
    if (kind in "iu" and size <= 4) or (kind == "f" and size in (4, 8)):
        return values
    if kind in "iu" and len(values) and values.min() >= -(2**31) and values.max() < 2**31:
        return values.astype(np.int32)
    return values.astype(np.float64)


def _table(source: Clouds, cloud: Cloud) -> np.ndarray:
    """Vertices of a scan that has no file: all its columns, and its labels."""
    columns = {"x": "f8", "y": "f8", "z": "f8", "red": "u1", "green": "u1", "blue": "u1"}
    kinds = [(name, columns.get(name, "f4")) for name in source.columns]
    rows = np.zeros(
        int(cloud.row.max(initial=-1)) + 1, dtype=kinds + ([] if cloud.label is None else [("label", "i4")])
    )
    for at, (name, kind) in enumerate(kinds):
        values = cloud.points[:, at].astype(np.float64) + (cloud.corner["xyz".index(name)] if name in "xyz" else 0)
        rows[name][cloud.row] = np.round(values) if kind == "u1" else values
    if cloud.label is not None:
        rows["label"][cloud.row] = cloud.label
    return rows


def _ply(rows: Any, path: Path, cloud: Cloud, added: dict[str, np.ndarray], scan: Any = None) -> None:
    """Vertices with columns added; the other elements of ``scan`` (faces of a mesh) and its comments stay."""
    plyfile: Any = require("plyfile", "points")
    new = {name: values for name, values in added.items() if name not in rows.dtype.names}
    renamed = {f"{name}_new": values for name, values in added.items() if name in rows.dtype.names}
    new |= renamed
    kinds = rows.dtype.descr + [(name, values.dtype.str) for name, values in new.items()]
    out = np.empty(len(rows), dtype=kinds)
    for name in rows.dtype.names:
        out[name] = rows[name]
    for name, values in new.items():
        out[name] = _spread(values, cloud.row, len(rows))
    vertices = plyfile.PlyElement.describe(out, "vertex")
    elements = [vertices if old.name == "vertex" else old for old in (scan.elements if scan is not None else [])]
    said = {} if scan is None else {"comments": scan.comments, "obj_info": scan.obj_info}
    plyfile.PlyData(elements or [vertices], text=False, byte_order="<", **said).write(str(path))


def _las(original: Path, path: Path, cloud: Cloud, added: dict[str, np.ndarray]) -> None:
    laspy: Any = require("laspy", "points")
    las = laspy.read(original)
    there = set(las.point_format.dimension_names)
    names = {name: f"{name}_new" if name in there else name for name in added}
    las.add_extra_dims([laspy.ExtraBytesParams(names[n], values.dtype.str[1:]) for n, values in added.items()])
    for name, values in added.items():
        setattr(las, names[name], _spread(values, cloud.row, len(las.points)))
    with path.open("wb") as file:
        las.write(file, do_compress=original.suffix.lower() == ".laz")
