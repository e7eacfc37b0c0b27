"""Layers over occupied voxels: residual blocks of sparse convolutions, attention along space-filling curves.

The parts of HUNet, arXiv 2504.06719; layers as in the authors' phermosilla/msm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, scaled_dot_product_attention

from selftaught.errors import UserError
from selftaught.networks.curves import curve_code
from selftaught.networks.sparse import SubmanifoldConv, Voxels

__all__ = [
    "GEGLU",
    "CurveAttention",
    "DropRows",
    "RMSNorm",
    "SparseResBlock",
    "SparseTransformerBlock",
    "window_attention",
]

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
