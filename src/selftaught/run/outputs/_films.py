"""Restored clips as files: a video for a video, with its times and its sound, a folder of frames for one of frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from selftaught.data import Source, from_unit, holds_videos, open_source
from selftaught.errors import UserError
from selftaught.run.applying import Applied, Job
from selftaught.run.layout import write_json
from selftaught.run.outputs import _folder
from selftaught.run.outputs._pictures import write_image
from selftaught.run.outputs._video import VIDEO_FORMS, write_video

INTO: Mapping[str, Mapping[str, Any]] = {
    "into": {"choices": ("video", "frames"), "help": "clips: write videos, or a folder of frames for each"},
}
"""The option of ``apply`` that makes videos of frames, or frames of videos."""

_RATE = 25.0


def open_pictures(data: Any, **options: Any) -> Source:
    """A source of pictures to judge on, opened with the options of ``open_source``.

    Raises:
        UserError: it has none.
    """
    try:
        return open_source(data, modality="image", **options)
    except UserError:
        if not isinstance(data, str | Path) or not holds_videos(data):
            raise
        raise UserError(f"{data}: videos, where pictures are judged; give videos for both, or pictures") from None


def write_clips(job: Job, frames: Callable[[int], Iterator[np.ndarray]]) -> Applied:
    """A video for every video of ``job.source``, with its frame rate and its sound; a folder of frames for every folder
    of frames. The option ``into`` makes one of the other. A single clip may go to a video file that was named.

    A method whose frames are shown at other times than the input's says these by ``times_out(source, i, options)``
    (seconds, or None), and what they are called by ``frames_out`` of the same arguments.

    Args:
        job: the work.
        frames: of a clip's number: its restored frames (H, W, C) in [0, 1], one by one.
    """
    into = job.options.get("apply into") or "auto"
    if into == "auto" and job.out.suffix.lower() in VIDEO_FORMS and not job.out.is_dir():
        into = "video"
    found = [job.source.video_file(i) for i in range(len(job.source))]
    wanted = [into == "video" or (into == "auto" and file is not None) for file in found]
    films = _folder.places([named(name) for name in job.source.names], lambda own: own)
    folders = [folder / "clip.json" for folder in _folder.folders(job.source)]
    paths = [film if video else other for film, other, video in zip(films, folders, wanted, strict=True)]

    def make(i: int, path: Path) -> None:
        if wanted[i]:
            _write_video(job, i, path, frames(i), found[i])
        else:
            _write_frames(job, i, path, frames(i))

    return _folder.write(job, paths, make, tuple(VIDEO_FORMS) if all(wanted) else ())


def named(name: str) -> str:
    """What the video of a clip is called: "a/x.mp4@16" is a window of a file; "." the frames of the folder itself."""
    file, at, start = name.rpartition("@")
    if not (at and start.isdecimal()):
        file, at, start = name, "", ""
    path = PurePosixPath(file if file not in ("", ".") else "clip")
    known = path.suffix.lower() in VIDEO_FORMS or path.suffix.lower() == ".gif"
    stem = str(path.with_suffix("")) if known and path.stem else str(path)
    return f"{stem}{at}{start}" + (path.suffix if path.suffix.lower() in VIDEO_FORMS else ".mp4")


def _times(job: Job, i: int) -> np.ndarray | None:
    method: Any = job.method
    if hasattr(method, "times_out"):
        found: np.ndarray | None = method.times_out(job.source, i, job.options)
        return found
    return job.source.times(i)


def _write_video(job: Job, i: int, path: Path, restored: Iterator[np.ndarray], recording: Path | None) -> None:
    limits = job.method.value_range
    frames = (from_unit(frame, np.uint8, limits) for frame in restored)
    times = _times(job, i)
    if times is None:
        made = list(frames)
        write_video(path, made, np.arange(len(made)) / (job.source.rate or _RATE))
        return
    write_video(path, frames, times, sound=recording)


def _write_frames(job: Job, i: int, path: Path, restored: Iterator[np.ndarray]) -> None:
    """Pictures of the type and name that the input's frames have; clip.json, which says their times, is last."""
    source: Any = job.source
    first = source.read(i, frames=np.zeros(1, dtype=np.int64))
    names_of = getattr(job.method, "frames_out", None)
    names = names_of(source, i, job.options) if names_of is not None else source.frame_names(i)
    count = 0
    for count, frame in enumerate(restored, 1):
        name = names[count - 1] if names else f"{count - 1:06d}.png"
        write_image(path.parent / name, from_unit(frame, first.dtype, job.method.value_range))
    times = _times(job, i)
    facts = {"frames": count, "times": None if times is None else [round(float(t), 6) for t in times]}
    write_json(path, facts)
