"""Frames out of video files by PyAV: where they are, and any of them without decoding the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.mapped import cache_folder, kept_arrays
from selftaught.data.source import digest
from selftaught.errors import SampleError, require

__all__ = ["Index", "decoded_frames", "reduced_size", "video_index"]

_STORED_ABOVE = 1 << 23
_DAMAGED = (ValueError, OverflowError, MemoryError)
"""What PyAV raises of damaged files beside FFmpeg's own errors: of words that are no text, of sizes that can't be."""


class Index(NamedTuple):
    """Where the frames of a video file are.

    Attributes:
        stamps: (n,) int64, time stamps of the frames in the order of showing.
        keys: (k,) int64, those of the frames that decoding can start from.
        tick: seconds that a time stamp counts in.
        size: height and width as they are stored.
        grey: whether the frames have no colour.
    """

    stamps: np.ndarray
    keys: np.ndarray
    tick: float
    size: tuple[int, int]
    grey: bool


def reduced_size(height: int, width: int, min_side: int | None) -> tuple[int, int]:
    """The size that frames are decoded at: a whole fraction of theirs whose shorter side is at least `min_side`."""
    factor = max(min(height, width) // min_side, 1) if min_side else 1
    return max(round(height / factor), 1), max(round(width / factor), 1)


@lru_cache(maxsize=4096)
def video_index(path: str, size: int, changed: int) -> Index | str:
    """The index of a video file, read without decoding it; or the reason why there is none.

    It is kept per process, that of a large file (which has to be read through once) in the cache folder besides.
    """
    if size <= _STORED_ABOVE:
        return _read_index(path) if size else "empty file"
    stored = cache_folder() / "video-index" / f"{digest(os.path.abspath(path), size, changed)}.npz"
    try:
        kept = kept_arrays(stored, lambda: _arrays(path))
    except SampleError as error:
        return error.reason
    height, width, grey = kept["facts"].tolist()
    return Index(kept["stamps"], kept["keys"], float(kept["tick"]), (height, width), bool(grey))


def _arrays(path: str) -> dict[str, np.ndarray]:
    """The index of a video file as it is kept."""
    index = _read_index(path)
    if isinstance(index, str):
        raise SampleError(path, index)
    facts = np.array([*index.size, index.grey], dtype=np.int64)
    return {"stamps": index.stamps, "keys": index.keys, "tick": np.array(index.tick), "facts": facts}


def _read_index(path: str) -> Index | str:
    av: Any = require("av", "video")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                return "no picture in it, only sound" if container.streams.audio else "no picture in it"
            stream = container.streams.video[0]
            if stream.codec_context is None:
                return "can't be read as a video: nothing here decodes its pictures"
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            stamps = np.array([p.pts for p in packets if p.pts is not None], dtype=np.int64)
            keys = np.array([p.pts for p in packets if p.pts is not None and p.is_keyframe], dtype=np.int64)
            context, tick = stream.codec_context, float(stream.time_base)
            grey = str(context.pix_fmt).startswith("gray")
            shape = (int(context.height), int(context.width))
    except (av.error.FFmpegError, *_DAMAGED) as error:
        return f"can't be read as a video: {_reason(error)}"
    if not len(packets):
        return "no frame in it"
    if len(stamps) < len(packets) or not len(keys):
        return "frames without time stamps; rewrite it, as mp4 for example"
    return Index(np.unique(stamps), np.unique(keys), tick, shape, grey)


def decoded_frames(
    path: str, index: Index, wanted: np.ndarray, size: tuple[int, int], channels: int, name: str
) -> Iterator[np.ndarray]:
    """The frames shown at rising time stamps, (H, W, C) uint8 each, upright.

    Raises:
        SampleError: the file is damaged or ends too early.
    """
    av: Any = require("av", "video")
    form = "gray" if channels == 1 else "rgb24"
    try:
        with av.open(path) as container:
            reader = _Reader(container, index, name)
            for stamp in wanted.tolist():
                frame = reader.at(stamp)
                if frame.is_corrupt:
                    raise SampleError(name, f"damaged at {(stamp - index.stamps[0]) * index.tick:.2f} s")
                if (
                    frame.height,
                    frame.width,
                ) != size:  # before the colours: scaled while they are converted, white comes out as 253
                    frame = frame.reformat(size[1], size[0], interpolation="AREA", threads=1)
                pixels = frame.to_ndarray(format=form, threads=1)
                turned = np.rot90(pixels, round(frame.rotation / 90))
                yield np.ascontiguousarray(turned.reshape(*turned.shape[:2], channels))
    except (av.error.FFmpegError, *_DAMAGED) as error:
        raise SampleError(name, f"can't be decoded: {_reason(error)}") from None


class _Reader:
    """An open video that goes to later and later frames, over a key frame where that is nearer."""

    def __init__(self, container: Any, index: Index, name: str) -> None:
        self.container, self.index, self.name = container, index, name
        self.stream = container.streams.video[0]
        self.stream.codec_context.thread_count = 1  # the loader's workers share the cores
        self.now: Any = None
        self.pending: Any = None

    def at(self, stamp: int) -> Any:
        """The frame that is shown at a time stamp."""
        keys, stamps = self.index.keys, self.index.stamps
        key = int(keys[max(int(np.searchsorted(keys, stamp, side="right")) - 1, 0)])
        if self.now is None or np.searchsorted(stamps, key) > np.searchsorted(stamps, self.now.pts, side="right"):
            self._go(key, stamp)
        while self.now.pts < stamp:
            frame = self.pending or self._next()
            self.pending = None
            if frame is None:
                raise SampleError(self.name, f"ends at {(self.now.pts - stamps[0]) * self.index.tick:.2f} s, cut short")
            if frame.pts > stamp:
                self.pending = frame
                break
            self.now = frame
        return self.now

    def _next(self) -> Any:
        """The next frame in the order of decoding; None at the end."""
        frame = next(self.decoded, None)
        if frame is not None and frame.pts is None:
            raise SampleError(self.name, "damaged: a frame without a time stamp")
        return frame

    def _go(self, key: int, stamp: int) -> None:
        """To a key frame, or to the start where the file can't be entered there."""
        for place in (key, int(self.index.stamps[0])):
            self.container.seek(place, stream=self.stream)
            self.decoded, self.pending = self.container.decode(self.stream), None
            self.now = self._next()
            if self.now is not None and self.now.pts <= stamp:
                return
        if self.now is None:
            raise SampleError(self.name, "no frame can be decoded")


def _reason(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error).split(":")[0].lower()
