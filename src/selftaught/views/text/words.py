"""Texts with some words less, exchanged or replaced: easy data augmentation (EDA, Wei and Zou 2019, arXiv 1901.11196).

The functions take a text and a random generator; the operations of the same kind draw the generator's seed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from selftaught._reading import text_of
from selftaught.errors import UserError
from selftaught.views.operation import Op, checked_probability, executor, freeze
from selftaught.views.text._of_texts import SEEDS, OfTexts
from selftaught.views.text._synonyms import GROUPS

__all__ = [
    "STOP_WORDS", "AugmentText", "DropStopWords", "PickText", "augment_text", "delete_words", "drop_stop_words",
    "replace_synonyms", "swap_words", "synonym_table",
]  # fmt: skip

STOP_WORDS = frozenset(
    """a about above after again against all am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here hers
    herself him himself his how i if in into is it its itself just me more most my myself no nor not now of off on once
    only or other our ours ourselves out over own same she should so some such than that the their theirs them
    themselves then there these they this those through to too under until up very was we were what when where which
    while who whom why will with you your yours yourself yourselves""".split()  # noqa: SIM905
)
"""English words that say little by themselves."""

_LETTERS = re.compile(r"[^\w]+")

Synonyms = Mapping[str, tuple[str, ...]]


def _plain(word: str) -> str:
    return _LETTERS.sub("", word).lower()


def drop_stop_words(text: str) -> str:
    """The text without English stop words; as it is where nothing else would be left."""
    kept = [word for word in text.split() if _plain(word) not in STOP_WORDS]
    return " ".join(kept) if kept else text


def swap_words(text: str, rng: np.random.Generator, n: int = 1) -> str:
    """The text with two words exchanged, ``n`` times; one word stays."""
    words = text.split()
    for _ in range(n if len(words) > 1 else 0):
        i, j = rng.choice(len(words), 2, replace=False)
        words[i], words[j] = words[j], words[i]
    return " ".join(words)


def delete_words(text: str, rng: np.random.Generator, p: float = 0.1) -> str:
    """The text without each word with probability ``p``; one drawn word stays where all would go."""
    words = text.split()
    kept = [word for word, u in zip(words, rng.random(len(words)), strict=True) if u >= p]
    if not kept and words:
        kept = [words[int(rng.integers(len(words)))]]
    return " ".join(kept)


def replace_synonyms(text: str, rng: np.random.Generator, n: int = 1, synonyms: Synonyms | None = None) -> str:
    """The text with up to ``n`` words replaced by one of their synonyms; stop words stay.

    Args:
        text: the text.
        rng: draws the words and their synonyms.
        n: how many words at most.
        synonyms: word -> its synonyms; None is the small built-in table.
    """
    table = synonym_table("") if synonyms is None else synonyms
    words = text.split()
    able = [i for i, word in enumerate(words) if _plain(word) in table and _plain(word) not in STOP_WORDS]
    for i in rng.permutation(able)[:n].tolist() if able else []:
        choices = table[_plain(words[i])]
        words[i] = choices[int(rng.integers(len(choices)))]
    return " ".join(words)


def augment_text(
    text: str,
    rng: np.random.Generator,
    *,
    synonym: float = 0.4,
    swap: float = 0.4,
    delete: float = 0.2,
    identity: float = 0.0,
    synonyms: Synonyms | None = None,
) -> str:
    """Exactly one of EDA's operations, chosen with these weights (arXiv 2305.08675: 0.4, 0.4, 0.2, 0)."""
    weights = np.array([synonym, swap, delete, identity], dtype=np.float64)
    which = int(np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(), side="right"))
    if which == 0:
        return replace_synonyms(text, rng, 1, synonyms)
    return swap_words(text, rng) if which == 1 else delete_words(text, rng) if which == 2 else text


@cache
def synonym_table(path: str) -> Synonyms:
    """Word -> its synonyms, from a file with a group of synonyms in each line, separated by commas; "" is built in.

    Raises:
        UserError: it can't be read.
    """
    try:
        lines = text_of(path).splitlines() if path else GROUPS
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no table of synonyms ({error})") from None
    found: dict[str, dict[str, None]] = {}
    for line in lines:
        group = [word.strip() for word in line.split(",") if word.strip()]
        for word in group:
            found.setdefault(word, {}).update({other: None for other in group if other != word})
    return {word: tuple(others) for word, others in found.items() if others}


@dataclasses.dataclass(frozen=True, repr=False)
class PickText(OfTexts, Op):
    """One of several texts that say the same, drawn evenly; a single text stays."""

    columns: ClassVar = ("which",)
    draws: ClassVar = 1


@executor(PickText, "text")
def _pick(x: Any, op: PickText, values: Any) -> str:
    return x if isinstance(x, str) else x[int(values[0] * len(x))]


@dataclasses.dataclass(frozen=True, repr=False)
class DropStopWords(OfTexts, Op):
    """With probability ``p`` (default 0.8) a text without English stop words; see :func:`drop_stop_words`."""

    p: float = 0.8

    columns: ClassVar = ("apply",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        freeze(self, p=checked_probability("DropStopWords", self.p))


@executor(DropStopWords, "text")
def _drop(x: Any, op: DropStopWords, values: Any) -> Any:
    if values[0] >= op.p:
        return x
    return drop_stop_words(x) if isinstance(x, str) else tuple(map(drop_stop_words, x))


@dataclasses.dataclass(frozen=True, repr=False)
class AugmentText(OfTexts, Op):
    """Exactly one of EDA's operations on a text; see :func:`augment_text`.

    Args:
        synonym: weight of replacing a word by a synonym (default 0.4).
        swap: weight of exchanging two words (default 0.4).
        delete: weight of leaving words out (default 0.2).
        identity: weight of changing nothing (default 0).
        synonyms: file of synonyms (see :func:`synonym_table`); "" (default) is a small built-in table.

    Raises:
        UserError: negative weights, or all zero.
    """

    synonym: float = 0.4
    swap: float = 0.4
    delete: float = 0.2
    identity: float = 0.0
    synonyms: str = ""

    columns: ClassVar = ("seed",)
    draws: ClassVar = 1

    def __post_init__(self) -> None:
        weights = (self.synonym, self.swap, self.delete, self.identity)
        if any(isinstance(w, bool) or not isinstance(w, int | float) or w < 0 for w in weights) or not sum(weights):
            raise UserError(f"AugmentText: weights are 0 or more and not all 0, got {weights}")


@executor(AugmentText, "text")
def _augment(x: Any, op: AugmentText, values: Any) -> Any:
    rng = np.random.default_rng(int(values[0] * SEEDS))
    weights: dict[str, Any] = {name: getattr(op, name) for name in ("synonym", "swap", "delete", "identity")}
    weights["synonyms"] = synonym_table(op.synonyms)
    return augment_text(x, rng, **weights) if isinstance(x, str) else tuple(augment_text(t, rng, **weights) for t in x)
