"""Images in files: folders with or without classes, glob patterns, single files."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selftaught._reading import text_of
from selftaught._words import plural
from selftaught.data.decoding import IMAGE_SUFFIXES, fourth_is_alpha, header, needs_all, read_bytes
from selftaught.data.image_source import ImageSource
from selftaught.data.layout import understand
from selftaught.data.pixels import choose_channels
from selftaught.data.scaling import common_depth
from selftaught.data.source import digest
from selftaught.errors import SampleError, UserError

_UNREAD = (
    ".heic", ".heif", ".gif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".pbm", ".psd", ".exr", ".hdr", ".svg", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw", ".jfif", ".tga",
)  # fmt: skip
_VIDEOS, MOVING = (".mp4", ".avi", ".mov", ".mkv", ".webm"), "videos"
_ANNOTATIONS = "val_annotations.txt"
_LOOKED_AT = 64
_HEAD, _WHOLE_BYTES = 1 << 16, 1 << 26


class ImageFiles(ImageSource):
    """Image files under a root, decoded when asked for."""

    def __init__(
        self, root: Path, names: list[str], name: str, channels: int | None = None, arranged: bool = True
    ) -> None:
        """Args: the folder that `names` (relative, with "/") start from; what to call the source; channels to force or
        None; whether the folders mean classes and a split (see `layout`), or nothing.
        """
        self.root, self.name = root, name
        self.convert = channels is not None
        self.names = names
        if arranged:
            understand(self, names, _annotated(root, names))
        self.depth, found, self.bands = _probe(root, names)
        self.unread = found is None  # reading reports it file by file
        self.channels = channels if channels is not None else found or 3
        self.bands &= self.channels == 4

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        name = self.names[i]
        return self._decoded(read_bytes(f"{self.root}/{name}", name), i, min_side)

    def _is_uint8(self) -> bool:
        return self.depth == "uint8"

    def origin(self) -> str:
        """The folder, and the name of the source."""
        return f"{os.path.abspath(self.root)} {self.name}"

    def fingerprint(self) -> str:
        """Of the names, sizes and times of change of all files: a file rewritten in any way changes it, moving the
        folder does not.
        """
        return digest("files", list(self.names), file_stamps(self.root, self.names), self.channels, self.convert)


def file_stamps(root: Path, names: Sequence[str]) -> np.ndarray:
    """(n, 2) int64, size and time of change of files in a folder; -1 where there is none."""
    stats = np.full((len(names), 2), -1, dtype=np.int64)
    for i, name in enumerate(names):
        with contextlib.suppress(OSError):
            status = os.stat(root / name)
            stats[i] = status.st_size, status.st_mtime_ns
    return stats


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
    passed: Counter[str] = Counter()
    names = walk(folder, IMAGE_SUFFIXES, passed)
    films = {MOVING, ".gif"} if passed[MOVING] else set()
    said = ", ".join(f"{count:,} {kind}" for kind, count in passed.items() if kind not in films)
    beside = f" and {passed['.gif']:,} .gif" if films and passed[".gif"] else ""
    moving = f"{plural(passed[MOVING], 'video')}{beside} here: methods for clips take them (--modality clip)"
    if not names:
        there = f"; there are {said}, which can't be read" if said else ""
        there += f"; {moving}" if passed[MOVING] else ""
        raise UserError(f"{name}: no image in this folder or below; looked for {' '.join(IMAGE_SUFFIXES)}{there}")
    source = ImageFiles(folder, names, name, channels)
    if passed:
        source.left_out = {**source.left_out, **passed}
        notes = [f"{said} can't be read and are left out; convert them to .png or .jpg"] if said else []
        source.notes = [*source.notes, *notes, *([moving] if passed[MOVING] else [])]
    return source


def open_glob(pattern: str, *, channels: int | None = None) -> ImageFiles:
    """The images that a glob pattern matches ("**" for any depth); names are relative to the part before the first
    wildcard.

    Raises:
        UserError: nothing matches.
    """
    passed: Counter[str] = Counter()
    root, names = matching_files(pattern, IMAGE_SUFFIXES, "image", passed)
    source = ImageFiles(root, names, pattern, channels)
    source.left_out = {**source.left_out, **passed}
    return source


def globbed(pattern: str, passed: Counter[str] | None = None) -> list[str]:
    """The files that a glob pattern matches, sorted; pipes and devices are passed over and counted, as in folders."""
    found = []
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(path) or not os.path.exists(path):  # a link that leads nowhere says so when read
            found.append(path)
        elif passed is not None and not os.path.isdir(path):
            passed["pipes and devices"] += 1
    return found


def matching_files(
    pattern: str, suffixes: tuple[str, ...], what: str, passed: Counter[str] | None = None
) -> tuple[Path, list[str]]:
    """The part of a glob pattern before its first wildcard, and the matching files of these suffixes relative to it.

    Args:
        pattern: "**" in it for any depth.
        suffixes: lower case.
        what: names what was looked for.
        passed: is filled with the number of pipes and devices.

    Raises:
        UserError: nothing matches.
    """
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    found = [p for p in globbed(pattern, passed) if p.lower().endswith(suffixes)]
    if not found:
        raise UserError(f"{pattern}: no {what} matches this pattern; looked for {' '.join(suffixes)}")
    return fixed, [Path(os.path.relpath(p, fixed)).as_posix() for p in found]


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
        source.labels = source.classes = source.targets = None
    return source


def walk(folder: Path, suffixes: tuple[str, ...], passed: Counter[str] | None = None) -> list[str]:
    """Relative names ("a/b.png") of the files below a folder with one of these suffixes, sorted; links are followed,
    never in circles.

    Args:
        folder: where to look.
        suffixes: lower case.
        passed: is filled with the number of pictures that can't be read, by suffix, of videos, and of folders that
            can't be entered.
    """
    passed = Counter() if passed is None else passed
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
            passed["folders that can't be opened"] += 1
            return
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith((".", "__MACOSX")):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            if is_folder:
                enter(entry.path, f"{prefix}{entry.name}/")
            elif entry.name.lower().endswith(suffixes):
                if is_file or not os.path.exists(entry.path):  # a link that leads nowhere says so when read
                    found.append(prefix + entry.name)
                else:
                    passed["pipes and devices"] += 1
            elif entry.name.lower().endswith(_UNREAD):
                passed[os.path.splitext(entry.name.lower())[1]] += 1
            elif entry.name.lower().endswith(_VIDEOS):
                passed[MOVING] += 1

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


def _annotated(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The classes that Tiny-ImageNet's ``val_annotations.txt`` gives to files: name, tab, class, tab, ..."""
    found: dict[str, str] = {}
    for folder in {name.rpartition("/")[0] for name in names}:
        for place in (folder, folder.rpartition("/")[0]):
            try:
                lines = text_of(root / place / _ANNOTATIONS).splitlines()
            except (OSError, UnicodeDecodeError):
                continue
            rows = [line.split("\t") for line in lines]
            found |= {f"{folder}/{row[0]}": row[1] for row in rows if len(row) > 1}
            break
    return found


def _probe(root: Path, names: list[str]) -> tuple[str | None, int | None, bool]:
    """(type, channels) that most of a sample of the files have, and whether a fourth channel is no transparency; no
    channels where none of them can be read.
    """
    heads, budget, bands = [], _WHOLE_BYTES, False
    for i in np.unique(np.linspace(0, len(names) - 1, min(_LOOKED_AT, len(names))).astype(np.int64)):
        try:
            with (root / names[i]).open("rb") as file:
                data = file.read(_HEAD)
                if needs_all(data):  # told by its content, whatever it is called
                    if budget < 0:
                        continue
                    data += file.read()
                    budget -= len(data)
            heads.append(header(data, names[i]))
            bands |= heads[-1].channels == 4 and not fourth_is_alpha(data)
        except (OSError, SampleError):
            continue
    if not heads:
        return "uint8", None, False
    channels = choose_channels([head.channels for head in heads], bands)
    return common_depth([head.dtype for head in heads]), channels, bands
