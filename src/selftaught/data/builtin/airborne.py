"""`airborne`: a real laser scan from the air, 22,300 points about 0.7 m apart, of CGAL's demo (GPL-3+).

A tenth of its points is labelled as ground, vegetation or roof. The file's colours are those labels painted on, so they
are left out: whoever learnt from them would see the answers. Debian's package libcgal-demo (24 MB) brings it.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np

from selftaught.data.builtin._entry import Entry
from selftaught.data.debian import debian_files
from selftaught.data.formats._clouds import read_columns
from selftaught.data.formats.points import PointFiles
from selftaught.data.mapped import build_once, cache_folder
from selftaught.data.source import TEST, TRAIN
from selftaught.errors import UserError

__all__ = ["ENTRIES", "fetch_airborne", "open_airborne"]

_PACKAGE, _ROOT, _ARCHIVE = "libcgal-demo", "/usr/share/doc/libcgal-dev", "data.tar.gz"
_MEMBER, _FILE = "data/points_3/b9_training.ply", "b9.npz"
_CLASSES = ("ground", "vegetation", "roof")


def open_airborne(*, block: float = 15.0, normals: str = "estimate") -> PointFiles:
    """Blocks of the scan with a class for some of their points; every third block is to test on.

    Args:
        block: edge of a block in metres; 0: the whole scan.
        normals: "estimate" out of the neighbours, or "file": none.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    source = PointFiles(fetch_airborne(), [_FILE], "airborne", block=block, normals=normals)
    source.known_classes = _CLASSES
    source.notes = ["the file's colours are its labels, so they are left out"]
    if block:
        place = source.member[:, 1] + source.member[:, 2]
        source.given = np.where(place % 3 == 0, TEST, TRAIN).astype(np.int8)
    return source


def airborne_folder() -> Path:
    """Where the scan lies, or will lie, in the cache folder."""
    return cache_folder() / "airborne"


def fetch_airborne() -> Path:
    """The folder of the scan, made out of Debian's package if need be.

    Raises:
        UserError: the package is nowhere, and can't be fetched.
    """
    return build_once(airborne_folder(), _build)


def _build(folder: Path) -> None:
    for _, archive in debian_files(_PACKAGE, _ROOT, lambda path: path == _ARCHIVE):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.extractfile(_MEMBER)
            if member is not None:
                _keep(folder, member.read())
                return
    raise UserError(f"Debian's {_PACKAGE} holds no {_MEMBER}; another version of it does")


def _keep(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "b9.ply"
    path.write_bytes(content)
    found = read_columns(path, path.name)
    path.unlink()
    np.savez(folder / _FILE, coord=np.stack([found[axis] for axis in "xyz"], 1), label=found["label"])


ENTRIES = (
    Entry(
        "airborne",
        "points",
        "a laser scan from the air, 22,300 points in blocks of 15 m, 3 classes, about 37 + 19",
        "Debian's libcgal-demo",
        open_airborne,
        fetch=fetch_airborne,
        here=lambda: airborne_folder().is_dir(),
    ),
)
