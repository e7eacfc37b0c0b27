"""Frames whose depth was measured: what predictions of depth are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught._paths import bare
from selftaught.data import Source, as_uint8, open_source
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.run.applying import Skipped

if TYPE_CHECKING:
    from selftaught.run.bench import Bench

__all__ = ["MILLIMETRES", "Row", "frames_of", "judged_frames"]

MILLIMETRES = 1000.0
"""Of a metre: the unit of depth in 16-bit pictures."""


def frames_of(source: Source, i: int, numbers: np.ndarray, method: Method) -> np.ndarray:
    """Frames (n, H, W, C) of a clip as uint8."""
    clips: Any = source
    return as_uint8(clips.read(i, frames=numbers), method.value_range or source.value_range)


@dataclass(frozen=True)
class Row:
    """A frame with its measured depth (H, W), the frame before it, its camera, and what moves."""

    name: str
    frame: np.ndarray
    before: np.ndarray
    truth: np.ndarray
    shares: np.ndarray | None
    moving: np.ndarray | None


def judged_frames(bench: Bench, lost: Skipped) -> Iterator[Row]:
    """Test frames with known depth, from the second of every clip on, at most ``limit`` of each clip, spread evenly."""
    split = "test" if bench.clean is None else "all"
    source = open_source(bench.data, modality="clip", split=split, by=bench.settings.by)
    measured = open_source(bench.clean, modality="clip", split="all") if bench.clean is not None else None
    if measured is None and "depth" not in source.fields:
        raise UserError("errors of depth need measured depth: give --clean FOLDER of depth maps of the same names")
    each = max(1, bench.limit // max(1, len(source)))
    for i in range(len(source)):
        try:
            numbers = np.unique(np.linspace(1, source.frames(i) - 1, min(each, source.frames(i) - 1)).astype(np.int64))
            now, before = (frames_of(source, i, numbers - k, bench.method) for k in (0, 1))
            truth = _truth(source, measured, i, numbers)
            moving = source.sample(i, ["moving"], None, numbers)["moving"] if "moving" in source.fields else None
        except SampleError as error:
            bench.say(f"skipped {error}")
            lost.append((source.names[i], error.reason))
            continue
        shares = source.values["intrinsics"][i] if "intrinsics" in source.values else None
        for k, t in enumerate(numbers.tolist()):
            mask = None if moving is None else moving[k, :, :, 0] > 0
            yield Row(f"{source.names[i]}#{t}", now[k], before[k], truth[k, :, :, 0], shares, mask)


def _truth(source: Source, measured: Source | None, i: int, numbers: np.ndarray) -> np.ndarray:
    """Measured depth (n, H, W, 1) in metres; whole numbers are millimetres."""
    if measured is None:
        return source.sample(i, ["depth"], None, numbers)["depth"]
    name = source.names[i]
    stems = {bare(other): k for k, other in enumerate(measured.names)}
    at = stems.get(bare(name))
    if at is None:
        raise SampleError(name, "no depth maps of its name")
    if measured.frames(at) <= numbers.max():
        raise SampleError(name, f"{measured.frames(at)} depth maps for more frames")
    clips: Any = measured
    found: np.ndarray = clips.read(at, frames=numbers)
    return found.astype(np.float32) / (MILLIMETRES if found.dtype.kind in "ui" else 1.0)
