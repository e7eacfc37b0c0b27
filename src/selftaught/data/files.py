"""Images in files: folders with or without classes, glob patterns, single files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selftaught.data.decoding import IMAGE_SUFFIXES, decode, header, read_bytes
from selftaught.data.pixels import choose_channels
from selftaught.data.source import TEST, TRAIN, VAL, ImageSource, digest
from selftaught.errors import SampleError, UserError

SPLIT_FOLDERS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST, "testing": TEST,
}  # fmt: skip
"""Sub-folders directly under the source (any case) that make a given split, where "train" is among at least two of
them.
"""

_LOOKED_AT = 64
_HEAD, _WHOLE_BYTES = 1 << 16, 1 << 26


class ImageFiles(ImageSource):
    """Image files under a root, decoded when asked for."""

    def __init__(self, root: Path, names: list[str], name: str, channels: int | None = None) -> None:
        """Args: the folder that `names` (relative, with "/") start from; what to call the source; channels to force or
        None.
        """
        self.root, self.names, self.name = root, names, name
        self.convert = channels is not None
        self.labels, self.classes, self.given = layout(names)
        self._all_uint8, found = _probe(root, names, name)
        self.channels = channels if channels is not None else found

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        name = self.names[i]
        return decode(read_bytes(f"{self.root}/{name}", name), name, min_side)

    def _is_uint8(self) -> bool:
        return self._all_uint8

    def origin(self) -> str:
        """The folder, and the name of the source."""
        return f"{os.path.abspath(self.root)} {self.name}"

    def fingerprint(self) -> str:
        """Of the names, sizes and times of change of all files: a file rewritten in any way changes it, moving the
        folder does not.
        """
        stats = np.zeros((len(self), 2), dtype=np.int64)
        for i, name in enumerate(self.names):
            try:
                status = os.stat(self.root / name)
                stats[i] = status.st_size, status.st_mtime_ns
            except OSError:
                stats[i] = -1
        return digest("files", list(self.names), stats, self.channels, self.convert)


def open_folder(folder: Path, name: str, *, channels: int | None = None) -> ImageFiles:
    """All images under a folder, sub-folders included, in sorted order; hidden files are passed over.

    One level of sub-folders, at least two of them, is read as classes; ``train/`` beside ``test/`` (or ``val/``) as a
    given split.

    Args:
        folder: where to look.
        name: what to call the source.
        channels: channels that every image shall have; None: as most of the files.

    Raises:
        UserError: there is no image in it.
    """
    names = walk(folder, IMAGE_SUFFIXES)
    if not names:
        raise UserError(f"{name}: no image in this folder or below; looked for {' '.join(IMAGE_SUFFIXES)}")
    return ImageFiles(folder, names, name, channels)


def open_glob(pattern: str, *, channels: int | None = None) -> ImageFiles:
    """The images that a glob pattern matches ("**" for any depth); names are relative to the part before the first
    wildcard.

    Raises:
        UserError: nothing matches.
    """
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    found = sorted(p for p in glob.glob(pattern, recursive=True) if p.lower().endswith(IMAGE_SUFFIXES))
    if not found:
        raise UserError(f"{pattern}: no image matches this pattern; looked for {' '.join(IMAGE_SUFFIXES)}")
    names = [Path(os.path.relpath(p, fixed)).as_posix() for p in found]
    return ImageFiles(fixed, names, pattern, channels)


def open_files(paths: Sequence[str | Path], name: str, *, channels: int | None = None) -> ImageFiles:
    """Single image files, in the order given; named relative to the folder they share.

    Raises:
        UserError: one of them is not there, or its suffix is not one of an image.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        if not path.name.lower().endswith(IMAGE_SUFFIXES):
            raise UserError(f"{path}: not an image by its suffix; can read {' '.join(IMAGE_SUFFIXES)}")
    resolved = [Path(os.path.abspath(p)) for p in paths]
    root = Path(os.path.commonpath([p.parent for p in resolved]))
    source = ImageFiles(root, [p.relative_to(root).as_posix() for p in resolved], name, channels)
    if len(resolved) == 1:
        source.labels = source.classes = None
    return source


def walk(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Relative names ("a/b.png") of the files below a folder with one of these suffixes, sorted; links are followed,
    never in circles.
    """
    found: list[str] = []
    seen: set[str] = set()

    def enter(path: str, prefix: str) -> None:
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        try:
            entries = list(os.scandir(path))
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir():
                enter(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(suffixes):
                found.append(prefix + entry.name)

    enter(str(folder), "")
    return sorted(found)


def natural(name: str) -> list[tuple[int, str]]:
    """A key for sorting: numbers within names count as numbers, "frame2" comes before "frame10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def holds_any(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether some visible file below a folder has one of these suffixes; stops at the first."""
    for _, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        if any(f.lower().endswith(suffixes) and not f.startswith(".") for f in files):
            return True
    return any(p.is_symlink() and p.is_dir() for p in folder.iterdir()) and bool(walk(folder, suffixes))


def layout(names: Sequence[str]) -> tuple[np.ndarray | None, list[str] | None, np.ndarray | None]:
    """What the sub-folders of these names mean: (labels, classes, given split), None for what they don't say."""
    parts = [name.split("/") for name in names]
    tops = {p[0].lower() for p in parts if len(p) > 1}
    given = None
    if all(len(p) > 1 for p in parts) and tops <= set(SPLIT_FOLDERS) and "train" in tops and len(tops) > 1:
        given = np.array([SPLIT_FOLDERS[p[0].lower()] for p in parts], dtype=np.int8)
        parts = [p[1:] for p in parts]
    folders = sorted({p[0] for p in parts})
    if all(len(p) == 2 for p in parts) and len(folders) > 1:
        code = {folder: k for k, folder in enumerate(folders)}
        return np.array([code[p[0]] for p in parts], dtype=np.int64), folders, given
    return None, None, given


def _probe(root: Path, names: list[str], name: str) -> tuple[bool, int]:
    """Whether a sample of the files is all uint8, and the channels that most of them have."""
    channels, types, budget = [], set(), _WHOLE_BYTES
    for i in np.unique(np.linspace(0, len(names) - 1, min(_LOOKED_AT, len(names))).astype(np.int64)):
        path, whole = root / names[i], names[i].lower().endswith((".tif", ".tiff", ".npy"))
        if whole and budget < 0:
            continue
        try:
            with path.open("rb") as file:
                data = file.read(-1 if whole else _HEAD)
            budget -= len(data) if whole else 0
            head = header(data, names[i])
        except (OSError, SampleError):
            continue
        channels.append(head.channels)
        types.add(head.dtype)
    if not channels:  # all of the sample is broken: reading reports it file by file
        return True, 3
    return types == {"uint8"}, choose_channels(channels)
