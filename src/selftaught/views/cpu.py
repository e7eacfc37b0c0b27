"""The CPU executor: one sample at a time, in OpenCV's SIMD kernels and NumPy.

Layouts: image (H, W, C), mask and depth (H, W), clip (T, H, W, C), volume (D, H, W, C). Parameters are drawn once per
clip or volume and the same for all its frames, unless the pipeline says ``per_frame``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from selftaught.errors import UserError
from selftaught.views import _cpu_pixels  # noqa: F401  (declares the executors of views.spec)
from selftaught.views._chain import Step, add_facts, chain
from selftaught.views.operation import HEIGHT_AXIS, Executor, Op
from selftaught.views.pipeline import Params, Pipeline, check_params

__all__ = [
    "render",
    "render_into",
]

Ready = Callable[[np.ndarray], np.ndarray]
_AXES = {"mask": (2,), "depth": (2,), "clip": (4,), "volume": (4,), "image": (2, 3)}
_SHAPES = {"image": "(height, width, channels)", "mask": "(height, width)", "depth": "(height, width)"}


def render(
    image: Any,
    pipeline: Pipeline,
    params: Params,
    *,
    kind: str = "image",
    facts: dict[str, Any] | None = None,
    ready: Ready | None = None,
) -> Any:
    """Make one view of one sample.

    Args:
        image: (H, W, C) or (H, W) uint8; crops, flips and dihedral turns take any dtype and keep it, resizing and
            degradations take float32 and float64 as well. For other kinds see the top of this file.
        pipeline: the view's description.
        params: (P,) from ``pipeline.sample(rng, H, W)``; (T, P) for a clip where the pipeline draws per frame.
        kind: "image" (default), "mask", "depth", "clip", "volume"; or "text", of a string or several; or "points",
            of a cloud (P, 9+F).
        facts: a dict that takes up what operations report besides the pixels (a kernel, a mask).
        ready: changes the pixels one by one, into the units that the view is made in. It is called after the operations
            at the start that only move pixels, so that a crop is converted and not the whole image. None: nothing is.

    Returns:
        (h, w, C) or the kind's layout, a new contiguous array of the image's dtype; of a text or a cloud what its
        operations make.

    Raises:
        UserError: wrong dtype or shape, parameters drawn for another pipeline or a larger image, or an operation that
            can't be done to this kind.
    """
    if kind in ("text", "points"):
        return _without_pixels(image, pipeline, params, kind)
    view = _run(image, pipeline, params, kind, facts, ready)
    return view.copy() if np.shares_memory(view, image) else np.ascontiguousarray(view)


def render_into(
    out: np.ndarray, image: np.ndarray, pipeline: Pipeline, params: Params, *, channels_first: bool = True
) -> None:
    """Make one view of one image and write it into a slice of a preallocated batch.

    Args:
        out: (C, h, w), or (h, w, C) with ``channels_first=False``, of the image's dtype; any strides.
        image: (H, W, C) or (H, W), as for :func:`render`.
        pipeline: the view's description.
        params: (P,) from ``pipeline.sample(rng, H, W)``.
        channels_first: the layout of ``out`` (default True).

    Raises:
        UserError: as :func:`render`, or ``out`` has another shape or dtype than the view.
    """
    view = _run(image, pipeline, params, "image", None)
    shape = (view.shape[2], *view.shape[:2]) if channels_first else view.shape
    if out.shape != shape or out.dtype != view.dtype:
        raise UserError(f"render_into: the view is {shape} {view.dtype}, the place for it {out.shape} {out.dtype}")
    if channels_first and view.shape[2] == 3 and out[0].flags.c_contiguous and view.dtype == np.uint8:
        cv2.split(view, [out[0], out[1], out[2]])
    else:
        out[...] = view.transpose(2, 0, 1) if channels_first else view


def _run(
    image: np.ndarray,
    pipeline: Pipeline,
    params: Params,
    kind: str,
    facts: dict[str, Any] | None,
    ready: Ready | None = None,
) -> np.ndarray:
    if kind not in HEIGHT_AXIS:
        raise UserError(f"views: no pixels in a field of kind {kind!r}; there are {', '.join(HEIGHT_AXIS)}")
    if image.ndim not in _AXES[kind] or not image.size:
        layout = _SHAPES.get(kind, "(frames, height, width, channels)")
        article = "an image" if kind == "image" else f"a {kind}"
        raise UserError(f"views: {article} is {layout}, got an array of shape {image.shape}")
    x = image[:, :, None] if kind == "image" and image.ndim == 2 else image
    check_params(pipeline, params, frames=len(x) if x.ndim == 4 else None)
    numbers, rows, ndim = params.tolist(), params.ndim == 2, x.ndim
    steps = chain(pipeline, kind, False, _WRAPPERS)
    if ready is None:
        _check_dtype(steps, x.dtype, kind)
    for at, (function, op, start, stop) in enumerate(steps):
        if ready is not None and not op.takes_any(kind):
            x, ready = ready(x), None
            _check_dtype(steps[at:], x.dtype, kind)
        made = function(x, op, [row[start:stop] for row in numbers] if rows else numbers[start:stop])
        if type(made) is tuple:
            made, told = made
            add_facts(facts, told, op)
        x = made if made.ndim == ndim else made[..., None]  # OpenCV drops a last axis of 1
    return x if ready is None else ready(x)


def _without_pixels(sample: Any, pipeline: Pipeline, params: Params, kind: str) -> Any:
    check_params(pipeline, params)
    numbers = params.tolist()
    for function, op, start, stop in chain(pipeline, kind, False, _WRAPPERS):
        sample = function(sample, op, numbers[start:stop])
    return sample


def _check_dtype(steps: tuple[Step, ...], dtype: np.dtype, kind: str) -> None:
    if dtype == np.uint8:
        return
    for _, op, _, _ in steps:
        if not (op.takes_any(kind) or (op.floats and dtype in (np.float32, np.float64))):
            takes = "uint8 and float32" if op.floats else "uint8"
            raise UserError(
                f"{type(op).__name__}: works on {takes} images, got {dtype}; "
                "convert with selftaught.data.as_uint8 first"
            )


def _plane(function: Executor, x: np.ndarray, op: Op, values: list[float]) -> Any:
    made = function(x[:, :, None], op, values)
    if type(made) is tuple:
        return made[0].reshape(made[0].shape[:2]), made[1]
    return made.reshape(made.shape[:2])


def _frames(function: Executor, x: np.ndarray, op: Op, values: list[float]) -> Any:
    return _stacked([function(frame, op, values) for frame in x], same=True)


def _rows(function: Executor, x: np.ndarray, op: Op, values: list[list[float]]) -> Any:
    return _stacked([function(frame, op, row) for frame, row in zip(x, values, strict=True)], same=False)


def _stacked(made: list[Any], same: bool) -> Any:
    """Frames and their facts put together; with equal parameters the first frame's facts are all frames'."""
    if type(made[0]) is not tuple:
        return np.stack(made)
    told = made[0][1] if same else {name: np.stack([one[1][name] for one in made]) for name in made[0][1]}
    return np.stack([one[0] for one in made]), told


_WRAPPERS = {
    "plane": lambda function: partial(_plane, function),
    "frames": lambda function: partial(_frames, function),
    "rows": lambda function: partial(_rows, function),
}
