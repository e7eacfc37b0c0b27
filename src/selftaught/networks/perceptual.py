"""Feature extractors that need no ImageNet weights: a small random network, or the encoder of a run of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selftaught._reading import json_of
from selftaught.errors import UserError
from selftaught.networks.encoders import build
from selftaught.networks.frozen import Frozen

__all__ = ["random_features", "run_features"]

_WIDTHS = (32, 64, 64)


class _Maps(nn.Module):
    """An encoder's feature map of images in [-1, 1], as a list of one."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Any, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", mean[:, None, None], persistent=False)
        self.register_buffer("std", std[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.encoder.maps(((image + 1) / 2 - self.mean) / self.std)]


class _Random(nn.Sequential):
    def forward(self, image: Tensor) -> list[Tensor]:
        return [super().forward(image)]  # type: ignore[no-untyped-call]


def random_features(channels: int = 3) -> Frozen:
    """Three 3x3 convolutions with ReLU, the last two of stride 2, with the same random weights everywhere.

    Random features tell textures apart, only less well than learnt ones.

    Args:
        channels: of the images, any number.

    Returns:
        ``Frozen``: images (N, C, H, W) in [-1, 1] to a list of one map (N, 64, H/4, W/4).
    """
    generator = torch.Generator().manual_seed(0)
    layers: list[nn.Module] = []
    for k, width in enumerate(_WIDTHS):
        layer = nn.Conv2d(channels, width, 3, stride=1 if k == 0 else 2, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        layers += [layer, nn.ReLU()]
        channels = width
    return Frozen(_Random(*layers), name="three convolutions with random weights")


def run_features(path: str | Path, channels: int = 3) -> Frozen:
    """The feature map of the encoder that a run of one's own has learnt.

    Args:
        path: the run's folder.
        channels: of the images that it will be given.

    Returns:
        ``Frozen``: images (N, C, H, W) in [-1, 1] to a list of one map.

    Raises:
        UserError: no finished run there, one that has no image encoder, or one of other channels.
    """
    folder = Path(path)
    try:
        card = json_of(folder / "encoder.json")
        weights = load_file(folder / "encoder.safetensors")
    except FileNotFoundError:
        raise UserError(f"{folder}: no finished run there to take features from") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: damaged ({error}); train again, or name another run") from None
    if card.get("output") != "embedding" or card.get("modality") != "image":
        raise UserError(f"{folder}: a run of {card.get('method')} has no image encoder to take features from")
    if card["channels"] != channels:
        raise UserError(f"{folder}: its encoder sees {card['channels']} channels, the images have {channels}")
    encoder = build(card["build"])
    encoder.load_state_dict(weights)
    mean, std = (torch.tensor(card["normalise"][name]) for name in ("mean", "std"))
    return Frozen(_Maps(encoder, mean, std), name=f"encoder of the run {folder.name}")
