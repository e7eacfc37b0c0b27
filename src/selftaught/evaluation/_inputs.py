"""What every protocol accepts: arrays or tensors in, checked once, with errors that say which argument is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError

Array = np.ndarray | Tensor | Sequence[Any]


def as_features(x: Array, name: str = "features") -> Tensor:
    """Features as a finite floating-point matrix, on the device that they came on.

    Args:
        x: ``(n, d)`` or ``(n, ...)`` (flattened to ``(n, d)``, so images serve as raw input); any number type.
            Half precision and integers become float32, float64 stays float64.
        name: what to call the argument in an error.

    Returns:
        ``(n, d)`` detached tensor.

    Raises:
        UserError: not a matrix of numbers, empty, or holding NaN or infinity.
    """
    try:
        tensor = x.detach() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not an array of numbers; pass (n, d) features of one width") from error
    if tensor.ndim < 2:
        raise UserError(f"{name}: shape {tuple(tensor.shape)}; pass one row per sample, (n, d)")
    tensor = tensor.flatten(1)
    if tensor.device.type == "mps":  # no float64 there, which the decompositions need
        tensor = tensor.cpu()
    if 0 in tensor.shape:
        raise UserError(f"{name}: shape {tuple(tensor.shape)} is empty; pass at least one sample and one feature")
    if tensor.dtype != torch.float64:
        tensor = tensor.float()
    bad = int((~torch.isfinite(tensor).all(1)).sum())
    if bad:
        raise UserError(
            f"{name}: NaN or infinity in {bad} of {len(tensor)} rows; the encoder diverged or the input was broken"
        )
    return tensor


def feature_pair(train_x: Array, test_x: Array) -> tuple[Tensor, Tensor]:
    """Training and test features with the same width, type and device (see ``as_features``).

    Raises:
        UserError: as ``as_features``, or the widths differ.
    """
    train, test = as_features(train_x, "train features"), as_features(test_x, "test features")
    if train.shape[1] != test.shape[1]:
        raise UserError(
            f"test features: width {test.shape[1]} where the train features have {train.shape[1]}; "
            "embed both with one encoder"
        )
    return train, test.to(train)


def as_labels(y: Array, n: int, name: str = "labels") -> np.ndarray:
    """Class labels as int64 ``(n,)``; ``(n, 1)`` is squeezed, whole floats are taken as integers.

    Raises:
        UserError: wrong length, several columns, or not whole numbers.
    """
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise UserError(f"{name}: shape {labels.shape}; pass one class index per sample, (n,)")
    if len(labels) != n:
        raise UserError(f"{name}: {len(labels)} labels for {n} samples; pass one label per sample")
    if labels.dtype.kind not in "iubf" or (labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels))):
        raise UserError(f"{name}: not whole numbers; pass class indices")
    return labels.astype(np.int64)


def as_targets(y: Array, n: int, name: str = "targets") -> np.ndarray:
    """Regression targets as finite float64 ``(n, m)``; ``(n,)`` becomes ``(n, 1)``.

    Raises:
        UserError: wrong length or not finite numbers.
    """
    values = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if values.dtype.kind not in "iubf" or values.ndim not in (1, 2) or len(values) != n:
        raise UserError(f"{name}: {values.dtype} {values.shape}; pass numbers, one row for each of the {n} samples")
    values = values.reshape(n, -1).astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: NaN or infinity; drop the samples without a target")
    return values


@dataclass(frozen=True)
class Coded:
    """Labels of a train/test pair as indices into one sorted list of classes.

    Args:
        classes: the distinct labels of train and test together, sorted, ``(k,)``.
        train: indices of the training labels, ``(n,)``.
        test: indices of the test labels, ``(m,)``.
        note: what the reader should know (classes that only one side has); empty if nothing.
    """

    classes: np.ndarray
    train: np.ndarray
    test: np.ndarray
    note: str


def code_labels(train_y: Array, test_y: Array, n_train: int, n_test: int) -> Coded:
    """Check the labels of both sides and number the classes 0..k-1.

    Raises:
        UserError: as ``as_labels``, or the training labels hold a single class.
    """
    train, test = as_labels(train_y, n_train, "train labels"), as_labels(test_y, n_test, "test labels")
    known = np.unique(train)
    if len(known) < 2:
        raise UserError(f"train labels: only class {known[0]}; a classifier needs at least two classes")
    classes = np.unique(np.concatenate([train, test]))
    missing, unseen = np.setdiff1d(known, test), np.setdiff1d(classes, known)
    notes = []
    if len(missing):
        notes.append(f"{_list(missing)} not in the test set")
    if len(unseen):
        notes.append(f"{_list(unseen)} not in the training set, counted as wrong")
    return Coded(classes, np.searchsorted(classes, train), np.searchsorted(classes, test), "; ".join(notes))


def _list(classes: np.ndarray) -> str:
    shown = ", ".join(map(str, classes[:5].tolist()))
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return f"class {shown}" if len(classes) == 1 else f"classes {shown}{more}"


def join_notes(*notes: str) -> str:
    """The non-empty notes, joined with semicolons."""
    return "; ".join(note for note in notes if note)


def stratified_order(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The sample positions of each class (in the order of ``np.unique``), each in random order.

    Prefixes of these lists are stratified subsets that are nested in each other.
    """
    return [rng.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]


def validation_folds(
    labels: np.ndarray, count: int, rng: np.random.Generator, groups: np.ndarray | None = None
) -> np.ndarray:
    """Which samples each fold holds out: ``(n, count)`` bool, every class spread evenly over the folds.

    Args:
        labels: ``(n,)``.
        count: number of folds, at least 2. A class with a single sample is never held out.
        rng: draws the assignment.
        groups: ``(n,)`` subject or recording of each sample; whole groups are held out instead, in spread by their
            size.

    Raises:
        UserError: a single group.
    """
    n = len(labels)
    mask = np.zeros((n, count), dtype=bool)
    if groups is not None:
        names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        if len(names) < 2:
            raise UserError("groups: a single group; holding one out needs at least two")
        load, fold = np.zeros(count), np.zeros(len(names), dtype=int)
        for g in sorted(rng.permutation(len(names)), key=lambda g: -sizes[g]):
            fold[g] = int(load.argmin())
            load[fold[g]] += sizes[g]
        mask[np.arange(n), fold[member]] = True
        return mask
    for shift, members in enumerate(stratified_order(labels, rng)):
        if len(members) > 1:
            mask[members, (np.arange(len(members)) + shift) % count] = True
    return mask


def training_batches(order: Tensor, size: int) -> list[Tensor]:
    """Batches of ``size``; a last one of a single sample joins the one before, since BatchNorm may not take it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
