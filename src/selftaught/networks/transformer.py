"""Plain vision transformers over a grid of patches: images, clips and volumes, with tokens that can be left out.

    patchify -> linear embedding -> + positions -> class token -> pre-norm blocks -> norm

A patch that is left out (`keep`) is never embedded and never attended to, so that a masked forward pass costs as much
as the tokens that it sees. Parameters are named as in timm's ViT (``blocks.0.attn.qkv.weight`` ...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.tokens import check_keep, patchify, positions_table, token_grid

__all__ = ["Attention", "Block", "MaskedDecoder", "VisionTransformer"]

_EPS = 1e-6


# ---- blocks ----------------------------------------------------------------------------------------------------------
class Attention(nn.Module):
    """Multi-head self-attention (N, L, D) -> (N, L, D), fused.

    Args:
        dim: D, a multiple of ``heads``.
        heads: number of heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise UserError(f"width {dim} isn't a multiple of {heads} heads")
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(d)) v of every head, then a linear layer."""
        return self.proj(F.scaled_dot_product_attention(*self._split(x)).transpose(1, 2).flatten(2))

    def of_some(self, x: Tensor, at: Tensor) -> Tensor:
        """The same for the tokens ``at`` (N, M, 1) alone, which look at all of them: (N, M, D)."""
        dim, bias = x.shape[2], self.qkv.bias
        asked = F.linear(_at(x, at), self.qkv.weight[:dim], bias[:dim])
        both = F.linear(x, self.qkv.weight[dim:], bias[dim:])
        k, v = both.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q = asked.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def weights(self, x: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(d)): (N, heads, L, L)."""
        q, k, _ = self._split(x)
        return (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        dim: D.
        heads: of the attention.
        mlp_ratio: width of the MLP's hidden layer in D.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1, self.attn = nn.LayerNorm(dim, eps=_EPS), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(dim, hidden))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(hidden, dim))
        self.drop_path1, self.drop_path2 = nn.Identity(), nn.Identity()  # fine-tuning puts stochastic depth there

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(N, L, D) -> (N, L, D), or (N, M, D) of the tokens ``at`` (N, M): the others are only looked at."""
        if at is None:
            x = x + self.drop_path1(self.attn(self.norm1(x)))
        else:
            at = at[:, :, None]
            x = _at(x, at) + self.drop_path1(self.attn.of_some(self.norm1(x), at))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def _at(x: Tensor, at: Tensor) -> Tensor:
    """Tokens (N, L, D) at places (N, M, 1): (N, M, D)."""
    return x.gather(1, at.expand(-1, -1, x.shape[2]))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class VisionTransformer(nn.Module):
    """A transformer over the patches of an image, a clip or a volume.

    Args:
        size: size of a sample along each axis: (H, W), (T, H, W), (D, H, W).
        patch: size of a patch along each axis.
        channels: C.
        dim: width D.
        depth: number of blocks.
        heads: heads of each block.
        mlp_ratio: hidden width of the MLPs in D.
        positions: "sinusoid" (fixed, over token numbers), "sincos" (fixed, over the axes) or "learnt". The class token
            has none of the fixed ones.
        class_token: prepend one; its output is the embedding. Without it the mean of the patch tokens is.

    Attributes:
        grid: tokens along each axis; their number is ``count``.

    Raises:
        UserError: a size that isn't a multiple of the patch, a width that isn't one of the heads, unknown positions.
    """

    pos_embed: Tensor

    def __init__(
        self,
        size: Sequence[int],
        patch: Sequence[int],
        *,
        channels: int = 3,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        positions: str = "sinusoid",
        class_token: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.patch, self.channels, self.dim = tuple(size), tuple(patch), channels, dim
        self.grid = token_grid(size, patch)
        self.count = math.prod(self.grid)
        self.patch_embed = nn.Linear(channels * math.prod(patch), dim)
        self.cls_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02)) if class_token else None
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.apply(_initialise)
        _add_positions(self, positions, self.grid, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed samples: (N, C, *size), normalised -> (N, D), the class token or the mean of the patch tokens."""
        whole, patches = self.tokens(x)
        return patches.mean(1) if whole is None else whole

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """Class token and patch tokens of the last layer.

        Args:
            x: (N, C, *size), normalised.
            keep: (V N, L') int64, numbers of the tokens that the network sees; row r belongs to sample r mod N, so that
                V masked views of every sample go through at once. None: all of them.

        Returns:
            (V N, D) or None without a class token, and (V N, L', D) in the order of ``keep``.

        Raises:
            UserError: samples of another size, ``keep`` of a shape that doesn't fit.
        """
        h = self._embed(x, keep)
        for block in self.blocks:
            h = block(h)
        return self._part(self.norm(h))

    def maps(self, x: Tensor) -> Tensor:
        """Patch tokens on their grid: (N, D, *grid)."""
        return self.tokens(x)[1].transpose(1, 2).unflatten(2, self.grid)

    def attention(self, x: Tensor) -> Tensor:
        """What the last block's class token looks at (without one: the mean over patch tokens): (N, heads, L).

        The weights over patch tokens alone, without the class token's attention to itself: they sum to 1 or less.
        """
        h = self._embed(x, None)
        for block in self.blocks[:-1]:
            h = block(h)
        last: Block = self.blocks[-1]  # type: ignore[assignment]
        weights = last.attn.weights(last.norm1(h))
        return weights.mean(2) if self.cls_token is None else weights[:, :, 0, 1:]

    def _embed(self, x: Tensor, keep: Tensor | None) -> Tensor:
        if tuple(x.shape[1:]) != (self.channels, *self.size):
            wanted = "x".join(map(str, (self.channels, *self.size)))
            raise UserError(f"samples of shape {'x'.join(map(str, x.shape[1:]))} for a network built for {wanted}")
        patches, where = patchify(x, self.patch), self.pos_embed
        if keep is not None:
            check_keep(keep, len(x))
            rows = torch.arange(len(keep), device=x.device)[:, None] % len(x)
            patches, where = patches[rows, keep], where[keep]
        h = self.patch_embed(patches) + where
        return h if self.cls_token is None else torch.cat([self.cls_token.expand(h.shape[0], -1, -1), h], dim=1)

    def _part(self, h: Tensor) -> tuple[Tensor | None, Tensor]:
        return (None, h) if self.cls_token is None else (h[:, 0], h[:, 1:])


def _add_positions(module: nn.Module, kind: str, grid: Sequence[int], dim: int) -> None:
    """Learnt positions are a parameter; fixed ones a float32 buffer that is made again, not stored."""
    table = positions_table(kind, grid, dim)
    if kind == "learnt":
        module.pos_embed = nn.Parameter(table)
    else:
        module.register_buffer("pos_embed", table, persistent=False)


class MaskedDecoder(nn.Module):
    """Fills in what an encoder has not seen: visible tokens, mask tokens elsewhere, positions, some blocks.

    Args:
        grid: tokens along each axis.
        dim_in: width of the encoder's tokens.
        dim_out: width of the answer: pixels of a patch, or a feature.
        dim: width inside.
        depth: number of blocks.
        heads: heads of each block.
        mlp_ratio: hidden width of the MLPs in ``dim``.
        positions: see `VisionTransformer`.
        embed_bias: whether the first layer has a bias (MAE has one, VideoMAE none).
        project: off leaves the first layer out; ``dim`` is then ``dim_in``.
        class_position: the class token has a learnt position, too.

    Raises:
        UserError: a width that isn't a multiple of the heads, no block, unknown positions, another width without
            ``project``.
    """

    pos_embed: Tensor

    def __init__(
        self,
        grid: Sequence[int],
        dim_in: int,
        dim_out: int,
        *,
        dim: int = 384,
        depth: int = 4,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        positions: str = "sinusoid",
        embed_bias: bool = False,
        project: bool = True,
        class_position: bool = False,
    ) -> None:
        super().__init__()
        if not project and dim != dim_in:
            raise UserError(f"a decoder without a first layer has the encoder's width {dim_in}, not {dim}")
        if depth < 1:
            raise UserError(f"a decoder has 1 block or more, not {depth}")
        self.count = math.prod(grid)
        self.embed: nn.Module = nn.Linear(dim_in, dim, bias=embed_bias) if project else nn.Identity()
        self.mask_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.head = nn.Linear(dim, dim_out)
        self.apply(_initialise)
        _add_positions(self, positions, grid, dim)
        place = nn.init.trunc_normal_(torch.empty(1, dim), std=0.02) if class_position else None
        self.class_pos = None if place is None else nn.Parameter(place)

    def forward(
        self, visible: Tensor, keep: Tensor, class_token: Tensor | None = None, answer: Tensor | None = None
    ) -> Tensor:
        """All tokens, visible and hidden, or those that are asked for.

        Args:
            visible: (N, L', dim_in) tokens of the encoder.
            keep: (N, L') int64, where they are.
            class_token: (N, dim_in), takes part in the attention and is left out of the answer; None: nothing does.
            answer: (N, M) int64, the tokens to answer for, so that the last layers are spared the others; None: all.

        Returns:
            (N, L, dim_out) in raster order, or (N, M, dim_out) in the order of ``answer``.

        Raises:
            UserError: ``keep`` doesn't fit ``visible``.
        """
        if keep.shape != visible.shape[:2]:
            raise UserError(f"keep {tuple(keep.shape)} doesn't fit visible tokens {tuple(visible.shape)}")
        seen = self.embed(visible)
        hidden = self.mask_token.to(seen.dtype).expand(seen.shape[0], self.count, -1)
        h = hidden.scatter(1, keep[:, :, None].expand_as(seen), seen) + self.pos_embed
        if class_token is not None:
            whole = self.embed(class_token)
            h = torch.cat([(whole if self.class_pos is None else whole + self.class_pos)[:, None], h], dim=1)
        *before, last = self.blocks
        for block in before:
            h = block(h)
        if answer is not None:  # in the last block the others are looked at and not made
            h = last(h, answer if class_token is None else answer + 1)
        else:
            h = last(h) if class_token is None else last(h)[:, 1:]
        return self.head(self.norm(h))
