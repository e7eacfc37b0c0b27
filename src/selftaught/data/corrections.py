"""Labels corrected by hand: the table that ``apply`` writes of suspects, its column ``corrected`` filled in."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from selftaught._reading import regular
from selftaught._words import plural
from selftaught.data.csv_rows import delimiter_of
from selftaught.data.label_noise import WRONG, Mislabelled, Relabelled
from selftaught.data.source import Source, require_labels
from selftaught.data.spec import near
from selftaught.errors import UserError

__all__ = ["LEFT_OUT", "corrected", "read_corrections"]

LEFT_OUT = "-"
"""What stands in place of a class for a sample that is to be left out."""
_COLUMNS = ("name", "corrected")
_INERT = ("=", "+", "-", "@", "\t", "\r")


def read_corrections(path: str | Path) -> dict[str, str]:
    """Name of each sample -> the class that it should have, or "-" to leave it out; rows left empty are not in it.

    Args:
        path: .csv with the columns ``name`` and ``corrected``, in any place among others.

    Raises:
        UserError: it can't be read, lacks a column, is cut off, or corrects a sample in two ways.
    """
    file = Path(path).expanduser()
    try:
        text = regular(file).read_bytes().decode("utf-8-sig", "surrogateescape")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text.partition("\n")[0]))
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise UserError(f"corrections={path}: no column {missing[0]!r}; it needs name and corrected")
        cells = list(table)
        if cells and None in cells[-1].values() and not text.endswith(("\n", "\r")):
            raise UserError(f"corrections={path}: its last line is cut off; save the table again")
        rows = [(row["name"] or "", (row["corrected"] or "").strip()) for row in cells]
    except (OSError, csv.Error) as error:
        raise UserError(f"corrections={path}: can't be read ({error})") from error
    found: dict[str, str] = {}
    for name, label in rows:
        plain = name[1:] if name.startswith("'") and name[1:].startswith(_INERT) else name  # as `csv_bytes` writes it
        if label and found.setdefault(plain, label) != label:
            raise UserError(f"corrections={path}: {plain} is corrected to {found[plain]} and to {label}; leave one")
    return found


def corrected(source: Source, corrections: dict[str, str], whole: Source, where: str) -> Source:
    """A labelled source with some labels corrected, and without samples that are to be left out.

    Args:
        source: part of ``whole``.
        corrections: as `read_corrections` gives them.
        whole: every sample, to tell a name of another part from a wrong one.
        where: the table, for errors.

    Raises:
        UserError: no labels; a name that is no sample's or that several have; a class that there is not.
    """
    labels = require_labels(source)
    classes = source.classes or [str(k) for k in range(int(labels.max(initial=0)) + 1)]
    known = Counter(whole.names)
    corrections = _with_noughts(corrections, known)
    for name, label in corrections.items():
        if known[name] != 1:
            told = "no sample is called so" if not known[name] else f"{known[name]} samples are called so"
            raise UserError(f"corrections={where}: {name}: {told} in {whole.name}")
        if label != LEFT_OUT and label not in classes:
            raise UserError(f"corrections={where}: {name}: there is no class {label}{near(label, classes)}")
    changed = labels.copy()
    gone = np.zeros(len(labels), dtype=bool)
    for i, name in enumerate(source.names):
        label = corrections.get(name, "")
        if label == LEFT_OUT:
            gone[i] = True
        elif label:
            changed[i] = classes.index(label)
    if not gone.any() and np.array_equal(changed, labels):
        return source
    count, away = int((changed != labels)[~gone].sum()), int(gone.sum())
    told = f"{plural(count, 'label')} corrected"
    found: Source = Relabelled(source, changed, told)
    if isinstance(source, Mislabelled):
        found.values = dict(source.values) | {WRONG: (changed != source.parent.labels).astype(np.float32)}
    return found.subset(np.flatnonzero(~gone), f"{told}, {away:,} left out") if gone.any() else found


def _with_noughts(corrections: dict[str, str], known: Mapping[str, int]) -> dict[str, str]:
    """The corrections by the samples' own names where a spreadsheet made 12 of 00012; two of one sample stay two."""
    if all(name in known for name in corrections):
        return corrections
    whole: dict[str, list[str]] = {}
    for name in known:
        if name.isdecimal():
            whole.setdefault(name.lstrip("0") or "0", []).append(name)
    found: dict[str, str] = {}
    for name, label in corrections.items():
        meant = whole.get(name, []) if name not in known else []
        own = meant[0] if len(meant) == 1 and meant[0] not in corrections else name
        found[own] = label
    return found
