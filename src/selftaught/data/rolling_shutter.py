"""Pairs of pictures that a rolling shutter read in opposite directions: given ones, and those made of any video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np

from selftaught.data.fields import Field
from selftaught.data.scaling import as_uint8
from selftaught.data.source import Source, Subset, digest
from selftaught.errors import SampleError, UserError

__all__ = ["BETWEEN", "DualReversed", "is_dual", "pair_frames", "read_pair", "rolled_pair"]

Between = Literal["flow", "linear", "nearest"]
BETWEEN = ("flow", "linear", "nearest")
T2B, B2T, CLEAN = "t2b", "b2t", "gs"
_KEPT_BYTES = 1 << 29


def rolled_pair(frames: np.ndarray, between: Between = "flow") -> np.ndarray:
    """What two rolling shutters see of a scene while its frames pass: row y at the time y / (H - 1) of the read-out.

    Args:
        frames: (K + 1, H, W, C), evenly spaced over the read-out, the first at its start and the last at its end.
        between: where a row's time lies between two frames: "flow" moves both to that time along dense optical flow and
            blends them, "linear" blends them as they are, "nearest" takes the nearer one.

    Returns:
        (2, H, W, C) of the frames' type: read from the top to the bottom, and from the bottom to the top.

    Raises:
        UserError: fewer than two frames or rows, another way between.
    """
    if between not in BETWEEN:
        raise UserError(f"between={between}: it may be {', '.join(BETWEEN)}")
    if frames.ndim != 4 or len(frames) < 2 or frames.shape[1] < 2:
        raise UserError(f"frames: shape {frames.shape}; a read-out needs two frames (T, H, W, C) of two rows at least")
    intervals, height = len(frames) - 1, frames.shape[1]
    when = np.arange(height) / (height - 1) * intervals
    if between == "nearest":
        pair = [frames[np.rint(time).astype(int), np.arange(height)] for time in (when, when[::-1])]
        return np.stack(pair)
    made = np.empty((2, *frames.shape[1:]), dtype=frames.dtype)
    for k in range(intervals):
        flow = _dense_flow(frames[k], frames[k + 1]) if between == "flow" else None
        for pair_row, time in enumerate((when, when[::-1])):
            first = np.minimum(time.astype(int), intervals - 1) == k
            rows = np.flatnonzero(first)
            if len(rows):
                made[pair_row, rows] = _between(frames[k], frames[k + 1], rows, time[rows] - k, flow)
    return made


def _dense_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    grey = [np.ascontiguousarray(as_uint8(f).mean(2).astype(np.uint8)) for f in (first, second)]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return np.asarray(estimator.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32)))


def _between(
    first: np.ndarray, second: np.ndarray, rows: np.ndarray, share: np.ndarray, flow: np.ndarray | None
) -> np.ndarray:
    """Some neighbouring rows (r, W, C), each at its own share of the time between two frames."""
    u = share.astype(np.float32)[:, None]
    if flow is None:
        a, b = first[rows].astype(np.float32), second[rows].astype(np.float32)
    else:
        across = np.arange(first.shape[1], dtype=np.float32)[None]
        down = rows.astype(np.float32)[:, None]
        moved = flow[rows]
        a = _sampled(first, across - u * moved[..., 0], down - u * moved[..., 1])
        b = _sampled(second, across + (1 - u) * moved[..., 0], down + (1 - u) * moved[..., 1])
    mixed = (1 - u[..., None]) * a + u[..., None] * b
    return np.rint(mixed).astype(first.dtype) if first.dtype.kind in "ui" else mixed.astype(first.dtype)


def _sampled(frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = cv2.remap(
        frame.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return found.reshape(*x.shape, frame.shape[2])


# ---- pairs that are given ----------------------------------------------------------------------------------------
def is_dual(source: Source) -> bool:
    """Whether a source has pictures of both directions: fields "t2b" and "b2t"."""
    return {T2B, B2T} <= set(source.fields)


def _part_frames(source: Source, i: int) -> dict[str, int]:
    """Frames of a sample's fields."""
    whole: Any = source
    while isinstance(whole, Subset):
        whole, i = whole.parent, int(whole.indices[i])
    parts: Any = getattr(whole, "parts", None)
    if parts is None:
        return dict.fromkeys(whole.fields, whole.frames(i))
    rows: Any = whole._rows
    return {field: parts[field].frames(int(rows[field][i])) for field in (T2B, B2T, CLEAN) if field in parts}


def pair_frames(source: Source, i: int) -> int:
    """How many pairs a sample of a source of pairs holds: its frames.

    Raises:
        SampleError: unlike many frames of the two directions, or frames whose names don't fit.
    """
    counts = _part_frames(source, i)
    if counts[T2B] != counts[B2T]:
        raise SampleError(source.names[i], f"{counts[T2B]} frames read downwards (t2b), {counts[B2T]} upwards (b2t)")
    source.frame_names(i)
    return counts[T2B]


def read_pair(source: Source, i: int, t: int) -> np.ndarray:
    """Frame t of both directions, (2, H, W, C).

    Raises:
        SampleError: they can't be read, or differ in size.
    """
    sample = source.sample(i, [T2B, B2T], None, np.array([t]))
    first, second = sample[T2B][0], sample[B2T][0]
    if first.shape != second.shape:
        sizes = " and ".join(f"{x.shape[1]} x {x.shape[0]}" for x in (first, second))
        raise SampleError(source.names[i], f"frames of {sizes} are no pair")
    return np.stack((first, second))


