"""One transformer for pictures and volumes (Cai et al., MICCAI 2022, arXiv 2203.04614).

    picture (N, C, H, W)    -> patches p x p       \\
                                                     -> + positions of its rank -> shared blocks -> shared norm
    volume  (N, C, D, H, W) -> patches p_d x p x p /

Which rank a batch has is told by its number of axes; a batch is never mixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.networks.tokens import check_keep, patchify, positions_table, token_grid
from selftaught.networks.transformer import Block

__all__ = ["UNI4EYE_SIZES", "DualDecoder", "DynamicHead", "RankEncoder", "UnifiedPatchEmbedding"]

UNI4EYE_SIZES: dict[str, tuple[int, int, int]] = {
    "vit-pico-ranks": (32, 2, 2),
    "vit-nano-ranks": (96, 4, 3),
    "vit-base-ranks": (768, 12, 12),
    "vit-large-ranks": (1024, 24, 16),
}
"""Width, depth and heads; base and large are the paper's."""

_EPS = 1e-6


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class UnifiedPatchEmbedding(nn.Module):
    """Two projections of patches, chosen by the rank of the input.

    Args:
        channels: C of pictures and volumes alike.
        dim: D.
        patch2: (rows, columns) of a picture's patch.
        patch3: (depth, rows, columns) of a volume's; they need not be equal.
    """

    def __init__(
        self, channels: int = 3, dim: int = 768, patch2: Sequence[int] = (16, 16), patch3: Sequence[int] = (16, 16, 16)
    ) -> None:
        super().__init__()
        self.patch2, self.patch3 = tuple(patch2), tuple(patch3)
        self.proj2 = nn.Linear(channels * math.prod(patch2), dim)
        self.proj3 = nn.Linear(channels * math.prod(patch3), dim)

    def patch(self, rank: int) -> tuple[int, ...]:
        """The patch of a rank, 2 or 3."""
        return self.patch2 if rank == 2 else self.patch3

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        """(N, C, H, W) or (N, C, D, H, W) -> tokens (N, L, D) in raster order, and the rank.

        Equal to a strided convolution with the weights viewed as its kernel.

        Raises:
            UserError: another number of axes, a size that isn't a multiple of the patch.
        """
        rank = rank_of(x)
        return (self.proj2 if rank == 2 else self.proj3)(patchify(x, self.patch(rank))), rank


def rank_of(x: Tensor) -> int:
    """2 for pictures (N, C, H, W), 3 for volumes (N, C, D, H, W).

    Raises:
        UserError: anything else.
    """
    if x.dim() not in (4, 5):
        raise UserError(f"pictures have the shape (N, C, H, W), volumes (N, C, D, H, W); got {tuple(x.shape)}")
    return x.dim() - 2


