"""Snippets of videos to learn depth from: a frame, one before and one after, so far apart that the view changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np

from selftaught.data.fields import Field
from selftaught.data.intrinsics import AUTO, LEARN, camera_names, doubts, read_intrinsics
from selftaught.data.source import Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["Motion", "Snippets", "measured_motion"]

_SIDE, _CHUNK = 64, 64
_WANTED, _STILL, _FLAT = 0.015, 0.002, 0.012
_MOST_GAP = 12
_BORDER = 6
FLAT_PICTURE = 0.08
"""Parallax below this share of the motion: the picture moves as a flat one does."""
FIXED_PICTURE = 0.1
"""More of a moving picture that stands still is no accident."""
_FEW, _TEXTURE, _KEPT, _LONG, _WINDOW = 100, 4.0, 0.7, 8, 9
"""Snippets that are few; grey levels from pixel to pixel that are texture; how much of it the mean of frames keeps
where nothing moves; steps of a video from which on that can be told; side of the window that it is looked at in."""


class Motion(NamedTuple):
    """What was measured between neighbouring frames of a video.

    Attributes:
        flow: (T - 1,) median motion of the picture, as a share of its width.
        parallax: (T - 1,) what is left of it, in the median, after the best turn and zoom of a flat picture.
        contrast: (T,) mean step between neighbouring pixels, of white = 1.
        fixed: share of the picture whose texture stands still in all frames; 0 where that can't be told.
    """

    flow: np.ndarray
    parallax: np.ndarray
    contrast: np.ndarray
    fixed: float = 0.0

    @property
    def reasons(self) -> list[str]:
        """What of this motion makes depth come out flat or wrong, a line each."""
        found = []
        moved = float(np.median(self.flow)) if len(self.flow) else 0.0
        if moved < _STILL:
            found.append("the picture hardly moves: frames further apart, or a video of a moving camera, are needed")
        elif float(np.median(self.parallax)) < FLAT_PICTURE * moved:
            found.append("the picture moves as a flat one: the camera turns more than it goes, or its mount shakes")
        if self.fixed > FIXED_PICTURE:
            found.append(
                f"{self.fixed:.0%} of the picture moves with the camera (a bonnet, the mount, a frame, titles): "
                "cut it off the frames"
            )
        return found


def measured_motion(source: Any, i: int) -> Motion:
    """How much the picture moves from frame to frame of a clip, by dense optical flow at a small size.

    Args:
        source: of clips.
        i: which.

    Raises:
        SampleError: the clip can't be read.
    """
    flow, parallax, contrast = [], [], []
    last, total, texture = None, np.zeros(()), np.zeros(())
    for start in range(0, source.frames(i), _CHUNK):
        stop = min(start + _CHUNK, source.frames(i))
        for frame in source.read(i, _SIDE, frames=np.arange(start, stop)):
            small = _small(frame)
            total, texture = total + small, texture + _steps(small)
            contrast.append(float(np.abs(np.diff(small.astype(np.float32), axis=1)).mean() / 255))
            if last is not None:
                moved = cv2.calcOpticalFlowFarneback(
                    last, small, np.zeros((*small.shape, 2), np.float32), 0.5, 3, 11, 3, 5, 1.1, 0
                )
                flow.append(float(np.median(np.linalg.norm(moved, axis=2)) / small.shape[1]))
                parallax.append(_left_over(moved))
            last = small
    moves = len(flow) >= _LONG and float(np.median(flow)) >= _STILL
    fixed = _fixed(total / len(contrast), texture / len(contrast)) if moves else 0.0
    return Motion(np.array(flow), np.array(parallax), np.array(contrast), fixed)


def _steps(picture: np.ndarray) -> np.ndarray:
    """From each pixel (H, W) to the next ones, right and below."""
    grey = picture.astype(np.float64)
    return np.abs(np.diff(grey, axis=1))[:-1] + np.abs(np.diff(grey, axis=0))[:, :-1]


def _fixed(mean: np.ndarray, texture: np.ndarray) -> float:
    """Share of a picture that all frames show alike: there their mean is as sharp as each is, elsewhere blurred."""
    kept, there = (cv2.blur(x, (_WINDOW, _WINDOW)) for x in (_steps(mean), texture))
    return float(((there > _TEXTURE) & (kept > _KEPT * there)).mean())


def _small(frame: np.ndarray) -> np.ndarray:
    grey = frame.astype(np.float32).mean(2)
    if frame.dtype != np.uint8:
        grey = grey * (255 / max(float(grey.max()), 1e-6))
    height, width = grey.shape
    factor = _SIDE / min(height, width)
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


def _left_over(moved: np.ndarray) -> float:
    """Median of the flow's length after its best affine part, as a share of the width.

    The affine part is fitted three times, each time to the 70 % that the last one fits best, and the border is left
    out: there the flow is noise, which a picture that only moves as a whole would show as parallax.
    """
    height, width = moved.shape[:2]
    edge = min(_BORDER, height // 4, width // 4)
    y, x = np.mgrid[edge : height - edge : 2, edge : width - edge : 2].astype(np.float32)
    design = np.stack((np.ones(x.size, np.float32), x.ravel(), y.ravel()), 1)
    wanted = moved[edge : height - edge : 2, edge : width - edge : 2].reshape(-1, 2)
    rest = np.zeros(len(design), np.float32)
    for _ in range(3):
        best = rest <= np.quantile(rest, 0.7)
        affine = np.linalg.lstsq(design[best], wanted[best], rcond=None)[0]
        rest = np.linalg.norm(wanted - design @ affine, axis=1)
    return float(np.median(rest) / width)


class Snippets(Source):
    """Three frames each of the clips of a source: (before, frame, after), ``gap`` frames apart.

    Fields: ``clip`` (3, H, W, C) in the order before, frame, after; ``altered`` of the same shape where altered copies
    were given. Value ``intrinsics`` (4,): fx / W, fy / H, cx / W, cy / H, NaN where they are to be learnt.
    ``brings_truth`` tells whether the depth of the frames is known.
    """

    def __init__(
        self,
        source: Source,
        *,
        gap: int = 0,
        intrinsics: str = AUTO,
        altered: Mapping[str, Source] | None = None,
        keep_still: bool = False,
    ) -> None:
        """Find the snippets of every clip.

        Args:
            source: clips, whole recordings.
            gap: frames from one to the next; 0 chooses for each clip the smallest at which the picture moves by 1.5 %
                of its width in the median.
            intrinsics: "auto" takes what the source knows, else learns them; "learn"; else see `read_intrinsics`.
            altered: name of an alteration -> clips of the same names and frames; each snippet is there once for every
                one of them.
            keep_still: whether stretches without motion or texture stay.

        Raises:
            UserError: no clip moves or is long enough; altered copies that don't fit.
        """
        self.source: Any = source
        self.modality, self.name = "clip", source.name
        self.channels, self.generated, self.rate, self.depth = (
            source.channels,
            source.generated,
            source.rate,
            source.depth,
        )
        self.brings_truth = "depth" in source.fields
        self.kinds = sorted(altered or {})
        self.altered: dict[str, tuple[Any, np.ndarray]] = {
            kind: _partners(source, other, kind) for kind, other in (altered or {}).items()
        }
        rows, notes = [], []
        self.motion: dict[int, Motion] = {}
        for i in range(len(source)):
            try:
                motion = measured_motion(source, i)
            except SampleError as error:
                notes.append(f"{error.name}: left out, {error.reason}")
                continue
            chosen = gap or _gap(motion)
            self.motion[i] = motion
            kept, why = _kept(motion, chosen, keep_still)
            notes.extend(f"{source.names[i]}: {line}" for line in why)
            rows += [(i, t, chosen) for t in kept]
        if not rows:
            said = f" ({notes[0]})" if notes else ""
            raise UserError(f"{source.name}: nothing to learn depth from{said}; the camera must move, 3 frames or more")
        copies = max(1, len(self.kinds))
        self.places = np.repeat(np.array(rows, dtype=np.int64), copies, axis=0)
        self.which = np.tile(np.arange(copies), len(rows))
        suffix = [f"/{kind}" for kind in self.kinds] or [""]
        self.names = [
            f"{source.names[i]}#{t}{suffix[k]}"
            for (i, t, _), k in zip(self.places.tolist(), self.which.tolist(), strict=True)
        ]
        self.groups = self.places[:, 0].copy()
        self.given = None if source.given is None else source.given[self.places[:, 0]]
        self.doubts: list[str] = []
        self.values = {"intrinsics": self._cameras(intrinsics)[self.places[:, 0]]}
        self.notes = [*source.notes, *self._summary(), *self.doubts, *notes]

    def _summary(self) -> list[str]:
        gaps = np.unique(self.places[:, 2])
        words = f"{gaps[0]}" if len(gaps) == 1 else f"{gaps[0]} to {gaps[-1]}"
        found = list(self.motion.values())
        flow, parallax, contrast = (np.concatenate(part) for part in zip(*(m[:3] for m in found), strict=True))
        whole = Motion(flow, parallax, contrast, float(np.median([m.fixed for m in found])))
        few = f"{len(self)} are few: some hundreds are needed before depth has a shape" if len(self) < _FEW else ""
        lines = [f"{len(self)} snippets of 3 frames, {words} frames apart", few, *whole.reasons]
        return [line for line in lines if line]

    def _cameras(self, text: str) -> np.ndarray:
        """Intrinsics of every clip of the source, NaN where they are learnt."""
        known = self.source.values.get("intrinsics")
        if text == LEARN or (text == AUTO and known is None):
            return np.full((len(self.source), 4), np.nan, dtype=np.float32)
        if text == AUTO:
            return np.asarray(known, dtype=np.float32)
        sizes = [self._size(i) for i in range(len(self.source))]
        found = read_intrinsics(text, camera_names(self.source), sizes)
        said = {line for i in self.motion for line in doubts(found[i], sizes[i])}
        self.doubts = [f"--intrinsics {text}: {line}" for line in sorted(said)]
        return found

    def _size(self, i: int) -> tuple[int, int]:
        if i not in self.motion:
            return 1, 1
        frame = self.source.read(i, frames=np.zeros(1, dtype=np.int64))[0]
        return frame.shape[0], frame.shape[1]

    @property
    def fields(self) -> dict[str, Field]:
        """The frames, their altered copies, the camera."""
        more = {"altered": Field("clip", self.channels)} if self.kinds else {}
        return {"clip": Field("clip", self.channels)} | more | self._known_fields()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != "altered":
            return super()._field(name, i, min_side, frames)
        other, rows = self.altered[self.kinds[int(self.which[i])]]
        clip, t, gap = self.places[i].tolist()
        where = int(rows[clip])
        wanted = _three(t, gap, frames)
        if where < 0 or other.frames(where) <= wanted.max():
            raise SampleError(self.names[i], "its altered copy is missing or shorter")
        return other.read(where, None, frames=wanted)

    def frames(self, i: int) -> int:
        """Three."""
        return 3

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """The frames (3, H, W, C): before, frame, after; or those of them that ``frames`` names."""
        clip, t, gap = self.places[i].tolist()
        return self.source.read(clip, min_side if not self.kinds else None, frames=_three(t, gap, frames))

    @property
    def value_range(self) -> Any:
        """That of the clips."""
        return self.source.value_range

    def origin(self) -> str:
        """Where the clips come from."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the clips, the places and the cameras."""
        parts = [other.fingerprint() for other, _ in self.altered.values()]
        return digest("snippets", self.source.fingerprint(), self.places, parts, self.kinds, self.values["intrinsics"])


