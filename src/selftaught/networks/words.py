"""Texts as numbers without any download: a vocabulary of words, TF-IDF vectors, and a small transformer of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.errors import UserError

__all__ = ["TfIdf", "Vocabulary", "WordPool", "WordTransformer", "dropped_linear", "words_of"]

_WORD = re.compile(r"(?u)\b\w\w+\b")
PAD, UNKNOWN = 0, 1


def words_of(text: str, ngrams: int = 1) -> list[str]:
    """Words of two letters or more in lower case, and with ``ngrams`` above 1 their runs, joined by blanks."""
    words = _WORD.findall(text.lower())
    return [" ".join(words[i : i + n]) for n in range(1, ngrams + 1) for i in range(len(words) - n + 1)]


class Vocabulary(nn.Module):
    """The commonest words of some texts, with the number of texts that each is in; both are in the state dict.

    Args:
        size: most words.
        ngrams: longest run of words that counts as one.

    Attributes:
        documents: (size,) float64, texts that each word is in; 0 beyond the last word.
        texts: () float64, how many texts there were.
    """

    spelt: Tensor
    documents: Tensor
    texts: Tensor

    def __init__(self, size: int = 5000, ngrams: int = 1) -> None:
        super().__init__()
        self.size, self.ngrams = size, ngrams
        self.register_buffer("spelt", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("documents", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("texts", torch.zeros((), dtype=torch.float64))
        self._numbers: dict[str, int] = {}

    def fit(self, texts: Iterable[str]) -> None:
        """Take the commonest words of some texts; of equally common ones the first by the alphabet.

        Raises:
            UserError: there is no word.
        """
        counts: Counter[str] = Counter()
        total = 0
        for text in texts:
            counts.update(set(words_of(text, self.ngrams)))
            total += 1
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: self.size]
        if not kept:
            raise UserError("the texts hold no word of two letters or more: there is no vocabulary to take from them")
        self.spelt = torch.from_numpy(np.frombuffer("\n".join(kept).encode(), np.uint8).copy()).to(self.spelt.device)
        self.documents.zero_()
        self.documents[: len(kept)] = torch.tensor([float(counts[word]) for word in kept], dtype=torch.float64)
        self.texts.fill_(total)
        self._numbers = {word: k for k, word in enumerate(kept)}

    @property
    def words(self) -> list[str]:
        """The words, the commonest first."""
        text = bytes(self.spelt.cpu().numpy()).decode()
        return text.split("\n") if text else []

    @property
    def numbers(self) -> dict[str, int]:
        """Word -> its place."""
        if not self._numbers:
            self._numbers = {word: k for k, word in enumerate(self.words)}
        return self._numbers

    def copy_from(self, other: Vocabulary) -> None:
        """Take over another vocabulary of the same size."""
        self.spelt, self._numbers = other.spelt.clone(), dict(other.numbers)
        self.documents.copy_(other.documents)
        self.texts.copy_(other.texts)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        """Words of any number of letters fit."""
        stored = state.get(f"{prefix}spelt")
        if stored is not None:
            self.spelt, self._numbers = torch.empty_like(stored, device=self.spelt.device), {}
        super()._load_from_state_dict(state, prefix, *more)


class TfIdf(nn.Module):
    """Vectors of unit length: how often each word is in the text, times ln((1 + n) / (1 + n_w)) + 1.

    Args:
        size: words at most; the width of a vector.
        ngrams: longest run of words that counts as one.

    Attributes:
        dim: width of a vector.
    """

    def __init__(self, size: int = 5000, ngrams: int = 1) -> None:
        super().__init__()
        self.dim = size
        self.vocabulary = Vocabulary(size, ngrams)

    def vectorise(self, texts: Sequence[str]) -> Tensor:
        """(N, size) float32; a text without a known word is 0."""
        numbers, known = self.vocabulary.numbers, self.vocabulary
        found = torch.zeros(len(texts), self.dim, dtype=torch.float64)
        for row, text in enumerate(texts):
            counts = Counter(numbers[w] for w in words_of(text, known.ngrams) if w in numbers)
            if counts:
                found[row, list(counts)] = torch.tensor(list(counts.values()), dtype=torch.float64)
        idf = ((1 + known.texts) / (1 + known.documents)).log().cpu() + 1
        return F.normalize(found * idf, dim=1).float()

    def forward(self, x: Tensor) -> Tensor:
        """Vectors pass as they are: (N, size)."""
        return x


def dropped_linear(x: Tensor, weight: Tensor, bias: Tensor, share: float, count: int) -> Tensor:
    """A linear layer over ``count`` dropouts of the same vectors, mostly 0: only their other numbers are drawn.

    Computed on the CPU by numpy, several times as quick as torch with so few numbers, and without gradient.

    Args:
        x: (N, D).
        weight: (K, D).
        bias: (K,).
        share: of the numbers that is dropped; the others are divided by 1 - share.
        count: dropouts.

    Returns:
        (count, N, K).
    """
    given, by_word = (tensor.detach().cpu().numpy() for tensor in (x, weight.t()))
    there = np.flatnonzero(given != 0)
    rows, columns = np.divmod(there, given.shape[1])
    kept = (torch.rand(count, len(there)) >= share).numpy()
    parts = (kept * (given.ravel()[there] / (1 - share)).astype(given.dtype))[..., None] * by_word[columns]
    sums = np.zeros((count, len(given), len(bias)), given.dtype)
    first = np.flatnonzero(np.diff(rows, prepend=-1))  # of every row that is not 0 throughout
    if len(first):
        sums[:, rows[first]] = np.add.reduceat(parts, first, axis=1)
    return torch.from_numpy(sums).to(x.device) + bias.detach()


class WordTransformer(nn.Module):
    """Word and position embeddings, pre-norm blocks, the mean over words: a text encoder small enough for a laptop.

    Args:
        size: words of the vocabulary.
        length: words of a text that are read.
        dim: width of an embedding.
        depth: blocks.
        heads: of each block.
        dropout: of the embeddings and in the blocks.

    Attributes:
        dim: width of an embedding.
    """

    def __init__(
        self, size: int = 5000, length: int = 128, *, dim: int = 64, depth: int = 2, heads: int = 4,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.length = dim, length
        self.vocabulary = Vocabulary(size)
        self.embedding = nn.Embedding(size + 2, dim, padding_idx=PAD)
        self.positions = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, length, dim), std=0.02))
        self.dropout = nn.Dropout(dropout)
        options: dict[str, Any] = {"batch_first": True, "norm_first": True, "activation": "gelu", "dropout": dropout}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(dim, heads, 4 * dim, **options) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def vectorise(self, texts: Sequence[str]) -> Tensor:
        """Numbers of the first words, (N, length) int64: 0 fills up, 1 is a word that is not known."""
        numbers = self.vocabulary.numbers
        found = torch.zeros(len(texts), self.length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = [numbers[word] + 2 if word in numbers else UNKNOWN for word in words_of(text)][: self.length]
            words = words or [UNKNOWN]
            found[row, : len(words)] = torch.tensor(words)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(N, length) numbers of words to (N, dim)."""
        used = max(1, int((x != PAD).sum(1).max()))
        x = x[:, :used]
        filled = x == PAD
        h = self.dropout(self.embedding(x) + self.positions[:, :used])
        for block in self.blocks:
            h = block(h, src_key_padding_mask=filled)
        there = (~filled).unsqueeze(2)
        return (self.norm(h) * there).sum(1) / there.sum(1).clamp_min(1)


