"""What a JPEG of a picture gives back, compiled by Numba and without a file: whole-number arithmetic, to the bit.

    levels -> Y Cb Cr -> colours halved -> per 8 x 8 block: DCT, levels of a quality's table, inverse DCT
           -> colours doubled -> levels

All of it as libjpeg has it ("islow" transforms, colours at half resolution, smooth doubling): the Huffman code between
them loses nothing and is left out. The DCT is that of Loeffler, Ligtenberg and Moschytz (1989) with constants of 13
bits, 16 blocks side by side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught._compiling import compiled, inlined

__all__ = ["compressed", "compressed_grey", "tables"]

Array = NDArray[Any]
_LANES = 16
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = "17 18 24 47 18 21 26 66 24 26 56 99 47 66 99 99"
"""Tables K.1 and K.2 of the standard (ITU T.81); of the second the upper left quarter, the others are 99."""


def _fixed(number: float) -> Any:
    """A constant of the transforms, 13 bits behind the point."""
    return np.int32(round(number * 8192))


_c0_298, _c0_390, _c0_541, _c0_765, _c0_899 = map(
    _fixed, (0.298631336, 0.390180644, 0.541196100, 0.765366865, 0.899976223)
)
_c1_175, _c1_501, _c1_847, _c1_961 = map(_fixed, (1.175875602, 1.501321110, 1.847759065, 1.961570560))
_c2_053, _c2_562, _c3_072 = map(_fixed, (2.053119869, 2.562915447, 3.072711026))
_i0, _i1, _i2, _i3, _i4, _i7, _i8, _i11, _i13, _i15, _i16, _i18 = (
    np.int32(n) for n in (0, 1, 2, 3, 4, 7, 8, 11, 13, 15, 16, 18)
)
_mid, _top, _round = (np.int32(n) for n in (128, 255, 1 << 15))
_u1, _u2, _u3, _u4, _u5, _u6, _u7, _across, _down = (np.uint64(n) for n in (1, 2, 3, 4, 5, 6, 7, _LANES, 8 * _LANES))


@lru_cache(maxsize=100)
def tables(quality: int) -> tuple[Array, Array]:
    """What luma's and colours' coefficients are divided by at a quality from 1 to 100: (64,) int32 each."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    chroma = np.full((8, 8), 99)
    chroma[:4, :4] = np.array(_CHROMA.split(), int).reshape(4, 4)
    both = np.array(_LUMA.split(), int), chroma.reshape(-1)
    luma, colour = (np.clip((table * percent + 50) // 100, 1, 255).astype(np.int32) for table in both)
    return luma, colour


# ---- transforms ------------------------------------------------------------------------------------------------------
@inlined
def _eight(a: Array, k: Any, step: Any) -> Any:
    """Numbers ``step`` apart."""
    near = a[k], a[k + step], a[k + _u2 * step], a[k + _u3 * step]
    return *near, a[k + _u4 * step], a[k + _u5 * step], a[k + _u6 * step], a[k + _u7 * step]


@inlined
def _forward(a: Array, start: Any, step: Any, rows: bool) -> None:
    """A DCT of 8 numbers ``step`` apart in each lane: the first pass, of rows, keeps 2 bits, the second drops them."""
    bits = _i11 if rows else _i15
    half = _i1 << (bits - _i1)
    for lane in range(_LANES):
        k = start + np.uint64(lane)
        x0, x1, x2, x3, x4, x5, x6, x7 = _eight(a, k, step)
        near, far = x0 + x7 + (x3 + x4), x1 + x6 + (x2 + x5)
        even, odd = x1 + x6 - (x2 + x5), x0 + x7 - (x3 + x4)
        d0, d1, d2, d3 = x0 - x7, x1 - x6, x2 - x5, x3 - x4
        if rows:
            a[k], a[k + _u4 * step] = (near + far) << _i2, (near - far) << _i2
        else:
            a[k], a[k + _u4 * step] = (near + far + _i2) >> _i2, (near - far + _i2) >> _i2
        both = (even + odd) * _c0_541 + half
        a[k + _u2 * step] = (both + odd * _c0_765) >> bits
        a[k + _u6 * step] = (both - even * _c1_847) >> bits
        all_ = (d0 + d1 + d2 + d3) * _c1_175 + half
        outer, inner = (d0 + d3) * _c0_899, (d1 + d2) * _c2_562
        ones, twos = all_ - (d1 + d3) * _c1_961, all_ - (d0 + d2) * _c0_390
        a[k + _u7 * step] = (d3 * _c0_298 - outer + ones) >> bits
        a[k + _u5 * step] = (d2 * _c2_053 - inner + twos) >> bits
        a[k + _u3 * step] = (d1 * _c3_072 - inner + ones) >> bits
        a[k + step] = (d0 * _c1_501 - outer + twos) >> bits


@inlined
def _back(a: Array, start: Any, step: Any, rows: bool) -> None:
    """One inverse DCT: the first pass, of columns, keeps 2 bits, the second drops them and the 3 of the scale."""
    bits = _i18 if rows else _i11
    half = _i1 << (bits - _i1)
    for lane in range(_LANES):
        k = start + np.uint64(lane)
        x0, x1, x2, x3, x4, x5, x6, x7 = _eight(a, k, step)
        both = (x2 + x6) * _c0_541
        low, high = both - x6 * _c1_847, both + x2 * _c0_765
        near, far = ((x0 + x4) << _i13) + half, ((x0 - x4) << _i13) + half
        e0, e1, e2, e3 = near + high, far + low, far - low, near - high
        all_ = (x1 + x3 + x5 + x7) * _c1_175
        outer, inner = (x1 + x7) * _c0_899, (x3 + x5) * _c2_562
        ones, twos = all_ - (x3 + x7) * _c1_961, all_ - (x1 + x5) * _c0_390
        o0, o1 = x1 * _c1_501 - outer + twos, x3 * _c3_072 - inner + ones
        o2, o3 = x5 * _c2_053 - inner + twos, x7 * _c0_298 - outer + ones
        a[k], a[k + _u7 * step] = (e0 + o0) >> bits, (e0 - o0) >> bits
        a[k + step], a[k + _u6 * step] = (e1 + o1) >> bits, (e1 - o1) >> bits
        a[k + _u2 * step], a[k + _u5 * step] = (e2 + o2) >> bits, (e2 - o2) >> bits
        a[k + _u3 * step], a[k + _u4 * step] = (e3 + o3) >> bits, (e3 - o3) >> bits


@compiled
def _blocks(plane: Array, table: Array) -> None:
    """A plane of levels, sides multiples of 8, as its blocks' coefficients at a table give it back; in place."""
    across = plane.shape[1] // 8
    count = across * (plane.shape[0] // 8)
    a = np.zeros(64 * _LANES, np.int32)
    for first in range(0, count, _LANES):
        used = min(_LANES, count - first)
        for lane in range(used):
            y, x = (first + lane) // across * 8, (first + lane) % across * 8
            for i in range(8):
                for j in range(8):
                    a[(i * 8 + j) * _LANES + lane] = np.int32(plane[y + i, x + j]) - _mid
        for i in range(8):
            _forward(a, np.uint64(i) * _down, _across, True)
        for j in range(8):
            _forward(a, np.uint64(j) * _across, _down, False)
        for k in range(64):
            divisor, half = table[k] << _i3, table[k] << _i2
            inverse = np.float32(1) / np.float32(divisor)
            for lane in range(_LANES):
                value = a[k * _LANES + lane]
                size = abs(value) + half
                level = np.int32(np.float32(size) * inverse)
                over = size - level * divisor  # the product may be one off
                level = level + np.int32(over >= divisor) - np.int32(over < _i0)
                a[k * _LANES + lane] = (level if value >= _i0 else -level) * table[k]
        for j in range(8):
            _back(a, np.uint64(j) * _across, _down, False)
        for i in range(8):
            _back(a, np.uint64(i) * _down, _across, True)
        for lane in range(used):
            y, x = (first + lane) // across * 8, (first + lane) % across * 8
            for i in range(8):
                for j in range(8):
                    plane[y + i, x + j] = _level(a[(i * 8 + j) * _LANES + lane] + _mid)


@inlined
def _level(x: Any) -> Any:
    return np.uint8(min(max(x, _i0), _top))


# ---- colours ---------------------------------------------------------------------------------------------------------
@compiled
def _row(red: Array, green: Array, blue: Array, luma: Array, cb: Array, cr: Array) -> None:
    """Y, Cb and Cr of a row of pixels."""
    for c in range(red.shape[0]):
        r, g, b = np.int32(red[c]), np.int32(green[c]), np.int32(blue[c])
        luma[c] = np.uint8((_yr * r + _yg * g + _yb * b + _round) >> _i16)
        cb[c] = (_full * b - _br * r - _bg * g + _grey) >> _i16
        cr[c] = (_full * r - _rg * g - _rb * b + _grey) >> _i16


@compiled
def _halved(above: Array, below: Array, colours: Array, row: Any, start: Any) -> None:
    """Means of four, rounded down and up in turn, into ``colours[row]`` from ``start`` on; all of two rows."""
    for j in range(above.shape[0] // 4):
        k = 4 * j
        at = start + 2 * j
        colours[row, at] = np.uint8((above[k] + above[k + 1] + below[k] + below[k + 1] + _i1) >> _i2)
        colours[row, at + 1] = np.uint8((above[k + 2] + above[k + 3] + below[k + 2] + below[k + 3] + _i2) >> _i2)


@compiled
def _parted(red: Array, green: Array, blue: Array, luma: Array, colours: Array) -> None:
    """Y at full, Cb and, right of it, Cr at half resolution; edges go on to the planes' ends."""
    height, width = red.shape
    beside = colours.shape[1] // 2
    full = np.empty((4, 2 * beside), np.int32)
    for i in range((height + 1) // 2):
        for k in range(2):
            y = min(2 * i + k, height - 1)
            _row(red[y], green[y], blue[y], luma[y], full[k], full[2 + k])
            luma[y, width:] = luma[y, width - 1]
            full[k, width:], full[2 + k, width:] = full[k, width - 1], full[2 + k, width - 1]
        _halved(full[0], full[1], colours, i, 0)
        _halved(full[2], full[3], colours, i, beside)
    for y in range(height, luma.shape[0]):
        luma[y] = luma[height - 1]
    for i in range((height + 1) // 2, colours.shape[0]):
        colours[i] = colours[(height - 1) // 2]


_yr, _yg, _yb, _br, _bg, _rg, _rb, _full = (
    np.int32(round(n * 65536)) for n in (0.299, 0.587, 0.114, 0.16874, 0.33126, 0.41869, 0.08131, 0.5)
)
_to_red, _to_blue, _less_red, _less_blue = (np.int32(round(n * 65536)) for n in (1.402, 1.772, 0.71414, 0.34414))
_grey = np.int32((128 << 16) + (1 << 15) - 1)


@compiled
def _doubled(colours: Array, y: Any, columns: Any, rows: Any, line: Array, out: Array) -> None:
    """A row of Cb and Cr at twice the resolution: three parts of the nearest sample, one of the next.

    Both are doubled in one run, and their ends then set right. ``columns`` of either and ``rows`` are those that hold
    samples; ``line`` is room for a row. Two columns or fewer are repeated.
    """
    i, beside = y // 2, colours.shape[1] // 2
    other = min(max(i - 1 + 2 * (y & 1), 0), rows - 1)
    if columns <= 2:
        for start in (0, beside):
            for j in range(start, start + columns):
                out[2 * j] = out[2 * j + 1] = np.int32(colours[i, j])
        return
    for j in range(line.shape[0]):
        line[j] = _i3 * np.int32(colours[i, j]) + np.int32(colours[other, j])
    for j in range(line.shape[0] - 1):
        a, b = line[j], line[j + 1]
        out[2 * j + 1] = (a * _i3 + b + _i7) >> _i4
        out[2 * j + 2] = (b * _i3 + a + _i8) >> _i4
    for start in (0, beside):
        last = start + columns - 1
        out[2 * start], out[2 * last + 1] = (line[start] * _i4 + _i8) >> _i4, (line[last] * _i4 + _i7) >> _i4


@compiled
def _joined(luma: Array, colours: Array, out: Array) -> None:
    """Planes (3, H, W) of red, green and blue."""
    height, width = out.shape[1:]
    rows, columns, full = (height + 1) // 2, (width + 1) // 2, colours.shape[1]
    line, both = np.empty(full, np.int32), np.empty(2 * full, np.int32)
    for y in range(height):
        _doubled(colours, y, columns, rows, line, both)
        _pixels(luma[y], both[:full], both[full:], out[0, y], out[1, y], out[2, y])


@compiled
def _pixels(luma: Array, cb: Array, cr: Array, red: Array, green: Array, blue: Array) -> None:
    for c in range(red.shape[0]):
        level, b, r = np.int32(luma[c]), cb[c] - _mid, cr[c] - _mid
        red[c] = _level(level + ((_to_red * r + _round) >> _i16))
        green[c] = _level(level + ((_round - _less_blue * b - _less_red * r) >> _i16))
        blue[c] = _level(level + ((_to_blue * b + _round) >> _i16))


@compiled
def _apart(pixels: Array, planes: Array) -> None:
    """Red, green, blue, red, green, blue... as a plane of each. Unsigned indices are not looked at for their sign."""
    count = np.uint64(planes.shape[0]) // _u3
    for k in range(count):
        planes[k], planes[count + k] = pixels[_u3 * k], pixels[_u3 * k + _u1]
        planes[_u2 * count + k] = pixels[_u3 * k + _u2]


@compiled
def _together(planes: Array, pixels: Array) -> None:
    """The way back."""
    count = np.uint64(planes.shape[0]) // _u3
    for k in range(count):
        pixels[_u3 * k], pixels[_u3 * k + _u1] = planes[k], planes[count + k]
        pixels[_u3 * k + _u2] = planes[_u2 * count + k]


@compiled
def compressed_grey(x: Array, table: Array, out: Array) -> None:
    """A grey JPEG's levels (H, W); ``table`` (64,) int32 is the first of :func:`tables`."""
    height, width = x.shape
    padded = np.empty(((height + 7) // 8 * 8, (width + 7) // 8 * 8), np.uint8)
    for y in range(height):
        padded[y, :width], padded[y, width:] = x[y], x[y, width - 1]
    for y in range(height, padded.shape[0]):
        padded[y] = padded[height - 1]
    _blocks(padded, table)
    out[:] = padded[:height, :width]


@compiled
def compressed(x: Array, luma: Array, chroma: Array, out: Array) -> None:
    """A JPEG's picture.

    Args:
        x: (H, W, 3) levels in one block.
        luma: (64,) int32, the first of :func:`tables`.
        chroma: the second.
        out: (H, W, 3) levels in one block.
    """
    height, width = x.shape[:2]
    planes = np.empty((3, height, width), np.uint8)
    _apart(x.reshape(-1), planes.reshape(-1))
    bright = np.empty(((height + 7) // 8 * 8, (width + 7) // 8 * 8), np.uint8)
    colours = np.empty(((height + 15) // 16 * 8, (width + 15) // 16 * 16), np.uint8)
    _parted(planes[0], planes[1], planes[2], bright, colours)
    _blocks(bright, luma)
    _blocks(colours, chroma)
    _joined(bright, colours, planes)
    _together(planes.reshape(-1), out.reshape(-1))
