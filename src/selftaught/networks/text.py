"""CLIP's text tower: a causal transformer over tokens, its feature the last token's (Radford et al. 2021, 2103.00020).

Parameters are named as in CLIP and open_clip (``transformer.resblocks.0.attn.in_proj_weight`` ...).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["QuickGELU", "TextTransformer"]


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, type[nn.Module]] = {"quick-gelu": QuickGELU, "gelu": nn.GELU}


class _Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + MLP(norm(x)); on strong texts with dropout and drop-path."""

    def __init__(self, width: int, heads: int, dropout: float, drop_path: float, place: str, activation: str) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", _ACTIVATIONS[activation]())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.dropout, self.drop_path, self.place = dropout, drop_path, place

    def _branch(self, x: Tensor, strong: bool) -> Tensor:
        """What a residual branch adds, some of it dropped."""
        if not (strong and self.training):
            return x
        if self.place == "residual":
            x = nn.functional.dropout(x, self.dropout)
        if self.drop_path:
            keep = torch.empty(len(x), 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - self.drop_path)
            x = x * keep / (1 - self.drop_path)
        return x

    def forward(self, x: Tensor, mask: Tensor, strong: bool) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        if strong and self.training and self.place == "entry":
            x = nn.functional.dropout(x, self.dropout)
        h = self.ln_1(x)
        attended, _ = self.attn(h, h, h, need_weights=False, attn_mask=mask, is_causal=True)
        x = x + self._branch(attended, strong)
        return x + self._branch(self.mlp(self.ln_2(x)), strong)


class TextTransformer(nn.Module):
    """Tokens (N, L) -> features (N, width): embedding, positions, causal pre-norm blocks, LayerNorm, the end's place.

    Args:
        vocabulary: number of tokens; the highest is the end of a text.
        context: longest text L in tokens.
        width: D, a multiple of ``heads``.
        heads: of each block.
        layers: number of blocks.
        dropout: on strong texts alone, in training.
        dropout_place: "entry" of every block, on the residual stream, as the released code of arXiv 2305.08675 does; or
            "residual", on what each branch adds, the usual place.
        drop_path: chance that a branch of a strong text is left out.
        activation: "quick-gelu" as CLIP's own, or "gelu" as most models of open_clip.

    Raises:
        UserError: numbers out of range, a width that isn't a multiple of the heads.
    """

    def __init__(
        self,
        vocabulary: int = 49408,
        *,
        context: int = 77,
        width: int = 512,
        heads: int = 8,
        layers: int = 12,
        dropout: float = 0.0,
        dropout_place: str = "entry",
        drop_path: float = 0.0,
        activation: str = "quick-gelu",
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise UserError(f"text activation {activation!r}: choose {' or '.join(_ACTIVATIONS)}")
        if width % heads or min(vocabulary, context, heads, layers) < 1:
            raise UserError(f"text tower of width {width}, {heads} heads, {layers} layers: the heads must divide it")
        if dropout_place not in ("entry", "residual") or not (0 <= dropout < 1 and 0 <= drop_path < 1):
            raise UserError(f"text dropout {dropout}, drop_path {drop_path}, place {dropout_place!r}: out of range")
        self.vocabulary, self.context, self.dim = vocabulary, context, width
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = nn.Module()
        blocks = [_Block(width, heads, dropout, drop_path, dropout_place, activation) for _ in range(layers)]
        self.transformer.resblocks = nn.ModuleList(blocks)
        self.ln_final = nn.LayerNorm(width)
        self._initialise(width, layers)
        self.spec: dict[str, Any] = {
            "vocabulary": vocabulary, "context": context, "width": width, "heads": heads, "layers": layers,
            "dropout": dropout, "dropout_place": dropout_place, "drop_path": drop_path,
            "activation": activation,
        }  # fmt: skip

    def _initialise(self, width: int, layers: int) -> None:
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        narrow, deep = width**-0.5, width**-0.5 * (2 * layers) ** -0.5
        for block in self._blocks():
            nn.init.normal_(block.attn.in_proj_weight, std=narrow)
            nn.init.normal_(block.attn.out_proj.weight, std=deep)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)  # type: ignore[arg-type, union-attr]
            nn.init.normal_(block.mlp.c_proj.weight, std=deep)  # type: ignore[arg-type, union-attr]

    def _blocks(self) -> list[_Block]:
        return list(self.transformer.resblocks)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, strong: bool = False) -> Tensor:
        """Features of texts.

        Args:
            tokens: (N, L) int64, L at most the context; what lies behind the end is not looked at.
            strong: whether dropout and drop-path act (in training).

        Returns:
            (N, width).

        Raises:
            UserError: longer texts than the context, tokens outside the vocabulary (looked at on the CPU).
        """
        if tokens.dim() != 2 or tokens.shape[1] > self.context or tokens.is_floating_point():
            raise UserError(f"texts are (N, {self.context} or fewer) whole numbers, got {tuple(tokens.shape)}")
        if tokens.device.type == "cpu" and len(tokens) and int(tokens.max()) >= self.vocabulary:
            raise UserError(f"token {int(tokens.max())} in a vocabulary of {self.vocabulary}: of another tokeniser")
        end = tokens.argmax(1)
        length = int(end.max()) + 1 if tokens.device.type == "cpu" and len(tokens) else tokens.shape[1]
        return self.of_embeddings(self.token_embedding(tokens[:, :length]), end, strong=strong)

    def of_embeddings(self, x: Tensor, end: Tensor, *, strong: bool = False) -> Tensor:
        """Features of texts whose tokens are embedded already, such as learnt prompts.

        Args:
            x: (N, L, width), without positions.
            end: (N,) int64, the place of each text's end.
            strong: as in :meth:`forward`.

        Returns:
            (N, width).
        """
        length = x.shape[1]
        x = x + self.positional_embedding[:length]
        mask = torch.full((length, length), -torch.inf, device=x.device, dtype=x.dtype).triu_(1)
        for block in self._blocks():
            x = block(x, mask, strong)
        return self.ln_final(x[torch.arange(x.shape[0], device=x.device), end])
