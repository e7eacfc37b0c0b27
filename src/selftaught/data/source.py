"""What every source of samples can do, and the plain kinds that other kinds are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np

from selftaught.data.pixels import ValueRange, conform, of_depth, robust_range
from selftaught.errors import SampleError, UserError

Modality = Literal["image", "series"]
TRAIN, VAL, TEST = 0, 1, 2
"""Codes of a given split, as they stand in `Source.given`."""


class Source:
    """A map from ``0..n-1`` to samples, with a stable name for each, read one at a time when asked.

    A source can be pickled to loader workers (fork or spawn): it holds paths, names and small arrays, never open files.

    Attributes:
        name: what the source is called in reports ("photos", "holiday/").
        modality: "image" or "series".
        names: n stable identifiers, one per sample ("cats/001.jpg", "train/00012").
        labels: int64 (n,), or None where nothing is labelled.
        classes: name of each label, or None.
        groups: int64 (n,), which subject or recording a sample comes from, or None. Samples of one group belong in one
            split.
        given: int8 (n,) of `TRAIN`, `VAL`, `TEST` where the source brings its own split, else None.
        channels: channels of every sample that `read` returns, or None where they differ.
        depth: type of the images ("uint8", "uint16", "float32"); one of another type is scaled by the range of its own
            type (`of_depth`). None: any.
        generated: True where the program made the samples up; outputs must say so.
        rate: sampling rate of a series in Hz, or None.
        targets: float64 (n,) where samples have a number to predict (folders named by numbers, regression files), NaN
            where it is not known; else None.
        notes: what was understood of the data and what was left out, in lines for the user.
    """

    name: str = ""
    modality: Modality = "image"
    names: Sequence[str]
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    groups: np.ndarray | None = None
    given: np.ndarray | None = None
    channels: int | None = None
    depth: str | None = None
    generated: bool = False
    rate: float | None = None
    targets: np.ndarray | None = None
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One sample, in memory of its own (contiguous, writeable).

        Args:
            i: position, 0 to n-1.
            min_side: images only; the decoder may return the picture reduced (JPEG: by 2, 4 or 8) as long as its
                shorter side stays at least this many pixels. None: full size.

        Returns:
            An image (H, W, C) uint8, uint16 or float32, or a series (C, T) float32.

        Raises:
            SampleError: the sample is missing, broken, empty, of other channels than the source, or not finite.
        """
        raise SampleError(
            self.names[i], f"{type(self).__name__} can't read"
        )  # pragma: no cover - every kind defines it

    def read_checked(self, i: int) -> np.ndarray:
        """The sample as its file has it, before it is brought to the channels of the source, but with all errors of
        `read`.
        """
        return self.read(i)

    @property
    def value_range(self) -> ValueRange | None:
        """[low, high] per channel that 16-bit and float images are scaled by, chosen once per source; None for uint8.

        It is the 0.1th and 99.9th percentile over at most 32 samples spread evenly over the whole source (both splits,
        no labels looked at). `selftaught.data.as_uint8` applies it; a run records it.
        """
        return None

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when the names, the labels or the content of the source change."""
        return digest(self.name, list(self.names), self.labels)

    def origin(self) -> str:
        """Where the samples come from, whatever their content: the folder, the files, or the name."""
        return self.name

    def subset(self, indices: Iterable[int] | np.ndarray, tag: str = "") -> Source:
        """The samples at `indices`, in that order, as a source of its own; `tag` joins the line of `describe`."""
        return Subset(self, np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices), tag)

    def describe(self) -> str:
        """One line: name, how many samples of which kind, classes, groups."""
        what = "images" if self.modality == "image" else "series"
        parts = [f"{len(self):,} {what}"]
        if self.channels is not None:
            parts.append(f"{self.channels} channel" + ("s" if self.channels != 1 else ""))
        if self.labels is not None:
            parts.append(f"{len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1} classes")
        if self.groups is not None:
            parts.append(f"{len(np.unique(self.groups))} groups")
        if self.generated:
            parts.append("generated by the program")
        return f"{self.name}: " + ", ".join(parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"


class ImageSource(Source):
    """A source whose kind defines `_load` only; the channels and the value range are seen to here.

    Mostly images; kinds that hold either (Hugging Face, torch Datasets) set `modality` to "series" and load (C, T).
    """

    modality: Modality = "image"
    convert: bool = False
    """True where `channels` was asked for by the user: colour may then be turned to grey."""
    _range: ValueRange | None = None
    _ranged: bool = False

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        raise SampleError(self.names[i], "no reader")  # pragma: no cover - every kind defines it

    def _is_uint8(self) -> bool:
        """Whether every sample is known to be uint8, so that no value range has to be looked for."""
        return False

    def read_checked(self, i: int) -> np.ndarray:
        """The image with the channels of its file, (H, W, c); an error where they can't be brought to the source's."""
        if self.modality == "series":
            return self.read(i)
        image = self._load(i, None)
        of_depth(image, self.depth, self.names[i])
        if self.channels is not None and image.shape[2] != self.channels:
            conform(image[:1, :1], self.channels, self.names[i], self.convert)
        return image

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One image (H, W, C); see `Source.read`."""
        image = self._load(i, min_side)
        if self.modality == "series":
            if image.shape[0] != self.channels:
                raise SampleError(self.names[i], f"{image.shape[0]} channels where the source has {self.channels}")
            return image
        if self.channels is not None and image.shape[2] != self.channels:
            image = conform(image, self.channels, self.names[i], self.convert)
        return of_depth(image, self.depth, self.names[i])

    @property
    def value_range(self) -> ValueRange | None:
        """See `Source.value_range`."""
        if not self._ranged:
            self._range = None if self._is_uint8() else robust_range(self)
            self._ranged = True
        return self._range


