"""The hybrid sparse U-Net of Masked Scene Modeling: sparse convolutions everywhere, attention at the coarse levels.

HUNet, arXiv 2504.06719; layers as in the authors' phermosilla/msm. Five levels, edges 2 cm x 2^l, 32-64-128-256-384
channels on the way down and 384-256-128-96-64 on the way up; the five outputs on the way up are the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, scaled_dot_product_attention

from selftaught.errors import UserError
from selftaught.networks.curves import CURVES, curve_code
from selftaught.networks.sparse import InverseConv, StridedConv, SubmanifoldConv, Voxels

__all__ = ["CurveAttention", "HUNet", "RMSNorm", "SparseResBlock", "SparseTransformerBlock", "window_attention"]

_ENTRIES = 1 << 18
"""Weights of attention that stand at once where they are dropped: 1 MB in float32 stays in a processor's cache."""

_ROWS = 2048
"""Rows whose hidden features of a feed-forward part stand at once."""


class RMSNorm(nn.Module):
    """y = scale * x / (||x|| / sqrt(d) + eps), eps outside the root: 0 stays 0.

    Args:
        dim: d.
        eps: default 1e-4.
    """

    def __init__(self, dim: int, eps: float = 1e-4) -> None:
        super().__init__()
        self.scale, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """(V, d) -> (V, d); ``gain`` (d,) is multiplied with the scale."""
        return _Normed.apply(x, self.scale if gain is None else self.scale * gain, self.eps)


class _Normed(torch.autograd.Function):
    """scale * x / (||x|| / sqrt(d) + eps) in float32 or better, of which x and the divisors alone are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, scale.dtype))
        divisor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).mul_(x.shape[-1] ** -0.5).add_(eps)
        ctx.save_for_backward(x, scale, divisor)
        ctx.eps = eps
        return (wide / divisor).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, scale, divisor = ctx.saved_tensors
        unit, given = x / divisor, grads[0] * scale
        # the size's own gradient is x / (d size); where x is 0 it is 0
        size = divisor - ctx.eps
        along = (given * unit).mean(-1, keepdim=True) / size.where(size > 0, torch.ones_like(size))
        to_x = given / divisor - unit * along * (size > 0)
        return to_x.to(x.dtype), (grads[0] * unit).sum(0), None


class DropRows(nn.Module):
    """Drop path: whole rows are set to 0 with chance p while training, the others divided by 1 - p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(V, C) -> (V, C)."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(len(x), 1, device=x.device) >= self.p
        return x * keep / (1 - self.p)


class SparseResBlock(nn.Module):
    """x + drop(gamma * norm(conv(gelu(conv(norm(x)))))), submanifold convolutions of kernel 3.

    Args:
        dim: channels.
        drop_path: chance of a row's branch to be dropped.
        gamma: initial scale of the branch (0.1).
    """

    def __init__(self, dim: int, drop_path: float = 0.0, gamma: float = 0.1) -> None:
        super().__init__()
        self.before, self.after = RMSNorm(dim), RMSNorm(dim)
        self.first, self.second = SubmanifoldConv(dim, dim), SubmanifoldConv(dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), gamma))
        self.drop = DropRows(drop_path)

    def forward(self, x: Tensor, voxels: Voxels, curve: str = "z") -> Tensor:
        """(V, C) -> (V, C)."""
        branch = self.second(gelu(self.first(self.before(x), voxels)), voxels)
        return x + self.drop(self.after(branch, self.gamma))


