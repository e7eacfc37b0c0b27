"""What sources of images, and others that read one array a sample, have in common: channels, types and ranges."""

from __future__ import annotations

import numpy as np

from selftaught.data.decoding import decode, fourth_is_alpha
from selftaught.data.kinds import kind_of
from selftaught.data.pixels import refuse_band
from selftaught.data.scaling import ValueRange, of_depth, robust_range
from selftaught.data.source import Source
from selftaught.errors import SampleError

__all__ = ["ImageSource"]


class ImageSource(Source):
    """A source whose class defines `_load` only; the channels and the value range are seen to here.

    Mostly images; classes that hold any kind (Hugging Face, torch Datasets) set `modality`.
    """

    convert: bool = False
    """True where `channels` was asked for by the user: colour may then be turned to grey."""
    _range: ValueRange | None = None
    _ranged: bool = False

    def _load(self, i: int, min_side: int | None) -> np.ndarray:
        raise SampleError(self.names[i], "no reader")  # pragma: no cover - every class defines it

    def _decoded(self, data: bytes, i: int, min_side: int | None) -> np.ndarray:
        """An image out of its file's bytes; one of four bands is refused where it would be taken for RGBA."""
        image, own = decode(data, self.names[i], min_side), self.channels == 4 and self.bands
        if image.shape[2] == 4 and self.channels is not None and not own and not fourth_is_alpha(data):
            refuse_band(image, self.names[i])
        return image

    def _is_uint8(self) -> bool:
        """Whether every sample is known to be uint8, so that no value range has to be looked for."""
        return False

    def read_checked(self, i: int) -> np.ndarray:
        """The sample with the channels of its file; an error where they can't be brought to the source's."""
        sample = self._load(i, None)
        self._conformed(sample, i)
        return sample

    def read(self, i: int, min_side: int | None = None) -> np.ndarray:
        """One sample with the channels of the source; see `Source.read`."""
        return self._conformed(self._load(i, min_side), i)

    def _conformed(self, sample: np.ndarray, i: int) -> np.ndarray:
        kind = kind_of(self.modality)
        if self.channels is not None and kind.channels(sample) != self.channels:
            if self.bands and self.modality == "image":
                refuse_band(sample, self.names[i])
            sample = kind.conform(sample, self.channels, self.names[i], self.convert)
        return of_depth(sample, self.depth, self.names[i])

    @property
    def value_range(self) -> ValueRange | None:
        """See `Source.value_range`."""
        if not self._ranged:
            self._range = robust_range(self) if kind_of(self.modality).pixels and not self._is_uint8() else None
            self._ranged = True
        return self._range
