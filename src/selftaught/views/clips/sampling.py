"""Several clips out of one video: how far apart in time, in which order, at which speed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from selftaught.errors import UserError
from selftaught.views.clips.intervals import draw_interval
from selftaught.views.clips.temporal import TemporalCrop
from selftaught.views.operation import FRAMED, executor, freeze

__all__ = ["INTERVALS", "ClipPair", "ClipSequence", "DilatedClip", "FramePart", "SpeedClips", "clip_starts"]

INTERVALS = ("decreasing", "uniform", "increasing", "same", "apart")
"""How the interval between two clips' starts is drawn."""


def clip_starts(
    u: Any, length: int, frames: int, stride: int = 1, *, interval: str = "decreasing", power: float = 1.0
) -> tuple[int, int]:
    """Where the two clips of a video start (CVRL, arXiv 2008.03800, section 3.3).

    With M = T_v - (n - 1) stride possible starts, the interval t is drawn from [0, M], delta = floor(t), at most
    M - 1; the earlier clip starts evenly at 0 .. M - delta - 1, the later one delta frames after it; either may be
    the first of the pair. A video of T_v <= (n - 1) stride frames is too short for that: both clips start anywhere in
    it, and go on from its beginning where it ends.

    Args:
        u: (4,) uniform numbers in [0, 1): two for the interval, one for the start, one for the order.
        length: T_v, frames of the video.
        frames: n, frames of a clip.
        stride: frames of the video from one frame of a clip to the next.
        interval: decreasing, uniform, increasing: the density of t over [0, M] (`draw_interval`); same: t = 0;
            apart: any two different starts, evenly.
        power: p of the decreasing and increasing densities.

    Returns:
        the starts of the first and of the second clip.

    Raises:
        UserError: an unknown interval, a power of -1 or less, no frame.
    """
    if interval not in INTERVALS:
        raise UserError(f"interval={interval}: choose {', '.join(INTERVALS)}")
    if min(length, frames, stride) < 1:
        raise UserError(f"clip_starts: length={length}, frames={frames}, stride={stride} must each be 1 or more")
    possible = length - (frames - 1) * stride
    if possible < 1:
        return int(u[0] * length), int(u[0 if interval == "same" else 1] * length)
    if interval == "apart":
        first = int(u[2] * possible)
        other = int(u[0] * max(possible - 1, 1))
        return first, (other + (other >= first)) % possible
    shape = {"decreasing": power, "increasing": power}.get(interval)
    share = {"uniform": u[0], "same": 0.0}.get(interval)
    if share is None:
        assert shape is not None
        share = float(draw_interval(u[0], u[1], 1.0, shape))
        share = 1 - share if interval == "increasing" else share
    delta = min(int(share * possible), possible - 1)
    early = int(u[2] * (possible - delta))
    pair = (early, early + delta)
    return pair if u[3] < 0.5 else pair[::-1]


