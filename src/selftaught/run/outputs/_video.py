"""Video files: frames at their own times, beside the sound of the recording that they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.errors import require
from selftaught.run.outputs._pictures import replaced

__all__ = ["VIDEO_FORMS", "write_video"]

_TICKS = 90_000
_H264: tuple[str, dict[str, str]] = ("libx264", {"crf": "12", "preset": "medium"})
VIDEO_FORMS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": _H264,
    ".mov": _H264,
    ".mkv": _H264,
    ".avi": ("mpeg4", {"qmin": "1", "qmax": "3"}),
    ".webm": ("libvpx-vp9", {"crf": "16", "b": "0", "row-mt": "1"}),
}
"""Suffix -> encoder and its options; a video of another suffix becomes an mp4."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    times: Sequence[float] | np.ndarray,
    *,
    sound: Path | None = None,
) -> int:
    """Write a video whole or not at all; frames are taken one by one.

    Args:
        path: its suffix, one of `VIDEO_FORMS`, decides on container and encoder.
        frames: (H, W, C) uint8 each, C 1 or 3, all of one size; as many as there are times.
        times: rising seconds at which the frames are shown; the first one is the video's start. Uneven ones are kept
            (.avi has none: its frames are evenly spaced).
        sound: a recording whose first sound is copied, without being coded again, from ``times[0]`` to the end of the
            last frame; None or one without sound: the video is silent.

    Returns:
        how many frames were written.

    Raises:
        ValueError: another number of frames than times.
    """
    written = 0

    def make(part: Path) -> None:
        nonlocal written
        written = _encode(part, iter(frames), np.asarray(times, dtype=np.float64), sound)

    replaced(path, make)
    return written


def _encode(path: Path, frames: Iterator[np.ndarray], times: np.ndarray, sound: Path | None) -> int:
    av: Any = require("av", "video")
    step = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / 25
    encoder, options = VIDEO_FORMS[path.suffix.lower()]
    written = 0
    with av.open(str(path), "w") as out:
        rate = Fraction(1 / step).limit_denominator(1001)
        stream = out.add_stream(encoder, rate=rate, options=dict(options))
        tick = 1 / rate if path.suffix.lower() == ".avi" else Fraction(1, _TICKS)
        stream.codec_context.time_base = tick
        with _Sound(av, out, sound, float(times[0]), float(times[-1]) + step) as beside:
            for t, pixels in enumerate(frames):
                if t == 0:
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt = _pixel_format(encoder, *pixels.shape)
                shown = float(times[t] - times[0])
                beside.until(shown)
                form = "gray" if pixels.shape[2] == 1 else "rgb24"
                bare = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(bare), format=form)
                frame.pts, frame.time_base = t if encoder == "mpeg4" else round(shown / tick), tick
                for packet in stream.encode(frame):
                    out.mux(packet)
                written += 1
            for packet in stream.encode():
                out.mux(packet)
            beside.until(float("inf"))
    if written != len(times):
        raise ValueError(f"{written} frames for {len(times)} times")
    return written


def _pixel_format(encoder: str, height: int, width: int, channels: int) -> str:
    """Every player shows yuv420p, which odd sizes don't have; grey stays grey where the encoder knows it."""
    if encoder == "libx264" and channels == 1:
        return "gray"
    return "yuv420p" if encoder == "mpeg4" or not (height % 2 or width % 2) else "yuv444p"


class _Sound:
    """The sound of a recording, packet by packet as the video goes on."""

    def __init__(self, av: Any, out: Any, recording: Path | None, start: float, end: float) -> None:
        self.out, self.start, self.end, self.whole = out, start, end, start == 0
        self.container: Any = av.open(str(recording)) if recording is not None else None
        self.packets: Iterator[Any] = iter(())
        self.pending: Any = None
        if self.container is not None and self.container.streams.audio:
            source = self.container.streams.audio[0]
            pictures = self.container.streams.video
            first = min((float(s.start_time * s.time_base) for s in pictures if s.start_time is not None), default=0.0)
            self.start, self.end = start + first, end + first
            self.stream = out.add_stream_from_template(source)
            self.packets = self.container.demux(source)

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *error: object) -> None:
        if self.container is not None:
            self.container.close()

    def until(self, shown: float) -> None:
        """Write what is heard before ``shown`` seconds of the new video."""
        while True:
            packet = self.pending or next(self.packets, None)
            self.pending = None
            if packet is None:
                return
            if packet.pts is None or not packet.size:
                continue
            heard = float(packet.pts * packet.time_base)
            if heard >= self.end:
                self.packets = iter(())
                return
            if heard < self.start - 1e-6 and not self.whole:
                continue
            if heard - self.start > shown:
                self.pending = packet
                return
            shift = round(self.start / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = self.stream
            self.out.mux(packet)
