"""Heads of SiT (Atito et al., arXiv 2104.03602): contrast on the class token, restoration from the patch tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.encoders import Encoder

__all__ = ["RestorationHead", "SiTClassifier", "class_and_mean", "sit_classifier_head", "sit_head"]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def sit_head(dims: Sequence[int] = (384, 4096, 4096, 256)) -> nn.Sequential:
    """Linear BN ReLU, Linear BN GELU, Linear BN without scale and shift.

    Args:
        dims: four widths from the encoder's to the embedding's.

    Raises:
        UserError: another number of widths.
    """
    if len(dims) != 4 or min(dims) < 1:
        raise UserError(f"head widths {list(dims)}: SiT's head has two hidden layers, as in 4096-4096-256")
    layers: list[nn.Module] = []
    for width_in, width_out, activation in zip(dims[:2], dims[1:3], (nn.ReLU, nn.GELU), strict=True):
        layers += [nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), activation()]
    layers += [nn.Linear(dims[2], dims[3]), nn.BatchNorm1d(dims[3], affine=False)]
    return nn.Sequential(*layers).apply(_initialise)


class RestorationHead(nn.Module):
    """Three times Linear GELU on every patch token, then a transposed convolution to pixels.

    Args:
        dim: D.
        channels: C of the images.
        patch: side of a patch p in pixels.
    """

    def __init__(self, dim: int, channels: int = 3, patch: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(dim, dim), nn.GELU())))
        self.layers.apply(_initialise)
        self.pixels = nn.ConvTranspose2d(dim, channels, patch, stride=patch)

    def forward(self, tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """(N, L, D) with L = rows columns -> (N, C, rows p, columns p).

        Raises:
            UserError: tokens that don't fill the grid.
        """
        rows, columns = grid
        if tokens.dim() != 3 or tokens.shape[1] != rows * columns:
            raise UserError(f"tokens of shape {tuple(tokens.shape)} don't fill a grid of {rows}x{columns}")
        return self.pixels(self.layers(tokens).transpose(1, 2).unflatten(2, (rows, columns)))


def class_and_mean(network: nn.Module, x: Tensor) -> Tensor:
    """[class token, mean of the patch tokens] of images: (N, C, H, W) -> (N, 2 D).

    Raises:
        UserError: a network without tokens, or without a class token.
    """
    tokens: Any = getattr(network, "tokens", None)
    whole, patches = (None, None) if tokens is None else tokens(x)
    if whole is None or patches is None:
        raise UserError("SiT's classifier needs a class token and patch tokens; take a ViT, or a linear head")
    return torch.cat([whole, patches.mean(1)], dim=1)


def sit_classifier_head(dim: int, classes: int) -> nn.Sequential:
    """(N, 2 D) -> Linear D, GELU, Linear: logits (N, classes)."""
    return nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, classes)).apply(_initialise)


class SiTClassifier(nn.Module):
    """The classifier to fine-tune: [class token, mean of the patch tokens] -> Linear GELU Linear.

    Args:
        network: a ViT with a class token.
        classes: number of classes.

    Raises:
        UserError: a network without a class token.
    """

    def __init__(self, network: Encoder, classes: int) -> None:
        super().__init__()
        if getattr(network.model, "cls_token", None) is None:
            raise UserError(f"encoder={network.spec['name']}: SiT's classifier needs a class token")
        self.encoder = network
        self.head = sit_classifier_head(network.dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        return self.head(class_and_mean(self.encoder, x))