@dataclasses.dataclass(frozen=True, repr=False)
class ClipPair(TemporalCrop):
    """Two clips of one video, one after the other along time; :class:`FramePart` takes them apart.

    Args:
        frames: n, frames of a clip; 2 n come out.
        stride: frames of the video from one frame of a clip to the next (default 1).
        interval: how the distance of the starts is drawn, one of `INTERVALS`; see `clip_starts`.
        power: p of the decreasing and increasing densities (default 1).

    Raises:
        UserError: frames or stride below 1, an unknown interval, a power of -1 or less.
    """

    interval: str = "decreasing"
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        clip_starts([0.0] * 4, self.frames * self.stride, self.frames, interval=self.interval)
        draw_interval(0.5, 0.5, 1.0, self.power)
        set_up(self, draws=4)

    @property
    def shown(self) -> int:
        """Frames of both clips."""
        return 2 * self.frames

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Draw both starts; see `clip_starts`."""
        length = frames_of(self, shape, kind)
        starts = clip_starts(u, length, self.frames, self.stride, interval=self.interval, power=self.power)
        numbers = [run_of_frames(start, self.frames, self.stride, length) for start in starts]
        return columns_of_frames(*numbers), (self.shown, *shape[1:])


@dataclasses.dataclass(frozen=True, repr=False)
class ClipSequence(TemporalCrop):
    """Several clips of one video in their order in time, one after the other (VCOP, Xu et al., CVPR 2019).

    They start at an even-drawn place of a video; one that is too short goes on from its beginning.

    Args:
        frames: of a clip.
        stride: frames of the video from one frame of a clip to the next (default 1).
        clips: how many (default 3).
        gap: frames of the video between the end of one and the start of the next (default 8).

    Raises:
        UserError: less than one frame, stride or clip, a negative gap.
    """

    clips: int = 3
    gap: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        set_up(self, draws=1, least={"clips": 1, "gap": 0})

    @property
    def shown(self) -> int:
        """Frames of all clips."""
        return self.clips * self.frames

    @property
    def reach(self) -> int:
        """Frames of the video from the first to the last."""
        return self.clips * self.frames * self.stride + (self.clips - 1) * self.gap - (self.stride - 1)

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Draw the start of the first clip."""
        length = frames_of(self, shape, kind)
        first = int(u[0] * max(length - self.reach + 1, 1))
        step = self.frames * self.stride + self.gap
        numbers = [run_of_frames(first + k * step, self.frames, self.stride, length) for k in range(self.clips)]
        return columns_of_frames(*numbers), (self.shown, *shape[1:])


@dataclasses.dataclass(frozen=True, repr=False)
class DilatedClip(TemporalCrop):
    """A clip at one of several rates, and the same stretch at twice its rate (PRP, Yao et al., CVPR 2020).

    Of ``frames`` times s consecutive frames every s-th is kept; s is drawn evenly from ``rates``. Behind these
    ``frames`` frames come twice as many, every (s / 2)-th of the stretch: what the clip is to be completed to. At
    s = 1 there is nothing between two frames; every one is there twice, and an objective takes means instead
    (`selftaught.objectives.prp_target`).
    A video that is too short goes on from its beginning. Fact ``rate``: the place of s in ``rates``.

    Args:
        frames: of the slow clip; 3 times as many come out (default 16).
        rates: the values of s: 1, or even.

    Raises:
        UserError: less than one frame, no rate, or an odd one above 1.
    """

    rates: tuple[int, ...] = (1, 2, 4, 8)

    facts: ClassVar = ("rate",)

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = tuple(self.rates)
        plain = all(isinstance(rate, int) and (rate == 1 or (rate > 0 and rate % 2 == 0)) for rate in rates)
        if not rates or not plain or self.stride != 1:
            raise UserError(f"DilatedClip: rates are 1 or even numbers, in steps of one frame; got {self.rates!r}")
        set_up(self, draws=2, more=("rate",), values={"rates": rates})

    @property
    def shown(self) -> int:
        """Frames of the clip and of its completion."""
        return 3 * self.frames

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Draw the rate, then the start."""
        length = frames_of(self, shape, kind)
        at = int(u[0] * len(self.rates))
        rate = self.rates[at]
        first = int(u[1] * max(length - self.frames * rate + 1, 1))
        fine = first + np.arange(2 * self.frames) * rate // 2
        numbers = (run_of_frames(first, self.frames, rate, length), fine % length)
        return (*columns_of_frames(*numbers), float(at)), (self.shown, *shape[1:])


@dataclasses.dataclass(frozen=True, repr=False)
class SpeedClips(TemporalCrop):
    """Three clips of one video at two speeds, one after the other (RSPNet, Chen et al., AAAI 2021).

    The first and the second play at one speed, drawn evenly from the two, the third at the other; each starts at an
    even-drawn place of its own. A video that is too short goes on from its beginning.

    Args:
        frames: of a clip; three times as many come out.
        stride: frames of the video from one frame to the next at speed 1 (default 1).
        speeds: the two speeds (default 1 and 2).

    Raises:
        UserError: less than one frame, or not two different speeds.
    """

    speeds: tuple[int, int] = (1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        speeds = tuple(self.speeds)
        if len(set(speeds)) != 2 or not all(isinstance(s, int) and s > 0 for s in speeds):
            raise UserError(f"SpeedClips: speeds are two different whole numbers above 0, got {self.speeds!r}")
        set_up(self, draws=4, values={"speeds": speeds})

    @property
    def shown(self) -> int:
        """Frames of the three clips."""
        return 3 * self.frames

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Draw the common speed, then the three starts."""
        length = frames_of(self, shape, kind)
        own, other = self.speeds if u[0] < 0.5 else self.speeds[::-1]
        numbers = []
        for place, speed in enumerate((own, own, other)):
            step = self.stride * speed
            start = int(u[1 + place] * max(length - (self.frames - 1) * step, 1))
            numbers.append(run_of_frames(start, self.frames, step, length))
        return columns_of_frames(*numbers), (self.shown, *shape[1:])


