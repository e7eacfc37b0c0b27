"""The device executor: a whole batch at once in torch, on any device, each sample with parameters of its own.

Layouts: image (N, C, H, W), mask and depth (N, H, W), clip (N, C, T, H, W), volume (N, C, D, H, W). Parameters are
drawn once per clip or volume and the same for all its frames, unless the pipeline says ``per_frame``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.views import _device_pixels  # noqa: F401  (declares the executors of views.spec)
from selftaught.views._chain import Step, add_facts, chain
from selftaught.views.operation import HEIGHT_AXIS, Executor, Op
from selftaught.views.pipeline import Pipeline, check_params

__all__ = [
    "render_batch",
]

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_LAYOUTS = {
    "image": "(N, C, H, W)",
    "mask": "(N, H, W)",
    "depth": "(N, H, W)",
    "clip": "(N, C, T, H, W)",
    "volume": "(N, C, D, H, W)",
}


@torch.no_grad()
def render_batch(
    images: Tensor,
    pipeline: Pipeline,
    params: np.ndarray | Tensor,
    *,
    kind: str = "image",
    facts: dict[str, Any] | None = None,
) -> Tensor:
    """Make one view of every sample of a batch.

    Args:
        images: (N, C, H, W) uint8 on any device; crops, flips and dihedral turns take any dtype and keep it, resizing
            and degradations take float32 and float64 as well. For other kinds see the top of this file.
        pipeline: the view's description.
        params: (N, P) from ``pipeline.sample_batch(rng, N, H, W)`` or ``stack_params``, on the host; (N, T, P)
            for clips where the pipeline draws per frame.
        kind: "image" (default), "mask", "depth", "clip" or "volume".
        facts: a dict that takes up what operations report besides the pixels, a tensor (N, ...) each.

    Returns:
        (N, C, h, w) or the kind's layout, on the images' device, of their dtype.

    Raises:
        UserError: wrong dtype or shape, parameters drawn for another pipeline or larger images, or an operation that
            can't be done to this kind.
    """
    if kind not in HEIGHT_AXIS:
        raise UserError(f"views: no pixels in a field of kind {kind!r}; there are {', '.join(HEIGHT_AXIS)}")
    if images.ndim != _LAYOUTS[kind].count(",") + 1 or not images.numel():
        raise UserError(f"render_batch: {kind}s are {_LAYOUTS[kind]}, got {tuple(images.shape)}")
    table = params.cpu().numpy() if isinstance(params, Tensor) else np.asarray(params)
    check_params(pipeline, table, len(images), frames=images.shape[2] if images.ndim == 5 else None)
    signed = _SIGNED.get(images.dtype)  # torch moves few pixels of unsigned types; their bits move as well
    x = source = images if signed is None else images.view(signed)
    steps = chain(pipeline, kind, True, _WRAPPERS)
    if images.dtype != torch.uint8:
        _check_dtype(steps, images.dtype, kind)
    for function, op, start, stop in steps:
        x = function(x, op, table[..., start:stop])
        if type(x) is tuple:
            x, told = x
            add_facts(facts, told, op)
    x = x.clone() if x is source else x.contiguous()
    return x if signed is None else x.view(images.dtype)


def _check_dtype(steps: tuple[Step, ...], dtype: torch.dtype, kind: str) -> None:
    for _, op, _, _ in steps:
        if not (op.takes_any(kind) or (op.floats and dtype in (torch.float32, torch.float64))):
            takes = "uint8 and float32" if op.floats else "uint8"
            raise UserError(f"{type(op).__name__}: works on {takes} images, got {str(dtype).removeprefix('torch.')}")


def _plane(function: Executor, x: Tensor, op: Op, values: np.ndarray) -> Any:
    made = function(x[:, None], op, values)
    return (made[0][:, 0], made[1]) if type(made) is tuple else made[:, 0]


def _frames(function: Executor, x: Tensor, op: Op, values: np.ndarray) -> Any:
    count = x.shape[2]
    made, told = _as_images(function, x, op, np.repeat(values, count, axis=0))
    return (made, {name: fact[:, 0] for name, fact in told.items()}) if told else made


def _rows(function: Executor, x: Tensor, op: Op, values: np.ndarray) -> Any:
    made, told = _as_images(function, x, op, values.reshape(-1, values.shape[2]))
    return (made, told) if told else made


def _as_images(function: Executor, x: Tensor, op: Op, values: np.ndarray) -> tuple[Tensor, dict[str, Tensor]]:
    """Clips (N, C, T, H, W) through a function of images, and its facts as (N, T, ...)."""
    count, frames = x.shape[0], x.shape[2]
    made = function(x.transpose(1, 2).flatten(0, 1), op, values)
    made, told = made if type(made) is tuple else (made, {})
    return (
        made.unflatten(0, (count, frames)).transpose(1, 2),
        {name: fact.unflatten(0, (count, frames)) for name, fact in told.items()},
    )


_WRAPPERS = {
    "plane": lambda function: partial(_plane, function),
    "frames": lambda function: partial(_frames, function),
    "rows": lambda function: partial(_rows, function),
}