class DualReversed(Source):
    """Pairs of frames read in opposite directions.

    Fields: ``clip`` (2, H, W, C), read downwards and upwards; ``rows`` (H, W, 1), y / (H - 1) of each pixel in the
    whole frame; ``gs`` (K + 1, H, W, C) where clean frames are known, evenly spaced over the read-out.
    """

    def __init__(
        self, source: Source, *, readout: int = 8, stride: int = 0, between: Between = "flow", side: int = 0
    ) -> None:
        """Take pairs, or make them.

        Args:
            source: of clips with fields "t2b" and "b2t" (and "gs", with as many times their frames), or of plain clips.
            readout: frames K from the start to the end of a made read-out.
            stride: frames between the starts of two made read-outs; 0: half a read-out.
            between: see `rolled_pair`.
            side: shorter side in pixels that frames of plain clips are reduced to, by a whole factor; 0: as they are.

        Raises:
            UserError: no clip is long enough.
        """
        self.source: Any = source
        self.modality, self.name = "clip", source.name
        self.channels, self.generated, self.rate, self.depth = (
            source.channels, source.generated, source.rate, source.depth,
        )  # fmt: skip
        self.dual, self.readout, self.between, self.side = is_dual(source), readout, between, side
        self._kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        rows, notes = [], []
        for i in range(len(source)):
            try:
                starts = self._starts(i, stride or max(1, readout // 2))
            except SampleError as error:
                notes.append(f"{error.name}: left out, {error.reason}")
                continue
            if not starts:
                notes.append(f"{source.names[i]}: left out, {source.frames(i)} frames where {readout + 1} are needed")
            rows += [(i, t) for t in starts]
        if not rows:
            said = f" ({notes[0]})" if notes else ""
            raise UserError(
                f"{source.name}: no rolling-shutter pair in it{said}; give longer clips, or --readout fewer"
            )
        self.places = np.array(rows, dtype=np.int64)
        self.names = [f"{source.names[i]}#{t}" for i, t in rows]
        self.groups = self.places[:, 0].copy()
        self.given = None if source.given is None else source.given[self.places[:, 0]]
        made = "" if self.dual else f", made of {readout + 1} frames each"
        self.notes = [*source.notes, f"{len(self)} rolling-shutter pairs{made}", *notes]

    def _starts(self, i: int, stride: int) -> list[int]:
        if self.dual:
            return list(range(pair_frames(self.source, i)))
        return list(range(0, self.source.frames(i) - self.readout, stride))

    @property
    def fields(self) -> dict[str, Field]:
        """The pair, the rows, and the clean frames where they are known."""
        clean = not self.dual or CLEAN in self.source.fields
        more = {CLEAN: Field("clip", self.channels)} if clean else {}
        return {"clip": Field("clip", self.channels), "rows": Field("image", 1)} | more | self._known_fields()

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == "rows":
            height, width = self.read(i).shape[1:3]
            column = np.arange(height, dtype=np.float32) / (height - 1)
            return np.ascontiguousarray(np.broadcast_to(column[:, None, None], (height, width, 1)))
        if name == CLEAN:
            return self._clean(i)
        return super()._field(name, i, min_side, frames)

    def frames(self, i: int) -> int:
        """Two."""
        return 2

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """The pair (2, H, W, C), or those of it that ``frames`` names; at full size."""
        clip, t = self.places[i].tolist()
        pair = read_pair(self.source, clip, t) if self.dual else self._made(i)[0]
        return pair.copy() if frames is None else pair[np.asarray(frames)]

    def _clean(self, i: int) -> np.ndarray:
        if not self.dual:
            return self._made(i)[1].copy()
        clip, t = self.places[i].tolist()
        counts = _part_frames(self.source, clip)
        each, left = divmod(counts[CLEAN], counts[T2B])
        if left or each < 2:
            raise SampleError(self.names[i], f"{counts[CLEAN]} clean frames for {counts[T2B]} pairs")
        found: np.ndarray = self.source.sample(clip, [CLEAN], None, np.arange(each * t, each * (t + 1)))[CLEAN]
        return found

    def _made(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """A made pair and the frames that it is made of; the first ones stay in memory."""
        if i in self._kept:
            return self._kept[i]
        clip, t = self.places[i].tolist()
        frames = self.source.read(clip, self.side or None, frames=np.arange(t, t + self.readout + 1))
        frames = _reduced(frames, self.side)
        made = rolled_pair(frames, self.between), frames
        if sum(a.nbytes + b.nbytes for a, b in [*self._kept.values(), made]) <= _KEPT_BYTES:
            self._kept[i] = made
        return made

    @property
    def value_range(self) -> Any:
        """That of the clips."""
        return self.source.value_range

    def origin(self) -> str:
        """Where the clips come from."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the clips and of how pairs are made of them."""
        made = [self.readout, self.between, self.side]
        return digest("dual", self.source.fingerprint(), self.places, [] if self.dual else made)


def _reduced(frames: np.ndarray, side: int) -> np.ndarray:
    """Frames whose shorter side is at least ``side``, reduced by the largest whole factor; 0 leaves them."""
    factor = min(frames.shape[1:3]) // side if side else 1
    if factor < 2:
        return frames
    size = (frames.shape[2] // factor, frames.shape[1] // factor)
    small: Sequence[np.ndarray] = [cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames]
    return np.stack(small).reshape(len(frames), size[1], size[0], frames.shape[3])
