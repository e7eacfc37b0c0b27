"""BERT with cross-attention to image tokens: text encoder, multimodal encoder and writer in one (RetFiner, ALBEF).

Parameters are named as in Hugging Face's BERT (``encoder.layer.0.attention.self.query.weight`` ...), so that its
weights fit; cross-attention stands in ``crossattention`` of each layer, as there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError, require
from selftaught.networks.hub import hub
from selftaught.networks.pretrained_text import model_place

__all__ = ["CrossBERT", "LanguageHead", "matching_head", "pretrained_bert"]

_EPS = 1e-12
_CLOSED = -10_000.0
"""Added to the scores of what is not to be seen; fits half precision."""


class _SelfAttention(nn.Module):
    """Queries of the text, keys and values of the text or of image tokens."""

    def __init__(self, width: int, keys: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(keys, width), nn.Linear(keys, width)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            layer(of).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, of in ((self.query, x), (self.key, keys), (self.value, keys))
        )
        mask = None if mask is None else mask.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """Linear, dropout, then the norm of the sum with what went in (post-norm)."""

    def __init__(self, inside: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense, self.LayerNorm, self.dropout = (
            nn.Linear(inside, width),
            nn.LayerNorm(width, _EPS),
            nn.Dropout(dropout),
        )

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(h)) + x)


class _Attention(nn.Module):
    def __init__(self, width: int, keys: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.add_module("self", _SelfAttention(width, keys, heads))
        self.output = _Output(width, width, dropout)

    def forward(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.get_submodule("self")(x, keys, mask), x)


class _Intermediate(nn.Module):
    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inside)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.dense(x))


class _Layer(nn.Module):
    """Self-attention, cross-attention where there are image tokens, MLP."""

    def __init__(self, width: int, image: int, heads: int, inside: int, dropout: float) -> None:
        super().__init__()
        self.attention = _Attention(width, width, heads, dropout)
        self.crossattention = _Attention(width, image, heads, dropout)
        self.intermediate, self.output = _Intermediate(width, inside), _Output(inside, width, dropout)

    def forward(self, x: Tensor, mask: Tensor, image: Tensor | None) -> Tensor:
        x = self.attention(x, x, mask)
        if image is not None:
            x = self.crossattention(x, image, None)
        return self.output(self.intermediate(x), x)


class CrossBERT(nn.Module):
    """Tokens (N, L), image tokens (N, P, image) or none -> features (N, L, width).

    Args:
        vocabulary: number of tokens; 0 fills up.
        width: of the features.
        heads: of every attention.
        layers: number of layers.
        image: width of the image tokens.
        context: longest text in tokens.
        inside: hidden width of the MLPs; 0: four times the width.
        dropout: of BERT.

    Raises:
        UserError: a width that isn't a multiple of the heads.
    """

    def __init__(
        self,
        vocabulary: int = 30522,
        *,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        image: int = 768,
        context: int = 512,
        inside: int = 0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads or min(vocabulary, heads, layers, context) < 1:
            raise UserError(f"BERT of width {width}, {heads} heads, {layers} layers: the heads must divide the width")
        self.vocabulary, self.width, self.context = vocabulary, width, context
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.embeddings.position_embeddings = nn.Embedding(context, width)
        self.embeddings.token_type_embeddings = nn.Embedding(2, width)
        self.embeddings.LayerNorm, self.dropout = nn.LayerNorm(width, _EPS), nn.Dropout(dropout)
        self.encoder = nn.Module()
        made = (_Layer(width, image, heads, inside or 4 * width, dropout) for _ in range(layers))
        self.encoder.layer = nn.ModuleList(made)
        self.apply(_initialise)

    def forward(
        self, tokens: Tensor, image: Tensor | None = None, *, causal: bool = False, keep: Tensor | None = None
    ) -> Tensor:
        """Features of all places.

        Args:
            tokens: (N, L) int64.
            image: (N, P, image) tokens to look at; None: cross-attention is left out.
            causal: a place sees none behind it.
            keep: (N, L) bool, the places that are text; None: those that aren't 0.

        Returns:
            (N, L, width).

        Raises:
            UserError: longer texts than the context, as many images as texts are needed.
        """
        if tokens.dim() != 2 or tokens.shape[1] > self.context or tokens.is_floating_point():
            raise UserError(f"texts are (N, {self.context} or fewer) whole numbers, got {tuple(tokens.shape)}")
        if image is not None and (image.dim() != 3 or len(image) != len(tokens)):
            raise UserError(f"image tokens are ({len(tokens)}, P, D) for {len(tokens)} texts, got {tuple(image.shape)}")
        places = torch.arange(tokens.shape[1], device=tokens.device)
        e: Any = self.embeddings
        x = e.word_embeddings(tokens) + e.token_type_embeddings.weight[0] + e.position_embeddings(places)
        x = self.dropout(e.LayerNorm(x))
        seen = (tokens != 0 if keep is None else keep)[:, None, None, :]
        if causal:
            seen = seen & (places[:, None] >= places)
        mask = torch.where(seen, 0.0, _CLOSED)
        for layer in self.encoder.layer:  # type: ignore[union-attr]
            x = layer(x, mask, image)
        return x

    @torch.no_grad()
    def copy_to_cross(self) -> None:
        """Start each layer's cross-attention as a copy of its self-attention, where the widths are the same."""
        for layer in self.encoder.layer:  # type: ignore[union-attr]
            own, cross = layer.attention.state_dict(), layer.crossattention.state_dict()
            fitting = {name: value for name, value in own.items() if cross[name].shape == value.shape}
            layer.crossattention.load_state_dict(cross | fitting)


