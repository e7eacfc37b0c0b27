"""Small text-to-image flow models in pixel space that can take a reference picture: a U-Net and a transformer.

All have one face, ``velocity = flow(x_t, t, text, ref)``, ``encode`` and ``decode``; so has the adapter of a pretrained
model in :mod:`selftaught.networks.flow_pipeline`. Without a reference they make pictures of texts.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, cat, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from selftaught.errors import UserError
from selftaught.networks.words import WordPool

__all__ = ["Flow", "FlowDiT", "FlowUNet", "add_lora", "flow_network", "time_embedding"]


def time_embedding(t: Tensor, width: int = 64) -> Tensor:
    """(N,) times in [0, 1] -> (N, width): sines and cosines of 1000 t at falling frequencies."""
    half = width // 2
    speeds = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = 1000 * t.float()[:, None] * speeds
    return cat([angles.cos(), angles.sin()], dim=1)


class Flow(nn.Module):
    """Base of flow models: v = F(x_t, t, text, ref) + g_x x_t + g_r ref, gates g by time and text from zero on.

    The gates let a small network pass pixels on exactly: with v = (x_t - y) / t the clean picture is the reference y.

    Args:
        channels: of a picture.
        size: its side in pixels.
        patch: pixels along each side that are taken together.
        width: of the network.
        vocabulary: of the texts' tokens.
        context: longest text in tokens.
        text_width: of a text's feature.

    Raises:
        UserError: a size that the patch does not divide.
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        *,
        patch: int = 2,
        width: int = 32,
        vocabulary: int = 1024,
        context: int = 32,
        text_width: int = 64,
    ) -> None:
        super().__init__()
        if size % patch or size < patch:
            raise UserError(f"image_size={size}: patches of {patch} pixels must divide it")
        self.channels, self.size, self.patch, self.width = channels, size, patch, width
        self.latent = (channels, size, size)
        self.text = WordPool(vocabulary, context=context, width=text_width)
        self.condition = nn.Sequential(
            nn.Linear(64 + text_width, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width)
        )
        self.gates = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, 2 * channels))
        nn.init.zeros_(self.gates[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.gates[1].bias)  # type: ignore[arg-type]

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1] as the flow sees them: as they are."""
        return images

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, with gradient."""
        return latents

    def forward(self, x_t: Tensor, t: Tensor, text: Tensor, ref: Tensor | None = None) -> Tensor:
        """The velocity.

        Args:
            x_t: (N, C, size, size).
            t: (N,) in [0, 1].
            text: tokens (N, L).
            ref: clean reference pictures (N, C, size, size), or None.

        Raises:
            UserError: pictures of another size.
        """
        if x_t.shape[1:] != self.latent or (ref is not None and ref.shape != x_t.shape):
            got = tuple(x_t.shape) if ref is None else (*x_t.shape, "and", *ref.shape)
            raise UserError(f"the flow takes pictures (N, {', '.join(map(str, self.latent))}), got {got}")
        c = self.condition(cat([time_embedding(t), self.text(text)], dim=1))
        gates = self.gates(c).view(len(x_t), 2, self.channels, 1, 1)
        v = self.inner(x_t, ref, c) + gates[:, 0] * x_t
        return v if ref is None else v + gates[:, 1] * ref

    def inner(self, x_t: Tensor, ref: Tensor | None, c: Tensor) -> Tensor:
        """What the network adds; ``c`` (N, 2 width) says time and text."""
        raise TypeError(f"{type(self).__name__} has no network")