@dataclasses.dataclass(frozen=True, repr=False)
class FramePart(TemporalCrop):
    """The ``frames`` frames from number ``start`` on: one of the clips that another view put one after the other.

    Raises:
        UserError: less than one frame, a negative start; a clip that is too short.
    """

    start: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_up(self, draws=0, least={"start": 0})

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Nothing is drawn."""
        length = frames_of(self, shape, kind)
        numbers = self.start + self.stride * np.arange(self.frames)
        if numbers[-1] >= length:
            raise UserError(f"FramePart: frame {numbers[-1]} of a clip of {length}")
        return columns_of_frames(numbers), (self.frames, *shape[1:])


# ---- what they share -------------------------------------------------------------------------------------------------
def set_up(
    op: TemporalCrop,
    *,
    draws: int,
    least: Mapping[str, int] | None = None,
    more: tuple[str, ...] = (),
    values: Mapping[str, Any] | None = None,
) -> None:
    """Check whole numbers, set checked ``values``, name the columns: the frames that are shown, and ``more``."""
    for name, low in (least or {}).items():
        value = getattr(op, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise UserError(f"{type(op).__name__}: {name} is a whole number, {low} or more, got {value!r}")
    if op.jitter:
        raise UserError(f"{type(op).__name__}: has no jitter; use TemporalCrop for that")
    freeze(op, **(values or {}))
    freeze(op, columns=(*(f"frame {i + 1}" for i in range(op.shown)), *more), draws=draws)


def frames_of(op: TemporalCrop, shape: tuple[int, ...], kind: str) -> int:
    """How many frames the clip has that is drawn for."""
    if kind not in FRAMED:
        raise UserError(f"{type(op).__name__}: picks frames of a clip, not of a field of kind {kind!r}")
    return int(shape[0])


def run_of_frames(start: int, frames: int, stride: int, length: int) -> np.ndarray:
    """Frame numbers from a start on, going round where the video ends."""
    return (start + stride * np.arange(frames)) % length


def columns_of_frames(*numbers: np.ndarray) -> tuple[float, ...]:
    """Frame numbers as columns."""
    return tuple(map(float, np.concatenate(numbers)))


@executor(DilatedClip, *FRAMED)
def _dilated(x: np.ndarray, op: DilatedClip, values: list[float]) -> Any:
    return x[op.indices(values)], {"rate": int(values[-1])}


@executor(DilatedClip, *FRAMED, device=True)
def _dilated_batch(x: Any, op: DilatedClip, values: np.ndarray) -> Any:
    import torch

    at = torch.from_numpy(op.indices(values)).to(x.device)[:, None, :, None, None]
    rate = torch.from_numpy(values[:, -1].astype(np.int64)).to(x.device)
    return x.gather(2, at.expand(-1, x.shape[1], -1, *x.shape[3:])), {"rate": rate}
