"""Texts: captions, reports."""

from __future__ import annotations

from typing import Any

from selftaught.data.kinds._kind import Kind
from selftaught.errors import SampleError

__all__ = ["Text"]


class Text(Kind):
    """A string, or a tuple of several that say the same thing (five captions of one image); a batch is their list."""

    name, plural, description = "text", "texts", "a text"
    layout, batched = "a string", "a list of N strings"

    def check(self, sample: Any, name: str) -> None:
        """Text, and not empty."""
        several = sample if isinstance(sample, tuple) else (sample,)
        if not several or not all(isinstance(one, str) for one in several):
            raise SampleError(name, f"{type(sample).__name__} where a text is a string or a tuple of strings")
        if not all(one.strip() for one in several):
            raise SampleError(name, "empty text")

    def adopt(self, sample: Any, name: str) -> Any:
        """A string, or a list of strings as a tuple."""
        text = tuple(sample) if isinstance(sample, list) else sample
        self.check(text, name)
        return text

    def stack(self, samples: list[Any]) -> list[Any]:
        """The list as it is: texts become numbers by a tokeniser."""
        return list(samples)

    def sides(self, sample: Any) -> tuple[int, ...]:
        """Number of characters, of several texts the first one's."""
        return (len(sample[0] if isinstance(sample, tuple) else sample),)
