"""Encoders of the user's own: any module that makes features of images, under a name for the configuration of a run."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError, first_line

__all__ = ["name_module"]

PREFIX = "own:"
_GIVEN: dict[str, nn.Module] = {}


def name_module(module: nn.Module) -> str:
    """Keep a copy of a module as an encoder of this process; returns the name to ask for it by: ``own:CLASS-DIGITS``.

    The digits are of its layers and their sizes, not of its weights: the same network has the same name in any process.

    Args:
        module: (N, C, H, W) normalised images -> (N, D), or (N, D, h, w), which is averaged over the places.
    """
    shapes = [(key, tuple(value.shape)) for key, value in module.state_dict().items()]
    digits = hashlib.blake2b(f"{module}{shapes}".encode(), digest_size=4).hexdigest()
    name = f"{PREFIX}{type(module).__name__}-{digits}"
    _GIVEN[name] = copy.deepcopy(module)
    return name


class Pooled(nn.Module):
    """A module of the user's own, its features (N, D); maps are averaged over the places."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward_features(self, x: Tensor) -> Tensor:
        """What the module makes, (N, D) or (N, D, h, w)."""
        return self.module(x)

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, D) of what `forward_features` gives."""
        return features.mean((2, 3)) if features.ndim == 4 else features

    def forward(self, x: Tensor) -> Tensor:
        """(N, D)."""
        return self.forward_head(self.module(x))


def own_model(name: str, channels: int, image_size: int | None) -> tuple[Pooled, dict[str, Any]]:
    """A copy of the module of a name, with the weights that it was given with, and its ``spec``.

    Raises:
        UserError: no module of this name was given in this process, or it makes no (N, D) of such images.
    """
    if name not in _GIVEN:
        raise UserError(
            f"encoder {name} is a module of your own: open the run in Python, with selftaught.load(RUN, encoder=MODULE)"
        )
    model = Pooled(copy.deepcopy(_GIVEN[name]))
    side = image_size or 64
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            made = model(torch.zeros(2, channels, side, side))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = first_line(error)
        raise UserError(f"{name}: takes no ({channels}, {side}, {side}) images ({reason})") from error
    model.train(was)
    if not isinstance(made, Tensor) or made.ndim != 2 or len(made) != 2:
        shape = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise UserError(f"{name}: makes {shape} of 2 images; an encoder makes (2, D) or (2, D, h, w)")
    spec = {"name": name, "channels": channels, "image_size": image_size, "stem": "standard", "kwargs": {}}
    return model, spec | {"dim": int(made.shape[1])}


def begin_anew(module: nn.Module) -> None:
    """Fresh weights for every layer of a user's own modules that knows how to make them."""
    for part in module.modules():
        if isinstance(part, Pooled):
            for layer in part.modules():
                if callable(reset := getattr(layer, "reset_parameters", None)):
                    reset()
