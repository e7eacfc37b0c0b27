"""Texts: folders of .txt files, and tables of captions (.csv, .tsv, .jsonl, COCO's .json)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught._reading import json_of, json_text, regular, text_of
from selftaught.data.csv_rows import csv_rows
from selftaught.data.files import walk
from selftaught.data.formats._format import Format
from selftaught.data.layout import understand
from selftaught.data.source import Source, digest
from selftaught.data.spec import near
from selftaught.errors import SampleError, UserError

__all__ = ["FORMATS", "TextFiles", "TextTable", "open_text_file", "open_text_table", "open_texts", "usual_column"]

NAME_COLUMNS = ("name", "file_name", "filename", "file", "image", "image_name", "path", "id")
TEXT_COLUMNS = ("text", "caption", "captions", "report", "sentence", "description")


class TextFiles(Source):
    """Text files (UTF-8) under a root, one text each, read when asked for."""

    modality = "text"

    def __init__(self, root: Path, names: list[str], name: str) -> None:
        """Args: the folder that `names` start from; the files; what to call the source."""
        self.root, self.name = root, name
        understand(self, names)

    def read(self, i: int, min_side: int | None = None) -> Any:
        """One text, without blanks around it; see `Source.read`."""
        try:
            text = text_of(self.root / self.names[i]).strip()
        except OSError as error:
            raise SampleError(self.names[i], f"can't be opened: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SampleError(self.names[i], "not UTF-8 text") from None
        if not text:
            raise SampleError(self.names[i], "empty text")
        return text

    def fingerprint(self) -> str:
        """Of the files' names, sizes and times of change."""
        stats = [(self.root / name).stat() for name in self.names]
        return digest("texts", list(self.names), np.array([(s.st_size, s.st_mtime_ns) for s in stats], dtype=np.int64))


class TextTable(Source):
    """Texts in memory; a sample that has several is a tuple of them."""

    modality = "text"

    def __init__(self, rows: Iterable[tuple[str, str]], name: str) -> None:
        """Args: (name, text) of each line, names may repeat; what to call the source."""
        found: dict[str, list[str]] = {}
        for key, text in rows:
            found.setdefault(key, []).append(text)
        self.name, self.names = name, list(found)
        self._texts = [tuple(t for t in (text.strip() for text in texts) if t) for texts in found.values()]

    def read(self, i: int, min_side: int | None = None) -> Any:
        """One text, or a tuple where there are several of this name; see `Source.read`."""
        texts = self._texts[i]
        if not texts:
            raise SampleError(self.names[i], "empty text")
        return texts[0] if len(texts) == 1 else texts

    def rows(self) -> list[tuple[str, tuple[str, ...]]]:
        """(name, texts) of every sample."""
        return list(zip(self.names, self._texts, strict=True))

    def fingerprint(self) -> str:
        """Of the content."""
        return digest("text table", list(self.names), ["\0".join(texts) for texts in self._texts])


def open_texts(folder: Path, name: str) -> TextFiles:
    """All .txt files under a folder, one text each; one level of sub-folders is read as classes.

    Raises:
        UserError: there is none.
    """
    names = walk(folder, (".txt",))
    if not names:
        raise UserError(f"{name}: no text in this folder or below; looked for .txt")
    return TextFiles(folder, names, name)


def open_text_file(path: Path, name: str) -> TextFiles:
    """One .txt file as one text."""
    return TextFiles(path.parent, [path.name], name)


def open_text_table(path: Path, name: str, *, key: str | None = None, column: str | None = None) -> TextTable:
    """A table of texts: .csv (commas, semicolons or tabs) or .tsv whose first line names the columns, .jsonl with an
    object in each line, or .json as COCO's captions are.

    Args:
        path: the file.
        name: what to call the source.
        key: column of the names, by which `Pairs` finds partners; None: the first called name, file_name, image ...
        column: column of the texts; None: the first called text, caption, report ...

    Raises:
        UserError: it can't be read, or has no such columns.
    """
    rows = read_rows(path)
    if not rows:
        raise UserError(f"{path}: there is no line in it")
    names = _column(path, rows[0], key, NAME_COLUMNS, "names", "key")
    texts = _column(path, rows[0], column, TEXT_COLUMNS, "texts", "column")
    return TextTable([pair for row in rows for pair in _pairs(path, row, names, texts)], name)


def read_rows(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a table, or the first ``limit``, as column -> cell.

    Raises:
        UserError: it can't be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _coco(path)[:limit]
    return _json_lines(path, limit) if suffix == ".jsonl" else csv_rows(path, limit)


def usual_column(row: Iterable[str], usual: Sequence[str]) -> str | None:
    """The first of the usual names that a column has, in small letters or capitals, with blanks around it or not."""
    called: dict[str, str] = {}
    for column in row:
        called.setdefault(str(column).strip().lower(), column)
    return next((called[name] for name in usual if name in called), None)


def _pairs(path: Path, row: dict[str, Any], names: str, texts: str) -> Iterable[tuple[str, str]]:
    found = row.get(texts)
    several = found if isinstance(found, list) else [found]
    strange = next((text for text in several if isinstance(text, dict | list)), None)
    if strange is not None:
        raise UserError(f"{path}: {texts} of {row.get(names)} is no text and no list of texts: {str(strange)[:60]}")
    return [(str(row.get(names, "")), "" if text is None else str(text)) for text in several]


def _json_lines(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        with regular(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if len(rows) == limit:
                    break
                if line.strip():
                    rows.append(json_text(line))
                    if not isinstance(rows[-1], dict):
                        raise UserError(f"{path}: line {number} is no object with named values")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error})") from None
    except ValueError as error:
        raise UserError(f"{path}: line {number} is no JSON ({getattr(error, 'msg', error)})") from None
    return rows


def _column(path: Path, row: dict[str, Any], asked: str | None, usual: Sequence[str], what: str, option: str) -> str:
    found = asked if asked is not None else usual_column(row, usual)
    if found is None or found not in row:
        hint = near(asked, row) if asked else ""
        first = "; its first line shall name the columns" if path.suffix.lower() in (".csv", ".tsv", ".txt") else ""
        raise UserError(
            f"{path}: which column holds the {what}?{hint} say {option}=NAME; it has {', '.join(map(str, row))}{first}"
        )
    return found


def _coco(path: Path) -> list[dict[str, Any]]:
    """The captions of a file like COCO's: ``images`` (id, file_name) and ``annotations`` (image_id, caption)."""
    try:
        whole = json_of(path)
        files = {image["id"]: image["file_name"] for image in whole["images"]}
        notes = whole["annotations"]
        return [{"file_name": files[note["image_id"]], "caption": note["caption"]} for note in notes]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read as JSON ({error})") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: has no images and annotations with captions as COCO has them ({error})") from None


FORMATS = (
    Format("text", 9, (".txt",), file=open_text_file, folder=open_texts),
    Format("text", 9, (".csv", ".tsv", ".jsonl", ".json"), file=open_text_table),
)
