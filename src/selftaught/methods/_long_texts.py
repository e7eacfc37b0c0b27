"""Texts of a source that a text tower cuts off."""

from __future__ import annotations

import numpy as np

from selftaught._words import plural
from selftaught.data import Source
from selftaught.errors import SampleError
from selftaught.views import tokeniser

__all__ = ["note_long_texts"]

_LOOKED_AT, _FEW = 1000, 0.01


def note_long_texts(source: Source, name: str, length: int, option: str) -> None:
    """Add a note to a source where more than one in a hundred of its texts are cut.

    Args:
        source: samples with a field ``text``, of which at most 1,000 are looked at.
        name: of the tokeniser.
        length: tokens of a row; start and end are two of them.
        option: what lengthens it.
    """
    encode, seen = tokeniser(name).encode, list[int]()
    for i in np.unique(np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(np.int64)).tolist():
        try:
            found = source.sample(i, ["text"])["text"]
        except SampleError:
            continue
        seen += [len(encode(text)) + 2 for text in ([found] if isinstance(found, str) else found)]
    cut = sum(count > length for count in seen)
    if cut > _FEW * len(seen):
        told = f"{cut:,} of {plural(len(seen), 'text')} looked at are longer than {length} tokens and are cut"
        source.notes = [*source.notes, f"{told} ({option} {max(seen)} takes all)"]