class _Residual(nn.Module):
    """Two convolutions, scaled and shifted by the condition; the second starts at zero."""

    def __init__(self, width: int, condition: int) -> None:
        super().__init__()
        groups = math.gcd(8, width)
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.film = nn.Linear(condition, 2 * width)
        for layer in (self.film, self.conv2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(N, W, h, w) -> the same shape."""
        scale, shift = self.film(c)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))


class FlowUNet(Flow):
    """Convolutions on two scales; see :class:`Flow`.

    The reference comes in as further channels whose weights start at zero, so that at first it changes nothing.
    """

    def __init__(self, channels: int = 3, size: int = 32, **options: Any) -> None:
        super().__init__(channels, size, **options)
        if size % (2 * self.patch):
            raise UserError(f"image_size={size}: the U-Net halves it, so that {2 * self.patch} must divide it")
        w, depth = self.width, channels * self.patch**2
        self.enter, self.enter_ref = nn.Conv2d(depth, w, 3, padding=1), nn.Conv2d(depth, w, 3, padding=1, bias=False)
        nn.init.zeros_(self.enter_ref.weight)
        side = size // self.patch
        self.places = nn.Parameter(0.1 * torch.randn(1, w, side, side))
        self.coarse_places = nn.Parameter(0.1 * torch.randn(1, 2 * w, side // 2, side // 2))
        self.fine, self.down = _Residual(w, 2 * w), nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.coarse = nn.ModuleList(_Residual(2 * w, 2 * w) for _ in range(2))
        self.up, self.join = nn.Conv2d(2 * w, w, 1), nn.Conv2d(2 * w, w, 1)
        self.last, self.norm = _Residual(w, 2 * w), nn.GroupNorm(math.gcd(8, w), w)
        self.leave = nn.Conv2d(w, depth, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def inner(self, x_t: Tensor, ref: Tensor | None, c: Tensor) -> Tensor:
        """(N, C, size, size)."""
        h = self.enter(F.pixel_unshuffle(x_t, self.patch)) + self.places
        if ref is not None:
            h = h + self.enter_ref(F.pixel_unshuffle(ref, self.patch))
        fine = self.fine(h, c)
        coarse = self.down(fine) + self.coarse_places
        for block in self.coarse:
            coarse = block(coarse, c)
        up = F.interpolate(self.up(coarse), scale_factor=2.0, mode="nearest")
        h = self.last(self.join(cat([fine, up], dim=1)), c)
        return F.pixel_shuffle(self.leave(F.silu(self.norm(h))), self.patch)


class _DiTBlock(nn.Module):
    """Attention and MLP, their norms scaled, shifted and gated by the condition, from the identity on (adaLN-zero)."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition, 6 * width))
        nn.init.zeros_(self.modulation[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.modulation[1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(N, L, W) -> the same shape."""
        a, b, g, d, e, f = self.modulation(c)[:, None].chunk(6, dim=2)
        h = self.norm1(x) * (1 + a) + b
        x = x + g * self.attention(h, h, h, need_weights=False)[0]
        return x + f * self.mlp(self.norm2(x) * (1 + d) + e)


class FlowDiT(Flow):
    """A transformer of patches as in the paper: the reference's tokens stand behind the noisy ones; see :class:`Flow`.

    Both have the same positions, so that places find each other; a vector of its own tells the reference apart.

    Args:
        channels: of a picture.
        size: its side in pixels.
        layers: blocks.
        heads: of each block.
        **options: of :class:`Flow`.
    """

    def __init__(self, channels: int = 3, size: int = 32, *, layers: int = 4, heads: int = 4, **options: Any) -> None:
        super().__init__(channels, size, **({"patch": 4, "width": 96} | options))
        w, depth, side = self.width, channels * self.patch**2, size // self.patch
        if w % heads:
            raise UserError(f"width={w}: the {heads} heads of the transformer must divide it")
        self.enter, self.enter_ref = nn.Conv2d(depth, w, 1), nn.Conv2d(depth, w, 1)
        self.positions = nn.Parameter(torch.randn(1, side**2, w) * 0.02)
        self.reference = nn.Parameter(torch.randn(1, 1, w) * 0.02)
        self.told = nn.Linear(2 * w, w)
        self.blocks = nn.ModuleList(_DiTBlock(w, heads, 2 * w) for _ in range(layers))
        self.norm, self.leave = nn.LayerNorm(w), nn.Linear(w, depth)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def inner(self, x_t: Tensor, ref: Tensor | None, c: Tensor) -> Tensor:
        """(N, C, size, size)."""
        x = self.enter(F.pixel_unshuffle(x_t, self.patch)).flatten(2).transpose(1, 2) + self.positions
        count = x.shape[1]
        parts = [x, self.told(c)[:, None]]
        if ref is not None:
            seen = self.enter_ref(F.pixel_unshuffle(ref, self.patch)).flatten(2).transpose(1, 2)
            parts.append(seen + self.positions + self.reference)
        h = cat(parts, dim=1)
        for block in self.blocks:
            h = block(h, c)
        side = self.size // self.patch
        patches = self.leave(self.norm(h[:, :count])).transpose(1, 2).unflatten(2, (side, side))
        return F.pixel_shuffle(patches, self.patch)


def flow_network(kind: Literal["unet", "dit"], channels: int, size: int, **options: Any) -> Flow:
    """A small flow model by name.

    Raises:
        UserError: an unknown name, a size that does not fit.
    """
    if kind not in ("unet", "dit"):
        raise UserError(f"base={kind}: it may be unet, dit, or diffusers:NAME")
    return FlowUNet(channels, size, **options) if kind == "unet" else FlowDiT(channels, size, **options)


# ---- low-rank changes ------------------------------------------------------------------------------------------------
class _LowRank(nn.Module):
    """W + (alpha / r) B A of a weight of any number of axes, B from zero on (Hu et al. 2021, arXiv 2106.09685)."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        self.a = nn.Parameter(nn.init.kaiming_uniform_(weight.new_empty(rank, columns), a=5**0.5))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        return weight + self.scale * (self.b @ self.a).view_as(weight)


def add_lora(network: nn.Module, rank: int, alpha: float = 16.0) -> int:
    """Freeze a network and put LoRA on every linear and convolutional layer; returns how many parameters are trained.

    Args:
        network: changed in place; the weights' values stay under ``parametrizations.weight.original``.
        rank: r.
        alpha: the product is scaled by alpha / r.

    Raises:
        UserError: a rank below 1, a network without such layers.
    """
    if rank < 1:
        raise UserError(f"lora={rank}: the rank is 1 or more")
    network.requires_grad_(False)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    layers = [m for m in layers if not isinstance(m, nn.modules.linear.NonDynamicallyQuantizableLinear)]
    if not layers:
        raise UserError("lora: the network has no linear and no convolutional layer")
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _LowRank(layer.weight, rank, alpha))
        layer.parametrizations.weight.original.requires_grad_(False)  # type: ignore[union-attr]
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
