"""What becomes of pixels whose values say more than a screen shows: radar amplitudes, scans in Hounsfield units.

db              20 log10 of amplitudes; 0 becomes the smallest positive value of the image
image           each channel's 1st to 99th percentile of its own image becomes 0 to 255, what lies beyond is clipped
window:C:W      a window of centre C and width W: C - W/2 to C + W/2 becomes 0 to 255 (DICOM's LINEAR_EXACT)
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from selftaught.data.combining.mapped import Mapped
from selftaught.data.kinds import kind_of
from selftaught.data.source import Source
from selftaught.errors import SampleError, UserError

__all__ = ["Decibels", "OwnRange", "Window", "toned"]


class Decibels:
    """Amplitudes (..., C) -> 20 log10 of them, float32."""

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        """SampleError: values below 0, or none above it."""
        positive = sample[sample > 0]
        if not len(positive) or float(sample.min()) < 0:
            raise SampleError("", "tones=db takes amplitudes: none below 0, and some above it")
        return (20 * np.log10(np.maximum(sample, positive.min()).astype(np.float64))).astype(np.float32)


class OwnRange:
    """Samples (..., C) of any numbers -> uint8, each channel between its own 1st and 99th percentile."""

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        """SampleError: a channel whose percentiles are equal."""
        values = sample.reshape(-1, sample.shape[-1]).astype(np.float64)
        low, high = np.percentile(values, [1, 99], axis=0)
        if not (high > low).all():
            raise SampleError("", "all of its pixels are alike (1st and 99th percentile are equal)")
        return ((sample - low) / (high - low) * 255).round().clip(0, 255).astype(np.uint8)


class Window:
    """Samples (..., C) -> uint8: ``center`` - ``width`` / 2 becomes 0, ``center`` + ``width`` / 2 becomes 255.

    Args:
        center: in the units of the values (Hounsfield units of CT: lung -600, brain 40, bone 400).
        width: above 0 (lung 1500, brain 80, bone 1800).
    """

    def __init__(self, center: float, width: float) -> None:
        self.center, self.width = center, width

    def __call__(self, sample: np.ndarray) -> np.ndarray:
        """What lies outside the window is clipped."""
        share = (sample.astype(np.float32) - np.float32(self.center)) / np.float32(self.width) + np.float32(0.5)
        return (255 * share).round().clip(0, 255).astype(np.uint8)


_CHANGES: dict[str, Any] = {"db": Decibels, "image": OwnRange}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"


def _change(name: str) -> Any:
    """The function of a name; None where there is none."""
    if name in _CHANGES:
        return _CHANGES[name]()
    found = re.fullmatch(rf"window:({_NUMBER}):({_NUMBER})", name)
    return Window(float(found[1]), float(found[2])) if found and float(found[2]) > 0 else None


def toned(source: Source, names: str) -> Source:
    """A source of images, clips or volumes under ``db``, ``image`` or ``window:C:W``, or several: ``db,image``.

    Raises:
        UserError: another name, a window without a width, samples without pixels.
    """
    asked = [_change(name) for name in names.split(",") if name]
    if not asked or None in asked:
        raise UserError(
            f"tones={names}: it may be db, image, db,image, or window:CENTRE:WIDTH with a width above 0: window:40:400"
        )
    if not kind_of(source.modality).pixels:
        raise UserError(f"tones={names}: is for images, clips and volumes; {source.name} has {source.modality} samples")
    for change in asked:
        source = Mapped(source, change)
    return source
