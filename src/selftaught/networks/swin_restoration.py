"""Swin transformers that restore images (SwinIR, arXiv 2108.10257): window attention, every pixel a token.

block   x + conv(layer_n(... layer_1(x)))            layers alternate windows and windows shifted by half a side
body    x + conv(norm(block_m(... block_1(norm(x)))))
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = [
    "ResidualSwinBlock",
    "SwinBody",
    "SwinLayer",
    "WindowAttention",
    "join_windows",
    "part_windows",
    "shift_mask",
]

_HIDDEN = -100.0
_KEPT_MASKS = 8


def part_windows(x: Tensor, side: int) -> Tensor:
    """(N, H, W, C) to (N windows, side^2, C), row by row; H and W are multiples of the side."""
    n, height, width, channels = x.shape
    parts = x.view(n, height // side, side, width // side, side, channels).transpose(2, 3)
    return parts.reshape(-1, side * side, channels)


def join_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """The way back of :func:`part_windows`: (N windows, side^2, C) to (N, H, W, C)."""
    parts = windows.view(-1, height // side, width // side, side, side, windows.shape[-1]).transpose(2, 3)
    return parts.reshape(-1, height, width, windows.shape[-1])


def shift_mask(height: int, width: int, side: int, shift: int) -> Tensor:
    """What a shifted window may not see, because it came round from the other border: 0, or -100 where hidden.

    Args:
        height: of the map, a multiple of the side.
        width: as well.
        side: of the windows.
        shift: by how much the map was rolled up and to the left.

    Returns:
        (windows, side^2, side^2), to be added to the attention's logits.
    """
    regions = []
    for length in (height, width):
        place = torch.arange(length)
        regions.append((place >= length - side).long() + (place >= length - shift).long())
    region = 3 * regions[0][:, None] + regions[1][None, :]
    ids = part_windows(region[None, :, :, None], side)[..., 0]
    return (ids[:, None, :] != ids[:, :, None]).float() * _HIDDEN


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learnt bias for every relative position.

    Args:
        dim: width, a multiple of the heads.
        window: side of a window.
        heads: number of heads.

    Raises:
        UserError: a width that the heads don't divide.
    """

    places: Tensor

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise UserError(f"width {dim} isn't a multiple of {heads} heads")
        self.window, self.heads = window, heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty((2 * window - 1) ** 2, heads), std=0.02))
        at = torch.cartesian_prod(torch.arange(window), torch.arange(window))
        apart = at[:, None] - at[None, :] + window - 1
        self.register_buffer("places", apart[..., 0] * (2 * window - 1) + apart[..., 1], persistent=False)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N windows, L, D) to the same; ``mask`` (windows, L, L) is added to the logits."""
        q, k, v = self.qkv(windows).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.places].permute(2, 0, 1)[None].to(q.dtype)
        if mask is None:
            return self.proj(_attended(q, k, v, bias).transpose(1, 2).flatten(2))
        bias = bias + mask[:, None].to(q.dtype)
        q, k, v = (part.unflatten(0, (-1, mask.shape[0])) for part in (q, k, v))
        found = _attended(q, k, v, bias[None])
        return self.proj(found.flatten(0, 1).transpose(1, 2).flatten(2))


class SwinLayer(nn.Module):
    """x + attention(norm(x)) in windows, then x + MLP(norm(x)); (N, H, W, D) to the same.

    Args:
        dim: D.
        heads: of the attention.
        window: side of the windows.
        shift: by how much the map is rolled first, 0 or half a window.
        mlp_ratio: width of the MLP's hidden layer in D.
        drop_path: chance that a branch is left out for a sample in training.
    """

    def __init__(
        self, dim: int, heads: int, *, window: int = 8, shift: int = 0, mlp_ratio: float = 2.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= shift < window:
            raise UserError(f"shift={shift}: from 0 to below the window of {window}")
        self.window, self.shift, self.drop_path = window, shift, drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, window, heads)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self._masks: dict[Any, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """H and W are multiples of the window."""
        height, width = x.shape[1:3]
        inner = self.norm1(x)
        mask = None
        if self.shift:
            inner = inner.roll((-self.shift, -self.shift), (1, 2))
            mask = self._mask(height, width, x.device)
        inner = self.attention(part_windows(inner, self.window), mask)
        inner = join_windows(inner, self.window, height, width)
        if self.shift:
            inner = inner.roll((self.shift, self.shift), (1, 2))
        x = x + self._kept(inner)
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        drawn = torch.rand(len(branch), 1, 1, 1, device=branch.device, dtype=branch.dtype) < keep
        return branch * drawn / keep

    def _mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """The mask of a size, kept for the next image of it."""
        if torch.compiler.is_compiling():
            return shift_mask(height, width, self.window, self.shift).to(device)
        key = (height, width, device)
        if key not in self._masks:
            if len(self._masks) >= _KEPT_MASKS:
                self._masks.clear()
            self._masks[key] = shift_mask(height, width, self.window, self.shift).to(device)
        return self._masks[key]


class ResidualSwinBlock(nn.Module):
    """RSTB: some Swin layers and a 3x3 convolution, around which x is added; (N, D, H, W) to the same.

    Args:
        dim: D.
        depth: layers; every second one is shifted by half a window.
        heads: of their attention.
        window: side of the windows.
        mlp_ratio: of the layers.
        drop_path: chance of each layer.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        *,
        window: int = 8,
        mlp_ratio: float = 2.0,
        drop_path: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        chances = drop_path or (0.0,) * depth
        self.layers = nn.ModuleList(
            SwinLayer(dim, heads, window=window, shift=k % 2 * (window // 2), mlp_ratio=mlp_ratio, drop_path=chances[k])
            for k in range(depth)
        )
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """H and W are multiples of the window."""
        tokens = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return x + self.conv(tokens.permute(0, 3, 1, 2))


class SwinBody(nn.Module):
    """SwinIR's deep part: normalised tokens through residual Swin blocks, a last norm and convolution, x added.

    Maps of any size are mirrored to a multiple of the window, and cropped again.

    Args:
        dim: width D, 240 in RRFormer.
        blocks: residual Swin blocks.
        depth: layers of each.
        heads: of their attention.
        window: side of the windows.
        mlp_ratio: of the layers.
        drop_path: of the last layer; it grows evenly from 0 at the first one.
    """

    def __init__(
        self,
        dim: int = 240,
        *,
        blocks: int = 5,
        depth: int = 6,
        heads: int = 6,
        window: int = 8,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.window = window
        chances = [drop_path * k / max(1, blocks * depth - 1) for k in range(blocks * depth)]
        self.norm_before, self.norm_after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            ResidualSwinBlock(
                dim, depth, heads, window=window, mlp_ratio=mlp_ratio,
                drop_path=tuple(chances[k * depth : (k + 1) * depth]),
            )
            for k in range(blocks)
        )  # fmt: skip
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, H, W) to the same.

        Raises:
            UserError: a map too small to be mirrored to one window.
        """
        height, width = x.shape[2:]
        down, right = -height % self.window, -width % self.window
        if down >= height or right >= width:
            raise UserError(
                f"a map of {width} x {height} is too small for windows of {self.window}; take larger images"
            )
        x = F.pad(x, (0, right, 0, down), mode="reflect")
        found = self.norm_before(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for block in self.blocks:
            found = block(found)
        found = self.norm_after(found.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (x + self.conv(found))[:, :, :height, :width]


def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v; in steps where the network is exported: fused, it has another layout."""
    if torch.compiler.is_exporting():
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
