"""How close restored videos are to the clean ones: every frame as a picture, and how much they flicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluation.restoration import restoration
from selftaught.evaluation.result import Number, Result

__all__ = ["flicker", "restored_video"]

_CURVES = ("psnr", "ssim")


def restored_video(
    predictions: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    *,
    data_range: float = 255,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Result:
    """PSNR, SSIM and the like of every frame (see `restoration`), and the flicker of every clip.

    Args:
        predictions: clips (T, H, W, C), each of any length and size.
        targets: clean clips of the same sizes.
        data_range: what white is worth.
        names: of the clips; their numbers from 0 if not given.
        **options: of `restoration`: ``channel``, ``shave``.

    Returns:
        ``Result`` "restoration": the numbers of all frames; ``flicker`` (see `flicker`), of grey levels of 255, and
        ``psnr middle``, of the frame in the middle of every clip of three frames or more, with intervals over clips;
        figures ``per_frame``, name of a clip -> {"psnr": (T,), "ssim": (T,)}, besides those of `restoration`.

    Raises:
        UserError: clips of other numbers or sizes than their targets; what `restoration` refuses.
    """
    if len(predictions) != len(targets) or not len(targets):
        raise UserError(f"predictions: {len(predictions)} clips for {len(targets)} targets; pass one for each")
    called = [str(i) for i in range(len(targets))] if names is None else list(names)
    if len(set(called)) != len(targets):
        raise UserError(f"names: {len(set(called))} different ones for {len(targets)} clips; pass one for each")
    for name, made, wanted in zip(called, predictions, targets, strict=True):
        if np.ndim(made) != 4 or np.shape(made) != np.shape(wanted):
            raise UserError(f"clip {name}: shape {np.shape(made)} where the target has {np.shape(wanted)}")
    labels = [f"{name}#{t}" for name, clip in zip(called, targets, strict=True) for t in range(len(clip))]
    found = restoration(
        [frame for clip in predictions for frame in clip],
        [frame for clip in targets for frame in clip],
        data_range=data_range, names=labels, **{"channels": "last"} | options,
    )  # fmt: skip
    ends = np.cumsum([len(clip) for clip in targets])[:-1]
    columns = {key: np.split(np.asarray(found.figures["per_image"][key]), ends) for key in _CURVES}
    curves = {name: {key: columns[key][k].tolist() for key in _CURVES} for k, name in enumerate(called)}
    moving = [k for k, clip in enumerate(targets) if len(clip) > 1]
    values = [flicker(predictions[k], targets[k], data_range) for k in moving]
    numbers = dict(found.numbers) | ({"flicker": Number.bootstrap(values)} if values else {})
    middle = [float(columns["psnr"][k][len(clip) // 2]) for k, clip in enumerate(targets) if len(clip) > 2]
    numbers |= {"psnr middle": Number.bootstrap(middle)} if middle else {}
    return Result("restoration", numbers, dict(found.figures) | {"per_frame": curves}, found.note)


def flicker(prediction: np.ndarray, target: np.ndarray, data_range: float = 255) -> float:
    """How unlike the changes from frame to frame are to those of the clean clip, in grey levels of 255.

    ``255 / data_range * mean | (p_(t+1) - p_t) - (y_(t+1) - y_t) |`` over frames, pixels and channels: 0 for a clip
    that is wrong in the same way in every frame, large where errors come and go.

    Args:
        prediction: (T, H, W, C), T at least 2.
        target: same shape.
        data_range: what white is worth.

    Raises:
        UserError: other shapes, or a single frame.
    """
    if np.shape(prediction) != np.shape(target) or len(target) < 2:
        raise UserError(f"flicker: clips {np.shape(prediction)} and {np.shape(target)}; pass two or more frames each")
    total = 0.0
    for t in range(len(target) - 1):
        error = [np.asarray(p, np.float64) - y for p, y in zip(prediction[t : t + 2], target[t : t + 2], strict=True)]
        total += float(np.abs(error[1] - error[0]).mean())
    return 255 / data_range * total / (len(target) - 1)
