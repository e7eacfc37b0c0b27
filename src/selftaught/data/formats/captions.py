"""Folders of images with captions: ``NAME.txt`` beside ``NAME.jpg``, or a table ``captions.csv`` in or beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from selftaught._reading import text_of
from selftaught.data.combining.captioned import Captioned
from selftaught.data.decoding import IMAGE_SUFFIXES
from selftaught.data.files import open_folder
from selftaught.data.formats._format import Format
from selftaught.data.formats.text import open_text_table
from selftaught.data.source import Source
from selftaught.errors import UserError

__all__ = ["FORMATS", "captions_table", "has_captions", "open_captioned"]

_TABLES = tuple(f"captions{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".json", ".txt"))
_LOOKED_AT = 10_000
_FLICKR = re.compile(r"#\d+$")


def has_captions(folder: Path) -> bool:
    """Whether a folder holds a table of captions, or texts beside images (among its first 10,000 files)."""
    if captions_table(folder) is not None:
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


def captions_table(folder: Path) -> Path | None:
    """``captions.csv``, .tsv, .jsonl, .json (COCO's) or .txt in a folder of images or right beside it, or None."""
    places = (folder, folder.resolve().parent)
    return next((place / name for place in places for name in _TABLES if (place / name).is_file()), None)


def open_captioned(
    folder: Path,
    name: str,
    *,
    channels: int | None = None,
    captions: str = "",
    column: str | None = None,
    missing: str = "keep",
) -> Source:
    """The images of a folder (see `open_folder`) with their captions in the field ``text``.

    Args:
        folder: where to look.
        name: what to call the source.
        channels: channels that every image shall have; None: as most of the files.
        captions: file of the captions, in the folder or beside it; "": ``captions.csv`` and the like where there is
            one, else ``NAME.txt`` beside ``NAME.jpg``, several captions as several lines.
        column: the table's column of texts; None: the first called text, caption ...
        missing: images without a caption: "keep" them for what needs no captions, or "drop" them.

    Raises:
        UserError: no image, no such table, no caption for any image.
    """
    if missing not in ("keep", "drop"):
        raise UserError(f"{name}: missing={missing!r} may be keep or drop")
    images = open_folder(folder, name, channels=channels)
    table = _asked(folder, name, captions) if captions else captions_table(folder)
    texts = _beside(folder, images.names) if table is None else _of_table(table, images.names, column)
    if not any(texts):
        if captions or table is None or table.parent == folder:
            raise UserError(f"{table or name}: no caption for any of the images in {name}; call them as the files are")
        return images  # the table beside the folder is another folder's
    source = Captioned(images, texts)
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
    found = []
    for name in names:
        path = (folder / name).with_suffix(".txt")
        try:
            found.append(text_of(path).splitlines())
        except (OSError, UnicodeDecodeError):
            found.append([])
    return found


def _of_table(table: Path, names: Sequence[str], column: str | None) -> list[list[str]]:
    """The captions of each image: by its relative name, with or without suffix, or by its bare file name."""
    known: dict[str, list[str]] = {}
    for key, text in _rows(table, column):
        known.setdefault(_FLICKR.sub("", key).removeprefix("./"), []).append(text)
    found = []
    for name in names:
        path = PurePosixPath(name)
        ways = (name, str(path.with_suffix("")), path.name, path.stem)
        found.append(next((known[way] for way in ways if way in known), []))
    return found


def _rows(table: Path, column: str | None) -> list[tuple[str, str]]:
    """(name, text) of each line; a .txt has "name, tab, text" lines, or is a .csv by another name."""
    if table.suffix.lower() == ".txt":
        try:
            lines = text_of(table).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{table}: can't be read ({error})") from None
        if lines and "\t" in lines[0]:
            parts = [line.partition("\t") for line in lines if line.strip()]
            return [(key.strip(), text) for key, _, text in parts]
    source = open_text_table(table, table.name, column=column)
    return [(key, text) for key, texts in source.rows() for text in texts]


FORMATS = (Format("image", 0, IMAGE_SUFFIXES, folder=open_captioned, holds=has_captions),)
