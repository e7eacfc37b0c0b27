"""What is known of the images of a folder besides their pixels: a CSV file beside them, one line per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selftaught.data.csv_rows import csv_rows
from selftaught.data.naming import finder
from selftaught.data.source import Source
from selftaught.errors import UserError

METADATA, LOCATIONS = "metadata.csv", "locations.csv"
_SEPARATORS = ("|", ";")


@dataclass(frozen=True)
class Metadata:
    """The lines of a CSV file that belong to images of a source.

    Attributes:
        path: the file.
        rows: (n,) int64, positions in the source of the images that have a line.
        columns: name of a column (lower case) -> its n values as text, "" where there is none.
    """

    path: Path
    rows: np.ndarray
    columns: dict[str, list[str]]

    def column(self, name: str) -> list[str]:
        """The values of a column.

        Raises:
            UserError: no such column.
        """
        if name.lower() not in self.columns:
            raise UserError(f"{self.path} has no column {name!r}; it has {', '.join(self.columns)}")
        return self.columns[name.lower()]

    def numbers(self, *names: str) -> np.ndarray:
        """Columns of numbers as (n, len(names)) float64.

        Raises:
            UserError: no such column, or a value that is no number.
        """
        found = np.empty((len(self.rows), len(names)))
        for k, name in enumerate(names):
            for i, value in enumerate(self.column(name)):
                try:
                    found[i, k] = float(value)
                except ValueError:
                    raise UserError(f"{self.path}: {name} is {value!r}, not a number") from None
        return found

    def lists(self, name: str) -> list[tuple[str, ...]]:
        """A column whose cells hold several values, with ``|`` or ``;`` between them."""
        return [split_cell(value) for value in self.column(name)]

    def some(self, positions: np.ndarray) -> Metadata:
        """The lines of the images at these positions of the source, in that order; all must have one."""
        where = {int(row): k for k, row in enumerate(self.rows)}
        kept = [where[int(p)] for p in positions]
        columns = {name: [values[k] for k in kept] for name, values in self.columns.items()}
        return Metadata(self.path, np.asarray(positions, dtype=np.int64), columns)


def split_cell(value: str) -> tuple[str, ...]:
    """The values in one cell, with ``|`` or ``;`` between them."""
    for other in _SEPARATORS[1:]:
        value = value.replace(other, _SEPARATORS[0])
    return tuple(part.strip() for part in value.split(_SEPARATORS[0]) if part.strip())


def read_metadata(path: Path, source: Source, needed: Sequence[str] = ()) -> Metadata:
    """Read a CSV file with a column ``name`` and find the image of each line.

    Args:
        path: the file; its first line names the columns.
        source: the images; ``name`` is their path in the folder ("cats/001.jpg") or the file's own name, with or
            without its suffix.
        needed: columns that must be there.

    Returns:
        The lines whose image the source has; images without a line, and lines without an image, are left out.

    Raises:
        UserError: no such file, a column that is missing, no line that names an image of the source, a line whose
            name two images have.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; write one with the columns {', '.join(['name', *needed])}")
    lines = [{k.strip().lower(): (v or "").strip() for k, v in line.items() if k} for line in csv_rows(path)]
    if not lines:
        raise UserError(f"{path}: no line below the one that names the columns")
    names = list(lines[0])
    missing = [name for name in ("name", *(n.lower() for n in needed)) if name not in names]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; it has {', '.join(names) or 'none'}")
    called, where = finder(source.names, path), {name: i for i, name in enumerate(source.names)}
    matched = {where[image]: line for line in lines if (image := called(line["name"])) is not None}
    if not matched:
        example = source.names[0] if len(source) else "?"
        raise UserError(f"{path}: no line names an image of {source.name}; they are called like {example}")
    rows = sorted(matched)
    columns = {name: [matched[i].get(name, "") for i in rows] for name in names}
    return Metadata(path, np.array(rows, dtype=np.int64), columns)
