"""Segmentation of volumes: Dice of every structure in every volume; and whether slices find their place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["dice", "slice_position", "volume_dice"]


def dice(predicted: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """2 |P and T| / (|P| + |T|) of each class (classes,), over all voxels of a volume; NaN where it is in neither.

    Args:
        predicted: whole numbers of any shape.
        truth: the same shape.
        classes: background included.

    Raises:
        UserError: shapes that differ.
    """
    p, t = np.asarray(predicted), np.asarray(truth)
    if p.shape != t.shape or not p.size:
        raise UserError(f"predicted {p.shape} and truth {t.shape}: pass two of one shape")
    p, t = p.ravel().astype(np.int64), t.ravel().astype(np.int64)
    if min(p.min(), t.min()) < 0 or max(p.max(), t.max()) >= classes:
        raise UserError(
            f"classes must lie in 0 .. {classes - 1}, got {min(p.min(), t.min())} .. {max(p.max(), t.max())}"
        )
    both = np.bincount(p[p == t], minlength=classes).astype(np.float64)
    sizes = np.bincount(p, minlength=classes) + np.bincount(t, minlength=classes)
    return np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), np.nan)


@protocol("dice", "structures of volumes against masks: 3-D Dice of each volume", inputs="volumes")
def volume_dice(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    structures: Sequence[str],
    names: Sequence[str] | None = None,
) -> Result:
    """3-D Dice of each structure in each volume; the mean over structures, then over volumes.

    Args:
        predictions: classes (D, H, W) of each volume.
        truths: the same shapes.
        structures: names of the classes, the background first; it isn't judged.
        names: of the volumes, for the figures.

    Returns:
        ``Result`` "dice": ``dice`` (a structure that is in neither mask of a volume doesn't count there), ``dice NAME``
        of each structure; intervals over volumes. Figures: ``per_volume`` (n, structures) and ``worst_first``.

    Raises:
        UserError: unequal lengths, nothing but background everywhere, fewer than two classes.
    """
    if len(predictions) != len(truths) or not len(truths):
        raise UserError(f"{len(predictions)} predictions for {len(truths)} truths: pass one for each, at least one")
    if len(structures) < 2:
        raise UserError(f"structures={list(structures)}: name the background and one structure or more")
    rows = [dice(p, t, len(structures))[1:] for p, t in zip(predictions, truths, strict=True)]
    table = np.stack(rows)
    known = np.isfinite(table)
    if not known.any():
        raise UserError("no volume holds a structure, neither in truth nor in prediction")
    called = [str(i) for i in range(len(truths))] if names is None else list(names)
    kept = np.flatnonzero(known.any(1))
    means = np.array([np.nanmean(table[i]) for i in kept])
    numbers = {"dice": Number.bootstrap(means)}
    for k, structure in enumerate(structures[1:]):
        if known[:, k].any():
            numbers[f"dice {structure}"] = Number.bootstrap(table[known[:, k], k])
    order = kept[np.argsort(means, kind="stable")]
    worst: list[dict[str, Any]] = [
        {"name": called[i], "dice": round(float(np.nanmean(table[i])), 4)}
        | {structure: round(float(table[i, k]), 4) for k, structure in enumerate(structures[1:])}
        for i in order.tolist()
    ]
    return Result("dice", numbers, {"per_volume": table, "names": called, "worst_first": worst})


@protocol("slice-position", "the nearest slice of another volume is of the same partition", inputs="slices")
def slice_position(features: np.ndarray, volume: np.ndarray, part: np.ndarray) -> Result:
    """How often the nearest slice (by cosine) of another volume lies in the same partition.

    Args:
        features: (n, D), one row per slice.
        volume: (n,) which volume it belongs to.
        part: (n,) its partition.

    Returns:
        ``Result`` "slice-position": ``accuracy`` with its interval over slices. With P partitions chance is 1 / P.

    Raises:
        UserError: lengths that differ, a single volume.
    """
    x, volume, part = np.asarray(features, dtype=np.float64), np.asarray(volume), np.asarray(part)
    if x.ndim != 2 or volume.shape != (len(x),) or part.shape != (len(x),):
        raise UserError(f"features {x.shape}, volume {volume.shape}, part {part.shape}: (n, D), (n,) and (n,)")
    if len(np.unique(volume)) < 2:
        raise UserError("slices of one volume have no other volume to look in")
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    near = np.where(volume[:, None] == volume, -np.inf, x @ x.T).argmax(1)
    return Result("slice-position", {"accuracy": Number.bootstrap(part[near] == part)})
