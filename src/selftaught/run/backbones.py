"""What sees samples without having been trained here: the pixels themselves, or a pretrained model of timm's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from selftaught import views
from selftaught.data import Scale, Source
from selftaught.engine.method import Method
from selftaught.engine.precision import accelerator
from selftaught.errors import NoWeights, UserError
from selftaught.methods._encoder import EncoderMethod

__all__ = ["pixel_method", "timm_method"]


class Pixels(Method):
    """The picture itself as features: its evaluation view averaged to 16 x 16; learns nothing."""

    slug = "pixels"

    def build(self) -> None:
        """No network."""

    def evaluation_view(self) -> Any:
        """Shorter side to 32 pixels, centre cropped."""
        return next(iter(views.plain(32)))

    def features(self, batch: dict[str, Any]) -> Tensor:
        """(N, C 256)."""
        return adaptive_avg_pool2d(self.inputs(batch), 16).flatten(1)


def pixel_method(source: Source) -> Method:
    """What sees the pixels of images alone.

    Raises:
        UserError: samples that are no images.
    """
    if source.modality != "image":
        raise UserError(f"{source.name} holds {source.modality} samples: give what sees them, --encoder RUN")
    method = Pixels(channels=source.channels or 3)
    method.value_range = Scale(source.value_range, source.depth)
    return method.eval()


def timm_method(name: str, source: Source) -> EncoderMethod:
    """A pretrained model of timm's as a method with features, for images of a source's channels.

    Args:
        name: ``timm:NAME``.
        source: the images.

    Raises:
        UserError: no such model, or its weights can't be had; samples that are no images.
    """
    import timm

    if source.modality != "image":
        raise UserError(f"{source.name} holds {source.modality} samples, {name} takes images")
    model = name.removeprefix("timm:")
    known = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    side = known.input_size[-1] if known is not None else 224
    try:
        method = EncoderMethod(encoder=model, pretrained=True, image_size=side, channels=source.channels or 3)
    except NoWeights as error:
        mend = "go online once, or name the folder of a run, or pixels"
        raise UserError(f"encoder={name}: its pretrained weights can't be had ({error.reason}); {mend}") from error
    if known is not None and method.channels == len(known.mean):
        method.pixel_mean.copy_(torch.tensor(known.mean))
        method.pixel_std.copy_(torch.tensor(known.std))
    method.value_range = Scale(source.value_range, source.depth)
    return method.to(accelerator()).eval()
