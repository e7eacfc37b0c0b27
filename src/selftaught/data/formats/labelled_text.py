"""Texts with a class each in tables: reviews.csv with the columns text and label, or the same as .jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.data.files import holds_any, walk
from selftaught.data.formats._format import Format
from selftaught.data.formats.text import TEXT_COLUMNS, read_rows
from selftaught.data.labelling import labelling
from selftaught.data.source import TEST, TRAIN, VAL, Source, digest
from selftaught.data.spec import near
from selftaught.errors import SampleError, UserError

__all__ = ["FORMATS", "LabelledTexts", "open_labelled_texts"]

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "y")
_MORE_TEXT = (*TEXT_COLUMNS, "review", "content", "message", "comment", "body", "tweet", "title")
_GROUPS, _PARTS, _NAMES = ("group", "subject", "author", "user"), ("split", "part", "fold"), ("name", "id", "key")
_SPLITS = {"train": TRAIN, "training": TRAIN, "test": TEST, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL}


class LabelledTexts(Source):
    """Texts in memory, each with a class."""

    modality = "text"

    def __init__(
        self, texts: Sequence[str], labels: Any, name: str, *, names: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """Args: n texts; their labels (see `labelling`); what to call the source; name of each; names of classes."""
        self.name, self._texts = name, [text.strip() for text in texts]
        self.names = list(names) if names is not None else [f"{i:05d}" for i in range(len(texts))]
        found = labelling(labels, classes)
        self.labels, self.classes, self.targets, self.given = found.labels, found.classes, found.targets, found.given
        self.notes = found.notes

    def read(self, i: int, min_side: int | None = None) -> Any:
        """One text; see `Source.read`."""
        if not self._texts[i]:
            raise SampleError(self.names[i], "empty text")
        return self._texts[i]

    def fingerprint(self) -> str:
        """Of the content."""
        return digest("labelled texts", list(self.names), self._texts, self.labels, self.classes or [], self.targets)


def open_labelled_texts(
    path: Path,
    name: str,
    *,
    label: str | None = None,
    column: str | None = None,
    key: str | None = None,
    group: str | None = None,
    part: str | None = None,
) -> LabelledTexts:
    """A table of texts with classes: .csv or .tsv whose first line names the columns, or .jsonl.

    A column called split or part (train, val, test) brings a given split, one called author, subject or group says
    whose samples belong together. Cells without a label are samples without one.

    Args:
        path: the file.
        name: what to call the source.
        label: column of the classes; None: the first called label, class, category, sentiment ...
        column: column of the texts; None: the first called text, review, message ...
        key: column that names the rows, no two alike; None: name or id where there is one, else their numbers.
        group: column of the groups; None: the first called author, subject, user, group, if there is one.
        part: column of the split; None: the first called split or part, if there is one.

    Raises:
        UserError: it can't be read, has no such columns, or names that occur twice.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: there is no line in it")
    columns = {
        "column": _column(path, rows[0], column, _MORE_TEXT, "column"),
        "label": _column(path, rows[0], label, LABEL_COLUMNS, "label"),
    }
    for what in columns:
        if columns[what] is None:
            has = ", ".join(map(str, rows[0]))
            held = "texts" if what == "column" else "classes"
            raise UserError(f"{path}: which column holds the {held}? say {what}=NAME; it has {has}")
    texts = [_text(row.get(str(columns["column"]))) for row in rows]
    source = LabelledTexts(
        texts, [_cell(row.get(str(columns["label"]))) for row in rows], name, names=_names(path, rows, key)
    )
    groups = _column(path, rows[0], group, _GROUPS, "group")
    if groups is not None:
        source.groups = np.unique([str(row.get(groups)) for row in rows], return_inverse=True)[1].astype(np.int64)
    parts = _column(path, rows[0], part, _PARTS, "part")
    if parts is not None:
        _divide(source, [str(row.get(parts, "")).strip().lower() for row in rows])
    return source


def _column(path: Path, row: Mapping[str, Any], asked: str | None, usual: Sequence[str], option: str) -> str | None:
    if asked is None:
        return next((c for c in row if str(c).strip().lower() in usual), None)
    if asked not in row:
        raise UserError(
            f"{path}: {option}={asked}: no such column{near(asked, row)}; it has {', '.join(map(str, row))}"
        )
    return asked


def _text(cell: Any) -> str:
    if isinstance(cell, list):
        cell = cell[0] if cell else ""
    return "" if cell is None else str(cell)


def _cell(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _names(path: Path, rows: list[dict[str, Any]], key: str | None) -> list[str] | None:
    found = _column(path, rows[0], key, _NAMES, "key")
    if found is None:
        return None
    names = [str(row.get(found, "")) for row in rows]
    if len(set(names)) == len(names):
        return names
    if key is not None:
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"{path}: key={key}: {twice!r} occurs twice; leave it out, and rows are numbered")
    return None


def _divide(source: LabelledTexts, parts: list[str]) -> None:
    """Take a column of parts as the given split, if its words are those of one."""
    if not set(parts) <= set(_SPLITS) or len(set(parts)) < 2:
        return
    given = np.array([_SPLITS[part] for part in parts], dtype=np.int8)
    if source.given is not None:
        unlabelled = source.given != TRAIN
        given[unlabelled] = source.given[unlabelled]
    source.given = given


def _holds_labels(path: Path, options: Mapping[str, Any]) -> bool:
    """Whether a table's columns are texts and classes: by their names, or because the options name them."""
    if "label" in options:
        return True
    try:
        rows = read_rows(path, limit=1)
    except UserError:
        return False
    called = {str(c).strip().lower() for c in rows[0]} if rows else set()
    words = {str(c) for c, cell in rows[0].items() if isinstance(cell, str | list)} if rows else set()
    has_text = any(str(c).strip().lower() in _MORE_TEXT for c in words) or options.get("column") in words
    return has_text and bool(called & set(LABEL_COLUMNS))


def open_labelled_folder(
    folder: Path, name: str, *, label: str | None = None, column: str | None = None, key: str | None = None,
    group: str | None = None, part: str | None = None,
) -> LabelledTexts:  # fmt: skip
    """The one table of texts in a folder; see `open_labelled_texts`."""
    told = {"label": label, "column": column, "key": key, "group": group, "part": part}
    return open_labelled_texts(folder / walk(folder, _SUFFIXES)[0], name, **told)


def _holds_one_table(folder: Path) -> bool:
    """Whether a folder holds a single table, and that one of texts with classes."""
    tables = walk(folder, _SUFFIXES) if holds_any(folder, _SUFFIXES) else []
    return len(tables) == 1 and _holds_labels(folder / tables[0], {})


_SUFFIXES = (".csv", ".tsv", ".jsonl")
FORMATS = (
    Format("text", 4, _SUFFIXES, file=open_labelled_texts, reads=_holds_labels),
    Format("text", 4, folder=open_labelled_folder, holds=_holds_one_table),
)