def window_attention(q: Tensor, k: Tensor, v: Tensor, reach: int = 512, dropout: float = 0.0) -> Tensor:
    """Attention of a row of tokens in which place i sees the places i - reach .. i + reach.

    Args:
        q: (heads, n, d).
        k: (heads, n, d).
        v: (heads, n, d).
        reach: to the left and to the right; half the window.
        dropout: of the weights.

    Returns:
        (heads, n, d). Memory is linear in n and no weight is kept: rows go block by block, and weights with dropout,
        for which there is no fused kernel on a CPU, are computed again in the backward pass.
    """
    n = q.shape[1]
    if dropout and not q.is_cuda:
        seed = int(torch.randint(1 << 62, (), device="cpu"))
        return _DroppedAttention.apply(q, k, v, reach, dropout, seed)
    if n <= reach + 1:
        return scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout)[0]
    found, masks = [], {}
    for start, stop, low, high in _bands(n, reach, max(1, reach // 2)):
        part = (q[None, :, start:stop], k[None, :, low:high], v[None, :, low:high])
        shape = start - low, stop - low, high - low  # of one mask for all blocks but those at the ends: it is kept
        if shape not in masks:
            masks[shape] = _band(*shape, reach, q)
        found.append(scaled_dot_product_attention(*part, attn_mask=masks[shape], dropout_p=dropout)[0])
    return torch.cat(found, 1)


def _bands(n: int, reach: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
    """Blocks of rows, start and stop, and of the columns that they see, low and high."""
    for start in range(0, n, rows):
        yield start, min(start + rows, n), max(0, start - reach), min(n, start + rows + reach)


def _band(start: int, stop: int, columns: int, reach: int, like: Tensor) -> Tensor:
    """(stop - start, columns): 0 where a row, itself the column of its number, lies within reach, else -inf."""
    places = torch.arange(columns, device=like.device)
    far = (places[start:stop, None] - places).abs() > reach
    return torch.zeros(far.shape, dtype=like.dtype, device=like.device).masked_fill_(far, -torch.inf)


class _DroppedAttention(torch.autograd.Function):
    """Attention within a band whose weights are dropped with chance p and else divided by 1 - p; none is kept."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, reach: int, dropout: float, seed: int) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.options = reach, dropout, seed
        out = torch.empty_like(v)
        for (start, stop, low, high), weights, scale in _weights(q, k, reach, dropout, seed):
            out[:, start:stop] = weights.mul_(scale).to(v.dtype) @ v[:, low:high]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v = ctx.saved_tensors
        grad, to = grads[0], [torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in (q, k, v)]
        for (start, stop, low, high), weights, scale in _weights(q, k, *ctx.options):
            given = grad[:, start:stop]
            to_scores = (given @ v[:, low:high].mT).to(weights.dtype).mul_(scale)
            to[2][:, low:high] += (weights * scale).to(v.dtype).mT @ given
            to_scores.mul_(weights)
            to_scores.sub_(weights.mul_(to_scores.sum(-1, keepdim=True))).mul_(q.shape[-1] ** -0.5)
            to[0][:, start:stop] = to_scores.to(q.dtype) @ k[:, low:high]
            to[1][:, low:high] += to_scores.to(q.dtype).mT @ q[:, start:stop]
        return *(t.to(q.dtype) for t in to), None, None, None


def _weights(
    q: Tensor, k: Tensor, reach: int, dropout: float, seed: int
) -> Iterator[tuple[tuple[int, int, int, int], Tensor, Tensor]]:
    """Block by block: its rows and columns, the weights (heads, r, c), and 0 or 1 / (1 - p) for each of them.

    The same ones for the same seed. Four weights share a random number of 64 bits: a weight is dropped where its 16
    lie below 65,536 p.
    """
    heads, n, d = q.shape
    generator, limit = torch.Generator(q.device).manual_seed(seed), min(round(dropout * 65_536), 65_535)
    for start, stop, low, high in _bands(n, reach, max(1, _ENTRIES // (heads * min(n, 2 * reach + 1)))):
        band = _band(start - low, stop - low, high - low, reach, q)
        scores = torch.baddbmm(band, q[:, start:stop], k[:, low:high].mT, alpha=d**-0.5)
        weights = torch.softmax(scores, -1, dtype=torch.promote_types(q.dtype, torch.float32))
        drawn = torch.empty(-(-weights.numel() // 4), dtype=torch.int64, device=q.device)
        drawn.random_(-(1 << 63), None, generator=generator)
        kept = drawn.view(torch.int16)[: weights.numel()].view_as(weights) >= limit - 32_768
        yield (start, stop, low, high), weights, kept.to(weights.dtype).mul_(65_536 / (65_536 - limit))


class CurveAttention(nn.Module):
    """Multi-head attention within a window along a space-filling curve, scene by scene; no biases.

    Args:
        dim: channels.
        heads: divides ``dim``.
        window: tokens seen, half of them on either side (1024).
        dropout: of the attention weights (0.1).
    """

    def __init__(self, dim: int, heads: int, window: int = 1024, dropout: float = 0.1) -> None:
        super().__init__()
        if dim % heads:
            raise UserError(f"{dim} channels don't divide into {heads} heads")
        self.heads, self.window, self.dropout = heads, window, dropout
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, voxels: Voxels, curve: str = "z") -> Tensor:
        """(V, C) -> (V, C)."""
        order, ends = voxels.kept(curve, lambda: _order(voxels, curve))
        q, k, v = self.qkv(x[order]).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3).unbind(0)
        dropout = self.dropout if self.training else 0.0
        starts = [0, *ends[:-1]]
        parts = [
            window_attention(q[:, a:b], k[:, a:b], v[:, a:b], self.window // 2, dropout)
            for a, b in zip(starts, ends, strict=True)
            if b > a
        ]
        mixed = torch.cat(parts, 1).transpose(0, 1).flatten(1)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return self.out(mixed[back])


def _order(voxels: Voxels, curve: str) -> tuple[Tensor, list[int]]:
    """The voxels along a curve, scene after scene, and where each scene ends."""
    place = voxels.place[:, 1:]
    code = curve_code(place - place.amin(0).clamp(max=0), voxels.place[:, 0], curve)
    return code.argsort(), voxels.offset.tolist()


class GEGLU(nn.Module):
    """C -> 8C in halves a, b; GELU(a) * b; 4C -> C; no biases. The hidden features are not kept."""

    def __init__(self, dim: int, ratio: int = 4) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(dim, 2 * ratio * dim, bias=False), nn.Linear(ratio * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(V, C) -> (V, C)."""
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        return _GEGLU.apply(*(t.to(kind) for t in (x, self.up.weight, self.down.weight)))


class _GEGLU(torch.autograd.Function):
    """A few thousand rows at a time; their hidden features are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(x, up, down)
        return torch.cat([_gated(part, up, down) for part in x.split(_ROWS)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, up, down = ctx.saved_tensors
        to_x, to_up, to_down = torch.empty_like(x), torch.zeros_like(up), torch.zeros_like(down)
        pieces = zip(x.split(_ROWS), grads[0].split(_ROWS), to_x.split(_ROWS), strict=True)
        for part, given, to_part in pieces:
            with torch.enable_grad():
                taken = [t.detach().requires_grad_() for t in (part, up, down)]
                found = torch.autograd.grad(_gated(*taken), taken, given)
            to_part.copy_(found[0])
            to_up += found[1]
            to_down += found[2]
        return to_x, to_up, to_down


def _gated(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    a, b = (x @ up.T).chunk(2, -1)
    return (gelu(a) * b) @ down.T


class SparseTransformerBlock(nn.Module):
    """x + gamma attention(norm(x)), then x + gamma geglu(norm(x)).

    Args:
        dim: channels.
        heads: of the attention.
        window: of the attention.
        dropout: of the attention weights.
        drop_path: chance of a row's branch to be dropped.
        gamma: initial scale of both branches (0.1).
    """

    def __init__(
        self, dim: int, heads: int, window: int = 1024, dropout: float = 0.1, drop_path: float = 0.0, gamma: float = 0.1
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList([RMSNorm(dim), RMSNorm(dim)])
        self.attention, self.mlp = CurveAttention(dim, heads, window, dropout), GEGLU(dim)
        self.gammas = nn.ParameterList([nn.Parameter(torch.full((dim,), gamma)) for _ in range(2)])
        self.drop = DropRows(drop_path)

    def forward(self, x: Tensor, voxels: Voxels, curve: str = "z") -> Tensor:
        """(V, C) -> (V, C)."""
        x = x + self.drop(self.attention(self.norms[0](x), voxels, curve) * self.gammas[0])
        return x + self.drop(self.mlp(self.norms[1](x)) * self.gammas[1])


class _Level(nn.Module):
    """The blocks of one level: convolutions, then attention; each attention takes the next curve."""

    def __init__(
        self, convs: int, attentions: int, dim: int, head: int, drops: Sequence[float], **options: Any
    ) -> None:
        super().__init__()
        rates = iter(drops)
        self.blocks = nn.ModuleList(SparseResBlock(dim, next(rates)) for _ in range(convs))
        self.blocks.extend(
            SparseTransformerBlock(dim, dim // head, drop_path=next(rates), **options) for _ in range(attentions)
        )

    def forward(self, x: Tensor, voxels: Voxels, curves: list[str]) -> Tensor:
        for at, block in enumerate(self.blocks):
            curve = curves[at % len(curves)]
            x = block(x, voxels, curve)
        return x


class HUNet(nn.Module):
    """The hybrid sparse U-Net.

    Args:
        in_channels: features per voxel (6: colour and normal).
        channels: on the way down, finest level first.
        up_channels: on the way up, coarsest level first; as many.
        blocks: residual blocks per level and way (2).
        attention: transformer blocks at each of the coarse levels and way (2); 0 is convolutions alone.
        attention_levels: coarsest levels that have them (2).
        convolution: False leaves the residual blocks out: attention alone, at all levels.
        head: channels of an attention head (8).
        window: tokens that attention sees (1024).
        dropout: of attention weights (0.1).
        drop_path: of the last block, growing linearly from 0 (0.4; the way up runs through its rates backwards).

    Raises:
        UserError: widths that don't fit each other.
    """

    def __init__(
        self,
        in_channels: int = 6,
        channels: Sequence[int] = (32, 64, 128, 256, 384),
        up_channels: Sequence[int] = (384, 256, 128, 96, 64),
        *,
        blocks: int = 2,
        attention: int = 2,
        attention_levels: int = 2,
        convolution: bool = True,
        head: int = 8,
        window: int = 1024,
        dropout: float = 0.1,
        drop_path: float = 0.4,
    ) -> None:
        super().__init__()
        down, up, count = tuple(channels), tuple(up_channels), len(channels)
        if len(up) != count or count < 1 or up[0] != down[-1]:
            raise UserError(f"widths {down} down and {up} up: as many of both, the coarsest alike")
        self.channels, self.up_channels = down, up
        attended = range(count) if not convolution else range(max(0, count - attention_levels), count)
        shape = [(blocks if convolution else 0, attention if at in attended else 0) for at in range(count)]
        total = sum(map(sum, shape))
        rates = [drop_path * k / max(1, total - 1) for k in range(total)]
        spans = [sum(map(sum, shape[:at])) for at in range(count + 1)]
        options: dict[str, Any] = {"window": window, "dropout": dropout}
        self.stem = nn.Sequential(nn.Linear(in_channels, down[0], bias=False), RMSNorm(down[0]))
        self.down = nn.ModuleList(StridedConv(a, b) for a, b in pairwise(down))
        self.down_norms = nn.ModuleList(RMSNorm(b) for b in down[1:])
        self.encoder = nn.ModuleList(
            _Level(*shape[at], down[at], head, rates[spans[at] : spans[at + 1]], **options) for at in range(count)
        )
        widths = up[::-1]  # finest first, as the levels
        self.bottom = RMSNorm(down[-1])
        self.up_norms = nn.ModuleList(RMSNorm(widths[at + 1]) for at in range(count - 1))
        self.up = nn.ModuleList(InverseConv(widths[at + 1], widths[at]) for at in range(count - 1))
        self.skip_norms = nn.ModuleList(RMSNorm(down[at]) for at in range(count - 1))
        self.skips = nn.ModuleList(nn.Linear(down[at], widths[at], bias=False) for at in range(count - 1))
        self.up_gammas = nn.ParameterList(nn.Parameter(torch.ones(widths[at])) for at in range(count - 1))
        self.decoder = nn.ModuleList(
            _Level(*shape[at], widths[at], head, rates[spans[at] : spans[at + 1]][::-1], **options)
            for at in range(count)
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the outputs, finest level first."""
        return self.up_channels[::-1]

    def forward(self, x: Tensor, levels: list[Voxels]) -> list[Tensor]:
        """(V, in_channels) at the finest of ``levels`` -> the levels' outputs (V_l, C_l), finest first."""
        curves = self.curves()
        return self.decode(self.encode(x, levels, curves), levels, curves=curves)

    def curves(self) -> list[str]:
        """The four curves, in an order drawn anew for every pass while training."""
        order = torch.randperm(len(CURVES)).tolist() if self.training else range(len(CURVES))
        return [CURVES[k] for k in order]

    def encode(self, x: Tensor, levels: list[Voxels], curves: list[str] | None = None) -> list[Tensor]:
        """The way down: (V_l, channels[l]) of every level, finest first."""
        if len(levels) != len(self.channels):
            raise UserError(f"{len(levels)} levels of voxels for a network of {len(self.channels)}")
        curves, found = curves or self.curves(), []
        x = self.stem(x)
        for at, level in enumerate(levels):
            if at:
                x = self.down_norms[at - 1](self.down[at - 1](x, levels[at - 1]))
            x = self.encoder[at](x, level, curves)
            found.append(x)
        return found

    def decode(
        self,
        encoded: list[Tensor],
        levels: list[Voxels],
        visible: list[Tensor] | None = None,
        tokens: Any = None,
        curves: list[str] | None = None,
    ) -> list[Tensor]:
        """The way up, from the coarsest level: (V_l, widths[l]) of every level, finest first.

        Args:
            encoded: of :meth:`encode`; with ``visible`` of the visible voxels alone.
            levels: all voxels.
            visible: (V_l,) bool per level: which voxels the encoder saw. None: all.
            tokens: per level a learnt row (widths[l],) that hidden voxels get in place of what comes from the encoder.
            curves: the order of curves; None draws one.
        """
        curves = curves or self.curves()
        last = len(levels) - 1
        x = _filled(self.bottom(encoded[last]), last, visible, tokens)
        found = [self.decoder[last](x, levels[last], curves)]
        for at in range(last - 1, -1, -1):
            up = self.up[at](self.up_norms[at](found[-1]), levels[at])
            skip = self.skips[at](self.skip_norms[at](encoded[at]))
            x = self.up_gammas[at] * up + _filled(skip, at, visible, tokens)
            found.append(self.decoder[at](x, levels[at], curves))
        return found[::-1]


def _filled(x: Tensor, at: int, visible: list[Tensor] | None, tokens: Any) -> Tensor:
    """Rows of visible voxels, and the level's token for the others."""
    if visible is None:
        return x
    seen = visible[at]
    if len(x) != int(seen.sum()):
        raise UserError(f"level {at}: {len(x)} rows of {int(seen.sum())} visible voxels")
    full = tokens[at].to(x.dtype).expand(len(seen), -1)
    return full.index_copy(0, seen.nonzero()[:, 0], x)
