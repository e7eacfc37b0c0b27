"""From texts to numbers: CLIP's byte-pair encoding, a tokeniser of whole words that needs nothing, those of others.

All give rows of one length: start, words, end, then zeros; a text that is too long is cut and its last place is the
end. Of the first two the end has the highest number, so that ``argmax`` finds it.
"""

from __future__ import annotations

import dataclasses
import html
import re
import unicodedata
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar, Protocol

import numpy as np

from selftaught._words import one_text
from selftaught.errors import UserError, require
from selftaught.views.operation import Op, executor
from selftaught.views.text._of_texts import OfTexts

__all__ = [
    "TOKENISERS",
    "ClipBPE",
    "HashedWords",
    "PretrainedTokens",
    "Tokenise",
    "Tokeniser",
    "token_rows",
    "tokeniser",
]

TOKENISERS = ("clip", "words-N", "hf:NAME")
"""What :func:`tokeniser` makes, N being a size such as 8192, NAME one on the Hugging Face hub or a folder."""

CONTEXT = 77
_WORD = re.compile(r"\w+|[^\w\s]")
_SIZE = re.compile(r"words(?:-([1-9]\d*))?")


class Tokeniser(Protocol):
    """What makes numbers of texts.

    Attributes:
        name: by which :func:`tokeniser` makes it again.
        vocabulary: numbers run from 0 to this less one; 0 fills up, the last is the end.
    """

    name: str
    vocabulary: int

    def encode(self, text: str) -> list[int]:
        """The numbers of a text without start and end."""

    def __call__(self, texts: str | Sequence[str], length: int = CONTEXT) -> np.ndarray:
        """(N, length) int64 of N texts."""


class _Padded(ABC):
    """Start, numbers, end, zeros."""

    vocabulary: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The numbers of a text without start and end."""

    def __call__(self, texts: str | Sequence[str], length: int = CONTEXT) -> np.ndarray:
        """(N, length) int64: start, the text's numbers, end, zeros; a longer text is cut, the last place is the end.

        Raises:
            UserError: a length below 3, or what is no text.
        """
        if length < 3:
            raise UserError(f"texts of {length} tokens: give 3 or more, for start, a word and the end")
        several = [texts] if isinstance(texts, str) else list(texts)
        found = np.zeros((len(several), length), dtype=np.int64)
        start, end = self.vocabulary - 2, self.vocabulary - 1
        for row, text in zip(found, several, strict=True):
            if not isinstance(text, str):
                raise UserError(f"a text is a string, got {type(text).__name__}")
            tokens = [start, *self.encode(_written(text))[: length - 2], end]
            row[: len(tokens)] = tokens
        return found


def _written(text: str) -> str:
    """A text without what no writing has: names of files that aren't UTF-8 bring it."""
    return text.encode("utf-8", "replace").decode()


class HashedWords(_Padded):
    """Words and punctuation marks, in lower case, each numbered by its checksum: no vocabulary to learn or to keep.

    Numbers lie in 1 .. vocabulary - 3; two words share one with a chance of 1 / (vocabulary - 3).

    Args:
        vocabulary: at least 16.
    """

    def __init__(self, vocabulary: int = 8192) -> None:
        if vocabulary < 16:
            raise UserError(f"words-{vocabulary}: a vocabulary has 16 entries or more")
        self.vocabulary, self.name = vocabulary, f"words-{vocabulary}"

    def encode(self, text: str) -> list[int]:
        """A number for every word and mark."""
        words = _WORD.findall(unicodedata.normalize("NFKC", html.unescape(text)).lower())
        return [1 + zlib.crc32(word.encode()) % (self.vocabulary - 3) for word in words]


class ClipBPE(_Padded):
    """CLIP's byte-pair encoding (Radford et al. 2021), 49,408 entries, with the vocabulary that open_clip brings.

    Raises:
        UserError: open_clip isn't installed; the extra is named.
    """

    def __init__(self) -> None:
        module: Any = require("open_clip.tokenizer", "clip")
        self._bpe = module.SimpleTokenizer()
        self.vocabulary, self.name = int(self._bpe.vocab_size), "clip"

    def encode(self, text: str) -> list[int]:
        """The numbers of the pairs that the text, in lower case, falls into."""
        return list(self._bpe.encode(text))


