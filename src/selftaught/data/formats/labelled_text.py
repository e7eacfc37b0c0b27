"""Texts with a class each in tables: reviews.csv with the columns text and label, or the same as .jsonl.

A folder is one such table, or a split of them: train.csv beside test.csv, or each in a folder train/ and test/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from selftaught.data.files import holds_any, walk
from selftaught.data.formats._format import Format
from selftaught.data.formats.text import TEXT_COLUMNS, read_rows
from selftaught.data.labelling import labelling, whole_number
from selftaught.data.layout import split_code, unwrapped
from selftaught.data.source import TEST, TRAIN, UNLABELLED, VAL, Source, digest
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
        classes: Sequence[str] | None = None, given: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Args: n texts; their labels (see `labelling`); what to call the source; name of each; names of classes; the
        given split, as `Source.given`.
        """
        self.name, self._texts = name, [text.strip() for text in texts]
        self.names = list(names) if names is not None else [f"{i:05d}" for i in range(len(texts))]
        found = labelling(labels, classes, given)
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
    return _joined([_Part(path)], name, label=label, column=column, key=key, group=group, part=part)


class _Part(NamedTuple):
    """A table, and which part of a split its folder or name makes it; None: its own columns say."""

    path: Path
    code: int | None = None
    called: str = ""


class _Rows(NamedTuple):
    """What is read of a table, one entry for each row; None: it has no such column."""

    texts: list[str]
    labels: list[str]
    names: list[str] | None
    groups: list[str] | None
    parts: list[str] | None


