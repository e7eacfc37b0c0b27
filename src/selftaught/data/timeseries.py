"""The text format .ts of aeon and sktime, read without either package.

After ``@data`` every line is one series: channels parted by ``:``, values by ``,``, the class label last. Files that
come as a pair
``NAME_TRAIN.ts`` and ``NAME_TEST.ts`` bring a given split.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from selftaught._reading import text_of
from selftaught.data.labelling import class_values
from selftaught.data.series import RaggedSeries
from selftaught.data.source import TEST, TRAIN
from selftaught.errors import UserError


class TsFile(NamedTuple):
    """What stands in one file: series (C, T_i), the text of each label (or none), the classes that the header lists,
    whether the labels are numbers to predict.
    """

    series: list[np.ndarray]
    labels: list[str]
    classes: list[str]
    regression: bool


def read_ts(path: Path) -> TsFile:
    """Parse one .ts file; a missing value ``?`` becomes NaN.

    Raises:
        UserError: it can't be read, or a line doesn't hold what the header says (the line's number is named).
    """
    try:
        lines = text_of(path, "replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    labelled, stamped, regression, start = False, False, False, None
    classes: list[str] = []
    for number, line in enumerate(lines):
        words = line.strip().split()
        key = words[0].lower() if words else ""
        if key in ("@classlabel", "@targetlabel") and len(words) > 1:
            labelled, classes = words[1].lower() == "true", words[2:] if key == "@classlabel" else []
            regression = labelled and key == "@targetlabel"
        elif key == "@timestamps" and len(words) > 1:
            stamped = words[1].lower() == "true"
        elif key == "@data":
            start = number + 1
            break
    if start is None:
        raise UserError(f"{path}: no line @data in it; a .ts file of aeon or sktime has one")
    if stamped:
        raise UserError(
            f"{path}: series with time stamps are not supported; resample them to equal steps (@timeStamps false)"
        )
    series, labels = [], []
    for number in range(start, len(lines)):
        line = lines[number].strip()
        if line and not line.startswith(("#", "%")):
            channels, label = _line(line, labelled, f"{path.name} line {number + 1}")
            series.append(channels)
            labels.append(label)
    if not series:
        raise UserError(f"{path}: there is no series after @data")
    return TsFile(series, labels if labelled else [], classes, regression)


def open_ts(path: Path, name: str, *, length: int | None = None, rate: float | None = None) -> RaggedSeries:
    """A .ts file, a pair of them, or a folder that holds one pair.

    Args:
        path: ``NAME_TRAIN.ts`` (its ``NAME_TEST.ts`` is found beside it, and the other way round), any other .ts, or a
            folder.
        name: what to call the source.
        length: samples of every series: shorter ones get zeros at the end, longer ones are cropped. None: the longest
            of all.
        rate: sampling rate in Hz.

    Raises:
        UserError: no such file, a broken line, or channels that differ.
    """
    files = _pair(path, name)
    parsed = [read_ts(file) for file in files]
    rows = [row for part in parsed for row in part.series]
    counts = {row.shape[0] for row in rows}
    if len(counts) > 1:
        raise UserError(f"{name}: series of {min(counts)} to {max(counts)} channels in one file; all must have as many")
    if length is not None and length < 1:
        raise UserError(f"{name}: length={length} must be at least 1")
    source = RaggedSeries(rows, length or max(row.shape[1] for row in rows), name, rate)
    labels = [label for part in parsed for label in part.labels] if all(part.labels for part in parsed) else []
    if labels and any(part.regression for part in parsed):
        source.targets = _numbers(labels, name)
    elif labels:
        classes = parsed[0].classes or sorted(set(labels))
        classes = classes + sorted(set(labels) - set(classes))
        source.classes = classes
        source.labels = np.array([classes.index(label) for label in labels], dtype=np.int64)
        source.targets = class_values(source.labels, classes)
    if len(parsed) == 2:
        sizes = [len(part.series) for part in parsed]
        source.given = np.repeat(np.array([TRAIN, TEST], dtype=np.int8), sizes)
        source.names = [f"{split}/{i:05d}" for split, n in zip(("train", "test"), sizes, strict=True) for i in range(n)]
    return source


def _numbers(labels: list[str], name: str) -> np.ndarray:
    """The targets of a regression file, NaN where one is missing."""
    try:
        return np.array([np.nan if v in ("?", "NaN") else float(v) for v in labels], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{name}: @targetLabel true, but a target is no number ({error})") from None


def _pair(path: Path, name: str) -> list[Path]:
    if path.is_dir():
        trains = sorted(path.glob("*_TRAIN.ts"), key=lambda p: (len(p.name), p.name))
        found = trains[:1] or sorted(path.glob("*.ts"))[:1]
        if not found:
            raise UserError(f"{name}: no .ts file in this folder")
        path = found[0]
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    for own, other in (("_TRAIN.ts", "_TEST.ts"), ("_TEST.ts", "_TRAIN.ts")):
        partner = path.with_name(path.name.removesuffix(own) + other)
        if path.name.endswith(own) and partner.is_file():
            return [path, partner] if own == "_TRAIN.ts" else [partner, path]
    return [path]


def _line(line: str, labelled: bool, where: str) -> tuple[np.ndarray, str]:
    fields = line.split(":")
    label = fields.pop().strip() if labelled else ""
    try:
        channels = [
            [float("nan" if v.strip() in ("?", "NaN") else v) for v in field.split(",")]
            for field in fields
            if field.strip()
        ]
    except ValueError:
        raise UserError(f"{where}: not a number between the commas") from None
    if not channels:
        raise UserError(f"{where}: no series in it")
    if len({len(c) for c in channels}) > 1:
        sizes = sorted(map(len, channels))
        raise UserError(f"{where}: its channels have {sizes[0]} to {sizes[-1]} values; they must be equally long")
    return np.array(channels, dtype=np.float32), label
