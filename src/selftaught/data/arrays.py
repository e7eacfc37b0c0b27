"""Images in arrays: NumPy arrays and tensors in memory, .npy and .npz files, MedMNIST's layout among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.image_source import ImageSource
from selftaught.data.labelling import Labelling, labelling
from selftaught.data.mapped import members, open_array
from selftaught.data.pixels import as_hwc, channel_axis
from selftaught.data.source import TEST, TRAIN, VAL, digest
from selftaught.errors import UserError

IMAGE_KEYS = ("images", "image", "x", "X", "data", "arr_0")
SERIES_KEYS = ("series", "x", "X", "data", "arr_0")
LABEL_KEYS = ("labels", "label", "y", "Y", "targets", "target")
GROUP_KEYS = ("subject", "subjects", "group", "groups", "user", "users")
_SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}


class Piece(NamedTuple):
    """One array of samples: where it is (None: in memory, then `array`), and which split it holds."""

    path: str | None
    member: str | None
    array: np.ndarray | None
    split: str | None

    def open(self) -> np.ndarray:
        """The array, mapped from disk where it is on disk."""
        if self.path is None:
            assert self.array is not None
            return self.array
        return open_array(self.path, self.member)

    def stamp(self) -> str:
        """Changes when the array changes: of the content in memory, of size and time of change on disk."""
        if self.path is None:
            return digest(self.array)
        status = os.stat(self.path)
        return digest(self.member, status.st_size, status.st_mtime_ns)


class Pieces(NamedTuple):
    """Arrays that follow each other, with what belongs to their samples."""

    parts: list[Piece]
    labels: np.ndarray | None
    classes: list[str] | None
    groups: np.ndarray | None
    targets: np.ndarray | None = None
    parted: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """ "train/00012" where there are splits, else "00012"."""
        return [
            f"{piece.split}/{i:05d}" if piece.split else f"{i:05d}"
            for piece in self.parts
            for i in range(len(piece.open()))
        ]

    def given(self) -> np.ndarray | None:
        """The given split, or None where the arrays bring none."""
        if self.parted is not None:
            return self.parted
        if len({piece.split for piece in self.parts}) < 2:
            return None
        return np.concatenate([np.full(len(p.open()), _SPLITS[p.split or "train"], dtype=np.int8) for p in self.parts])


class ImageArrays(ImageSource):
    """Images that lie in arrays (N, H, W), (N, H, W, C) or (N, C, H, W)."""

    def __init__(self, pieces: Pieces, name: str, channels: int | None = None, stamp: str = "") -> None:
        """Args: the arrays; what to call them; channels to force or None; a fingerprint where the content is known
        otherwise.
        """
        self.name, self.names = name, pieces.names()
        self.labels, self.classes, self.groups, self.given = (
            pieces.labels,
            pieces.classes,
            pieces.groups,
            pieces.given(),
        )
        self.targets, self.notes = pieces.targets, pieces.notes
        self._parts, self._stamp = pieces.parts, stamp
        self._starts = np.cumsum([0] + [len(p.open()) for p in pieces.parts])
        shapes = {p.open().shape[1:] for p in pieces.parts}
        if len(shapes) > 1:
            raise UserError(f"{name}: the splits hold images of different shapes {sorted(shapes)}")
        shape = shapes.pop()
        self._layout = "hwc"
        if len(shape) == 3 and shape[2] != 1 and channel_axis(shape) == 0:
            self._layout = "chw"
        kind = self._parts[0].open().dtype.newbyteorder("=")
        self.depth = {np.dtype(bool): "uint8"}.get(kind, str(kind) if kind in (np.uint8, np.uint16) else "float32")
        self.convert = channels is not None
        own = 1 if len(shape) == 2 else shape[0] if self._layout == "chw" else shape[2]
        self.channels, self.bands = channels or own, own == 4

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        image = np.array(self._parts[part].open()[i - self._starts[part]])
        return as_hwc(np.moveaxis(image, 0, 2) if self._layout == "chw" else image, self.names[i], "hwc")

    def _is_uint8(self) -> bool:
        return self.depth == "uint8"

    def origin(self) -> str:
        """The file, if there is one, and the name of the source."""
        return f"{self._parts[0].path} {self.name}"

    def fingerprint(self) -> str:
        """Of the content in memory, or of the files' sizes and times of change."""
        content = [self._stamp] if self._stamp else [p.stamp() for p in self._parts]
        return digest("arrays", content, self.labels, self.classes or [], self.targets, self.channels, len(self))


