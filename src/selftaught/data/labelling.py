"""From the values that a data set lists beside its samples to classes, or to numbers to predict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from selftaught._words import lacking
from selftaught.data.source import LEFT_OUT, TRAIN, UNLABELLED

_FLOAT = re.compile(r"[+-]?\d+([.]\d*(e[+-]?\d+)?|e[+-]?\d+)", re.IGNORECASE)


class Labelling(NamedTuple):
    """What listed values mean; see `Source` for each."""

    labels: np.ndarray | None = None
    classes: list[str] | None = None
    targets: np.ndarray | None = None
    given: np.ndarray | None = None
    notes: tuple[str, ...] = ()


def labelling(
    values: Any, names: Sequence[str] | None = None, given: np.ndarray | None = None, combine: bool = True
) -> Labelling:
    """What the values mean that a data set lists, one or a row of them for each sample.

    Text and whole numbers are classes; numbers that are not whole are targets. -1 (where no other value is negative),
    NaN, None and "" stand for a sample without label: it has label -1 and lies in the unlabelled part of the split, or
    in none if it is a test sample. Rows with a single 1 among zeros are classes by its place.

    Args:
        values: (n,), (n, 1) or (n, K).
        names: names of the classes 0, 1, ... where the data set has some.
        given: int8 (n,), the split that it brings, or None.
        combine: whether each different row of K values is a class ("1,11"); False: rows are no labels.
    """
    array = _plain(values)
    if array.ndim == 2:
        rows = _of_rows(array, combine)
        if isinstance(rows, str):
            return Labelling(given=given, notes=(rows,))
        array, names = rows, None
    missing = _missing(array)
    if missing.all():
        return Labelling(given=given, notes=("no labels: all are -1, NaN or empty",) if len(missing) else ())
    present = array[~missing]
    if present.dtype.kind == "f" and not np.array_equal(present, np.round(present)):
        targets = np.where(missing, np.nan, array.astype(np.float64))
        return Labelling(targets=targets, given=given, notes=("the labels are numbers to predict, not classes",))
    codes, classes = _classes(present, names)
    labels = np.full(len(array), -1, dtype=np.int64)
    labels[~missing] = codes
    notes: tuple[str, ...] = ()
    if missing.any():
        given = np.full(len(array), TRAIN, dtype=np.int8) if given is None else given.copy()
        given[missing] = np.where(given[missing] == TRAIN, UNLABELLED, LEFT_OUT)
        notes = (_without(given),)
    return Labelling(labels, classes, class_values(labels, classes), given, notes)


def _plain(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == object and array.ndim == 1:
        here = [v for v in array.tolist() if v is not None and v == v]
        if here and all(isinstance(v, int | float) and not isinstance(v, bool) for v in here):
            return np.array([np.nan if v is None else v for v in array.tolist()], dtype=np.float64)
        return np.array(["" if v is None or v != v else str(v) for v in array.tolist()])
    return array.reshape(-1) if array.ndim != 2 or array.shape[1] == 1 else array


def _of_rows(array: np.ndarray, combine: bool) -> np.ndarray | str:
    """Rows (n, K) as one value each, or why they are none."""
    numeric = array.dtype.kind in "uifb"
    if numeric and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        return array.argmax(axis=1)
    if numeric and not np.array_equal(array, np.round(array)):
        return f"no labels: rows of {array.shape[1]} numbers are neither classes nor one number to predict"
    if not combine:
        return f"no labels: each sample has {array.shape[1]} of them"
    return np.array([",".join(map(str, row)) for row in array.tolist()])


def _missing(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        holes = ~np.isfinite(array)
        return holes | (array == -1) if _only_minus_one(array[~holes]) else holes
    if array.dtype.kind == "i" and _only_minus_one(array):
        return np.asarray(array == -1)
    return np.asarray(array == "") if array.dtype.kind == "U" else np.zeros(len(array), dtype=bool)


def _only_minus_one(array: np.ndarray) -> bool:
    """Whether -1 is the only negative value, among whole numbers."""
    return bool(len(array) and array.min() == -1 and np.array_equal(array, np.round(array)) and not _between(array))


def _between(array: np.ndarray) -> bool:
    """Whether -1 is one of two classes, beside +1 alone."""
    return set(np.unique(array).tolist()) == {-1, 1}


def _classes(present: np.ndarray, names: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    whole = present.astype(np.int64) if present.dtype.kind in "iuf" else None
    if names is not None and whole is not None and int(whole.min()) >= 0 and int(whole.max()) < len(names):
        return whole, [str(name) for name in names]
    return label_codes(present)


def _without(given: np.ndarray) -> str:
    bare, out = int((given == UNLABELLED).sum()), int((given == LEFT_OUT).sum())
    how = "split=pretrain takes them too, split=train leaves them out"
    learnt = f"{lacking(bare, 'sample', 'label')}: {how}" if bare else ""
    tested = f"{lacking(out, 'sample of the test part', 'label')}, left out" if out else ""
    return "; ".join(part for part in (learnt, tested) if part)


def label_codes(values: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Whatever tells classes apart as (labels int64 (n,), names of the classes).

    Integers 0..K-1 keep their value; anything else (text, gaps, negatives) is numbered in sorted order.
    """
    array = np.asarray(values).reshape(-1)
    if array.dtype.kind == "f" and np.array_equal(array, np.round(array)):
        array = array.astype(np.int64)
    found, codes = np.unique(array, return_inverse=True)
    if array.dtype.kind in "iu" and len(found) and found[0] >= 0 and found[-1] < 2 * len(found):
        return array.astype(np.int64), [str(k) for k in range(int(found[-1]) + 1)]
    return codes.reshape(-1).astype(np.int64), [str(v) for v in found]


def whole_number(text: str) -> str:
    """A whole number as those that have no fraction are written, where it is "2.0" or "2e0"; "002" and words stay."""
    if not _FLOAT.fullmatch(text) or abs(float(text)) >= 2**53 or not float(text).is_integer():
        return text
    return str(int(float(text)))


def class_values(labels: np.ndarray | None, classes: Sequence[str] | None) -> np.ndarray | None:
    """The targets (n,) float64 of labels whose classes are all called by numbers ("2.5", "-3", "10"), NaN where the
    label is -1; None where they are not.
    """
    if labels is None or not classes or len(classes) < 2:
        return None
    try:
        values = np.array([float(name) for name in classes], dtype=np.float64)
    except ValueError:
        return None
    return np.where(labels < 0, np.nan, values[np.maximum(labels, 0)]) if np.isfinite(values).all() else None
