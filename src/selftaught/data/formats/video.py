"""Videos: files that PyAV reads (``pip install 'selftaught[video]'``), and folders of frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.combining.grouped import Grouped
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.files import ImageFiles, walk
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.formats._format import Format
from selftaught.data.layout import arrange, unarranged
from selftaught.data.mapped import build_once, cache_folder
from selftaught.data.pixels import ValueRange
from selftaught.data.source import digest
from selftaught.errors import SampleError, UserError, require

__all__ = ["FORMATS", "VIDEO_SUFFIXES", "FrameFolders", "Videos", "open_frames", "open_video_files", "open_videos"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
_MOST_BYTES = 8e9
_STORED_ABOVE = 1 << 23
_PROBED = 8


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


class Videos(Clips):
    """Video files under a root; only the frames that are asked for are decoded, from the nearest key frame before."""

    def __init__(
        self,
        root: Path,
        files: list[str],
        name: str,
        cut: Cut,
        fps: float | None = None,
        channels: int | None = None,
    ) -> None:
        """Args: the folder that `files` start from; the files; name; what of them is a sample; frames a second to read
        them at by their time stamps, None: every frame; 1 or 3 channels, None: 1 where all are grey.
        """
        require("av", "video")
        if fps is not None and fps <= 0:
            raise UserError(f"{name}: fps={fps:g} must be above 0")
        if channels not in (None, 1, 3):
            raise UserError(f"{name}: channels={channels}: videos are read with 1 or 3")
        self.root, self.name, self.rate = root, name, fps
        self.files = arrange(self, files)
        self._cut(self.files, cut.check(name))
        self.channels = channels or self._probe()

    def _index(self, k: int) -> Index:
        path = self.root / self.files[k]
        try:
            status = path.stat()
        except OSError:
            raise SampleError(self.files[k], "missing") from None
        found = video_index(str(path), status.st_size, status.st_mtime_ns)
        if isinstance(found, str):
            raise SampleError(self.files[k], found)
        return found

    def _probe(self) -> int:
        """1 where all of the first files that can be read are grey, else 3."""
        grey = []
        for k in range(min(len(self.files), _PROBED)):
            try:
                grey.append(self._index(k).grey)
            except SampleError:
                continue
        return 1 if grey and all(grey) else 3

    def _shown(self, index: Index) -> np.ndarray:
        """The time stamp of each frame at the source's rate: at every instant the frame that is then shown."""
        if self.rate is None:
            return index.stamps
        seconds = (index.stamps - index.stamps[0]) * index.tick
        instants = np.arange(int(seconds[-1] * self.rate + 1e-6) + 1) / self.rate
        return index.stamps[np.searchsorted(seconds, instants + 1e-6, side="right") - 1]

    def _length(self, k: int) -> int:
        return len(self._shown(self._index(k)))

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        index = self._index(k)
        wanted, where = np.unique(self._shown(index)[positions], return_inverse=True)
        height, width = reduced_size(*index.size, min_side)
        channels = self.channels or 3
        if len(positions) * height * width * channels > _MOST_BYTES:
            raise UserError(
                f"{self.name}: {name} has {len(positions)} frames of {height}x{width}, too many to hold at a time; "
                "read some of them with frames=16 (and step=2), or parts with window=64"
            )
        path = str(self.root / self.files[k])
        frames = list(decoded_frames(path, index, wanted, (height, width), channels, name))
        return np.stack([frames[w] for w in where.reshape(-1).tolist()])

    def origin(self) -> str:
        """The folder, and the name of the source."""
        return f"{os.path.abspath(self.root)} {self.name}"

    def fingerprint(self) -> str:
        """Of the names, sizes and times of change of the files, and of the options."""
        stats = np.full((len(self.files), 2), -1, dtype=np.int64)
        for k, file in enumerate(self.files):
            path = self.root / file
            if path.exists():
                stats[k] = path.stat().st_size, path.stat().st_mtime_ns
        return digest("videos", self.files, stats, self.places, self.rate, self.channels, self._stamp())


class FrameFolders(Clips):
    """Folders whose images are the frames of a clip, in the natural order of their names."""

    def __init__(self, images: ImageFiles, cut: Cut) -> None:
        """Args: all the frames; what of each folder is a sample."""
        self.clips = Grouped(images, "folder", "clip")
        self.name, self.channels = images.name, images.channels
        self.folders = arrange(self, self.clips.names)
        self._where = [self.clips.names.index(folder) for folder in self.folders]
        self._cut(self.folders, cut.check(images.name))

    def _length(self, k: int) -> int:
        return self.clips.frames(self._where[k])

    def _decode(self, k: int, positions: np.ndarray, min_side: int | None, name: str) -> np.ndarray:
        return self.clips.read(self._where[k], min_side, positions)

    @property
    def value_range(self) -> ValueRange | None:
        """That of the frames."""
        return self.clips.value_range

    def origin(self) -> str:
        """The folder of the frames."""
        return self.clips.origin()

    def fingerprint(self) -> str:
        """Of the frames and the options."""
        return digest("frames", self.clips.fingerprint(), self.places, self._stamp())


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
    if not stored.exists():
        found = _read_index(path)
        if isinstance(found, str):
            return found
        build_once(stored, lambda part: _store(part, found))
    with np.load(stored, allow_pickle=False) as kept:
        height, width, grey = kept["facts"].tolist()
        return Index(kept["stamps"], kept["keys"], float(kept["tick"]), (height, width), bool(grey))


