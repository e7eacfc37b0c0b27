"""Clips blurred by averaging: what a camera with an open shutter sees of a sharp video."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from selftaught._words import plural
from selftaught.data.fields import Field
from selftaught.data.source import Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["Exposures"]


class Exposures(Source):
    """Each clip of a source blurred: frame t is the mean of ``exposure`` frames from number ``t * step`` on.

    Fields: ``blurred``, and ``sharp``, the frame in the middle of each exposure; both (T', H, W, C) of the source's
    type, T' = (T - exposure) // step + 1. What is blurred is rounded as a file would be. A clip that is too short for
    one exposure is left out.
    """

    def __init__(self, source: Source, *, exposure: int, step: int, gamma: float = 1.0) -> None:
        """Blur clips.

        Args:
            source: of sharp clips.
            exposure: frames that are averaged.
            step: frames from one exposure to the next.
            gamma: of the camera's response: values to this power are averaged, and the root is taken.

        Raises:
            UserError: no clips, numbers below 1, or none of the clips is long enough.
        """
        if source.modality != "clip":
            raise UserError(f"{source.name}: only clips can be blurred by averaging their frames")
        if exposure < 1 or step < 1 or gamma <= 0:
            raise UserError(f"exposure={exposure}, step={step}, gamma={gamma:g}: all above 0")
        self.source: Any = source
        self.exposure, self.step, self.gamma = exposure, step, gamma
        self.rows = np.array([i for i in range(len(source)) if _length(source, i) >= exposure], dtype=np.int64)
        if not len(self.rows):
            raise UserError(
                f"{source.name}: no clip has the {exposure} frames of one exposure; take a smaller exposure"
            )
        self.modality, self.name, self.channels = "clip", source.name, source.channels
        self.generated, self.depth = source.generated, source.depth
        self.rate = None if source.rate is None else source.rate / step
        self.names = [source.names[i] for i in self.rows.tolist()]
        self.groups = None if source.groups is None else source.groups[self.rows]
        self.given = None if source.given is None else source.given[self.rows]
        lost = len(source) - len(self.rows)
        self.notes = [*source.notes, *([f"{plural(lost, 'clip')} left out, shorter than one exposure"] if lost else [])]

    @property
    def fields(self) -> dict[str, Field]:
        """Blurred and sharp."""
        return {"blurred": Field("clip", self.channels), "sharp": Field("clip", self.channels)} | self._known_fields()

    def frames(self, i: int) -> int:
        """Exposures of a clip."""
        return int((self.source.frames(int(self.rows[i])) - self.exposure) // self.step + 1)

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """The blurred frames (T', H, W, C), or those that ``frames`` names."""
        wanted = np.arange(self.frames(i)) if frames is None else np.asarray(frames)
        if not len(wanted):
            raise SampleError(self.names[i], "no frame is asked for")
        taken = wanted[:, None] * self.step + np.arange(self.exposure)
        every, where = np.unique(taken, return_inverse=True)
        sharp = self.source.read(int(self.rows[i]), min_side, frames=every)
        where = where.reshape(taken.shape)
        return np.stack([self._exposed(sharp[rows]) for rows in where])

    def _exposed(self, frames: np.ndarray) -> np.ndarray:
        whole = frames.dtype.kind == "u"
        white = float(np.iinfo(frames.dtype).max) if whole else 1.0
        light = frames.astype(np.float32) / white
        mean = light.mean(0) if self.gamma == 1 else (np.maximum(light, 0) ** self.gamma).mean(0) ** (1 / self.gamma)
        found: np.ndarray = np.rint(mean * white).astype(frames.dtype) if whole else mean.astype(frames.dtype)
        return found

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name != "sharp":
            return self.read(i, min_side, frames) if name == "blurred" else super()._field(name, i, min_side, frames)
        wanted = np.arange(self.frames(i)) if frames is None else np.asarray(frames)
        middles = wanted * self.step + self.exposure // 2
        return self.source.read(int(self.rows[i]), min_side, frames=middles)

    def sample(
        self, i: int, want: Iterable[str] | None = None, min_side: int | None = None, frames: np.ndarray | None = None
    ) -> dict[str, Any]:
        """The fields of one clip; both are read at full size."""
        return super().sample(i, want, None, frames)

    def range_of(self, field: str) -> Any:
        """The clips', for both."""
        return self.value_range if field in ("blurred", "sharp") else None

    @property
    def value_range(self) -> Any:
        """That of the clips."""
        return self.source.value_range

    def origin(self) -> str:
        """Where the clips come from."""
        return str(self.source.origin())

    def fingerprint(self) -> str:
        """Of the clips and the exposure."""
        return digest("exposures", self.source.fingerprint(), [self.exposure, self.step, self.gamma])


def _length(source: Any, i: int) -> int:
    try:
        return int(source.frames(i))
    except SampleError:
        return 0
