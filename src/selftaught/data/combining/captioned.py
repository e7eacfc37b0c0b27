"""Samples with texts of their own: pictures and their captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selftaught.data.fields import LABEL, Field
from selftaught.data.scaling import ValueRange
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["TEXT", "Captioned", "captioned", "captions_in"]

TEXT = "text"
"""The field of the captions."""


class Captioned(Source):
    """The samples of a source, each with a text or several that say the same of it, in the field ``text``."""

    def __init__(self, source: Source, texts: Sequence[Sequence[str]], *, name: str | None = None) -> None:
        """Give the samples of a source their texts.

        Args:
            source: the samples; all its fields stay.
            texts: the texts of each sample; none for a sample without a text, which can't be used where texts are
                asked for, and is a sample like any other where they aren't.
            name: what to call the source; None: as before.

        Raises:
            UserError: as many texts as there are samples are needed; the source has a field "text" already.
        """
        if len(texts) != len(source):
            raise UserError(f"{source.name}: texts of {len(texts)} samples for {len(source)}; give one entry for each")
        if TEXT in source.fields:
            raise UserError(f"{source.name}: its samples have a field {TEXT!r} already")
        self.source = source
        self.texts = [tuple(t for t in (text.strip() for text in several) if t) for several in texts]
        self.name, self.names, self.modality = name or source.name, source.names, source.modality
        self.channels, self.depth, self.generated = source.channels, source.depth, source.generated
        self.bands = source.bands
        self.classes, self.rate, self.values = source.classes, source.rate, source.values
        self.notes, self.left_out = source.notes, source.left_out
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))

    @property
    def missing(self) -> int:
        """How many samples have no text."""
        return sum(not texts for texts in self.texts)

    @property
    def fields(self) -> dict[str, Field]:
        """The main field, the text, then whatever else the source has."""
        main, *others = self.source.fields.items()
        kept = {name: field for name, field in others if name != LABEL or self.labels is not None}
        return {main[0]: main[1], TEXT: Field(TEXT)} | kept

    def read(self, i: int, min_side: int | None = None, **which: Any) -> Any:
        """The main field of one sample; see `Source.read`."""
        return self.source.read(i, min_side, **which)

    def read_checked(self, i: int) -> Any:
        """The main field of one sample as its file has it, after its text."""
        self._field(TEXT, i, None, None)
        return self.source.read_checked(i)

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name == TEXT:
            if not self.texts[i]:
                raise SampleError(self.names[i], "no caption")
            return self.texts[i][0] if len(self.texts[i]) == 1 else self.texts[i]
        if name == LABEL:
            return super()._field(name, i, None, None)
        return self.source.sample(i, [name], min_side, frames)[name]

    def frames(self, i: int) -> int:
        """Of the source's clip."""
        return self.source.frames(i)

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """The source's."""
        return self.source.value_range

    def range_of(self, field: str) -> ValueRange | None:
        """The source's, of any field but the text."""
        return None if field == TEXT else self.source.range_of(field)

    def origin(self) -> str:
        """The source's."""
        return self.source.origin()

    def fingerprint(self) -> str:
        """Of the source and of the texts."""
        return digest("captioned", self.source.fingerprint(), ["\0".join(texts) for texts in self.texts], self.labels)

    def describe(self) -> str:
        """One line, the captions at its end."""
        several = sum(len(texts) for texts in self.texts) - (len(self) - self.missing)
        more = f", {self.missing:,} without" if self.missing else ""
        return f"{super().describe()}, each with {'captions' if several else 'a caption'}{more}"


def captioned(source: Source) -> Source:
    """A source with texts as it is; another one with the names of its classes as the captions of their samples.

    Raises:
        UserError: neither texts nor named classes.
    """
    if TEXT in source.fields:
        return source
    if source.labels is None or not source.classes or (np.asarray(source.labels) < 0).all():
        raise UserError(
            f"{source.name} has no captions: put NAME.txt beside NAME.jpg, or a captions.csv with the columns name and "
            "text into the folder, or name both: pairs:?image=FOLDER&text=FILE"
        )
    spoken = [name.replace("_", " ").replace("-", " ") for name in source.classes]
    found = Captioned(source, [[spoken[k]] if k >= 0 else [] for k in np.asarray(source.labels).tolist()])
    found.notes = [*source.notes, "no captions: the names of the classes stand for them"]
    return found


def captions_in(value: Any) -> list[str]:
    """The captions in a cell: a text, or a list of texts; none in anything else."""
    several = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return [one for one in several if isinstance(one, str) and one.strip()]
