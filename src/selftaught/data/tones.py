"""Images whose brightness is heavy-tailed or differs from image to image (radar, microscopes): decibels, own ranges.

db       20 log10 of amplitudes; 0 becomes the smallest positive value of the image
image    each channel's 1st to 99th percentile of its own image becomes 0 to 255, what lies beyond is clipped
"""

from __future__ import annotations

from typing import Any

import numpy as np

from selftaught.data.combining.mapped import Mapped
from selftaught.data.kinds import kind_of
from selftaught.data.source import Source
from selftaught.errors import SampleError, UserError

__all__ = ["Decibels", "OwnRange", "toned"]


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


_CHANGES: dict[str, Any] = {"db": Decibels, "image": OwnRange}


def toned(source: Source, names: str) -> Source:
    """A source of images, clips or volumes under ``db``, ``image``, or both one after the other: ``db,image``.

    Raises:
        UserError: another name, or samples without pixels.
    """
    asked = [name for name in names.split(",") if name]
    if not asked or any(name not in _CHANGES for name in asked):
        raise UserError(f"tones={names}: it may be db, image, or db,image")
    if not kind_of(source.modality).pixels:
        raise UserError(f"tones={names}: is for images, clips and volumes; {source.name} has {source.modality} samples")
    for name in asked:
        source = Mapped(source, _CHANGES[name]())
    return source
