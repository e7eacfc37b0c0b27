"""Depth maps against measured depth: the errors and crops that papers on depth from video report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from selftaught._words import plural
from selftaught.errors import UserError
from selftaught.evaluation._protocol import protocol
from selftaught.evaluation.result import Number, Result

__all__ = ["depth", "depth_errors", "evaluation_crop", "median_scale"]

Scaling = Literal["median", "global", "none"]
Crop = Literal["none", "garg", "eigen", "cityscapes"]
NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")
_SHARES = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}


def depth_errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The seven numbers of depth, in the unit of the truth.

    abs_rel = mean |d - t| / t, sq_rel = mean (d - t)^2 / t, rmse, rmse_log (natural), delta_k = share of pixels with
    max(d / t, t / d) < 1.25^k.

    Args:
        predicted: positive numbers of any shape.
        truth: the same shape.

    Raises:
        UserError: shapes that differ, no pixel, numbers that aren't positive.
    """
    d, t = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if d.shape != t.shape or not d.size:
        raise UserError(f"predicted {d.shape} and truth {t.shape}: pass two of one shape, one pixel or more")
    if not (d > 0).all() or not (t > 0).all():
        raise UserError("predicted and truth: depths must be above 0; leave unknown pixels out")
    ratio = np.maximum(d / t, t / d)
    off = d - t
    return {
        "abs_rel": float((np.abs(off) / t).mean()),
        "sq_rel": float((off**2 / t).mean()),
        "rmse": float(np.sqrt((off**2).mean())),
        "rmse_log": float(np.sqrt(((np.log(d) - np.log(t)) ** 2).mean())),
        **{f"delta{k}": float((ratio < 1.25**k).mean()) for k in (1, 2, 3)},
    }


def median_scale(predicted: np.ndarray, truth: np.ndarray) -> float:
    """median(truth) / median(predicted): what a depth without unit is multiplied by, per image."""
    return float(np.median(truth) / np.median(predicted))


def evaluation_crop(height: int, width: int, crop: Crop = "none") -> np.ndarray:
    """Which pixels of a picture are judged, bool (H, W).

    garg: rows .4081 to .9919, columns .0359 to .9641 (KITTI); eigen: rows .3324 to .9135 (Eigen's); cityscapes: the
    lowest quarter dropped, then rows from 256 and columns 192 to 1856 of the 2048 x 1024 picture, as shares here.

    Raises:
        UserError: an unknown crop.
    """
    mask = np.zeros((height, width), dtype=bool)
    if crop == "none":
        return ~mask
    if crop == "cityscapes":
        mask[int(height * 256 / 1024) : int(height * 0.75), int(width * 192 / 2048) : int(width * 1856 / 2048)] = True
        return mask
    if crop not in _SHARES:
        raise UserError(f"crop {crop}: none, garg, eigen or cityscapes")
    top, bottom, left, right = _SHARES[crop]
    mask[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return mask


@protocol("depth", "depth maps against measured depth: AbsRel, RMSE, delta", inputs="depths")
@protocol("depth-weather", "the same on frames altered by weather, light and noise", inputs="depths")
def depth(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    *,
    scaling: Scaling = "median",
    crop: Crop = "none",
    nearest: float = 1e-3,
    farthest: float = 80.0,
    inverse: bool = True,
    masks: Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> Result:
    """Predicted depth against measured depth, image by image.

    Each prediction is brought to the truth's size (as disparity, bilinear), scaled, clamped to the judged range, and
    compared where the truth is known.

    Args:
        predictions: (h, w) disparities 1 / depth, or depths with ``inverse`` False.
        truths: (H, W) depths; 0 or not finite where unknown.
        scaling: median of each image (what has no unit must be), one factor for all (their median), or none.
        crop: see :func:`evaluation_crop`.
        nearest: smallest depth that is judged and predicted.
        farthest: largest.
        inverse: whether predictions are disparities.
        masks: bool (H, W): pixels of an interest of its own, such as what moves; numbers ``NAME_moving`` are of these,
            scaled like the whole image.
        names: of the images, for the figures.

    Returns:
        ``Result`` "depth": abs_rel, sq_rel, rmse, rmse_log, delta1..3, and ``scale_spread``, the deviation of the
        images' factors over their median; with intervals over images. Figures: ``per_image``, ``factors``.

    Raises:
        UserError: unequal lengths, sizes that don't fit, no known depth at all.
    """
    if len(predictions) != len(truths) or not len(truths):
        raise UserError(f"{len(predictions)} predictions for {len(truths)} truths: pass one for each, at least one")
    if masks is not None and len(masks) != len(truths):
        raise UserError(f"masks: {len(masks)} for {len(truths)} images; pass one for each")
    made = [_sized(p, np.asarray(t), inverse) for p, t in zip(predictions, truths, strict=True)]
    known = [_known(np.asarray(t, dtype=np.float64), crop, nearest, farthest) for t in truths]
    rows = [i for i, mask in enumerate(known) if mask.any()]
    if not rows:
        raise UserError("truths: no pixel with a known depth in the range that is judged")
    factors = {i: median_scale(made[i][known[i]], truths[i][known[i]]) for i in rows}
    whole = float(np.median(list(factors.values())))
    table: dict[str, list[float]] = {name: [] for name in NAMES}
    moving: dict[str, list[float]] = {name: [] for name in NAMES}
    for i in rows:
        factor = {"median": factors[i], "global": whole, "none": 1.0}[scaling]
        judged = np.clip(made[i] * factor, nearest, farthest)
        for name, value in depth_errors(judged[known[i]], truths[i][known[i]]).items():
            table[name].append(value)
        part = known[i] & np.asarray(masks[i], dtype=bool) if masks is not None else None
        if part is not None and part.any():
            for name, value in depth_errors(judged[part], truths[i][part]).items():
                moving[name].append(value)
    numbers = {name: Number.bootstrap(values) for name, values in table.items()}
    numbers |= {f"{name}_moving": Number.bootstrap(values) for name, values in moving.items() if values}
    all_factors = np.array([factors[i] for i in rows])
    numbers["scale_spread"] = Number.of(float(np.std(all_factors / whole)))
    called = [names[i] if names is not None else str(i) for i in rows]
    left = len(truths) - len(rows)
    note = f"{scaling} scaling" if scaling != "none" else "no scaling"
    note += f"; {plural(left, 'image')} without known depth left out" if left else ""
    figures = {"per_image": {name: np.array(v) for name, v in table.items()}, "factors": all_factors, "names": called}
    return Result("depth", numbers, figures, note)


def _sized(predicted: np.ndarray, truth: np.ndarray, inverse: bool) -> np.ndarray:
    """A prediction as depth at the truth's size (H, W)."""
    if truth.ndim != 2 or np.ndim(predicted) != 2:
        raise UserError(f"prediction {np.shape(predicted)} and truth {truth.shape}: pass maps (H, W)")
    p = np.asarray(predicted, dtype=np.float32)
    if not np.isfinite(p).all() or not (p > 0).all():
        raise UserError("prediction: NaN, infinite or not above 0; the model diverged")
    disparity: np.ndarray = p if inverse else 1 / p
    if disparity.shape != truth.shape:
        disparity = np.asarray(cv2.resize(disparity, truth.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return 1 / disparity.astype(np.float64)


def _known(truth: np.ndarray, crop: Crop, nearest: float, farthest: float) -> np.ndarray:
    inside = np.isfinite(truth) & (truth > nearest) & (truth < farthest)
    return inside & evaluation_crop(truth.shape[0], truth.shape[1], crop)
