"""What a vision transformer looks at and how it tells parts apart, as pictures: attention maps, colours of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from selftaught.networks.encoders import Encoder
from selftaught.networks.vit_adapters import Adapted

__all__ = ["attention_maps", "has_tokens", "token_colours"]


def has_tokens(network: nn.Module) -> bool:
    """Whether a network is an image encoder with a class or patch tokens (a ViT of timm, plain or adapted)."""
    from timm.models.vision_transformer import VisionTransformer

    plain = network.base if isinstance(network, Adapted) else network
    return isinstance(plain, Encoder) and isinstance(plain.model, VisionTransformer)


@torch.no_grad()
def attention_maps(network: Encoder | Adapted, x: Tensor) -> Tensor:
    """What the class token of the last block looks at (without one: the mean of the patches), head by head.

    Args:
        network: a ViT, plain or adapted.
        x: (N, C, H, W), normalised.

    Returns:
        (N, heads, H, W) in [0, 1]: bilinear between patches, each map divided by its largest weight.

    Raises:
        UserError: the network has no tokens.
    """
    weights = network.attention(x).float()
    maps = interpolate(_on_grid(network, weights, x), x.shape[2:], mode="bilinear")
    return maps / maps.amax((2, 3), keepdim=True).clamp_min(1e-12)


@torch.no_grad()
def token_colours(network: Encoder | Adapted, x: Tensor) -> Tensor:
    """The three main components of all images' patch tokens as red, green and blue: like parts have like colours.

    The picture that DINOv2 (Oquab et al., arXiv 2304.07193) is known by. The components are those of the whole
    batch's tokens, so that colours mean the same in all images; each is spread from its 2nd to its 98th percentile.

    Args:
        network: a ViT, plain or adapted.
        x: (N, C, H, W), normalised.

    Returns:
        (N, 3, H, W) in [0, 1].

    Raises:
        UserError: the network has no tokens.
    """
    tokens = network.tokens(x)[1].float()
    rows = tokens.flatten(0, 1)
    rows = rows - rows.mean(0)
    axes = torch.linalg.svd(rows, full_matrices=False).Vh[:3]
    axes = axes * torch.sign(axes.gather(1, axes.abs().argmax(1, keepdim=True)))  # a sign that doesn't depend on chance
    parts = rows @ axes.T
    low, high = torch.quantile(parts, torch.tensor([0.02, 0.98], device=x.device), dim=0)
    colours = ((parts - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    grid = _on_grid(network, colours.view(*tokens.shape[:2], 3).transpose(1, 2), x)
    return interpolate(grid, x.shape[2:], mode="nearest")


def _on_grid(network: Encoder | Adapted, values: Tensor, x: Tensor) -> Tensor:
    """(N, K, L) values of patches on their grid: (N, K, rows, columns)."""
    patch: Any = network.patch
    rows, columns = (-(-side // p) for side, p in zip(x.shape[2:], patch, strict=True))
    return values.reshape(*values.shape[:2], rows, columns)
