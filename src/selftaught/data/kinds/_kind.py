"""What every kind of field says of itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from selftaught._words import plural
from selftaught.data.pixels import finite
from selftaught.errors import SampleError, UserError


class Kind:
    """One kind of field: the axes of a sample, the words for it, and how samples become a batch.

    A kind whose samples are arrays states the attributes below; the others (text, camera ...) override the methods.

    Attributes:
        name: what a `Field` calls it ("image").
        plural: the noun of messages ("images").
        description: what one sample is, in a few words.
        layout: the axes of one sample.
        batched: the axes of a batch.
        channel_axis: of a sample; None where there are no channels.
        numbers: NumPy's letters of the types that a sample may have (u: unsigned, i: signed, f: float).
        pixels: whether its values are brightnesses, which a network sees with a mean and a deviation taken off.
        spatial: whether a crop, flip or turn of an image goes for it too.
        picture: whether a sample is one picture: a method's own views fit it, the device may make them for a batch, and
            networks take it with the channels last.
        framed: whether its sources read some frames of a sample only (`Source.frames`).
        encoder: the encoder that such samples get from a method whose own is for images; "" where none would fit.
        counted: the noun of throughput where it is another one than ``plural`` ("windows" of series).
    """

    name: ClassVar[str]
    plural: ClassVar[str]
    description: ClassVar[str]
    layout: ClassVar[str]
    batched: ClassVar[str]
    channel_axis: ClassVar[int | None] = None
    numbers: ClassVar[str] = "uf"
    pixels: ClassVar[bool] = False
    spatial: ClassVar[bool] = False
    picture: ClassVar[bool] = False
    framed: ClassVar[bool] = False
    encoder: ClassVar[str] = ""
    counted: ClassVar[str] = ""

    @property
    def rate(self) -> str:
        """The unit of throughput ("images/s")."""
        return f"{self.counted or self.plural}/s"

    @property
    def singular(self) -> str:
        """One of `plural`: what a message calls a single sample ("image")."""
        return self.plural if self.plural == "series" else self.plural.removesuffix("s")

    def check(self, sample: Any, name: str) -> None:
        """See that a sample is what this kind says.

        Args:
            sample: one sample.
            name: of the sample, for the error.

        Raises:
            SampleError: other axes, zero size, another type, NaN or infinite values.
        """
        if not isinstance(sample, np.ndarray):
            raise SampleError(name, f"{type(sample).__name__} where {self.description} is an array")
        if sample.ndim != len(self._axes):
            raise SampleError(name, f"{sample.ndim} axes where {self.description} has {self.layout}")
        if not sample.size:
            raise SampleError(name, f"zero size {'x'.join(map(str, sample.shape))}")
        if sample.dtype.kind not in self.numbers:
            raise SampleError(name, f"{sample.dtype} is no type for {self.description}")
        finite(sample, name)

    def stack(self, samples: list[Any]) -> Any:
        """Samples of one size as a batch, a tensor with the axes of `batched`, copied once.

        Raises:
            UserError: they are of several sizes.
        """
        return self._channels_first(stacked(samples, self))

    def channels(self, sample: Any) -> int | None:
        """Channels of a sample; None where the kind has none."""
        return None if self.channel_axis is None else int(sample.shape[self.channel_axis])

    def sides(self, sample: Any) -> tuple[int, ...]:
        """The sizes of a sample without its channels: (H, W) of an image, (T,) of a series."""
        sizes = list(np.shape(sample))
        if self.channel_axis is not None:
            del sizes[self.channel_axis]
        return tuple(sizes)

    def conform(self, sample: Any, channels: int, name: str, convert: bool = False) -> Any:
        """A sample brought to the channels of its source, where that loses nothing.

        Raises:
            SampleError: it can't be.
        """
        have = self.channels(sample)
        if have != channels:
            raise SampleError(name, f"{plural(have or 0, 'channel')} where the source has {channels}")
        return sample

    def misfit(self, have: int, wanted: int, bands: bool = False) -> str:
        """What keeps samples of ``have`` channels from networks that know ``wanted``; "" where `conform` mends it.

        Args:
            have: channels of the samples.
            wanted: channels that the networks were trained on.
            bands: whether the channels are measurements, so that a fourth one is no transparency.
        """
        return "" if have == wanted else f"has {plural(have, 'channel')}, the run was trained on {wanted}"

    def adopt(self, sample: Any, name: str) -> Any:
        """A sample that came in another layout or type, as this kind has it.

        Raises:
            SampleError: it can't be one of this kind.
        """
        self.check(sample, name)
        return sample

    @property
    def _axes(self) -> list[str]:
        return self.layout.strip("()").rstrip(",").split(", ")

    def _channels_first(self, batch: Any) -> Any:
        if self.channel_axis is None or self.channel_axis == 0:
            return batch
        return batch.movedim(self.channel_axis + 1, 1)


def stacked(samples: list[Any], kind: Kind) -> Any:
    """Arrays of one shape as a tensor (N, ...).

    Raises:
        UserError: they are of several shapes.
    """
    import torch

    shapes = {np.shape(sample) for sample in samples}
    if len(shapes) > 1:
        some = " and ".join("x".join(map(str, kind.sides(s))) for s in samples[:1] + _unlike(samples))
        raise UserError(f"{kind.plural} of several sizes ({some}) make no batch; crop or resize them to one size")
    return torch.from_numpy(np.stack(samples))


def _unlike(samples: list[Any]) -> list[Any]:
    """The first sample of another shape than the first one's."""
    return [next(s for s in samples if np.shape(s) != np.shape(samples[0]))]