class PretrainedTokens:
    """A tokeniser of the transformers library (BERT's WordPiece and its like), from its cache, the hub or a folder.

    Args:
        place: name on the hub, or a folder.

    Attributes:
        mask: number of its mask, or -1.
        special: numbers that are no words.

    Raises:
        UserError: the library is missing; no such tokeniser is at hand; one that fills up with another number than 0.
    """

    def __init__(self, place: str) -> None:
        library: Any = require("transformers", "text")
        try:
            try:
                self._own = library.AutoTokenizer.from_pretrained(place, local_files_only=True)
            except OSError:
                self._own = library.AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError) as error:
            raise UserError(f"hf:{place}: no tokeniser at hand ({' '.join(str(error).split())[:80]})") from None
        if self._own.pad_token_id != 0:
            raise UserError(
                f"hf:{place}: its tokeniser fills up with {self._own.pad_token_id}; one that takes 0 is needed"
            )
        self.name, self.vocabulary = f"hf:{place}", len(self._own)
        self.mask = -1 if self._own.mask_token_id is None else int(self._own.mask_token_id)
        self.special = tuple(int(k) for k in self._own.all_special_ids)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text without start and end."""
        return list(self._own.encode(text, add_special_tokens=False))

    def __call__(self, texts: str | Sequence[str], length: int = CONTEXT) -> np.ndarray:
        """(N, length) int64: start, the text's numbers, end, zeros."""
        several = [texts] if isinstance(texts, str) else list(texts)
        found = self._own(several, padding="max_length", truncation=True, max_length=length, return_tensors="np")
        return np.asarray(found["input_ids"], dtype=np.int64)


@cache
def tokeniser(name: str) -> Tokeniser:
    """The tokeniser of that name, made once per process.

    Args:
        name: "clip", "words-8192" for hashed words of a vocabulary of that size, or "hf:bert-base-uncased".

    Raises:
        UserError: no such tokeniser; open_clip or transformers isn't installed.
    """
    if name == "clip":
        return ClipBPE()
    if name.startswith("hf:"):
        return PretrainedTokens(name.removeprefix("hf:"))
    match = _SIZE.fullmatch(name)
    if match is None:
        raise UserError(f"no tokeniser {name!r}; there are {', '.join(TOKENISERS)}")
    return HashedWords(int(match.group(1) or 8192))


def token_rows(name: str, texts: Sequence[str], length: int = CONTEXT) -> np.ndarray:
    """(N, length) int64 of N texts, as ``tokeniser(name)(texts, length)`` gives them; texts that come again in every
    step (instructions, questions) are numbered once in a process.

    Args:
        name: see :func:`tokeniser`.
        texts: N texts; the last 65,536 that differ are remembered.
        length: of every row.

    Raises:
        UserError: as :func:`tokeniser` and the tokeniser itself.
    """
    rows = [_row(name, text, length) for text in texts]
    return np.stack(rows) if rows else np.zeros((0, length), dtype=np.int64)


@lru_cache(maxsize=1 << 16)
def _row(name: str, text: str, length: int) -> np.ndarray:
    return tokeniser(name)(text, length)[0]


@dataclasses.dataclass(frozen=True, repr=False)
class Tokenise(OfTexts, Op):
    """A text as numbers (length,) int64; of several texts the first.

    Args:
        tokeniser: "words-8192" (default), "clip" or "hf:NAME"; see :func:`tokeniser`.
        length: of every row (default 77).

    Raises:
        UserError: an unknown tokeniser, a length below 3.
    """

    tokeniser: str = "words-8192"
    length: int = CONTEXT

    columns: ClassVar = ()

    def __post_init__(self) -> None:
        known = self.tokeniser == "clip" or self.tokeniser.startswith("hf:") or _SIZE.fullmatch(self.tokeniser)
        if not known:
            raise UserError(f"Tokenise: no tokeniser {self.tokeniser!r}; there are {', '.join(TOKENISERS)}")
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 3:
            raise UserError(f"Tokenise: length is a whole number, 3 or more, got {self.length!r}")

    def draw_shape(self, u: Any, shape: tuple[int, ...], kind: str) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """Nothing is drawn; a row of numbers comes out."""
        return super().draw_shape(u, shape, kind)[0], (self.length,)


@executor(Tokenise, "text")
def _tokenise(x: Any, op: Tokenise, values: Any) -> np.ndarray:
    return tokeniser(op.tokeniser)(one_text(x), op.length)[0]
