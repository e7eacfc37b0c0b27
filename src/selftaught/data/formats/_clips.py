"""What all sources of clips share: which frames of which recording a sample is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.source import Source
from selftaught.errors import SampleError, UserError

__all__ = ["Clips", "Cut"]

_CHECKED = 256
_CHUNK = 64


class Cut(NamedTuple):
    """How recordings become samples.

    Attributes:
        frames: frames that `read` gives, from the middle of the sample; None: all of it.
        step: frames from one of them to the next.
        window: frames of a sample; None: a sample is a whole recording.
        stride: frames between the starts of two windows; None: as many as a window has, so that none overlap.
    """

    frames: int | None = None
    step: int = 1
    window: int | None = None
    stride: int | None = None

    def check(self, name: str) -> Cut:
        """The same, where every number is at least 1.

        Raises:
            UserError: one isn't, or ``frames`` don't fit the window.
        """
        for option, value in self._asdict().items():
            if value is not None and value < 1:
                raise UserError(f"{name}: {option}={value} must be at least 1")
        if self.window is not None and self.span > self.window:
            raise UserError(f"{name}: frames={self.frames} with step={self.step} don't fit window={self.window}")
        return self

    @property
    def span(self) -> int:
        """Frames from the first to the last one of a default `read`."""
        return 1 if self.frames is None else (self.frames - 1) * self.step + 1


class Clips(Source, ABC):
    """Recordings of frames, whole or in windows. A subclass says how long each is and decodes some frames of it."""

    modality = "clip"
    stems: list[str]
    """What the recordings are called."""

    @abstractmethod
    def _length(self, k: int) -> int:
        """Frames of recording k; 0 is an error of `read`.

        Raises:
            SampleError: it can't be read.
        """

    @abstractmethod
    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        """Frames of recording k, (len(positions), H, W, C)."""

    def _cut(self, stems: list[str], cut: Cut) -> None:
        """Names, labels, groups and given split of the samples, where the recordings are called `stems`."""
        self.cut, self.stems, window = cut, list(stems), cut.window
        places = [(k, 0) for k in range(len(stems))]
        if window is not None:
            stride = cut.stride or window
            lengths = [self.recorded(k) for k in range(len(stems))]
            # one that is too short or can't be read keeps a window, so that reading it tells what is wrong
            places = [(k, start) for k, n in enumerate(lengths) for start in (range(0, n - window + 1, stride) or (0,))]
        self.places = np.array(places, dtype=np.int64).reshape(-1, 2)
        self.names = [stems[k] if window is None else f"{stems[k]}@{start}" for k, start in places]
        for attribute in ("labels", "given", "targets"):
            rows = getattr(self, attribute)
            setattr(self, attribute, None if rows is None else rows[self.places[:, 0]])
        self.groups = None if window is None else self.places[:, 0].copy()

    def recording(self, k: int, min_side: int | None = None) -> Iterator[np.ndarray | SampleError]:
        """The frames (H, W, C) of recording k one after the other, never all of them held at once; in place of one that
        can't be read its error.

        Raises:
            SampleError: the recording can't be read.
        """
        length = self._length(k)
        for start in range(0, length, _CHUNK):
            positions = np.arange(start, min(start + _CHUNK, length))
            try:
                yield from self._decode(k, positions, min_side, self.stems[k])
            except SampleError:
                yield from (self._tried(k, position, min_side) for position in positions.tolist())

    def _tried(self, k: int, position: int, min_side: int | None) -> np.ndarray | SampleError:
        try:
            frame: np.ndarray = self._decode(k, np.array([position]), min_side, self.stems[k])[0]
        except SampleError as error:
            return error
        return frame

    def recorded(self, k: int) -> int:
        """Frames of recording k, 0 where it can't be read."""
        try:
            return self._length(k)
        except SampleError:
            return 0

    def frames(self, i: int) -> int:
        """Frames of a sample; see `Source.frames`."""
        k, start = self.places[i].tolist()
        length, window = self._length(k), self.cut.window
        if not length:
            raise SampleError(self.names[i], "no frame in it")
        if window is not None and length < start + window:
            raise SampleError(self.names[i], f"{length} frames where {window} are wanted")
        return length if window is None else window

    def seconds(self, i: int) -> tuple[float, float] | None:
        """See `Source.seconds`; by the source's rate, where a subclass knows no better."""
        if not self.rate:
            return None
        start = int(self.places[i, 1])
        return start / self.rate, (start + self.frames(i) - 1) / self.rate

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """One clip (T, H, W, C).

        Args:
            i: position of the sample.
            min_side: frames may come reduced as long as their shorter side stays at least this many pixels.
            frames: (T,) positions in the sample, from 0 to ``frames(i) - 1``, in any order; only these are decoded.
                None: as the source's options ``frames`` and ``step`` say.

        Raises:
            SampleError: it can't be read, or is shorter than the options ask for.
        """
        k, start = self.places[i].tolist()
        length = self.frames(i)
        positions = self._usual(length, self.names[i]) if frames is None else np.asarray(frames, dtype=np.int64)
        if len(positions) and (positions.min() < 0 or positions.max() >= length):
            raise IndexError(f"{self.names[i]}: frames {positions.min()}..{positions.max()} of {length}")
        return self._decode(k, start + positions, min_side, self.names[i])

    def read_checked(self, i: int) -> np.ndarray:
        """One clip; of a long one at most 256 frames, spread evenly."""
        length = self.frames(i)
        if self.cut.frames is not None or length <= _CHECKED:
            return self.read(i)
        return self.read(i, frames=np.linspace(0, length - 1, _CHECKED).astype(np.int64))

    def _usual(self, length: int, name: str) -> np.ndarray:
        if self.cut.frames is None:
            return np.arange(0, length, self.cut.step)
        if length < self.cut.span:
            raise SampleError(name, f"{length} frames where {self.cut.span} are wanted")
        return (length - self.cut.span) // 2 + self.cut.step * np.arange(self.cut.frames)

    def _stamp(self) -> list[Any]:
        """What of the options belongs in a fingerprint."""
        return [*self.cut, len(self)]
