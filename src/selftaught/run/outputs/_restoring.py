"""One picture through a method: whole or in tiles, read with what its file holds besides, alone or frame by frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.data import Source, to_unit
from selftaught.data.picture_facts import read_with_metadata
from selftaught.data.pixels import conform
from selftaught.engine.method import Method
from selftaught.errors import SampleError, UserError
from selftaught.networks import tiled
from selftaught.run.applying import Job
from selftaught.run.outputs._pictures import Beside
from selftaught.run.outputs._tiles import fitting_tile

__all__ = [
    "FrameByFrame", "Row", "answers", "beyond", "companions_of", "finite", "read_colours", "read_picture", "resized",
    "restore", "restored_frames", "restored_row",
]  # fmt: skip

_READ = 8
"""Frames of a video that are held at a time."""


def restore(
    method: Method,
    image: np.ndarray,
    tile: int | None = None,
    name: str = "image",
    companions: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """One image (H,W,C) float32 in [0, 1] through the method -> (sH,sW,C); large ones in tiles that leave no seam.

    A deliverable that says its ``receptive_radius`` (pixels of the input that an output pixel sees to each side) is
    given tiles that overlap by as much; one whose ``forward`` takes ``tile`` makes them itself. ``tile`` is the largest
    side of one; 0: the whole image at once; None: as memory allows (:func:`fitting_tile`). Grey images go through
    a model of colours three times alike, and come back grey. ``companions`` is what an image comes with (its kernel).

    Raises:
        SampleError: channels that the method does not take.
    """
    seen = conform(image, method.channels, name)
    x = torch.from_numpy(seen.transpose(2, 0, 1))[None].to(method.device)
    network: Any = method.deliverable()
    radius = getattr(network, "receptive_radius", None)
    more = {key: value.to(x.device) for key, value in (companions or {}).items()} if radius is None else {}
    side = fitting_tile(method, lambda part: network(part, **more), x) if tile is None else tile
    large = bool(side) and max(x.shape[-2:]) > side
    x = x if large else x.contiguous()  # of a large one each tile is copied, never the whole
    with torch.inference_mode():
        if radius is None:
            y = network(x, tile=side, **more)
        elif large:
            y = tiled(network, x, tile=max(side, 4 * radius), overlap=radius, grid=1)
        else:
            y = network(x)
    found = y[0].float().cpu().numpy().transpose(1, 2, 0)
    return found.mean(2, keepdims=True) if image.shape[2] == 1 < found.shape[2] else found


def answers(method: Any, image: np.ndarray, name: str = "image", tile: int = 512) -> np.ndarray:
    """All pictures (heads, H, W, C) that a method with several answers gives for one, large ones in tiles."""
    seen = conform(image, method.channels, name)
    x = torch.from_numpy(np.ascontiguousarray(seen.transpose(2, 0, 1)))[None].to(method.device)

    def flat(part: Tensor) -> Tensor:
        return method.candidates(part).flatten(1, 2)

    with torch.inference_mode():
        y = tiled(flat, x, tile=tile, overlap=64) if max(x.shape[-2:]) > tile else flat(x)
    found = y[0].unflatten(0, (-1, method.channels)).float().cpu().numpy().transpose(0, 2, 3, 1)
    return found.mean(3, keepdims=True) if image.shape[2] == 1 < found.shape[3] else found


def companions_of(method: Any, source: Source, i: int) -> dict[str, Tensor]:
    """What a picture of a source comes with, where the method asks for something: its kernel."""
    return method.companions(source, i) if hasattr(method, "companions") else {}


def beyond(given: np.ndarray, made: np.ndarray) -> np.ndarray:
    """A restored picture whose values that a network cut off at 0 and 1, the ends of the measured range, are those of
    the input again where that lies outside of the range; a picture of another size comes back as it is.
    """
    if given.shape != made.shape or (given.min() >= 0 and given.max() <= 1):
        return made
    return np.where(((given > 1) & (made >= 1)) | ((given < 0) & (made <= 0)), given, made)


def finite(job: Job, i: int, made: np.ndarray) -> np.ndarray:
    """The picture, unless the model gave NaN.

    Raises:
        UserError: it did.
    """
    if not np.isfinite(made).all():
        raise UserError(f"{job.run}: NaN in the picture for {job.source.names[i]}; the model diverged")
    return made


def read_picture(source: Source, i: int, channels: int) -> tuple[np.ndarray, Beside]:
    """An image (H,W,C) in its file's own units, and what its file holds besides, where it comes from one.

    Alpha is no colour, unless the method was trained on four channels.
    """
    root = getattr(source, "root", None)
    if root is None or channels not in (1, 3):
        return source.read(i), Beside()
    image, facts = read_with_metadata(Path(root) / source.names[i], source.names[i])
    if facts.alpha is None and image.shape[2] not in (1, channels):
        return source.read(i), Beside()
    return image, Beside(facts.alpha, facts.exif, facts.icc_profile)


def read_colours(source: Source, i: int, channels: int) -> np.ndarray:
    """An image (H,W,C) as it is judged, in its file's own units: as the source has it, but of one with alpha its
    colours alone, since these are what is restored.
    """
    image, beside = read_picture(source, i, channels)
    if beside.alpha is None:
        return source.read(i)
    return conform(image, 3, source.names[i]) if source.channels == 3 else image


def resized(beside: Beside, size: tuple[int, ...]) -> Beside:
    """The same with its alpha brought to the size (H, W) of a result, by cubic interpolation."""
    import cv2

    alpha = beside.alpha
    if alpha is None or alpha.shape == size:
        return beside
    high = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1.0
    larger = cv2.resize(alpha.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    larger = np.clip(np.rint(larger) if alpha.dtype.kind == "u" else larger, 0, high)
    return dataclasses.replace(beside, alpha=larger.astype(alpha.dtype))


@dataclasses.dataclass(frozen=True)
class Row:
    """A picture before (``raw``) and after (``this``), the clean one where it is known, all answers where there are."""

    name: str
    raw: np.ndarray
    this: np.ndarray
    clean: np.ndarray
    answers: np.ndarray | None = None


def restored_row(method: Any, name: str, image: np.ndarray, target: np.ndarray, more: dict[str, Tensor]) -> Row:
    """A picture before, after and clean, as it is judged; ``more`` is what it comes with (its kernel).

    Raises:
        SampleError: it comes out in another size than its clean picture.
    """
    simplest = method.simplest(image) if hasattr(method, "simplest") else image
    if target.size and simplest.shape != target.shape:
        made, wanted = ("x".join(map(str, picture.shape)) for picture in (simplest, target))
        raise SampleError(name, f"is made {made}, its clean image is {wanted}")
    several = answers(method, image, name) if hasattr(method, "candidates") and target.size else None
    if several is not None and method.chosen is not None:
        return Row(name, simplest, several[method.chosen], target, several)
    return Row(name, simplest, restore(method, image, name=name, companions=more), target, several)


def restored_frames(job: Job, i: int) -> Iterator[np.ndarray]:
    """The frames (H, W, C) in [0, 1] of a video, each restored as a picture; a few are held at a time."""
    clips: Any = job.source
    more, count = companions_of(job.method, clips, i), clips.frames(i)
    for start in range(0, count, _READ):
        numbers = np.arange(start, min(start + _READ, count))
        for frame in to_unit(clips.read(i, frames=numbers), job.method.value_range):
            yield finite(job, i, restore(job.method, frame, job.tile, clips.names[i], more))


class FrameByFrame:
    """A method of pictures as it is judged on clips; otherwise the method."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def judged_frames(
        self, source: Any, i: int, frames: np.ndarray, clean: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames of a clip before, after and clean, (T, H, W, C) in [0, 1]; with none that are clean, it makes inputs
        of them.
        """
        rows = []
        more = companions_of(self.method, source, i) if clean.size else {}
        for frame, target in zip(frames, clean if clean.size else frames, strict=True):
            if not clean.size:
                frame, target, *rest = self.method.degraded(frame)
                more = rest[0] if rest else {}
            rows.append(restored_row(self.method, source.names[i], frame, target, more))
        raw, this, wanted = (np.stack([getattr(row, kind) for row in rows]) for kind in ("raw", "this", "clean"))
        return raw, this, wanted