class WordPool(nn.Module):
    """Tokens (N, L) -> (N, width): each word with its place through a residual layer, summed up; learns within minutes.

    The sum is divided by the root of the number of words, so that one word out of a few makes a difference.

    Args:
        vocabulary: number of tokens; 0 fills up and is not looked at.
        context: longest text in tokens.
        width: of a feature.

    Raises:
        UserError: longer texts than the context, tokens outside the vocabulary (looked at on the CPU).
    """

    def __init__(self, vocabulary: int = 1024, *, context: int = 32, width: int = 64) -> None:
        super().__init__()
        self.vocabulary, self.context, self.dim = vocabulary, context, width
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.1 * torch.randn(context, width))
        self.layer, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features of texts."""
        if tokens.dim() != 2 or tokens.shape[1] > self.context or tokens.is_floating_point():
            raise UserError(f"texts are (N, {self.context} or fewer) whole numbers, got {tuple(tokens.shape)}")
        if tokens.device.type == "cpu" and len(tokens) and int(tokens.max()) >= self.vocabulary:
            raise UserError(f"token {int(tokens.max())} in a vocabulary of {self.vocabulary}: of another tokeniser")
        there = (tokens != PAD).unsqueeze(2)
        h = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        h = (h + self.out(F.silu(self.layer(h)))) * there
        return h.sum(1) / there.sum(1).clamp_min(1).sqrt()