def _joined(
    tables: Sequence[_Part], name: str, *, label: str | None, column: str | None, key: str | None, group: str | None,
    part: str | None,
) -> LabelledTexts:  # fmt: skip
    """The rows of tables as one source; names of several begin with that of the table ("train/0")."""
    found = [_read(table, label=label, column=column, key=key, group=group, part=part) for table in tables]
    texts = [text for rows in found for text in rows.texts]
    given = _given(tables, found)
    source = LabelledTexts(
        texts, _values([cell for rows in found for cell in rows.labels]), name, names=_names_of(tables, found),
        given=given,
    )  # fmt: skip
    if all(rows.groups is not None for rows in found):
        owners = [owner for rows in found for owner in rows.groups or ()]
        source.groups = np.unique(owners, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return source


def _read(
    table: _Part, *, label: str | None, column: str | None, key: str | None, group: str | None, part: str | None
) -> _Rows:
    """The columns of one table; one to test or without labels may lack those, one to learn from mayn't."""
    path = table.path
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: there is no line in it")
    first = rows[0]
    texts = _column(path, first, column, _MORE_TEXT, "column")
    labels = _label_column(table, first, label)
    for what, option, chosen in (("texts", "column", texts), ("classes", "label", labels)):
        if chosen is None and (option == "column" or table.code in (None, TRAIN)):
            raise UserError(
                f"{path}: which column holds the {what}? say {option}=NAME; it has {', '.join(map(str, first))}"
            )
    groups = _column(path, first, group, _GROUPS, "group")
    parts = _column(path, first, part, _PARTS, "part") if table.code is None else None
    return _Rows(
        [_text(row.get(str(texts))) for row in rows],
        [_cell(path, row.get(labels)) if labels is not None else "" for row in rows],
        _names(path, rows, key),
        None if groups is None else [str(row.get(groups)) for row in rows],
        None if parts is None else [str(row.get(parts, "")).strip().lower() for row in rows],
    )


def _label_column(table: _Part, row: Mapping[str, Any], asked: str | None) -> str | None:
    """The column of the classes; None where a table is there to be learnt from without, or a part to test has none."""
    if table.code == UNLABELLED or (table.code in (VAL, TEST) and asked is not None and asked not in row):
        return None
    return _column(table.path, row, asked, LABEL_COLUMNS, "label")


def _values(cells: list[str]) -> Any:
    """The cells of a column of labels as `labelling` takes them: numbers that aren't whole are numbers to predict, -1
    where it is the only negative number means no label, as does "nan"; other cells are names of classes. 2 and 2.0 are
    one class: a table in which a label lacks often has its numbers as floats.
    """
    cells = ["" if cell.lower() == "nan" else cell for cell in cells]
    try:
        numbers = np.array([float(cell) for cell in cells if cell], dtype=np.float64)
    except ValueError:
        return cells
    if not np.array_equal(numbers, np.round(numbers)):
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    hidden = len(numbers) > 0 and numbers.min() == -1 and set(numbers.tolist()) != {-1.0, 1.0}
    return ["" if hidden and cell and float(cell) == -1 else whole_number(cell) for cell in cells]


def _given(tables: Sequence[_Part], found: Sequence[_Rows]) -> np.ndarray | None:
    """The split (n,) int8: the part that each table is, or that its column says, if its words are those of one."""
    if tables[0].code is not None:
        codes = [TRAIN if code == UNLABELLED else code for _, code, _ in tables]  # `labelling` sees that labels lack
        return np.repeat(np.array(codes, dtype=np.int8), [len(rows.texts) for rows in found])
    words = found[0].parts
    if words is None or not set(words) <= set(_SPLITS) or len(set(words)) < 2:
        return None
    return np.array([_SPLITS[word] for word in words], dtype=np.int8)


def _names_of(tables: Sequence[_Part], found: Sequence[_Rows]) -> list[str] | None:
    if len(tables) == 1:
        return found[0].names
    return [
        f"{table.called}/{own}"
        for table, rows in zip(tables, found, strict=True)
        for own in (rows.names or [f"{i:05d}" for i in range(len(rows.texts))])
    ]


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


def _cell(path: Path, cell: Any) -> str:
    if isinstance(cell, dict | list):
        raise UserError(f"{path}: a label is one word or number, not {str(cell)[:60]}; label=NAME says another column")
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
    """The one table of texts in a folder, or those of a split: train.csv beside test.csv, val.csv or unlabeled.csv.

    Each may lie in a folder of that name instead (train/reviews.csv). Classes are joined by name. A part to test
    without labels is left out, unlabelled texts are there to learn from without labels.

    Args:
        folder: where they lie.
        name: what to call the source.
        label: as `open_labelled_texts`, as are column, key, group and part; for each table.
        column: see there.
        key: see there; the names of a split's samples begin with that of their table: "train/0".
        group: see there.
        part: see there; of no use where the files are the split.

    Raises:
        UserError: as `open_labelled_texts`.
    """
    tables = _parts(folder)
    if not tables:
        raise UserError(
            f"{name}: which of its tables of texts is meant? name one, lay them end to end (a.csv + b.csv), or call "
            "them train.csv and test.csv"
        )
    source = _joined(tables, name, label=label, column=column, key=key, group=group, part=part)
    return source


def _parts(folder: Path) -> list[_Part]:
    """The tables of a folder where they are one, or a split by their names or folders; else none."""
    names = walk(folder, _SUFFIXES)
    if len(names) == 1:
        return [_Part(folder / names[0])]
    found = []
    for name, folders in zip(names, unwrapped([name.split("/") for name in names]), strict=True):
        called = str(PurePosixPath(*folders).with_suffix(""))
        found.append(_Part(folder / name, split_code(called.split("/")[0]), called))
    codes = {part.code for part in found}
    whole = TRAIN in codes and len(codes) > 1 and -1 not in codes
    return sorted(found, key=lambda part: part.code or 0) if whole else []


def _holds_tables(folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether a folder holds a table of texts with classes, a split of them, or several that are no split."""
    if not holds_any(folder, _SUFFIXES):
        return False
    learnt = [part.path for part in _parts(folder) if part.code in (None, TRAIN)]
    learnt = learnt or [folder / name for name in walk(folder, _SUFFIXES)]
    return all(_holds_labels(path, options) for path in learnt)


_SUFFIXES = (".csv", ".tsv", ".jsonl")
FORMATS = (
    Format("text", 4, _SUFFIXES, file=open_labelled_texts, reads=_holds_labels),
    Format("text", 4, folder=open_labelled_folder, reads=_holds_tables),
)
