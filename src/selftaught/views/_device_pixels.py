"""What the operations of :mod:`selftaught.views.spec` do to the pixels of a whole batch, in torch, on any device.

Every step repeats the whole-number arithmetic of the CPU's, so the two agree bit for bit except where OpenCV breaks a
rounding tie another way in the last few pixels of a row: one grey level in fewer than one value in ten thousand. There
is no loop over samples. Where only part of a batch is changed (a blur with probability 0.5), only that part is
computed; which part is read from the parameters on the host, so nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.views import arithmetic
from selftaught.views.operation import executor
from selftaught.views.spec import (
    ORDERS,
    CenterCrop,
    ColorJitter,
    Dihedral,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Solarize,
)


def _to(values: np.ndarray, like: Tensor, dtype: torch.dtype) -> Tensor:
    """A small table on the device of ``like``, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    return tensor.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else tensor.to(like.device)


def _column(values: np.ndarray, like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N,) numbers, to be multiplied with an (N, C, H, W) batch."""
    return _to(values, like, dtype)[:, None, None, None]


def _where(x: Tensor, chosen: np.ndarray, function: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """``function(part, rows)`` in place of the chosen samples; the rest stay as they are."""
    if not chosen.any():
        return x
    rows = np.flatnonzero(chosen)
    if len(rows) == len(x):
        return function(x, rows)
    at = _to(rows, x, torch.int64)
    return x.index_copy(0, at, function(x.index_select(0, at), rows))


def _grey_levels(value: Tensor) -> Tensor:
    """Round (halves to even) and clamp to uint8."""
    return value.round_().clamp_(0, 255).to(torch.uint8)


def _check_boxes(x: Tensor, boxes: np.ndarray) -> None:
    top, left, height, width = boxes.T
    outside = (np.minimum(top, left) < 0) | (np.minimum(height, width) < 1)
    outside |= (top + height > x.shape[2]) | (left + width > x.shape[3])
    if np.any(outside):
        at = int(np.argmax(outside))
        raise UserError(
            f"views: the crop of sample {at} leaves the {x.shape[2]}x{x.shape[3]} image; sample for its own size"
        )


def _gather(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels (N, C, h, w) at per-sample rows (N, h) and columns (N, w)."""
    n, c, _, width = x.shape
    picked = x.gather(2, rows[:, None, :, None].expand(n, c, rows.shape[1], width))
    return picked.gather(3, columns[:, None, None, :].expand(n, c, rows.shape[1], columns.shape[1]))


def _halve(x: Tensor) -> Tensor:
    """Means of 2x2 blocks; an odd last row or column is left out. Ties go up, or to even beyond 1, 3 and 4 channels."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x = x[:, :, :height, :width]
    if x.is_floating_point():
        return (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) * 0.25
    x = x.to(torch.int16)
    total = x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]
    if x.shape[1] in (1, 3, 4):
        return ((total + 2) >> 2).to(torch.uint8)
    return (total / 4).round_().to(torch.uint8)


def _bilinear(x: Tensor, boxes: np.ndarray, out_height: int, out_width: int) -> Tensor:
    """Crop-resize with boxes (N, 4) of whole pixels, in the fixed-point steps of OpenCV's 8-bit bilinear kernel."""
    if x.is_floating_point():
        return _bilinear_float(x, boxes, out_height, out_width)
    top, left, height, width = boxes.T
    (upper, lower, upper_weight, lower_weight) = arithmetic.resize_table(height, out_height)
    (near, far, near_weight, far_weight) = arithmetic.resize_table(width, out_width)
    rows = [_to(place + top[:, None], x, torch.int64) for place in (upper, lower)]
    columns = [_to(place + left[:, None], x, torch.int64) for place in (near, far)]
    across = [_to(weight, x, torch.int32)[:, None, None, :] for weight in (near_weight, far_weight)]
    down = [_to(weight, x, torch.int32)[:, None, :, None] for weight in (upper_weight, lower_weight)]
    total: Tensor | int = 2
    for row, weight in zip(rows, down, strict=True):
        line = _gather(x, row, columns[0]).to(torch.int32) * across[0]
        line += _gather(x, row, columns[1]).to(torch.int32) * across[1]
        total = total + (((line >> 4) * weight) >> 16)
    assert isinstance(total, Tensor)
    return (total >> 2).clamp_(0, 255).to(torch.uint8)


def _bilinear_float(x: Tensor, boxes: np.ndarray, out_height: int, out_width: int) -> Tensor:
    top, left, height, width = boxes.T
    upper, lower, down = arithmetic.resize_places(height, out_height)
    near, far, across = arithmetic.resize_places(width, out_width)
    columns = [_to(place + left[:, None], x, torch.int64) for place in (near, far)]
    right, below = _to(across, x, x.dtype)[:, None, None, :], _to(down, x, x.dtype)[:, None, :, None]
    lines = []
    for place in (upper, lower):
        row = _to(place + top[:, None], x, torch.int64)
        lines.append(_gather(x, row, columns[0]) * (1 - right) + _gather(x, row, columns[1]) * right)
    return lines[0] * (1 - below) + lines[1] * below


