"""What every source of samples can do, and a part of one as a source of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import ON_DISK
from selftaught._words import lacking, plural
from selftaught.data.fields import LABEL, Field, wanted_fields
from selftaught.data.kinds import kind_of
from selftaught.data.scaling import Scale, ValueRange, unit_scale
from selftaught.errors import SampleError, UserError

Modality = str
"""The name of a kind that a source's main field can have: "image", "series", "clip" ..."""

TRAIN, VAL, TEST, UNLABELLED, LEFT_OUT = 0, 1, 2, 3, 4
"""Codes of a given split, as they stand in `Source.given`. UNLABELLED: to learn from, without labels beside labelled
parts; LEFT_OUT: of no part, such as test samples whose labels are not known.
"""


PER_SAMPLE = ("labels", "groups", "given", "targets", "spacing")
"""Attributes of a `Source` that are None or have an entry for each sample."""


class Source:
    """A map from ``0..n-1`` to samples, with a stable name for each, read one at a time when asked.

    A source can be pickled to loader workers (fork or spawn): it holds paths, names and small arrays, never open files.

    Attributes:
        name: what the source is called in reports ("photos", "holiday/").
        modality: the kind of the main field, one of `selftaught.data.kinds.KINDS`: "image", "series", "clip" ...
        names: n stable identifiers, one per sample ("cats/001.jpg", "train/00012").
        labels: int64 (n,), -1 for samples without label, which `split_source` keeps out of train, val and test; or None
            where nothing is labelled.
        classes: name of each label, or None.
        groups: int64 (n,), which subject or recording a sample comes from, or None. Samples of one group belong in one
            split.
        group_names: what the groups are called, by their number, or None.
        given: int8 (n,) of `TRAIN`, `VAL`, `TEST`, `UNLABELLED`, `LEFT_OUT` where the source brings a split, else None.
        channels: channels of every sample that `read` returns, or None where they differ.
        bands: True where the fourth of four channels is one like the others (near infrared), and no transparency.
        depth: type of the images ("uint8", "uint16", "float32"); one of another type is scaled by the range of its own
            type (`of_depth`). None: any.
        unread: True where no sample that was looked at can be read: what is said of their channels is a guess.
        generated: True where the program made the samples up; outputs must say so.
        devices: names of the devices whose channels a series holds, one device after the other, or None.
        rate: sampling rate of a series in Hz, frames a second of a clip, or None.
        spacing: float32 (n, 3), millimetres between the voxels of each volume along D, H and W, or None.
        values: numbers that are known of each sample, name -> float32 (n,) or (n, K); each is a field of its own.
        targets: float64 (n,) where samples have a number to predict (folders named by numbers, regression files), NaN
            where it is not known; else None.
        structures: what the numbers 0, 1, 2 ... in masks stand for, or None.
        notes: what was understood of the data and what was left out, in lines for the user.
        left_out: what lies there and is no sample (".heic", "in the split extra"), with how many of them.
    """

    name: str = ""
    modality: Modality = "image"
    names: Sequence[str]
    labels: np.ndarray | None = None
    classes: list[str] | None = None
    groups: np.ndarray | None = None
    group_names: list[str] | None = None
    given: np.ndarray | None = None
    channels: int | None = None
    bands: bool = False
    depth: str | None = None
    unread: bool = False
    generated: bool = False
    rate: float | None = None
    devices: list[str] | None = None
    spacing: np.ndarray | None = None
    targets: np.ndarray | None = None
    structures: list[str] | None = None
    notes: Sequence[str] = ()
    left_out: Mapping[str, int] = {}
    values: Mapping[str, np.ndarray] = {}

    @property
    def fields(self) -> dict[str, Field]:
        """What `sample` gives, name -> `Field`: the main field first, called by its kind; then ``values`` and the
        label.
        """
        return {self.modality: Field(self.modality, self.channels)} | self._known_fields()

    def _known_fields(self) -> dict[str, Field]:
        """The fields that need no reading: ``values`` and the label."""
        fields = {name: Field("value") for name in self.values}
        return fields | ({LABEL: Field(LABEL)} if self.labels is not None else {})

    @property
    def main(self) -> str:
        """The name of the first field: the one that `read` gives."""
        return next(iter(self.fields))

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

    def sample(
        self,
        i: int,
        want: Iterable[str] | None = None,
        min_side: int | None = None,
        frames: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """The fields of one sample.

        Args:
            i: position, 0 to n-1.
            want: names of the fields to read; None: all of `fields`. Nothing else is read or decoded.
            min_side: as in `read`. Where several fields lie on one grid, none of them is reduced.
            frames: of clips only; which frames, as in the clips' `read`.

        Raises:
            SampleError: one of the fields can't be read.
            UserError: there is no such field.
        """
        return {name: self._field(name, i, min_side, frames) for name in wanted_fields(self.fields, want, self.name)}

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        """One field of a sample; a source with fields of its own overrides this."""
        if name in self.values:
            return self.values[name][i]
        if name == LABEL and self.labels is not None:
            return int(self.labels[i])
        return self.read(i, min_side) if frames is None else self.read(i, min_side, frames=frames)  # type: ignore[call-arg]

    def brought(self, i: int) -> list[np.ndarray] | None:
        """Views (H, W, C) of a sample that the source brings itself, in place of those that a method makes; None: none.

        Raises:
            SampleError: they can't be read.
        """
        return None

    def brings(self) -> bool:
        """Whether the samples bring their own views, by the first that can be read."""
        for i in range(min(len(self), 64)):
            try:
                return self.brought(i) is not None
            except SampleError:
                continue
        return False

    def frames(self, i: int) -> int:
        """Frames of a clip: `read` and `sample` take ``frames``, positions from 0 to this less one.

        Raises:
            SampleError: it can't be read.
            UserError: the samples are no clips.
        """
        raise UserError(f"{self.name} holds {kind_of(self.modality).plural}, which have no frames")

    def seconds(self, i: int) -> tuple[float, float] | None:
        """When the first and the last frame of a clip are shown, in seconds of its recording; None without a clock."""
        return None

    def space(self, i: int) -> Any:
        """Where the voxels of a volume lie in the patient (`selftaught.data.space.Space`); None: not known."""
        return None

    def times(self, i: int) -> np.ndarray | None:
        """When each frame of a clip is shown, float64 (T,) seconds of its recording; None without a clock."""
        ends = self.seconds(i)
        return None if ends is None else np.linspace(*ends, self.frames(i))

    def video_file(self, i: int) -> Path | None:
        """The video file that a clip is (a part of); None where it comes from no such file."""
        return None

    def frame_names(self, i: int) -> list[str] | None:
        """What the frames of a clip are called, where each is a file: its name; None where they have none."""
        return None

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

    def any_depth(self) -> None:
        """Read samples of every type as they are from now on: whoever reads them has a `Scale` to tell types apart."""
        self.depth = None

    def scaled_as(self, value_range: ValueRange | None) -> ValueRange | None:
        """What to scale these samples by: the range of a run where it has one, else their own.

        A run's `Scale` tells types apart by itself, so that files are then read as they are, whatever lies beside them.
        """
        if getattr(value_range, "depth", None) is not None:
            self.any_depth()
        return self.value_range if value_range is None else value_range

    def unit_scale(self) -> Scale:
        """What brings the samples to [0, 1] where they are given back in their own units; see `scaling.unit_scale`."""
        return unit_scale(self.value_range, getattr(self, "depth", None))

    def range_of(self, field: str) -> ValueRange | None:
        """The value range of one field; see `value_range`."""
        return self.value_range if field == self.main else None

    def fingerprint(self) -> str:
        """32 hexadecimal digits that change when the names, the labels or the content of the source change."""
        return digest(self.name, list(self.names), self.labels)

    def origin(self) -> str:
        """Where the samples come from, whatever their content: the folder, the files, or the name."""
        return self.name

    def subset(self, indices: Iterable[int] | np.ndarray, tag: str = "") -> Source:
        """The samples at `indices`, in that order, as a source of its own; `tag` joins the line of `describe`."""
        return Subset(self, np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices), tag)

    def check_read(self) -> None:
        """Refuse a source of which nothing could be read.

        Raises:
            UserError: none of the samples that were looked at can be.
        """
        if self.unread:
            raise UserError(f"{self.name}: none of the samples looked at can be read; run: selftaught data check")

    def _counted(self) -> str:
        return plural(len(self), kind_of(self.modality).singular)

    def describe(self) -> str:
        """One line: name, how many samples of which kind, classes, groups, the split it brings, what was left out."""
        parts = [self._counted()]
        if self.unread:
            parts.append("none of those looked at can be read")
        elif self.channels is not None:
            clear = self.modality == "image" and self.channels == 4 and not self.bands
            parts.append(
                plural(self.channels, "channel") + (" (the fourth is marked as transparency)" if clear else "")
            )
        if self.labels is not None:
            count = len(self.classes) if self.classes else int(self.labels.max(initial=-1)) + 1
            parts.append(plural(count, "class"))
        if self.groups is not None:
            parts.append(plural(len(np.unique(self.groups)), "group"))
        if self.given is not None and len(np.unique(self.given)) > 1:
            called = ("to train", "to validate", "to test", "without label", "in none of these parts")
            counts = [(int((self.given == code).sum()), word) for code, word in enumerate(called)]
            parts.append(" + ".join(f"{count:,} {word}" for count, word in counts if count))
        if self.generated:
            parts.append("generated by the program")
        if self.left_out:
            parts.append("not read: " + " and ".join(f"{count:,} {why}" for why, count in self.left_out.items()))
        return f"{self.name}: " + ", ".join(parts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"


class Subset(Source):
    """Some samples of another source, in a given order."""

    parent: Source
    indices: np.ndarray
    tag: str

    def __init__(self, parent: Source, indices: np.ndarray, tag: str = "") -> None:
        indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(indices) and (indices.min() < 0 or indices.max() >= len(parent)):
            raise IndexError(f"indices reach outside 0..{len(parent) - 1}")
        nearest, chosen = parent, indices  # what is known of a subset's samples may have been changed or dropped
        if isinstance(parent, Subset):
            tag = ", ".join(t for t in (parent.tag, tag) if t)
            indices, parent = parent.indices[indices], parent.parent
        self.parent, self.indices, self.tag = parent, indices, tag
        self.name, self.modality, self.classes, self.notes = (
            nearest.name,
            parent.modality,
            nearest.classes,
            nearest.notes,
        )
        self.channels, self.generated, self.rate = parent.channels, parent.generated, parent.rate
        self.devices, self.structures, self.group_names = parent.devices, parent.structures, nearest.group_names
        self.depth, self.bands, self.unread = parent.depth, parent.bands, parent.unread
        self.names = [nearest.names[i] for i in chosen.tolist()]
        for attribute in PER_SAMPLE:
            rows = getattr(nearest, attribute)
            setattr(self, attribute, None if rows is None else rows[chosen])
        self.values = {name: rows[chosen] for name, rows in nearest.values.items()}

    @property
    def fields(self) -> dict[str, Field]:
        """The parent's, with the values and the labels that this subset has."""
        own = {LABEL, *self.parent.values}
        fields = {name: field for name, field in self.parent.fields.items() if name not in own}
        return fields | self._known_fields()

    def read(self, i: int, min_side: int | None = None, **which: Any) -> np.ndarray:
        """One sample of the parent; see `Source.read`."""
        return self.parent.read(int(self.indices[i]), min_side, **which)

    def sample(self, i: int, want: Any = None, min_side: int | None = None, frames: Any = None) -> dict[str, Any]:
        """The fields of one sample of the parent, its label from here; see `Source.sample`."""
        names = wanted_fields(self.fields, want, self.name)
        known = self._known_fields()
        found = self.parent.sample(int(self.indices[i]), [n for n in names if n not in known], min_side, frames)
        return {n: found[n] if n in found else self._field(n, i, None, None) for n in names}

    def frames(self, i: int) -> int:
        """Of the parent's clip."""
        return self.parent.frames(int(self.indices[i]))

    def seconds(self, i: int) -> tuple[float, float] | None:
        """Of the parent's clip."""
        return self.parent.seconds(int(self.indices[i]))

    def space(self, i: int) -> Any:
        """Of the parent's volume."""
        return self.parent.space(int(self.indices[i]))

    def times(self, i: int) -> np.ndarray | None:
        """Of the parent's clip."""
        return self.parent.times(int(self.indices[i]))

    def video_file(self, i: int) -> Path | None:
        """Of the parent's clip."""
        return self.parent.video_file(int(self.indices[i]))

    def frame_names(self, i: int) -> list[str] | None:
        """Of the parent's clip."""
        return self.parent.frame_names(int(self.indices[i]))

    def read_checked(self, i: int) -> np.ndarray:
        """One sample of the parent, as its file has it."""
        return self.parent.read_checked(int(self.indices[i]))

    @property
    def value_range(self) -> ValueRange | None:
        """The parent's: both splits are scaled alike."""
        return self.parent.value_range

    def brought(self, i: int) -> list[np.ndarray] | None:
        """The parent's."""
        return self.parent.brought(int(self.indices[i]))

    def unit_scale(self) -> Scale:
        """The parent's: both splits are scaled alike."""
        return self.parent.unit_scale()

    def any_depth(self) -> None:
        """Of the parent."""
        super().any_depth()
        self.parent.any_depth()

    def range_of(self, field: str) -> ValueRange | None:
        """The parent's."""
        return self.parent.range_of(field)

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
    if (source.labels < 0).any():
        bare = lacking(int((source.labels < 0).sum()), "sample", "label")
        raise UserError(f"{source.name}: {bare}; take split=train")
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
            h.update("\0".join(map(str, part)).encode(errors=ON_DISK))
        else:
            h.update(f"s{part!r}".encode(errors=ON_DISK))
        h.update(b"\1")
    return h.hexdigest()


def whole_of(source: Source) -> tuple[Any, np.ndarray]:
    """The source that a source is a part of, however often it was cut, and which of its samples these are."""
    parent: Any = source
    indices = np.arange(len(source))
    while isinstance(parent, Subset):
        parent, indices = parent.parent, parent.indices[indices]
    return parent, indices