class RankEncoder(nn.Module):
    """A ViT that sees pictures and volumes; class token, blocks and norm are shared.

    Args:
        channels: C.
        size2: (rows, columns) of pictures.
        size3: (depth, rows, columns) of volumes.
        patch2: of pictures.
        patch3: of volumes.
        dim: D.
        depth: blocks.
        heads: of each block.
        pos3d: "sincos", or "zero" as the released code has it (a defect, for comparison).
        pool: what the embedding is: "token", the class token, or "avg", the mean of the patch tokens.

    Attributes:
        dim: size D of the embedding.
        spec: JSON-able description.
    """

    spec: dict[str, Any]
    pos2: Tensor
    pos3: Tensor

    def __init__(
        self,
        channels: int = 3,
        size2: Sequence[int] = (224, 224),
        size3: Sequence[int] = (112, 224, 224),
        patch2: Sequence[int] = (16, 16),
        patch3: Sequence[int] = (16, 16, 16),
        *,
        dim: int = 1024,
        depth: int = 24,
        heads: int = 16,
        pos3d: str = "sincos",
        pool: str = "token",
    ) -> None:
        super().__init__()
        if pool not in ("token", "avg"):
            raise UserError(f"pool={pool}: choose token or avg")
        self.pool = pool
        if pos3d not in ("sincos", "zero"):
            raise UserError(f"pos3d={pos3d}: choose sincos or zero")
        self.spec = {
            "name": "rank-encoder", "channels": channels, "size2": list(size2), "size3": list(size3),
            "patch2": list(patch2), "patch3": list(patch3), "dim": dim, "depth": depth, "heads": heads, "pos3d": pos3d,
            "pool": pool,
        }  # fmt: skip
        self.dim, self.sizes = dim, {2: tuple(size2), 3: tuple(size3)}
        self.grids = {2: token_grid(size2, patch2), 3: token_grid(size3, patch3)}
        self.embed = UnifiedPatchEmbedding(channels, dim, patch2, patch3)
        self.cls_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.apply(_initialise)
        self.register_buffer("pos2", positions_table("sincos", self.grids[2], dim), persistent=False)
        table = positions_table("sincos", self.grids[3], dim)
        self.register_buffer("pos3", table if pos3d == "sincos" else torch.zeros_like(table), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures or volumes, normalised -> (N, D), the class token or the mean of the patch tokens."""
        whole, patches = self.tokens(x)
        return whole if self.pool == "token" else patches.mean(1)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token (N, D) and patch tokens (N, L', D) of the last layer; see `VisionTransformer.tokens`.

        Raises:
            UserError: another size than the network was built for, ``keep`` that doesn't fit.
        """
        rank = rank_of(x)
        if tuple(x.shape[2:]) != self.sizes[rank]:
            wanted, given = ("x".join(map(str, s)) for s in (self.sizes[rank], x.shape[2:]))
            raise UserError(f"samples of {given} for a network built for {wanted}")
        patches, where = patchify(x, self.embed.patch(rank)), self.pos2 if rank == 2 else self.pos3
        if keep is not None:
            check_keep(keep, len(x))
            rows = torch.arange(len(keep), device=x.device)[:, None] % len(x)
            patches, where = patches[rows, keep], where[keep]
        h = (self.embed.proj2 if rank == 2 else self.embed.proj3)(patches) + where
        h = torch.cat([self.cls_token.expand(h.shape[0], -1, -1).to(h.dtype), h], dim=1)
        for block in self.blocks:
            h = block(h)
        h = self.norm(h)
        return h[:, 0], h[:, 1:]

    def maps(self, x: Tensor) -> Tensor:
        """Patch tokens on their grid: (N, D, h, w) or (N, D, d, h, w)."""
        return self.tokens(x)[1].transpose(1, 2).unflatten(2, self.grids[rank_of(x)])


class _Branch(nn.Module):
    """What one target has of its own: mask token, blocks, norm, and a predictor for each rank."""

    def __init__(self, dim: int, depth: int, heads: int, outputs: dict[int, int]) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.predict2, self.predict3 = nn.Linear(dim, outputs[2]), nn.Linear(dim, outputs[3])


class DualDecoder(nn.Module):
    """Two decoders behind one projection: intensities, and the gradient map.

    Args:
        network: the encoder, for its grids and widths.
        channels: C.
        dim: width inside.
        depth: blocks of each branch.
        heads: of each block.
        shared: blocks of a common trunk before the branches, out of ``depth`` (cheaper); the branches then share the
            intensity branch's mask token.
        branches: "both", "intensity" or "gradient".

    Raises:
        UserError: a trunk as deep as the decoder, unknown branches.
    """

    def __init__(
        self,
        network: RankEncoder,
        channels: int = 3,
        *,
        dim: int = 512,
        depth: int = 8,
        heads: int = 16,
        shared: int = 0,
        branches: str = "both",
    ) -> None:
        super().__init__()
        if not 0 <= shared < depth:
            raise UserError(f"shared={shared}: a trunk takes 0 to {depth - 1} of {depth} blocks")
        names = {"both": ("intensity", "gradient"), "intensity": ("intensity",), "gradient": ("gradient",)}.get(
            branches
        )
        if names is None:
            raise UserError(f"branches={branches}: choose both, intensity or gradient")
        self.grids = network.grids
        outputs = {rank: channels * math.prod(network.embed.patch(rank)) for rank in (2, 3)}
        self.embed = nn.Linear(network.dim, dim)
        self.trunk = nn.ModuleList(Block(dim, heads) for _ in range(shared))
        self.branches = nn.ModuleDict({name: _Branch(dim, depth - shared, heads, outputs) for name in names})
        self.apply(_initialise)
        for rank in (2, 3):
            self.register_buffer(f"pos{rank}", positions_table("sincos", self.grids[rank], dim), persistent=False)

    def forward(self, whole: Tensor, visible: Tensor, keep: Tensor, rank: int) -> dict[str, Tensor]:
        """All patches of each branch.

        Args:
            whole: (N, D) class token, which takes part and is left out of the answer.
            visible: (N, L', D) tokens of the encoder.
            keep: (N, L') int64, where they are.
            rank: 2 or 3.

        Returns:
            "intensity" and "gradient": (N, L, P), each patch pixel after pixel with its channels.
        """
        return self.predicted(self.decoded(whole, visible, keep, rank), rank)

    def predicted(self, decoded: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
        """Patches (N, L, P) of each branch from its normed tokens (see `decoded`)."""
        return {
            name: (branch.predict2 if rank == 2 else branch.predict3)(decoded[name][:, 1:])
            for name, branch in self._named()
        }

    def decoded(self, whole: Tensor, visible: Tensor, keep: Tensor, rank: int) -> dict[str, Tensor]:
        """Normed tokens (N, 1 + L, dim) of each branch, class token first, before the predictors."""
        first, seen = self.embed(whole)[:, None], self.embed(visible)
        named, found = self._named(), {}
        if len(self.trunk):
            h = self._filled(named[0][1].mask_token, first, seen, keep, rank)
            for block in self.trunk:
                h = block(h)
        for name, branch in named:
            own = h if len(self.trunk) else self._filled(branch.mask_token, first, seen, keep, rank)
            for block in branch.blocks:
                own = block(own)
            found[name] = branch.norm(own)
        return found

    def _named(self) -> list[tuple[str, Any]]:
        return list(self.branches.items())

    def _filled(self, token: Tensor, first: Tensor, seen: Tensor, keep: Tensor, rank: int) -> Tensor:
        """Visible tokens at their places, mask tokens elsewhere, positions added; class token in front."""
        hidden = token.to(seen.dtype).expand(seen.shape[0], math.prod(self.grids[rank]), -1)
        h = hidden.scatter(1, keep[:, :, None].expand_as(seen), seen) + getattr(self, f"pos{rank}")
        return torch.cat([first.to(h.dtype), h], dim=1)


class DynamicHead(nn.Module):
    """The successor's head: a linear map across tokens, made for every sample out of its own tokens and its source.

    Args:
        tokens: L (196 for 224 pixels).
        sources: kinds of source told apart (7).
    """

    def __init__(self, tokens: int = 196, sources: int = 7) -> None:
        super().__init__()
        self.count, self.sources = tokens, sources
        self.controller = nn.Conv1d(tokens + 1 + sources, tokens * tokens + tokens, kernel_size=1)

    def forward(self, decoded: Tensor, prediction: Tensor, source: Tensor) -> Tensor:
        """W(sample) prediction + b(sample), along the tokens.

        Args:
            decoded: (N, 1 + L, dim) tokens of the decoder, class token first.
            prediction: (N, L, P).
            source: (N,) int64, number of the source.

        Returns:
            (N, L, P).

        Raises:
            UserError: another number of tokens, a source that there is not.
        """
        if decoded.shape[1] != self.count + 1 or prediction.shape[1] != self.count:
            raise UserError(f"a head for {self.count} tokens got {decoded.shape[1] - 1} and {prediction.shape[1]}")
        if int(source.min()) < 0 or int(source.max()) >= self.sources:
            raise UserError(
                f"sources are numbered 0 to {self.sources - 1}, got {int(source.min())} to {int(source.max())}"
            )
        pooled = decoded.relu().mean(2)
        told = torch.cat([pooled, nn.functional.one_hot(source, self.sources).to(pooled)], dim=1)
        made = self.controller(told[:, :, None])[:, :, 0]
        weight, bias = made.split([self.count**2, self.count], dim=1)
        return weight.unflatten(1, (self.count, self.count)) @ prediction + bias[:, :, None]