def _crop_resize(x: Tensor, size: tuple[int, int], values: np.ndarray) -> Tensor:
    _check_boxes(x, values[:, :4])
    levels = values[:, 4].astype(int)
    out = x.new_empty(len(x), x.shape[1], *size) if levels.min() != levels.max() else None
    for level in range(int(levels.max()) + 1):
        rows = np.flatnonzero(levels == level)
        if len(rows):
            boxes = values[rows, :4].astype(np.int64) >> level
            part = x if out is None else x.index_select(0, _to(rows, x, torch.int64))
            same = bool((boxes == [0, 0, *size]).all()) and part.shape[2:] == size
            done = part if same else _bilinear(part, boxes, *size)
            out = done if out is None else out.index_copy(0, _to(rows, x, torch.int64), done)
        if level < levels.max():
            x = _halve(x)
    assert out is not None
    return out


@executor(RandomResizedCrop, "image", device=True)
@executor(Resize, "image", device=True)
def _resize(x: Tensor, op: RandomResizedCrop | Resize, values: np.ndarray) -> Tensor:
    return _crop_resize(x, op.target(x.shape[2], x.shape[3]), values)


@executor(RandomResizedCrop, "mask", "depth", device=True)
@executor(Resize, "mask", "depth", device=True)
def _nearest(x: Tensor, op: RandomResizedCrop | Resize, values: np.ndarray) -> Tensor:
    x, boxes = x[:, None], values[:, :4].astype(np.int64)
    _check_boxes(x, boxes)
    places = [
        boxes[:, axis, None] + arithmetic.nearest_places(boxes[:, axis + 2, None], out)
        for axis, out in enumerate(op.target(x.shape[2], x.shape[3]))
    ]
    return _gather(x, _to(places[0], x, torch.int64), _to(places[1], x, torch.int64))[:, 0]


@executor(RandomCrop, "image", device=True)
@executor(CenterCrop, "image", device=True)
def _crop(x: Tensor, op: RandomCrop | CenterCrop, values: np.ndarray) -> Tensor:
    height, width = arithmetic.pair(op.size)
    corners = values.astype(np.int64)
    _check_boxes(x, np.hstack([corners, np.full_like(corners, (height, width))]))
    if (corners == corners[0]).all():
        top, left = corners[0].tolist()
        return x[:, :, top : top + height, left : left + width]
    rows = _to(corners[:, :1] + np.arange(height), x, torch.int64)
    return _gather(x, rows, _to(corners[:, 1:] + np.arange(width), x, torch.int64))


@executor(HorizontalFlip, "image", device=True)
def _flip(x: Tensor, op: HorizontalFlip, values: np.ndarray) -> Tensor:
    return _where(x, values[:, 0] > 0, lambda part, _: part.flip(-1))


@executor(Dihedral, "image", device=True)
def _dihedral(x: Tensor, op: Dihedral, values: np.ndarray) -> Tensor:
    code = values[:, 0].astype(int)
    x = _where(x, code % 2 == 1, lambda part, _: part.rot90(1, (2, 3)))
    x = _where(x, code % 4 >= 2, lambda part, _: part.flip(2, 3))
    return _where(x, code >= 4, lambda part, _: part.flip(3))


def _luma_weights(x: Tensor) -> tuple[list[int], int]:
    """Whole weights of the channels in the grey value, and their sum."""
    return (list(arithmetic.LUMA), 32768) if x.shape[1] == 3 else ([1] * x.shape[1], x.shape[1])


def _brightness(x: Tensor, factor: np.ndarray) -> Tensor:
    return _grey_levels(x * _column(arithmetic.quantise(factor), x))


def _contrast(x: Tensor, factor: np.ndarray) -> Tensor:
    precise = torch.float32 if x.device.type == "mps" else torch.float64
    weights, whole = _luma_weights(x)
    totals = x.sum(dim=(2, 3), dtype=torch.int64) * torch.tensor(weights, device=x.device)
    mean = totals.sum(1).to(precise) / (whole * x.shape[2] * x.shape[3])
    scale = arithmetic.quantise(factor)
    offset = (_to(1 - scale, x, precise) * mean * arithmetic.FRACTION).round_() / arithmetic.FRACTION
    return _grey_levels(x * _column(scale, x) + offset.to(torch.float32)[:, None, None, None])


def _channel_mean(x: Tensor) -> Tensor:
    """The mean of all channels, rounded half up; (N, 1, H, W) int32."""
    channels = x.shape[1]
    total = x.sum(dim=1, keepdim=True, dtype=torch.int32)
    return (2 * total + channels).div_(2 * channels, rounding_mode="floor")


