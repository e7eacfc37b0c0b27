"""The samples of a source after a function."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from selftaught.data.fields import LABEL, Field
from selftaught.data.kinds import kind_of
from selftaught.data.scaling import ValueRange, robust_range
from selftaught.data.source import PER_SAMPLE, Source, digest
from selftaught.errors import SampleError, UserError

__all__ = ["Adopt", "Mapped"]

_TRIED = 5


class Mapped(Source):
    """The samples of a source after a function."""

    def __init__(self, source: Source, function: Callable[[Any], Any], kind: str | None = None) -> None:
        """Change the main field of a source; its other fields stay.

        Args:
            source: the samples.
            function: sample -> sample; it sees images at full size. It may raise `SampleError`. It goes to loader
                workers, so it must be picklable: a function of a module or an object of a class, no lambda.
            kind: what it returns; None: the source's kind. The main field is called by it where it is another.

        Raises:
            UserError: a function that can't be pickled.
        """
        try:
            self._stamp = digest("mapped", pickle.dumps(function).hex(), _code(function))
        except Exception:
            raise UserError(
                f"{function!r} can't go to loader workers; define it with def at the top of a module"
            ) from None
        self.source, self.function = source, function
        self.name, self.names, self.modality = source.name, source.names, kind or source.modality
        self.classes, self.generated, self.rate, self.notes = (
            source.classes,
            source.generated,
            source.rate,
            source.notes,
        )
        for attribute in PER_SAMPLE:
            setattr(self, attribute, getattr(source, attribute))
        self.values, self._dtype = source.values, None
        for i in range(min(len(source), _TRIED)):
            try:
                first = self.read(i)
            except SampleError:
                continue
            self.channels, self._dtype = kind_of(self.modality).channels(first), getattr(first, "dtype", None)
            self.bands = source.bands or source.channels != 4
            break
        self._range: ValueRange | None = None
        self._ranged = False

    @property
    def fields(self) -> dict[str, Field]:
        """The source's, the first of them of the new kind."""
        main, *others = self.source.fields.items()
        name = main[0] if main[1].kind == self.modality else self.modality
        kept = {n: f for n, f in others if n != LABEL or self.labels is not None}
        return {name: Field(self.modality, self.channels)} | kept

    def read(self, i: int, min_side: int | None = None, **which: Any) -> Any:
        """One sample after the function; see `Source.read`."""
        try:
            sample = self.function(self.source.read(i, None, **which))
            kind_of(self.modality).check(sample, self.names[i])
        except SampleError as error:
            raise SampleError(self.names[i], error.reason) from None
        return sample

    def _field(self, name: str, i: int, min_side: int | None, frames: np.ndarray | None) -> Any:
        if name in self.values or name in (LABEL, self.main):
            return super()._field(name, i, min_side, frames)
        return self.source.sample(i, [name], None, frames)[name]

    def frames(self, i: int) -> int:
        """Of the source's clip, where the function makes clips of clips."""
        return self.source.frames(i) if kind_of(self.modality).framed else super().frames(i)

    def space(self, i: int) -> Any:
        """The source's, where the function leaves volumes their size; else not known."""
        found = self.source.space(i) if self.modality == self.source.modality else None
        return found if found is not None and self.read(i).shape[:3] == found.read_shape else None

    def any_depth(self) -> None:
        """Of the source."""
        super().any_depth()
        self.source.any_depth()

    @property
    def value_range(self) -> ValueRange | None:
        """Chosen over the results, where they are pixels other than uint8."""
        if not self._ranged:
            wanted = kind_of(self.modality).pixels and self._dtype != np.uint8
            self._range, self._ranged = robust_range(self) if wanted else None, True
        return self._range

    def range_of(self, field: str) -> ValueRange | None:
        """Of the main field its own, of the others the source's."""
        return self.value_range if field == self.main else self.source.range_of(field)

    def origin(self) -> str:
        """The source's, with the name of the function."""
        return f"{self.source.origin()} {getattr(self.function, '__qualname__', type(self.function).__name__)}"

    def fingerprint(self) -> str:
        """Of the source and of the function: its name, its state and its own code."""
        return digest(self.source.fingerprint(), self._stamp, self.modality, self.labels)


class Adopt:
    """A function that makes one kind of another, where that is plain: a mask or a depth map of a grey picture."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, sample: Any) -> Any:
        """The sample as one of the kind; SampleError where it can't be."""
        return kind_of(self.kind).adopt(sample, "")


def _code(function: Callable[[Any], Any]) -> list[str]:
    """The instructions and plain constants of a function, so that another body is another function."""
    inner = getattr(function, "func", function)
    code = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    if code is None:
        return []
    return [code.co_code.hex(), *[repr(c) for c in code.co_consts if isinstance(c, int | float | str | bytes)]]
