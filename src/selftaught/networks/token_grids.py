"""Frozen encoders that say what lies where: images in [0, 1] to a grid of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught.errors import UserError, first_line
from selftaught.networks.conditional_autoencoder import ConditionalAutoencoder
from selftaught.networks.frozen import Frozen
from selftaught.networks.hub import hub
from selftaught.networks.open_clips import OPEN_CLIP, open_clip_model, open_clip_pixels
from selftaught.networks.perceptual import run_features

__all__ = ["TokenGrid", "frozen_tokens"]

TIMM = "timm:"
CONVOLUTIONAL = 224
"""Pixels that images are shown to convolutional networks of open_clip at."""


class TokenGrid(nn.Module):
    """A frozen network as a map of tokens.

    Args:
        network: images as it wants them to a map (N, F, h, w).
        mean, std: of the pixels that it was trained with, per channel.
        side: what images are resized to; 0 leaves them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], side: int = 0) -> None:
        super().__init__()
        self.network, self.side = network, side
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (N, P, F) in raster order of images (N, C, H, W) in [0, 1], and their rows and columns."""
        if x.shape[1] == 1 and len(self.mean) == 3:
            x = x.expand(-1, 3, -1, -1)
        if self.side and tuple(x.shape[2:]) != (self.side, self.side):
            x = interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        found = self.network((x - self.mean) / self.std)
        return found.flatten(2).transpose(1, 2), (int(found.shape[2]), int(found.shape[3]))


def frozen_tokens(name: str | ConditionalAutoencoder, channels: int = 3) -> Frozen:
    """A frozen encoder by its name.

    Args:
        name: ``open_clip:ARCHITECTURE/WEIGHTS`` (a ViT: patch tokens after the last norm; a ConvNeXt: the last map
            after the norm, before pooling), ``timm:NAME`` with timm's weights, the folder of a finished run on images,
            or a trained :class:`ConditionalAutoencoder`.
        channels: of the images.

    Returns:
        ``Frozen`` :class:`TokenGrid`.

    Raises:
        UserError: no such network, weights out of reach, images of other channels than it sees.
    """
    if isinstance(name, ConditionalAutoencoder):
        return Frozen(TokenGrid(_Features(name), [0.0] * channels, [1.0] * channels, name.side), name="autoencoder")
    if name.startswith(OPEN_CLIP):
        _check_colours(name, channels)
        visual, side = _open_clip(name)
        mean, std = open_clip_pixels(name)
        return Frozen(TokenGrid(visual, list(mean), list(std), side), name=name)
    if name.startswith(TIMM):
        _check_colours(name, channels)
        return _timm(name)
    if Path(name).is_dir():
        features = run_features(name, channels)
        return Frozen(TokenGrid(_First(features.module), [0.5] * channels, [0.5] * channels), name=features.name)
    raise UserError(f"{name}: no encoder; give open_clip:ARCHITECTURE/WEIGHTS, timm:NAME, or the folder of a run")


def _check_colours(name: str, channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(f"{name} sees colours, the images have {channels} channels; give the folder of a run on them")


class _Features(nn.Module):
    def __init__(self, autoencoder: ConditionalAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor) -> Tensor:
        return self.autoencoder.maps(x)


class _First(nn.Module):
    """The first of a network's maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[0]


class _TrunkMap(nn.Module):
    """The last map of a timm network; where its norm stands behind the pooling, as in ConvNeXt, it is applied first."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        trunk: Any = self.trunk
        found = trunk.forward_features(x)
        if found.dim() == 3:
            return _on_grid(found[:, int(getattr(trunk, "num_prefix_tokens", 0)) :])
        if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
            found = found.permute(0, 3, 1, 2)
        norm = getattr(getattr(trunk, "head", None), "norm", None)
        return found if norm is None else norm(found)


class _CLIPTokens(nn.Module):
    """Patch tokens of open_clip's own vision transformer, after its last norm."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        visual.output_tokens = True

    def forward(self, x: Tensor) -> Tensor:
        return _on_grid(self.visual(x)[1])


def _on_grid(tokens: Tensor) -> Tensor:
    side = round(tokens.shape[1] ** 0.5)
    if side * side != tokens.shape[1]:
        raise UserError(f"{tokens.shape[1]} tokens lie on no square grid; take an encoder of square images")
    return tokens.transpose(1, 2).unflatten(2, (side, side))


def _open_clip(name: str) -> tuple[nn.Module, int]:
    visual = open_clip_model(name).visual
    size = visual.image_size
    side = int(size[0] if isinstance(size, tuple | list) else size)
    if hasattr(visual, "trunk"):  # a convolutional one takes any size: 7 x 7 tokens of 224 pixels, as in the paper
        return _TrunkMap(visual.trunk), side if hasattr(visual.trunk, "patch_embed") else CONVOLUTIONAL
    if hasattr(visual, "transformer"):
        return _CLIPTokens(visual), side
    raise UserError(
        f"{name} has neither a vision transformer nor a network of timm's; take ViT-B-16 or convnext_base_w"
    )


def _timm(name: str) -> Frozen:
    import timm

    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        raise UserError(f"{name}: timm has no model {plain!r}")
    try:
        with hub():
            model = timm.create_model(plain, pretrained=True, num_classes=0)
    except Exception as error:
        reason = first_line(error, 100)
        raise UserError(f"{name} can't be had here ({reason}); go online once") from error
    known: Any = model.pretrained_cfg
    side = int(known["input_size"][1])
    return Frozen(TokenGrid(_TrunkMap(model), list(known["mean"]), list(known["std"]), side), name=name)