def _saturation(x: Tensor, factor: np.ndarray) -> Tensor:
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        scale = arithmetic.quantise(factor)
        return _grey_levels(x * _column(scale, x) + _channel_mean(x) * _column(1 - scale, x))
    matrix = _to(arithmetic.saturation_matrix(factor), x, torch.int32)
    whole = x.to(torch.int32)
    mixed = sum(matrix[:, :, c, None, None] * whole[:, c : c + 1] for c in range(3))
    assert isinstance(mixed, Tensor)
    return ((mixed + arithmetic.FRACTION // 2) >> 10).clamp_(0, 255).to(torch.uint8)


def _hue(x: Tensor, shift: np.ndarray) -> Tensor:
    """Turn the colour circle: RGB to the HSV hexcone, hue plus shift, and back, in float32 on grey levels 0..255."""
    if x.shape[1] != 3:
        return x
    rgb = x.to(torch.float32)
    red, green, blue = rgb.unbind(1)
    value = rgb.amax(1)
    chroma = value - rgb.amin(1)
    scale = 1.0 / chroma.clamp_min(1e-6)
    sextant = torch.where(
        value == red,
        (green - blue) * scale,
        torch.where(value == green, (blue - red) * scale + 2, (red - green) * scale + 4),
    )
    turned = sextant + _to(arithmetic.quantise_hue(shift) * 6, x, torch.float32)[:, None, None]
    channels = []
    for start in (5.0, 3.0, 1.0):
        place = torch.remainder(turned + start, 6.0)
        channels.append(value - chroma * torch.minimum(place, 4.0 - place).clamp_(0.0, 1.0))
    return _grey_levels(torch.stack(channels, 1))


_COLOURS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {
    "b": _brightness,
    "c": _contrast,
    "s": _saturation,
    "h": _hue,
}


@executor(ColorJitter, "image", device=True)
def _color_jitter(x: Tensor, op: ColorJitter, values: np.ndarray) -> Tensor:
    applied, order = values[:, 0] > 0, values[:, 5].astype(int)
    letters = np.array([list(ORDERS[one]) for one in range(len(ORDERS))])[order]
    for place in range(4):
        for column, letter in enumerate("bcsh", start=1):
            factor = values[:, column]
            chosen = applied & (letters[:, place] == letter) & (factor != (0.0 if letter == "h" else 1.0))
            change = _COLOURS[letter]
            x = _where(x, chosen, lambda part, rows, change=change, factor=factor: change(part, factor[rows]))  # type: ignore[misc]
    return x


def _grey(x: Tensor, _: np.ndarray) -> Tensor:
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        return _channel_mean(x).to(torch.uint8).expand_as(x)
    red, green, blue = x.to(torch.int32).unbind(1)
    luma = arithmetic.LUMA[0] * red + arithmetic.LUMA[1] * green + arithmetic.LUMA[2] * blue
    return ((luma + (1 << 14)) >> 15).to(torch.uint8)[:, None].expand_as(x)


@executor(Grayscale, "image", device=True)
def _grayscale(x: Tensor, op: Grayscale, values: np.ndarray) -> Tensor:
    return _where(x, values[:, 0] > 0, _grey)


def _mirror(size: int, radius: int) -> np.ndarray:
    """Positions -radius..size+radius-1 folded back into 0..size-1, the edge not repeated."""
    place = np.abs(np.arange(-radius, size + radius))
    period = max(2 * (size - 1), 1)
    place %= period
    return np.minimum(place, period - place) if size > 1 else place * 0


def _blur_rows(x: Tensor, sigmas: np.ndarray, kernel_size: int | None) -> Tensor:
    kernels = [arithmetic.blur_taps(sigma, kernel_size) for sigma in sigmas.tolist()]
    radius = max(len(taps) for taps in kernels) // 2
    table = np.stack([np.pad(taps, radius - len(taps) // 2) for taps in kernels])
    work = torch.float64 if x.dtype == torch.float64 else torch.float32
    taps = _to(table, x, work)[:, :, None, None, None]
    total = x.to(work)
    for axis in (3, 2):  # sums of whole numbers below 2**24: exact
        size = total.shape[axis]
        wide = total.index_select(axis, _to(_mirror(size, radius), x, torch.int64))
        total = wide.narrow(axis, radius, size) * taps[:, radius]
        for reach in range(1, radius + 1):
            both = wide.narrow(axis, radius - reach, size) + wide.narrow(axis, radius + reach, size)
            total = torch.addcmul(total, both, taps[:, radius - reach])
    total = total / 65536
    return total.to(x.dtype) if x.is_floating_point() else _grey_levels(total)


@executor(GaussianBlur, "image", device=True)
def _blur(x: Tensor, op: GaussianBlur, values: np.ndarray) -> Tensor:
    return _where(x, values[:, 0] > 0, lambda part, rows: _blur_rows(part, values[rows, 1], op.kernel_size))


@executor(Solarize, "image", device=True)
def _solarize(x: Tensor, op: Solarize, values: np.ndarray) -> Tensor:
    return _where(x, values[:, 0] > 0, lambda part, _: torch.where(part >= op.threshold, 255 - part, part))
