"""How much text is left on pictures after it was erased, as a text detector sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.restoration import check_names, check_unit
from selftaught.evaluation.result import Number, Result

__all__ = ["residual_text"]

_COVERED = 0.5


@protocol("residual-text", "text that a detector still finds where it was erased", inputs="images")
def residual_text(
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    detector: Callable[[np.ndarray], np.ndarray],
    *,
    clean: Sequence[np.ndarray] | None = None,
    boxes: Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> Result:
    """Recall, precision and F of a text detector on pictures whose text was to be erased: all should fall.

    A box counts as found again where detections cover half of it; a detection as text where it covers half of a box
    or lies half within one.

    Args:
        before: the inputs (H, W, C), float in [0, 1].
        after: what was made of them, of the same sizes.
        detector: (H, W, C) uint8 -> boxes (K, 4, 2) corners; `selftaught.data.text_boxes.detect_text`.
        clean: the pictures without text: what the detector finds on them too is no text that was to be erased.
        boxes: (K, 4) left, top, right, bottom of each input's text; None: what the detector finds on it.
        names: what each image is called.

    Returns:
        ``Result`` "residual-text": ``recall``, ``precision``, ``f1`` over all boxes, ``erased`` (1 - recall, the larger
        the better); figures ``found`` and ``boxes`` per image, with ``names``.

    Raises:
        UserError: counts or sizes that don't match, no picture, NaN, bytes or floats of another range.
    """
    lists = [before, after, *(one for one in (clean, boxes) if one is not None)]
    if not len(before) or len({len(one) for one in lists}) > 1:
        raise UserError(f"residual_text: {', '.join(str(len(one)) for one in lists)} pictures; pass one for each")
    check_names(names, before, "picture")
    for kind, images in (("before", before), ("after", after), ("clean", clean or ())):
        for i, image in enumerate(images):
            check_unit(f"{kind}[{i}]", image)
            if np.shape(image) != np.shape(before[i]):
                raise UserError(f"{kind}[{i}]: size {np.shape(image)} where the input has {np.shape(before[i])}")
    rows = []
    for i, (raw, made) in enumerate(zip(before, after, strict=True)):
        text = _rectangles(detector(_bytes(raw))) if boxes is None else np.asarray(boxes[i], np.float64).reshape(-1, 4)
        if clean is not None:
            text = text[~(_share(text, _rectangles(detector(_bytes(clean[i])))) >= _COVERED)]
        found = _rectangles(detector(_bytes(made)))
        again = _share(text, found) >= _COVERED
        true = (_share(found, text) >= _COVERED) | (_largest(text, found) >= _COVERED)
        rows.append([again.sum(), len(text), true.sum(), len(found)])
    table = np.asarray(rows, np.float64)

    def recall(t: np.ndarray) -> float:
        return float(t[:, 0].sum() / max(t[:, 1].sum(), 1))

    def precision(t: np.ndarray) -> float:
        return float(t[:, 2].sum() / max(t[:, 3].sum(), 1))

    def f1(t: np.ndarray) -> float:
        r, p = recall(t), precision(t)
        return 2 * r * p / (r + p) if r + p else 0.0

    measures = {"erased": lambda t: 1 - recall(t), "recall": recall, "precision": precision, "f1": f1}
    numbers = {name: Number.bootstrap(table, measure) for name, measure in measures.items()}
    called = list(names) if names is not None else [str(i) for i in range(len(table))]
    note = f"{plural(int(table[:, 1].sum()), 'box')} of text on {plural(len(table), 'image')}"
    return Result("residual-text", numbers, {"found": table[:, 0], "boxes": table[:, 1], "names": called}, note)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _rectangles(corners: np.ndarray) -> np.ndarray:
    """(K, 4, 2) corners as (K, 4) left, top, right, bottom."""
    corners = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    return np.concatenate([corners.min(1), corners.max(1)], 1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) areas that rectangles share."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(high - low, 0, None).prod(2)


def _areas(a: np.ndarray) -> np.ndarray:
    return np.maximum((a[:, 2:] - a[:, :2]).prod(1), 1e-9)


def _share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each of ``a``: how much of it ``b`` covers (overlaps of ``b`` with itself count twice)."""
    return np.minimum(_overlaps(a, b).sum(1) / _areas(a), 1)


def _largest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each of ``b``: the largest share of one of ``a`` that it covers."""
    if not len(a) or not len(b):
        return np.zeros(len(b))
    return np.asarray((_overlaps(a, b) / _areas(a)[:, None]).max(0))