def open_image_arrays(data: Any, name: str, *, channels: int | None = None, labels: Any = None) -> ImageArrays:
    """Images of an array, a tensor, a dict of arrays, a .npy or an .npz file.

    Args:
        data: an array (N, H, W), (N, H, W, C) or (N, C, H, W) - see `channel_axis` for how the last two are told apart
            -; or a dict or .npz with ``train_images``, ``train_labels`` (N, 1), ``val_images`` ... (MedMNIST), or
            ``images``/``x`` and ``labels``/``y``, or one array; or the path of such a file.
        name: what to call the source.
        channels: channels that every image shall have.
        labels: (N,) for a plain array.

    Raises:
        UserError: no images in it, or labels of another length.
    """
    pieces = collect(data, name, "images", IMAGE_KEYS, labels)
    for piece in pieces.parts:
        array = piece.open()
        if array.ndim not in (3, 4) or array.dtype.kind not in "uifb":
            raise UserError(
                f"{name}: images must be numbers (N, H, W), (N, H, W, C) or (N, C, H, W); "
                f"these are {array.dtype} {array.shape}"
            )
    return ImageArrays(pieces, name, channels)


def open_npy(path: Path, name: str, *, channels: int | None = None) -> ImageSource:
    """A .npy file: a stack of images (N, H, W) or (N, H, W, C), or one image (H, W) or (H, W, C) with C of 4 or
    less.
    """
    array = open_array(path)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= 4):
        from selftaught.data.files import open_files

        return open_files([path], name, channels=channels)
    return open_image_arrays(path, name, channels=channels)


def collect(data: Any, name: str, plural: str, keys: tuple[str, ...], labels: Any = None) -> Pieces:
    """The arrays, labels, classes and groups in whatever `data` is (array, tensor, dict, path of .npy or .npz).

    Args:
        data: see `open_image_arrays`.
        name: for the errors.
        plural: "images" or "series", the word after ``train_`` in a file with given splits.
        keys: names that the array of samples may have.
        labels: (N,) given beside a plain array.
    """
    path: str | None = None
    if isinstance(data, str | Path):
        path = os.path.abspath(data)
        if not path.lower().endswith(".npz"):
            return _finish([Piece(path, None, None, None)], {}, name, labels, None)
        table: Mapping[str, Any] = dict.fromkeys(members(Path(path)))
    elif isinstance(data, Mapping):
        table = data
    else:
        return _finish([Piece(None, None, to_numpy(data), None)], {}, name, labels, None)

    def fetch(key: str) -> np.ndarray:
        return to_numpy(open_array(path, key) if path else table[key])

    stems = [s for s in _SPLITS if any(f"{s}_{word}" in table for word in (plural, "x", "X"))]
    found: list[tuple[str | None, str]] = []
    if stems:
        found = [(s, next(f"{s}_{w}" for w in (plural, "x", "X") if f"{s}_{w}" in table)) for s in stems]
    else:
        key = next((k for k in keys if k in table), None) or (next(iter(table)) if len(table) == 1 else None)
        if key is None:
            raise UserError(
                f"{name}: no {plural} in it; it wants train_{plural} and test_{plural}, or one of {', '.join(keys)}; "
                f"it has {', '.join(table)}"
            )
        found = [(None, key)]
    parts = [Piece(path, key, None if path else fetch(key), split) for split, key in found]
    extras = {
        kind: [
            next((fetch(prefix + k) for k in wanted if prefix + k in table), None)
            for prefix in [f"{s}_" if s else "" for s, _ in found]
        ]
        for kind, wanted in (("labels", LABEL_KEYS), ("groups", GROUP_KEYS))
    }
    return _finish(parts, extras, name, labels, [str(c) for c in fetch("classes")] if "classes" in table else None)


def to_numpy(data: Any) -> np.ndarray:
    """A NumPy array of an array, tensor or list."""
    return data.detach().cpu().numpy() if hasattr(data, "detach") else np.asarray(data)


def _finish(
    parts: list[Piece], extras: dict[str, list[Any]], name: str, labels: Any, classes: list[str] | None
) -> Pieces:
    sizes = [len(p.open()) if p.open().ndim else 0 for p in parts]
    if not sum(sizes):
        raise UserError(f"{name}: there is no sample in it")
    found, groups = Labelling(), None
    rows = [to_numpy(labels)] if labels is not None else extras.get("labels", [None])
    if rows and all(r is not None for r in rows):
        flat = [_column(r, n, name) for r, n in zip(rows, sizes, strict=True)]
        found = labelling(np.concatenate(flat), classes, Pieces(parts, None, None, None).given())
    rows = extras.get("groups", [None])
    if rows and all(r is not None for r in rows):
        flat = [_column(r, n, name).reshape(n, -1) for r, n in zip(rows, sizes, strict=True)]
        groups = np.unique(np.concatenate(flat), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Pieces(parts, found.labels, found.classes, groups, found.targets, found.given, found.notes)


def _column(values: np.ndarray, n: int, name: str) -> np.ndarray:
    """Labels or groups, one or a row of them for each of n samples."""
    if len(values) != n:
        raise UserError(f"{name}: {len(values)} labels or groups for {n} samples")
    return values if values.ndim == 2 and values.shape[1] > 1 else values.reshape(n)


def labelled_arrays(images: np.ndarray, labels: np.ndarray, classes: list[str], name: str, stamp: str) -> ImageArrays:
    """A source of uint8 images in memory with their labels, for the built-in data sets; `stamp` is its fingerprint."""
    return ImageArrays(
        Pieces([Piece(None, None, images, None)], labels.astype(np.int64), classes, None), name, None, stamp
    )
