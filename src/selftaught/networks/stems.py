"""First layers for small images, and this toolkit's own small ResNets: each as something done to a plain timm module.

Every function here returns, beside what it does, the lines of plain timm code that do the same. An exported encoder
carries these lines, so that it loads without this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from selftaught.errors import UserError

__all__ = ["OWN"]

SMALL_IMAGE = 40  # pixels; a stem that divides the side by four leaves too little below it


@dataclass(frozen=True)
class Recipe:
    """A ResNet of this toolkit: basic blocks of timm's ResNet, and one convolution in front of them.

    Attributes:
        layers: blocks per stage.
        channels: width of each stage; the last one is the size of the embedding.
        about: one line for the catalogue.
    """

    layers: tuple[int, int, int, int]
    channels: tuple[int, int, int, int]
    about: str


OWN: dict[str, Recipe] = {
    "resnet10": Recipe((1, 1, 1, 1), (64, 128, 256, 512), "four residual blocks, 512 features, 4.9 M parameters"),
    "resnet10-narrow": Recipe((1, 1, 1, 1), (32, 64, 128, 256), "four residual blocks, 256 features, 1.2 M parameters"),
}
"""Small ResNets for laptops. Their standard stem is one 7x7 convolution of stride 4: as coarse as a ResNet's stride-2
convolution and max-pooling, several times as fast on a processor, since nothing is computed at half resolution."""


def small_stem(model: nn.Module, *, keep_weights: bool = False) -> list[str]:
    """Let a timm model keep the resolution of small images: first convolution with stride 1, no max-pooling.

    ResNets get the 3x3 stride-1 stem of the CIFAR literature; families whose stem is one stride-2 convolution
    (EfficientNet, MobileNet) get stride 1.

    Args:
        model: the timm module, changed in place.
        keep_weights: the central 3x3 taps of a pretrained 7x7 stem go over, scaled to the norm of the whole kernel.

    Returns:
        Lines of Python that do the same to a module called ``model``.

    Raises:
        UserError: the family has no such stem.
    """
    first, deep = getattr(model, "conv1", None), False
    if isinstance(first, nn.Sequential) and isinstance(first[0], nn.Conv2d):
        first, deep = first[0], True
    if isinstance(first, nn.Conv2d) and hasattr(model, "maxpool"):
        model.maxpool = nn.Identity()
        if deep:
            first.stride = (1, 1)
            return ["model.conv1[0].stride = (1, 1)", "model.maxpool = torch.nn.Identity()"]
        model.conv1, line = _three_by_three(first, keep_weights)
        return [line, "model.maxpool = torch.nn.Identity()"]
    stem = getattr(model, "conv_stem", None)
    if isinstance(stem, nn.Conv2d):
        stem.stride = (1, 1)
        return ["model.conv_stem.stride = (1, 1)"]
    raise UserError(f"stem=small: {type(model).__name__} has no stem of that kind; use stem=standard")


def has_small_stem(model: nn.Module) -> bool:
    """Whether `small_stem` knows what to do with this timm module."""
    return (hasattr(model, "conv1") and hasattr(model, "maxpool")) or isinstance(
        getattr(model, "conv_stem", None), nn.Conv2d
    )


def own_resnet(
    name: str, channels: int, small: bool, zero_init_last: bool, options: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """Build one of this toolkit's small ResNets on timm's class.

    Args:
        name: a key of `OWN`.
        channels: channels of the input image.
        small: first convolution 3x3 with stride 1 instead of 7x7 with stride 4.
        zero_init_last: start every block as the identity.
        options: further arguments of ``timm.models.resnet.ResNet``.

    Returns:
        The module, and the lines of Python that build an equal one with timm alone.
    """
    from timm.models.resnet import BasicBlock, ResNet

    recipe, width = OWN[name], OWN[name].channels[0]
    arguments: dict[str, Any] = {"layers": recipe.layers, "channels": recipe.channels, "in_chans": channels}
    # timm widens a plain stem to 64 whatever is asked; a deep one follows stem_width, and its convolutions are replaced
    arguments |= {"stem_type": "deep", "stem_width": width // 2, "num_classes": 0, **options}
    model: Any = ResNet(BasicBlock, zero_init_last=zero_init_last, **arguments)  # type: ignore[arg-type]
    shape: dict[str, Any] = {"kernel_size": 3, "padding": 1} if small else {"kernel_size": 7, "stride": 4, "padding": 3}
    model.conv1 = _kaiming(nn.Conv2d(channels, width, bias=False, **shape))
    model.maxpool = nn.Identity()
    return model, [
        "from timm.models.resnet import BasicBlock, ResNet",
        f"model = ResNet(BasicBlock, {keywords(arguments)})",
        f"model.conv1 = torch.nn.Conv2d({channels}, {width}, {keywords(shape)}, bias=False)",
        "model.maxpool = torch.nn.Identity()",
    ]


def keywords(arguments: dict[str, Any]) -> str:
    """Arguments as they are written in a call: ``a=1, b='x'``."""
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def _three_by_three(old: nn.Conv2d, keep_weights: bool) -> tuple[nn.Conv2d, str]:
    new = _kaiming(nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False))
    margin = (old.kernel_size[0] - 3) // 2
    if keep_weights:
        with torch.no_grad():
            centre = old.weight[:, :, margin : margin + 3, margin : margin + 3]
            new.weight.copy_(centre * (old.weight.norm() / centre.norm()))
    return new, f"model.conv1 = torch.nn.Conv2d({old.in_channels}, {old.out_channels}, 3, padding=1, bias=False)"


def _kaiming(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