def _store(part: Path, index: Index) -> None:
    facts = np.array([*index.size, index.grey], dtype=np.int64)
    with part.open("wb") as file:
        np.savez(file, stamps=index.stamps, keys=index.keys, tick=index.tick, facts=facts)


def _read_index(path: str) -> Index | str:
    av: Any = require("av", "video")
    try:
        with av.open(path) as container:
            if not container.streams.video:
                return "no picture in it, only sound" if container.streams.audio else "no picture in it"
            stream = container.streams.video[0]
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
            stamps = np.array([p.pts for p in packets if p.pts is not None], dtype=np.int64)
            keys = np.array([p.pts for p in packets if p.pts is not None and p.is_keyframe], dtype=np.int64)
            context, tick = stream.codec_context, float(stream.time_base)
            grey = str(context.pix_fmt).startswith("gray")
            shape = (int(context.height), int(context.width))
    except av.error.FFmpegError as error:
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
    except av.error.FFmpegError as error:
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
            frame = self.pending or next(self.decoded, None)
            self.pending = None
            if frame is None:
                raise SampleError(self.name, f"ends at {(self.now.pts - stamps[0]) * self.index.tick:.2f} s, cut short")
            if frame.pts > stamp:
                self.pending = frame
                break
            self.now = frame
        return self.now

    def _go(self, key: int, stamp: int) -> None:
        """To a key frame, or to the start where the file can't be entered there."""
        for place in (key, int(self.index.stamps[0])):
            self.container.seek(place, stream=self.stream)
            self.decoded, self.pending = self.container.decode(self.stream), None
            self.now = next(self.decoded, None)
            if self.now is not None and self.now.pts <= stamp:
                return
        if self.now is None:
            raise SampleError(self.name, "no frame can be decoded")


def _reason(error: Any) -> str:
    return str(error.strerror or error).split(":")[0].lower()


def open_videos(
    folder: Path,
    name: str,
    *,
    frames: int | None = None,
    step: int = 1,
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    channels: int | None = None,
) -> Videos:
    """All video files under a folder; one level of sub-folders is read as classes, ``train/`` beside ``test/`` as a
    given split.

    Args:
        folder: where to look for .mp4 .avi .mov .mkv .webm .gif.
        name: what to call the source.
        frames: frames that a sample has when it is read whole, from its middle; None: all.
        step: frames from one of these to the next.
        window: cut the videos into samples of so many frames each (those of one video form a group); None: a sample
            is a video.
        stride: frames between the starts of two windows; None: `window`.
        fps: frames a second, by the time stamps; all options above count in these. None: every frame that is there.
        channels: 1 or 3; None: 1 where all videos are grey.

    Raises:
        UserError: no video there, PyAV is missing, or a number is out of its range.
    """
    files = walk(folder, VIDEO_SUFFIXES)
    if not files:
        raise UserError(f"{name}: no video in this folder or below; looked for {' '.join(VIDEO_SUFFIXES)}")
    return _videos(folder, files, name, frames, step, window, stride, fps, channels)


@wraps(open_videos, assigned=())
def open_video_files(paths: Sequence[str | Path], name: str, **options: Any) -> Videos:
    """Single video files, in the order given; named relative to the folder they share. Options: see `open_videos`.

    Raises:
        UserError: one of them is not there.
    """
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    resolved = [Path(os.path.abspath(p)) for p in paths]
    root = Path(os.path.commonpath([p.parent for p in resolved]))
    return _videos(root, [p.relative_to(root).as_posix() for p in resolved], name, **options)


@wraps(open_videos, assigned=())
def open_video(path: Path, name: str, **options: Any) -> Videos:
    """One video file; see `open_video_files`."""
    return open_video_files([path], name, **options)


@wraps(open_videos, assigned=())
def open_video_pattern(pattern: str, **options: Any) -> Videos:
    """The videos that a glob pattern matches; see `open_video_files`."""
    found = sorted(p for p in glob.glob(pattern, recursive=True) if p.lower().endswith(VIDEO_SUFFIXES))
    return open_video_files(found, pattern, **options)


def _videos(
    root: Path,
    files: list[str],
    name: str,
    frames: int | None = None,
    step: int = 1,
    window: int | None = None,
    stride: int | None = None,
    fps: float | None = None,
    channels: int | None = None,
) -> Videos:
    return Videos(root, files, name, Cut(frames, step, window, stride), fps, channels)


def open_frames(
    folder: Path,
    name: str,
    *,
    frames: int | None = None,
    step: int = 1,
    window: int | None = None,
    stride: int | None = None,
    channels: int | None = None,
) -> FrameFolders:
    """Folders of frames: every folder below that holds images is a clip, its images in natural order the frames.

    Where the clips lie in sub-folders of one level, these are their classes. Options: see `open_videos`.

    Raises:
        UserError: no image and no video there.
    """
    names = walk(folder, IMAGE_SUFFIXES)
    if not names:
        raise UserError(f"{name}: no video and no folder of frames in it; looked for {' '.join(VIDEO_SUFFIXES)}")
    images = ImageFiles(folder, names, name, channels, unarranged(len(names)))
    return FrameFolders(images, Cut(frames, step, window, stride))


FORMATS = (
    Format(
        "clip", 3, VIDEO_SUFFIXES,
        file=open_video, files=open_video_files, folder=open_videos, pattern=open_video_pattern,
    ),
    Format("clip", 4, IMAGE_SUFFIXES, folder=open_frames),
)  # fmt: skip