def _three(t: int, gap: int, frames: np.ndarray | None) -> np.ndarray:
    three = np.array([t - gap, t, t + gap], dtype=np.int64)
    return three if frames is None else three[np.asarray(frames)]


def _gap(motion: Motion) -> int:
    """The smallest gap at which the picture moves enough, of the frames that move at all."""
    moving = motion.flow[motion.flow > _STILL / 4]
    if not len(moving):
        return 1
    longest = max(1, len(motion.flow) // 2)
    return int(np.clip(np.ceil(_WANTED / np.median(moving) - 1e-6), 1, min(_MOST_GAP, longest)))


def _kept(motion: Motion, gap: int, keep_still: bool) -> tuple[list[int], list[str]]:
    """Middle frames that are worth learning from, and a line for each stretch that isn't."""
    length = len(motion.contrast)
    if length < 2 * gap + 1:
        return [], [f"left out, {length} frames where {2 * gap + 1} are needed"]
    past = np.concatenate(([0.0], np.cumsum(motion.flow)))
    middles = np.arange(gap, length - gap)
    moved = np.minimum(past[middles] - past[middles - gap], past[middles + gap] - past[middles])
    still, flat = moved < _STILL, motion.contrast[middles] < _FLAT
    if keep_still:
        return middles.tolist(), []
    lines = [f"frames {a} to {b} left out, the picture stands still" for a, b in _stretches(middles[still])]
    lines += [f"frames {a} to {b} left out, flat" for a, b in _stretches(middles[flat & ~still])]
    return middles[~(still | flat)].tolist(), lines


def _stretches(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Runs of consecutive numbers as (first, last)."""
    if not len(numbers):
        return []
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(numbers, cuts)]


def _partners(source: Source, other: Source, kind: str) -> tuple[Source, np.ndarray]:
    """The altered clips, and for each of the source's which of them is its copy, by name; -1 for none."""
    rows = {_stem(name): k for k, name in enumerate(other.names)}
    found = np.array([rows.get(_stem(name), -1) for name in source.names], dtype=np.int64)
    if (found < 0).all():
        raise UserError(f"--altered: {kind} has no copy of {source.names[0]}; name folders and files as the originals")
    return other, found


def _stem(name: str) -> str:
    head, _, last = name.rpartition("/")
    return f"{head}/{last.rpartition('.')[0] or last}"