class LanguageHead(nn.Module):
    """BERT's head: Linear, GELU, LayerNorm, then scores by the word embeddings, which it shares, and a bias.

    Args:
        bert: whose word embeddings decode.
    """

    def __init__(self, bert: CrossBERT) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(bert.width, bert.width), nn.LayerNorm(bert.width, _EPS)
        self.bias = nn.Parameter(torch.zeros(bert.vocabulary))
        self.apply(_initialise)

    def forward(self, features: Tensor, bert: CrossBERT) -> Tensor:
        """(..., width) -> (..., vocabulary)."""
        h = self.LayerNorm(F.gelu(self.dense(features)))
        return F.linear(h, bert.embeddings.word_embeddings.weight, self.bias)  # type: ignore[union-attr, arg-type]


def pretrained_bert(name: str) -> tuple[CrossBERT, LanguageHead]:
    """A BERT of the transformers library with its language head; cross-attention is new.

    Args:
        name: as on the Hugging Face hub (bert-base-uncased), the folder of a saved model, or minilm.

    Raises:
        UserError: the library is missing, there is no such model here and it can't be fetched, or it is no BERT.
    """
    library: Any = require("transformers", "text")
    try:
        with hub():
            model = library.AutoModelForMaskedLM.from_pretrained(model_place(name, "--text-encoder")).float()
    except (OSError, ValueError) as error:
        raise UserError(
            f"--text-encoder hf:{name}: not at hand, and it can't be fetched; go online once, give the folder of a "
            f"saved model, or take --text-encoder scratch ({' '.join(str(error).split())[:80]})"
        ) from None
    c = model.config
    if c.model_type != "bert":
        raise UserError(f"--text-encoder hf:{name}: it is a {c.model_type}; name a BERT, such as bert-base-uncased")
    bert = CrossBERT(
        c.vocab_size, width=c.hidden_size, heads=c.num_attention_heads, layers=c.num_hidden_layers,
        image=c.hidden_size, context=c.max_position_embeddings, inside=c.intermediate_size,
        dropout=c.hidden_dropout_prob,
    )  # fmt: skip
    bert.load_state_dict(model.bert.state_dict(), strict=False)
    head, known = LanguageHead(bert), model.cls.predictions
    head.dense.load_state_dict(known.transform.dense.state_dict())
    head.LayerNorm.load_state_dict(known.transform.LayerNorm.state_dict())
    head.bias.data.copy_(known.decoder.bias.detach())
    return bert, head


def matching_head(width: int) -> nn.Sequential:
    """Whether image and text belong together: Linear, GELU, LayerNorm (eps 1e-12), Linear to two logits."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, _EPS), nn.Linear(width, 2))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