class Subset(Source):
    """Some samples of another source, in a given order."""

    parent: Source
    indices: np.ndarray
    tag: str

    def __init__(self, parent: Source, indices: np.ndarray, tag: str = "") -> None:
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(parent)):
            raise IndexError(f"indices reach outside 0..{len(parent) - 1}")
        if isinstance(parent, Subset):
            tag = ", ".join(t for t in (parent.tag, tag) if t)
            indices, parent = parent.indices[indices], parent.parent
        self.parent, self.indices, self.tag = parent, indices, tag
        self.name, self.modality, self.classes = parent.name, parent.modality, parent.classes
        self.channels, self.generated, self.rate = parent.channels, parent.generated, parent.rate
        self.depth = parent.depth
        self.names = [parent.names[i] for i in indices.tolist()]
        self.labels = None if parent.labels is None else parent.labels[indices]
        self.groups = None if parent.groups is None else parent.groups[indices]
        self.given = None if parent.given is None else parent.given[indices]
        self.targets, self.notes = None if parent.targets is None else parent.targets[indices], parent.notes

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One sample of the parent; see `Source.read`."""
        return self.parent.read(int(self.indices[i]), min_side)

    def read_checked(self, i: int) -> np.ndarray:
        """One sample of the parent, as its file has it."""
        return self.parent.read_checked(int(self.indices[i]))

    @property
    def value_range(self) -> ValueRange | None:
        """The parent's: both splits are scaled alike."""
        return self.parent.value_range

    def origin(self) -> str:
        """The parent's, and how the samples were chosen."""
        return f"{self.parent.origin()} {self.tag}"

    def fingerprint(self) -> str:
        """The parent's, and which of its samples these are."""
        return digest(self.parent.fingerprint(), self.indices)

    def describe(self) -> str:
        """One line, the split named at the end."""
        return super().describe() + (f" ({self.tag})" if self.tag else "")


def require_labels(source: Source) -> np.ndarray:
    """The labels (n,) int64 of a source that must have them.

    Raises:
        UserError: the source has none.
    """
    if source.labels is None:
        raise UserError(
            f"{source.name} has no labels; put each class in a sub-folder of its own, or give a source that has some"
        )
    return source.labels


def digest(*parts: Any) -> str:
    """A fingerprint (32 hexadecimal digits) of text, numbers, lists of text and arrays, each told from its
    neighbour.
    """
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            h.update(f"a{part.dtype}{part.shape}".encode())
            h.update(np.ascontiguousarray(part).view(np.uint8).reshape(-1).data if part.size else b"")
        elif isinstance(part, list):
            h.update(f"l{len(part)}".encode())
            h.update("\0".join(map(str, part)).encode())
        else:
            h.update(f"s{part!r}".encode())
        h.update(b"\1")
    return h.hexdigest()


def class_labels(values: Sequence[Any] | np.ndarray, names: Sequence[str] | None) -> tuple[Any, list[str] | None]:
    """Labels as a data set lists them, with the names of its classes if it has some, as (labels int64 (n,), names).

    Whole numbers keep their value where there are names for them. Negative ones stand for "not labelled" and make all
    of it (None, None), and so do numbers that aren't whole.
    """
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind == "f" and not np.array_equal(array, np.round(array))):
        return None, None
    if array.dtype.kind in "if" and len(array) and array.min() < 0:
        return None, None
    if names is not None and array.dtype.kind in "iu" and int(array.max(initial=0)) < len(names):
        return array.astype(np.int64), [str(name) for name in names]
    return label_codes(array)


def label_codes(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Whatever tells classes apart as (labels int64 (n,), names of the classes).

    Integers 0..K-1 keep their value; anything else (text, gaps, negatives) is numbered in sorted order.
    """
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    found, codes = np.unique(array, return_inverse=True)
    if array.dtype.kind in "iu" and len(found) and found[0] >= 0 and found[-1] < 2 * len(found):
        return array.astype(np.int64), [str(k) for k in range(int(found[-1]) + 1)]
    return codes.reshape(-1).astype(np.int64), [str(v) for v in found]
