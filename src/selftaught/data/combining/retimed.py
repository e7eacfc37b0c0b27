"""Clips shown otherwise in time: backwards, out of order, faster."""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import UserError

__all__ = ["Retimed"]

_SEGMENTS = 4


class Retimed(Source):
    """The clips of a source, the frames that are asked for taken from elsewhere in time."""

    modality = "clip"

    def __init__(self, source: Source, how: str, length: int = 0) -> None:
        """Show clips otherwise.

        Args:
            source: of clips.
            how: "forward" leaves them alone; "backward"; "shuffled" exchanges four segments of the frames of a clip, by
                a draw of each sample's own that is never the order they had; "x2", "x4" take every second or fourth
                frame.
            length: frames of a clip that a view asks for, where it asks for several clips at once; 0: one.

        Raises:
            UserError: other samples than clips, another way.
        """
        if source.modality != "clip":
            raise UserError(f"{source.name} holds {source.modality} samples; clips have a time")
        if how not in ("forward", "backward", "shuffled") and not (how[:1] == "x" and how[1:].isdigit()):
            raise UserError(f"how={how!r}: forward, backward, shuffled, or x2, x4 ...")
        self.source, self.how, self.length = source, how, length
        self.factor = max(1, int(how[1:])) if how[:1] == "x" else 1
        self.name, self.names, self.classes, self.notes = source.name, source.names, source.classes, source.notes
        self.channels, self.generated, self.depth = source.channels, source.generated, source.depth
        self.rate = source.rate
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))

    def frames(self, i: int) -> int:
        """Frames at this speed."""
        return (self.source.frames(i) - 1) // self.factor + 1

    def read(self, i: int, min_side: int | None = None, frames: np.ndarray | None = None) -> np.ndarray:
        """Frames (T, H, W, C) of a clip, from where they are taken."""
        wanted = np.arange(self.frames(i)) if frames is None else np.asarray(frames)
        clips: Any = self.source
        found: np.ndarray = clips.read(i, min_side, frames=np.sort(self.taken(wanted, i)))
        place = np.argsort(np.argsort(self.taken(wanted, i), kind="stable"), kind="stable")
        return found[place]

    def taken(self, wanted: np.ndarray, i: int) -> np.ndarray:
        """Positions in the source's clip of the frames that stand at ``wanted``."""
        if self.how == "backward":
            return wanted[::-1]
        if self.how != "shuffled":
            return wanted * self.factor
        each = self.length if self.length and len(wanted) % self.length == 0 else len(wanted)
        return np.concatenate([_exchanged(part, i) for part in wanted.reshape(-1, each)])

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> Any:
        """The clips'."""
        return self.source.value_range

    def origin(self) -> str:
        """The clips', and how they are shown."""
        return f"{self.source.origin()} {self.how}"

    def fingerprint(self) -> str:
        """Of the clips and how they are shown."""
        return digest("retimed", self.source.fingerprint(), self.how, self.length)


def _exchanged(frames: np.ndarray, i: int) -> np.ndarray:
    """Frames cut into segments that stand in another order; fewer than two frames stay."""
    count = min(_SEGMENTS, len(frames))
    if count < 2:
        return frames
    parts = np.array_split(frames, count)
    rng = np.random.default_rng([2504, i])
    order = rng.permutation(count)
    while (order == np.arange(count)).all():
        order = rng.permutation(count)
    return np.concatenate([parts[k] for k in order.tolist()])
