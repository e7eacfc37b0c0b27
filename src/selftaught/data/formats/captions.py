"""Folders of images with captions: ``NAME.txt`` beside ``NAME.jpg``, or a table ``captions.csv`` in or beside them.

The table may also lie in each of their sub-folders (``train/captions.csv``, ``test/captions.csv``), and be called
``metadata.csv`` or ``metadata.jsonl`` as the datasets library has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from selftaught._reading import text_of
from selftaught.data.combining.captioned import Captioned
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.files import open_folder
from selftaught.data.formats._format import Format
from selftaught.data.formats.text import NAME_COLUMNS, TEXT_COLUMNS, open_text_table, read_rows, usual_column
from selftaught.data.naming import finder
from selftaught.data.source import Source
from selftaught.errors import UserError

__all__ = ["FORMATS", "captions_tables", "has_captions", "open_captioned"]

_TABLES = tuple(f"captions{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".json", ".txt"))
_METADATA = ("metadata.csv", "metadata.jsonl")
_LOOKED_AT, _TEXTS_LOOKED_AT = 10_000, 100
_FLICKR = re.compile(r"#\d+$")


def has_captions(folder: Path) -> bool:
    """Whether a folder holds a table of captions, or texts beside images (among its first 10,000 files)."""
    if captions_tables(folder):
        return True
    seen = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith((".", "__MACOSX"))]
        texts = {f[:-4] for f in files if f.lower().endswith(".txt")}
        if texts and any(f.lower().endswith(IMAGE_SUFFIXES) and f.rpartition(".")[0] in texts for f in files):
            return True
        seen += len(files)
        if seen > _LOOKED_AT:
            break
    return False


def captions_tables(folder: Path) -> list[Path]:
    """The tables of captions of a folder of images: ``captions.csv``, .tsv, .jsonl, .json (COCO's) or .txt in it or
    right beside it, else one in each sub-folder that has one, else ``metadata.csv`` or .jsonl with a column of texts,
    in the folder or its sub-folders.
    """
    beside = _first((folder, folder.resolve().parent), _TABLES)
    if beside is not None:
        return [beside]
    try:
        inner = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))
    except OSError:
        inner = []
    for places, names in (((), _TABLES), ((folder,), _METADATA)):
        found = [table for place in (*places, *inner) if (table := _first((place,), names)) is not None]
        if found:
            return found
    return []


def _first(places: Sequence[Path], names: Sequence[str]) -> Path | None:
    """The first file of these names; of metadata one that has texts."""
    files = (place / name for place in places for name in names)
    return next((file for file in files if file.is_file() and (names is not _METADATA or _has_texts(file))), None)


def _has_texts(table: Path) -> bool:
    try:
        rows = read_rows(table, limit=1)
    except UserError:
        return False
    return bool(rows) and all(usual_column(rows[0], usual) is not None for usual in (TEXT_COLUMNS, NAME_COLUMNS))


def open_captioned(
    folder: Path,
    name: str,
    *,
    channels: int | None = None,
    captions: str = "",
    key: str | None = None,
    column: str | None = None,
    missing: str = "keep",
) -> Source:
    """The images of a folder (see `open_folder`) with their captions in the field ``text``.

    Args:
        folder: where to look.
        name: what to call the source.
        channels: channels that every image shall have; None: as most of the files.
        captions: file of the captions, in the folder or beside it; "": ``captions.csv`` and the like where there is
            one, else ``NAME.txt`` beside ``NAME.jpg``, several captions as several lines; "none": read no captions.
        key: the table's column of the images' names; None: the first called name, file_name, image ...
        column: the table's column of texts; None: the first called text, caption ...
        missing: images without a caption: "keep" them for what needs no captions, or "drop" them.

    Raises:
        UserError: no image, no such table, no caption for any image, a bare name that two images have.
    """
    if missing not in ("keep", "drop"):
        raise UserError(f"{name}: missing={missing!r} may be keep or drop")
    images = open_folder(folder, name, channels=channels)
    if captions == "none":
        return images
    tables = [_asked(folder, name, captions)] if captions else captions_tables(folder)
    texts, notes = (
        _of_tables(folder, tables, images.names, key, column) if tables else (_beside(folder, images.names), [])
    )
    if not any(texts):
        if captions or not tables or tables[0].parent == folder:
            where = tables[0] if tables else name
            raise UserError(f"{where}: no caption for any of the images in {name}; call them as the files are")
        return images  # the table beside the folder is another folder's, those in it are of other files
    if not captions:
        notes += _unread(folder, tables, images.names)
    source = Captioned(images, texts)
    source.notes = [*source.notes, *notes]
    if source.missing:
        kept = "left out" if missing == "drop" else "kept for what needs none; ?missing=drop leaves them out"
        source.notes = [*source.notes, f"{source.missing:,} images have no caption: {kept}"]
    if source.missing and missing == "drop":
        return source.subset([i for i, found in enumerate(texts) if found])
    return source


def _asked(folder: Path, name: str, captions: str) -> Path:
    for place in (folder, folder.resolve().parent, Path()):
        if (place / captions).is_file():
            return place / captions
    raise UserError(f"{name}: no file {captions} in the folder or beside it")


def _beside(folder: Path, names: Sequence[str]) -> list[list[str]]:
    """Lines of the text file beside each image; none where there is no such file, or it is no text."""
    found: list[list[str]] = []
    for name in names:
        path = (folder / name).with_suffix(".txt")
        try:
            found.append(text_of(path if path.is_file() else path.with_suffix(".TXT")).split("\n"))
        except (OSError, UnicodeDecodeError):
            found.append([])
    return found


def _of_tables(
    folder: Path, tables: Sequence[Path], names: Sequence[str], key: str | None, column: str | None
) -> tuple[list[list[str]], list[str]]:
    """The captions of each image, and what is to be said of them; a table in a sub-folder is of the images in there
    alone, by names from there on.
    """
    found: list[list[str]] = [[] for _ in names]
    notes = []
    for table in tables:
        prefix = f"{table.parent.name}/" if table.parent.parent == folder else ""
        here = [i for i, name in enumerate(names) if name.startswith(prefix)]
        texts, strange = _of_table(table, [names[i].removeprefix(prefix) for i in here], key, column)
        for i, several in zip(here, texts, strict=True):
            found[i] = several
        if strange and folder in (table.parent, table.parent.parent):  # one beside the folder may be of others, too
            few = ", ".join(strange[:3]) + (" ..." if len(strange) > 3 else "")
            are = "1 name is" if len(strange) == 1 else f"{len(strange):,} names are"
            notes.append(f"{prefix}{table.name}: {are} of no image here ({few})")
    return found, notes


def _of_table(
    table: Path, names: Sequence[str], key: str | None, column: str | None
) -> tuple[list[list[str]], list[str]]:
    """The captions of each image, called as :func:`selftaught.data.naming.finder` has it; and the names of none.

    Raises:
        UserError: a name is that of two images.
    """
    find = finder(names, table)
    known: dict[str, list[str]] = {}
    for said, text in _rows(table, key, column):
        known.setdefault(said, []).append(text)
    found: dict[str, list[str]] = {name: [] for name in names}
    strange: dict[str, None] = {}
    for said, texts in known.items():
        bare = _FLICKR.sub("", said)  # of Flickr30k's "1.jpg#0", where no file is called so
        try:
            name = find(said) or (find(bare) if bare != said else None)
        except UserError as error:
            raise UserError(f"{error} (?captions=none reads the images without captions)") from None
        if name is None:
            strange[bare] = None
        else:
            found[name] += texts
    return [found[name] for name in names], list(strange)


def _unread(folder: Path, tables: Sequence[Path], names: Sequence[str]) -> list[str]:
    """What else holds captions beside the tables that are read."""
    more = [name for table in tables for name in _TABLES if name != table.name and (table.parent / name).is_file()]
    if tables and any((folder / name).with_suffix(".txt").is_file() for name in names[:_TEXTS_LOOKED_AT]):
        more.append("NAME.txt beside NAME.jpg")
    if not more:
        return []
    return [f"captions are those of {tables[0].name}, not of {', '.join(dict.fromkeys(more))}"]


def _rows(table: Path, key: str | None, column: str | None) -> list[tuple[str, str]]:
    """(name, text) of each line; a .txt has "name, tab, text" lines, or is a .csv by another name."""
    if table.suffix.lower() == ".txt":
        try:
            lines = text_of(table).split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{table}: can't be read ({error})") from None
        if lines and "\t" in lines[0]:
            parts = [line.partition("\t") for line in lines if line.strip()]
            return [(name.strip(), text) for name, _, text in parts]
    source = open_text_table(table, table.name, key=key, column=column)
    return [(name, text) for name, texts in source.rows() for text in texts]


FORMATS = (Format("image", 0, IMAGE_SUFFIXES, folder=open_captioned, holds=has_captions),)
