"""What the folders of suites hold: images with a line of metadata each, groups, mappings of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selftaught import evaluation
from selftaught._paths import expanded
from selftaught._words import typed
from selftaught.data import METADATA, Metadata, Source, open_source, read_metadata
from selftaught.errors import UserError
from selftaught.run.layout import read_yaml

__all__ = ["described", "folder_of", "groups_of", "mapping_in", "whole"]


def described(folder: Path, *needed: str) -> tuple[Source, Metadata]:
    """The images of a folder that metadata.csv has a line of, with a value in each needed column."""
    source = whole(folder)
    about = read_metadata(folder / METADATA, source, needed)
    rows = about.rows[[all(about.column(name)[k] for name in needed) for k in range(len(about.rows))]]
    if not len(rows):
        raise UserError(f"{folder / METADATA}: no image has a value of {' and '.join(needed)}")
    return source.subset(rows), about.some(rows)


def groups_of(
    by: Sequence[str], about: Metadata, usual: Sequence[str], required: bool = False
) -> dict[str, np.ndarray]:
    """Columns to part the images by; ages and incomes in numbers as buckets."""
    names = list(by) or [name for name in usual if name in about.columns]
    if not names and required:
        raise UserError(f"{about.path} has no column {' or '.join(usual)}; name others with --by")
    found = {}
    for name in names:
        values: Sequence[str] = about.column(name)
        if name.lower() == "age":
            values = evaluation.buckets(values, evaluation.AGES)
        if name.lower() == "income":
            values = evaluation.buckets(values, evaluation.INCOMES, ("low", "medium", "high"))
        found[name] = np.array(values, dtype=object)
    return found


def whole(folder: Path) -> Source:
    """All images of a folder."""
    return open_source(str(folder), modality="image", split="all")


def folder_of(reference: Any) -> Path:
    """The folder that ``--reference`` names.

    Raises:
        UserError: it isn't one.
    """
    path = expanded(reference) if isinstance(reference, str | Path) else None
    if path is None or not path.is_dir():
        raise UserError(f"--reference {typed(reference)}: no such folder")
    return path


def mapping_in(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Name -> names of classes, of a YAML or JSON file.

    Raises:
        UserError: another content.
    """
    content = read_yaml(expanded(path))
    found = {str(name): (v,) if isinstance(v, str) else v for name, v in content.items()}
    for name, names in found.items():
        if not isinstance(names, list | tuple) or not all(isinstance(n, str | int) for n in names):
            raise UserError(f"{path}: {name} should be a name of a class, or a list of names")
    return {name: tuple(map(str, names)) for name, names in found.items()}
