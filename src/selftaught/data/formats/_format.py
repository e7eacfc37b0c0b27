"""What a format says of itself, so that `open_source` finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftaught.data.files import holds_any
from selftaught.data.source import Source

__all__ = ["ANY", "Build", "Format"]

ANY = ""
"""The kind of a format that can hold several; its builders get the wanted kind as their last positional argument."""

Build = Callable[..., Source]
"""Opens a source; its keyword-only arguments are the options."""


@dataclass(frozen=True)
class Format:
    """One way that samples lie on disk or in memory.

    Every builder takes its options as keyword arguments of their own; the positional ones are named below.

    Attributes:
        kind: of the samples, or `ANY`.
        rank: where several formats fit, the lowest is taken.
        suffixes: of its files, in lower case.
        file: build(path, name): one file with such a suffix.
        files: build(paths, name): a list of such files.
        folder: build(path, name): a folder of them.
        holds: whether a folder is one of this format; None: it is where a file below it has one of the suffixes.
        pattern: build(pattern): a glob pattern of such files.
        scheme: what stands before the colon of ``scheme:ADDRESS``.
        address: build(address): what stands behind it.
        arrays: build(data, name): an array, a tensor or a dict of arrays.
        reads: of a path and the options: whether a file of its suffixes, or a folder where `holds` is None, is one of
            this format; None: all are.
    """

    kind: str
    rank: int = 5
    suffixes: tuple[str, ...] = ()
    file: Build | None = None
    files: Build | None = None
    folder: Build | None = None
    holds: Callable[[Path], bool] | None = None
    pattern: Build | None = None
    scheme: str = ""
    address: Build | None = None
    arrays: Build | None = None
    reads: Callable[[Path, Mapping[str, Any]], bool] | None = None

    def fits(self, kind: str | None) -> bool:
        """Whether it can give samples of this kind; None: whichever."""
        return kind is None or self.kind in (ANY, kind)

    def is_folder(self, path: Path, options: Mapping[str, Any]) -> bool:
        """Whether a folder, opened with these options, holds what this format reads."""
        if self.holds is not None:
            return self.holds(path)
        return holds_any(path, self.suffixes) if self.reads is None else self.reads(path, options)

    def more(self, kind: str | None) -> tuple[Any, ...]:
        """What its builders get behind their other positional arguments."""
        return (kind or "image",) if self.kind == ANY else ()
