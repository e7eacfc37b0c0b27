"""Videos: files that PyAV reads (``pip install 'selftaught[video]'``), and folders of frames."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._paths import expanded
from selftaught.data.combining.grouped import Grouped
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.files import ImageFiles, globbed, walk
from selftaught.data.formats._clips import Clips, Cut
from selftaught.data.formats._format import Format
from selftaught.data.formats._pyav import Index, decoded_frames, reduced_size, video_index
from selftaught.data.formats._recording_layouts import Recording, found_recordings
from selftaught.data.layout import understand
from selftaught.data.scaling import ValueRange
from selftaught.data.source import digest
from selftaught.errors import SampleError, UserError, require

__all__ = ["FORMATS", "VIDEO_SUFFIXES", "FrameFolders", "Videos", "open_frames", "open_video_files", "open_videos"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
_MOST_BYTES = 8e9
_PROBED = 8
_FRAMES = 8
"""Images in a folder beside videos that look like frames, not like a cover and two stills."""


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
        understand(self, files)
        self.files = list(self.names)
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

    def seconds(self, i: int) -> tuple[float, float] | None:
        """By the time stamps of the frames, which need not be evenly spaced."""
        k, start = self.places[i].tolist()
        index, last = self._index(k), start + self.frames(i) - 1
        if self.rate is not None:
            return start / self.rate, last / self.rate
        first, end = ((index.stamps[[start, last]] - index.stamps[0]) * index.tick).tolist()
        return first, end

    def times(self, i: int) -> np.ndarray:
        """By the time stamps of the frames."""
        k, start = self.places[i].tolist()
        index, count = self._index(k), self.frames(i)
        if self.rate is not None:
            return (start + np.arange(count)) / self.rate
        found: np.ndarray = (index.stamps[start : start + count] - index.stamps[0]) * index.tick
        return found

    def video_file(self, i: int) -> Path:
        """The video file."""
        return self.root / self.files[int(self.places[i, 0])]

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

    def recording(self, k: int, min_side: int | None = None) -> Iterator[np.ndarray | SampleError]:
        """All frames of a video in one go, none of them decoded twice; after damage it goes on at the next key frame,
        as reading from there does.
        """
        index = self._index(k)
        path, size, shown = str(self.root / self.files[k]), reduced_size(*index.size, min_side), self._shown(index)
        at = 0
        while at < len(shown):
            try:
                for frame in decoded_frames(path, index, shown[at:], size, self.channels or 3, self.files[k]):
                    at += 1
                    yield frame
            except SampleError as error:
                later = index.keys[np.searchsorted(index.keys, shown[at], side="right") :]
                on = int(np.searchsorted(shown, later[0])) if len(later) else len(shown)
                yield from (error for _ in range(on - at))
                at = on

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

    def __init__(self, images: ImageFiles, cut: Cut, known: tuple[list[Recording], str] | None = None) -> None:
        """Args: all the frames; what of each folder is a sample; the recordings that they are, in order, and a line
        on them, where it isn't every folder.
        """
        self.name, self.channels = images.name, images.channels
        self.clips = Grouped(images, "folder", "clip") if known is None else _recorded(images, known[0])
        understand(self, list(self.clips.names))
        places = {folder: k for k, folder in enumerate(self.clips.names)}
        self._where = [places[folder] for folder in self.names]
        if known is not None:
            self.labels = self.classes = self.targets = None
            self.notes = [known[1]]
        self._cut(list(self.names), cut.check(images.name))
        if known is not None and any(recording.camera for recording in known[0]):
            camera = {r.name: r.camera or (np.nan,) * 4 for r in known[0]}
            told = np.array([camera[name] for name in self.clips.names], dtype=np.float32)
            self.values = {"intrinsics": told[[self._where[k] for k in self.places[:, 0].tolist()]]}

    def _length(self, k: int) -> int:
        return self.clips.frames(self._where[k])

    def frame_names(self, i: int) -> list[str]:
        """The names of the images."""
        k, start = self.places[i].tolist()
        members = self.clips.members[self._where[k]][start : start + self.frames(i)]
        return [Path(self.clips.source.names[m]).name for m in members.tolist()]

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


def _recorded(images: ImageFiles, recordings: list[Recording]) -> Grouped:
    """The frames by recording."""
    images.groups = np.repeat(np.arange(len(recordings)), [len(r.frames) for r in recordings])
    clips = Grouped(images, "group", "clip")
    clips.names = [recording.name for recording in recordings]
    images.groups = None
    return clips


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
    found = walk(folder, (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))
    files = [file for file in found if file.lower().endswith(VIDEO_SUFFIXES)]
    if not files:
        raise UserError(f"{name}: no video in this folder or below; looked for {' '.join(VIDEO_SUFFIXES)}")
    source = _videos(folder, files, name, frames, step, window, stride, fps, channels)
    images = Counter(os.path.dirname(file) for file in found if not file.lower().endswith(VIDEO_SUFFIXES))
    beside = [place for place, count in images.items() if count >= _FRAMES]
    if beside:
        source.left_out = {**source.left_out, "folders of images": len(beside)}
        where = f"{beside[0]}/ and others" if len(beside) > 1 else f"{beside[0]}/"
        source.notes = [
            *source.notes,
            f"{where}: frames of a video? Folders of images are left out beside videos; add them as frames:{folder}/",
        ]
    return source


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
    found = [p for p in globbed(pattern) if p.lower().endswith(VIDEO_SUFFIXES)]
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

    Where the clips lie in sub-folders of one level, these are their classes. KITTI (raw, odometry), Cityscapes'
    sequences, TUM RGB-D, ScanNet and RGB-D folders are known: recordings of the camera alone, with its intrinsics.
    Options: see `open_videos`.

    Raises:
        UserError: no image and no video there.
    """
    names = walk(folder, IMAGE_SUFFIXES)
    if not names:
        raise UserError(f"{name}: no video and no folder of frames in it; looked for {' '.join(VIDEO_SUFFIXES)}")
    known = found_recordings(folder, names)
    names = names if known is None else [frame for recording in known[0] for frame in recording.frames]
    images = ImageFiles(folder, names, name, channels, arranged=False)
    return FrameFolders(images, Cut(frames, step, window, stride), known)


@wraps(open_frames, assigned=())
def open_frames_at(address: str, **options: Any) -> FrameFolders:
    """``frames:FOLDER``: the folders of frames of a folder that holds videos, too; see `open_frames`.

    Raises:
        UserError: no such folder, no image there.
    """
    folder = expanded(address)
    if not folder.is_dir():
        raise UserError(f"frames:{address}: no such folder")
    return open_frames(folder, f"{folder.resolve().name}/", **options)


FORMATS = (
    Format(
        "clip", 3, VIDEO_SUFFIXES,
        file=open_video, files=open_video_files, folder=open_videos, pattern=open_video_pattern,
    ),
    Format("clip", 4, IMAGE_SUFFIXES, folder=open_frames, scheme="frames", address=open_frames_at),
)  # fmt: skip
